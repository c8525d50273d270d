//! Managers that are killed, stopped, taken over from, or one too many.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::Signal;
use springtide::{
    crew::What,
    record::RunRecord,
    verdict::{Exit, Rule, Verdict},
};

use super::{
    Fleet, LEASE, MARGIN, Of, WITHIN, are_sent_home, ends_true, events, invalid, is_true, no_load_after,
    now_us, registered_accounts, saved, says, was_lost,
};
use crate::support::{Going, Run, shared, wait_for};

/// The folder of a run, as soon as so many of its cells have ended.
#[track_caller]
fn folder_after(manager: &Going, cells: usize) -> PathBuf {
    wait_for("cells to end", WITHIN, || {
        saved(manager).filter(|(_, run)| run.cells.len() >= cells).map(|(folder, _)| folder)
    })
}

/// Killed in the first cell and gone on with by folder, killed in the second and gone on with by its
/// id: workers are the same all the time.
#[rstest]
#[case::one_account(|run| run)]
#[case::an_account_each(registered_accounts)]
fn a_killed_manager_is_taken_over_from_with_the_same_workers(#[case] accounts: fn(Run) -> Run) {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 800ms");
    let workers = fleet.workers(["a", "b"]);
    let manager = accounts(fleet.manager()).set("expect-workers", 2).set("jobs-per-user", 4).start();
    fleet.in_flight(0, 4);
    let folder = folder_after(&manager, 0);
    let run_id = RunRecord::load(&folder).unwrap().run_id;
    manager.signal(Signal::KILL);
    let killed = now_us();
    let first = manager.ends();
    // Without a manager they stop by themselves, in the middle of a closed loop, and cancel.
    for worker in &workers {
        says(worker, "lost to the run");
    }
    let truth = fleet.is_quiet(LEASE + MARGIN + Duration::from_secs(10));
    no_load_after(&truth, killed);
    let latest = truth.jobs.iter().filter_map(|j| j.ended_us).max().unwrap();
    assert!(latest < killed + (LEASE + MARGIN).as_micros() as u64 + 2_000_000, "cancelled at once");
    assert!(truth.jobs.len() < 16, "it was in the middle: {} jobs", truth.jobs.len());

    let manager = accounts(fleet.resumes(folder.display())).set("expect-workers", 2).start();
    wait_for("the first cell", WITHIN, || {
        (!RunRecord::load(&folder).unwrap().cells.is_empty()).then_some(())
    });
    let name = format!("{run_id}r1");
    wait_for("the second cell", WITHIN, || {
        let truth = fleet.backend.truth();
        truth.jobs.iter().map(Of::title).any(|of| of.name == name && of.cell == 1).then_some(())
    });
    manager.signal(Signal::KILL);
    let killed = now_us();
    manager.ends();
    let truth = fleet.is_quiet(LEASE + MARGIN + Duration::from_secs(10));
    no_load_after(&truth, killed);

    let before = RunRecord::load(&folder).unwrap();
    assert_eq!(before.crew.as_ref().unwrap().lease, LEASE.into(), "that of the first manager");
    let reports = first.home.path().join("reports");
    let again = accounts(fleet.resumes(&run_id));
    let ended = again.set("out", reports.display()).set("expect-workers", "a,b").ends();
    ended.leaves_with(RunRecord::load(&folder).map(|run| code(&run)).unwrap());
    let run = RunRecord::load(&folder).unwrap();
    assert_eq!(run.resumed.len(), 2);
    assert_eq!(run.cells[..before.cells.len()], before.cells, "what was kept is kept");
    is_true(&run, &fleet.backend.truth());
    assert_eq!(invalid(&run), []);
    assert!(run.stopped.is_none() && folder.join("summary.md").is_file());
    are_sent_home(workers);
}

/// What a run's process ends with, by its checks.
fn code(run: &RunRecord) -> i32 {
    i32::from(Exit::of(run.all_checks()).code())
}

