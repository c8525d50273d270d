//! Replies in the two dialects of the contract: the application's and its framework's.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::StatusCode;
use hyper::header::{CONTENT_TYPE, HeaderValue, SET_COOKIE};
use serde_json::{Map, Value};

/// What a handler answers; an `Err` is a reply as well, given early.
pub(super) type Answer = Result<Reply, Reply>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// The body of a 404 for a path that does not exist.
const NOT_FOUND: &str = "<!doctype html>\n<html lang=en>\n<title>404 Not Found</title>\n\
    <h1>Not Found</h1>\n<p>The requested URL was not found on the server.</p>\n";

/// A status, a body and perhaps cookies.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    status: StatusCode,
    kind: HeaderValue,
    body: Bytes,
    cookies: Vec<String>,
}

impl Reply {
    /// The application's reply: `{"message": ..}`, escaped as HTML, and nothing else.
    pub(super) fn message(status: StatusCode, message: &str) -> Self {
        Self::with(status, message, Map::new())
    }

    /// The application's reply with more content at the top level; keys come out sorted.
    pub(super) fn with(status: StatusCode, message: &str, mut content: Map<String, Value>) -> Self {
        content.insert("message".to_owned(), Value::from(escape(message)));
        let mut body = serde_json::to_vec(&content).expect("a map of JSON values is JSON");
        body.push(b'\n');
        Self::json(status, body)
    }

    /// A finished JSON body, newline included.
    pub(super) fn json(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self { status, kind: JSON, body: body.into(), cookies: Vec::new() }
    }

    /// The framework's reply: a space after the colon, and no escaping.
    pub(super) fn framework(status: StatusCode, message: &str) -> Self {
        Self::json(status, format!("{{\"message\": {}}}\n", Value::from(message)))
    }

    pub(super) fn html(status: StatusCode, page: &'static str) -> Self {
        Self { status, kind: HTML, body: Bytes::from_static(page.as_bytes()), cookies: Vec::new() }
    }

    pub(super) fn ok(message: &str) -> Self {
        Self::message(StatusCode::OK, message)
    }

    pub(super) fn accepted(message: &str) -> Self {
        Self::message(StatusCode::ACCEPTED, message)
    }

    pub(super) fn bad_request(message: &str) -> Self {
        Self::message(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: &str) -> Self {
        Self::message(StatusCode::NOT_FOUND, message)
    }

    /// What the target answers when its code raises.
    pub(super) fn server_error() -> Self {
        Self::framework(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
    }

    pub(super) fn unknown_path() -> Self {
        Self::html(StatusCode::NOT_FOUND, NOT_FOUND)
    }

    pub(super) fn wrong_method() -> Self {
        let text = "The method is not allowed for the requested URL.";
        Self::framework(StatusCode::METHOD_NOT_ALLOWED, text)
    }

    pub(super) fn cookie(mut self, cookie: String) -> Self {
        self.cookies.push(cookie);
        self
    }
}

impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(self.body));
        *response.status_mut() = self.status;
        response.headers_mut().insert(CONTENT_TYPE, self.kind);
        for cookie in self.cookies {
            if let Ok(cookie) = HeaderValue::try_from(cookie) {
                response.headers_mut().append(SET_COOKIE, cookie);
            }
        }
        response
    }
}

/// Escapes as Python's `html.escape` does.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#x27;"),
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use hyper::StatusCode;
    use serde_json::json;

    use super::Reply;

    fn text(reply: &Reply) -> &str {
        std::str::from_utf8(&reply.body).unwrap()
    }

    #[test]
    fn the_application_sorts_and_escapes() {
        let reply = Reply::bad_request("Missing keys in JSON payload: {'password'}");
        assert_eq!(text(&reply), "{\"message\":\"Missing keys in JSON payload: {&#x27;password&#x27;}\"}\n");
        let content = json!({"refresh_exp": 2, "access_exp": 1}).as_object().unwrap().clone();
        let reply = Reply::with(StatusCode::ACCEPTED, "Successfully logged in", content);
        assert_eq!(
            text(&reply),
            "{\"access_exp\":1,\"message\":\"Successfully logged in\",\"refresh_exp\":2}\n"
        );
    }

    #[test]
    fn the_framework_leaves_a_space() {
        assert_eq!(text(&Reply::server_error()), "{\"message\": \"Internal Server Error\"}\n");
    }
}
