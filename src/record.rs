//! The run record, `run.json`: everything a report needs. Reports are drawn from nothing else.
//!
//! It is long because the format stands here as one page.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use crate::machine::{Build, Host};
use crate::{
    crew::{Crew, Part},
    finding::{self, Finding},
    injection::Injection,
    ledger::Ledger,
    micros::Micros,
    plan::{Cell, CellKind, Plan},
    posts::CellPosts,
    scenario::ScenarioId,
    snapshot::Totals,
    telemetry::Telemetry,
    threshold::Threshold,
    verdict::{self, Check, Verdict},
};

/// Version of the format; a record with another one is refused.
pub const SCHEMA: u32 = 4;
/// Name of the record in a run's folder.
pub const FILE: &str = "run.json";

/// Everything about one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunRecord {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Unique name of the run; job titles carry it.
    pub run_id: String,
    /// What the folder is called after: the scenario's id, or a label given.
    pub label: String,
    /// When it began.
    pub started: Timestamp,
    /// When the last cell ended, as far as the run got.
    pub finished: Option<Timestamp>,
    /// The program.
    pub build: Build,
    /// The command line as typed, secrets never among it.
    pub command: String,
    /// The machine the generator ran on.
    pub host: Host,
    /// Starts after the first one, when the run was interrupted and resumed.
    pub resumed: Vec<Resumed>,
    /// What was under test, as it was told on the command line: name and revision.
    pub revisions: BTreeMap<String, String>,
    /// What the one who started it wanted to be kept.
    pub note: Option<String>,
    /// The target.
    pub target: Target,
    /// What stood between its workers and its API.
    pub rigging: RiggingFacts,
    /// The target's Redis, if one was named.
    pub redis: Option<RedisFacts>,
    /// Names of the processes that were watched.
    pub watched: Vec<String>,
    /// The plane and what befell its workers; `None` for a run on one host, in one process.
    pub crew: Option<Crew>,
    /// What was planned.
    pub plan: Plan,
    /// Limits asked for on the command line.
    pub thresholds: Vec<Threshold>,
    /// Cells that ended, in the order they ran; warm-ups included, without their totals.
    pub cells: Vec<CellRecord>,
    /// Rules on the whole run; filled when it ends.
    pub checks: Vec<Check>,
    /// Worst of all checks; `None` while the run goes on.
    pub verdict: Option<Verdict>,
    /// Why the run stopped before its plan was done.
    pub stopped: Option<String>,
}

/// The system under test.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Whether it is the stand-in: its figures say nothing about any real backend.
    pub stand_in: bool,
    /// Its address; no credentials.
    pub url: String,
    /// What `GET /` answered.
    pub hello: String,
    /// Its `Server` header, if any.
    pub server: Option<String>,
    /// Whether it keeps connections open between requests.
    pub keep_alive: bool,
    /// Of the stand-in: what its workers do with a post that got no answer.
    pub retries: Option<String>,
    /// Of the stand-in: how it was set.
    pub knobs: Option<String>,
}

/// What stood between the target's workers and its API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RiggingFacts {
    /// The tap that was read.
    pub tap: Option<TapFacts>,
    /// The Toxiproxy that did the faults.
    pub toxiproxy: Option<ToxiproxyFacts>,
}

/// A tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapFacts {
    /// Its address.
    pub url: String,
    /// Where it sends posts on to.
    pub upstream: String,
    /// springtide's version there.
    pub version: String,
    /// Whether it ran within this process.
    pub built_in: bool,
}

/// A Toxiproxy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToxiproxyFacts {
    /// Address of its API.
    pub url: String,
    /// The proxy in it.
    pub proxy: String,
    /// Address of that proxy.
    pub listen: String,
}

/// A start of the program that went on with a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    /// When.
    pub at: Timestamp,
    /// The program, which may be another build.
    pub build: Build,
    /// The command line as typed.
    pub command: String,
    /// The machine.
    pub host: Host,
    /// How many cells there were already.
    pub cells: u32,
}

/// The target's Redis.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RedisFacts {
    /// Its address; no credentials.
    pub url: String,
    /// Its version.
    pub version: String,
    /// The name it gave itself at its start.
    pub run_id: String,
    /// Bytes its data may take; 0 for no limit.
    pub maxmemory: u64,
    /// What it does when that is not enough.
    pub policy: String,
}

/// What was seen beside the load of a cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Beside {
    /// The posts of the target's workers; `None` without a tap.
    pub posts: Option<CellPosts>,
    /// The fault; `None` where there was to be none.
    pub injection: Option<Injection>,
    /// Redis, metrics, processes, probes.
    pub telemetry: Telemetry,
    /// What the target was still busy with when the cell began; `None` when it was idle.
    pub busy: Option<String>,
    /// How many jobs had been given up before the cell, where nobody saw whether the target still worked
    /// on them.
    pub unwatched: u32,
}

