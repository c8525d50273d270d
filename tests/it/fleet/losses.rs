//! Workers that are killed, and workers that are stopped and go on.

use std::time::{Duration, Instant};

use rstest::rstest;
use rustix::process::Signal;
use springtide::{crew::What, finding::Kind, timeline::JobState, verdict::Exit};

use super::{
    Fleet, LEASE, MARGIN, Of, are_sent_home, ends_true, events, invalid, registered_accounts, says, was_lost,
    whom,
};
use crate::support::{Run, shared, wait_for};

#[rstest]
#[case::one_account(|run| run)]
#[case::an_account_each(registered_accounts)]
fn a_killed_worker_costs_its_cell_and_no_more(#[case] accounts: fn(Run) -> Run) {
    let _shared = shared();
    // Tasks take 6 s at least: nobody's job ends before it is cancelled.
    let fleet = Fleet::start("--standin-task-time 10s");
    let [a, b, c] = fleet.workers(["a", "b", "c"]);
    let manager = accounts(fleet.manager()).set("expect-workers", 3).set("repetitions", 1).start();
    let before = fleet.in_flight(0, 4);
    c.signal(Signal::KILL);
    let killed = Instant::now();
    says(&manager, "lost: its lease ran out");
    let took = killed.elapsed();
    assert!(took < LEASE + MARGIN, "{took:?}");
    // The others' jobs are cancelled at once; those of the lost one by those that are left.
    fleet.is_quiet(Duration::from_secs(20));
    let ended = manager.ends();
    let truth = fleet.backend.truth();
    let run = ends_true(&ended, Exit::Pass, &truth);
    assert!(invalid(&run).iter().all(|(cell, ..)| *cell == 0), "{:?}", invalid(&run));
    let lost = &run.cells[0];
    was_lost(lost, "is lost: its lease ran out");
    let parts: Vec<(&str, bool)> = lost.workers.iter().map(|w| (&*w.name, w.lost.is_some())).collect();
    assert_eq!(parts, [("a", false), ("b", false), ("c", true)]);
    let event = events(&run).iter().find(|e| matches!(e.what, What::Lost { .. })).unwrap();
    assert_eq!((event.who.as_ref().unwrap().name.as_str(), event.cell), ("c", Some(0)));
    for cell in run.measured() {
        let names: Vec<&str> = cell.workers.iter().map(|w| &*w.name).collect();
        assert_eq!(names, ["a", "b"]);
        // Nobody sees here when the target is done with what was cancelled.
        assert!(cell.findings.iter().any(|f| f.kind == Kind::LeftoversUnseen), "{:?}", cell.findings);
    }
    for job in &before.jobs {
        let now = truth.jobs.iter().find(|j| j.job_id == job.job_id).unwrap();
        assert_eq!(now.final_state, JobState::Canceled, "{:?}", Of::title(job));
    }
    let summary = std::fs::read_to_string(ended.folder().join("summary.md")).unwrap();
    assert!(summary.contains("its lease ran out"), "the report tells it:\n{summary}");
    c.ends();
    are_sent_home([a, b]);
}

#[test]
fn a_worker_that_was_killed_and_starts_again_by_the_same_name_is_another() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1s");
    let [a, b] = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 2).set("repetitions", 3);
    let manager = manager.start();
    fleet.in_flight(0, 4);
    b.signal(Signal::KILL);
    b.ends();
    let again = fleet.worker("b").start();
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    let joined = whom(&run, |what| matches!(what, What::Joined { .. }));
    let epochs: Vec<u64> = joined.iter().filter(|(name, _)| name == "b").map(|(_, epoch)| *epoch).collect();
    assert!(epochs.len() == 2 && epochs[0] < epochs[1], "{joined:?}");
    assert!(run.measured().last().unwrap().workers.len() == 2, "it is back in time for the last cell");
    are_sent_home([a, again]);
}

#[rstest]
#[case::one_account(|run| run)]
#[case::an_account_each(registered_accounts)]
fn a_stopped_worker_makes_no_load_beside_those_that_took_its_place(#[case] accounts: fn(Run) -> Run) {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1200ms");
    let [a, b, c] = fleet.workers(["a", "b", "c"]);
    let manager = accounts(fleet.manager()).set("expect-workers", 3).set("jobs-per-user", 3);
    let manager = manager.set("repetitions", 3);
    let manager = manager.start();
    fleet.in_flight(0, 4);
    c.signal(Signal::STOP);
    let stopped = Instant::now();
    says(&manager, "lost: its lease ran out");
    // Two leases, and the others are at the same cell again.
    let again = wait_for("the cell to be made again", Duration::from_secs(60), || {
        let truth = fleet.backend.truth();
        let cell = truth.jobs.iter().map(|j| Of::title(j).cell).max()?;
        (cell > 0 && stopped.elapsed() > LEASE * 2).then_some(cell)
    });
    fleet.in_flight(again, 1);
    c.signal(Signal::CONT);
    says(&c, "lost to the run");
    let ended = manager.ends();
    let truth = fleet.backend.truth();
    let run = ends_true(&ended, Exit::Pass, &truth);
    was_lost(&run.cells[0], "is lost: its lease ran out");
    // It had measured something when it was stopped, and said so when it went on.
    let late: Vec<(String, u64)> = whom(&run, |what| matches!(what, What::LateFrames { .. }));
    let joined = whom(&run, |what| matches!(what, What::Joined { .. }));
    let lives: Vec<&(String, u64)> = joined.iter().filter(|(name, _)| name == "c").collect();
    assert!(late.iter().all(|who| who == lives[0]) && !late.is_empty(), "{late:?} of {lives:?}");
    assert!(lives.len() == 2 && lives[0].1 < lives[1].1, "{lives:?}");
    let last = run.measured().last().unwrap();
    assert!(last.workers.iter().any(|w| w.epoch == lives[1].1), "it takes part again: {:?}", last.workers);
    assert!(run.measured().all(|c| c.workers.iter().all(|w| w.epoch != lives[0].1)));
    are_sent_home([a, b, c]);
}
