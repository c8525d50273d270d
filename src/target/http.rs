//! One user's HTTP/1.1 connection, on hyper, with the clock and the byte counters in the right
//! places.
//!
//! The connection is driven from within the call that uses it, not by a task of its own: an idle
//! user costs nothing, and the moment an answer is complete is read by the task that waited for
//! it. A response time runs from before connecting (where that was needed) to the last byte of
//! the body.

use std::{
    future::{Future, poll_fn},
    io,
    mem::replace,
    pin::{Pin, pin},
    sync::{Arc, atomic::Ordering},
    task::Poll,
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response,
    body::Incoming,
    header::{self, HeaderMap, HeaderName, HeaderValue},
    http::uri::InvalidUri,
};
use tokio::{
    net::TcpStream,
    time::{Instant, Sleep, sleep_until},
};

pub use super::meter::Sockets;
use super::{
    connection::{Connection, handshake},
    meter::{Meter, Metered},
    origin::Origin,
};

/// The largest body that is read, so that a target gone mad does not take the generator with it.
const LARGEST_BODY: usize = 1 << 30;

/// Of which trace a request is (W3C Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What to send.
#[derive(Debug)]
pub struct Call<'a> {
    /// HTTP method.
    pub method: Method,
    /// Path with query, after the target's own prefix.
    pub path: &'a str,
    /// Value of the `Cookie` header.
    pub cookie: Option<HeaderValue>,
    /// Value of the `traceparent` header.
    pub trace: Option<HeaderValue>,
    /// More headers, which beat all others.
    pub headers: Option<&'a HeaderMap>,
    /// Body; empty for none. It is JSON unless the headers say otherwise.
    pub body: Bytes,
    /// Whether it may be sent again over a new connection when a kept one was closed under it.
    pub safe: bool,
}

/// When a call was sent and answered, and what went over the wire for it.
#[derive(Debug, Clone, Copy)]
pub struct Exchange {
    /// Before the first byte was sent, or the connection asked for.
    pub sent: Instant,
    /// The head of the answer was there; `done` when there was none.
    pub first_byte: Instant,
    /// The last byte of the answer was read, or the attempt failed.
    pub done: Instant,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received, heads and framing included (below TLS, where there is TLS).
    pub wire_bytes: u64,
    /// Connections opened for it.
    pub connects: u32,
}

/// A complete answer.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
    /// When and how much.
    pub exchange: Exchange,
}

/// No complete answer.
#[derive(Debug)]
pub struct HttpError {
    /// What went wrong, without addresses or ids, so that like counts with like.
    pub kind: HttpErrorKind,
    /// When and how much, as far as it got.
    pub exchange: Exchange,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HttpErrorKind {
    /// No connection.
    #[error("connect: {0}")]
    Connect(String),
    /// The connection was closed before any answer.
    #[error("closed before an answer")]
    Closed,
    /// The answer's head is not HTTP.
    #[error("not HTTP: {0}")]
    NotHttp(String),
    /// The answer broke off.
    #[error("answer cut off: {0}")]
    CutOff(String),
    /// The body is larger than we read.
    #[error("body larger than {} MiB", .0 >> 20)]
    TooLarge(usize),
    /// No complete answer in time.
    #[error("timed out")]
    TimedOut,
    /// When it could be sent, it was not to be any more.
    #[error("not sent: the cell is given up")]
    Withheld,
}

/// One user's way to the target: at most one connection, opened when needed and kept while the
/// target keeps it.
pub struct Client {
    origin: Arc<Origin>,
    sockets: Arc<Sockets>,
    connection: Option<Connection>,
    /// A call that has no complete answer after this long has failed.
    timeout: Duration,
    alarm: Option<Alarm>,
    /// The largest body that is read, in bytes.
    largest: usize,
    /// A call is under way; still true at the next one when its caller dropped it half-way.
    busy: bool,
}

/// A timer that serves call after call. To set one is dear, so it is left as it stands, goes off at
/// the deadline of a call that was answered long ago, and is set to that of the present one then.
type Alarm = Pin<Box<Sleep>>;

/// Runs `work` until `deadline`, which is never before that of the call before; `None` when it was
/// not done by then.
async fn until<T>(deadline: Instant, alarm: &mut Alarm, work: impl Future<Output = T>) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(done) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(done));
        }
        while alarm.as_mut().poll(cx).is_ready() {
            if Instant::now() >= deadline {
                return Poll::Ready(None);
            }
            alarm.as_mut().reset(deadline);
        }
        Poll::Pending
    })
    .await
}

