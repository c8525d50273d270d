//! Whole runs in worlds of their own, to see that the coordinator keeps its word whatever happens:
//! no plane, no sockets and no waiting, thousands of runs in seconds.
//!
//! A [`Spec`] says what befalls a run: who comes when, how the network is, what breaks. A [`World`]
//! plays it on a clock of its own, with a manager as `manager` is ([`boss`]) and workers as `worker`
//! and `plane::worker_end` are ([`node`]), and looks after every step whether anything happened that
//! must never happen:
//!
//! * a user is started twice in a cell, or more users load at once than the cell has;
//! * two cells load at once: somebody may still submit in a cell when T0 of another is set, too;
//! * a cell without anything missing has other sums than its workers recorded;
//! * a repetition counts twice, or the run is complete without one;
//! * shares overlap or leave users out;
//! * users start where the rig is not ready for them;
//! * the run goes on for ever, or somebody loads when it is long over.
//!
//! `SPRINGTIDE_CASES=20000 cargo test --release --lib cluster::trial` looks longer. A world that
//! fails is made small first, and then told from its beginning.

mod boss;
mod ends;
mod node;
mod plane;
mod sums;
mod world;

use std::env;

use proptest::{
    collection::vec,
    option,
    prelude::{Just, ProptestConfig, Strategy, any, prop_oneof},
    test_runner::{TestCaseError, TestRunner},
};

use self::world::World;

/// What befalls a run.
#[derive(Debug, Clone)]
struct Spec {
    /// When each worker comes, in seconds, and whether it runs the right program.
    workers: Vec<(u64, bool)>,
    /// How many are waited for.
    expected: u32,
    users: u32,
    repetitions: u32,
    requeue: u32,
    rigged: bool,
    net: Net,
    faults: Vec<(u64, Fault)>,
    /// Of all that is left to chance.
    seed: u64,
}

/// What the ways between the plane and everybody do to words, in percent and milliseconds.
#[derive(Debug, Clone, Copy)]
struct Net {
    /// Of the words of workers, and of those to workers.
    lost: (u32, u32),
    twice: (u32, u32),
    delay: u64,
    /// Words overtake each other.
    shuffled: bool,
}

/// What breaks; times are in seconds.
#[derive(Debug, Clone, Copy)]
enum Fault {
    /// kill -9; it comes back after that long, or not.
    Kill { worker: usize, back: Option<u64> },
    /// SIGSTOP, and SIGCONT after that long.
    Stop { worker: usize, lasts: u64 },
    /// Its way to the plane is cut.
    Cut { worker: usize, lasts: u64 },
    /// What it says is heard, and its lease renewed, but it reads nothing.
    Deaf { worker: usize, lasts: u64 },
    /// SIGTERM once, or twice.
    Leave { worker: usize, drains: bool },
    /// No user of it has a session from now on.
    NoSession { worker: usize },
    /// Its users take that long to come to an end when they are stopped.
    Slow { worker: usize, lasts: u64 },
    /// Nobody reaches the plane.
    Away { lasts: u64 },
    /// It takes no entries, but renews leases.
    Full { lasts: u64 },
    /// It comes back without what was said last.
    Forgets,
    /// Nobody reaches it ever again.
    Gone,
    /// SIGSTOP of the manager.
    Halt { lasts: u64 },
    /// Only the manager does not reach the plane.
    Apart { lasts: u64 },
    /// Another manager takes the run as soon as it can.
    Usurper,
    /// The rig breaks when it is used next.
    Broken,
    /// Ctrl-C.
    Interrupt,
}

fn fault(workers: usize) -> impl Strategy<Value = Fault> {
    let worker = move || 0..workers;
    let short = || prop_oneof![1u64..5, 4u64..8, 5u64..60];
    prop_oneof![
        3 => (worker(), option::of(0u64..30)).prop_map(|(worker, back)| Fault::Kill { worker, back }),
        3 => (worker(), short()).prop_map(|(worker, lasts)| Fault::Stop { worker, lasts }),
        3 => (worker(), short()).prop_map(|(worker, lasts)| Fault::Cut { worker, lasts }),
        2 => (worker(), short()).prop_map(|(worker, lasts)| Fault::Deaf { worker, lasts }),
        2 => (worker(), any::<bool>()).prop_map(|(worker, drains)| Fault::Leave { worker, drains }),
        1 => worker().prop_map(|worker| Fault::NoSession { worker }),
        1 => (worker(), 1u64..70).prop_map(|(worker, lasts)| Fault::Slow { worker, lasts }),
        3 => short().prop_map(|lasts| Fault::Away { lasts }),
        2 => short().prop_map(|lasts| Fault::Full { lasts }),
        1 => Just(Fault::Forgets),
        1 => Just(Fault::Gone),
        2 => short().prop_map(|lasts| Fault::Halt { lasts }),
        2 => short().prop_map(|lasts| Fault::Apart { lasts }),
        1 => Just(Fault::Usurper),
        2 => Just(Fault::Broken),
        1 => Just(Fault::Interrupt),
    ]
}

