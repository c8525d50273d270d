//! One post of a worker: a new TCP connection, no retry, no timeout, as the target's do.

use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// Why a post killed its task.
#[derive(Debug, thiserror::Error)]
pub(in crate::standin) enum PostError {
    #[error("no connection for {path}")]
    Connect { path: &'static str, source: std::io::Error },
    #[error("no reply to {path}")]
    Exchange { path: &'static str, source: hyper::Error },
    #[error("request for {path} cannot be built")]
    Request { path: &'static str, source: hyper::http::Error },
    /// The target's workers read every reply as JSON and raise on anything else.
    #[error("reply to {path} is not JSON")]
    NotJson { path: &'static str, source: serde_json::Error },
}

/// Where posts go; it can change while the server runs.
#[derive(Debug)]
pub(in crate::standin) struct Poster {
    base: RwLock<Arc<Base>>,
}

#[derive(Debug)]
struct Base {
    authority: String,
    prefix: String,
}

impl Base {
    /// Reads `http://host:port[/prefix]`; `None` for anything else.
    fn read(url: &str) -> Option<Self> {
        let uri: Uri = url.trim_end_matches('/').parse().ok()?;
        if uri.scheme_str() != Some("http") || uri.query().is_some() {
            return None;
        }
        let authority = uri.authority()?;
        let port = authority.port_u16().unwrap_or(80);
        Some(Self {
            authority: format!("{}:{port}", authority.host()),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl Poster {
    /// `None` when the URL is not of the form `http://host:port`.
    pub(in crate::standin) fn new(url: &str) -> Option<Self> {
        Some(Self { base: RwLock::new(Arc::new(Base::read(url)?)) })
    }

    /// Sends what follows to another base; `None` when that is not of the right form.
    pub(in crate::standin) fn redirect(&self, url: &str) -> Option<()> {
        let base = Arc::new(Base::read(url)?);
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = base;
        Some(())
    }

    /// Posts once. A status other than 202 is not an error: the target's workers log it
    /// and go on.
    pub(super) async fn post(&self, path: &'static str, body: Bytes) -> Result<StatusCode, PostError> {
        let base = Arc::clone(&self.base.read().unwrap_or_else(PoisonError::into_inner));
        let connect = |source| PostError::Connect { path, source };
        let exchange = |source| PostError::Exchange { path, source };
        let stream = TcpStream::connect(&base.authority).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
        let request = Request::post(format!("{}{path}", base.prefix))
            .header(HOST, &base.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|source| PostError::Request { path, source })?;
        let reply = async {
            let response = sender.send_request(request).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        // The connection is driven here, so that dropping the post closes it.
        let (status, body) = tokio::select! {
            biased;
            reply = reply => reply.map_err(exchange)?,
            error = drive(connection) => return Err(exchange(error)),
        };
        serde_json::from_slice::<serde::de::IgnoredAny>(&body)
            .map_err(|source| PostError::NotJson { path, source })?;
        if status != StatusCode::ACCEPTED {
            tracing::debug!(path, status = status.as_u16(), "post was not accepted");
        }
        Ok(status)
    }
}

/// Drives the connection; returns only if it breaks.
async fn drive<C>(connection: C) -> hyper::Error
where
    C: Future<Output = Result<(), hyper::Error>>,
{
    match connection.await {
        Err(error) => error,
        Ok(()) => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::{Base, Poster};

    #[test]
    fn bases_are_plain_http() {
        let base = Base::read("http://127.0.0.1:8475/").unwrap();
        assert_eq!((base.authority.as_str(), base.prefix.as_str()), ("127.0.0.1:8475", ""));
        let base = Base::read("http://tap/api/").unwrap();
        assert_eq!((base.authority.as_str(), base.prefix.as_str()), ("tap:80", "/api"));
        for bad in ["https://x:1", "127.0.0.1:1", "http://", ""] {
            assert!(Poster::new(bad).is_none(), "{bad}");
        }
    }
}
