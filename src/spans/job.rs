//! Jobs and their stages, out of the record of a cell.
//!
//! A stage that polling bounds begins and ends at the midpoints of what is known, and says how far
//! off these may be. What a tap told of a job is on the tap's clock and has no place here: its
//! durations are attributes of the job.

use std::sync::Arc;

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::{Outline, number};
use crate::{
    estimate::Span,
    micros::Micros,
    plan::Cell,
    posts::{Life, attribution},
    record::CellRecord,
    snapshot::{Job, JobKey},
    timeline::{JobOutcome, Stage},
    trace::Trace,
};

/// Stages with a beginning and an end of their own.
const STAGES: [Stage; 5] = [Stage::Submit, Stage::Queue, Stage::Run, Stage::Merge, Stage::Fetch];

/// The jobs of a cell, waiting to become spans.
#[derive(Debug)]
pub(super) struct CellSpans {
    run_id: Arc<str>,
    cell: Cell,
    t0_unix: u64,
    pub(super) jobs: Vec<(JobKey, Seen)>,
}

/// A job, and the stages that a tap told of it.
#[derive(Debug)]
pub(super) struct Seen {
    job: Job,
    tap: Vec<(Stage, Span)>,
}

impl CellSpans {
    pub(super) fn of(record: &CellRecord, run_id: Arc<str>) -> Self {
        let told = record.posts.as_ref().map(|posts| (attribution(&record.totals, posts), posts.until));
        let tap = |key: &JobKey, job: &Job| {
            let (told, until) = told.as_ref()?;
            let life = Life::of(told.known.get(key)?.1, job.tasks.map(|tasks| tasks.all));
            let stages = Stage::TAP.into_iter().filter_map(|s| Some((s, life.stage(s, *until)?)));
            Some(stages.collect())
        };
        let jobs = record.totals.jobs.iter();
        let jobs =
            jobs.map(|(key, job)| (*key, Seen { job: job.clone(), tap: tap(key, job).unwrap_or_default() }));
        Self { run_id, cell: record.cell.clone(), t0_unix: record.t0_unix, jobs: jobs.collect() }
    }

    /// How many spans it will be.
    pub(super) fn count(&self) -> u64 {
        self.jobs.iter().map(|(_, seen)| 1 + stages(&seen.job).count() as u64).sum()
    }

    /// A job and its stages.
    pub(super) fn spans(&self, key: JobKey, seen: &Seen, scope: &InstrumentationScope) -> Vec<SpanData> {
        let Seen { job, tap } = seen;
        let trace = Trace::of(&job.title);
        let mut attributes = vec![
            KeyValue::new("springtide.run_id", Arc::clone(&self.run_id)),
            KeyValue::new("springtide.scenario", self.cell.scenario.to_string()),
            number("springtide.repetition", self.cell.repetition),
            number("springtide.worker", job.worker),
            number("springtide.user", key.user),
            number("springtide.nth", key.nth),
            number("springtide.tasks", self.cell.tasks),
            number("springtide.polls", job.timeline.polls),
            KeyValue::new("springtide.outcome", job.outcome.kind()),
        ];
        attributes.extend(job.job_id.clone().map(|id| KeyValue::new("springtide.job_id", id)));
        for (stage, span) in tap {
            attributes.push(KeyValue::new(format!("springtide.tap.{stage}_ms"), span.midpoint().as_ms()));
            if let Some(half) = uncertainty(*span) {
                attributes.push(half.named(format!("springtide.tap.{stage}")));
            }
        }
        let status = match &job.outcome {
            JobOutcome::Fetched => Status::Ok,
            other => Status::error(other.to_string()),
        };
        let line = &job.timeline;
        let outline = Outline {
            trace: trace.id(),
            id: trace.job(),
            parent: None,
            kind: SpanKind::Internal,
            start: self.t0_unix + line.submit.map_or(line.ended, |s| s.sent).0,
            end: self.t0_unix + line.ended.0,
        };
        let mut spans = vec![outline.span("job", attributes, status, scope)];
        spans.extend(stages(job).map(|stage| self.stage(&trace, &stage, scope)));
        spans
    }

    fn stage(&self, trace: &Trace, stage: &StageSpan, scope: &InstrumentationScope) -> SpanData {
        let mut attributes = vec![
            KeyValue::new("springtide.start.half_width_ms", stage.start.1.as_ms()),
            KeyValue::new("springtide.end.half_width_ms", stage.end.1.as_ms()),
        ];
        if stage.is_censored {
            attributes.push(KeyValue::new("springtide.censored", true));
        }
        let outline = Outline {
            trace: trace.id(),
            id: trace.stage(stage.stage as u8),
            parent: Some(trace.job()),
            kind: SpanKind::Internal,
            start: self.t0_unix + stage.start.0.0,
            end: self.t0_unix + stage.end.0.0,
        };
        outline.span(stage.stage.as_str(), attributes, Status::Unset, scope)
    }
}

/// A stage as a span has to have it: with two moments, each with half the width of what is known.
struct StageSpan {
    stage: Stage,
    start: (Micros, Micros),
    end: (Micros, Micros),
    /// The job did not leave it: it took at least so long.
    is_censored: bool,
}

fn stages(job: &Job) -> impl Iterator<Item = StageSpan> {
    let line = &job.timeline;
    STAGES.into_iter().filter_map(move |stage| {
        let (start, end) = line.bounds(stage)?;
        let start = (start.midpoint(), start.half_width());
        let is_censored = end.is_none();
        let end = end.map_or((line.last_sure(), Micros::ZERO), |end| (end.midpoint(), end.half_width()));
        Some(StageSpan { stage, start, end: (end.0.max(start.0), end.1), is_censored })
    })
}

/// How well a duration of the tap is known, where it is not exactly.
enum Uncertainty {
    HalfWidth(Micros),
    AtLeast,
}

fn uncertainty(span: Span) -> Option<Uncertainty> {
    match span.half_width() {
        None => Some(Uncertainty::AtLeast),
        Some(Micros::ZERO) => None,
        Some(half) => Some(Uncertainty::HalfWidth(half)),
    }
}

impl Uncertainty {
    fn named(self, stage: String) -> KeyValue {
        match self {
            Self::HalfWidth(half) => KeyValue::new(format!("{stage}.half_width_ms"), half.as_ms()),
            Self::AtLeast => KeyValue::new(format!("{stage}.censored"), true),
        }
    }
}
