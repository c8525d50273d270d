//! The run's way to a tap.

use std::{error::Error, fmt, io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use tokio::{net::TcpStream, time::Instant};

use super::{
    base::Base,
    control::{Message, OfCell, PREFIX, Start},
};
use crate::{
    injection::Canary,
    micros::Micros,
    post::{Batch, CANARY, FaultOrder, FaultStatus, TapHello},
    route::Route,
};

/// How long a tap may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The most bytes of an answer: a full batch is 3 MB.
const ANSWER: usize = 64 << 20;

type Source = Box<dyn Error + Send + Sync>;

/// Why a tap does not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// Not a URL that a tap can have.
    #[error("tap {url:?} is not of the form http://host:port")]
    BadUrl {
        /// The URL given.
        url: String,
    },
    /// No connection, or no answer.
    #[error("tap {url} cannot be reached; start it with springtide tap")]
    Unreachable {
        /// Its URL.
        url: String,
        /// What happened.
        source: Source,
    },
    /// The tap says no.
    #[error("tap refused with {status}: {message}")]
    Refused {
        /// Status of the answer.
        status: u16,
        /// The tap's words.
        message: String,
    },
    /// It is not the tap that it was: what it had recorded is gone.
    #[error("the tap was started anew, and its record before that is gone")]
    Restarted,
    /// Whatever answers there is something else.
    #[error("{url} answers, but is no tap ({why}); give the address of springtide tap, not that of the API")]
    NotATap {
        /// The URL.
        url: String,
        /// What it answered.
        why: String,
    },
}

