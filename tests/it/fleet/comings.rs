//! Workers that stand by, come late, go early, or serve one manager after another.

use rustix::process::Signal;
use springtide::{crew::What, verdict::Exit};

use super::{Fleet, are_sent_home, ends_true, events, invalid, says, shares, whom};
use crate::support::shared;

#[test]
fn one_user_on_three_workers_leaves_two_to_stand_by() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 100ms");
    let workers = fleet.workers(["a", "b", "c"]);
    let ended = fleet.manager().set("users", 1).set("expect-workers", "a,b,c").ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    for shares in shares(&run) {
        let mut users: Vec<u32> = shares.into_values().collect();
        users.sort_unstable();
        assert_eq!(users, [0, 0, 1]);
    }
    are_sent_home(workers);
}

#[test]
fn who_comes_late_joins_at_the_next_cell() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1200ms");
    let early = fleet.worker("a").start();
    let manager = fleet.manager().set("repetitions", 5).start();
    fleet.in_flight(0, 4);
    let late = fleet.worker("b").start();
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    let came = events(&run).iter().find(|e| e.who.as_ref().is_some_and(|m| m.name == "b")).unwrap();
    assert!(matches!(came.what, What::Joined { .. }), "{came:?}");
    let t0: Vec<(u64, Vec<String>)> =
        run.cells.iter().map(|c| (c.t0_unix, c.workers.iter().map(|w| w.name.clone()).collect())).collect();
    let with_it = t0.iter().filter(|(_, names)| names.len() == 2).count();
    assert!((1..5).contains(&with_it), "{t0:?}");
    for (t0, names) in t0 {
        // Between Prepare and T0 lie two seconds at least: who came then is not part of the cell.
        match names.len() {
            1 => assert!(names == ["a"] && came.at + 2_000_000 > t0.min(came.at + 2_000_000) - 2_000_000),
            _ => assert!(names == ["a", "b"] && came.at < t0, "{names:?}"),
        }
    }
    assert_eq!(invalid(&run), []);
    are_sent_home([early, late]);
}

#[test]
fn workers_serve_one_manager_after_another() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 800ms");
    let other = Fleet::start("--standin-task-time 100ms");
    let workers = fleet.workers(["a", "b"]);
    let first = fleet.manager().set("expect-workers", 2).start();
    fleet.in_flight(0, 4);
    // At another target, as a target is loaded by one run only.
    let second = fleet.manager().set("host", &other.backend.url).set("expect-workers", "a,b").start();
    let (first, second) = (first.ends(), second.ends());
    let first = ends_true(&first, Exit::Pass, &fleet.backend.truth());
    let second = ends_true(&second, Exit::Pass, &other.backend.truth());
    assert_ne!(first.run_id, second.run_id);
    assert_eq!((invalid(&first), invalid(&second)), (vec![], vec![]));
    assert!(first.finished.unwrap() < second.finished.unwrap());
    for worker in &workers {
        says(worker, &format!("run {} is over", second.run_id));
    }
    let ended = are_sent_home(workers);
    for worker in ended {
        let place = |what: String| worker.err.find(&what).unwrap_or_else(|| panic!("{what}: {}", worker.err));
        let over = place(format!("run {} is over", first.run_id));
        assert!(over < place(format!("joins run {}", second.run_id)), "{}", worker.err);
    }
}

#[test]
fn who_is_terminated_finishes_its_cell_and_leaves() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 800ms");
    let [stays, leaves] = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).set("jobs-per-user", 2).start();
    fleet.in_flight(0, 4);
    leaves.signal(Signal::TERM);
    let left = leaves.ends();
    left.leaves_with(0);
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    assert_eq!(invalid(&run), [], "{}\n{}", left.err, ended.err);
    let names: Vec<Vec<&str>> =
        run.cells.iter().map(|c| c.workers.iter().map(|w| &*w.name).collect()).collect();
    assert_eq!(names[0], ["a", "b"]);
    assert!(names.len() > 1 && names[1..].iter().all(|names| *names == ["a"]), "{names:?}");
    assert_eq!(whom(&run, |what| *what == What::Left)[0].0, "b");
    are_sent_home([stays]);
}

#[test]
fn who_is_interrupted_leaves_at_once_and_its_cell_is_made_again() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 3s");
    let [stays, leaves] = fleet.workers(["a", "b"]);
    let manager = fleet.manager().set("expect-workers", 2).start();
    let before = fleet.in_flight(0, 4);
    leaves.signal(Signal::INT);
    let ended = leaves.ends();
    ended.leaves_with(130);
    let ended = manager.ends();
    let truth = fleet.backend.truth();
    let run = ends_true(&ended, Exit::Pass, &truth);
    let lost = &run.cells[0];
    super::was_lost(lost, "worker b (epoch");
    assert_eq!(lost.workers[1].lost.as_deref(), Some("it left"));
    // It cancelled its own jobs before it went, and `a` did with its own.
    for job in &before.jobs {
        let now = truth.jobs.iter().find(|j| j.job_id == job.job_id).unwrap();
        assert_eq!(now.completed_us, None, "{now:?}");
    }
    assert!(run.measured().all(|c| c.workers.len() == 1));
    are_sent_home([stays]);
}

#[test]
fn a_name_that_is_in_use_is_refused() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 2s");
    let worker = fleet.worker("a").start();
    let manager = fleet.manager().set("jobs-per-user", 2).start();
    fleet.in_flight(0, 4);
    let second = fleet.worker("a").ends();
    second.leaves_with(2);
    let line = second.err.lines().last().unwrap();
    assert!(line.starts_with("springtide: --name a: another worker of the plane goes by it"), "{line}");
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    assert_eq!(invalid(&run), []);
    assert_eq!(whom(&run, |what| matches!(what, What::Joined { .. })).len(), 1);
    are_sent_home([worker]);
}
