//! Serves the page: `GET /metrics`, and nothing else.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use super::Metrics;
use crate::{target::url_of, telemetry::scrape::text::Format};

/// How long a question may take to come.
const HEAD: Duration = Duration::from_secs(5);

/// Why the page cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum LiveError {
    /// The address cannot be listened on.
    #[error("cannot listen on {addr}: {source}; choose another port, or 0 for a free one")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
}

/// A page that is being served, until this is dropped.
#[derive(Debug)]
pub struct Server {
    addr: SocketAddr,
    stop: CancellationToken,
}

/// An open port that nobody answers at yet.
#[derive(Debug)]
pub struct Door {
    listener: TcpListener,
    addr: SocketAddr,
}

impl Server {
    /// Opens the port, so that what is wrong with it is known before anything starts.
    ///
    /// # Errors
    /// When the address is taken or none of this machine.
    pub async fn open(addr: SocketAddr) -> Result<Door, LiveError> {
        let failed = |source| LiveError::Listen { addr, source };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Door { listener, addr })
    }

    /// Where the page is.
    pub fn url(&self) -> String {
        format!("{}/metrics", url_of(self.addr))
    }
}

impl Door {
    /// Answers from now on, on the runtime of the caller.
    pub fn serve(self, metrics: Arc<Metrics>) -> Server {
        let Self { listener, addr } = self;
        let stop = CancellationToken::new();
        let accepting = accept(listener, metrics, stop.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(accepting));
        Server { addr, stop }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn accept(listener: TcpListener, metrics: Arc<Metrics>, stop: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let conversation = converse(stream, Arc::clone(&metrics));
                tokio::spawn(stop.clone().run_until_cancelled_owned(conversation));
            }
            // Out of file descriptors, most likely: let some connections end first.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// One connection, to its end.
async fn converse(stream: TcpStream, metrics: Arc<Metrics>) {
    let service = service_fn(|request: Request<Incoming>| {
        let answer = answer(&request, &metrics);
        async { Ok::<_, Infallible>(answer) }
    });
    // How it ends is the reader's affair.
    let _ = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let said = |status, text: &'static str| {
        let mut response = Response::new(Full::from(text));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return said(StatusCode::NOT_FOUND, "springtide's live figures are at /metrics\n");
    }
    // Hyper leaves the body of an answer to HEAD out.
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = said(StatusCode::METHOD_NOT_ALLOWED, "");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    let accepts = request.headers().get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let (format, kind) = match wanted(accepts) {
        Format::OpenMetrics => {
            (Format::OpenMetrics, "application/openmetrics-text; version=1.0.0; charset=utf-8")
        }
        Format::Classic => (Format::Classic, "text/plain; version=0.0.4; charset=utf-8"),
    };
    let mut response = Response::new(Full::from(metrics.render(format)));
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

/// OpenMetrics for who asks for it by name and does not like plain text better.
fn wanted<'a>(accepts: impl Iterator<Item = &'a str>) -> Format {
    let (mut open, mut plain) = (0.0_f32, 0.0_f32);
    for range in accepts.flat_map(|line| line.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let q = parts.find_map(|p| p.strip_prefix("q=")).and_then(|q| q.parse().ok()).unwrap_or(1.0);
        match kind.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" => open = open.max(q),
            "text/plain" => plain = plain.max(q),
            _ => {}
        }
    }
    if open > 0.0 && open >= plain { Format::OpenMetrics } else { Format::Classic }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::nothing("", Format::Classic)]
    #[case::a_browser("text/html,application/xhtml+xml,*/*;q=0.8", Format::Classic)]
    #[case::prometheus(
        "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
        Format::OpenMetrics
    )]
    #[case::plain_rather("application/openmetrics-text;q=0.2,text/plain", Format::Classic)]
    #[case::refused("application/openmetrics-text;q=0", Format::Classic)]
    fn the_format_is_what_was_asked_for(#[case] accept: &str, #[case] format: Format) {
        assert_eq!(wanted([accept].into_iter()), format);
    }
}
