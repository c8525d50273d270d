//! A socket whose bytes are counted, and the count of sockets that are open.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Counts open sockets over many clients.
#[derive(Debug, Default)]
pub struct Sockets {
    open: AtomicU64,
    peak: AtomicU64,
}

impl Sockets {
    /// The most that were open at once since the last call.
    pub fn take_peak(&self) -> u64 {
        self.peak.swap(self.open.load(Ordering::Relaxed), Ordering::Relaxed)
    }
}

/// Bytes through one socket, and its place in the count of open ones.
pub(super) struct Meter {
    pub(super) read: AtomicU64,
    pub(super) written: AtomicU64,
    sockets: Arc<Sockets>,
}

impl Meter {
    pub(super) fn new(sockets: Arc<Sockets>) -> Arc<Self> {
        let open = sockets.open.fetch_add(1, Ordering::Relaxed) + 1;
        sockets.peak.fetch_max(open, Ordering::Relaxed);
        Arc::new(Self { read: AtomicU64::new(0), written: AtomicU64::new(0), sockets })
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.sockets.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Somebody who counts the bytes of a stream.
pub(crate) trait Tally {
    /// So many were read.
    fn read(&self, bytes: u64);
    /// So many were written.
    fn written(&self, bytes: u64);
}

impl Tally for Meter {
    fn read(&self, bytes: u64) {
        self.read.fetch_add(bytes, Ordering::Relaxed);
    }

    fn written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A stream whose bytes are counted.
pub(crate) struct Metered<S, T> {
    pub(crate) socket: S,
    pub(crate) meter: Arc<T>,
}

impl<S: AsyncRead + Unpin, T: Tally> AsyncRead for Metered<S, T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.meter.read((buf.filled().len() - before) as u64);
        polled
    }
}

impl<S: AsyncWrite + Unpin, T: Tally> AsyncWrite for Metered<S, T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = polled {
            self.meter.written(n as u64);
        }
        polled
    }

    // No vectored writes: requests are small, and copied into one buffer they cost the kernel less.

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
