//! The part of the JSON summary on the target's own metrics. Seconds and bytes, as they are scraped.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{estimate::Buckets, micros::Offset, report::target_tables, summary::ScenarioSummary};

/// What the target counted in the cells of a scenario.
#[derive(Serialize)]
pub(super) struct OfMetrics {
    cells: usize,
    left_out: Vec<String>,
    stage_seconds: BTreeMap<String, OfBuckets>,
    job_seconds: Option<OfBuckets>,
    payload_bytes: BTreeMap<String, OfBuckets>,
    request_seconds: Vec<OfRequests>,
    against: Vec<OfBeside>,
}

/// A quantile lies between `low` and `high`; without `high` beyond the last bucket.
#[derive(Serialize)]
struct OfBuckets {
    n: u64,
    mean: Option<f64>,
    p50: Option<Figure>,
    p90: Option<Figure>,
    p95: Option<Figure>,
    p99: Option<Figure>,
    max: Option<Figure>,
}

#[derive(Serialize)]
struct Figure {
    value: f64,
    low: f64,
    high: Option<f64>,
}

#[derive(Serialize)]
struct OfRequests {
    method: String,
    endpoint: String,
    #[serde(flatten)]
    figures: OfBuckets,
}

/// The same stage by another source; the difference of the medians in milliseconds.
#[derive(Serialize)]
struct OfBeside {
    stage: &'static str,
    source: &'static str,
    n: usize,
    n_there: usize,
    difference: Option<f64>,
    in_one_bucket: bool,
}

impl OfMetrics {
    pub(super) fn of(s: &ScenarioSummary) -> Option<Self> {
        let m = &s.metrics;
        let named = |all: &BTreeMap<String, Buckets>| {
            all.iter().map(|(k, b)| (k.clone(), OfBuckets::of(b))).collect()
        };
        (!m.is_empty()).then(|| Self {
            cells: m.cells,
            left_out: m.left_out.clone(),
            stage_seconds: named(&m.stages),
            job_seconds: (m.jobs.count() > 0).then(|| OfBuckets::of(&m.jobs)),
            payload_bytes: named(&m.payloads),
            request_seconds: m
                .requests
                .iter()
                .map(|((method, endpoint), b)| OfRequests {
                    method: method.clone(),
                    endpoint: endpoint.clone(),
                    figures: OfBuckets::of(b),
                })
                .collect(),
            against: target_tables::beside(s)
                .into_iter()
                .map(|b| OfBeside {
                    stage: b.stage,
                    source: b.other.as_str(),
                    n: b.n[0],
                    n_there: b.n[1],
                    difference: b.apart.map(Offset::as_ms),
                    in_one_bucket: b.agrees,
                })
                .collect(),
        })
    }
}

impl OfBuckets {
    fn of(b: &Buckets) -> Self {
        let at = |q| b.quantile(q).map(|w| Figure { value: w.value, low: w.low, high: w.high });
        let (p50, p90, p95, p99, max) = (at(0.5), at(0.9), at(0.95), at(0.99), at(1.0));
        Self { n: b.count(), mean: b.mean(), p50, p90, p95, p99, max }
    }
}
