//! Connections to the target's API.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs, UdpSocket},
    pin::Pin,
    sync::{Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_util::task::TaskTracker;

use super::{alive::keep_alive, base::Base, passage::Passage};

/// Sends requests over one connection.
pub(super) type Sender = http1::SendRequest<Passage>;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(10);

/// The target's API.
#[derive(Debug)]
pub(super) struct Upstream {
    /// As it was given.
    pub(super) url: String,
    pub(super) base: Base,
    /// Where it was reached last: names are looked up again only when nobody answers there.
    addr: Mutex<Option<SocketAddr>>,
}

impl Upstream {
    /// `None` when the URL is not one of plain HTTP.
    pub(super) fn new(url: &str) -> Option<Self> {
        let base = Base::read(url)?;
        let addr = base.host.parse().ok().map(|ip| SocketAddr::new(ip, base.port));
        Some(Self { url: url.trim_end_matches('/').to_owned(), base, addr: Mutex::new(addr) })
    }

    /// Whether who listens on that address would be the target itself. Waits for the names to be
    /// looked up, if the port is the same; a name that is not known yet is nobody's.
    pub(super) fn is_at(&self, listen: SocketAddr) -> bool {
        let Base { host, port, .. } = &self.base;
        if *port != listen.port() {
            return false;
        }
        let addrs = (host.as_str(), *port).to_socket_addrs();
        addrs.is_ok_and(|mut addrs| addrs.any(|addr| is_same(listen.ip(), addr.ip())))
    }

    /// Opens a connection, which lives until its sender is dropped or the target hangs up.
    pub(super) async fn connect(&self, tasks: &TaskTracker) -> io::Result<Sender> {
        let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {CONNECT:?}"));
        let stream = tokio::time::timeout(CONNECT, self.reach()).await.map_err(late)??;
        stream.set_nodelay(true)?;
        keep_alive(&stream);
        let wire = Wire { stream, is_broken: false };
        let (sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(wire))
            .await
            .map_err(io::Error::other)?;
        // How it ends is told to whoever waits for an answer.
        tasks.spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    async fn reach(&self) -> io::Result<TcpStream> {
        let known = *self.addr.lock().unwrap_or_else(PoisonError::into_inner);
        let Base { host, port, .. } = &self.base;
        if let Some(addr) = known {
            let outcome = TcpStream::connect(addr).await;
            // An address does not change; a name may mean another one now.
            if outcome.is_ok() || host.parse::<IpAddr>().is_ok() {
                return outcome;
            }
        }
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        *self.addr.lock().unwrap_or_else(PoisonError::into_inner) = stream.peer_addr().ok();
        Ok(stream)
    }
}

/// Whether a connection to `asked` comes to whoever listens on `listen` at that port.
fn is_same(listen: IpAddr, asked: IpAddr) -> bool {
    let (listen, asked) = (listen.to_canonical(), asked.to_canonical());
    // To connect to no address in particular is to connect to this machine.
    let is_here = |ip: IpAddr| ip.is_loopback() || ip.is_unspecified();
    listen == asked
        || (is_here(listen) && is_here(asked))
        // Only addresses of this machine can be bound.
        || (listen.is_unspecified() && UdpSocket::bind((asked, 0)).is_ok())
}

/// A connection that can still be read when it can no longer be written to.
///
/// A target that answers before it has read the whole request, and hangs up, breaks our writes
/// while its answer waits to be read. So the rest of the request goes nowhere, and reading tells
/// how it went.
#[derive(Debug)]
struct Wire {
    stream: TcpStream,
    is_broken: bool,
}

impl Wire {
    fn or_nowhere(&mut self, written: Poll<io::Result<usize>>, all: usize) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if is_hang_up(&error) => {
                self.is_broken = true;
                Poll::Ready(Ok(all))
            }
            other => other,
        }
    }
}

/// Whether the other side has closed the connection.
pub(super) fn is_hang_up(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if self.is_broken && matches!(read, Poll::Ready(Ok(()))) && buf.filled().len() == before {
            // The system tells of a reset once, and it told a write; after that it says "the end".
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        read
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.is_broken {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.or_nowhere(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = slices.iter().map(|s| s.len()).sum();
        if self.is_broken {
            return Poll::Ready(Ok(all));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.or_nowhere(written, all)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tap_knows_itself_under_all_its_names() {
        for (listen, upstream, is_at) in [
            ("127.0.0.1:5", "http://127.0.0.1:5", true),
            ("127.0.0.1:5", "http://localhost:5/api", true),
            ("127.0.0.1:5", "http://0.0.0.0:5", true),
            ("127.0.0.1:5", "http://[::ffff:127.0.0.1]:5", true),
            ("0.0.0.0:5", "http://127.0.0.1:5", true),
            ("[::]:5", "http://[::1]:5", true),
            ("[::]:5", "http://127.0.0.1:5", true),
            ("192.0.2.1:5", "http://192.0.2.1:5", true),
            ("127.0.0.1:5", "http://127.0.0.1:6", false),
            // Addresses for examples, which no machine has (RFC 5737).
            ("127.0.0.1:5", "http://192.0.2.1:5", false),
            ("0.0.0.0:5", "http://192.0.2.1:5", false),
            ("192.0.2.1:5", "http://127.0.0.1:5", false),
            ("127.0.0.1:5", "http://nobody.invalid:5", false),
        ] {
            let target = Upstream::new(upstream).unwrap();
            assert_eq!(target.is_at(listen.parse().unwrap()), is_at, "{listen} before {upstream}");
        }
    }
}
