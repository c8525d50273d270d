//! A proxy in front of the server that breaks the connections it is told to break.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Break {
    /// Reset once the request is read; the server never sees it.
    Before,
    /// Reset once the server has answered; the worker never sees it.
    After,
    /// Answered with a 503 that is JSON; the server never sees the request.
    Unavailable,
    /// Answered with a 200 that is a web page; the server never sees the request.
    Page,
}

/// One request that came through, and what the server answered, if it was asked.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) request: String,
    pub(super) answer: Option<String>,
}

impl Seen {
    /// A header of the request.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        header(&self.request, name)
    }

    /// Whether the server said that it had answered before.
    pub(super) fn is_replay(&self) -> bool {
        self.answer.as_deref().is_some_and(|a| header(a, "idempotency-replayed") == Some("true"))
    }
}

/// The proxy; it ends when dropped.
pub(super) struct Flaky {
    pub(super) url: String,
    seen: Arc<Mutex<Vec<Seen>>>,
    _accepting: JoinSet<()>,
}

impl Flaky {
    /// Forwards to `upstream`, but for the connections (from 1) that break.
    pub(super) async fn start(upstream: SocketAddr, breaks: &[(usize, Break)]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let breaks: BTreeMap<usize, Break> = breaks.iter().copied().collect();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let mut accepting = JoinSet::new();
        let log = Arc::clone(&seen);
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            for nth in 1.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(carry(stream, upstream, breaks.get(&nth).copied(), Arc::clone(&log)));
            }
        });
        Self { url, seen, _accepting: accepting }
    }

    /// Every request so far.
    pub(super) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    /// The same, once there are so many.
    pub(super) async fn has_seen(&self, n: usize) -> Vec<Seen> {
        let all = async {
            while self.seen().len() < n {
                tokio::time::sleep(Duration::from_millis(3)).await;
            }
        };
        tokio::time::timeout(super::DEADLINE, all).await.expect("as many requests");
        self.seen()
    }
}

async fn carry(mut client: TcpStream, upstream: SocketAddr, how: Option<Break>, log: Arc<Mutex<Vec<Seen>>>) {
    let Some(request) = message(&mut client).await else { return };
    let mut seen = Seen { request, answer: None };
    if matches!(how, None | Some(Break::After)) {
        let mut server = TcpStream::connect(upstream).await.unwrap();
        server.write_all(seen.request.as_bytes()).await.unwrap();
        seen.answer = message(&mut server).await;
    }
    let answer = match how {
        None => seen.answer.clone(),
        Some(Break::Before | Break::After) => None,
        Some(Break::Unavailable) => Some(said(503, "Service Unavailable", "{\"message\": \"later\"}")),
        Some(Break::Page) => Some(said(200, "OK", "<html></html>")),
    };
    log.lock().unwrap().push(seen);
    match answer {
        Some(answer) => {
            // A worker that is gone is no concern of the proxy.
            let _ = client.write_all(answer.as_bytes()).await;
        }
        None => client.set_zero_linger().unwrap(),
    }
}

fn said(status: u16, reason: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} {reason}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

/// A whole HTTP message with a length; `None` when it breaks off.
async fn message(stream: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut piece) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
            let length: usize = header(&head, "content-length").map_or(0, |l| l.parse().unwrap());
            while bytes.len() < end + 4 + length {
                match stream.read(&mut piece).await {
                    Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
                    _ => return None,
                }
            }
            return Some(String::from_utf8(bytes).unwrap());
        }
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => bytes.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

fn header<'a>(message: &'a str, name: &str) -> Option<&'a str> {
    let head = message.split("\r\n\r\n").next()?;
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    })
}
