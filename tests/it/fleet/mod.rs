//! A manager and its workers, as processes on a real plane.
//!
//! What happened is told by the stand-in, which knows when each job was submitted and ended and how
//! many were in flight at most. Titles of jobs say of which start of which run, which cell and which
//! user they were, so that every job it ever saw can be accounted for.

mod comings;
mod frames;
mod hosts;
mod losses;
mod managers;
mod outages;
mod proxy;
mod refusals;
mod shares;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::process::Signal;
use springtide::{
    crew::{Event, What},
    record::{CellRecord, RunRecord},
    standin::{JobTruth, Truth},
    timeline::JobState,
    verdict::{Exit, Rule, Verdict},
};

use crate::{
    backend::{Backend, ask},
    redis_server::RedisServer,
    support::{Ended, Going, OF_THE_MACHINE, Run, records_below, wait_for},
};

/// How long leases last: quick to wait for, and far beyond the pauses of a busy machine.
const LEASE: Duration = Duration::from_secs(2);
/// What may come on top of a lease until it is seen at the stand-in.
const MARGIN: Duration = Duration::from_secs(2);
/// How long a step may take on a busy machine.
const WITHIN: Duration = Duration::from_secs(60);
/// How long a whole run may take there.
const WHOLE: Duration = Duration::from_secs(240);

/// The account that users share, where they do.
const ANN: &str = "ann";
/// Her password.
const PASSWORD: &str = "correct-horse-battery-staple";

/// A plane, and a target for the load.
struct Fleet {
    plane: RedisServer,
    backend: Backend,
}

impl Fleet {
    /// With a stand-in of these flags, at which [`ANN`] has an account.
    fn start(backend: &str) -> Self {
        Self::with(RedisServer::start(), backend)
    }

    /// The same on that plane.
    fn with(plane: RedisServer, backend: &str) -> Self {
        let backend = Backend::start(backend);
        let account = format!("{{\"username\":\"{ANN}\",\"password\":\"{PASSWORD}\"}}");
        ask(&backend.url, "PUT", "/auth/register", &account);
        Self { plane, backend }
    }

    /// A worker of that name that knows [`ANN`]'s password, to be started.
    fn worker(&self, name: &str) -> Run {
        worker_at(&self.plane.url(), name).env("SPRINGTIDE_PASSWORD", PASSWORD)
    }

    /// Workers of these names, started.
    fn workers<const N: usize>(&self, names: [&str; N]) -> [Going; N] {
        names.map(|name| self.worker(name).start())
    }

    /// A manager of two cells of four users with a job of one task each, who share an account; to be
    /// started. What the machine does besides makes no cell INVALID, as far as that can be said.
    fn manager(&self) -> Run {
        let run = Run::of("manager")
            .set("plane", self.plane.url())
            .set("plane-lease", format!("{}s", LEASE.as_secs()))
            .set("scenarios", "S6")
            .set("users", 4)
            .set("tasks", 1)
            .set("repetitions", 2)
            .flag("no-warmup")
            .set("poll-interval", "50ms")
            .set("job-timeout", "60s")
            .set("seed", 7)
            .set("max-lag", "60s")
            .set("max-cpu", 100)
            .set("host", &self.backend.url)
            .within(WHOLE);
        shared_account(run)
    }

    /// A manager that goes on with a run, to be started.
    fn resumes(&self, run: impl ToString) -> Run {
        Run::of("manager")
            .set("plane", self.plane.url())
            .set("resume", run)
            .set("username", ANN)
            .env("SPRINGTIDE_PASSWORD", PASSWORD)
            .within(WHOLE)
    }

    /// Waits until so many jobs of a cell are in flight at the stand-in, and returns what it knows then.
    #[track_caller]
    fn in_flight(&self, cell: u32, jobs: usize) -> Truth {
        wait_for("jobs in flight", WITHIN, || {
            let truth = self.backend.truth();
            let is_going = |j: &&JobTruth| j.accepted_us.is_some() && j.ended_us.is_none();
            let going = truth.jobs.iter().filter(|j| Of::title(j).cell == cell).filter(is_going).count();
            (going >= jobs).then_some(truth)
        })
    }

    /// Waits until nothing is in flight at the stand-in.
    #[track_caller]
    fn is_quiet(&self, within: Duration) -> Truth {
        wait_for("every job's end", within, || {
            let truth = self.backend.truth();
            truth.jobs.iter().all(|j| j.ended_us.is_some()).then_some(truth)
        })
    }
}