/// One cell that ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CellRecord {
    /// What was planned.
    pub cell: Cell,
    /// T0 in Unix microseconds of the plane's clock.
    pub t0_unix: u64,
    /// T0 to the last job's outcome.
    pub duration: Micros,
    /// Everything measured; empty for a warm-up.
    pub totals: Totals,
    /// Who carried it out; the place in the list is the number of the share.
    pub workers: Vec<Part>,
    /// The books.
    pub ledger: Ledger,
    /// What the tap saw; `None` without a tap, and for a warm-up.
    pub posts: Option<CellPosts>,
    /// The fault that was injected, if there was to be one.
    pub injection: Option<Injection>,
    /// What was sampled beside it.
    pub telemetry: Telemetry,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Every rule, applied.
    pub checks: Vec<Check>,
    /// Their worst.
    pub verdict: Verdict,
}

impl CellRecord {
    /// Closes a cell: draws up its books, lists its findings, applies the rules.
    pub fn close(
        cell: Cell,
        plan: &Plan,
        totals: Totals,
        t0_unix: u64,
        workers: Vec<Part>,
        frames: Option<String>,
        beside: Beside,
    ) -> Self {
        let Beside { posts, injection, telemetry, busy, unwatched } = beside;
        let ledger = Ledger::of(&totals);
        let interval = plan.settings.poll_interval;
        let mut findings =
            finding::of_cell(&totals, &ledger, interval, posts.as_ref(), injection.as_ref(), &workers);
        findings.extend(finding::of_leftovers(unwatched));
        let facts = verdict::Facts {
            cell: &cell,
            totals: &totals,
            ledger: &ledger,
            findings: &findings,
            posts: posts.as_ref(),
            injection: injection.as_ref(),
            frames: frames.as_deref(),
            busy: busy.as_deref(),
            workers: &workers,
        };
        let checks = verdict::of_cell(&facts, &plan.settings.limits);
        let duration = totals.jobs.values().map(|j| j.timeline.ended).max().unwrap_or_default();
        let verdict = verdict::worst(&checks);
        Self {
            cell,
            t0_unix,
            duration,
            totals,
            workers,
            ledger,
            posts,
            injection,
            telemetry,
            findings,
            checks,
            verdict,
        }
    }

    /// Whether users were let go.
    pub fn has_begun(&self) -> bool {
        self.t0_unix > 0
    }

    /// Whether it is INVALID, and has been tried at most `requeue` times again, not counting a few tries in
    /// which no user was let go.
    pub fn may_be_made_again(&self, requeue: u32) -> bool {
        let is_measured = self.cell.kind == CellKind::Measured;
        let tries = self.cell.tries(self.has_begun());
        is_measured && self.verdict == Verdict::Invalid && requeue > 0 && tries <= requeue
    }

    /// The same without its measurements, as a warm-up is kept.
    pub fn without_totals(self) -> Self {
        Self { totals: Totals::default(), posts: None, telemetry: Telemetry::default(), ..self }
    }
}

impl RunRecord {
    /// The cells that count, in the order they ran: of a repetition that was made again, the last.
    pub fn measured(&self) -> impl Iterator<Item = &CellRecord> + Clone {
        let last = self.last_attempts();
        let is_last = move |c: &&CellRecord| last.get(&repetition(&c.cell)) == Some(&c.cell.attempt);
        self.cells.iter().filter(|c| c.cell.kind == CellKind::Measured).filter(is_last)
    }

    /// INVALID cells that were made again, and therefore count no more.
    pub fn replaced(&self) -> impl Iterator<Item = &CellRecord> {
        let last = self.last_attempts();
        let is_older = move |c: &&CellRecord| last.get(&repetition(&c.cell)) > Some(&c.cell.attempt);
        self.cells.iter().filter(|c| c.cell.kind == CellKind::Measured).filter(is_older)
    }

    fn last_attempts(&self) -> BTreeMap<(ScenarioId, u32), u32> {
        let mut last = BTreeMap::new();
        for c in self.cells.iter().filter(|c| c.cell.kind == CellKind::Measured) {
            let attempt = last.entry(repetition(&c.cell)).or_default();
            *attempt = c.cell.attempt.max(*attempt);
        }
        last
    }

