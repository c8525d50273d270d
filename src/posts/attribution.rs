//! Whose simulations those are that the tap saw: the only place where they are held against jobs.
//!
//! The target's workers know a simulation by a number that a client learns with the results, if at
//! all. So the simulation of a fetched job is known. What is left over belongs to the jobs that
//! were accepted and not fetched, as long as there is not more of it than of those; if there is,
//! somebody else's simulations are among it and nobody can say which.

use std::collections::BTreeMap;

use super::{CellPosts, Life, Simulation};
use crate::{
    estimate::Span,
    micros::Micros,
    snapshot::{Job, JobKey, Totals},
    timeline::Stage,
};

/// The simulations of a cell, by owner.
#[derive(Debug)]
pub struct Attribution<'a> {
    /// Of the jobs whose simulation is known and was seen by the tap.
    pub known: BTreeMap<JobKey, (u64, &'a Simulation)>,
    /// Of our other jobs, nobody knows of which.
    pub others: BTreeMap<u64, &'a Simulation>,
    /// Ours or somebody else's; left out of every stage.
    pub foreign: BTreeMap<u64, &'a Simulation>,
    /// Accepted jobs whose simulation is not known.
    pub unmapped: Vec<(JobKey, &'a Job)>,
    /// Jobs of whose simulation the tap saw no post.
    pub unseen: u64,
    /// Tasks of a job, as polls told.
    tasks: Option<u32>,
    until: Micros,
    /// The longest that a job without a known simulation was followed.
    followed: Micros,
}

/// Tells whose the simulations of a cell are.
pub fn attribution<'a>(totals: &'a Totals, posts: &'a CellPosts) -> Attribution<'a> {
    let mut left: BTreeMap<u64, &Simulation> = posts.simulations.iter().map(|(id, s)| (*id, s)).collect();
    let (mut known, mut unmapped, mut unseen) = (BTreeMap::new(), Vec::new(), 0);
    for (&key, job) in totals.jobs.iter().filter(|(_, job)| job.job_id.is_some()) {
        let id = job.results.as_ref().and_then(|r| r.simulation);
        match id.map(|id| (id, left.remove(&id))) {
            Some((id, Some(simulation))) => _ = known.insert(key, (id, simulation)),
            Some((_, None)) => unseen += 1,
            None => unmapped.push((key, job)),
        }
    }
    let (others, foreign) = whose(left, &unmapped, is_cut(totals));
    let life =
        |job: &Job| job.timeline.ended.saturating_sub(job.timeline.submit.map_or(Micros::ZERO, |s| s.sent));
    Attribution {
        followed: unmapped.iter().map(|(_, job)| life(job)).max().unwrap_or_default(),
        tasks: totals.jobs.values().filter_map(|j| j.tasks).map(|t| t.all).max(),
        until: posts.until,
        known,
        others,
        foreign,
        unmapped,
        unseen,
    }
}

/// Whether the cell was cut short, so that jobs are missing in its books.
fn is_cut(totals: &Totals) -> bool {
    (totals.jobs.len() as u64) < totals.progress.submitted
}

type Simulations<'a> = BTreeMap<u64, &'a Simulation>;

/// Divides the simulations that no job is known for into ours and those of whoever.
fn whose<'a>(
    left: Simulations<'a>,
    unmapped: &[(JobKey, &Job)],
    is_cut: bool,
) -> (Simulations<'a>, Simulations<'a>) {
    if is_cut || left.len() <= unmapped.len() {
        return (left, Simulations::new());
    }
    // One too many. If as many lack results as we have jobs without an end, it is these.
    let (stored, open): (Simulations<'a>, Simulations<'a>) =
        left.into_iter().partition(|(_, s)| s.results.is_some());
    let is_open = |job: &Job| !job.timeline.state().is_some_and(|state| state.is_terminal());
    if !open.is_empty() && open.len() == unmapped.len() && unmapped.iter().all(|(_, job)| is_open(job)) {
        return (open, stored);
    }
    (Simulations::new(), stored.into_iter().chain(open).collect())
}

impl<'a> Attribution<'a> {
    /// The simulations that are surely ours.
    pub fn ours(&self) -> impl Iterator<Item = (u64, &'a Simulation)> {
        let others = self.others.iter().map(|(id, s)| (*id, *s));
        self.known.values().copied().chain(others)
    }

