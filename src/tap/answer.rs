//! The body of an answer on its way back.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Response, StatusCode,
    body::{Body, Frame, Incoming, SizeHint},
    header::{CONTENT_LENGTH, HeaderMap},
};

use super::{door::Latch, exchange::Exchange, upstream::is_hang_up};

/// What goes back to the worker, or to a run that asks for something.
#[derive(Debug)]
pub(super) enum Answer {
    /// Words of the tap's own.
    Own(Full<Bytes>),
    /// The target's.
    Passed(Passed),
}

/// The target's answer, piece by piece.
#[derive(Debug)]
pub(super) struct Passed {
    inner: Incoming,
    exchange: Option<Arc<Exchange>>,
    /// The worker's end of the connection.
    latch: Latch,
    bytes: u64,
    /// An answer without a body may tell the length of the one that it stands for.
    claimed: Option<u64>,
}

impl Passed {
    /// The body of this answer to a request of that method.
    pub(super) fn new(
        answer: Response<Incoming>,
        method: &Method,
        exchange: Option<Arc<Exchange>>,
        latch: Latch,
    ) -> Response<Self> {
        let is_claim = *method != Method::HEAD && answer.status() == StatusCode::NOT_MODIFIED;
        let claimed = if is_claim { length(answer.headers()) } else { None };
        answer.map(|inner| {
            let mut passed = Self { inner, exchange, latch, bytes: 0, claimed };
            if passed.inner.is_end_stream() {
                passed.told();
            }
            passed
        })
    }

    /// Reads the answer to its end, for nobody.
    pub(super) async fn read_out(mut self) {
        let exchange = self.exchange.take();
        let is_whole = loop {
            match self.inner.frame().await {
                None => break true,
                Some(Ok(frame)) => self.count(&frame),
                Some(Err(_)) => break false,
            }
        };
        if let Some(exchange) = exchange {
            exchange.answer_read(self.bytes, is_whole);
        }
    }

    fn count(&mut self, frame: &Frame<Bytes>) {
        self.bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }

    /// The last of it is handed over, and goes out next.
    fn told(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.answer_read(self.bytes, true);
            // What is written to a worker that gave up in the meantime is told to nobody, and
            // writing it need not fail: the first bytes after its end are taken by the system.
            if !self.latch.is_left() {
                exchange.told();
            }
        }
    }
}

fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok().filter(|n| *n > 0)
}

/// Whether the cause of it is that the target reset the connection.
fn is_reset(error: &hyper::Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(is_hang_up) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(cx));
        match &frame {
            Some(Ok(frame)) => {
                self.count(frame);
                if frame.is_trailers() || self.inner.is_end_stream() {
                    self.told();
                }
            }
            // A reset is passed on as one: where the end of the connection is the end of the
            // answer, anything else would look like success.
            Some(Err(error)) if is_reset(error) => self.latch.reset(),
            Some(Err(_)) => {}
            None => self.told(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.claimed.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.claimed.map_or_else(|| self.inner.size_hint(), SizeHint::with_exact)
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if let Some(exchange) = self.exchange.take() {
            exchange.answer_read(self.bytes, false);
        }
    }
}

impl Body for Answer {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Own(body) => Pin::new(body).poll_frame(cx).map_err(|never| match never {}),
            Self::Passed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(body) => body.is_end_stream(),
            Self::Passed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(body) => body.size_hint(),
            Self::Passed(body) => body.size_hint(),
        }
    }
}
