//! What goes in comes out, however it is cut up, and however it ends.

use std::{net::TcpListener, sync::mpsc, time::Instant};

use proptest::prelude::{
    Just, ProptestConfig, Strategy, any, prop, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

use super::*;
use crate::post::Ending;

type Headers = Vec<(String, Vec<u8>)>;

/// A message as it is to be sent.
#[derive(Debug, Clone)]
struct Spoken {
    first: String,
    headers: Headers,
    /// Its pieces: one write, and one chunk, each.
    pieces: Vec<Vec<u8>>,
    framing: Framing,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Framing {
    Length,
    Chunked,
    /// By the end of the connection.
    Close,
}

impl Spoken {
    fn say(&self, wire: &mut Wire) -> io::Result<()> {
        let mut head = format!("{}\r\n", self.first).into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        let length: usize = self.pieces.iter().map(Vec::len).sum();
        match self.framing {
            Framing::Length => head.extend(format!("Content-LENGTH: {length}\r\n\r\n").bytes()),
            Framing::Chunked => head.extend(b"Transfer-encoding: chunked\r\n\r\n"),
            Framing::Close => head.extend(b"\r\n"),
        }
        wire.try_send(head)?;
        for piece in &self.pieces {
            match self.framing {
                Framing::Chunked => {
                    wire.try_send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat())?;
                }
                _ => wire.try_send(piece)?,
            }
            thread::yield_now();
        }
        if self.framing == Framing::Chunked { wire.try_send("0\r\n\r\n") } else { Ok(()) }
    }

    fn as_message(&self) -> Message {
        let framing: Option<(&[u8], Vec<u8>)> = match self.framing {
            Framing::Length => {
                let length: usize = self.pieces.iter().map(Vec::len).sum();
                Some((b"Content-LENGTH", length.to_string().into()))
            }
            Framing::Chunked => Some((b"Transfer-encoding", b"chunked".to_vec())),
            Framing::Close => None,
        };
        let headers = self.headers.iter().map(|(n, v)| (n.clone().into_bytes(), v.clone()));
        Message {
            first: self.first.clone(),
            headers: headers.chain(framing.map(|(n, v)| (n.to_vec(), v))).collect(),
            body: self.pieces.concat(),
            is_chunked: self.framing == Framing::Chunked,
            is_cut: false,
        }
    }
}

fn headers() -> impl Strategy<Value = Headers> {
    let value = prop_oneof![
        "[!-~]([ -~]{0,20}[!-~])?".prop_map(String::into_bytes),
        prop::collection::vec(0x80u8..=0xff, 1..8),
        Just(Vec::new()),
    ];
    prop::collection::vec(("[xX]-[A-Za-z0-9]{1,3}|User-AGENT|accept|VIA|X-Forwarded-For|date", value), 0..12)
}

fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3_000), 0..5)
}

fn request() -> impl Strategy<Value = Spoken> {
    let method = prop_oneof![
        prop::sample::select(&["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"][..])
            .prop_map(String::from),
        "[A-Z]{3,12}".prop_filter("other rules", |m| m != "HEAD" && m != "CONNECT"),
    ];
    let path =
        "(/[a-z][a-zA-Z0-9._~!$&'()*+,;=:@%-]{0,8}){1,4}(\\?[a-zA-Z0-9=&%/?]{0,20})?|/tasks|/jobs\\?x|/";
    let framing = prop_oneof![Just(Framing::Length), Just(Framing::Chunked)];
    (method, path, headers(), pieces(), framing).prop_map(|(method, path, headers, pieces, framing)| Spoken {
        first: format!("{method} {path} HTTP/1.1"),
        headers,
        pieces,
        framing,
    })
}

