//! The server's own thread: listening, connections, counting, the end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::backend::Backend;
use super::call::Arrived;
use super::clock::now_us;
use super::gate::{self, Gate};
use super::ledger::{Handover, Side, line_of};
use super::routes;

/// Connections that may wait to be accepted: a burst of users must not meet SYN retries.
const BACKLOG: u32 = 4096;

/// How long open connections may take to finish once the server stops.
const GRACE: Duration = Duration::from_millis(500);

/// Opens the port.
pub(super) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Serves until `stop`, then gives what is in work a moment to end.
pub(super) async fn serve(
    backend: Arc<Backend>,
    listener: TcpListener,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let (turn, gate) = watch::channel(Gate::Open);
    let turning = gate::turn(backend.config.bugs.clone(), backend.started, turn);
    let turning = stop.clone().run_until_cancelled_owned(turning);
    tracker.spawn(turning);
    let router = routes::router(Arc::clone(&backend));
    let accepting = accept(&backend, &router, listener, gate, &tracker, &stop);
    stop.run_until_cancelled(accepting).await;
    stop.cancelled().await;
    tracker.close();
    // What is still open then is dropped with the runtime.
    let _ = tokio::time::timeout(GRACE, tracker.wait()).await;
}

/// Accepts until the gate is gone.
async fn accept(
    backend: &Arc<Backend>,
    router: &Router,
    listener: TcpListener,
    mut gate: watch::Receiver<Gate>,
    tracker: &TaskTracker,
    stop: &CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            _ = gate.wait_for(|gate| *gate == Gate::Gone) => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            // Out of file descriptors, most likely: let some connections end first.
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        if *gate.borrow() == Gate::Cutting {
            // A reset instead of an orderly end: closest to a port where nobody listens.
            let _ = stream.set_zero_linger();
            continue;
        }
        let conversation = converse(Arc::clone(backend), router.clone(), stream, gate.clone(), stop.clone());
        tracker.spawn(conversation);
    }
}

/// One connection, to its end or the gate's closing.
async fn converse(
    backend: Arc<Backend>,
    router: Router,
    stream: TcpStream,
    mut gate: watch::Receiver<Gate>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let keep_alive = backend.config.keep_alive;
    let handler = TowerToHyperService::new(router);
    let service = service_fn(move |request| answer(Arc::clone(&backend), handler.clone(), request));
    let mut connection = std::pin::pin!(
        http1::Builder::new()
            .keep_alive(keep_alive)
            .timer(TokioTimer::new())
            .serve_connection(TokioIo::new(stream), service)
    );
    // A connection that breaks is the client's affair; its ticket says so.
    tokio::select! {
        _ = connection.as_mut() => return,
        _ = gate.wait_for(|gate| *gate != Gate::Open) => return,
        () = stop.cancelled() => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = connection.await;
}

/// One request: counted, answered by a bug or a handler, its body timed to the end.
async fn answer(
    backend: Arc<Backend>,
    handler: TowerToHyperService<Router>,
    mut request: Request<Incoming>,
) -> Result<Response<Handover>, Infallible> {
    let (arrived, arrived_us) = (Instant::now(), now_us());
    let line = line_of(request.method(), request.uri().path());
    let ticket = backend.ledger.open(line, arrived);
    let bug = match line.0 {
        Side::Client => backend.answer_of_a_bug(request.uri().path()),
        Side::Worker | Side::Observer => None,
    };
    request.extensions_mut().insert(Arrived(arrived_us));
    let response = match bug {
        Some(reply) => reply.into_response(),
        None => match handler.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        },
    };
    let status: StatusCode = response.status();
    Ok(response.map(|body| ticket.seal(status.as_u16(), body)))
}
