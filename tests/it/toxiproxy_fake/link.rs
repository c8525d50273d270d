//! The fake's port and the connections through it.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use rand::RngExt;
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

use super::Shared;

/// Listens, on the same port as before if there was one.
pub(super) async fn open(shared: &Arc<Shared>) -> std::io::Result<()> {
    let before = shared.proxy.lock().unwrap().listen;
    let listener = TcpListener::bind(before.unwrap_or((Ipv4Addr::LOCALHOST, 0).into())).await?;
    let (close, closing) = oneshot::channel::<oneshot::Sender<()>>();
    {
        let mut proxy = shared.proxy.lock().unwrap();
        proxy.listen = Some(listener.local_addr()?);
        (proxy.enabled, proxy.close) = (true, Some(close));
    }
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let mut connections = JoinSet::new();
        let accepting = async {
            while let Ok((client, _)) = listener.accept().await {
                connections.spawn(link(Arc::clone(&shared), client));
            }
        };
        let closed = tokio::select! { closed = closing => closed.ok(), () = accepting => None };
        drop(listener);
        connections.shutdown().await;
        // Nobody waits for it when the whole thing ends.
        let _ = closed.map(|closed| closed.send(()));
    });
    Ok(())
}

/// Closes the port and every connection.
pub(super) async fn close(shared: &Shared) {
    let close = {
        let mut proxy = shared.proxy.lock().unwrap();
        proxy.enabled = false;
        proxy.close.take()
    };
    let (done, closed) = oneshot::channel();
    if close.is_some_and(|close| close.send(done).is_ok()) {
        let _ = closed.await;
    }
}

/// One connection, with a draw for each toxic. It ends as a whole when either side does.
///
/// It keeps the toxics it began with; the original would give it later ones as well.
async fn link(shared: Arc<Shared>, mut client: TcpStream) {
    let Ok(mut server) = TcpStream::connect(shared.upstream).await else { return };
    let toxics = shared.proxy.lock().unwrap().toxics.clone();
    // As in the original, whoever comes while there is a reset_peer is reset, hit or not.
    if toxics.iter().any(|t| t["type"] == "reset_peer") {
        client.set_zero_linger().unwrap();
        server.set_zero_linger().unwrap();
    }
    let hit = |stream: &str| -> Vec<Value> {
        let mut rng = rand::rng();
        let of_stream = toxics.iter().filter(|t| t["stream"] == stream);
        of_stream.filter(|t| rng.random::<f64>() < t["toxicity"].as_f64().unwrap()).cloned().collect()
    };
    let (up, down) = (hit("upstream"), hit("downstream"));
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::select! {
        () = carry(from_client, to_server, &up) => {}
        () = carry(from_server, to_client, &down) => {}
    }
}

/// Carries one direction to its end.
async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, toxics: &[Value]) {
    let of = |kind: &str, figure: &str| {
        let toxic = toxics.iter().find(|t| t["type"] == kind);
        toxic.map(|t| t["attributes"][figure].as_i64().unwrap())
    };
    let (latency, reset) = (of("latency", "latency"), of("reset_peer", "timeout"));
    let jitter = of("latency", "jitter").unwrap_or(0);
    let (pieces, mut queue) = mpsc::channel(1024);
    let read = async move {
        let mut piece = vec![0; 32 * 1024];
        while let Ok(n) = from.read(&mut piece).await {
            if n == 0 || pieces.send((Instant::now(), piece[..n].to_vec())).await.is_err() {
                break;
            }
        }
    };
    let write = async move {
        while let Some((read_at, piece)) = queue.recv().await {
            if let Some(latency) = latency {
                let jitter = if jitter > 0 { rand::rng().random_range(-jitter..jitter) } else { 0 };
                let delay = Duration::from_millis(u64::try_from(latency + jitter).unwrap_or(0));
                tokio::time::sleep_until(read_at + delay).await;
            }
            if let Some(timeout) = reset {
                tokio::time::sleep(Duration::from_millis(u64::try_from(timeout).unwrap_or(0))).await;
                return;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    };
    // Writing ends it; reading to the end does not, for there may be pieces on the way.
    let read_on = async {
        read.await;
        std::future::pending().await
    };
    tokio::select! {
        () = write => {}
        () = read_on => {}
    }
}
