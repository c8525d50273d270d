//! The rules on the workers of a cell: each must have had time to spare, whatever the others had, and
//! all must have begun together.

use super::{Check, Facts, Rule, Verdict};
use crate::{
    crew::Part,
    micros::Micros,
    plan::Limits,
    snapshot::{Health, Totals},
};

/// How far apart the workers may have let their users go, the errors of their clocks' offsets included. A
/// cell measures users who start together; 20 ms is a twenty-fifth of the usual poll interval, so that
/// no stage shows it, and ten times what offsets between hosts of one site are known to.
pub const START_WITHIN: Micros = Micros(20_000);

/// Those whose health is known, or all together where it is known of nobody.
fn healths<'a>(
    workers: &'a [Part],
    totals: &'a Totals,
) -> impl Iterator<Item = (Option<&'a Part>, &'a Health)> {
    let nothing = Health::default();
    let mut known = workers
        .iter()
        .filter(move |p| p.users > 0 && p.health != nothing)
        .map(|p| (Some(p), &p.health))
        .peekable();
    let all = known.peek().is_none().then_some((None, &totals.health));
    known.chain(all)
}

/// The latest of the workers' 99th percentiles of how late planned waits end.
pub fn worst_lag(workers: &[Part], totals: &Totals) -> Micros {
    healths(workers, totals).map(|(_, h)| h.lag.quantile(0.99)).max().unwrap_or_default()
}

/// The largest share of their cores that the load threads of a worker used.
pub fn worst_cpu(workers: &[Part], totals: &Totals) -> f64 {
    healths(workers, totals).map(|(_, h)| h.cpu_share()).fold(0.0, f64::max)
}

/// How far apart the workers may have let their users go; zero where no second one had users.
pub fn worst_start(workers: &[Part]) -> Micros {
    let busy: Vec<&Part> = workers.iter().filter(|p| p.users > 0).collect();
    if busy.len() < 2 { Micros::ZERO } else { apart(&busy).unwrap_or_default() }
}

/// From the earliest moment that one of them may have begun to the latest that another may have.
fn apart(busy: &[&Part]) -> Option<Micros> {
    let bounds = |p: &Part| {
        let (late, error) = (i128::from(p.start_late?.0), i128::from(p.offset.error.0));
        Some((late - error, late + error))
    };
    let pairs = busy.iter().enumerate().flat_map(|(i, a)| {
        let others = busy.iter().enumerate().filter(move |(j, _)| *j != i);
        others.filter_map(move |(_, b)| Some(bounds(b)?.1 - bounds(a)?.0))
    });
    pairs.max().map(|most| Micros(most.try_into().unwrap_or(u64::MAX)))
}

/// `, worst of 3 workers on w02 (epoch 4)` where there is more than one to choose from.
fn whose(facts: &Facts<'_>, part: Option<&Part>) -> String {
    let busy = facts.workers.iter().filter(|p| p.users > 0).count();
    match part {
        Some(part) if busy > 1 => format!(", worst of {busy} workers on {}", part.member()),
        _ => String::new(),
    }
}

/// Whether the planned waits of every worker ended in time.
pub(super) fn waits_end_in_time(facts: &Facts<'_>, limits: &Limits) -> Check {
    let (part, health) = healths(facts.workers, facts.totals)
        .max_by_key(|(_, h)| h.lag.quantile(0.99))
        .unwrap_or((None, &facts.totals.health));
    let lag = health.lag.quantile(0.99);
    let evidence = format!(
        "p99 {lag}, most {}, limit {}, n={}{}",
        health.lag.max(),
        limits.lag_p99,
        health.lag.count(),
        whose(facts, part)
    );
    Check::new(Rule::SchedulingLag, lag <= limits.lag_p99, Verdict::Invalid, evidence)
}

/// Whether the load threads of every worker had CPU to spare.
pub(super) fn cpu_to_spare(facts: &Facts<'_>, limits: &Limits) -> Check {
    let (part, health) = healths(facts.workers, facts.totals)
        .max_by(|(_, a), (_, b)| a.cpu_share().total_cmp(&b.cpu_share()))
        .unwrap_or((None, &facts.totals.health));
    let share = health.cpu_share();
    let evidence = format!(
        "{:.1} % of its cores, limit {:.0} %{}",
        share * 100.0,
        limits.cpu * 100.0,
        whose(facts, part)
    );
    Check::new(Rule::GeneratorCpu, share <= limits.cpu, Verdict::Invalid, evidence)
}