impl Client {
    /// A client that has not connected yet.
    pub fn new(origin: Arc<Origin>, sockets: Arc<Sockets>, timeout: Duration) -> Self {
        let largest = LARGEST_BODY;
        Self { origin, sockets, connection: None, timeout, alarm: None, largest, busy: false }
    }

    /// The same, which gives up on bodies larger than so many bytes.
    pub fn reading_at_most(self, largest: usize) -> Self {
        Self { largest, ..self }
    }

    /// The target.
    pub fn origin(&self) -> &Arc<Origin> {
        &self.origin
    }

    /// Sends a call and reads its answer to the last byte.
    ///
    /// # Errors
    /// When there is no complete answer; the connection is then dropped. The error carries the
    /// times and sizes up to that point.
    pub async fn call(&mut self, call: &Call<'_>) -> Result<Answer, HttpError> {
        self.call_if(call, &|| true).await
    }

    /// The same for a call that is sent only if it still may be at the last moment, when there is a
    /// connection.
    ///
    /// # Errors
    /// Also when it may not.
    pub async fn call_if(
        &mut self,
        call: &Call<'_>,
        may_go: &(dyn Fn() -> bool + Sync),
    ) -> Result<Answer, HttpError> {
        let now = Instant::now();
        let deadline = now + self.timeout;
        let mut exchange =
            Exchange { sent: now, first_byte: now, done: now, sent_bytes: 0, wire_bytes: 0, connects: 0 };
        if replace(&mut self.busy, true) {
            // Half an exchange is still on it.
            self.connection = None;
        }
        let mut alarm = self.alarm.take().unwrap_or_else(|| Box::pin(sleep_until(deadline)));
        let attempt = until(deadline, &mut alarm, self.attempt(call, may_go, &mut exchange)).await;
        self.alarm = Some(alarm);
        self.busy = false;
        if let (None, Some(connection)) = (&attempt, &self.connection) {
            // The attempt was dropped before it could count what had gone over the wire.
            let meter = &connection.meter;
            exchange.sent_bytes = meter.written.load(Ordering::Relaxed) - connection.counted.0;
            exchange.wire_bytes = meter.read.load(Ordering::Relaxed) - connection.counted.1;
        }
        let result = attempt.unwrap_or(Err(HttpErrorKind::TimedOut));
        exchange.done = Instant::now();
        match result {
            Ok((head, body)) => {
                Ok(Answer { status: head.status.as_u16(), headers: head.headers, body, exchange })
            }
            Err(kind) => {
                self.connection = None;
                exchange.first_byte = exchange.first_byte.max(exchange.sent);
                Err(HttpError { kind, exchange })
            }
        }
    }

