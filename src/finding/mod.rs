//! Findings: what a cell revealed about the target that a number alone would hide.
//!
//! A finding is a fact with its evidence; whether the run passes is `verdict`'s business.

mod kind;
mod posts;
mod workers;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use kind::Kind;
pub use workers::of_crew;

use crate::{
    crew::Part,
    injection::Injection,
    ledger::Ledger,
    micros::Micros,
    posts::CellPosts,
    snapshot::{Cancel, Job, Totals},
    timeline::{JobOutcome, JobState, Stage},
};

/// How many examples a finding carries.
const EXAMPLES: usize = 3;

/// One kind of thing found in one cell, with how often and examples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What was found.
    pub kind: Kind,
    /// How often in the cell.
    pub count: u64,
    /// The first few job ids or texts that show it.
    pub examples: Vec<String>,
}

/// Everything that one cell revealed, in the order of [`Kind`].
pub fn of_cell(
    totals: &Totals,
    ledger: &Ledger,
    poll_interval: Micros,
    posts: Option<&CellPosts>,
    injection: Option<&Injection>,
    workers: &[Part],
) -> Vec<Finding> {
    let mut found = Notes::default();
    // What a tap tells exactly needs no sharper polling.
    let is_tapped = posts.is_some_and(|p| !p.simulations.is_empty());
    for job in totals.jobs.values() {
        of_job(job, totals, &mut found);
        if job.outcome == JobOutcome::Fetched {
            let unseen = job.timeline.skipped().into_iter();
            for state in unseen.filter(|s| !is_tapped || *s < JobState::Running) {
                found.note(Kind::SkippedState { state }, "");
            }
        }
    }
    results_differ(totals, &mut found);
    ledger.ghosts.iter().for_each(|id| found.note(Kind::GhostJob, id));
    ledger.duplicates.iter().for_each(|id| found.note(Kind::DuplicateJob, id));
    ledger.vanished.iter().for_each(|id| found.note(Kind::VanishedJob, id));
    for (id, state) in &totals.target.unfinished {
        found.note(Kind::NotQuiet, &format!("{id} ({state})"));
    }
    totals.target.errors.iter().for_each(|e| found.note(Kind::Unreconciled, e));
    let is_told = |stage| is_tapped && Stage::TAP.contains(stage);
    for stage in Stage::CLIENT.iter().filter(|s| s.is_polled() && !is_told(s)).copied() {
        let spans = totals.jobs.values().filter_map(|j| j.timeline.stage(stage));
        let sample = crate::estimate::Sample::new(spans);
        let Some(p50) = sample.quantile(0.5) else {
            continue;
        };
        if !p50.at_least && p50.value.0 < poll_interval.0.saturating_mul(20) {
            let kind = Kind::PollTooCoarse { stage, median: p50.value, interval: poll_interval };
            found.0.insert(kind, (sample.count() as u64, Vec::new()));
        }
    }
    if let Some(posts) = posts {
        posts::of_posts(totals, posts, &mut found);
    }
    let deviations: Vec<String> = injection.map(|i| i.deviations.clone()).unwrap_or_default();
    found.put(Kind::FaultDeviates, deviations.len() as u64, deviations);
    workers::of_parts(workers, &mut found);
    found.findings()
}

/// What is to be said of a cell before which so many jobs were given up, and nobody saw whether the target
/// still worked on them.
pub fn of_leftovers(jobs: u32) -> Option<Finding> {
    (jobs > 0).then(|| Finding { kind: Kind::LeftoversUnseen, count: jobs.into(), examples: Vec::new() })
}

fn of_job(job: &Job, totals: &Totals, found: &mut Notes) {
    let id = job.job_id.as_deref().unwrap_or(&job.title);
    match &job.outcome {
        JobOutcome::Fetched | JobOutcome::Canceled => {}
        JobOutcome::TimedOut { in_state } => {
            let ended = totals.target.listed.get(id).is_some_and(|row| row.end_time.is_some());
            let late = matches!(&job.cancel, Some(Cancel::TooLate(s)) if JobState::parse(s).is_some_and(JobState::is_terminal));
            let state = *in_state;
            found.note(
                if ended && !late && state < JobState::MergingQueued {
                    Kind::CompletedOverwritten { state }
                } else {
                    Kind::Stuck { state }
                },
                id,
            );
        }
        JobOutcome::Rejected { status } => found.note(Kind::RejectedSubmit { status: *status }, id),
        JobOutcome::Lost => found.note(Kind::LostJob, id),
        JobOutcome::Failed => found.note(Kind::FailedJob, id),
        JobOutcome::Broken { what } => found.note(Kind::BrokenResults { what: what.clone() }, id),
    }
    for (from, to) in &job.backwards {
        let (from, to) = (*from, *to);
        found.note(Kind::WentBackwards { from, to }, id);
    }
    if job.results.as_ref().is_some_and(|r| r.duplicates > 0) {
        found.note(Kind::DuplicateResults, id);
    }
    if job.timeline.state() == Some(JobState::Completed) && job.tasks.is_some_and(|t| t.completed < t.all) {
        found.note(Kind::PartialResults, id);
    }
    job.unknown_states.iter().for_each(|s| found.note(Kind::UnknownState, s));
}