/// A tap, as a run sees it. Every call has a connection of its own and ends within 5 s.
#[derive(Clone)]
pub struct Link {
    url: String,
    base: Base,
    token: Option<String>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Link {
    /// To the tap at that URL, with its token if it has one.
    ///
    /// # Errors
    /// The URL is not of the form `http://host:port`.
    pub fn new(url: &str, token: Option<String>) -> Result<Self, LinkError> {
        let base = Base::read(url).ok_or_else(|| LinkError::BadUrl { url: url.to_owned() })?;
        Ok(Self { url: url.trim_end_matches('/').to_owned(), base, token })
    }

    /// The tap's base URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// What the tap is.
    ///
    /// # Errors
    /// It cannot be reached, wants another token, or is no tap.
    pub async fn hello(&self) -> Result<TapHello, LinkError> {
        self.call(Method::GET, "hello", None::<&()>).await
    }

    /// Posts from that number on, at most 5,000.
    ///
    /// # Errors
    /// As [`Link::hello`]; [`LinkError::Restarted`] when `boot` is another start of the tap.
    pub async fn posts(&self, boot: &str, from: u64) -> Result<Batch, LinkError> {
        let path = format!("posts?boot={}&from={from}", encoded(boot));
        self.call(Method::GET, &path, None::<&()>).await.map_err(|error| match error {
            LinkError::Refused { status: 409, .. } => LinkError::Restarted,
            other => other,
        })
    }

    /// Puts a fault in place, instead of an earlier one of the same run.
    ///
    /// # Errors
    /// As [`Link::hello`]; refused with 409 while one of another run stands.
    pub async fn set(&self, order: &FaultOrder) -> Result<FaultStatus, LinkError> {
        self.call(Method::PUT, "fault", Some(order)).await
    }

    /// Tells the fault of that cell that T0 is so long from now.
    ///
    /// # Errors
    /// As [`Link::hello`]; refused with 410 when it no longer stands, with 409 when another does.
    pub async fn start(&self, run: &str, cell: u32, r#in: Duration) -> Result<FaultStatus, LinkError> {
        let start = Start { run: run.to_owned(), cell, in_us: r#in.into() };
        self.call(Method::POST, "fault/start", Some(&start)).await
    }

    /// Renews the lease of that cell's fault.
    ///
    /// # Errors
    /// As [`Link::start`].
    pub async fn renew(&self, run: &str, cell: u32) -> Result<FaultStatus, LinkError> {
        self.call(Method::POST, "fault/renew", Some(&OfCell { run: run.to_owned(), cell })).await
    }

    /// Takes the fault of that run away, if there is one.
    ///
    /// # Errors
    /// As [`Link::set`].
    pub async fn clear(&self, run: &str) -> Result<FaultStatus, LinkError> {
        self.call(Method::DELETE, &format!("fault?run={}", encoded(run)), None::<&()>).await
    }

    /// How the fault stands.
    ///
    /// # Errors
    /// As [`Link::hello`].
    pub async fn status(&self) -> Result<FaultStatus, LinkError> {
        self.call(Method::GET, "fault", None::<&()>).await
    }

    /// Sends a canary through the tap to the target.
    pub async fn canary(&self, route: Route, number: u64, timeout: Duration) -> Canary {
        send_canary(Some(&self.base), route, number, timeout).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, LinkError> {
        let not_a_tap = |why: String| LinkError::NotATap { url: self.url.clone(), why };
        let text = body.map(serde_json::to_vec).transpose().map_err(|e| not_a_tap(e.to_string()))?;
        let mut request = Request::builder().method(method);
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let path = format!("{PREFIX}{path}");
        let unreachable = |source| LinkError::Unreachable { url: self.url.clone(), source };
        let late = |_| unreachable(io::Error::new(io::ErrorKind::TimedOut, "no answer in time").into());
        let exchange = exchange(&self.base, request, &path, text.unwrap_or_default().into());
        let (status, body) =
            tokio::time::timeout(TIMEOUT, exchange).await.map_err(late)?.map_err(unreachable)?;
        if status.is_success() {
            return serde_json::from_slice(&body).map_err(|e| not_a_tap(format!("{status}, then {e}")));
        }
        match serde_json::from_slice::<Message>(&body) {
            // An API may well say 404 in the same form.
            Ok(said) if status != StatusCode::NOT_FOUND => {
                Err(LinkError::Refused { status: status.as_u16(), message: said.message })
            }
            _ => Err(not_a_tap(status.to_string())),
        }
    }
}

/// Sends a canary by way of another proxy, given its base URL. One that is malformed is never
/// answered.
pub async fn canary_at(base_url: &str, route: Route, number: u64, timeout: Duration) -> Canary {
    send_canary(Base::read(base_url).as_ref(), route, number, timeout).await
}

async fn send_canary(base: Option<&Base>, route: Route, number: u64, timeout: Duration) -> Canary {
    let began = Instant::now();
    let status = match base {
        Some(base) => {
            let request = Request::builder()
                .method(Method::POST)
                .header(CONTENT_TYPE, "application/json")
                .header(CANARY, number);
            let exchange = exchange(base, request, route.path(), Bytes::from_static(b"{}"));
            tokio::time::timeout(timeout, exchange).await.ok().and_then(Result::ok)
        }
        None => None,
    };
    let took = Micros::from(began.elapsed());
    Canary { number, took, status: status.map(|(status, _)| status.as_u16()) }
}

/// One request over a connection of its own, and its whole answer.
async fn exchange(
    base: &Base,
    request: hyper::http::request::Builder,
    path: &str,
    body: Bytes,
) -> Result<(StatusCode, Bytes), Source> {
    let uri = base.join(path).ok_or_else(|| io::Error::other("no such path can be asked for"))?;
    let stream = TcpStream::connect((base.host.as_str(), base.port)).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = request
        .uri(uri)
        .header(HOST, base.authority())
        .header(CONNECTION, "close")
        .header(CONTENT_LENGTH, body.len())
        .body(Full::new(body))?;
    let answer = async {
        let answer = sender.send_request(request).await?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER).collect().await?;
        Ok((status, body.to_bytes()))
    };
    // The connection is driven here, so that giving up closes it.
    let drive = async {
        match connection.await {
            Err(error) => error,
            Ok(()) => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        answer = answer => answer,
        error = drive => Err(error.into()),
    }
}

fn encoded(text: &str) -> percent_encoding::PercentEncode<'_> {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
}
