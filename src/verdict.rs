//! The judgement of a cell and of a run: PASS, FAIL or INVALID, each with its reasons.
//!
//! FAIL speaks of the target, INVALID of the measurement: a figure of an INVALID cell may be
//! wrong, and a wrong number is worse than none, so INVALID outranks FAIL.

use std::fmt;

use serde::{Deserialize, Serialize};

mod tap;
mod workers;

pub use workers::{START_WITHIN, worst_cpu, worst_lag, worst_start};

use crate::{
    crew::Part,
    finding::{Finding, Kind},
    injection::Injection,
    ledger::Ledger,
    plan::{Cell, Limits},
    posts::CellPosts,
    snapshot::Totals,
};

/// The three values; the worse one is the greater.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Verdict {
    /// Every rule holds.
    #[default]
    Pass,
    /// The target did not do what was asked.
    Fail,
    /// The measurement cannot be trusted.
    Invalid,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "PASS",
            Self::Fail => "FAIL",
            Self::Invalid => "INVALID",
        })
    }
}

/// One rule, applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The rule.
    pub rule: Rule,
    /// What it says of the cell or run.
    pub verdict: Verdict,
    /// The figures it was judged on.
    pub evidence: String,
}

/// The rules of DESIGN section 7.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// Every submit has one outcome, and there are neither ghosts nor duplicates nor vanished jobs.
    LedgerAddsUp,
    /// The target's own list could be read.
    Reconciled,
    /// Nothing of ours goes on at the target.
    Quiet,
    /// Planned waits end in time, on every worker.
    SchedulingLag,
    /// The load threads had CPU to spare, on every worker.
    GeneratorCpu,
    /// Little's law: users = throughput × (response time + waits).
    LittlesLaw,
    /// Every frame of every worker arrived and the deltas are the totals.
    FramesComplete,
    /// The users of all workers began at one moment, as far as the clocks can tell.
    StartTogether,
    /// No worker was cut off from the target by itself.
    TargetReached,
    /// The target was idle when the cell began and had nothing else to do in it, as far as its queues
    /// and its workers' posts tell.
    Idle,
    /// The tap missed no post, and what it counted fits together.
    TapComplete,
    /// The injected fault showed while it should, and only then.
    FaultProven,
    /// Every job was fetched, where no fault was injected.
    JobsFetched,
    /// Results of one input are alike.
    ResultsAgree,
    /// A threshold of the command line.
    Threshold,
    /// The run went to its end.
    RunComplete,
}

impl Rule {
    /// The rule as a sentence.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LedgerAddsUp => "the job ledger adds up",
            Self::Reconciled => "reconciled with the target's own list",
            Self::Quiet => "the target is quiet again",
            Self::SchedulingLag => "generator: waits end in time",
            Self::GeneratorCpu => "generator: CPU to spare",
            Self::LittlesLaw => "generator: Little's law holds",
            Self::FramesComplete => "every frame of every worker arrived",
            Self::StartTogether => "every worker started at the same moment",
            Self::TargetReached => "every worker reached the target",
            Self::Idle => "the target had nothing else to do",
            Self::TapComplete => "the tap saw every post",
            Self::FaultProven => "the fault showed, and only while it should",
            Self::JobsFetched => "every job was fetched",
            Self::ResultsAgree => "results of one input agree",
            Self::Threshold => "threshold",
            Self::RunComplete => "the run went to its end",
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Check {
    /// A rule that holds, or the verdict it otherwise brings.
    pub fn new(rule: Rule, holds: bool, otherwise: Verdict, evidence: String) -> Self {
        Self { rule, verdict: if holds { Verdict::Pass } else { otherwise }, evidence }
    }
}

/// The worst verdict of some checks.
pub fn worst<'a>(checks: impl IntoIterator<Item = &'a Check>) -> Verdict {
    checks.into_iter().map(|c| c.verdict).max().unwrap_or_default()
}

/// What a finished cell is judged on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What was planned.
    pub cell: &'a Cell,
    /// What was measured.
    pub totals: &'a Totals,
    /// Its books.
    pub ledger: &'a Ledger,
    /// What was found.
    pub findings: &'a [Finding],
    /// What the tap saw.
    pub posts: Option<&'a CellPosts>,
    /// What was injected.
    pub injection: Option<&'a Injection>,
    /// What is wrong with its frames; `None` when all arrived.
    pub frames: Option<&'a str>,
    /// What the target was still busy with when it began; `None` when it was idle.
    pub busy: Option<&'a str>,
    /// Who carried it out.
    pub workers: &'a [Part],
}