fn answer() -> impl Strategy<Value = Spoken> {
    let reason = prop_oneof![Just("OK".to_owned()), "[A-Z][a-z]{0,5}( [a-z]{1,5})?", Just(String::new())];
    let status = prop_oneof![200u16..=203, 205u16..=303, 305u16..=599];
    let framing =
        prop_oneof![2 => Just(Framing::Length), 2 => Just(Framing::Chunked), 1 => Just(Framing::Close)];
    (status, reason, headers(), pieces(), framing).prop_map(|(status, reason, headers, pieces, framing)| {
        // Such an answer is HTTP/1.0 behind the tap, which says no more and no less.
        let version = if framing == Framing::Close { "HTTP/1.0" } else { "HTTP/1.1" };
        Spoken { first: format!("{version} {status} {reason}"), headers, pieces, framing }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]
    #[test]
    fn every_request_and_every_answer_passes_unchanged(
        exchanges in prop::collection::vec((request(), answer()), 1..5), keeps in any::<bool>()
    ) {
        let script: Vec<Spoken> = exchanges.iter().map(|(_, answer)| answer.clone()).collect();
        let script = Mutex::new(script.into_iter());
        let target = Target::serving(move |wire, seen| {
            while let Ok(request) = wire.message() {
                let is_last = request.header("connection").is_some_and(|c| c == "close");
                seen.lock().unwrap().push(request);
                let answer = script.lock().unwrap().next().unwrap();
                answer.say(wire).unwrap();
                if is_last || answer.framing == Framing::Close {
                    return;
                }
            }
        });
        let tap = tap(&target);
        let mut wire = Wire::to(tap.addr());
        let mut recorded = 0;
        for (request, answer) in &exchanges {
            let mut request = request.clone();
            if !keeps {
                request.headers.push(("Connection".into(), b"close".to_vec()));
            }
            request.say(&mut wire).unwrap();
            let (got, expected) = (wire.message().unwrap(), answer.as_message());
            prop_assert_eq!(&got.first, &expected.first);
            prop_assert_eq!(got.lines(), expected.lines());
            prop_assert_eq!((&got.body, got.is_chunked, got.is_cut), (&expected.body, expected.is_chunked, false));
            let (seen, expected) = (target.seen().pop().unwrap(), request.as_message());
            prop_assert_eq!(&seen.first, &expected.first);
            prop_assert_eq!(seen.lines(), expected.lines());
            prop_assert_eq!((&seen.body, seen.is_chunked), (&expected.body, expected.is_chunked));
            prop_assert_eq!(seen.header("connection"), (!keeps).then(|| "close".to_owned()));
            recorded += usize::from(request.first.starts_with("POST /tasks ") || request.first.starts_with("POST /jobs?"));
            if !keeps || answer.framing == Framing::Close {
                prop_assert!(wire.rest().1.is_ok());
                wire = Wire::to(tap.addr());
            }
        }
        posts(&tap, recorded);
    }
}

#[test]
fn answers_without_a_body_have_none() {
    for (request, answer, is_told) in [
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n", Some("12345")),
        ("HEAD / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nX: y\r\n\r\n", None),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 204 NO CONTENT\r\n\r\n", None),
        (
            "GET / HTTP/1.1\r\n\r\n",
            "HTTP/1.1 304 NOT MODIFIED\r\nContent-Length: 7\r\nETag: x\r\n\r\n",
            Some("7"),
        ),
        ("GET / HTTP/1.1\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Some("0")),
    ] {
        let target = Target::serving(move |wire, _| {
            while wire.head().is_ok() {
                wire.send(answer);
            }
        });
        let tap = tap(&target);
        let mut wire = Wire::to(tap.addr());
        // Twice: what would be left of the first answer would spoil the second.
        for _ in 0..2 {
            wire.send(request);
            let head = wire.head().unwrap();
            assert_eq!(head.first, answer.lines().next().unwrap());
            assert_eq!(head.header("content-length").as_deref(), is_told, "{head:?}");
            assert_eq!(head.header("transfer-encoding"), None);
        }
    }
}

#[test]
fn a_client_of_http_1_0_is_answered_in_kind() {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send("GET /x HTTP/1.0\r\n\r\n");
    let answer = wire.message().unwrap();
    assert_eq!((answer.first.as_str(), answer.text().as_str()), ("HTTP/1.0 202 ACCEPTED", "{}"));
    assert!(wire.rest().1.is_ok());
    assert_eq!(target.seen()[0].first, "GET /x HTTP/1.0");
}

#[test]
fn a_connection_of_the_target_is_kept_and_opened_again_when_it_closed_it() {
    let (opened, opens) = mpsc::channel();
    let target = Target::serving(move |wire, _| {
        opened.send(()).unwrap();
        // Two answers, then it closes without having said so.
        for _ in 0..2 {
            if wire.message().is_ok() {
                wire.send("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx");
            }
        }
    });
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    for n in 0..6 {
        wire.send("GET / HTTP/1.1\r\n\r\n");
        assert_eq!(wire.message().unwrap().status(), 200, "{n}");
        if n % 2 == 1 {
            // Until the end of the connection has come to the tap nobody can know of it.
            thread::sleep(Duration::from_millis(20));
        }
    }
    assert_eq!(opens.try_iter().count(), 3);
}

#[test]
fn a_target_that_is_not_there_is_named_in_words_that_are_no_json() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let target = Target { addr, seen: Arc::default() };
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    for _ in 0..2 {
        // The body is read: otherwise the answer would be lost in a reset.
        wire.send(post_of("/tasks", &"x".repeat(300_000)));
        let answer = wire.message().unwrap();
        assert_eq!(answer.status(), 502);
        assert!(answer.text().starts_with("springtide tap: no answer from http://127.0.0.1:"), "{answer:?}");
        assert!(answer.header("content-type").unwrap().starts_with("text/plain"));
    }
    for post in posts(&tap, 2) {
        assert_eq!((post.ending, post.forwarded, post.status), (Ending::NoAnswer, None, None));
        assert_eq!(post.bytes, 300_000);
        assert!(post.hash.is_some());
    }
}

#[test]
fn a_target_that_hangs_up_before_its_answer_is_no_answer() {
    let target = Target::serving(|wire, seen| seen.lock().unwrap().push(wire.message().unwrap()));
    let tap = tap(&target);
    assert_eq!(ask(&tap, post_of("/tasks", "{}")).status(), 502);
    let post = &posts(&tap, 1)[0];
    assert_eq!((post.ending, post.status), (Ending::NoAnswer, None));
    assert!(post.forwarded.is_some() && post.hash.is_some());
    assert_eq!(target.seen().len(), 1, "it is not sent twice");
}

#[test]
fn an_answer_that_breaks_off_is_seen_to() {
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let target = Target::serving(move |wire, _| {
            wire.message().unwrap();
            wire.send(answer);
        });
        let tap = tap(&target);
        let got = ask(&tap, post_of("/results", "{}"));
        assert!(got.is_cut && got.status() == 200, "{got:?}");
        let post = &posts(&tap, 1)[0];
        assert_eq!((post.ending, post.status, post.last_byte), (Ending::AnswerCut, Some(200), None));
        assert_eq!(post.answer_bytes, 4);
    }
}