    async fn attempt(
        &mut self,
        call: &Call<'_>,
        may_go: &(dyn Fn() -> bool + Sync),
        exchange: &mut Exchange,
    ) -> Result<(hyper::http::response::Parts, Bytes), HttpErrorKind> {
        if let Some(connection) = &mut self.connection
            && !connection.is_open(!call.safe).await
        {
            self.connection = None;
        }
        let mut kept = self.connection.is_some();
        loop {
            if self.connection.is_none() {
                exchange.connects += 1;
                // In a box of its own, as it is large and rarely needed.
                self.connection = Some(Box::pin(self.connect()).await?);
            }
            if !may_go() {
                return Err(HttpErrorKind::Withheld);
            }
            let connection = self.connection.as_mut().expect("just connected");
            let meter = &connection.meter;
            connection.counted = (meter.written.load(Ordering::Relaxed), meter.read.load(Ordering::Relaxed));
            let sent = send(connection, self.origin.as_ref(), call, exchange, self.largest).await;
            let meter = &connection.meter;
            exchange.sent_bytes += meter.written.load(Ordering::Relaxed) - connection.counted.0;
            exchange.wire_bytes += meter.read.load(Ordering::Relaxed) - connection.counted.1;
            match sent {
                Err(HttpErrorKind::Closed) if kept && call.safe => {
                    kept = false;
                    self.connection = None;
                }
                Ok((head, body, keep)) => {
                    if !keep {
                        self.connection = None;
                    }
                    return Ok((head, body));
                }
                Err(kind) => return Err(kind),
            }
        }
    }

    async fn connect(&self) -> Result<Connection, HttpErrorKind> {
        let failed = |e: io::Error| HttpErrorKind::Connect(io_text(&e));
        let refused = |e: hyper::Error| HttpErrorKind::Connect(e.to_string());
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for (index, addr) in self.origin.addrs() {
            let socket = match TcpStream::connect(addr).await {
                Ok(socket) => socket,
                Err(e) => {
                    last = e;
                    continue;
                }
            };
            self.origin.answered(index);
            socket.set_nodelay(true).map_err(failed)?;
            let meter = Meter::new(Arc::clone(&self.sockets));
            let metered = Metered { socket, meter: Arc::clone(&meter) };
            return match &self.origin.tls {
                None => handshake(metered, meter).await.map_err(refused),
                Some((tls, name)) => {
                    let stream = tls.connect(name.clone(), metered).await.map_err(failed)?;
                    handshake(stream, meter).await.map_err(refused)
                }
            };
        }
        Err(failed(last))
    }
}

async fn send(
    connection: &mut Connection,
    origin: &Origin,
    call: &Call<'_>,
    exchange: &mut Exchange,
    largest: usize,
) -> Result<(hyper::http::response::Parts, Bytes, bool), HttpErrorKind> {
    let request = request(origin, call)?;
    let Connection { sender, driver, .. } = connection;
    let answer = Connection::drive(driver, sender.send_request(request)).await;
    let answer: Response<Incoming> = answer.map_err(|e| before_head(&e))?;
    exchange.first_byte = Instant::now();
    let (head, mut incoming) = answer.into_parts();
    let mut first = Bytes::new();
    let mut rest = BytesMut::new();
    while let Some(frame) = Connection::drive(driver, incoming.frame()).await {
        let frame = frame.map_err(|e| HttpErrorKind::CutOff(cause(&e)))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if first.is_empty() {
            first = data;
        } else {
            if rest.is_empty() {
                rest.extend_from_slice(&first);
            }
            rest.extend_from_slice(&data);
        }
        if rest.len() > largest {
            return Err(HttpErrorKind::TooLarge(largest));
        }
    }
    let body = if rest.is_empty() { first } else { rest.freeze() };
    let keep =
        !head.headers.get(header::CONNECTION).is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"close"))
            && driver.is_some();
    Ok((head, body, keep))
}

