//! Requests that are two or one, depending on who reads them: the target sees one or none.

use rstest::rstest;

use super::*;

/// What follows the body that one reader sees.
const HIDDEN: &str = "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\n";

#[rstest]
#[case::two_lengths("Content-Length: 2\r\nContent-Length: 36\r\n", "{}", Some(400))]
#[case::two_lengths_in_one("Content-Length: 2, 36\r\n", "{}", Some(400))]
#[case::no_number("Content-Length: +2\r\n", "{}", Some(400))]
#[case::a_blank_in_the_name("Content-Length : 36\r\n", "", Some(400))]
#[case::folded("X: y\r\n Content-Length: 36\r\n", "", Some(400))]
#[case::odd_coding("Transfer-Encoding: xchunked\r\n", "0\r\n\r\n", Some(400))]
#[case::coding_after_chunked("Transfer-Encoding: chunked, identity\r\n", "0\r\n\r\n", Some(400))]
#[case::chunked_twice("Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n", Some(400))]
#[case::chunked_in_two_lines(
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
    "0\r\n\r\n",
    Some(400)
)]
#[case::coding_before_chunked("Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n", Some(400))]
#[case::two_codings("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", Some(400))]
#[case::another_host("Host: b\r\nContent-Length: 0\r\n", "", Some(400))]
#[case::bare_return("X: a\rTransfer-Encoding: chunked\r\n", "", Some(400))]
#[case::control("X: a\0b\r\n", "", Some(400))]
#[case::length_and_chunks("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "0\r\n\r\n", None)]
#[case::chunks_and_length("Transfer-Encoding: chunked\r\nContent-Length: 41\r\n", "0\r\n\r\n", None)]
#[case::bad_chunk("Transfer-Encoding: chunked\r\n", "zz\r\n", None)]
#[case::long_chunk("Transfer-Encoding: chunked\r\n", "fffffffffffffffff\r\n", None)]
fn one_request_never_becomes_two(#[case] headers: &str, #[case] body: &str, #[case] status: Option<u16>) {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(format!("POST /tasks HTTP/1.1\r\nHost: a\r\n{headers}\r\n{body}{HIDDEN}"));
    let (said, _) = wire.rest();
    if let Some(status) = status {
        let first = String::from_utf8_lossy(&said);
        assert!(first.starts_with(&format!("HTTP/1.1 {status} ")), "{first}");
    }
    assert!(said.windows(9).filter(|w| w == b"HTTP/1.1 ").count() <= 1, "one answer at most");
    for request in target.seen() {
        assert!(request.first.starts_with("POST /tasks"), "{request:?}");
        assert!(!(request.is_chunked && request.header("content-length").is_some()), "{request:?}");
        assert_eq!(request.text(), "");
    }
    // It lives.
    assert_eq!(ask(&tap, post_of("/tasks", "{}")).status(), 202);
}

#[test]
fn what_is_chunked_once_passes_however_it_is_written() {
    let target = Target::accepting();
    let tap = tap(&target);
    for chunked in ["chunked", "CHUNKED", " \tChunked \t"] {
        let request = format!(
            "POST /tasks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {chunked}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n"
        );
        assert_eq!(ask(&tap, request).status(), 202, "{chunked:?}");
    }
}

#[test]
fn what_can_be_read_in_two_ways_is_refused_in_words_whatever_its_body() {
    let target = Target::accepting();
    let tap = tap(&target);
    let body = "x".repeat(300_000);
    let answer = ask(&tap, post_of("/tasks", &body).replace("Host", "Host: b\r\nHost"));
    assert_eq!((answer.status(), answer.header("connection").as_deref()), (400, Some("close")));
    assert!(answer.text().contains("one Host"), "{answer:?}");
    // Not a post: nothing of it is taken down.
    posts(&tap, 0);
    assert!(target.seen().is_empty());
}

#[test]
fn equal_lengths_are_one_length() {
    let target = Target::accepting();
    let tap = tap(&target);
    let twice = "POST /tasks HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}";
    assert_eq!(ask(&tap, twice).status(), 202);
    assert_eq!(target.seen()[0].header("content-length").as_deref(), Some("2"));
}

#[test]
fn an_answer_with_two_lengths_or_a_length_and_chunks_is_one_answer() {
    let target =
        Target::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 9\r\n\r\nokHTTP/1.");
    assert_eq!(ask(&tap(&target), "GET / HTTP/1.1\r\n\r\n").status(), 502);
    let target = Target::answering(
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    );
    let answer = ask(&tap(&target), "GET / HTTP/1.1\r\n\r\n");
    assert_eq!((answer.text().as_str(), answer.header("content-length")), ("abc", None));
}

#[test]
fn garbage_is_refused_or_ignored() {
    let target = Target::accepting();
    let tap = tap(&target);
    for garbage in [
        &b"\x16\x03\x01\x02\x00"[..],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"",
    ] {
        let mut wire = Wire::to(tap.addr());
        wire.send(garbage);
        wire.reader.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
        let (said, _) = wire.rest();
        assert!(!said.starts_with(b"HTTP/1.1 2"), "{garbage:?}");
    }
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "y".repeat(1 << 20));
    let mut wire = Wire::to(tap.addr());
    // It may be refused before it is sent.
    let _ = wire.try_send(long);
    let _ = wire.rest();
    assert!(target.seen().is_empty());
    assert_eq!(ask(&tap, "GET / HTTP/1.1\r\n\r\n").status(), 202);
}
