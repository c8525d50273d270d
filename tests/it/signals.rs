//! Ctrl-C, SIGTERM and SIGKILL in the middle of a run, against a backend in a process of its own.

use std::{
    fs,
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::Signal;
use springtide::{record::RunRecord, timeline::JobState};

use crate::{
    backend::Backend,
    support::{Going, Run, records_below, shared, wait_for},
};

/// An interrupted run cancels its jobs and is gone by then.
const A_FEW_SECONDS: Duration = Duration::from_secs(5);

/// Waits until that many jobs were accepted.
fn accepted(backend: &Backend, jobs: usize) {
    wait_for("jobs at the backend", Duration::from_secs(30), || {
        let accepted = backend.truth().jobs.iter().filter(|j| j.accepted_us.is_some()).count();
        (accepted >= jobs).then_some(())
    });
}

fn saved(going: &Going) -> Option<RunRecord> {
    records_below(going.home()).first().map(|path| RunRecord::load(path).unwrap())
}

#[rstest]
#[case::ctrl_c(Signal::INT, 130, "SIGINT")]
#[case::terminate(Signal::TERM, 143, "SIGTERM")]
fn the_first_signal_cancels_jobs_and_keeps_what_is_finished(
    #[case] signal: Signal,
    #[case] code: i32,
    #[case] why: &str,
) {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 1500ms");
    let going = Run::small_at(&backend.url).set("users", 2).set("repetitions", 3).start();
    // Two in the first cell, which ends, and two in the second, whose tasks take 0.9 s or more.
    accepted(&backend, 4);
    let began = Instant::now();
    going.signal(signal);
    let ended = going.ends();
    assert!(began.elapsed() < A_FEW_SECONDS, "{:?} after the signal", began.elapsed());
    ended.leaves_with(code);
    let jobs = backend.truth().jobs;
    let states: Vec<JobState> = jobs.iter().map(|j| j.final_state).collect();
    assert_eq!(states[..2], [JobState::Completed; 2]);
    assert_eq!(states[2..], [JobState::Canceled; 2], "canceled at the target");
    let run = ended.record();
    assert_eq!(run.cells.len(), 1, "the finished cell is there, the interrupted one is not");
    assert_eq!(run.cells[0].ledger.count("fetched"), 2);
    assert!(run.stopped.as_deref().unwrap().contains(why), "{:?}", run.stopped);
    assert!(run.finished.is_some() && run.verdict.is_some());
    for file in ["report.html", "summary.md", "timings/S1_stats.csv", "timings/S1_jobs.csv"] {
        assert!(ended.folder().join(file).is_file(), "{file} is not there");
    }
    let last = ended.out.lines().last().unwrap();
    assert!(last.starts_with("RESULT: ") && last.ends_with(&format!("(exit {code})")), "{last}");
    assert!(ended.err.contains(why) && !ended.err.contains("panicked"), "{}", ended.err);
}

#[test]
fn a_signal_before_the_first_cell_ends_writes_a_record_without_cells() {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 20s");
    let going = Run::small_at(&backend.url).start();
    accepted(&backend, 3);
    let began = Instant::now();
    going.signal(Signal::INT);
    let ended = going.ends();
    assert!(began.elapsed() < A_FEW_SECONDS, "{:?} after the signal", began.elapsed());
    assert!(ended.leaves_with(130).record().cells.is_empty());
    assert!(backend.truth().jobs.iter().all(|j| j.final_state == JobState::Canceled));
}

/// With a target that does not answer, canceling takes as long as our patience; whoever presses
/// Ctrl-C twice does not wait for it.
#[test]
fn the_second_signal_leaves_at_once() {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 20s");
    let going = Run::small_at(&backend.url).start();
    accepted(&backend, 3);
    backend.signal(Signal::STOP);
    going.signal(Signal::INT);
    wait_for("the first signal to be heard", A_FEW_SECONDS, || {
        going.err().contains("once more").then_some(())
    });
    // What follows on its heels is the same signal once more, as wrappers send it.
    going.signal(Signal::INT);
    std::thread::sleep(Duration::from_millis(150));
    let began = Instant::now();
    going.signal(Signal::INT);
    let ended = going.ends();
    assert!(began.elapsed() < Duration::from_secs(1), "{:?} after the second signal", began.elapsed());
    ended.leaves_with(130);
}

#[test]
fn a_target_that_hangs_does_not_hold_up_an_interrupted_run_beyond_patience() {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 20s");
    let going = Run::small_at(&backend.url).set("patience", "1s").start();
    accepted(&backend, 3);
    backend.signal(Signal::STOP);
    going.signal(Signal::INT);
    let began = Instant::now();
    let ended = going.ends();
    assert!(began.elapsed() < 2 * A_FEW_SECONDS, "{:?} after the signal", began.elapsed());
    ended.leaves_with(130);
}

#[test]
fn a_kill_leaves_a_record_that_can_be_read() {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 700ms");
    let going = Run::small_at(&backend.url).set("users", 2).set("repetitions", 5).start();
    wait_for("the first finished cell", Duration::from_secs(30), || {
        saved(&going).filter(|run| !run.cells.is_empty())
    });
    accepted(&backend, 3);
    going.signal(Signal::KILL);
    let ended = going.ends();
    assert_eq!((ended.code, ended.signal), (None, Some(9)));
    let run = ended.record();
    assert!(!run.cells.is_empty() && run.verdict.is_none() && run.stopped.is_none());
    assert_eq!(run.cells[0].ledger.count("fetched"), 2);
    let folder = ended.folder();
    let before = fs::read(folder.join("run.json")).unwrap();
    Run::of(&format!("report {}", folder.display())).ends().leaves_with(0);
    assert_eq!(fs::read(folder.join("run.json")).unwrap(), before, "a record is read, not changed");
}

#[rstest]
#[case::ctrl_c(Signal::INT)]
#[case::terminate(Signal::TERM)]
fn the_backend_ends_when_asked(#[case] signal: Signal) {
    let going = Run::of("backend --listen 127.0.0.1:0").within(Duration::from_secs(20)).start();
    wait_for("its address", Duration::from_secs(10), || {
        going.out().contains("listening on http://127.0.0.1:").then_some(())
    });
    going.signal(signal);
    going.ends().leaves_with(0);
}
