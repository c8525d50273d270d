//! Requests that a tap does not pass on.

use super::*;
use crate::post::Ending;

#[test]
fn a_tunnel_is_refused_in_words() {
    let target = Target::accepting();
    let tap = tap(&target);
    for (method, header) in [
        ("CONNECT a:1", "X: y"),
        ("GET /", "Connection: upgrade\r\nUpgrade: websocket"),
        ("GET /", "Connection: keep-alive, Upgrade\r\nUpgrade: h2c"),
        ("GET /", "Connection: keep-alive\r\nConnection: UPGRADE\r\nUpgrade: x"),
    ] {
        let mut wire = Wire::to(tap.addr());
        for _ in 0..2 {
            wire.send(format!("{method} HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n"));
            let answer = wire.message().unwrap();
            assert_eq!(answer.status(), 501, "{header}");
            assert!(answer.text().contains("neither CONNECT nor"), "{answer:?}");
        }
    }
    let body = "x".repeat(300_000);
    let post = post_of("/tasks", &body).replace("Host", "Connection: upgrade\r\nHost");
    assert_eq!(ask(&tap, post).status(), 501);
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.ending, post.status, post.forwarded), (Ending::NoAnswer, None, None));
    assert!(target.seen().is_empty());
}

#[test]
fn a_target_that_changes_the_protocol_unasked_gives_no_answer() {
    let target =
        Target::answering("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n");
    let tap = tap(&target);
    assert_eq!(ask(&tap, post_of("/tasks", "{}")).status(), 502);
    assert_eq!(posts(&tap, 1)[0].ending, Ending::NoAnswer);
}
