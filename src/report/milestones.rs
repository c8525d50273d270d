//! Where in a job's life its stages begin and end, for the waterfall. Only positions come from
//! here; the durations beside them are the summary's.

use crate::{
    estimate::{Sample, Span},
    micros::Micros,
    record::CellRecord,
    snapshot::Job,
    timeline::{Between, JobOutcome, JobState, Stage},
};

/// Jobs that positions are taken from; a chart is no sharper with more.
const ENOUGH: usize = 20_000;

/// A stage's begin and end since the submit was sent, over the jobs that entered it.
#[derive(Debug)]
pub(crate) struct Milestones {
    /// The stage.
    pub(crate) stage: Stage,
    /// When it began.
    pub(crate) begin: Sample,
    /// When it ended; censored in jobs that never left it.
    pub(crate) end: Sample,
}

/// The stages of the jobs of some cells, in the order of a job's life.
pub(crate) fn of(cells: &[&CellRecord]) -> Vec<Milestones> {
    let jobs: usize = cells.iter().map(|c| c.totals.jobs.len()).sum();
    let step = jobs.div_ceil(ENOUGH).max(1);
    let drawn: Vec<&Job> = cells
        .iter()
        .flat_map(|c| c.totals.jobs.values())
        .step_by(step)
        .filter(|j| !matches!(j.outcome, JobOutcome::Rejected { .. }))
        .collect();
    Stage::CLIENT
        .into_iter()
        .map(|stage| {
            let bounds: Vec<(Span, Span)> = drawn.iter().filter_map(|j| bounds(j, stage)).collect();
            Milestones {
                stage,
                begin: Sample::new(bounds.iter().map(|b| b.0)),
                end: Sample::new(bounds.iter().map(|b| b.1)),
            }
        })
        .collect()
}

/// Begin and end of a stage in one job, as moments since its cell's T0; `None` when the job
/// never entered it.
pub(crate) fn moments(job: &Job, stage: Stage) -> Option<(Between, Option<Between>)> {
    let t = &job.timeline;
    let submit = t.submit?;
    let exactly = |m: Micros| Between { after: m, before: m };
    let accepted = Between { after: submit.sent, before: submit.done };
    match stage {
        Stage::Submit => Some((exactly(submit.sent), Some(exactly(submit.done)))),
        Stage::Queue => (!t.seen.is_empty()).then(|| (accepted, t.reached(JobState::Running))),
        Stage::Run => Some((t.reached(JobState::Running)?, t.reached(JobState::MergingQueued))),
        Stage::Merge => Some((t.reached(JobState::MergingQueued)?, t.reached(JobState::Completed))),
        Stage::Fetch => t.fetch.map(|f| (exactly(f.sent), Some(exactly(f.done)))),
        Stage::EndToEnd => Some((exactly(submit.sent), t.fetch.map(|f| exactly(f.done)))),
        Stage::HandOverQueued | Stage::HandOverRunning | Stage::Persist => None,
    }
}

fn bounds(job: &Job, stage: Stage) -> Option<(Span, Span)> {
    let sent = job.timeline.submit?.sent;
    let since =
        |b: Between| Span { least: b.after.saturating_sub(sent), most: Some(b.before.saturating_sub(sent)) };
    let (begin, end) = moments(job, stage)?;
    let end = end.map_or_else(|| Span::at_least(unfinished(job, stage).saturating_sub(sent)), since);
    Some((since(begin), end))
}

/// Up to when the job is known to have been in a stage that it did not finish.
fn unfinished(job: &Job, stage: Stage) -> Micros {
    if stage.is_polled() { job.timeline.last_sure() } else { job.timeline.ended }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_stage_begins_where_the_one_before_it_ends() {
        let run = sample::good();
        let cells: Vec<&CellRecord> = run.measured().collect();
        let all = of(&cells);
        for pair in all[1..4].windows(2) {
            let (end, begin) = (pair[0].end.quantile(0.5), pair[1].begin.quantile(0.5));
            assert_eq!(end.unwrap().value, begin.unwrap().value);
        }
        assert!(all.iter().all(|m| m.begin.count() == 20));
    }
}
