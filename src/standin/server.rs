//! The server's own thread: listening, connections, counting, the end.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
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
use super::call::{self, Arrived};
use super::clock::now_us;
use super::gate::{self, Gate};
use super::ledger::{Handover, Side, line_of};
use super::replay::{self, Key};
use super::reply::Reply;
use super::routes;
use crate::post::CANARY;

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
        let context = (Arc::clone(backend), router.clone(), tracker.clone());
        tracker.spawn(converse(context, stream, gate.clone(), stop.clone()));
    }
}

/// One connection, to its end or the gate's closing.
async fn converse(
    (backend, router, tracker): (Arc<Backend>, Router, TaskTracker),
    stream: TcpStream,
    mut gate: watch::Receiver<Gate>,
    stop: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let keep_alive = backend.config.keep_alive;
    let handler = TowerToHyperService::new(router);
    let service =
        service_fn(move |request| answer(Arc::clone(&backend), handler.clone(), tracker.clone(), request));
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
    tracker: TaskTracker,
    mut request: Request<Incoming>,
) -> Result<Response<Handover>, Infallible> {
    let (arrived, arrived_us) = (Instant::now(), now_us());
    let (side, method, path) = line_of(request.method(), request.uri().path());
    // A canary meets what others meet, but is nobody's request.
    let counted = if request.headers().contains_key(CANARY) { Side::Observer } else { side };
    let ticket = backend.ledger.open((counted, method, path), arrived);
    let bug = match side {
        Side::Client => backend.answer_of_a_bug(request.uri().path()),
        Side::Worker | Side::Observer => None,
    };
    if side == Side::Client {
        backend.note_trace(&request);
    }
    request.extensions_mut().insert(Arrived(arrived_us));
    let key = if side == Side::Worker { replay::key_of(path, &request) } else { None };
    let response = match (bug, key) {
        (Some(reply), _) => reply.into_response(),
        (None, Some(key)) => answer_once(backend, handler, tracker, key, request).await,
        (None, None) => {
            let Ok(response) = handler.call(request).await;
            response
        }
    };
    let status: StatusCode = response.status();
    Ok(response.map(|body| ticket.seal(status.as_u16(), body)))
}

/// A post under an idempotency key. Once its body is whole it is carried out to its end, even if
/// the worker hangs up: otherwise it could be half done and not remembered.
async fn answer_once(
    backend: Arc<Backend>,
    handler: TowerToHyperService<Router>,
    tracker: TaskTracker,
    key: Key,
    request: Request<Incoming>,
) -> Response {
    let (head, body) = request.into_parts();
    let body = match call::whole(Body::new(body)).await {
        Ok(body) => body,
        Err(reply) => return reply.into_response(),
    };
    let request = Request::from_parts(head, Body::from(body));
    let carried_out =
        tracker.spawn(async move { backend.memory.once(key, handler.call(request)).await }).await;
    carried_out.unwrap_or_else(|_| Reply::server_error().into_response())
}
