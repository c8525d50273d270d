//! Conservation: every job that was submitted has one outcome, and the target's own list says the
//! same. What is left over is the residual, and a residual makes a cell INVALID.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{snapshot::Totals, timeline::JobOutcome};

/// The books of one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Submits sent, counted when they were sent.
    pub submitted: u64,
    /// Jobs by kind of outcome, counted when they ended. Every kind is there.
    pub outcomes: BTreeMap<String, u64>,
    /// Whether the target's list could be read for every account.
    pub reconciled: bool,
    /// Jobs in the target's list.
    pub listed: u64,
    /// Ids of jobs the target has though the submit was never answered as accepted.
    pub ghosts: BTreeSet<String>,
    /// Ids of second jobs that one submit made, and ids given to more than one submit.
    pub duplicates: BTreeSet<String>,
    /// Ids of jobs that were accepted and not reported lost, but are not in the target's list.
    pub vanished: BTreeSet<String>,
    /// Ids of jobs that the target lists though it answered 404 when asked for them.
    #[serde(default)]
    pub contradicted: BTreeSet<String>,
}

impl Ledger {
    /// Draws up the books of a finished cell.
    pub fn of(totals: &Totals) -> Self {
        let mut outcomes: BTreeMap<String, u64> =
            JobOutcome::KINDS.iter().map(|k| ((*k).to_owned(), 0)).collect();
        let mut accepted: BTreeMap<&str, &str> = BTreeMap::new();
        let (mut ghosts, mut duplicates) = (BTreeSet::new(), BTreeSet::new());
        let (mut vanished, mut contradicted) = (BTreeSet::new(), BTreeSet::new());
        let target = &totals.target;
        let reconciled = target.accounts_read > 0 && target.errors.is_empty();
        for job in totals.jobs.values() {
            *outcomes.entry(job.outcome.kind().to_owned()).or_default() += 1;
            let Some(id) = &job.job_id else { continue };
            if accepted.insert(id, &job.title).is_some() {
                duplicates.insert(id.clone());
            }
            if job.outcome == JobOutcome::Lost && target.listed.contains_key(id) {
                contradicted.insert(id.clone());
            }
            if reconciled && job.outcome != JobOutcome::Lost && !target.listed.contains_key(id) {
                vanished.insert(id.clone());
            }
        }
        let titles: BTreeSet<&str> = accepted.values().copied().collect();
        for (id, row) in &target.listed {
            if accepted.contains_key(id.as_str()) {
                continue;
            }
            let kind = if titles.contains(row.title.as_str()) { &mut duplicates } else { &mut ghosts };
            kind.insert(id.clone());
        }
        Self {
            submitted: totals.progress.submitted,
            outcomes,
            reconciled,
            listed: target.listed.len() as u64,
            ghosts,
            duplicates,
            vanished,
            contradicted,
        }
    }

    /// Jobs of that kind of outcome.
    pub fn count(&self, kind: &str) -> u64 {
        self.outcomes.get(kind).copied().unwrap_or(0)
    }

    /// Jobs that ended, whatever their outcome.
    pub fn ended(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// What does not add up: submits without an outcome (or outcomes without a submit), ghosts,
    /// duplicates, vanished jobs and contradictions. Zero in a cell that can be trusted.
    pub fn residual(&self) -> u64 {
        self.submitted.abs_diff(self.ended())
            + (self.ghosts.len() + self.duplicates.len() + self.vanished.len() + self.contradicted.len())
                as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::{Job, JobKey, Listed};

    fn job(id: Option<&str>, title: &str, outcome: JobOutcome) -> Job {
        Job { job_id: id.map(Into::into), ..Job::new(0, title.into(), outcome) }
    }

    fn totals(jobs: Vec<Job>, listed: &[(&str, &str)]) -> Totals {
        let mut t = Totals::default();
        t.progress.submitted = jobs.len() as u64;
        t.target.accounts_read = 1;
        for (n, j) in jobs.into_iter().enumerate() {
            t.jobs.insert(JobKey { user: n as u32, nth: 0 }, j);
        }
        for (id, title) in listed {
            let row = Listed { title: (*title).into(), end_time: None };
            t.target.listed.insert((*id).into(), row);
        }
        t
    }

    #[test]
    fn a_clean_cell_has_no_residual() {
        let t = totals(
            vec![
                job(Some("a"), "1", JobOutcome::Fetched),
                job(None, "2", JobOutcome::Rejected { status: 400 }),
                job(Some("c"), "3", JobOutcome::Lost),
            ],
            &[("a", "1")],
        );
        let ledger = Ledger::of(&t);
        assert_eq!((ledger.residual(), ledger.ended(), ledger.count("lost")), (0, 3, 1));
        assert!(ledger.reconciled);
    }

    #[test]
    fn ghosts_duplicates_and_vanished_jobs_are_told_apart() {
        let t = totals(
            vec![
                job(Some("a"), "1", JobOutcome::Fetched),
                job(None, "2", JobOutcome::Rejected { status: 500 }),
                job(Some("c"), "3", JobOutcome::Fetched),
            ],
            &[("a", "1"), ("a2", "1"), ("g", "2")],
        );
        let ledger = Ledger::of(&t);
        assert_eq!(ledger.duplicates, ["a2".to_owned()].into());
        assert_eq!(ledger.ghosts, ["g".to_owned()].into());
        assert_eq!(ledger.vanished, ["c".to_owned()].into());
        assert_eq!(ledger.residual(), 3);
    }

    #[test]
    fn a_submit_without_outcome_is_residual() {
        let mut t = totals(vec![job(Some("a"), "1", JobOutcome::Fetched)], &[("a", "1")]);
        t.progress.submitted = 3;
        assert_eq!(Ledger::of(&t).residual(), 2);
    }

    #[test]
    fn without_the_targets_list_nothing_is_reconciled() {
        let mut t = totals(vec![job(Some("a"), "1", JobOutcome::Fetched)], &[]);
        t.target.errors.insert("connection refused".into());
        let ledger = Ledger::of(&t);
        assert!(!ledger.reconciled);
        assert!(ledger.vanished.is_empty(), "an unread list proves nothing");
    }
}
