//! What a fault does to posts, as workers and target see it.

use std::time::Instant;

use super::*;
use crate::{
    fault::{Distribution, Fate, Fault, FaultKind, Ratio, Side, Window},
    micros::Micros,
    post::{CANARY_STREAM, Ending, Fates},
    route::Route,
};

fn fault(kind: FaultKind) -> FaultOrder {
    let lease = Micros(10_000_000);
    FaultOrder { run: "r".into(), cell: 1, seed: 42, fault: Fault::whole_cell(kind), lease }
}

fn drop_all(side: Side) -> FaultOrder {
    fault(FaultKind::Drop { ratio: Ratio::percent(100), side })
}

const BODY: &str = r#"{"simulation_id":5,"task_id":1}"#;

#[test]
fn a_dropped_request_is_read_and_the_target_never_sees_it() {
    let target = Target::accepting();
    let tap = tap(&target);
    let kind = FaultKind::Disconnect { refuse: Micros(60_000_000), every: None };
    for (n, (asked, fate)) in
        [(drop_all(Side::Before), Fate::DropRequest), (fault(kind), Fate::Refuse)].into_iter().enumerate()
    {
        order(&tap, &asked);
        let mut wire = Wire::to(tap.addr());
        wire.send(post_of("/tasks", BODY));
        wire.is_reset();
        let post = posts(&tap, n + 1).pop().unwrap();
        assert_eq!((post.fate, post.ending, post.status), (fate, Ending::Faulted, None));
        assert_eq!((post.simulation, post.task, post.forwarded), (Some(5), Some(1), None));
        assert!(post.hash.is_some());
    }
    assert!(target.seen().is_empty());
    // Routes that the fault does not name pass, and so does everything that is no post.
    assert_eq!(ask(&tap, post_of("/jobs", "{}")).status(), 202);
    assert_eq!(ask(&tap, "GET /tasks HTTP/1.1\r\n\r\n").status(), 202);
}

#[test]
fn a_dropped_answer_leaves_the_target_with_what_was_asked() {
    let target = Target::accepting();
    let tap = tap(&target);
    order(&tap, &drop_all(Side::After));
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/results", &"x".repeat(1 << 20)));
    wire.is_reset();
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.fate, post.ending), (Fate::DropAnswer, Ending::Faulted));
    assert_eq!((post.status, post.answer_bytes), (Some(202), 2));
    assert!(post.last_byte.is_some() && post.is_accepted() && !post.is_told());
    assert_eq!(target.seen()[0].body.len(), 1 << 20);
}

#[test]
fn a_connection_that_was_good_is_reset_with_the_post_that_is_hit() {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/tasks", BODY));
    assert_eq!(wire.message().unwrap().status(), 202);
    order(&tap, &drop_all(Side::Before));
    wire.send(post_of("/tasks", BODY));
    wire.is_reset();
    assert_eq!(target.seen().len(), 1);
}

#[test]
fn a_worker_that_breaks_off_is_no_victim_of_the_fault() {
    let target = Target::accepting();
    let tap = tap(&target);
    order(&tap, &drop_all(Side::Before));
    let mut wire = Wire::to(tap.addr());
    wire.send("POST /tasks HTTP/1.1\r\nContent-Length: 9\r\n\r\n{");
    wire.hang_up();
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.fate, post.ending), (Fate::DropRequest, Ending::RequestCut));
}

#[test]
fn a_delayed_post_is_held_before_the_target_sees_it() {
    let target = Target::accepting();
    let tap = tap(&target);
    let (delay, jitter) = (Micros(50_000), Micros(20_000));
    let asked = fault(FaultKind::Latency { delay, jitter, distribution: Distribution::Uniform });
    order(&tap, &asked);
    for _ in 0..10 {
        let began = Instant::now();
        assert_eq!(ask(&tap, post_of("/tasks", BODY)).status(), 202);
        let took = Micros::from(began.elapsed());
        assert!(took >= Micros(30_000), "{took}");
    }
    for (post, n) in posts(&tap, 10).iter().zip(0..) {
        let Fate::Delay(asked) = asked.fault.fate(42, n) else { panic!() };
        assert_eq!(post.fate, Fate::Delay(asked));
        assert!(post.forwarded.unwrap().saturating_sub(post.received) >= asked, "{post:?}");
    }
}

/// Latency of an hour.
fn holding() -> FaultOrder {
    let delay = Micros(3_600_000_000);
    fault(FaultKind::Latency { delay, jitter: Micros(0), distribution: Distribution::Uniform })
}

