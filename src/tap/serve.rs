//! The tap's own thread: listening, connections, the end.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::{
    alive::keep_alive,
    door::Door,
    proxy::{self, Caller},
    shared::Shared,
};

/// Connections that may wait to be accepted: a burst of workers must not meet SYN retries.
const BACKLOG: u32 = 4096;

/// How long open connections may take to finish once the tap stops.
const GRACE: Duration = Duration::from_millis(500);

/// How long a head may take, and an idle connection be kept. A body that keeps coming may take
/// what it takes.
#[cfg(not(test))]
const HEAD: Duration = Duration::from_secs(60);
#[cfg(test)]
const HEAD: Duration = Duration::from_millis(400);

/// Opens the port.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves until told to stop, then gives what is under way a moment to end.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    let watched = Arc::clone(&shared);
    let watching = async move { watched.watch_lease().await };
    shared.tasks.spawn(shared.stop.clone().run_until_cancelled_owned(watching));
    shared.stop.run_until_cancelled(accept(&shared, &listener)).await;
    drop(listener);
    shared.tasks.close();
    // What is still open then is dropped with the runtime.
    let _ = tokio::time::timeout(GRACE, shared.tasks.wait()).await;
}

async fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.tasks.spawn(converse(Arc::clone(shared), stream));
            }
            // Out of file descriptors, most likely: let some connections end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, to its end.
async fn converse(shared: Arc<Shared>, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    let (door, latch) = Door::new(stream);
    let caller = Arc::new(Caller { shared: Arc::clone(&shared), latch, upstream: None.into() });
    let service = service_fn(move |request| proxy::answer(Arc::clone(&caller), request));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .preserve_header_case(true)
            .auto_date_header(false)
            // A worker that has said all it has to say may close its half and wait; and the target
            // goes on with a request whose worker is gone, tap or no tap.
            .half_close(true)
            .serve_connection(TokioIo::new(door), service)
    );
    // How it ends is written down by the exchange on it, if one is.
    tokio::select! {
        _ = connection.as_mut() => return,
        () = shared.stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}
