//! The part of Toxiproxy's HTTP API that is used here, as its 2.x `api.go` has it.
//!
//! Every call has a connection of its own and ends within [`CALL`].

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode, Uri,
    header::{CONNECTION, CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tokio::net::TcpStream;

use super::error::ToxiproxyError;

/// The longest that a call may take.
const CALL: Duration = Duration::from_secs(5);

/// The largest answer that is read.
const ANSWER: usize = 4 << 20;

/// One toxic of a proxy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Toxic {
    pub(super) name: String,
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// `upstream` is from the client to the server.
    pub(super) stream: String,
    /// The share of connections it hits.
    pub(super) toxicity: f64,
    /// By kind; times are in milliseconds.
    pub(super) attributes: Map<String, Value>,
}

impl Toxic {
    /// Whether `found` is what was asked for. Toxiproxy keeps a toxicity in 32 bits, and may have
    /// more attributes than we know.
    pub(super) fn is_like(&self, found: &Self) -> bool {
        let attributes = self.attributes.iter().all(|(key, value)| found.attributes.get(key) == Some(value));
        (&self.name, &self.kind, &self.stream) == (&found.name, &found.kind, &found.stream)
            && (self.toxicity - found.toxicity).abs() < 1e-6
            && attributes
    }
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(super) struct Proxy {
    /// Where it listens, `HOST:PORT`.
    pub(super) listen: String,
    pub(super) enabled: bool,
    #[serde(default)]
    pub(super) toxics: Vec<Toxic>,
}

/// Where the API is.
#[derive(Debug, Clone)]
pub(super) struct Api {
    /// As given, without a trailing slash.
    pub(super) url: String,
    /// The host, an IPv6 address in brackets.
    pub(super) host: String,
    authority: String,
    prefix: String,
}

impl Api {
    /// Reads `http://host:port`.
    pub(super) fn new(url: &str) -> Result<Self, ToxiproxyError> {
        // Whatever stands before an @ may be a password.
        let shown = url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}"));
        let bad = |why: &str| ToxiproxyError::Url { url: shown.clone(), why: why.to_owned() };
        let uri: Uri = url.trim().parse().map_err(|e: hyper::http::uri::InvalidUri| bad(&e.to_string()))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(bad("Toxiproxy's API is plain http")),
            _ => return Err(bad("no http:// in front")),
        }
        let authority = uri.authority().filter(|a| !a.host().is_empty()).ok_or_else(|| bad("no host"))?;
        if authority.as_str().contains('@') {
            return Err(bad("Toxiproxy takes no credentials"));
        }
        if uri.query().is_some() {
            return Err(bad("a query does not belong in it"));
        }
        let has_port = authority.as_str().len() > authority.host().len();
        if has_port && authority.port_u16().is_none_or(|port| port == 0) {
            return Err(bad("its port is no number from 1 to 65535"));
        }
        Ok(Self {
            url: url.trim().trim_end_matches('/').to_owned(),
            host: authority.host().to_owned(),
            authority: format!("{}:{}", authority.host(), authority.port_u16().unwrap_or(80)),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Path of a proxy.
    pub(super) fn path_of(name: &str) -> String {
        format!("/proxies/{}", utf8_percent_encode(name, NON_ALPHANUMERIC))
    }

    /// What it calls itself.
    pub(super) async fn version(&self) -> Result<String, ToxiproxyError> {
        let (call, status, body) = self.send(Method::GET, "/version", None).await?;
        let text = String::from_utf8_lossy(&body).trim().to_owned();
        if status != StatusCode::OK || text.starts_with('<') || text.is_empty() {
            let why = format!("status {}, {} bytes", status.as_u16(), body.len());
            return Err(ToxiproxyError::Strange { url: self.url.clone(), call, why });
        }
        // Before 2.7 it was no JSON.
        let version = serde_json::from_str::<Value>(&text).ok();
        let version = version.as_ref().and_then(|v| v["version"].as_str());
        Ok(version.map_or_else(|| short(&text), short))
    }

    /// Names of all proxies.
    pub(super) async fn names(&self) -> Result<Vec<String>, ToxiproxyError> {
        let all: Map<String, Value> = self.ask(Method::GET, "/proxies", None).await?;
        Ok(all.into_iter().map(|(name, _)| name).collect())
    }

    /// A proxy as it stands.
    pub(super) async fn proxy(&self, name: &str) -> Result<Proxy, ToxiproxyError> {
        self.ask(Method::GET, &Self::path_of(name), None).await
    }

    /// Opens or closes a proxy. POST, which all of 2.x takes; PATCH came with 2.6.
    pub(super) async fn enable(&self, name: &str, enabled: bool) -> Result<(), ToxiproxyError> {
        let body = json!({ "enabled": enabled });
        self.ask::<Value>(Method::POST, &Self::path_of(name), Some(body)).await.map(|_| ())
    }

    /// Adds a toxic.
    pub(super) async fn add(&self, name: &str, toxic: &Toxic) -> Result<(), ToxiproxyError> {
        let path = format!("{}/toxics", Self::path_of(name));
        let body = json!(toxic);
        self.ask::<Value>(Method::POST, &path, Some(body)).await.map(|_| ())
    }

    /// Removes a toxic; one that is not there is removed already.
    pub(super) async fn remove(&self, name: &str, toxic: &str) -> Result<(), ToxiproxyError> {
        let path = format!("{}/toxics/{}", Self::path_of(name), utf8_percent_encode(toxic, NON_ALPHANUMERIC));
        let (call, status, body) = self.send(Method::DELETE, &path, None).await?;
        if status.is_success() || status == StatusCode::NOT_FOUND {
            return Ok(());
        }
        Err(refused(call, status, &body))
    }

    /// A call whose answer is JSON.
    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<T, ToxiproxyError> {
        let (call, status, body) = self.send(method, path, body).await?;
        if !status.is_success() {
            return Err(refused(call, status, &body));
        }
        serde_json::from_slice(&body).map_err(|e| ToxiproxyError::Strange {
            url: self.url.clone(),
            call,
            why: e.to_string(),
        })
    }

    /// One exchange: what was called, and the answer.
    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(String, StatusCode, Bytes), ToxiproxyError> {
        let call = format!("{method} {path}");
        let outcome = tokio::time::timeout(CALL, self.exchange(method, path, body)).await;
        let why = match outcome {
            Ok(Ok((status, body))) => return Ok((call, status, body)),
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("none within {} s", CALL.as_secs()),
        };
        Err(ToxiproxyError::Unreachable { url: self.url.clone(), call, why })
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Option<Value>,
    ) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error + Send + Sync>> {
        let stream = TcpStream::connect(&self.authority).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.prefix))
            .header(HOST, &self.authority)
            .header(USER_AGENT, concat!("springtide/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(Bytes::from(body.map(|b| b.to_string()).unwrap_or_default())))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok((status, Limited::new(response.into_body(), ANSWER).collect().await?.to_bytes()))
        };
        // The connection is driven here, so that giving up closes it.
        let driven = async {
            match connection.await {
                Err(e) => e,
                Ok(()) => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            outcome = exchange => outcome,
            e = driven => Err(e.into()),
        }
    }
}

/// What its error says: `{"error": "…", "status": 404}`, or any text.
fn refused(call: String, status: StatusCode, body: &[u8]) -> ToxiproxyError {
    let said = serde_json::from_slice::<Value>(body).ok();
    let said = said.as_ref().and_then(|v| v["error"].as_str());
    let said = said.map_or_else(|| short(&String::from_utf8_lossy(body)), short);
    ToxiproxyError::Refused { call, status: status.as_u16(), said }
}

/// One line of bounded length.
fn short(text: &str) -> String {
    text.lines().next().unwrap_or_default().chars().take(200).collect()
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{Api, Proxy, Toxic};

    #[rstest]
    #[case("localhost:8474", "no http://")]
    #[case("https://localhost:8474", "plain http")]
    #[case("http://", "--toxiproxy")]
    #[case("http://ann:secret@toxi:8474", "no credentials")]
    #[case("http://toxi:0", "port")]
    #[case("http://toxi:8474/?a=b", "query")]
    fn bad_addresses_are_named_with_the_flag(#[case] url: &str, #[case] says: &str) {
        let said = Api::new(url).unwrap_err().to_string();
        assert!(
            said.contains("--toxiproxy") && said.contains(says) && said.contains("write http://"),
            "{said}"
        );
        assert!(!said.contains("secret"), "{said}");
    }

    #[test]
    fn hosts_and_prefixes_are_kept() {
        let api = Api::new("http://[::1]:8474/toxi/").unwrap();
        assert_eq!((api.host.as_str(), api.authority.as_str()), ("[::1]", "[::1]:8474"));
        assert_eq!((api.prefix.as_str(), api.url.as_str()), ("/toxi", "http://[::1]:8474/toxi"));
        assert_eq!(Api::path_of("my proxy/1"), "/proxies/my%20proxy%2F1");
    }

    #[test]
    fn what_is_read_back_may_have_more_but_nothing_else() {
        let toxic = |value| serde_json::from_value::<Toxic>(value).unwrap();
        let of = |latency: u64, toxicity: f64| {
            toxic(json!({"name": "a", "type": "latency", "stream": "upstream", "toxicity": toxicity,
                "attributes": {"latency": latency, "jitter": 0}}))
        };
        let wanted = toxic(json!({"name": "a", "type": "latency", "stream": "upstream", "toxicity": 0.02,
            "attributes": {"latency": 250}}));
        assert!(wanted.is_like(&of(250, f64::from(0.02_f32))));
        assert!(!wanted.is_like(&of(251, 0.02)) && !wanted.is_like(&of(250, 0.021)));
    }

    #[test]
    fn a_proxy_is_read_as_it_is_documented() {
        let text = r#"{"name":"yaptide","listen":"[::]:8475","upstream":"backend:6000","enabled":true,
            "Logger":{},"toxics":[{"attributes":{"timeout":0},"name":"reset_peer_upstream","type":"reset_peer",
            "stream":"upstream","toxicity":0.5}]}"#;
        let proxy: Proxy = serde_json::from_str(text).unwrap();
        assert_eq!((proxy.listen.as_str(), proxy.enabled, proxy.toxics.len()), ("[::]:8475", true, 1));
    }
}