#[test]
fn a_held_post_goes_on_when_its_order_ends() {
    let cleared = |tap: &Tap| now(async { drop(link(tap).clear("r").await.unwrap()) });
    let replaced = |tap: &Tap| order(tap, &drop_all(Side::Before));
    let expired = |_: &Tap| {};
    let ends: [fn(&Tap); 3] = [cleared, replaced, expired];
    for end in ends {
        let target = Target::accepting();
        let tap = tap(&target);
        order(&tap, &FaultOrder { lease: Micros(500_000), ..holding() });
        let mut wire = Wire::to(tap.addr());
        wire.send(post_of("/tasks", BODY));
        in_flight(&tap, 1);
        end(&tap);
        // Within the patience of the test, of which an hour is none.
        assert_eq!(wire.message().unwrap().status(), 202);
        let post = &posts(&tap, 1)[0];
        assert_eq!((post.fate, post.ending), (Fate::Delay(Micros(3_600_000_000)), Ending::Answered));
        assert!(post.forwarded.unwrap().saturating_sub(post.received) < Micros::from(PATIENCE), "{post:?}");
    }
}

#[test]
fn a_post_that_is_held_when_the_window_ends_is_held_for_its_delay() {
    let target = Target::accepting();
    let tap = tap(&target);
    let (delay, jitter) = (Micros(300_000), Micros(0));
    let asked = fault(FaultKind::Latency { delay, jitter, distribution: Distribution::Uniform });
    let window = Window { from: Micros(0), to: Some(Micros(200_000)) };
    order(&tap, &FaultOrder { fault: Fault { window, ..asked.fault.clone() }, ..asked });
    assert_eq!(ask(&tap, post_of("/tasks", BODY)).status(), 202);
    let post = &posts(&tap, 1)[0];
    assert!(post.forwarded.unwrap().saturating_sub(post.received) >= delay, "{post:?}");
}

#[test]
fn the_seed_decides_over_the_wire_as_it_does_on_paper() {
    let target = Target::accepting();
    let tap = tap(&target);
    let asked = fault(FaultKind::Drop { ratio: Ratio::percent(40), side: Side::Either });
    order(&tap, &asked);
    let mut expected = Fates::default();
    let status = now(async {
        let link = link(&tap);
        for n in 0..60 {
            let number = n + 1_000;
            let canary = link.canary(Route::Tasks, number, PATIENCE).await;
            let fate = asked.fault.fate(42, CANARY_STREAM | number);
            assert_eq!((canary.number, canary.status.is_some()), (number, fate == Fate::Pass), "{canary:?}");
            let told = tokio::task::spawn_blocking({
                let addr = tap.addr();
                move || {
                    let mut wire = Wire::to(addr);
                    wire.send(post_of("/tasks", BODY));
                    wire.message().is_ok()
                }
            });
            let fate = asked.fault.fate(42, n);
            expected.count(fate);
            assert_eq!(told.await.unwrap(), fate == Fate::Pass);
        }
        link.status().await.unwrap()
    });
    assert_eq!(status.fates, expected);
    let posts = posts(&tap, 120);
    let (canaries, posts): (Vec<Post>, Vec<Post>) = posts.into_iter().partition(|p| p.canary.is_some());
    assert_eq!(
        canaries.iter().map(|c| c.canary.unwrap()).collect::<Vec<_>>(),
        (1_000..1_060).collect::<Vec<_>>()
    );
    assert!(posts.iter().zip(0..).all(|(p, n)| p.fate == asked.fault.fate(42, n)));
}

#[test]
fn a_fault_outside_its_window_does_nothing_and_counts_nothing() {
    let target = Target::accepting();
    let tap = tap(&target);
    let window = Window { from: Micros(3_600_000_000), to: None };
    let asked = drop_all(Side::Before);
    let asked = FaultOrder { fault: Fault { window, ..asked.fault }, ..asked };
    order(&tap, &asked);
    assert_eq!(ask(&tap, post_of("/tasks", BODY)).status(), 202);
    let status = now(async { link(&tap).status().await.unwrap() });
    assert_eq!((status.active, status.fates), (false, Fates::default()));
    assert_eq!(posts(&tap, 1)[0].fate, Fate::Pass);
}

#[test]
fn a_fault_that_nobody_renews_ends() {
    let target = Target::accepting();
    let tap = tap(&target);
    order(&tap, &FaultOrder { lease: Micros(100_000), ..drop_all(Side::Before) });
    now(async {
        let link = link(&tap);
        let deadline = Instant::now() + PATIENCE;
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(40)).await;
            link.renew("r", 1).await.unwrap();
        }
        while !link.status().await.unwrap().expired {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(link.status().await.unwrap().order, None);
        assert!(matches!(
            link.renew("r", 1).await,
            Err(super::super::LinkError::Refused { status: 410, .. })
        ));
    });
    assert_eq!(ask(&tap, post_of("/tasks", BODY)).status(), 202);
}
