//! Workers that hang up before they are answered, and those that only look as if they did.

use std::{net::Shutdown, sync::mpsc};

use rstest::rstest;
use rustix::net::sockopt::set_socket_linger;

use super::*;
use crate::{
    fault::{Distribution, Fault, FaultKind},
    micros::Micros,
    post::Ending,
};

/// A target that reads a post, says so, and answers when it is let.
fn slow(answer: &'static str) -> (Target, mpsc::Receiver<()>, mpsc::Sender<()>) {
    let ((read, is_read), (go, may_go)) = (mpsc::channel(), mpsc::channel());
    let may_go = Mutex::new(may_go);
    let target = Target::serving(move |wire, _| {
        while wire.message().is_ok() {
            read.send(()).unwrap();
            may_go.lock().unwrap().recv_timeout(PATIENCE).unwrap();
            wire.send(answer);
        }
    });
    (target, is_read, go)
}

const ACCEPTED: &str = "HTTP/1.1 202 ACCEPTED\r\nContent-Length: 2\r\n\r\n{}";

fn hang_up(wire: Wire) {
    wire.hang_up();
}

fn reset(wire: Wire) {
    set_socket_linger(wire.reader.get_ref(), Some(Duration::ZERO)).unwrap();
    wire.hang_up();
}

#[rstest]
#[case::by_length(ACCEPTED)]
#[case::chunked("HTTP/1.1 202 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n")]
#[case::empty("HTTP/1.1 204 NO CONTENT\r\n\r\n")]
fn a_worker_that_gave_up_is_not_told(
    #[case] answer: &'static str,
    #[values(hang_up, reset)] leave: fn(Wire),
) {
    let (target, is_read, go) = slow(answer);
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/tasks", "{}"));
    is_read.recv_timeout(PATIENCE).unwrap();
    leave(wire);
    go.send(()).unwrap();
    let post = &posts(&tap, 1)[0];
    assert_eq!(post.ending, Ending::AnswerCut, "{post:?}");
    assert!(post.is_accepted() && !post.is_told() && post.hash.is_some());
}

#[rstest]
#[case::hung_up(hang_up)]
#[case::reset(reset)]
fn a_worker_that_gives_up_while_its_post_is_held_is_not_told(#[case] leave: fn(Wire)) {
    let target = Target::accepting();
    let tap = tap(&target);
    let (delay, jitter) = (Micros(3_600_000_000), Micros(0));
    let kind = FaultKind::Latency { delay, jitter, distribution: Distribution::Uniform };
    let (fault, lease) = (Fault::whole_cell(kind), Micros(10_000_000));
    order(&tap, &FaultOrder { run: "r".into(), cell: 1, seed: 42, fault, lease });
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/tasks", "{}"));
    in_flight(&tap, 1);
    leave(wire);
    now(async { link(&tap).clear("r").await.unwrap() });
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.ending, post.status), (Ending::AnswerCut, Some(202)), "{post:?}");
    assert_eq!(target.seen().len(), 1, "the target has it all the same");
}

#[test]
fn a_worker_that_waits_is_told_whatever_else_it_sends() {
    for (request, answers) in [
        (post_of("/tasks", "{}"), 1),
        (post_of("/tasks", "{}").replace("Host", "Connection: close\r\nHost"), 1),
        (post_of("/tasks", "{}").replace("1.1", "1.0"), 1),
        (post_of("/tasks", "{}") + &post_of("/tasks", "[]"), 2),
        (post_of("/tasks", "{}") + "POST /ta", 1),
    ] {
        let (target, is_read, go) = slow(ACCEPTED);
        let tap = tap(&target);
        let mut wire = Wire::to(tap.addr());
        wire.send(&request);
        for _ in 0..answers {
            is_read.recv_timeout(PATIENCE).unwrap();
            go.send(()).unwrap();
            assert_eq!(wire.message().unwrap().status(), 202);
        }
        for post in posts(&tap, answers) {
            assert_eq!(post.ending, Ending::Answered, "{request}");
        }
    }
}

#[test]
fn a_worker_that_closed_its_half_gets_its_answer_and_counts_as_gone() {
    let (target, is_read, go) = slow(ACCEPTED);
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/tasks", "{}"));
    wire.reader.get_ref().shutdown(Shutdown::Write).unwrap();
    is_read.recv_timeout(PATIENCE).unwrap();
    go.send(()).unwrap();
    assert_eq!(wire.message().unwrap().status(), 202);
    assert_eq!(posts(&tap, 1)[0].ending, Ending::AnswerCut);
}
