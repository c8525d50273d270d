//! The way to the OTLP endpoint: springtide's own HTTP connection, so that there is TLS, and one
//! idea of what a failed request is.

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hyper::{Method, Uri};
use opentelemetry_http::{HttpClient, HttpError, Request, Response};
use tokio::{runtime::Handle, sync};

use super::OtlpError;
use crate::target::{Client, Origin, Sockets, http::Call, origin::OriginError};

/// A post that takes longer has failed.
pub(super) const TIMEOUT: Duration = Duration::from_secs(3);

/// Where traces go when the address has no path, as the OTLP specification has it.
const PATH: &str = "/v1/traces";

/// A connection to the endpoint that may be used from any thread.
#[derive(Clone)]
pub(super) struct Way {
    url: Arc<str>,
    client: Arc<sync::Mutex<Client>>,
    /// Drives the connection: the SDK posts from a thread of its own, which has no runtime.
    runtime: Handle,
    last: Arc<Mutex<Last>>,
}

/// What the last post came to.
#[derive(Debug, Default)]
struct Last {
    /// Why it failed.
    problem: String,
    answer: Bytes,
}

impl Way {
    /// Reads the address; nothing is sent yet.
    pub(super) fn to(url: &str, runtime: Handle) -> Result<Self, OtlpError> {
        // Whatever stands before an @ may be a password.
        let shown = url.rsplit_once('@').map_or_else(|| url.to_owned(), |(_, host)| format!("…@{host}"));
        let bad = |why: &str| OtlpError::Url { url: shown.clone(), why: why.to_owned() };
        if url.contains('@') {
            return Err(bad("credentials do not belong in the address (use OTEL_EXPORTER_OTLP_HEADERS)"));
        }
        let url = url.trim().trim_end_matches('/');
        if !["http://", "https://"].iter().any(|scheme| url.starts_with(scheme)) {
            return Err(bad("no http:// or https:// in front"));
        }
        let has_path = url.parse::<Uri>().is_ok_and(|uri| uri.path().len() > 1);
        let url = if has_path { url.to_owned() } else { format!("{url}{PATH}") };
        let origin = Origin::new(&url, None).map_err(|e| match e {
            OriginError::Bad { why, .. } => bad(&why),
            other => OtlpError::Origin(other),
        })?;
        let client = Client::new(Arc::new(origin), Arc::new(Sockets::default()), TIMEOUT);
        Ok(Self {
            url: url.into(),
            client: Arc::new(sync::Mutex::new(client)),
            runtime,
            last: Arc::default(),
        })
    }

    /// Where posts go.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Why the last post failed, and the body of its answer.
    pub(super) fn last(&self) -> (String, Bytes) {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        (last.problem.clone(), last.answer.clone())
    }

    fn keep(&self, problem: String, answer: Bytes) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Last { problem, answer };
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[async_trait::async_trait]
impl HttpClient for Way {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = Arc::clone(&self.client);
        let (head, body) = request.into_parts();
        let posted = self.runtime.spawn(async move {
            let call = Call {
                method: Method::POST,
                // All of the path is the origin's prefix.
                path: "",
                cookie: None,
                trace: None,
                headers: Some(&head.headers),
                body,
                safe: false,
            };
            client.lock().await.call(&call).await
        });
        let answer = match posted.await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                self.keep(error.kind.to_string(), Bytes::new());
                return Err(error.kind.into());
            }
            // The runtime is going down.
            Err(gone) => return Err(gone.into()),
        };
        let problem = if (200..300).contains(&answer.status) {
            String::new()
        } else {
            format!("it answers {}", answer.status)
        };
        self.keep(problem, answer.body.clone());
        let mut response = Response::builder().status(answer.status).body(answer.body)?;
        *response.headers_mut() = answer.headers;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("collector:4318", "no http://")]
    #[case("", "no http://")]
    #[case("http://", "no http://")]
    #[case("http://ann:secret@localhost:4318", "OTEL_EXPORTER_OTLP_HEADERS")]
    #[case("http://localhost:4318/v1/traces?key=secret", "a query")]
    #[case("grpc://localhost:4317", "no http://")]
    #[case("http://localhost:99999", "port")]
    #[tokio::test]
    async fn a_bad_address_is_refused_in_one_line(#[case] url: &str, #[case] why: &str) {
        let said = Way::to(url, Handle::current()).unwrap_err().to_string();
        assert!(said.contains(why) && said.contains("write http://HOST:4318"), "{said}");
        assert!(!said.contains('\n') && !said.contains("ann"), "{said}");
    }

    #[rstest]
    #[case("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces")]
    #[case("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces")]
    #[case("http://127.0.0.1:4318/otlp/v1/traces", "http://127.0.0.1:4318/otlp/v1/traces")]
    #[tokio::test]
    async fn a_path_is_added_where_there_is_none(#[case] url: &str, #[case] goes_to: &str) {
        assert_eq!(Way::to(url, Handle::current()).unwrap().url(), goes_to);
    }
}
