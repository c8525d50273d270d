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

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

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

/// A socket with a meter.
pub(super) struct Metered {
    pub(super) socket: TcpStream,
    pub(super) meter: Arc<Meter>,
}

impl AsyncRead for Metered {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut self.socket).poll_read(cx, buf);
        self.meter.read.fetch_add((buf.filled().len() - before) as u64, Ordering::Relaxed);
        polled
    }
}

impl AsyncWrite for Metered {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.socket).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = polled {
            self.meter.written.fetch_add(n as u64, Ordering::Relaxed);
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
