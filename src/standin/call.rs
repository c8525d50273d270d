//! One request as the handlers see it: query, cookies and body, checked as the contract does.

use axum::body::Body;
use axum::extract::{FromRequest, Query, Request};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{COOKIE, HeaderValue};
use serde_json::{Map, Value};

use super::clock::now_us;
use super::reply::Reply;
use super::traced::TRACEPARENT;

/// Bodies above this are refused, as the target's proxy does.
const BODY_LIMIT: usize = 100 * 1024 * 1024;

/// When the head of the request arrived, in unix microseconds; put there by the server loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived(pub(super) u64);

/// A request, read to its end.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) arrived_us: u64,
    pub(super) body: Bytes,
    /// The header by that name, to be noted with the job that the request makes.
    pub(super) traceparent: Option<HeaderValue>,
    query: Vec<(String, String)>,
    cookies: String,
}

impl<S: Send + Sync> FromRequest<S> for Call {
    type Rejection = Reply;

    async fn from_request(request: Request, _: &S) -> Result<Self, Reply> {
        let (head, body) = request.into_parts();
        let query = Query::try_from_uri(&head.uri).map(|Query(pairs)| pairs).unwrap_or_default();
        let cookies: Vec<&str> =
            head.headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).collect();
        let cookies = cookies.join("; ");
        let arrived_us = head.extensions.get::<Arrived>().map_or_else(now_us, |arrived| arrived.0);
        let body = whole(body).await?;
        let traceparent = head.headers.get(TRACEPARENT).cloned();
        Ok(Self { arrived_us, body, traceparent, query, cookies })
    }
}

/// A body, read to its end.
pub(super) async fn whole(body: Body) -> Result<Bytes, Reply> {
    axum::body::to_bytes(body, BODY_LIMIT).await.map_err(|_| {
        let text = "The data value transmitted exceeds the capacity limit.";
        Reply::framework(StatusCode::PAYLOAD_TOO_LARGE, text)
    })
}

impl Call {
    /// The value of a cookie; an empty one counts as absent.
    pub(super) fn cookie(&self, name: &str) -> Option<&str> {
        self.cookies
            .split(';')
            .filter_map(|pair| pair.trim().split_once('='))
            .find(|(key, value)| *key == name && !value.is_empty())
            .map(|(_, value)| value)
    }

    /// The value of a query parameter, the first one if repeated.
    pub(super) fn param(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Whether some parameter is not among these.
    pub(super) fn unknown_param(&self, known: &[&str]) -> Option<&str> {
        self.query.iter().map(|(key, _)| key.as_str()).find(|key| !known.contains(key))
    }

    /// Refuses parameters that are not among these.
    pub(super) fn only_params(&self, known: &[&str]) -> Result<(), Reply> {
        let Some(unknown) = self.unknown_param(known) else {
            return Ok(());
        };
        let content = Map::from_iter([(unknown.to_owned(), Value::from(vec!["Unknown field."]))]);
        Err(Reply::with(StatusCode::BAD_REQUEST, "Wrong parameters", content))
    }

    /// The `job_id`; without one the target raises.
    pub(super) fn job_id(&self) -> Result<&str, Reply> {
        self.param("job_id").ok_or_else(Reply::server_error)
    }

    /// The body as a JSON object, whatever its content type says.
    pub(super) fn object(&self) -> Result<Map<String, Value>, Reply> {
        match serde_json::from_slice(&self.body) {
            Ok(Value::Object(object)) => Ok(object),
            Ok(_) => Err(Reply::server_error()),
            Err(_) => Err(not_json()),
        }
    }

    /// The same, but an empty object is none.
    pub(super) fn filled_object(&self) -> Result<Map<String, Value>, Reply> {
        let object = self.object()?;
        if object.is_empty() { Err(Reply::bad_request("No JSON in body")) } else { Ok(object) }
    }
}

/// The reply to a body that is no JSON.
pub(super) fn not_json() -> Reply {
    let text = "The browser (or proxy) sent a request that this server could not understand.";
    Reply::framework(StatusCode::BAD_REQUEST, text)
}

/// Refuses an object that lacks one of these keys.
pub(super) fn require_keys(object: &Map<String, Value>, keys: &[&str]) -> Result<(), Reply> {
    let missing: Vec<String> =
        keys.iter().filter(|key| !object.contains_key(**key)).map(|key| format!("'{key}'")).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Reply::bad_request(&format!("Missing keys in JSON payload: {{{}}}", missing.join(", "))))
}