/// Whether the users of every worker began at the same moment, as far as clocks can tell. Only asked
/// where two or more had users. A cell that has not all its frames is INVALID for that; its workers
/// may not have come to say when they began.
pub(super) fn began_together(facts: &Facts<'_>) -> Option<Check> {
    let busy: Vec<&Part> = facts.workers.iter().filter(|p| p.users > 0).collect();
    if busy.len() < 2 {
        return None;
    }
    let silent = busy.iter().find(|p| p.start_late.is_none()).filter(|_| facts.frames.is_none());
    if let Some(part) = silent {
        let evidence = format!("worker {} did not say when its users began", part.member());
        return Some(Check::new(Rule::StartTogether, false, Verdict::Invalid, evidence));
    }
    let told = busy.iter().filter_map(|p| Some((p.start_late?, *p)));
    let (late, part) = told.max_by_key(|(late, p)| *late + p.offset.error)?;
    let (error, apart) = (part.offset.error, apart(&busy)?);
    let evidence = format!(
        "at most {apart} apart (the last begun {late} after T0, its clock ± {error}), limit {START_WITHIN}{}",
        whose(facts, Some(part))
    );
    Some(Check::new(Rule::StartTogether, apart <= START_WITHIN, Verdict::Invalid, evidence))
}

/// A worker whose jobs got no answer while those of all others did: what was wrong lay between it and the
/// target, and is no fault of the target. One unanswered job is not enough to say so, and neither is less
/// than half of the worker's.
pub(super) fn cut_off(facts: &Facts<'_>) -> Option<Check> {
    let count = |worker: usize| {
        let of_it = facts.totals.jobs.values().filter(|j| j.worker as usize == worker);
        of_it.fold((0, 0), |(all, unanswered), job| {
            (all + 1, unanswered + usize::from(job.outcome.is_unanswered()))
        })
    };
    let counts: Vec<(&Part, (usize, usize))> =
        facts.workers.iter().enumerate().map(|(n, part)| (part, count(n))).filter(|(_, c)| c.0 > 0).collect();
    let mut hit = counts.iter().filter(|(_, (_, unanswered))| *unanswered > 0);
    let (Some((part, (all, unanswered))), None) = (hit.next(), hit.next()) else { return None };
    if counts.len() < 2 || *unanswered < 2 || unanswered * 2 < *all {
        return None;
    }
    let others = counts.iter().map(|(_, (all, _))| all).sum::<usize>() - all;
    let evidence = format!(
        "{unanswered} of {all} jobs of worker {} got no answer, and none of {others} of others",
        part.member()
    );
    Some(Check::new(Rule::TargetReached, false, Verdict::Invalid, evidence))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crew::Offset,
        ledger::Ledger,
        plan::{Cell, Plan},
        scenario::Matrix,
        snapshot::{Job, JobKey},
        timeline::JobOutcome,
        verdict::{of_cell, worst},
    };

    /// A worker that did well: 100 waits 1 ms late, a tenth of its core, begun at once.
    fn well(number: u64) -> Part {
        let mut health = Health { cpu: Micros(10), capacity: Micros(100), ..Health::default() };
        (0..100).for_each(|_| health.lag.record(Micros(1_000)));
        Part {
            name: format!("w{number}"),
            epoch: number + 2,
            users: 3,
            offset: Offset { ahead: -5_000_000, error: Micros(400) },
            start_late: Some(Micros(300)),
            health,
            ..Part::default()
        }
    }

    fn judged(frames: Option<&str>, change: impl Fn(&mut [Part])) -> Vec<Check> {
        let mut workers = [0, 1, 2].map(well);
        change(&mut workers);
        let mut totals = Totals::default();
        workers.iter().for_each(|p| totals.health.merge(&p.health));
        let cell = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
        let mut ledger = Ledger { submitted: 1, reconciled: true, ..Ledger::default() };
        ledger.outcomes.insert("fetched".into(), 1);
        of_cell(&facts(&cell, &totals, &ledger, frames, &workers), &Limits::default())
    }

    fn facts<'a>(
        cell: &'a Cell,
        totals: &'a Totals,
        ledger: &'a Ledger,
        frames: Option<&'a str>,
        workers: &'a [Part],
    ) -> Facts<'a> {
        let (posts, injection, busy) = (None, None, None);
        Facts { cell, totals, ledger, findings: &[], posts, injection, frames, busy, workers }
    }

    fn broken(checks: &[Check]) -> Vec<(Rule, &str)> {
        let broken = checks.iter().filter(|c| c.verdict == Verdict::Invalid);
        broken.map(|c| (c.rule, c.evidence.as_str())).collect()
    }

    #[test]
    fn one_late_worker_of_three_makes_the_cell_invalid_though_all_together_are_in_time() {
        let late = |workers: &mut [Part]| {
            // Two of three hundred waits: p99 of the sum is still a millisecond.
            (0..2).for_each(|_| workers[1].health.lag.record(Micros(500_000)));
        };
        let mut all = Health::default();
        let mut workers = [0, 1, 2].map(well);
        late(&mut workers);
        workers.iter().for_each(|p| all.merge(&p.health));
        assert!(all.lag.quantile(0.99) < Micros(2_000));
        let checks = judged(None, late);
        let broken = broken(&checks);
        assert_eq!((broken.len(), broken[0].0), (1, Rule::SchedulingLag));
        assert!(broken[0].1.ends_with("n=102, worst of 3 workers on w1 (epoch 3)"), "{broken:?}");
    }

    #[test]
    fn one_saturated_worker_of_three_makes_the_cell_invalid() {
        let checks = judged(None, |workers| workers[2].health.cpu = Micros(99));
        let said = "99.0 % of its cores, limit 90 %, worst of 3 workers on w2 (epoch 4)";
        assert_eq!(broken(&checks), [(Rule::GeneratorCpu, said)]);
    }

    #[test]
    fn a_worker_alone_is_not_named_and_one_without_users_not_asked() {
        let checks = judged(None, |workers| {
            workers[1..].iter_mut().for_each(|p| p.users = 0);
            workers[2].health.cpu = Micros(99);
            workers[2].start_late = None;
        });
        assert_eq!(worst(&checks), Verdict::Pass);
        assert!(checks.iter().all(|c| !c.evidence.contains("epoch") && c.rule != Rule::StartTogether));
    }

    #[test]
    fn a_worker_that_alone_gets_no_answer_is_cut_off_and_two_are_the_targets_doing() {
        let none = JobOutcome::Rejected { status: 0 };
        let silent = JobOutcome::Broken { what: format!("{}8.00 s: timed out", JobOutcome::NO_ANSWER) };
        let error = JobOutcome::Broken { what: format!("{}8.00 s: 500 oops", JobOutcome::NO_ANSWER) };
        let fetched = JobOutcome::Fetched;
        let said = "2 of 3 jobs of worker w1 (epoch 3) got no answer, and none of 3 of others";
        for (of_0, of_1, expected) in [
            ([&fetched, &fetched, &fetched], [&none, &silent, &fetched], Some(said)),
            ([&error, &fetched, &fetched], [&none, &silent, &fetched], Some(said)),
            ([&silent, &fetched, &fetched], [&none, &silent, &none], None),
            ([&fetched, &fetched, &fetched], [&silent, &fetched, &fetched], None),
            ([&fetched, &fetched, &fetched], [&error, &error, &error], None),
        ] {
            let mut totals = Totals::default();
            for (user, (worker, outcome)) in
                of_0.map(|o| (0, o)).into_iter().chain(of_1.map(|o| (1, o))).enumerate()
            {
                let job = Job::new(worker, String::new(), outcome.clone());
                totals.jobs.insert(JobKey { user: user as u32, nth: 0 }, job);
            }
            let workers = [0, 1, 2].map(well);
            let cell = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
            let ledger = Ledger::default();
            let check = cut_off(&facts(&cell, &totals, &ledger, None, &workers));
            assert_eq!(check.as_ref().map(|c| c.evidence.as_str()), expected);
            assert!(check.is_none_or(|c| c.verdict == Verdict::Invalid));
        }
    }

    #[test]
    fn without_the_health_of_each_that_of_all_is_judged() {
        let facts_of = |workers: &[Part]| {
            let mut totals = Totals::default();
            (totals.health.cpu, totals.health.capacity) = (Micros(95), Micros(100));
            worst_cpu(workers, &totals)
        };
        let unknown = Part { users: 3, ..Part::default() };
        assert_eq!([facts_of(&[]), facts_of(&[unknown])], [0.95; 2]);
    }

    #[test]
    fn a_start_that_the_clock_leaves_in_doubt_is_invalid() {
        assert_eq!(broken(&judged(None, |_| ())), []);
        let checks = judged(None, |workers| workers[1].offset.error = Micros(19_800));
        let said = "at most 20.2 ms apart (the last begun 300 µs after T0, its clock ± 19.8 ms), limit 20.0 ms, worst of 3 workers on w1 (epoch 3)";
        assert_eq!(broken(&checks), [(Rule::StartTogether, said)]);
        let checks = judged(None, |workers| workers[0].start_late = Some(Micros(25_000)));
        assert!(broken(&checks)[0].1.ends_with("on w0 (epoch 2)"));
        let checks = judged(None, |workers| workers[2].start_late = None);
        let said = "worker w2 (epoch 4) did not say when its users began";
        assert_eq!(broken(&checks), [(Rule::StartTogether, said)]);
        // What is missing is told once.
        let checks = judged(Some("worker w2 (epoch 4) is lost"), |workers| workers[2].start_late = None);
        assert_eq!(broken(&checks), [(Rule::FramesComplete, "worker w2 (epoch 4) is lost")]);
    }
}
