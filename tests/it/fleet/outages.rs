//! A plane that restarts, goes away, or is full.

use std::time::{Duration, Instant};

use springtide::{
    crew::What,
    verdict::{Exit, Rule, Verdict},
};

use super::{
    Fleet, LEASE, MARGIN, Of, WITHIN, are_sent_home, ends_true, events, invalid, no_load_after, now_us, says,
    was_lost,
};
use crate::{
    redis_server::RedisServer,
    support::{Going, shared, wait_for},
};

/// A plane that keeps what it took.
fn lasting() -> RedisServer {
    RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"])
}

#[test]
fn a_plane_that_restarts_within_a_lease_costs_nothing() {
    let _shared = shared();
    let mut fleet = Fleet::with(lasting(), "--standin-task-time 1s");
    let workers = fleet.workers(["a", "b"]);
    // A lease that a restart fits into on a busy machine.
    let manager = fleet.manager().set("plane-lease", "10s").set("expect-workers", 2).set("jobs-per-user", 3);
    let manager = manager.start();
    fleet.in_flight(0, 4);
    fleet.plane.start_again();
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    assert_eq!(invalid(&run), []);
    assert!(events(&run).iter().all(|e| matches!(e.what, What::Joined { .. })), "{:?}", events(&run));
    are_sent_home(workers);
}

#[test]
fn a_plane_that_is_back_after_a_lease_costs_the_cell() {
    let _shared = shared();
    let mut fleet = Fleet::with(lasting(), "--standin-task-time 1s");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 4).start();
    fleet.in_flight(0, 4);
    fleet.plane.stop();
    let gone = Instant::now();
    for worker in &workers {
        says(worker, "lost to the run");
    }
    assert!(gone.elapsed() < LEASE + MARGIN, "{:?}", gone.elapsed());
    says(&manager, "cut off: ");
    fleet.is_quiet(Duration::from_secs(20));
    fleet.plane.start_again();
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    was_lost(&run.cells[0], "the manager was cut off");
    assert!(invalid(&run).iter().all(|(cell, ..)| *cell == 0), "{:?}", invalid(&run));
    assert!(events(&run).iter().any(|e| e.what == What::Back));
    assert_eq!(run.measured().map(|c| c.workers.len()).max(), Some(2));
    are_sent_home(workers);
}

/// A plane that forgot everything is no longer the plane of the run: what it had is closed, and either
/// it is laid down again or the run ends; no number is wrong.
#[test]
fn a_plane_that_forgot_everything_costs_the_cell_or_the_run() {
    let _shared = shared();
    let mut fleet = Fleet::start("--standin-task-time 1s");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 4);
    let manager = manager.set("expect-workers-max-wait", "15s").start();
    fleet.in_flight(0, 4);
    fleet.plane.start_again();
    let ended = manager.ends();
    let truth = fleet.is_quiet(Duration::from_secs(20));
    let run = ended.record();
    assert!(run.cells[0].verdict == Verdict::Invalid, "{:?}", run.cells[0].checks);
    match ended.code {
        Some(5) => assert!(run.stopped.is_some()),
        _ => drop(ends_true(&ended, Exit::Pass, &truth)),
    }
    assert!(truth.jobs_in_flight_max <= 4);
    are_sent_home(workers);
}

/// Asserts that the run ended for want of a plane, with the one cell that it was at closed INVALID.
#[track_caller]
fn ends_without_a_plane(manager: Going, fleet: &Fleet, within: Duration) {
    let began = Instant::now();
    let ended = manager.ends();
    assert!(began.elapsed() < within, "{:?}", began.elapsed());
    ended.leaves_with(5);
    let run = ended.record();
    assert!(run.cells.iter().all(|c| c.verdict == Verdict::Invalid), "{:?}", invalid(&run));
    let complete = run.checks.iter().find(|c| c.rule == Rule::RunComplete).unwrap();
    assert_eq!(complete.verdict, Verdict::Invalid, "{complete:?}");
    assert!(run.stopped.is_some() && ended.folder().join("summary.md").is_file());
    let truth = fleet.backend.truth();
    assert!(truth.jobs.iter().all(|j| j.ended_us.is_some()), "nothing of ours goes on");
    assert!(truth.jobs.iter().all(|j| Of::title(j).cell == 0));
}

#[test]
fn a_plane_that_is_gone_for_good_ends_the_run() {
    let _shared = shared();
    let mut fleet = Fleet::start("--standin-task-time 1s");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 4);
    let manager = manager.set("expect-workers-max-wait", "6s").start();
    fleet.in_flight(0, 4);
    fleet.plane.stop();
    let (gone, gone_us) = (Instant::now(), now_us());
    for worker in &workers {
        says(worker, "lost to the run");
    }
    assert!(gone.elapsed() < LEASE + MARGIN, "{:?}", gone.elapsed());
    no_load_after(&fleet.is_quiet(Duration::from_secs(20)), gone_us);
    ends_without_a_plane(manager, &fleet, LEASE + Duration::from_secs(6 + 10));
    // They wait for a plane, and go when they are told to.
    are_sent_home(workers);
}

/// How much of a plane is filled at a time.
const PIECE: usize = 1_000_000;

/// Fills a plane far beyond what it may hold, as somebody else's keys might, so that it takes no more
/// whatever is trimmed of it.
fn fill(plane: &RedisServer) {
    let mut connection = plane.connection();
    for n in 0..20 {
        let key = format!("fill:{n}");
        let _: () = redis::cmd("SET").arg(key).arg("x".repeat(PIECE)).query(&mut connection).unwrap();
    }
    let most = plane.info("used_memory") - 10 * PIECE as u64;
    let _: () = redis::cmd("CONFIG").arg("SET").arg("maxmemory").arg(most).query(&mut connection).unwrap();
    let refused: redis::RedisResult<()> =
        redis::cmd("XADD").arg("fill:log").arg("*").arg("e").arg("x").query(&mut connection);
    assert_eq!(refused.unwrap_err().code(), Some("OOM"));
}

/// Takes that away again.
fn make_room(plane: &RedisServer) {
    let keys: Vec<String> = (0..20).map(|n| format!("fill:{n}")).collect();
    let gone: u64 = redis::cmd("DEL").arg(keys).query(&mut plane.connection()).unwrap();
    assert_eq!(gone, 20, "nothing was thrown away");
}

#[test]
fn a_full_plane_that_is_emptied_in_time_costs_nothing() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 2s");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("plane-lease", "10s").set("expect-workers", 2).start();
    fleet.in_flight(0, 4);
    fill(&fleet.plane);
    // Until a frame at least has waited: one is due every second.
    let full = Instant::now();
    wait_for("frames to wait", WITHIN, || (full.elapsed() > Duration::from_millis(2_500)).then_some(()));
    make_room(&fleet.plane);
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    assert_eq!(invalid(&run), []);
    are_sent_home(workers);
}

#[test]
fn a_plane_that_stays_full_ends_the_run() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1s");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("expect-workers-max-wait", "6s");
    // What the cell may take at most, and a minute, is how long a silent worker is waited for.
    let manager = manager.set("job-timeout", "5s").set("patience", "2s").start();
    fleet.in_flight(0, 4);
    fill(&fleet.plane);
    ends_without_a_plane(manager, &fleet, Duration::from_secs(150));
    let ended = are_sent_home(workers);
    assert!(ended.iter().any(|w| w.err.contains("OOM")), "{}", ended[0].err);
}
