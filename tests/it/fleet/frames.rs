//! Frames that are lost, doubled or overtaken on their way: a number is right, or its cell INVALID.

use std::time::Duration;

use rstest::rstest;
use springtide::{
    record::RunRecord,
    verdict::{Exit, Rule, Verdict},
};

use super::{
    Fleet, PASSWORD, are_sent_home, ends_true, invalid,
    proxy::{Choice, Fate, Proxy},
    was_lost, worker_at,
};
use crate::{
    support::{Ended, shared},
    truth::{counted, served_in_all},
};

/// A run of two workers, one of them behind a proxy, to its end.
fn run(jobs: u32, choice: Choice, within: Duration) -> (Fleet, Proxy, Ended) {
    let fleet = Fleet::start("--standin-task-time 700ms");
    let proxy = Proxy::before(fleet.plane.port(), choice);
    let near = fleet.worker("a").start();
    let behind = worker_at(&proxy.url(), "b").env("SPRINGTIDE_PASSWORD", PASSWORD).start();
    let manager = fleet.manager().set("expect-workers", "a,b").set("jobs-per-user", jobs);
    // A lease that does not matter here.
    let ended = manager.set("plane-lease", "10s").within(within).ends();
    assert!(proxy.frames() > 0, "{}", behind.err());
    are_sent_home([near, behind]);
    (fleet, proxy, ended)
}

fn part<'a>(run: &'a RunRecord, cell: usize, name: &str) -> &'a springtide::crew::Part {
    run.cells[cell].workers.iter().find(|w| w.name == name).unwrap()
}

#[rstest]
#[case::doubled(|_, _| Fate::Twice)]
#[case::overtaken(|n, _| if n % 2 == 0 { Fate::Overtaken } else { Fate::Passes })]
#[case::both(|n, _| if n % 3 == 0 { Fate::Twice } else { Fate::Overtaken })]
fn doubled_and_overtaken_frames_change_nothing(#[case] choice: Choice) {
    let _shared = shared();
    let (fleet, proxy, ended) = run(3, choice, Duration::from_secs(120));
    let truth = fleet.backend.truth();
    let run = ends_true(&ended, Exit::Pass, &truth);
    assert!(proxy.touched() >= 2, "{} of {}", proxy.touched(), proxy.frames());
    assert_eq!(invalid(&run), []);
    let mut served = served_in_all(&truth);
    served.retain(|name, _| name != "GET /" && name != "PUT /auth/register");
    assert_eq!(counted(&run), served);
    if choice(1, false) == Fate::Twice {
        let repeated: u64 = (0..run.cells.len()).map(|cell| part(&run, cell, "b").repeated).sum();
        // Of the final ones the second may come when the cell is closed.
        let cells = run.cells.len() as u64;
        assert!((proxy.frames() - cells..=proxy.frames()).contains(&repeated), "each came again: {repeated}");
    }
}

#[test]
fn a_lost_frame_costs_its_cell() {
    let _shared = shared();
    let choice: Choice = |n, _| if n == 1 { Fate::Lost } else { Fate::Passes };
    let (fleet, proxy, ended) = run(3, choice, Duration::from_secs(120));
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    assert_eq!(proxy.touched(), 1);
    was_lost(&run.cells[0], "frames of worker b");
    assert!(run.cells[0].checks.iter().any(|c| c.evidence.contains("are missing")));
    assert_eq!((part(&run, 0, "b").gaps, part(&run, 0, "b").lost.as_deref()), (1, None));
    assert!(invalid(&run).iter().all(|(cell, ..)| *cell == 0), "{:?}", invalid(&run));
}

/// Asserts that a run gave no number that counts.
#[track_caller]
fn is_worth_nothing(ended: &Ended) -> RunRecord {
    ended.leaves_with(5);
    let run = ended.record();
    assert!(!run.cells.is_empty());
    for cell in &run.cells {
        let frames = cell.checks.iter().find(|c| c.rule == Rule::FramesComplete).unwrap();
        assert_eq!(frames.verdict, Verdict::Invalid, "{frames:?}");
    }
    run
}

#[test]
fn where_all_but_the_final_frames_are_lost_the_run_is_invalid() {
    let _shared = shared();
    let choice: Choice = |_, is_final| if is_final { Fate::Passes } else { Fate::Lost };
    let (fleet, proxy, ended) = run(1, choice, Duration::from_secs(200));
    assert!(proxy.touched() > 0);
    let run = is_worth_nothing(&ended);
    assert_eq!(run.cells.len(), 6, "each of two repetitions was tried three times");
    assert!(fleet.backend.truth().jobs.iter().all(|j| j.ended_us.is_some()));
}

/// Two minutes: so long a final frame is waited for.
#[test]
fn where_all_frames_are_lost_the_run_is_invalid() {
    let _shared = shared();
    let (fleet, proxy, ended) = run(1, |_, _| Fate::Lost, Duration::from_secs(220));
    assert_eq!(proxy.touched(), proxy.frames());
    let run = is_worth_nothing(&ended);
    assert!(run.stopped.as_deref().unwrap().contains("gave no sign of life in time: b"), "{:?}", run.stopped);
    assert!(fleet.backend.truth().jobs.iter().all(|j| j.ended_us.is_some()));
}