/// Few, at any time or all at once.
fn faults(workers: usize) -> impl Strategy<Value = Vec<(u64, Fault)>> {
    let at_once = (5u64..60).prop_flat_map(move |at| vec((at..at + 6, fault(workers)), 2..6));
    prop_oneof![vec((0u64..90, fault(workers)), 0..5), at_once]
}

fn net() -> impl Strategy<Value = Net> {
    let bad =
        ((0u32..20, 0u32..20), (0u32..20, 0u32..20), prop_oneof![1u64..6_000, 1u64..40_000], any::<bool>());
    prop_oneof![
        // A log, read in order.
        Just(Net { lost: (0, 0), twice: (0, 0), delay: 20, shuffled: false }),
        // One whose answers are lost at times.
        Just(Net { lost: (0, 0), twice: (10, 10), delay: 200, shuffled: false }),
        bad.prop_map(|(lost, twice, delay, shuffled)| Net { lost, twice, delay, shuffled }),
    ]
}

fn spec() -> impl Strategy<Value = Spec> {
    (1usize..5).prop_flat_map(|workers| {
        let comes =
            (prop_oneof![4 => Just(0u64), 1 => 0u64..60], prop_oneof![12 => Just(true), 1 => Just(false)]);
        (
            vec(comes, workers),
            1..=workers as u32,
            1u32..9,
            1u32..4,
            0u32..3,
            any::<bool>(),
            net(),
            faults(workers),
            any::<u64>(),
        )
            .prop_map(
                |(workers, expected, users, repetitions, requeue, rigged, net, faults, seed)| Spec {
                    workers,
                    expected,
                    users,
                    repetitions,
                    requeue,
                    rigged,
                    net,
                    faults,
                    seed,
                },
            )
    })
}

fn cases(usual: u32) -> u32 {
    let asked = ["SPRINGTIDE_CASES", "PROPTEST_CASES"].into_iter().find_map(|name| env::var(name).ok());
    asked.map_or(usual, |text| text.parse().expect("a number of cases"))
}

/// Plays a world and tells it, if it is one that must not be.
fn judge(spec: &Spec) -> Result<Option<String>, String> {
    World::new(spec, false).play().map_err(|_| {
        let mut world = World::new(spec, true);
        let wrong = world.play().expect_err("the same world ends in the same way");
        format!("{wrong}\n{spec:#?}\n{}", world.story())
    })
}

#[test]
fn whatever_happens_a_run_is_right_or_says_that_it_is_not() {
    let config = ProptestConfig {
        cases: cases(400),
        failure_persistence: None,
        max_shrink_iters: 3_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new(config);
    let judged = runner.run(&spec(), |spec| judge(&spec).map(drop).map_err(TestCaseError::fail));
    if let Err(error) = judged {
        panic!("{error}");
    }
}

/// A run of two repetitions on three workers, with nothing wrong.
fn calm() -> Spec {
    Spec {
        workers: vec![(0, true); 3],
        expected: 3,
        users: 7,
        repetitions: 2,
        requeue: 2,
        rigged: false,
        net: Net { lost: (0, 0), twice: (0, 0), delay: 20, shuffled: false },
        faults: Vec::new(),
        seed: 1,
    }
}

#[test]
fn a_world_without_faults_completes() {
    for rigged in [false, true] {
        assert_eq!(judge(&Spec { rigged, ..calm() }), Ok(None));
    }
}

#[test]
fn a_plane_that_is_gone_for_good_ends_the_run_with_a_reason() {
    for at in [0, 3, 8, 20] {
        let ended = judge(&Spec { faults: vec![(at, Fault::Gone)], ..calm() });
        assert!(matches!(&ended, Ok(Some(_))), "{ended:?}");
    }
}

#[test]
fn a_manager_that_lets_its_workers_go_waits_for_those_who_do_not_hear_of_it() {
    for seed in 0..300 {
        let at = 13 + seed % 3;
        let faults = vec![
            (at, Fault::Kill { worker: 2, back: None }),
            // The loss is to be told, but the plane takes nothing for as long as that is tried.
            (at + 4, Fault::Full { lasts: 7 + seed % 2 }),
            (at + 8 + seed / 3 % 3, Fault::Cut { worker: 0, lasts: 8 }),
        ];
        judge(&Spec { seed, faults, ..calm() }).unwrap_or_else(|wrong| panic!("{wrong}"));
    }
}
