//! What the tap takes down.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use super::*;
use crate::{fault::Fate, micros::Micros, post::Ending, route::Route, state::JobState};

#[test]
fn posts_are_taken_down_and_nothing_else_is() {
    let target = Target::answering(
        "HTTP/1.1 202 ACCEPTED\r\nIdempotency-Replayed: true\r\nContent-Length: 26\r\n\r\n{\"message\":\"Task updated\"}",
    );
    let tap = tap(&target);
    let body =
        r#"{"simulation_id":10,"task_id":3,"update_key":"eyJ","update_dict":{"task_state":"RUNNING"}}"#;
    for request in
        ["GET /tasks HTTP/1.1\r\n\r\n".into(), post_of("/tasks/", body), post_of("/jobs/direct", body)]
    {
        assert_eq!(ask(&tap, request).status(), 202);
    }
    assert_eq!(ask(&tap, post_of("/tasks?x=/jobs", body)).status(), 202);
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.seq, post.route, post.canary), (1, Route::Tasks, None));
    assert_eq!((post.simulation, post.task, post.state), (Some(10), Some(3), Some(JobState::Running)));
    assert_eq!(post.bytes, body.len() as u64);
    assert_eq!(post.hash.unwrap().0[..], Sha256::digest(body)[..16]);
    assert_eq!((post.status, post.answer_bytes, post.replayed), (Some(202), 26, true));
    assert_eq!((post.fate, post.ending), (Fate::Pass, Ending::Answered));
    let moments = [Some(post.received), post.forwarded, post.first_byte, post.last_byte, Some(post.ended)];
    assert!(moments.iter().all(Option::is_some) && moments.is_sorted(), "{post:?}");
}

#[test]
fn a_body_that_is_no_object_names_nobody() {
    let target = Target::accepting();
    let tap = tap(&target);
    let bodies =
        ["", "{", "nonsense", "[1]", "{\"sim_id\":1}}", "{\"sim_id\":\"1\"}", "\u{feff}{\"sim_id\":1}"];
    for body in bodies {
        assert_eq!(ask(&tap, post_of("/jobs", body)).status(), 202);
    }
    for (post, body) in posts(&tap, bodies.len()).iter().zip(bodies) {
        assert_eq!((post.simulation, post.task, post.state), (None, None, None), "{body}");
        assert!(post.hash.is_some() && post.bytes == body.len() as u64);
    }
}

#[test]
fn a_worker_that_hangs_up_leaves_half_a_post() {
    let target = Target::serving(|wire, seen| {
        if let Ok(request) = wire.message() {
            seen.lock().unwrap().push(request);
        }
    });
    let tap = tap(&target);
    for (n, half) in [
        "POST /results HTTP/1.1\r\nContent-Length: 100\r\n\r\n{\"simulation_id\":7}",
        "POST /results HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n13\r\n{\"simulation_id\":7}\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let mut wire = Wire::to(tap.addr());
        wire.send(half);
        wire.hang_up();
        let post = posts(&tap, n + 1).pop().unwrap();
        assert_eq!(
            (post.ending, post.hash, post.simulation, post.status),
            (Ending::RequestCut, None, None, None)
        );
        assert_eq!(post.bytes, 19);
    }
    // The target sees that it breaks off.
    let deadline = Instant::now() + PATIENCE;
    while target.seen().len() < 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(2));
    }
    assert!(target.seen().iter().all(|r| r.is_cut) && target.seen().len() == 2, "{:?}", target.seen());
}

#[test]
fn a_post_that_nobody_finishes_is_told_by_its_age_and_cut_in_the_end() {
    let target = Target::serving(|wire, seen| seen.lock().unwrap().push(wire.message().unwrap()));
    let tap = tap(&target);
    let mut old = Wire::to(tap.addr());
    old.send("POST /results HTTP/1.1\r\nContent-Length: 100\r\n\r\nabc");
    in_flight(&tap, 1);
    let batch = now(async {
        let link = link(&tap);
        link.posts(&link.hello().await.unwrap().boot, 1).await.unwrap()
    });
    assert!(batch.under_way.len() == 1 && batch.under_way[0] <= batch.now, "{batch:?}");
    // The connection is still open on our side.
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.ending, post.bytes, post.hash), (Ending::RequestCut, 3, None));
    assert!(post.received == batch.under_way[0] && post.took() >= Micros(1_900_000), "{post:?}");
    let _ = old.rest();
}

#[test]
fn what_follows_a_body_is_the_next_request_and_not_part_of_it() {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    // Two bytes are announced; the third begins a request that is none.
    wire.send("POST /tasks HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}}");
    assert_eq!(wire.message().unwrap().status(), 202);
    wire.hang_up();
    assert_eq!(posts(&tap, 1)[0].bytes, 2);
    assert_eq!(target.seen().len(), 1);
}

#[test]
fn a_worker_that_is_gone_before_the_answer_is_written_down_all_the_same() {
    let (read, is_read) = std::sync::mpsc::channel();
    let target = Target::serving(move |wire, _| {
        wire.message().unwrap();
        read.send(()).unwrap();
        wire.send("HTTP/1.1 202 ACCEPTED\r\nContent-Length: 2\r\n\r\n{}");
        let _ = wire.rest();
    });
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/tasks", r#"{"simulation_id":1}"#));
    wire.hang_up();
    is_read.recv_timeout(PATIENCE).unwrap();
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.status, post.simulation), (Some(202), Some(1)));
}

#[test]
fn the_log_tells_what_it_could_not_keep() {
    let target = Target::accepting();
    let tap = tap_with(&target, 10, None);
    let mut wire = Wire::to(tap.addr());
    for n in 1..=25 {
        wire.send(post_of("/jobs", &format!("{{\"sim_id\":{n}}}")));
        assert_eq!(wire.message().unwrap().status(), 202);
    }
    let batch = now(async {
        let link = link(&tap);
        let hello = link.hello().await.unwrap();
        assert_eq!(hello.buffer, 10);
        loop {
            let batch = link.posts(&hello.boot, 3).await.unwrap();
            if batch.next == 26 {
                break batch;
            }
        }
    });
    assert_eq!((batch.lost, batch.more, batch.posts.len()), (13, false, 10));
    let simulations: Vec<Option<u64>> = batch.posts.iter().map(|p| p.simulation).collect();
    assert_eq!(simulations, (16..=25).map(Some).collect::<Vec<_>>());
    assert_eq!(batch.posts[0].seq, 16);
}

#[test]
fn thirty_two_workers_at_once_lose_nothing() {
    const WORKERS: u64 = 32;
    const EACH: u64 = 200;
    let target = Target::accepting();
    let tap = tap(&target);
    thread::scope(|scope| {
        for worker in 0..WORKERS {
            let addr = tap.addr();
            scope.spawn(move || {
                let mut wire = Wire::to(addr);
                for n in 0..EACH {
                    let id = worker * EACH + n;
                    wire.send(post_of("/tasks", &format!("{{\"simulation_id\":{id},\"task_id\":{n}}}")));
                    assert_eq!(wire.message().unwrap().status(), 202);
                    if n % 50 == 49 {
                        wire = Wire::to(addr);
                    }
                }
            });
        }
    });
    let posts = posts(&tap, (WORKERS * EACH) as usize);
    let ids: BTreeSet<Option<u64>> = posts.iter().map(|p| p.simulation).collect();
    assert_eq!(ids, (0..WORKERS * EACH).map(Some).collect());
    assert!(posts.iter().zip(1..).all(|(p, n)| p.seq == n && p.ending == Ending::Answered));
    assert_eq!(target.seen().len() as u64, WORKERS * EACH);
}
