//! One post of a worker: a new TCP connection each time, no timeout, as the target's do; sent again
//! only if the stand-in is told to.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::tally::Tally;
use crate::route::Route;
use crate::standin::replay::KEY;
use crate::standin::retries::Retries;

/// Why a post killed its task.
#[derive(Debug, thiserror::Error)]
pub(in crate::standin) enum PostError {
    #[error("no connection for {route}")]
    Connect { route: Route, source: std::io::Error },
    #[error("no reply to {route}")]
    Exchange { route: Route, source: hyper::Error },
    #[error("request for {route} cannot be built")]
    Request { route: Route, source: hyper::http::Error },
    /// The target's workers read every reply as JSON and raise on anything else.
    #[error("reply to {route} is not JSON")]
    NotJson { route: Route, source: serde_json::Error },
}

impl PostError {
    /// Where the post was to go.
    pub(super) fn route(&self) -> Route {
        match *self {
            Self::Connect { route, .. }
            | Self::Exchange { route, .. }
            | Self::Request { route, .. }
            | Self::NotJson { route, .. } => route,
        }
    }
}

/// Where posts go, which can change while the server runs, and what is done when they fail.
#[derive(Debug)]
pub(in crate::standin) struct Poster {
    base: RwLock<Arc<Base>>,
    retries: Retries,
    seed: u64,
    /// Tells the keys of this start from those of another.
    boot: u64,
    posts: AtomicU64,
    tally: Arc<Tally>,
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
    pub(in crate::standin) fn new(url: &str, retries: Retries, seed: u64) -> Option<Self> {
        Some(Self {
            base: RwLock::new(Arc::new(Base::read(url)?)),
            retries,
            seed,
            boot: rand::random(),
            posts: AtomicU64::new(0),
            tally: Arc::default(),
        })
    }

    /// What was posted so far.
    pub(in crate::standin) fn tally(&self) -> &Arc<Tally> {
        &self.tally
    }

    /// Sends what follows to another base; `None` when that is not of the right form.
    pub(in crate::standin) fn redirect(&self, url: &str) -> Option<()> {
        let base = Arc::new(Base::read(url)?);
        *self.base.write().unwrap_or_else(PoisonError::into_inner) = base;
        Some(())
    }

    /// Posts, and posts again as far as the policy goes. A status other than 202 is not an error:
    /// the target's workers log it and go on.
    pub(super) async fn post(&self, route: Route, body: Bytes) -> Result<StatusCode, PostError> {
        let post = self.posts.fetch_add(1, Ordering::Relaxed);
        let key = (self.retries != Retries::None).then(|| format!("{:016x}-{post}", self.boot));
        let mut nth = 0;
        loop {
            self.tally.attempt(route, nth > 0);
            let outcome = self.send(route, body.clone(), key.as_deref()).await;
            if outcome.as_ref().is_ok_and(|status| !status.is_server_error()) {
                return outcome;
            }
            let Some(pause) = self.retries.pause(self.seed, post, nth) else {
                self.tally.give_up(route);
                return outcome;
            };
            tokio::time::sleep(pause).await;
            nth += 1;
        }
    }

    /// Posts once.
    async fn send(&self, route: Route, body: Bytes, key: Option<&str>) -> Result<StatusCode, PostError> {
        let base = Arc::clone(&self.base.read().unwrap_or_else(PoisonError::into_inner));
        let connect = |source| PostError::Connect { route, source };
        let exchange = |source| PostError::Exchange { route, source };
        let stream = TcpStream::connect(&base.authority).await.map_err(connect)?;
        stream.set_nodelay(true).map_err(connect)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(exchange)?;
        let mut request = Request::post(format!("{}{route}", base.prefix))
            .header(HOST, &base.authority)
            .header(CONTENT_TYPE, "application/json")
            .header(CONNECTION, "close");
        if let Some(key) = key {
            request = request.header(KEY, key);
        }
        let request = request.body(Full::new(body)).map_err(|source| PostError::Request { route, source })?;
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
            .map_err(|source| PostError::NotJson { route, source })?;
        if status != StatusCode::ACCEPTED {
            tracing::debug!(%route, status = status.as_u16(), "post was not accepted");
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
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::Instant;

    use super::{Base, PostError, Poster};
    use crate::route::Route;
    use crate::standin::retries::Retries;

    #[tokio::test(start_paused = true)]
    async fn a_post_that_nobody_takes_is_given_up_in_the_end() {
        let gone = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
        let begun = Instant::now();
        for (retries, repeats) in [(Retries::None, 0), (Retries::Exponential, 10)] {
            let poster = Poster::new(&format!("http://{gone}"), retries, 1).unwrap();
            let error = poster.post(Route::Tasks, Bytes::from("{}")).await.unwrap_err();
            assert!(matches!(error, PostError::Connect { route: Route::Tasks, .. }), "{error}");
            let counts = poster.tally().so_far();
            assert_eq!(counts.attempts[&Route::Tasks], 1 + repeats);
            assert_eq!(counts.retries.values().sum::<u64>(), repeats);
            assert_eq!(counts.given_up[&Route::Tasks], 1);
        }
        // Five pauses that double from 100 ms, and five of 3 s.
        let waited = begun.elapsed();
        assert!(
            waited > Duration::from_millis(14_000) && waited < Duration::from_millis(19_000),
            "{waited:?}"
        );
    }

    #[test]
    fn bases_are_plain_http() {
        let base = Base::read("http://127.0.0.1:8475/").unwrap();
        assert_eq!((base.authority.as_str(), base.prefix.as_str()), ("127.0.0.1:8475", ""));
        let base = Base::read("http://tap/api/").unwrap();
        assert_eq!((base.authority.as_str(), base.prefix.as_str()), ("tap:80", "/api"));
        for bad in ["https://x:1", "127.0.0.1:1", "http://", ""] {
            assert!(Poster::new(bad, Retries::None, 1).is_none(), "{bad}");
        }
    }
}
