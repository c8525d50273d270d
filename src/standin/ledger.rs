//! The count of requests: what came, what was answered, how long it took.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Instant;

use axum::body::{Body, HttpBody};
use bytes::Bytes;
use hyper::Method;
use hyper::body::{Frame, SizeHint};

use super::metrics::Metrics;
use super::truth::{RouteTruth, SERVICE_TIMES_KEPT};

/// Bodies are handed to the connection in pieces of this size, so that the last one
/// goes out only when the client has taken most of the rest.
const PIECE: usize = 64 * 1024;

/// The paths that have a line of their own; the rest share one.
const PATHS: [&str; 21] = [
    "/",
    "/auth/keycloak",
    "/auth/login",
    "/auth/logout",
    "/auth/refresh",
    "/auth/register",
    "/auth/status",
    "/clusters",
    "/estimators",
    "/inputs",
    "/jobs",
    "/jobs/batch",
    "/jobs/direct",
    "/logfiles",
    "/results",
    "/results/direct",
    "/tasks",
    "/user/simulations",
    "/user/update",
    "/_truth",
    "/metrics",
];

/// Who sends a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    Client,
    Worker,
    /// Whoever asks for the truth or the metrics is not counted.
    Observer,
}

/// Side, method and path of a request: one line of the ledger.
pub(super) type Line = (Side, &'static str, &'static str);

/// The line a request belongs to.
pub(super) fn line_of(method: &Method, path: &str) -> Line {
    let path = PATHS.into_iter().find(|known| *known == path).unwrap_or("(other)");
    let method = match method.as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        "PATCH" => "PATCH",
        _ => "(other)",
    };
    let side = match (method, path) {
        (_, "/_truth" | "/metrics") => Side::Observer,
        ("POST", "/tasks" | "/jobs" | "/results" | "/logfiles") => Side::Worker,
        _ => Side::Client,
    };
    (side, method, path)
}

/// All lines.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    lines: Mutex<BTreeMap<Line, RouteTruth>>,
    metrics: Arc<Metrics>,
}

impl Ledger {
    /// One that tells these metrics of every reply.
    pub(super) fn telling(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Counts a request whose head arrived at `arrived`; the ticket counts its reply.
    pub(super) fn open(self: &Arc<Self>, line: Line, arrived: Instant) -> Ticket {
        if line.0 != Side::Observer {
            self.lines().entry(line).or_default().requests += 1;
        }
        Ticket { ledger: Arc::clone(self), line, arrived }
    }

    /// A copy of the lines of one side, by `"METHOD /path"`.
    pub(super) fn side(&self, side: Side) -> BTreeMap<String, RouteTruth> {
        let lines = self.lines();
        let of_side = lines.iter().filter(|((of, ..), _)| *of == side);
        of_side.map(|((_, method, path), truth)| (format!("{method} {path}"), truth.clone())).collect()
    }

    fn lines(&self) -> MutexGuard<'_, BTreeMap<Line, RouteTruth>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request in work.
#[derive(Debug)]
pub(super) struct Ticket {
    ledger: Arc<Ledger>,
    line: Line,
    arrived: Instant,
}

impl Ticket {
    /// Wraps the reply's body, which closes the ticket when its last byte is handed over.
    pub(super) fn seal(self, status: u16, body: Body) -> Handover {
        let mut sealed = Handover { body, rest: Bytes::new(), open: Some((self, status)) };
        if sealed.body.is_end_stream() {
            sealed.close(true);
        }
        sealed
    }

    fn close(self, status: u16, whole: bool) {
        if self.line.0 == Side::Observer {
            return;
        }
        let took = self.arrived.elapsed();
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.ledger.metrics.request(self.line.2, self.line.1, status, took);
        let mut lines = self.ledger.lines();
        let truth = lines.entry(self.line).or_default();
        *truth.by_status.entry(status).or_default() += 1;
        if whole && truth.service_us.len() < SERVICE_TIMES_KEPT {
            truth.service_us.push(micros);
        }
    }
}

/// A body on its way out.
#[derive(Debug)]
pub(super) struct Handover {
    body: Body,
    rest: Bytes,
    open: Option<(Ticket, u16)>,
}

impl Handover {
    fn close(&mut self, whole: bool) {
        if let Some((ticket, status)) = self.open.take() {
            ticket.close(status, whole);
        }
    }
}

impl HttpBody for Handover {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            match Pin::new(&mut self.body).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.rest = data,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                Poll::Ready(None) => {
                    self.close(true);
                    return Poll::Ready(None);
                }
                other => return other,
            }
        }
        let end = self.rest.len().min(PIECE);
        let piece = self.rest.split_to(end);
        if self.is_end_stream() {
            self.close(true);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        match self.body.size_hint().exact() {
            Some(more) => SizeHint::with_exact(rest + more),
            None => SizeHint::default(),
        }
    }
}

impl Drop for Handover {
    fn drop(&mut self) {
        self.close(false);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use axum::body::Body;
    use http_body_util::BodyExt;
    use hyper::Method;

    use super::{Ledger, PIECE, Side, line_of};

    #[test]
    fn lines_keep_clients_and_workers_apart() {
        assert_eq!(line_of(&Method::GET, "/jobs").0, Side::Client);
        assert_eq!(line_of(&Method::POST, "/jobs").0, Side::Worker);
        assert_eq!(line_of(&Method::POST, "/jobs/direct").0, Side::Client);
        assert_eq!(line_of(&Method::GET, "/_truth").0, Side::Observer);
        assert_eq!(line_of(&Method::GET, "/metrics").0, Side::Observer);
        assert_eq!(line_of(&Method::GET, "/x"), (Side::Client, "GET", "(other)"));
    }

    #[tokio::test]
    async fn a_body_goes_out_in_pieces_and_is_timed_at_its_end() {
        let ledger = Arc::new(Ledger::default());
        let ticket = ledger.open(line_of(&Method::GET, "/results"), Instant::now());
        let mut body = ticket.seal(200, Body::from(vec![7_u8; PIECE + 1]));
        let first = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(first.len(), PIECE);
        assert!(ledger.side(Side::Client)["GET /results"].by_status.is_empty());
        let last = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(last.len(), 1);
        let line = &ledger.side(Side::Client)["GET /results"];
        assert_eq!((line.requests, line.by_status[&200], line.service_us.len()), (1, 1, 1));
    }

    #[test]
    fn a_body_that_is_cut_off_is_counted_but_not_timed() {
        let ledger = Arc::new(Ledger::default());
        drop(ledger.open(line_of(&Method::GET, "/"), Instant::now()).seal(200, Body::from("x")));
        let line = &ledger.side(Side::Client)["GET /"];
        assert_eq!((line.by_status[&200], line.service_us.len()), (1, 0));
    }
}
