//! An open HTTP/1.1 connection, driven from within the call that uses it.

use std::{
    future::{Future, poll_fn},
    mem::replace,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::Poll,
};

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

use super::meter::Meter;

/// In a lock only to be `Sync`, which a Goose user must be; it is never locked.
pub(super) type Driver = Mutex<Pin<Box<dyn Future<Output = ()> + Send>>>;

/// An open connection and the future that moves its bytes.
pub(super) struct Connection {
    pub(super) sender: http1::SendRequest<Full<Bytes>>,
    /// `None` once the connection has ended.
    pub(super) driver: Option<Driver>,
    pub(super) meter: Arc<Meter>,
    /// Bytes written and read before the call that is under way.
    pub(super) counted: (u64, u64),
}

impl Connection {
    /// Runs `work` and the connection together until `work` is done.
    pub(super) async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut woken = false;
        poll_fn(|cx| {
            // Once it waits, only the connection can bring it on.
            if !replace(&mut woken, true)
                && let Poll::Ready(done) = work.as_mut().poll(cx)
            {
                return Poll::Ready(done);
            }
            if driver.as_mut().is_some_and(|d| unlocked(d).as_mut().poll(cx).is_ready()) {
                *driver = None;
            }
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether it takes another request. A call that cannot be sent twice wants to be `sure` that
    /// the peer has kept it open, which costs a turn of the scheduler.
    pub(super) async fn is_open(&mut self, sure: bool) -> bool {
        let Self { sender, driver, .. } = self;
        Self::drive(driver, async {
            if sure {
                // One turn for the driver to see an end of stream, one to be ready.
                tokio::task::yield_now().await;
            }
            sender.ready().await.is_ok() && !sender.is_closed()
        })
        .await
    }
}

fn unlocked<T>(lock: &mut Mutex<T>) -> &mut T {
    lock.get_mut().unwrap_or_else(PoisonError::into_inner)
}

/// Opens a connection over a stream.
///
/// # Errors
/// What hyper says when it cannot.
pub(super) async fn handshake<S>(stream: S, meter: Arc<Meter>) -> Result<Connection, hyper::Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Its error reaches the caller through the sender.
    let driver = Mutex::new(Box::pin(async move {
        let _ = connection.await;
    }) as Pin<Box<dyn Future<Output = ()> + Send>>);
    Ok(Connection { sender, driver: Some(driver), meter, counted: (0, 0) })
}