    /// What is left of the plan: warm-ups for what follows, repetitions that have no cell yet, and
    /// INVALID cells that may be made again. Empty when nothing is left.
    pub fn todo(&self) -> Vec<Cell> {
        let last = self.last_attempts();
        let is_open = |c: &&Cell| c.kind == CellKind::Measured && !last.contains_key(&repetition(c));
        let mut cells: Vec<Cell> = self.plan.cells.iter().filter(is_open).cloned().collect();
        let known = self.plan.cells.iter().chain(self.cells.iter().map(|c| &c.cell)).map(|c| c.index).max();
        let again = self.measured().filter(|c| c.may_be_made_again(self.plan.settings.requeue));
        for (index, record) in (known.map_or(0, |last| last + 1)..).zip(again) {
            cells.push(record.cell.again(index, record.has_begun()));
        }
        let is_wanted =
            |w: &&Cell| w.kind == CellKind::WarmUp && cells.iter().any(|c: &Cell| c.tasks == w.tasks);
        let mut all: Vec<Cell> = self.plan.cells.iter().filter(is_wanted).cloned().collect();
        all.append(&mut cells);
        all
    }

    /// The checks of every measured cell and of the run.
    pub fn all_checks(&self) -> impl Iterator<Item = &Check> + Clone {
        self.measured().flat_map(|c| &c.checks).chain(&self.checks)
    }
}

fn repetition(cell: &Cell) -> (ScenarioId, u32) {
    (cell.scenario.clone(), cell.repetition)
}

/// Why a record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The system refused.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no run record.
    #[error("{path}: not a run record: {source}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where it fails.
        source: serde_json::Error,
    },
    /// It is of another version of springtide.
    #[error("{path}: record of schema {found}, this springtide reads {SCHEMA}")]
    Schema {
        /// The file.
        path: PathBuf,
        /// Its schema.
        found: u32,
    },
}

impl RunRecord {
    /// Reads the record of a run's folder, or the file itself.
    ///
    /// # Errors
    /// When it is not there, damaged or of another schema.
    pub fn load(at: &Path) -> Result<Self, RecordError> {
        let path = if at.is_dir() { at.join(FILE) } else { at.to_owned() };
        let bytes = fs::read(&path).map_err(|source| RecordError::Io { path: path.clone(), source })?;
        #[derive(Deserialize)]
        struct Version {
            schema: u32,
        }
        let damaged = |source| RecordError::Damaged { path: path.clone(), source };
        let Version { schema } = serde_json::from_slice(&bytes).map_err(damaged)?;
        if schema != SCHEMA {
            return Err(RecordError::Schema { path, found: schema });
        }
        serde_json::from_slice(&bytes).map_err(damaged)
    }

    /// Writes it into the run's folder, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written to; the record before is then still there.
    pub fn save(&self, folder: &Path) -> Result<(), RecordError> {
        let bytes = serde_json::to_vec(self).expect("a record is plain data");
        write_whole(&folder.join(FILE), &bytes)
    }
}

/// Writes a file so that readers see the old or the new one, never a part; a crash or a full disk
/// leaves the old one.
///
/// # Errors
/// What the system said, with the path.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
    let io = |source| RecordError::Io { path: path.to_owned(), source };
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = fs::File::create(&part).and_then(|mut file| {
        io::Write::write_all(&mut file, bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&part, path)).map_err(|source| {
        let _ = fs::remove_file(&part);
        io(source)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::report::sample;

    /// Takes the record of a whole run apart and lets it end after `done` of its cells.
    fn cut(mut run: RunRecord, done: usize) -> RunRecord {
        run.cells.truncate(done);
        run
    }

    proptest! {
        #[test]
        fn what_was_done_and_what_is_left_are_the_plan(done in 0usize..30) {
            let whole = sample::mixed();
            let run = cut(whole.clone(), done.min(whole.cells.len()));
            let left = run.todo();
            let measured = |c: &&Cell| c.kind == CellKind::Measured;
            let mut all: Vec<_> = run.measured().map(|c| repetition(&c.cell)).collect();
            all.extend(left.iter().filter(measured).map(repetition));
            let mut plan: Vec<_> = run.plan.measured().map(repetition).collect();
            all.sort();
            plan.sort();
            prop_assert_eq!(all, plan);
            let order: Vec<_> = left.iter().filter(measured).map(|c| c.index).collect();
            prop_assert!(order.is_sorted());
        }
    }

    #[test]
    fn an_invalid_cell_is_left_to_do_until_it_was_tried_often_enough() {
        let mut run = sample::invalid_only();
        assert!(run.todo().is_empty(), "nothing is made again unless asked for");
        run.plan.settings.requeue = 1;
        let again: Vec<Cell> = run.todo().into_iter().filter(|c| c.kind == CellKind::Measured).collect();
        assert_eq!(again.len(), run.measured().count());
        assert!(again.iter().all(|c| c.attempt == 2));
        let old = run.measured().count();
        let repeats: Vec<CellRecord> = again
            .iter()
            .map(|cell| {
                let of = run.measured().find(|c| repetition(&c.cell) == repetition(cell)).unwrap();
                CellRecord { cell: cell.clone(), ..of.clone() }
            })
            .collect();
        run.cells.extend(repeats);
        assert_eq!((run.measured().count(), run.replaced().count()), (old, old));
        assert!(run.todo().is_empty(), "once more was all");
    }
}
