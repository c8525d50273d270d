//! The figures of a cell, or of several together.

use std::collections::BTreeMap;

use crate::{
    estimate::{Quantile, Sample, Span},
    fault::FaultKind,
    histogram::Histogram,
    micros::Micros,
    post::Fates,
    posts::{Attribution, CellPosts, RoutePosts, attribution},
    record::CellRecord,
    route::Route,
    snapshot::{Cancel, Job, Totals},
    timeline::{JobOutcome, JobState, Stage},
};

/// What became of posts and jobs.
#[derive(Debug, Default)]
pub struct Figures {
    /// Posts to all routes; `None` without a tap.
    pub posts: Option<RoutePosts>,
    /// Of posts of results, what the target took for them.
    pub results_served: Histogram,
    /// What the injector says it did, by its own count: posts of earlier cells are in it.
    pub decided: Option<Fates>,
    /// Simulations of which nobody can say whose they are.
    pub foreign: u64,
    /// Jobs submitted.
    pub jobs: u64,
    /// Jobs fetched.
    pub fetched: u64,
    /// Jobs that had not ended when they were given up, by the state they were in.
    pub stuck: BTreeMap<JobState, u64>,
    /// Jobs that the target ended as FAILED.
    pub failed: u64,
    /// Jobs that were COMPLETED though not all of their tasks were.
    pub partial: u64,
    /// Simulations whose results were taken in more than once, replays left out; `None` without a
    /// tap.
    pub duplicate_writes: Option<u64>,
    /// Jobs that were COMPLETED for their client and not for the target's list, or the other way
    /// round.
    pub wrong: u64,
    /// From the end of a fault to the end of the first results that were taken in after it, of
    /// each cell that had jobs to end after its fault; at least so long where none came.
    pub recovery: Vec<Span>,
    /// The persist stage of each simulation.
    persist: Vec<Span>,
}

impl Figures {
    /// Adds some cells up.
    pub fn of(cells: &[&CellRecord]) -> Self {
        let mut sum = Self::default();
        cells.iter().for_each(|cell| sum.add(cell));
        sum
    }

    fn add(&mut self, cell: &CellRecord) {
        self.jobs += cell.ledger.submitted;
        self.fetched += cell.ledger.count("fetched");
        self.failed += cell.ledger.count("failed");
        for job in cell.totals.jobs.values() {
            if let JobOutcome::TimedOut { in_state } = job.outcome {
                *self.stuck.entry(in_state).or_default() += 1;
            }
            self.partial += u64::from(is_partial(job));
        }
        if let Some(fates) = cell.injection.as_ref().and_then(|i| i.fates) {
            let sum = self.decided.get_or_insert_default();
            sum.passed += fates.passed;
            sum.delayed += fates.delayed;
            sum.requests_dropped += fates.requests_dropped;
            sum.answers_dropped += fates.answers_dropped;
            sum.refused += fates.refused;
        }
        let whose = cell.posts.as_ref().map(|posts| (posts, attribution(&cell.totals, posts)));
        self.wrong += wrong(&cell.totals, whose.as_ref().map(|(_, a)| a));
        let Some((posts, whose)) = whose else { return };
        self.posts.get_or_insert_default().merge(&posts.all());
        if let Some(results) = posts.routes.get(&Route::Results) {
            self.results_served.merge(&results.served);
        }
        self.foreign += whose.foreign.len() as u64;
        let twice = whose.ours().filter(|(_, s)| s.final_writes() > 1).count() as u64;
        *self.duplicate_writes.get_or_insert_default() += twice;
        self.persist.extend(whose.spans(Stage::Persist));
        self.recovery.extend(recovery(cell, posts));
    }

    /// Jobs that had not ended when they were given up.
    pub fn stuck_jobs(&self) -> u64 {
        self.stuck.values().sum()
    }

    /// In which states they were: `RUNNING: 3`; empty without any.
    pub fn stuck_states(&self) -> String {
        let each: Vec<String> = self.stuck.iter().map(|(state, n)| format!("{state}: {n}")).collect();
        each.join("; ")
    }

    /// The median of the persist stage.
    pub fn persist_p50(&self) -> Option<Quantile> {
        Sample::new(self.persist.iter().copied()).quantile(0.5)
    }

