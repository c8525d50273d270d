//! A Toxiproxy for tests: the HTTP API as 2.x documents it, and a TCP proxy with the toxics
//! `latency` and `reset_peer`, drawn once per connection.
//!
//! It has one proxy, [`NAME`]. It can be told to lie, so that reading back has something to find.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::{Path, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
    routing::{any, delete, get},
};
use rand::RngExt;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::Instant,
};

/// The name of its proxy.
pub(crate) const NAME: &str = "yaptide";

/// What it does otherwise than it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// A toxic is kept with half its toxicity.
    HalfToxicity,
    /// A proxy stays as open or closed as it was.
    StaysAsItIs,
    /// A toxic that was removed is still there.
    KeepsToxics,
    /// So many calls are answered with 500.
    Fails(u32),
}

#[derive(Default)]
struct Proxy {
    listen: Option<SocketAddr>,
    enabled: bool,
    toxics: Vec<Value>,
    changes: Vec<String>,
    lie: Option<Lie>,
    /// Ends the listener and every connection, and says when it has.
    close: Option<oneshot::Sender<oneshot::Sender<()>>>,
}

struct Shared {
    upstream: SocketAddr,
    proxy: Mutex<Proxy>,
}

type Fake = State<Arc<Shared>>;

/// A running one; it ends when dropped.
pub(crate) struct FakeToxiproxy {
    /// Base URL of the API.
    pub(crate) api_url: String,
    /// Base URL of its proxy.
    pub(crate) listen_url: String,
    shared: Arc<Shared>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeToxiproxy {
    /// Starts one whose proxy forwards to `upstream`, given as `http://127.0.0.1:PORT`.
    pub(crate) fn start(upstream: &str) -> Self {
        let upstream = upstream.strip_prefix("http://").unwrap().trim_end_matches('/').parse().unwrap();
        let shared = Arc::new(Shared { upstream, proxy: Mutex::default() });
        let (stop, stopped) = oneshot::channel();
        let (ready, started) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let api = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                open(&theirs).await.unwrap();
                ready.send(api.local_addr().unwrap()).unwrap();
                let serving = axum::serve(api, router(theirs));
                tokio::select! { _ = serving => {}, _ = stopped => {} }
            });
        });
        let api = started.recv_timeout(Duration::from_secs(10)).unwrap();
        let listen = shared.proxy.lock().unwrap().listen.unwrap();
        Self {
            api_url: format!("http://{api}"),
            listen_url: format!("http://{listen}"),
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// The toxics there are, as the API shows them.
    pub(crate) fn toxics(&self) -> Vec<Value> {
        self.shared.proxy.lock().unwrap().toxics.clone()
    }

    /// Their names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.toxics().iter().map(|t| t["name"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether its proxy takes connections.
    pub(crate) fn enabled(&self) -> bool {
        self.shared.proxy.lock().unwrap().enabled
    }

    /// Every change that was asked for so far: method, path, body and the status of the answer.
    pub(crate) fn changes(&self) -> Vec<String> {
        self.shared.proxy.lock().unwrap().changes.clone()
    }

    /// From now on it lies.
    pub(crate) fn lie(&self, lie: Option<Lie>) {
        self.shared.proxy.lock().unwrap().lie = lie;
    }

    /// Ends it: neither the API nor the proxy answer any more.
    pub(crate) fn kill(&mut self) {
        // The thread may have ended by itself; there is nothing more to do then.
        let _ = self.stop.take().map(|stop| stop.send(()));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for FakeToxiproxy {
    fn drop(&mut self) {
        self.kill();
    }
}

fn router(shared: Arc<Shared>) -> Router {
    Router::new()
        .route("/version", get(async || "{\"version\": \"2.12.0\"}\n"))
        .route("/proxies", get(index))
        .route("/proxies/{proxy}", any(proxy))
        .route("/proxies/{proxy}/toxics", any(toxics))
        .route("/proxies/{proxy}/toxics/{toxic}", delete(remove).get(show))
        .fallback(async || (StatusCode::NOT_FOUND, "404 page not found\n"))
        .with_state(shared)
}

/// What its errors look like: JSON under the content type of plain text.
fn error(status: StatusCode, message: &str) -> Response {
    (status, format!("{}\n", json!({"error": message, "status": status.as_u16()}))).into_response()
}

fn not_found(name: &str) -> Option<Response> {
    (name != NAME).then(|| error(StatusCode::NOT_FOUND, "proxy not found"))
}

impl Shared {
    fn shown(&self) -> Value {
        let proxy = self.proxy.lock().unwrap();
        let listen = proxy.listen.unwrap().to_string();
        json!({"name": NAME, "listen": listen, "upstream": self.upstream.to_string(),
            "enabled": proxy.enabled, "Logger": {}, "toxics": proxy.toxics})
    }

    /// Writes a change down, and answers it with an error when it is one of those that fail.
    fn fails(&self) -> Option<Response> {
        let mut proxy = self.proxy.lock().unwrap();
        match &mut proxy.lie {
            Some(Lie::Fails(n)) if *n > 0 => {
                *n -= 1;
                Some(error(StatusCode::INTERNAL_SERVER_ERROR, "listen tcp: address already in use"))
            }
            _ => None,
        }
    }

    fn log(&self, method: &Method, uri: &Uri, body: &[u8], answer: Response) -> Response {
        let body = String::from_utf8_lossy(body);
        let line = format!("{method} {uri} {body} {}", answer.status().as_u16());
        self.proxy.lock().unwrap().changes.push(line);
        answer
    }

    fn lies(&self, lie: Lie) -> bool {
        self.proxy.lock().unwrap().lie == Some(lie)
    }
}

async fn index(State(shared): Fake) -> Response {
    json!({ NAME: shared.shown() }).to_string().into_response()
}

async fn proxy(
    State(shared): Fake,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    if let Some(answer) = not_found(&name).or_else(|| shared.fails()) {
        return answer;
    }
    if method == Method::GET {
        return shared.shown().to_string().into_response();
    }
    let answer = update(&shared, &body).await;
    shared.log(&method, &uri, &body, answer)
}

/// POST or PATCH of a proxy; only `enabled` can be changed here.
async fn update(shared: &Arc<Shared>, body: &[u8]) -> Response {
    let asked = serde_json::from_slice::<Value>(body);
    let enabled = match asked.map(|asked| asked.get("enabled").map(Value::as_bool)) {
        Ok(None) => None,
        Ok(Some(Some(enabled))) => Some(enabled),
        Ok(Some(None)) => return error(StatusCode::BAD_REQUEST, "bad request body: json: cannot unmarshal"),
        Err(e) => return error(StatusCode::BAD_REQUEST, &format!("bad request body: {e}")),
    };
    let is = shared.proxy.lock().unwrap().enabled;
    if shared.lies(Lie::StaysAsItIs) {
        return shared.shown().to_string().into_response();
    }
    match enabled {
        Some(true) if !is => {
            if let Err(e) = open(shared).await {
                return error(StatusCode::INTERNAL_SERVER_ERROR, &format!("listen tcp: {e}"));
            }
        }
        Some(false) if is => close(shared).await,
        _ => {}
    }
    shared.shown().to_string().into_response()
}

async fn toxics(
    State(shared): Fake,
    Path(name): Path<String>,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    if let Some(answer) = not_found(&name).or_else(|| shared.fails()) {
        return answer;
    }
    if method == Method::GET {
        return Value::from(shared.proxy.lock().unwrap().toxics.clone()).to_string().into_response();
    }
    let answer = create(&shared, &body);
    shared.log(&method, &uri, &body, answer)
}

fn create(shared: &Shared, body: &[u8]) -> Response {
    let asked: Map<String, Value> = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(e) => return error(StatusCode::BAD_REQUEST, &format!("bad request body: {e}")),
    };
    let text =
        |key: &str, default: &str| asked.get(key).and_then(Value::as_str).unwrap_or(default).to_owned();
    let (kind, stream) = (text("type", ""), text("stream", "downstream"));
    if !["upstream", "downstream"].contains(&stream.as_str()) {
        let message = "stream was invalid, can be either upstream or downstream";
        return error(StatusCode::BAD_REQUEST, message);
    }
    let known: &[&str] = match kind.as_str() {
        "latency" => &["latency", "jitter"],
        "reset_peer" => &["timeout"],
        "bandwidth" => &["rate"],
        _ => return error(StatusCode::BAD_REQUEST, "invalid toxic type"),
    };
    let name = text("name", &format!("{kind}_{stream}"));
    let mut proxy = shared.proxy.lock().unwrap();
    if proxy.toxics.iter().any(|t| t["name"] == name) {
        return error(StatusCode::CONFLICT, "toxic already exists");
    }
    // It keeps the toxicity in 32 bits, and of the attributes those it knows.
    let mut toxicity = asked.get("toxicity").and_then(Value::as_f64).unwrap_or(1.0) as f32;
    if proxy.lie == Some(Lie::HalfToxicity) {
        toxicity /= 2.0;
    }
    let of = |key: &&str| asked.get("attributes").and_then(|a| a[*key].as_i64()).unwrap_or(0);
    let attributes: Map<String, Value> =
        known.iter().map(|key| ((*key).to_owned(), of(key).into())).collect();
    let toxicity: Value = serde_json::from_str(&toxicity.to_string()).unwrap();
    let toxic =
        json!({"attributes": attributes, "name": name, "type": kind, "stream": stream, "toxicity": toxicity});
    proxy.toxics.push(toxic.clone());
    toxic.to_string().into_response()
}

async fn show(State(shared): Fake, Path((name, toxic)): Path<(String, String)>) -> Response {
    if let Some(answer) = not_found(&name).or_else(|| shared.fails()) {
        return answer;
    }
    let proxy = shared.proxy.lock().unwrap();
    let found = proxy.toxics.iter().find(|t| t["name"] == toxic);
    found.map_or_else(
        || error(StatusCode::NOT_FOUND, "toxic not found"),
        |toxic| toxic.to_string().into_response(),
    )
}

async fn remove(
    State(shared): Fake,
    Path((name, toxic)): Path<(String, String)>,
    method: Method,
    uri: Uri,
) -> Response {
    if let Some(answer) = not_found(&name).or_else(|| shared.fails()) {
        return answer;
    }
    let found = {
        let mut proxy = shared.proxy.lock().unwrap();
        let place = proxy.toxics.iter().position(|t| t["name"] == toxic);
        if let Some(place) = place.filter(|_| proxy.lie != Some(Lie::KeepsToxics)) {
            proxy.toxics.remove(place);
        }
        place
    };
    let answer = match found {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => error(StatusCode::NOT_FOUND, "toxic not found"),
    };
    shared.log(&method, &uri, b"", answer)
}

/// Listens, on the same port as before if there was one.
async fn open(shared: &Arc<Shared>) -> std::io::Result<()> {
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
async fn close(shared: &Shared) {
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
