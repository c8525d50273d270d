//! What the page counts, out of what workers have sent.

use std::collections::BTreeMap;

use crate::{
    histogram::Histogram,
    payload::PayloadKind,
    posts::CellPosts,
    snapshot::{Job, Phase, Totals},
    timeline::{JobOutcome, Stage},
};

/// Upper bounds of payload buckets in bytes: three a doubling or so, from 100 B to 500 MB.
const BYTES: [f64; 6] = [1.0, 1.5, 2.0, 3.0, 5.0, 7.0];

/// The figures of one scenario.
#[derive(Debug, Clone, Default)]
pub(super) struct Figures {
    /// By method, endpoint and whether it succeeded.
    pub(super) requests: BTreeMap<(String, String, &'static str), Histogram>,
    pub(super) stages: BTreeMap<&'static str, Histogram>,
    /// By outcome.
    pub(super) durations: BTreeMap<&'static str, Histogram>,
    pub(super) jobs: BTreeMap<&'static str, u64>,
    pub(super) in_flight: u64,
    pub(super) polls: u64,
    pub(super) payloads: BTreeMap<&'static str, Sizes>,
}

/// Sizes, counted between fixed bounds.
#[derive(Debug, Clone)]
pub(super) struct Sizes {
    /// One a bound, and those beyond the last.
    pub(super) counts: Vec<u64>,
    pub(super) sum: u64,
}

impl Default for Sizes {
    fn default() -> Self {
        Self { counts: vec![0; Self::bounds().count() + 1], sum: 0 }
    }
}

impl Sizes {
    /// Upper bounds, in bytes.
    pub(super) fn bounds() -> impl Iterator<Item = f64> {
        (2..9).flat_map(|power| BYTES.map(|step| step * 10_f64.powi(power)))
    }

    fn add(&mut self, bytes: u64) {
        let at = Self::bounds().position(|b| bytes as f64 <= b).unwrap_or(self.counts.len() - 1);
        self.counts[at] += 1;
        self.sum += bytes;
    }
}

impl Figures {
    /// Of the stretches of one cell.
    pub(super) fn of(so_far: &[&Totals]) -> Self {
        let mut figures = Self::default();
        for totals in so_far {
            for (key, stats) in totals.phase(Phase::Load) {
                for (outcome, h) in [("ok", &stats.ok), ("failed", &stats.failed)] {
                    if h.count() > 0 {
                        let key = (key.method.clone(), key.name.clone(), outcome);
                        figures.requests.entry(key).or_default().merge(h);
                    }
                }
                if key.method == "GET" && key.name == "/jobs" {
                    figures.polls += stats.count();
                }
            }
            totals.jobs.values().for_each(|job| figures.add(job));
            let p = &totals.progress;
            figures.in_flight += p.submitted.saturating_sub(p.done + p.failed);
        }
        figures
    }

    fn add(&mut self, job: &Job) {
        let outcome = job.outcome.kind();
        *self.jobs.entry(outcome).or_default() += 1;
        // A refused submit made no job; the reports have it so, too.
        let refused = matches!(job.outcome, JobOutcome::Rejected { .. });
        for stage in Stage::CLIENT {
            let Some(span) = job.timeline.stage(stage) else { continue };
            if stage == Stage::EndToEnd {
                self.durations.entry(outcome).or_default().record(span.midpoint());
            } else if span.most.is_some() && (!refused || stage == Stage::Submit) {
                self.stages.entry(stage.as_str()).or_default().record(span.midpoint());
            }
        }
        for kind in PayloadKind::ALL {
            if let Some(payload) = kind.of(job) {
                self.payloads.entry(kind.as_str()).or_default().add(payload.decoded);
            }
        }
    }

    /// Adds what the tap saw.
    pub(super) fn add_posts(&mut self, posts: &CellPosts) {
        for kind in PayloadKind::ALL {
            for payload in kind.of_posts(posts) {
                self.payloads.entry(kind.as_str()).or_default().add(payload.decoded);
            }
        }
    }

    /// Jobs by outcome, those that there were none of included: a counter begins at zero.
    pub(super) fn outcomes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        JobOutcome::KINDS.into_iter().map(|kind| (kind, self.jobs.get(kind).copied().unwrap_or(0)))
    }

    /// How much was counted, to tell less from more.
    pub(super) fn size(&self) -> u64 {
        self.jobs.values().sum::<u64>() + self.requests.values().map(Histogram::count).sum::<u64>()
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (key, h) in &other.requests {
            self.requests.entry(key.clone()).or_default().merge(h);
        }
        for (ours, theirs) in [(&mut self.stages, &other.stages), (&mut self.durations, &other.durations)] {
            for (key, h) in theirs {
                ours.entry(key).or_default().merge(h);
            }
        }
        for (key, n) in &other.jobs {
            *self.jobs.entry(key).or_default() += n;
        }
        self.in_flight += other.in_flight;
        self.polls += other.polls;
        for (key, sizes) in &other.payloads {
            let ours = self.payloads.entry(key).or_default();
            ours.counts.iter_mut().zip(&sizes.counts).for_each(|(a, b)| *a += b);
            ours.sum += sizes.sum;
        }
    }
}