/// Jobs whose results are shaped unlike those of most others.
fn results_differ(totals: &Totals, found: &mut Notes) {
    let mut shapes: BTreeMap<&str, Vec<&Job>> = BTreeMap::new();
    for job in totals.jobs.values() {
        if let Some(results) = &job.results {
            shapes.entry(&results.shape).or_default().push(job);
        }
    }
    let Some((&usual, _)) = shapes.iter().max_by_key(|(_, jobs)| jobs.len()) else {
        return;
    };
    for job in shapes.iter().filter(|(s, _)| **s != usual).flat_map(|(_, jobs)| jobs) {
        found.note(Kind::ResultsDiffer, job.job_id.as_deref().unwrap_or(&job.title));
    }
}

#[derive(Default)]
struct Notes(BTreeMap<Kind, (u64, Vec<String>)>);

impl Notes {
    fn note(&mut self, kind: Kind, example: &str) {
        // Of what says more about our polling than about the target, no job is an example.
        let telling = !kind.is_about_us();
        let (count, examples) = self.0.entry(kind).or_default();
        *count += 1;
        if telling && examples.len() < EXAMPLES {
            examples.push(example.to_owned());
        }
    }

    /// What was counted elsewhere, unless it is nothing.
    fn put(&mut self, kind: Kind, count: u64, mut examples: Vec<String>) {
        if count > 0 {
            examples.truncate(EXAMPLES);
            self.0.insert(kind, (count, examples));
        }
    }

    fn findings(self) -> Vec<Finding> {
        self.0.into_iter().map(|(kind, (count, examples))| Finding { kind, count, examples }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        snapshot::{JobKey, Listed, Results},
        timeline::Clocked,
    };

    fn job(id: &str, outcome: JobOutcome) -> Job {
        Job { job_id: Some(id.into()), cancel: Some(Cancel::Done), ..Job::new(0, id.into(), outcome) }
    }

    fn found(jobs: Vec<Job>, ended: &[&str]) -> Vec<(Kind, u64)> {
        let mut totals = Totals::default();
        totals.target.accounts_read = 1;
        for (user, job) in (0..).zip(jobs) {
            let id = job.job_id.clone().unwrap();
            let end_time = ended.contains(&id.as_str()).then(|| "now".to_owned());
            totals.target.listed.insert(id, Listed { title: job.title.clone(), end_time });
            totals.jobs.insert(JobKey { user, nth: 0 }, job);
        }
        let findings = of_cell(&totals, &Ledger::of(&totals), Micros(500_000), None, None, &[]);
        findings.into_iter().map(|f| (f.kind, f.count)).collect()
    }

    #[test]
    fn an_overwritten_completed_is_told_from_a_stuck_job_by_the_targets_own_list() {
        let state = JobState::Running;
        let timed_out = || JobOutcome::TimedOut { in_state: state };
        let mut late = job("late", timed_out());
        late.cancel = Some(Cancel::TooLate("COMPLETED".into()));
        let kinds = found(vec![job("stuck", timed_out()), job("over", timed_out()), late], &["over", "late"]);
        assert_eq!(kinds, [(Kind::CompletedOverwritten { state }, 1), (Kind::Stuck { state }, 2)]);
    }

    #[test]
    fn results_unlike_the_others_are_found() {
        let shaped = |id: &str, shape: &str| {
            let results = Results {
                simulation: None,
                wire_bytes: 1,
                body_bytes: 1,
                estimators: 1,
                pages: 1,
                values: 1,
                duplicates: 0,
                shape: shape.into(),
                sha256: String::new(),
            };
            Job { results: Some(results), ..job(id, JobOutcome::Failed) }
        };
        let kinds = found(vec![shaped("a", "x"), shaped("b", "y"), shaped("c", "x")], &[]);
        assert_eq!(kinds, [(Kind::ResultsDiffer, 1), (Kind::FailedJob, 3)]);
    }

    #[test]
    fn a_poll_interval_too_coarse_for_a_stage_is_told() {
        let mut one = job("a", JobOutcome::Fetched);
        let clocked = |sent, done| Clocked { sent: Micros(sent), done: Micros(done) };
        one.timeline.submitted(clocked(0, 10));
        one.timeline.observe(JobState::Running, clocked(500_000, 500_010), 1);
        one.timeline.observe(JobState::Completed, clocked(60_000_000, 60_000_010), 1);
        let coarse: Vec<Stage> = found(vec![one], &[])
            .into_iter()
            .filter_map(|(k, _)| if let Kind::PollTooCoarse { stage, .. } = k { Some(stage) } else { None })
            .collect();
        assert_eq!(coarse, [Stage::Queue], "the others are far longer than the interval");
    }
}