/// Applies every rule that concerns a finished cell.
pub fn of_cell(facts: &Facts<'_>, limits: &Limits) -> Vec<Check> {
    use Verdict::{Fail, Invalid};
    let Facts { cell, ledger, findings, frames, .. } = *facts;
    let health = &facts.totals.health;
    let count = |f: fn(&Kind) -> bool| findings.iter().filter(|x| f(&x.kind)).map(|x| x.count).sum::<u64>();
    let differ = count(|k| matches!(k, Kind::ResultsDiffer));
    let loud = count(|k| matches!(k, Kind::NotQuiet));
    let (fetched, ended) = (ledger.count("fetched"), ledger.ended());
    let mut checks = vec![
        Check::new(
            Rule::LedgerAddsUp,
            ledger.residual() == 0,
            Invalid,
            format!(
                "{} submitted, {ended} ended, {} ghosts, {} duplicates, {} vanished{}: residual {}",
                ledger.submitted,
                ledger.ghosts.len(),
                ledger.duplicates.len(),
                ledger.vanished.len(),
                match ledger.contradicted.len() {
                    0 => String::new(),
                    n => format!(", {n} listed though answered with 404"),
                },
                ledger.residual()
            ),
        ),
        Check::new(
            Rule::Reconciled,
            ledger.reconciled,
            Invalid,
            if ledger.reconciled {
                format!("{} jobs in the target's list", ledger.listed)
            } else {
                "the target's list could not be read".into()
            },
        ),
        Check::new(Rule::Quiet, loud == 0, Invalid, format!("{loud} jobs go on after the cell")),
        workers::waits_end_in_time(facts, limits),
        workers::cpu_to_spare(facts, limits),
        Check::new(
            Rule::LittlesLaw,
            health.unaccounted() <= limits.little,
            Invalid,
            format!(
                "{:.2} % of the users' {} not in requests or waits, limit {:.0} %",
                health.unaccounted() * 100.0,
                health.user_time,
                limits.little * 100.0
            ),
        ),
        Check::new(
            Rule::FramesComplete,
            frames.is_none(),
            Invalid,
            frames.unwrap_or("deltas equal totals").into(),
        ),
    ];
    checks.extend(workers::began_together(facts));
    checks.extend(workers::cut_off(facts));
    let others = facts.posts.and_then(tap::others);
    checks.extend(
        facts.busy.map(str::to_owned).or(others).map(|why| Check::new(Rule::Idle, false, Invalid, why)),
    );
    checks.extend(facts.posts.map(|posts| tap::is_complete(facts, posts)));
    checks.extend(tap::fault_showed(facts));
    if cell.fault.is_none() {
        checks.push(Check::new(
            Rule::ResultsAgree,
            differ == 0,
            Fail,
            format!("{differ} jobs with results unlike the others'"),
        ));
        checks.push(Check::new(
            Rule::JobsFetched,
            fetched == ended && ended > 0,
            Fail,
            format!("{fetched} of {ended}"),
        ));
    }
    // Where frames are missing, that is why nothing else adds up.
    let is_cause = |c: &Check| c.rule == Rule::FramesComplete && c.verdict != Verdict::Pass;
    checks.sort_by_key(|c| !is_cause(c));
    checks
}

/// What the process ends with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: PASS.
    Pass,
    /// 1: jobs failed, or springtide could not go on.
    Failed,
    /// 2: bad flags, files or configuration; nothing was started.
    Usage,
    /// 3: a threshold failed.
    Threshold,
    /// 4: worse than the baseline.
    Regression,
    /// 5: INVALID.
    Invalid,
    /// 130: interrupted (Ctrl-C).
    Interrupted,
    /// 143: terminated (SIGTERM).
    Terminated,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Pass => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Threshold => 3,
            Self::Regression => 4,
            Self::Invalid => 5,
            Self::Interrupted => 130,
            Self::Terminated => 143,
        }
    }

    /// The exit that a run's checks lead to, when it was not interrupted. Failed jobs come before
    /// failed thresholds.
    pub fn of<'a>(checks: impl IntoIterator<Item = &'a Check> + Clone) -> Self {
        match worst(checks.clone()) {
            Verdict::Pass => Self::Pass,
            Verdict::Invalid => Self::Invalid,
            Verdict::Fail => {
                let mut failed = checks.into_iter().filter(|c| c.verdict == Verdict::Fail);
                if failed.all(|c| c.rule == Rule::Threshold) { Self::Threshold } else { Self::Failed }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{micros::Micros, plan::Plan, scenario::Matrix, snapshot::Health};

    fn judged(change: impl Fn(&mut Ledger, &mut Health)) -> Vec<Check> {
        let cell = Plan::cells(1, &Matrix::runbook().scenarios, false)
            .into_iter()
            .find(|c| c.fault.is_none())
            .unwrap();
        let mut ledger = Ledger { submitted: 2, reconciled: true, ..Ledger::default() };
        ledger.outcomes.insert("fetched".into(), 2);
        let mut health = Health { user_time: Micros(100), in_flight: Micros(100), ..Health::default() };
        change(&mut ledger, &mut health);
        let totals = Totals { health, ..Totals::default() };
        let facts = Facts {
            cell: &cell,
            totals: &totals,
            ledger: &ledger,
            findings: &[],
            posts: None,
            injection: None,
            frames: None,
            busy: None,
            workers: &[],
        };
        of_cell(&facts, &Limits::default())
    }

    #[test]
    fn a_clean_cell_passes() {
        assert_eq!(Exit::of(&judged(|_, _| ())), Exit::Pass);
    }

    #[test]
    fn failed_jobs_fail_and_an_untrusted_measurement_outranks_them() {
        let failing = |l: &mut Ledger, _: &mut Health| {
            l.outcomes.insert("failed".into(), 1);
            l.outcomes.insert("fetched".into(), 1);
        };
        assert_eq!(Exit::of(&judged(failing)), Exit::Failed);
        let both = judged(|l, h| {
            failing(l, h);
            l.ghosts.insert("x".into());
        });
        assert_eq!(Exit::of(&both), Exit::Invalid);
    }

    #[test]
    fn a_generator_that_measured_itself_is_invalid() {
        for change in [
            (|_: &mut Ledger, h: &mut Health| h.lag.record(Micros(200_000))) as fn(&mut Ledger, &mut Health),
            |_, h| (h.cpu, h.capacity) = (Micros(95), Micros(100)),
            |_, h| h.user_time = Micros(120),
        ] {
            assert_eq!(worst(&judged(change)), Verdict::Invalid);
        }
    }

    #[test]
    fn a_threshold_alone_has_its_own_exit() {
        let mut checks = judged(|_, _| ());
        checks.push(Check::new(Rule::Threshold, false, Verdict::Fail, String::new()));
        assert_eq!(Exit::of(&checks), Exit::Threshold);
    }
}
