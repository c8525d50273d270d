//! The jobs of one cell, a row each: every stage as a bar on the cell's clock, the ends that
//! polling leaves open drawn faintly, the outcome as a mark.

use std::collections::BTreeMap;

use crate::{
    micros::Micros,
    record::CellRecord,
    report::{
        milestones,
        svg::{Picture, WIDTH, push_rect, scale::Frame, stage_class},
    },
    snapshot::{Job, JobKey},
    timeline::{JobOutcome, Stage},
};

/// The stages that follow each other.
const STAGES: [Stage; 5] = [Stage::Submit, Stage::Queue, Stage::Run, Stage::Merge, Stage::Fetch];

/// A drawn cell.
#[derive(Debug)]
pub(crate) struct Gantt {
    /// The picture.
    pub(crate) svg: String,
    /// Jobs in it.
    pub(crate) drawn: usize,
    /// Jobs of the cell.
    pub(crate) of: usize,
}

/// Draws at most `most` jobs of a cell, evenly chosen in the order of their submits; `None` when
/// it has none.
pub(crate) fn draw(cell: &CellRecord, most: usize) -> Option<Gantt> {
    let chosen = evenly(cell, most);
    if chosen.is_empty() {
        return None;
    }
    let row = if chosen.len() <= 40 { 16.0 } else { 8.0 };
    let frame = Frame { left: 64.0, right: WIDTH - 86.0, top: 6.0, bottom: 6.0 + row * chosen.len() as f64 };
    let label = format!("Gantt of {} jobs of {} #{}", chosen.len(), cell.cell.scenario, cell.cell.repetition);
    let mut p = Picture::new(frame.bottom + 40.0, &label);
    let x = frame.time_axis(&mut p, cell.duration, "time since T0");
    let mut bars: BTreeMap<(Stage, bool), String> = BTreeMap::new();
    for (i, (_, job)) in chosen.iter().enumerate() {
        let top = frame.top + row * i as f64;
        for stage in STAGES {
            for (sure, from, to) in pieces(job, stage) {
                let (a, b) = (x.at(from.0 as f64), x.at(to.0 as f64));
                let d = bars.entry((stage, sure)).or_default();
                let least = if sure { 0.8 } else { 0.0 };
                push_rect(d, a, top + 1.0, (b - a).max(least), row - 2.0);
            }
        }
    }
    for ((stage, sure), d) in &bars {
        let certainty = if *sure { "bar" } else { "maybe" };
        p.path(&format!("{} {certainty}", stage_class(*stage)), d);
    }
    for (i, (key, job)) in chosen.iter().enumerate() {
        let top = frame.top + row * i as f64;
        rows_words(&mut p, &frame, (top, row), *key, job, x.at(job.timeline.ended.0 as f64));
    }
    Some(Gantt { svg: p.finish(), drawn: chosen.len(), of: cell.totals.jobs.len() })
}

/// Jobs at equal distances among a cell's users, then in the order of their submits.
fn evenly(cell: &CellRecord, most: usize) -> Vec<(JobKey, &Job)> {
    let step = cell.totals.jobs.len().div_ceil(most.max(1)).max(1);
    let mut chosen: Vec<(JobKey, &Job)> =
        cell.totals.jobs.iter().step_by(step).map(|(k, j)| (*k, j)).collect();
    chosen.sort_by_key(|(key, job)| (job.timeline.submit.map(|s| s.sent), *key));
    chosen
}

/// What stands beside a row, and what it says when pointed at.
fn rows_words(p: &mut Picture, frame: &Frame, (top, row): (f64, f64), key: JobKey, job: &Job, end: f64) {
    let is_fetched = job.outcome == JobOutcome::Fetched;
    let base = top + row / 2.0 + 4.0;
    if row > 10.0 {
        let name = match key.nth {
            0 => format!("u{}", key.user),
            n => format!("u{} #{n}", key.user),
        };
        p.text("tick", (frame.left - 6.0, base), "end", &name);
    }
    if !is_fetched || row > 10.0 {
        let class = if is_fetched { "ok" } else { "bad" };
        p.text(class, (end + 3.0, base), "start", &mark(&job.outcome));
    }
    let mut hint = format!(
        "{}, user {}, job {}: {}",
        job.job_id.as_deref().unwrap_or("no id"),
        key.user,
        key.nth,
        job.outcome
    );
    for stage in STAGES {
        let Some(span) = job.timeline.stage(stage) else {
            continue;
        };
        let said = match (span.most, span.half_width()) {
            (None, _) => format!(">= {}", span.least),
            (Some(_), Some(half)) if half > Micros::ZERO => {
                format!("{} ± {half}", span.midpoint())
            }
            _ => span.midpoint().to_string(),
        };
        hint.push_str(&format!("\n{stage}: {said}"));
    }
    p.hint((0.0, top), (WIDTH, row), &hint);
}

/// A sign that needs no colour, and a word where it is no success.
fn mark(outcome: &JobOutcome) -> String {
    match outcome {
        JobOutcome::Fetched => "✓".into(),
        JobOutcome::TimedOut { .. } => "✗ timed out".into(),
        other => format!("✗ {}", other.kind()),
    }
}

/// A stage as stretches `(certain, from, to)`: certain where it must have been going on, open
/// where the change to or from it may have been.
fn pieces(job: &Job, stage: Stage) -> Vec<(bool, Micros, Micros)> {
    let Some((begin, end)) = milestones::moments(job, stage) else {
        return Vec::new();
    };
    let Some(end) = end else {
        // Never left: open from the last certain moment to the end of the job.
        return vec![(false, begin.after, job.timeline.ended)];
    };
    let mut pieces = Vec::new();
    let (sure_from, sure_to) = (begin.before, end.after);
    if sure_from < sure_to {
        pieces.push((true, sure_from, sure_to));
        pieces.push((false, begin.after, sure_from));
        pieces.push((false, sure_to, end.before));
    } else if begin.after == begin.before && end.after == end.before {
        pieces.push((true, begin.after, end.before));
    } else {
        pieces.push((false, begin.after, end.before));
    }
    pieces.retain(|(sure, from, to)| *sure || from < to);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn certain_stretches_do_not_overlap() {
        let run = sample::mixed();
        for job in run.measured().flat_map(|c| c.totals.jobs.values()) {
            let mut last = Micros::ZERO;
            for stage in STAGES {
                for (sure, from, to) in pieces(job, stage) {
                    assert!(from <= to);
                    if sure {
                        assert!(from >= last, "{stage}");
                        last = to;
                    }
                }
            }
        }
    }

    #[test]
    fn too_many_jobs_are_thinned_out_and_said() {
        let run = sample::mixed();
        let cell = run.measured().find(|c| c.cell.users == 30).unwrap();
        let gantt = draw(cell, 10).unwrap();
        assert_eq!((gantt.drawn, gantt.of), (10, 30));
        assert_eq!(gantt.svg.matches("<title>").count(), 10);
    }
}