    /// How long a stage took in each of our simulations that entered it. Where ours cannot be told
    /// from others', unfinished jobs count with what polling knows of them, so that nobody's
    /// figure lacks those that took longest.
    pub fn spans(&self, stage: Stage) -> Vec<Span> {
        let capped = |span: Span| match span.most {
            Some(_) => span,
            // Workers may go on after the client has given its job up.
            None => Span::at_least(span.least.min(self.followed)),
        };
        let tell = |s: &Simulation| Life::of(s, self.tasks).stage(stage, self.until).map(capped);
        let mut spans: Vec<Span> = self.ours().filter_map(|(_, s)| tell(s)).collect();
        if !self.foreign.is_empty() {
            let polled = self.unmapped.iter().filter_map(|(_, job)| job.timeline.stage(stage));
            spans.extend(polled.map(|span| Span::at_least(span.least)));
        }
        spans
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        posts::Moment,
        snapshot::Results,
        timeline::{Clocked, JobOutcome, JobState},
    };

    fn job(simulation: Option<u64>, accepted: bool) -> Job {
        let outcome = match (accepted, simulation) {
            (false, _) => JobOutcome::Rejected { status: 503 },
            (true, Some(_)) => JobOutcome::Fetched,
            (true, None) => JobOutcome::TimedOut { in_state: JobState::Running },
        };
        let mut job = Job { job_id: accepted.then(|| "id".into()), ..Job::new(0, "t".into(), outcome) };
        job.results = simulation.map(|id| Results { simulation: Some(id), ..Results::default() });
        job.timeline.submitted(Clocked { sent: Micros(0), done: Micros(10) });
        job.timeline.observe(JobState::Running, Clocked { sent: Micros(100), done: Micros(110) }, 1);
        job.timeline.observe(JobState::Running, Clocked { sent: Micros(500), done: Micros(510) }, 1);
        job.timeline.ended = Micros(700);
        job
    }

    fn cell(jobs: Vec<Job>, simulations: &[u64]) -> (Totals, CellPosts) {
        let mut totals = Totals::default();
        for (user, job) in (0..).zip(jobs) {
            totals.jobs.insert(JobKey { user, nth: 0 }, job);
        }
        let at = |us| Some(Moment { received: Micros(us), answered: Micros(us) });
        let seen = |id: &u64| {
            let s =
                Simulation { first_running: at(1_000), merging_queued: at(1_200), ..Simulation::default() };
            (*id, if *id == 9 { Simulation { merging_queued: None, ..s } } else { s })
        };
        let simulations = simulations.iter().map(seen).collect();
        (totals, CellPosts { simulations, until: Micros(9_000), ..CellPosts::default() })
    }

    #[test]
    fn what_is_left_over_is_the_unfinished_jobs() {
        let (totals, posts) = cell(vec![job(Some(3), true), job(None, true), job(None, false)], &[3, 9]);
        let a = attribution(&totals, &posts);
        assert_eq!((a.known.len(), a.others.len(), a.foreign.len(), a.unseen), (1, 1, 0, 0));
        // Simulation 9 is at most as long under way as its job was followed.
        let spans = a.spans(Stage::Run);
        assert_eq!(spans.iter().filter(|s| s.most.is_none()).map(|s| s.least).max(), Some(Micros(700)));
        assert_eq!(spans.len(), 2);
    }

    #[test]
    fn more_than_can_be_ours_is_left_out_and_jobs_stay_in_the_count() {
        let (totals, posts) = cell(vec![job(Some(3), true), job(None, true)], &[3, 8, 9]);
        let a = attribution(&totals, &posts);
        assert_eq!((a.known.len(), a.others.len(), a.foreign.len()), (1, 0, 2));
        let spans = a.spans(Stage::Run);
        assert_eq!(spans.len(), 2);
        assert_eq!(spans[1], Span::at_least(Micros(390)), "as polling knows it");
        assert_eq!(a.spans(Stage::Persist).len(), 0);
    }

    #[test]
    fn a_job_whose_posts_went_another_way_is_unseen() {
        let (totals, posts) = cell(vec![job(Some(3), true)], &[]);
        assert_eq!(attribution(&totals, &posts).unseen, 1);
    }
}
