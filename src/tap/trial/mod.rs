//! The tap from the outside, with raw sockets on both sides of it.
//!
//! Nothing here waits without a deadline: every socket has one, and so has every look at the log.

mod control;
mod faults;
mod leaving;
mod passing;
mod record;
mod refusing;
mod smuggling;

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use super::{Config, Link, Tap};
use crate::post::{FaultOrder, Post};

const PATIENCE: Duration = Duration::from_secs(10);

/// One HTTP message as it stood on the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Message {
    first: String,
    /// Names and values as written.
    headers: Vec<(Vec<u8>, Vec<u8>)>,
    body: Vec<u8>,
    is_chunked: bool,
    /// The connection ended before the message did.
    is_cut: bool,
}

impl Message {
    fn header(&self, name: &str) -> Option<String> {
        let is_it = |(n, _): &&(Vec<u8>, Vec<u8>)| n.eq_ignore_ascii_case(name.as_bytes());
        self.headers.iter().find(is_it).map(|(_, v)| String::from_utf8_lossy(v).into_owned())
    }

    fn status(&self) -> u16 {
        self.first.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or_else(|| panic!("{self:?}"))
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Headers by name, those of one name in their order, without those that belong to a hop.
    fn lines(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut lines = self.headers.clone();
        lines.retain(|(n, _)| !n.eq_ignore_ascii_case(b"connection"));
        lines.sort_by_key(|(n, _)| n.to_ascii_lowercase());
        lines
    }
}

/// One end of a connection.
struct Wire {
    reader: BufReader<TcpStream>,
}

impl Wire {
    fn new(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Self { reader: BufReader::new(stream) }
    }

    fn to(addr: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&addr, PATIENCE).unwrap())
    }

    fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes.as_ref())
    }

    fn line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        match line.strip_suffix(b"\r\n") {
            Some(line) => Ok(line.to_vec()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// The head of a message; an error when the connection ends before it.
    fn head(&mut self) -> io::Result<Message> {
        let first = String::from_utf8_lossy(&self.line()?).into_owned();
        let mut message = Message { first, ..Message::default() };
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(message);
            }
            let colon = line.iter().position(|b| *b == b':').unwrap();
            let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
            message.headers.push((line[..colon].to_vec(), value.to_vec()));
        }
    }

    /// A whole message. The body of an answer without a length ends with the connection.
    fn message(&mut self) -> io::Result<Message> {
        let mut message = self.head()?;
        let is_answer = message.first.starts_with("HTTP/");
        let outcome = if message.header("transfer-encoding").is_some_and(|t| t.ends_with("chunked")) {
            message.is_chunked = true;
            self.chunks(&mut message.body)
        } else if let Some(length) = message.header("content-length") {
            self.exactly(&mut message.body, length.parse().unwrap())
        } else if is_answer && ![204, 304].contains(&message.status()) {
            self.reader.read_to_end(&mut message.body).map(drop)
        } else {
            Ok(())
        };
        message.is_cut = outcome.is_err();
        Ok(message)
    }

    fn exactly(&mut self, into: &mut Vec<u8>, length: u64) -> io::Result<()> {
        let read = Read::by_ref(&mut self.reader).take(length).read_to_end(into)?;
        if read as u64 == length { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn chunks(&mut self, into: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = String::from_utf8(self.line()?).unwrap();
            let length = u64::from_str_radix(&line, 16).unwrap();
            self.exactly(into, length)?;
            assert_eq!(self.line()?, b"");
            if length == 0 {
                return Ok(());
            }
        }
    }

    /// What comes until the connection ends, and whether it ended in order.
    fn rest(&mut self) -> (Vec<u8>, io::Result<()>) {
        let mut rest = Vec::new();
        let end = self.reader.read_to_end(&mut rest).map(drop);
        (rest, end)
    }

    /// Asserts that the other side resets the connection without a word.
    #[track_caller]
    fn is_reset(&mut self) {
        let (rest, end) = self.rest();
        assert_eq!(String::from_utf8_lossy(&rest), "");
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    fn hang_up(self) {
        drop(self);
    }
}

/// A target: what it does with a connection is up to the test.
struct Target {
    addr: SocketAddr,
    /// Requests that it read whole or in part, in order.
    seen: Arc<Mutex<Vec<Message>>>,
}

impl Target {
    /// One that does this with each connection.
    fn serving(act: impl Fn(&mut Wire, &Mutex<Vec<Message>>) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let (act, seen) = (Arc::new(act), Arc::new(Mutex::new(Vec::new())));
        let theirs = Arc::clone(&seen);
        // Ends with the process; it only waits.
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (act, seen) = (Arc::clone(&act), Arc::clone(&theirs));
                thread::spawn(move || act(&mut Wire::new(stream.unwrap()), &seen));
            }
        });
        Self { addr, seen }
    }

    /// One that reads whole requests and gives each the same answer.
    fn answering(answer: impl AsRef<[u8]> + Send + Sync + 'static) -> Self {
        Self::serving(move |wire, seen| {
            while let Ok(request) = wire.message() {
                seen.lock().unwrap().push(request);
                if wire.try_send(answer.as_ref()).is_err() {
                    return;
                }
            }
        })
    }

    /// One that takes everything in.
    fn accepting() -> Self {
        Self::answering(
            "HTTP/1.1 202 ACCEPTED\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        )
    }

    fn seen(&self) -> Vec<Message> {
        self.seen.lock().unwrap().clone()
    }
}