/// A worker of that name, to be started.
fn worker_at(plane: &str, name: &str) -> Run {
    Run::of("worker").set("plane", plane).set("name", name).set("spool", "spool").within(WHOLE * 2)
}

/// All users share [`ANN`]'s account; who asks knows the password.
fn shared_account(run: Run) -> Run {
    run.set("username", ANN).env("SPRINGTIDE_PASSWORD", PASSWORD)
}

/// Each user has an account of its own instead.
fn registered_accounts(run: Run) -> Run {
    run.without("username").flag("register")
}

/// Waits until stderr says that.
#[track_caller]
fn says(going: &Going, what: &str) {
    let mut said = String::new();
    let heard = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        wait_for(what, WITHIN, || {
            said = going.err();
            said.contains(what).then_some(())
        });
    }));
    assert!(heard.is_ok(), "{what:?} is not in:\n{said}");
}

/// Workers drain when they are terminated: they leave with 0, and say nothing of trouble.
#[track_caller]
fn are_sent_home(workers: impl IntoIterator<Item = Going>) -> Vec<Ended> {
    let workers: Vec<Going> = workers.into_iter().collect();
    workers.iter().for_each(|w| w.signal(Signal::TERM));
    let ended: Vec<Ended> = workers.into_iter().map(Going::ends).collect();
    ended.iter().for_each(|w| {
        w.leaves_with(0);
    });
    ended
}

/// Now, on the clock that the stand-in goes by.
fn now_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Asserts that load ended within a lease after that moment: nothing was submitted later.
#[track_caller]
fn no_load_after(truth: &Truth, moment_us: u64) {
    let most = moment_us + (LEASE + MARGIN).as_micros() as u64;
    for job in &truth.jobs {
        assert!(job.submitted_us <= most, "submitted {} µs after it was to end", job.submitted_us - most);
    }
}

/// What the title of a job says: `springtide RUN c003 u0001 j0000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Of {
    /// The run, and which start of it.
    name: String,
    cell: u32,
    user: u32,
    nth: u32,
}

impl Of {
    fn title(job: &JobTruth) -> Self {
        let words: Vec<&str> = job.title.split(' ').collect();
        let ["springtide", name, cell, user, nth] = words[..] else { panic!("title {:?}", job.title) };
        let number = |word: &str| word[1..].parse().unwrap();
        Self { name: name.into(), cell: number(cell), user: number(user), nth: number(nth) }
    }
}

/// The record of a run that goes on, and its folder.
fn saved(going: &Going) -> Option<(PathBuf, RunRecord)> {
    let path = records_below(going.home()).first()?.clone();
    let record = RunRecord::load(&path).unwrap();
    Some((path.parent().unwrap().to_owned(), record))
}

/// Users of each worker's share, by cell.
fn shares(run: &RunRecord) -> Vec<BTreeMap<String, u32>> {
    let of = |c: &CellRecord| c.workers.iter().map(|w| (w.name.clone(), w.users)).collect();
    run.cells.iter().map(of).collect()
}

/// What befell the workers and the plane.
fn events(run: &RunRecord) -> &[Event] {
    &run.crew.as_ref().expect("a run over a plane tells who carried it out").events
}

/// Whom something befell, in order, with the epoch.
fn whom(run: &RunRecord, like: fn(&What) -> bool) -> Vec<(String, u64)> {
    let events = events(run).iter().filter(|e| like(&e.what));
    events.filter_map(|e| e.who.as_ref().map(|m| (m.name.clone(), m.epoch))).collect()
}