#[test]
fn a_reset_of_the_target_is_passed_on_as_one() {
    let (go, wait) = mpsc::channel();
    let wait = Mutex::new(wait);
    let target = Target::serving(move |wire, _| {
        wire.head().unwrap();
        // Its length is the end of the connection: an orderly end would look like success.
        wire.send("HTTP/1.0 200 OK\r\n\r\nhalf");
        wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
        // Closing with bytes unread resets: they must have come.
        wire.reader.get_ref().peek(&mut [0]).unwrap();
    });
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/x", &"y".repeat(60_000)));
    wire.head().unwrap();
    let mut half = [0; 4];
    wire.reader.read_exact(&mut half).unwrap();
    go.send(()).unwrap();
    assert_eq!(wire.rest().1.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn an_early_answer_arrives_though_the_target_reads_no_further() {
    let target = Target::serving(|wire, _| {
        wire.head().unwrap();
        wire.send("HTTP/1.1 413 TOO LARGE\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno!");
    });
    let tap = tap(&target);
    for _ in 0..20 {
        // More than all buffers on the way hold.
        let answer = ask(&tap, post_of("/results", &"x".repeat(8 << 20)));
        assert_eq!((answer.status(), answer.text().as_str()), (413, "no!"));
    }
    for post in posts(&tap, 20) {
        assert_eq!((post.ending, post.status, post.bytes), (Ending::Answered, Some(413), 8 << 20));
    }
}

#[test]
fn an_early_answer_is_there_before_the_request_is_whole() {
    let target = Target::serving(|wire, seen| {
        let mut request = wire.head().unwrap();
        wire.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        wire.exactly(&mut request.body, 6).unwrap();
        seen.lock().unwrap().push(request);
        // The same connection goes on.
        wire.message().unwrap();
        wire.send("HTTP/1.1 201 CREATED\r\nContent-Length: 0\r\n\r\n");
    });
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send("POST /tasks HTTP/1.1\r\nContent-Length: 6\r\n\r\nabc");
    assert_eq!(wire.message().unwrap().text(), "ok");
    wire.send("def");
    wire.send("GET / HTTP/1.1\r\n\r\n");
    assert_eq!(wire.message().unwrap().status(), 201);
    assert_eq!(target.seen()[0].text(), "abcdef");
    assert_eq!(posts(&tap, 1)[0].bytes, 6);
}

#[test]
fn who_waits_for_continue_is_told_to() {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send("POST /tasks HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    assert_eq!(wire.head().unwrap().status(), 100);
    wire.send("{}");
    assert_eq!(wire.message().unwrap().status(), 202);
    assert_eq!(target.seen()[0].header("expect").as_deref(), Some("100-continue"));
}

#[test]
fn a_slow_body_is_legal_and_a_slow_head_is_not() {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send("POST /tasks HTTP/1.1\r\nContent-Length: 4\r\n\r\n");
    for byte in ["{", " ", " ", "}"] {
        // Twice the time that a head may take in tests.
        thread::sleep(Duration::from_millis(200));
        wire.send(byte);
    }
    assert_eq!(wire.message().unwrap().status(), 202);
    let mut wire = Wire::to(tap.addr());
    wire.send("POST /tasks HTTP/1.1\r\nHost:");
    let began = Instant::now();
    assert_eq!(wire.rest().0, b"");
    assert!(began.elapsed() < Duration::from_secs(5));
    assert_eq!(target.seen().len(), 1);
}

#[test]
fn a_worker_that_closes_its_half_is_answered() {
    let target = Target::accepting();
    let tap = tap(&target);
    let mut wire = Wire::to(tap.addr());
    wire.send(post_of("/tasks", "{}"));
    wire.reader.get_ref().shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(wire.message().unwrap().status(), 202);
}