/// A tap before a target.
fn tap(target: &Target) -> Tap {
    tap_with(target, 10_000, None)
}

fn tap_with(target: &Target, buffer: usize, token: Option<&str>) -> Tap {
    Tap::start(Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        upstream: format!("http://{}", target.addr),
        token: token.map(Into::into),
        buffer,
    })
    .unwrap()
}

fn link(tap: &Tap) -> Link {
    Link::new(tap.url(), None).unwrap()
}

/// Runs what is asynchronous in a test that is not.
fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// The first `count` posts, once that many have ended and none is under way.
#[track_caller]
fn posts(tap: &Tap, count: usize) -> Vec<Post> {
    let link = link(tap);
    now(async {
        let boot = link.hello().await.unwrap().boot;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (mut all, mut from) = (Vec::new(), 1);
            let in_flight = loop {
                let batch = link.posts(&boot, from).await.unwrap();
                assert_eq!(batch.lost, 0);
                all.extend(batch.posts);
                from = batch.next;
                if !batch.more {
                    break batch.in_flight;
                }
            };
            if all.len() >= count && in_flight == 0 {
                assert_eq!(all.len(), count, "{all:#?}");
                return all;
            }
            assert!(Instant::now() < deadline, "{} of {count} posts, {in_flight} under way", all.len());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// Waits until that many posts are under way.
#[track_caller]
fn in_flight(tap: &Tap, count: u64) {
    let link = link(tap);
    now(async {
        let boot = link.hello().await.unwrap().boot;
        let deadline = Instant::now() + PATIENCE;
        while link.posts(&boot, 1).await.unwrap().in_flight != count {
            assert!(Instant::now() < deadline);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    });
}

/// A post with a body of that length.
fn post_of(path: &str, body: &str) -> String {
    format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends one request over a connection of its own and reads the answer.
fn ask(tap: &Tap, request: impl AsRef<[u8]>) -> Message {
    let mut wire = Wire::to(tap.addr());
    wire.send(request);
    wire.message().unwrap()
}

/// Puts a fault in place and starts it.
fn order(tap: &Tap, order: &FaultOrder) {
    now(async {
        let link = link(tap);
        link.set(order).await.unwrap();
        assert!(link.start(&order.run, order.cell, Duration::ZERO).await.unwrap().t0.is_some());
    });
}