/// Asserts that every repetition of the plan is counted once and is whole, and that the stand-in says
/// the same: the jobs that count are all fetched and its own, those that do not were of cells that do
/// not count either and have ended. At no time were there more than the plan allows, and no cell began
/// before the last job of the one before had ended.
#[track_caller]
fn is_true(run: &RunRecord, truth: &Truth) {
    let counted: Vec<(String, u32)> =
        run.measured().map(|c| (c.cell.scenario.to_string(), c.cell.repetition)).collect();
    let once: BTreeSet<_> = counted.iter().cloned().collect();
    let planned: BTreeSet<_> = run.plan.measured().map(|c| (c.scenario.to_string(), c.repetition)).collect();
    assert_eq!((counted.len(), &once), (once.len(), &planned), "{counted:?}");
    let mut ours = BTreeMap::new();
    for c in run.measured() {
        let jobs = c.cell.users * run.plan.settings.jobs_per_user;
        let users: u32 = c.workers.iter().map(|w| w.users).sum();
        assert_eq!((c.totals.jobs.len(), users), (jobs as usize, c.cell.users), "{:?}", c.cell);
        assert_eq!((c.ledger.residual(), c.ledger.listed), (0, u64::from(jobs)), "{:?}", c.ledger);
        assert_eq!(c.ledger.count("fetched"), u64::from(jobs), "{:?}", c.ledger);
        assert!(c.workers.iter().all(|w| w.gaps == 0 && w.lost.is_none()), "{:?}", c.workers);
        for job in c.totals.jobs.values() {
            assert!(ours.insert(job.job_id.clone().unwrap(), job).is_none(), "{:?} twice", job.job_id);
        }
    }
    let counted: BTreeSet<u32> = run.measured().map(|c| c.cell.index).collect();
    let (mut found, mut cells) = (0, BTreeMap::new());
    for job in &truth.jobs {
        let of = Of::title(job);
        if let Some(same) = ours.get(&job.job_id) {
            assert_eq!((&same.title, job.final_state), (&job.title, JobState::Completed));
            assert!(counted.contains(&of.cell), "{of:?}");
            found += 1;
        }
        let ended = job.ended_us.unwrap_or_else(|| panic!("{of:?} goes on: {:?}", job.final_state));
        let span = cells.entry((of.name, of.cell)).or_insert((job.submitted_us, ended));
        *span = (span.0.min(job.submitted_us), span.1.max(ended));
    }
    assert_eq!(found, ours.len(), "the stand-in knows every job that counts");
    // Of a cell that counts there are no jobs beside those that count.
    let last = truth.jobs.iter().map(Of::title).filter(|of| ours_of(run, of)).count();
    assert_eq!(last, ours.len());
    let users = run.plan.measured().map(|c| u64::from(c.users)).max().unwrap();
    assert!(truth.jobs_in_flight_max <= users, "{} jobs at a time", truth.jobs_in_flight_max);
    let mut spans: Vec<_> = cells.into_iter().map(|(cell, span)| (span, cell)).collect();
    spans.sort();
    for two in spans.windows(2) {
        assert!(two[0].0.1 <= two[1].0.0, "{:?} began before the end of {:?}", two[1], two[0]);
    }
}

/// Whether a job was of a cell that counts: its title names the start of the run that carried it out.
fn ours_of(run: &RunRecord, of: &Of) -> bool {
    let mut place = run.cells.iter().enumerate();
    let Some((n, _)) =
        place.find(|(_, c)| c.cell.index == of.cell && run.measured().any(|m| std::ptr::eq(m, *c)))
    else {
        return false;
    };
    let start = run.resumed.iter().filter(|r| r.cells as usize <= n).count();
    of.name == if start == 0 { run.run_id.clone() } else { format!("{}r{start}", run.run_id) }
}

/// Asserts that it ended as `expected` and that its numbers are those of the stand-in; returns the
/// record.
#[track_caller]
fn ends_true(ended: &Ended, expected: Exit, truth: &Truth) -> RunRecord {
    let run = ended.exits(expected).record();
    is_true(&run, truth);
    run
}

/// Asserts that a cell was closed for that reason.
#[track_caller]
fn was_lost(cell: &CellRecord, why: &str) {
    assert_eq!(cell.verdict, Verdict::Invalid, "{:?}", cell.cell);
    let frames = cell.checks.iter().find(|c| c.rule == Rule::FramesComplete).unwrap();
    assert!(frames.verdict == Verdict::Invalid && frames.evidence.contains(why), "{frames:?}");
}

/// The rules that made cells INVALID, whether these were made again or not, but for what the machine may
/// have done; with the number of the cell.
fn invalid(run: &RunRecord) -> Vec<(u32, Rule, &str)> {
    let checks = run.cells.iter().flat_map(|c| c.checks.iter().map(|check| (c.cell.index, check)));
    let checks = checks.filter(|(_, c)| c.verdict == Verdict::Invalid && !OF_THE_MACHINE.contains(&c.rule));
    checks.map(|(cell, c)| (cell, c.rule, &*c.evidence)).collect()
}
