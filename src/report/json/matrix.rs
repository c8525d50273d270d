//! The part of the JSON summary that only several scenarios or repetitions fill.

use serde::Serialize;

use crate::{
    bootstrap::{Interval, RESAMPLES},
    estimate::Quantile,
    micros::Micros,
    relation::Relation,
    repetitions::{OfCell, Repeated},
    report::{
        Paper,
        criteria::{self, State},
    },
};

/// An exit criterion of Phase 1.
#[derive(Serialize)]
pub(super) struct OfCriterion {
    number: u8,
    title: &'static str,
    state: State,
    evidence: String,
    files: Vec<String>,
}

impl OfCriterion {
    pub(super) fn of_run(paper: &Paper<'_>) -> Vec<Self> {
        let of = |r: criteria::Ruling| Self {
            number: r.criterion.number(),
            title: r.criterion.title(),
            state: r.state,
            evidence: r.evidence,
            files: r.files,
        };
        criteria::all(paper).into_iter().map(of).collect()
    }
}

/// Latency by size: milliseconds a megabyte; what of the line is `null` is not known.
#[derive(Serialize)]
pub(super) struct OfRelation {
    payload: &'static str,
    n: u64,
    cells: usize,
    least_bytes: u64,
    most_bytes: u64,
    slope: Option<f64>,
    slope_low: Option<f64>,
    slope_high: Option<f64>,
    intercept: Option<f64>,
    r2: Option<f64>,
}

impl OfRelation {
    pub(super) fn of(r: &Relation) -> Self {
        // Microseconds a byte are seconds a megabyte.
        let slope = |us: f64| us * 1e3;
        Self {
            payload: r.subject.as_str(),
            n: r.n,
            cells: r.cells,
            least_bytes: r.least,
            most_bytes: r.most,
            slope: r.line.map(|l| slope(l.slope)),
            slope_low: r.line.and_then(|l| l.interval).map(|i| slope(i.0)),
            slope_high: r.line.and_then(|l| l.interval).map(|i| slope(i.1)),
            intercept: r.line.map(|l| l.intercept / 1e3),
            r2: r.line.map(|l| l.r2),
        }
    }
}

/// A metric over the repetitions; an end of an interval that is `null` is open, or there are too
/// few repetitions.
#[derive(Serialize)]
pub(super) struct OfRepeated {
    metric: &'static str,
    source: &'static str,
    cells: usize,
    n: usize,
    resamples: usize,
    p50: Option<f64>,
    p50_low: Option<f64>,
    p50_high: Option<f64>,
    p95: Option<f64>,
    p95_low: Option<f64>,
    p95_high: Option<f64>,
    each: Vec<OfOne>,
}

#[derive(Serialize)]
struct OfOne {
    repetition: u32,
    attempt: u32,
    counts: bool,
    n: usize,
    p50: Option<f64>,
    p95: Option<f64>,
}

impl OfRepeated {
    pub(super) fn of(r: &Repeated) -> Self {
        let value = |q: Option<Quantile>| q.map(|q| q.value.as_ms());
        let end =
            |i: Option<Interval>, end: fn(Interval) -> Option<Micros>| i.and_then(end).map(Micros::as_ms);
        let one = |c: &OfCell| OfOne {
            repetition: c.repetition,
            attempt: c.attempt,
            counts: c.counts,
            n: c.n,
            p50: value(c.p50),
            p95: value(c.p95),
        };
        Self {
            metric: r.metric.as_str(),
            source: r.source.as_str(),
            cells: r.counting,
            n: r.jobs,
            resamples: if r.p50_interval.is_some() { RESAMPLES } else { 0 },
            p50: value(r.p50),
            p50_low: end(r.p50_interval, |i| i.low),
            p50_high: end(r.p50_interval, |i| i.high),
            p95: value(r.p95),
            p95_low: end(r.p95_interval, |i| i.low),
            p95_high: end(r.p95_interval, |i| i.high),
            each: r.cells.iter().map(one).collect(),
        }
    }
}
