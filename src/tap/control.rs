//! What runs ask of a tap, over the port that it serves on.

use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use super::{
    order::{OrderError, Slot},
    shared::Shared,
};
use crate::{
    micros::Micros,
    post::{FaultOrder, TapHello},
};

/// Paths below this are the tap's own, and are never passed on.
pub(super) const PREFIX: &str = "/_tap/";

/// The most bytes of a body.
const BODY: usize = 64 * 1024;

/// Which order is meant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct OfCell {
    pub(super) run: String,
    pub(super) cell: u32,
}

/// That T0 of a cell comes.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Start {
    pub(super) run: String,
    pub(super) cell: u32,
    /// So long from now.
    pub(super) in_us: Micros,
}

/// What went wrong, in words.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Message {
    pub(super) message: String,
}

type Reply = Response<Full<Bytes>>;

/// A no, and why.
struct Refusal(StatusCode, String);

/// Answers a run.
pub(super) async fn answer(shared: &Arc<Shared>, request: Request<Incoming>) -> Reply {
    if shared.token.is_some_and(|token| !is_known(&token, request.headers())) {
        let why = "this tap wants its token: give the run the same --tap-token-file or SPRINGTIDE_TAP_TOKEN";
        let mut reply = refuse(StatusCode::UNAUTHORIZED, why);
        reply.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return reply;
    }
    act(shared, request).await.unwrap_or_else(|Refusal(status, why)| refuse(status, &why))
}

async fn act(shared: &Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Refusal> {
    let (head, body) = request.into_parts();
    let asked = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
    match (&head.method, asked) {
        (&Method::GET, "hello") => Ok(json(&hello(shared))),
        (&Method::GET, "posts") => posts(shared, &head.uri).await,
        (&Method::GET, "fault") => order(shared, |_, _| Ok(())),
        (&Method::PUT, "fault") => {
            let new: FaultOrder = read(body).await?;
            order(shared, |slot, now| slot.set(new, now))
        }
        (&Method::POST, "fault/start") => {
            let Start { run, cell, in_us } = read(body).await?;
            order(shared, |slot, now| slot.start(&run, cell, now + in_us, now))
        }
        (&Method::POST, "fault/renew") => {
            let OfCell { run, cell } = read(body).await?;
            order(shared, |slot, now| slot.renew(&run, cell, now))
        }
        (&Method::DELETE, "fault") => {
            let run = param(&head.uri, "run").ok_or_else(|| bad("say whose fault: ?run=RUN"))?;
            order(shared, |slot, now| slot.clear(&run, now))
        }
        (_, "hello" | "posts" | "fault" | "fault/start" | "fault/renew") => {
            Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, "not with this method".into()))
        }
        _ => Err(Refusal(StatusCode::NOT_FOUND, "a tap has no such path".into())),
    }
}

fn hello(shared: &Shared) -> TapHello {
    TapHello {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        boot: shared.boot.clone(),
        upstream: shared.upstream.url.clone(),
        buffer: shared.buffer as u64,
        next: shared.log.next(),
    }
}

async fn posts(shared: &Arc<Shared>, uri: &Uri) -> Result<Reply, Refusal> {
    let boot = param(uri, "boot").unwrap_or_default();
    if boot != shared.boot {
        let why = format!("this tap was started anew: its boot is {}, not {boot}", shared.boot);
        return Err(Refusal(StatusCode::CONFLICT, why));
    }
    let from = param(uri, "from").and_then(|from| from.parse().ok());
    let from = from.ok_or_else(|| bad("say from which number on: &from=1"))?;
    // Thousands of posts take milliseconds to write, for which workers must not wait.
    let shared = Arc::clone(shared);
    let write = move || json(&shared.log.since(from, shared.boot.clone(), shared.now()));
    let gone = |_| Refusal(StatusCode::SERVICE_UNAVAILABLE, "the tap is ending".into());
    tokio::task::spawn_blocking(write).await.map_err(gone)
}

fn order(
    shared: &Shared,
    change: impl FnOnce(&mut Slot, Micros) -> Result<(), OrderError>,
) -> Result<Reply, Refusal> {
    shared.order(change).map(|status| json(&status)).map_err(|error| {
        let status = match error {
            OrderError::Taken { .. } => StatusCode::CONFLICT,
            OrderError::Gone => StatusCode::GONE,
            OrderError::Malformed(_) => StatusCode::BAD_REQUEST,
        };
        Refusal(status, error.to_string())
    })
}

fn bad(why: &str) -> Refusal {
    Refusal(StatusCode::BAD_REQUEST, why.to_owned())
}

/// Whether whoever asks has the token. Digests are compared, and all of them: how long that takes
/// tells nothing.
fn is_known(token: &[u8; 32], headers: &HeaderMap) -> bool {
    let given = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
    let (scheme, given) = given.split_at(given.len().min(7));
    let digest = digest(given);
    let differs = token.iter().zip(digest).fold(0, |sum, (a, b)| sum | (a ^ b));
    differs == 0 && scheme.eq_ignore_ascii_case(b"Bearer ")
}

/// What is kept of a token.
pub(super) fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

async fn read<T: DeserializeOwned>(body: Incoming) -> Result<T, Refusal> {
    let too_large =
        |error| Refusal(StatusCode::PAYLOAD_TOO_LARGE, format!("a body of at most {BODY} bytes: {error}"));
    let body = Limited::new(body, BODY).collect().await.map_err(too_large)?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| bad(&error.to_string()))
}

/// A parameter of the query, decoded.
fn param(uri: &Uri, name: &str) -> Option<String> {
    let pairs = uri.query()?.split('&').filter_map(|pair| pair.split_once('='));
    let value = pairs.into_iter().find(|(key, _)| *key == name)?.1;
    let value = percent_encoding::percent_decode_str(value).decode_utf8().ok()?;
    Some(value.into_owned())
}

fn json(value: &impl Serialize) -> Reply {
    match serde_json::to_vec(value) {
        Ok(text) => {
            let mut reply = Response::new(Full::new(Bytes::from(text)));
            reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            reply
        }
        Err(error) => refuse(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

fn refuse(status: StatusCode, why: &str) -> Reply {
    let mut reply = json(&Message { message: why.to_owned() });
    *reply.status_mut() = status;
    reply
}