#[test]
fn a_stopped_manager_that_goes_on_makes_its_cell_again() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 800ms");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 4).start();
    fleet.in_flight(0, 4);
    manager.signal(Signal::STOP);
    let (stopped, stopped_us) = (Instant::now(), now_us());
    for worker in &workers {
        says(worker, "lost to the run");
    }
    let truth = fleet.is_quiet(Duration::from_secs(20));
    no_load_after(&truth, stopped_us);
    wait_for("two leases", WITHIN, || (stopped.elapsed() > LEASE * 2).then_some(()));
    manager.signal(Signal::CONT);
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    was_lost(&run.cells[0], "the manager was cut off");
    assert!(invalid(&run).iter().all(|(cell, ..)| *cell == 0), "{:?}", invalid(&run));
    let kinds: Vec<&What> = events(&run).iter().map(|e| &e.what).collect();
    let place = |like: fn(&What) -> bool| kinds.iter().position(|what| like(what));
    let (cut, back) = (place(|w| matches!(w, What::Cut { .. })), place(|w| matches!(w, What::Back)));
    assert!(cut.is_some() && cut < back, "{kinds:?}");
    assert_eq!(kinds.iter().filter(|w| matches!(w, What::Joined { .. })).count(), 4, "each came twice");
    are_sent_home(workers);
}

/// A copy of a run's folder, as another host might have it. The lock on the target is not seen there
/// either.
fn copy(folder: &Path, to: &Path, target: &str) {
    let name = target.strip_prefix("http://").unwrap().replace(':', "-");
    let locks = ["/run/lock".into(), std::env::temp_dir()];
    let lock = locks.iter().find(|f: &&PathBuf| f.is_dir()).unwrap().join(format!("springtide-{name}.lock"));
    fs::remove_file(&lock).unwrap_or_else(|e| panic!("{}: {e}", lock.display()));

    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

#[test]
fn a_second_manager_is_refused_while_the_first_lives() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 3s");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 2).start();
    fleet.in_flight(0, 4);
    let folder = folder_after(&manager, 0);
    let here = fleet.resumes(folder.display()).ends();
    here.leaves_with(2).says_only(&["--resume"]).leaves_only(&[]);
    let elsewhere = tempfile::tempdir().unwrap();
    copy(&folder, elsewhere.path(), &fleet.backend.url);
    let before = fs::read(folder.join("run.json")).unwrap();
    let there = fleet.resumes(elsewhere.path().display()).ends();
    there.leaves_with(2).says_only(&["--resume", "has a manager that is alive"]).leaves_only(&[]);
    assert_eq!(fs::read(elsewhere.path().join("run.json")).unwrap(), before, "nothing was written");
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    assert_eq!(invalid(&run), []);
    assert!(events(&run).iter().all(|e| matches!(e.what, What::Joined { .. })), "{:?}", events(&run));
    are_sent_home(workers);
}

/// The one that was stopped finds its run taken, and does nothing more to it.
#[test]
fn a_manager_that_was_taken_over_from_lets_go() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1500ms");
    let workers = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 2).start();
    fleet.in_flight(0, 4);
    let folder = folder_after(&manager, 0);
    let elsewhere = tempfile::tempdir().unwrap();
    copy(&folder, elsewhere.path(), &fleet.backend.url);
    manager.signal(Signal::STOP);
    for worker in &workers {
        says(worker, "lost to the run");
    }
    let second = fleet.resumes(elsewhere.path().display()).set("expect-workers", 2).start();
    let name = format!("{}r1", RunRecord::load(&folder).unwrap().run_id);
    wait_for("the second manager's load", WITHIN, || {
        fleet.backend.truth().jobs.iter().any(|j| Of::title(j).name == name).then_some(())
    });
    manager.signal(Signal::CONT);
    let ended = manager.ends();
    ended.leaves_with(5);
    assert!(ended.err.contains("another manager goes on with the run"), "{}", ended.err);
    let run = ended.record();
    let whole = run.checks.iter().find(|c| c.rule == Rule::RunComplete).unwrap();
    assert_eq!(whole.verdict, Verdict::Invalid, "{whole:?}");
    let _ = second.ends();
    let run = RunRecord::load(elsewhere.path()).unwrap();
    is_true(&run, &fleet.backend.truth());
    assert_eq!(invalid(&run), []);
    are_sent_home(workers);
}
