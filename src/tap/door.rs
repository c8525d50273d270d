//! A worker's end of its connection: it can be slammed, and looked through.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// A handle to a [`Door`].
#[derive(Debug, Clone)]
pub(super) struct Latch {
    is_reset: Arc<AtomicBool>,
    /// Not the connection's owner: it is closed when the door is dropped, whoever holds a latch.
    stream: Weak<Mutex<TcpStream>>,
}

impl Latch {
    /// When the connection is dropped it shall be reset, as if the network had cut it.
    pub(super) fn reset(&self) {
        self.is_reset.store(true, Ordering::Release);
    }

    /// Whether the worker has hung up.
    ///
    /// Who only closes its half and reads on is taken for gone too: the two cannot be told apart
    /// before something was sent, and hardly a client of HTTP does that.
    pub(super) fn is_left(&self) -> bool {
        let Some(stream) = self.stream.upgrade() else { return true };
        let mut byte = [0];
        // Nothing is taken away: a request that waits there is read by whoever reads requests.
        match recv(&*lock(&stream), &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Ok((_, read)) => read == 0,
            Err(error) => error != Errno::AGAIN && error != Errno::INTR,
        }
    }
}

/// A connection that is closed in order when it is dropped, unless its [`Latch`] says otherwise.
#[derive(Debug)]
pub(super) struct Door {
    /// Locked for the moment of a call that does not wait; the task that serves the connection is
    /// the only one that asks.
    stream: Arc<Mutex<TcpStream>>,
    is_reset: Arc<AtomicBool>,
}

impl Door {
    /// Around an accepted connection.
    pub(super) fn new(stream: TcpStream) -> (Self, Latch) {
        let door = Self { stream: Arc::new(Mutex::new(stream)), is_reset: Arc::default() };
        let latch = Latch { is_reset: Arc::clone(&door.is_reset), stream: Arc::downgrade(&door.stream) };
        (door, latch)
    }

    fn stream(&self) -> MutexGuard<'_, TcpStream> {
        lock(&self.stream)
    }
}

fn lock(stream: &Mutex<TcpStream>) -> MutexGuard<'_, TcpStream> {
    stream.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.is_reset.load(Ordering::Acquire) {
            // No lingering: closing sends RST and drops what was not sent (socket(7)).
            let _ = self.stream().set_zero_linger();
        }
    }
}

impl AsyncRead for Door {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_read(cx, buf)
    }
}

impl AsyncWrite for Door {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut *self.stream()).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream()).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_reset.load(Ordering::Acquire) {
            // An orderly end would come before the reset.
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut *self.stream()).poll_shutdown(cx)
    }
}