    /// How many persist stages there were.
    pub fn persisted(&self) -> usize {
        self.persist.len()
    }

    /// The median of what the target itself took for results.
    pub fn served_p50(&self) -> Option<Micros> {
        median(&self.results_served)
    }

    /// The median of how long delayed posts were held.
    pub fn held_p50(&self) -> Option<Micros> {
        self.posts.as_ref().and_then(|p| median(&p.held))
    }

    /// The median recovery.
    pub fn recovery_p50(&self) -> Option<Quantile> {
        Sample::new(self.recovery.iter().copied()).quantile(0.5)
    }
}

fn median(h: &Histogram) -> Option<Micros> {
    (h.count() > 0).then(|| h.quantile(0.5))
}

fn was_completed(job: &Job) -> bool {
    job.timeline.seen.iter().any(|o| o.state == JobState::Completed)
}

fn is_partial(job: &Job) -> bool {
    was_completed(job) && job.tasks.is_some_and(|t| t.completed < t.all)
}

/// Jobs whose end is not the same for their client, the target's list and, if there is one, the
/// tap. A job that became COMPLETED after its client had last looked is late and not wrong.
fn wrong(totals: &Totals, whose: Option<&Attribution<'_>>) -> u64 {
    let target = &totals.target;
    let is_read = target.accounts_read > 0 && target.errors.is_empty();
    let is_late =
        |job: &Job| matches!(&job.cancel, Some(Cancel::TooLate(s)) if s == JobState::Completed.as_str());
    let has_end = |job: &Job| {
        let row = job.job_id.as_ref().and_then(|id| target.listed.get(id));
        row.is_some_and(|row| row.end_time.is_some())
    };
    // What the end time of a FAILED or CANCELED job means is the target's secret.
    let is_given_up =
        |job: &Job| matches!(job.outcome, JobOutcome::TimedOut { .. } | JobOutcome::Broken { .. });
    let unended = totals.jobs.values().filter(|j| is_read && was_completed(j) && !has_end(j)).count() as u64;
    let unseen = |job: &&Job| !was_completed(job) && !is_late(job) && is_given_up(job) && has_end(job);
    let by_list = totals.jobs.values().filter(unseen).count() as u64;
    // Results at the tap that no job accounts for; most of these jobs are in the list as well.
    let by_tap = whose.map_or(0, |a| {
        let taken_in = a.others.values().filter(|s| s.results.is_some()).count() as u64;
        let accounted = a.unmapped.iter().filter(|(_, j)| was_completed(j) || is_late(j)).count() as u64;
        taken_in.saturating_sub(accounted)
    });
    unended + by_list.max(by_tap)
}

