//! A Toxiproxy for tests: the HTTP API as 2.x documents it, and a TCP proxy with the toxics
//! `latency` and `reset_peer`, drawn once per connection.
//!
//! It has one proxy, [`NAME`]. It can be told to lie, so that reading back has something to find.

mod link;

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
use serde_json::{Map, Value, json};
use tokio::{net::TcpListener, sync::oneshot};

use link::{close, open};

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

    /// The answer to a call that is to fail.
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

    /// Writes down what was asked for, and passes the answer on.
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
