//! The body of a request on its way through.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use tokio::time::Sleep;
use tokio_util::task::TaskTracker;

use super::exchange::Reader;

/// A worker that sends nothing for so long is not listened to any more once its answer is there.
const LINGER: Duration = Duration::from_secs(5);

/// A body that brings no byte for so long breaks off: nobody finishes it any more. One that comes
/// slowly may take what it takes.
#[cfg(not(test))]
const STALL: Duration = Duration::from_secs(60);
#[cfg(test)]
const STALL: Duration = Duration::from_secs(2);

/// Why the body of a request does not come whole.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// The worker hung up, or what it sent is no body.
    #[error("the request broke off")]
    Cut(#[source] hyper::Error),
    #[error("the request brought no byte for {STALL:?}")]
    Stalled,
}

/// Passes a body on, piece by piece, and lets a [`Reader`] see it.
///
/// When nobody wants the rest of it (the target has answered already, or is not there), the rest is
/// read all the same: a connection that is closed with bytes unread is reset, and the answer lost.
#[derive(Debug)]
pub(super) struct Passage {
    /// Gone when the passage is.
    inside: Option<Inside>,
    tasks: TaskTracker,
}

#[derive(Debug)]
struct Inside {
    body: Incoming,
    reader: Option<Reader>,
    is_over: bool,
    /// Who waits for `100 Continue` must not be told to go on when the answer is there already.
    is_unasked: bool,
    /// Runs while the next piece is waited for.
    stall: Option<Pin<Box<Sleep>>>,
}

impl Passage {
    /// A body; `is_expecting` if its sender waits to be asked for it.
    pub(super) fn new(
        body: Incoming,
        reader: Option<Reader>,
        tasks: &TaskTracker,
        is_expecting: bool,
    ) -> Self {
        let mut inside = Inside { body, reader, is_over: false, is_unasked: is_expecting, stall: None };
        if inside.body.is_end_stream() {
            inside.end();
        }
        Self { inside: Some(inside), tasks: tasks.clone() }
    }

    /// Reads to the end; whether there was one.
    pub(super) async fn read_out(&mut self) -> bool {
        loop {
            match self.frame().await {
                None => return true,
                Some(Ok(_)) => {}
                Some(Err(_)) => return false,
            }
        }
    }
}

impl Inside {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.is_unasked = false;
        let frame = match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Ready(frame) => frame.map(|frame| frame.map_err(Broken::Cut)),
            Poll::Pending => {
                let stall = self.stall.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
                ready!(stall.as_mut().poll(cx));
                Some(Err(Broken::Stalled))
            }
        };
        self.stall = None;
        match &frame {
            Some(Ok(frame)) => {
                if let (Some(data), Some(reader)) = (frame.data_ref(), &mut self.reader) {
                    reader.feed(data);
                }
                // Who knows the length does not ask for the end, nor does who has the trailers.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end();
                }
            }
            Some(Err(_)) => self.cut(true),
            None => self.end(),
        }
        Poll::Ready(frame)
    }

    fn end(&mut self) {
        self.is_over = true;
        if let Some(reader) = self.reader.take() {
            reader.whole();
        }
    }

    fn cut(&mut self, by_worker: bool) {
        self.is_over = true;
        if let Some(reader) = self.reader.take() {
            reader.cut(by_worker);
        }
    }

    /// Reads what nobody wants.
    async fn linger(mut self) {
        loop {
            let frame = std::future::poll_fn(|cx| self.poll(cx));
            let Ok(Some(Ok(_))) = tokio::time::timeout(LINGER, frame).await else { break };
        }
        if !self.is_over {
            self.cut(false);
        }
    }
}

impl Body for Passage {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        self.inside.as_mut().map_or(Poll::Ready(None), |inside| inside.poll(cx))
    }

    fn is_end_stream(&self) -> bool {
        self.inside.as_ref().is_none_or(|inside| inside.body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.inside.as_ref().map_or_else(SizeHint::default, |inside| inside.body.size_hint())
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let Some(mut inside) = self.inside.take_if(|inside| !inside.is_over) else { return };
        if inside.is_unasked || tokio::runtime::Handle::try_current().is_err() {
            return inside.cut(false);
        }
        self.tasks.spawn(inside.linger());
    }
}