/// From the end of the last stretch of a fault that ended before its cell did to the end of the
/// first results that came in after it. It contains what the workers had to do first: where no
/// results were due, it is long.
fn recovery(cell: &CellRecord, posts: &CellPosts) -> Option<Span> {
    let injection = cell.injection.as_ref()?;
    let is_repeating = matches!(injection.fault.kind, FaultKind::Disconnect { .. });
    if injection.fault.window.to.is_none() && !is_repeating {
        return None;
    }
    let ends = injection.stretches().into_iter().map(|(_, end)| end);
    let after = ends.filter(|end| *end < cell.duration).max()?;
    let end = injection.t0? + after;
    let results = posts.simulations.values().filter_map(|s| s.results);
    match results.filter(|r| r.received >= end).map(|r| r.answered.saturating_sub(end)).min() {
        Some(recovered) => Some(Span::exact(recovered)),
        // Only jobs that were still to end can show that nothing recovered.
        None => {
            let is_stuck = |job: &Job| matches!(job.outcome, JobOutcome::TimedOut { .. });
            let looked = cell.duration.saturating_sub(after);
            cell.totals.jobs.values().any(is_stuck).then(|| Span::at_least(looked))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        fault::{Fault, FaultMode, Window},
        injection::{Injection, Injector, Proof},
        posts::{Moment, Simulation},
        report::sample,
        snapshot::{JobKey, Listed},
        timeline::Clocked,
    };

    fn cell_with(fault: Fault, results: &[u64]) -> CellRecord {
        let mut cell = sample::good().cells.pop().unwrap();
        let taken_in = |us: &u64| Moment { received: Micros(*us), answered: Micros(us + 1_000) };
        let simulations =
            results.iter().map(|us| Simulation { results: Some(taken_in(us)), ..Simulation::default() });
        cell.posts =
            Some(CellPosts { simulations: (1..).zip(simulations).collect(), ..CellPosts::default() });
        cell.duration = Micros(9_000_000);
        cell.injection = Some(Injection {
            fault,
            by: Injector::Tap,
            t0: Some(Micros(50_000_000)),
            cleared: Micros(9_500_000),
            fates: None,
            proof: Proof::default(),
            deviations: Vec::new(),
        });
        cell
    }

    #[test]
    fn recovery_counts_from_the_end_of_the_fault_to_the_first_results_after_it() {
        // Refused from 1 s to 3 s after T0.
        let fault = Fault::default_levels(FaultMode::Disconnect).remove(0);
        let cell = cell_with(fault, &[52_500_000, 53_400_000, 54_000_000]);
        assert_eq!(Figures::of(&[&cell]).recovery, [Span::exact(Micros(401_000))]);
    }

    #[test]
    fn a_cell_that_never_recovers_took_at_least_as_long_as_it_was_looked_at() {
        let fault = Fault::default_levels(FaultMode::Disconnect).remove(0);
        let mut cell = cell_with(fault, &[50_500_000]);
        assert!(Figures::of(&[&cell]).recovery.is_empty(), "every job had ended before");
        let job = cell.totals.jobs.values_mut().next().unwrap();
        job.outcome = JobOutcome::TimedOut { in_state: JobState::Running };
        assert_eq!(Figures::of(&[&cell]).recovery, [Span::at_least(Micros(6_000_000))]);
    }

    #[test]
    fn a_fault_that_lasts_as_long_as_its_cell_has_no_recovery() {
        let whole = Fault::default_levels(FaultMode::Drop).remove(0);
        assert!(Figures::of(&[&cell_with(whole.clone(), &[58_000_000])]).recovery.is_empty());
        let window = Window { from: Micros(0), to: Some(Micros(9_200_000)) };
        let longer = Fault { window, ..whole };
        assert!(Figures::of(&[&cell_with(longer, &[59_300_000])]).recovery.is_empty());
    }

    #[test]
    fn an_end_that_client_and_list_do_not_share_is_wrong_and_a_late_one_is_not() {
        let mut totals = Totals::default();
        totals.target.accounts_read = 1;
        let mut add = |id: &str, completed: bool, listed: Option<bool>, cancel: Option<Cancel>| {
            let outcome = if completed {
                JobOutcome::Fetched
            } else {
                JobOutcome::TimedOut { in_state: JobState::Running }
            };
            let mut job = Job { job_id: Some(id.into()), cancel, ..Job::new(0, id.into(), outcome) };
            let state = if completed { JobState::Completed } else { JobState::Running };
            job.timeline.observe(state, Clocked { sent: Micros(1), done: Micros(2) }, 1);
            let user = totals.jobs.len() as u32;
            totals.jobs.insert(JobKey { user, nth: 0 }, job);
            if let Some(ended) = listed {
                let row = Listed { title: id.into(), end_time: ended.then(|| "now".into()) };
                totals.target.listed.insert(id.into(), row);
            }
        };
        add("sound", true, Some(true), None);
        add("hangs", false, Some(false), Some(Cancel::Done));
        add("late", false, Some(true), Some(Cancel::TooLate("COMPLETED".into())));
        assert_eq!(wrong(&totals, None), 0);
        let mut add = |id: &str, completed: bool, ended: bool| {
            let outcome = if completed {
                JobOutcome::Fetched
            } else {
                JobOutcome::TimedOut { in_state: JobState::Running }
            };
            let mut job = Job { job_id: Some(id.into()), ..Job::new(0, id.into(), outcome) };
            let state = if completed { JobState::Completed } else { JobState::Running };
            job.timeline.observe(state, Clocked { sent: Micros(1), done: Micros(2) }, 1);
            let user = totals.jobs.len() as u32;
            totals.jobs.insert(JobKey { user, nth: 0 }, job);
            let row = Listed { title: id.into(), end_time: ended.then(|| "now".into()) };
            totals.target.listed.insert(id.into(), row);
        };
        add("never ended", true, false);
        add("never told", false, true);
        assert_eq!(wrong(&totals, None), 2);
    }
}
