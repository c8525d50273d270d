//! What the cells of a scenario add up to, collected in one walk.

use std::{collections::BTreeMap, thread};

use super::{Observer, Source, StageSummary, TargetMetrics};
use crate::{
    estimate::{Collecting, Span},
    payload::{Payload, PayloadKind, Sizes},
    posts,
    record::CellRecord,
    snapshot::{Job, RequestKey, RequestStats},
    timeline::{JobOutcome, Stage},
};

/// What the jobs of a scenario add up to, collected in one walk: a run may have millions.
#[derive(Default)]
pub(super) struct Pooled {
    jobs: u64,
    polls: u64,
    poll_bytes: u64,
    stages: [Collecting; Stage::CLIENT.len()],
    /// What the tap says of the stages that it can tell; unused without one.
    tap: [Collecting; Stage::TAP.len()],
    is_tapped: bool,
    payloads: [Vec<Payload>; PayloadKind::ALL.len()],
}

impl Pooled {
    /// Walks the jobs of some cells, on as many threads as there are cores.
    pub(super) fn of(cells: &[&CellRecord]) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let walks: Vec<_> = cells
                .chunks(cells.len().div_ceil(threads).max(1))
                .map(|part| {
                    scope.spawn(move || {
                        let mut pooled = Self::default();
                        part.iter().for_each(|cell| pooled.add_cell(cell));
                        pooled
                    })
                })
                .collect();
            walks.into_iter().fold(Self::default(), |mut all, walk| {
                all.merge(walk.join().expect("adding up does not panic"));
                all
            })
        })
    }

    fn merge(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.polls += other.polls;
        self.poll_bytes += other.poll_bytes;
        for (ours, theirs) in self.stages.iter_mut().zip(other.stages) {
            ours.merge(theirs);
        }
        for (ours, theirs) in self.tap.iter_mut().zip(other.tap) {
            ours.merge(theirs);
        }
        self.is_tapped |= other.is_tapped;
        for (ours, theirs) in self.payloads.iter_mut().zip(other.payloads) {
            ours.extend(theirs);
        }
    }

    fn add_cell(&mut self, cell: &CellRecord) {
        cell.totals.jobs.values().for_each(|job| self.add(job));
        let Some(posts) = &cell.posts else { return };
        self.is_tapped = true;
        let attribution = posts::attribution(&cell.totals, posts);
        for (stage, collecting) in Stage::TAP.into_iter().zip(&mut self.tap) {
            attribution.spans(stage).into_iter().for_each(|span| collecting.add(span));
        }
        for (kind, payloads) in PayloadKind::ALL.into_iter().zip(&mut self.payloads) {
            payloads.extend(kind.of_posts(posts));
        }
    }

    fn add(&mut self, job: &Job) {
        self.jobs += 1;
        self.polls += u64::from(job.timeline.polls);
        self.poll_bytes += job.timeline.poll_bytes;
        for (stage, collecting) in Stage::CLIENT.into_iter().zip(&mut self.stages) {
            if let Some(span) = of_client(job, stage) {
                collecting.add(span);
            }
        }
        for (kind, payloads) in PayloadKind::ALL.into_iter().zip(&mut self.payloads) {
            payloads.extend(kind.of(job));
        }
    }

    pub(super) fn observer(
        &self,
        requests: &BTreeMap<RequestKey, RequestStats>,
        all: &RequestStats,
    ) -> Observer {
        let time = |s: &RequestStats| (s.ok.sum() + s.failed.sum()).0 as f64;
        let polling: f64 = requests
            .iter()
            .filter(|(k, _)| k.method == "GET" && k.name == "/jobs")
            .map(|(_, s)| time(s))
            .sum();
        Observer {
            polls_per_job: if self.jobs == 0 { 0.0 } else { self.polls as f64 / self.jobs as f64 },
            poll_bytes: self.poll_bytes,
            share_of_api_time: if time(all) == 0.0 { 0.0 } else { polling / time(all) },
        }
    }

    pub(super) fn payloads(&self) -> Vec<Sizes> {
        let all = PayloadKind::ALL.into_iter().zip(&self.payloads);
        all.filter(|(_, p)| !p.is_empty()).map(|(kind, p)| Sizes::of(kind, p)).collect()
    }

    /// Each stage by each source that tells it, in the order of a job's life; of several sources the
    /// best first.
    pub(super) fn stages(self, metrics: &TargetMetrics) -> Vec<StageSummary> {
        let of_client =
            Stage::CLIENT.into_iter().zip(self.stages).map(|(stage, c)| (stage, source(stage), c));
        let of_tap = Stage::TAP.into_iter().zip(self.tap).map(|(stage, c)| (stage, Source::Tap, c));
        let all: Vec<_> = of_tap.filter(|_| self.is_tapped).chain(of_client).collect();
        // Sorting is most of the work on a large run, and the stages have nothing to do with each
        // other.
        let mut all: Vec<StageSummary> = thread::scope(|scope| {
            let sorting: Vec<_> = all
                .into_iter()
                .map(|(stage, source, c)| (stage, source, scope.spawn(move || c.finish())))
                .collect();
            sorting
                .into_iter()
                .map(|(stage, source, sorted)| {
                    let sample = sorted.join().expect("sorting does not panic");
                    StageSummary { stage, source, sample }
                })
                .collect()
        });
        let source = Source::Metrics;
        all.extend(metrics.samples().map(|(stage, sample)| StageSummary { stage, source, sample }));
        all.sort_by_key(|s| (Stage::ALL.into_iter().position(|x| x == s.stage), s.source.rank()));
        all
    }
}

/// How long a stage of a job took for its client; a job that was refused has nothing but its submit.
fn of_client(job: &Job, stage: Stage) -> Option<Span> {
    let refused = matches!(job.outcome, JobOutcome::Rejected { .. });
    if refused && stage != Stage::Submit { None } else { job.timeline.stage(stage) }
}

/// How a client comes to know a stage.
fn source(stage: Stage) -> Source {
    if stage.is_polled() { Source::Poll } else { Source::Client }
}

/// A stage of the jobs of one cell, one by one.
#[derive(Debug)]
pub struct Spans {
    /// The stage.
    pub stage: Stage,
    /// Who clocked it.
    pub source: Source,
    /// How long it took, in no order.
    pub spans: Vec<Span>,
}

/// The same durations that a summary pools, of one cell.
pub fn spans_of(cell: &CellRecord) -> Vec<Spans> {
    let jobs = || cell.totals.jobs.values();
    let mut all: Vec<Spans> = Stage::CLIENT
        .into_iter()
        .map(|stage| {
            let spans = jobs().filter_map(|job| of_client(job, stage)).collect();
            Spans { stage, source: source(stage), spans }
        })
        .collect();
    if let Some(posts) = &cell.posts {
        let attribution = posts::attribution(&cell.totals, posts);
        let of = |stage| Spans { stage, source: Source::Tap, spans: attribution.spans(stage) };
        all.extend(Stage::TAP.into_iter().map(of));
    }
    all
}