fn request(origin: &Origin, call: &Call<'_>) -> Result<Request<Full<Bytes>>, HttpErrorKind> {
    let uri = if origin.prefix.is_empty() {
        call.path.parse()
    } else {
        format!("{}{}", origin.prefix, call.path).parse()
    };
    let mut request = Request::new(Full::new(call.body.clone()));
    *request.method_mut() = call.method.clone();
    *request.uri_mut() = uri.map_err(|e: InvalidUri| HttpErrorKind::NotHttp(e.to_string()))?;
    let headers = request.headers_mut();
    headers.clone_from(&origin.headers);
    if let Some(cookie) = &call.cookie {
        headers.insert(header::COOKIE, cookie.clone());
    }
    if let Some(trace) = &call.trace {
        headers.insert(TRACEPARENT, trace.clone());
    }
    if !call.body.is_empty() {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    for (name, value) in call.headers.into_iter().flatten() {
        headers.insert(name.clone(), value.clone());
    }
    Ok(request)
}

fn before_head(e: &hyper::Error) -> HttpErrorKind {
    if e.is_parse() {
        HttpErrorKind::NotHttp(e.to_string())
    } else {
        // Incomplete message, canceled, reset: the peer hung up on us.
        HttpErrorKind::Closed
    }
}

/// The innermost cause, which is the one that tells something.
fn cause(e: &dyn std::error::Error) -> String {
    let mut innermost = e;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// `connection refused` rather than `Connection refused (os error 111)`.
fn io_text(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::Other | io::ErrorKind::InvalidData => cause(e),
        kind => kind.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A server that answers request after request with these bytes: one list a connection, a
    /// pause between two pieces of one answer where there is a `None`.
    async fn serve(connections: Vec<Vec<Option<&'static str>>>) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            for pieces in connections {
                let (mut socket, _) = listener.accept().await.unwrap();
                let mut buffer = [0; 4096];
                for piece in pieces {
                    match piece {
                        Some(text) if text.starts_with("HTTP") => {
                            if socket.read(&mut buffer).await.unwrap() == 0 {
                                break;
                            }
                            socket.write_all(text.as_bytes()).await.unwrap();
                        }
                        Some(text) => socket.write_all(text.as_bytes()).await.unwrap(),
                        None => tokio::time::sleep(Duration::from_millis(50)).await,
                    }
                }
            }
        });
        let origin = Origin::new(&url, None).unwrap();
        Client::new(Arc::new(origin), Arc::default(), Duration::from_secs(2))
    }

    async fn get(client: &mut Client) -> Result<Answer, HttpError> {
        client.call(&a(Method::GET)).await
    }

    const OK: Option<&str> = Some("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi");
    const LAST: Option<&str> = Some("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi");

    #[tokio::test]
    async fn a_connection_is_kept_as_long_as_the_target_keeps_it() {
        let mut client = serve(vec![vec![OK, OK, LAST], vec![OK]]).await;
        let mut connects = Vec::new();
        for _ in 0..4 {
            let answer = get(&mut client).await.unwrap();
            assert_eq!(&answer.body[..], b"hi");
            connects.push(answer.exchange.connects);
        }
        assert_eq!(connects, [1, 0, 0, 1]);
    }

    #[tokio::test]
    async fn a_kept_connection_that_was_closed_is_replaced_unseen() {
        let mut client = serve(vec![vec![OK], vec![OK]]).await;
        get(&mut client).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert_eq!(get(&mut client).await.unwrap().status, 200);
    }

    #[tokio::test]
    async fn the_clock_stops_at_the_last_byte_and_every_byte_is_counted() {
        let head = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhi";
        let mut client = serve(vec![vec![Some(head), None, Some("ho")]]).await;
        let answer = get(&mut client).await.unwrap();
        let e = answer.exchange;
        assert_eq!(&answer.body[..], b"hiho");
        assert_eq!(e.wire_bytes, head.len() as u64 + 2);
        assert!(e.done - e.first_byte >= Duration::from_millis(45));
    }

    #[tokio::test]
    async fn what_goes_wrong_is_told_apart() {
        let cut = Some("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhi");
        let mut client = serve(vec![vec![], vec![], vec![cut], vec![Some("HTTP?"), None]]).await;
        let mut kind = async || get(&mut client).await.unwrap_err().kind;
        assert_eq!(kind().await, HttpErrorKind::Closed);
        assert_eq!(kind().await, HttpErrorKind::Closed);
        assert!(matches!(kind().await, HttpErrorKind::CutOff(_)));
        assert!(matches!(kind().await, HttpErrorKind::NotHttp(_) | HttpErrorKind::Closed));
    }

    #[tokio::test]
    async fn nobody_there_is_a_refused_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        drop(listener);
        let mut client = Client::new(Arc::new(origin), Arc::default(), Duration::from_secs(1));
        let error = get(&mut client).await.unwrap_err();
        assert_eq!(error.kind.to_string(), "connect: connection refused");
        assert_eq!(error.exchange.connects, 1);
    }

    #[tokio::test]
    async fn a_call_that_may_go_no_more_when_it_is_connected_is_not_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let mut client = Client::new(Arc::new(origin), Arc::default(), Duration::from_secs(2));
        let error = client.call_if(&a(Method::POST), &|| false).await.unwrap_err();
        assert_eq!((error.kind, error.exchange.sent_bytes), (HttpErrorKind::Withheld, 0));
        assert_eq!(error.exchange.connects, 1, "it is asked at the last moment");
        let (mut socket, _) = listener.accept().await.unwrap();
        assert_eq!(socket.read(&mut [0; 16]).await.unwrap(), 0, "nothing, and then the end");
    }

    #[tokio::test]
    async fn silence_is_a_timeout() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin::new(&format!("http://{}", listener.local_addr().unwrap()), None).unwrap();
        let mut client = Client::new(Arc::new(origin), Arc::default(), Duration::from_millis(30));
        assert_eq!(get(&mut client).await.unwrap_err().kind, HttpErrorKind::TimedOut);
    }

    const TIMEOUT: Duration = Duration::from_millis(150);

    /// A client of a server whose connections answer that many requests, and then close or fall
    /// silent.
    async fn client(answers: usize, closes: bool) -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move {
            loop {
                let (mut socket, _) = listener.accept().await.unwrap();
                tokio::spawn(async move {
                    let mut request = [0; 1024];
                    for _ in 0..answers {
                        if socket.read(&mut request).await.unwrap() == 0 {
                            return;
                        }
                        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await.unwrap();
                    }
                    if !closes {
                        std::future::pending::<()>().await;
                    }
                });
            }
        });
        Client::new(Arc::new(Origin::new(&url, None).unwrap()), Arc::default(), TIMEOUT)
    }

    fn a(method: Method) -> Call<'static> {
        let safe = method == Method::GET;
        Call { method, path: "/", cookie: None, trace: None, headers: None, body: Bytes::new(), safe }
    }

    #[tokio::test]
    async fn a_connection_closed_between_calls_is_replaced() {
        let mut client = client(1, true).await;
        for method in [Method::GET, Method::GET, Method::POST, Method::POST, Method::GET] {
            let answer = client.call(&a(method)).await.unwrap();
            assert_eq!((&answer.body[..], answer.exchange.connects), (&b"hi"[..], 1));
        }
    }

    #[tokio::test]
    async fn a_call_that_was_dropped_takes_its_connection_with_it() {
        let mut client = client(1, false).await;
        client.call(&a(Method::GET)).await.unwrap();
        let dropped = tokio::time::timeout(TIMEOUT / 3, client.call(&a(Method::GET))).await;
        assert!(dropped.is_err(), "the server answers once a connection");
        assert_eq!(client.call(&a(Method::GET)).await.unwrap().exchange.connects, 1);
    }

    #[tokio::test]
    async fn every_call_has_its_own_deadline() {
        let mut client = client(2, false).await;
        for _ in 0..2 {
            assert_eq!(client.call(&a(Method::GET)).await.unwrap().exchange.connects, 1);
            tokio::time::sleep(TIMEOUT / 2).await;
            assert_eq!(client.call(&a(Method::GET)).await.unwrap().exchange.connects, 0);
            let error = client.call(&a(Method::GET)).await.unwrap_err();
            assert_eq!(error.kind, HttpErrorKind::TimedOut);
            assert!(error.exchange.done - error.exchange.sent >= TIMEOUT);
        }
    }
}
