//! One request on its way through the tap, and what a fault makes of it.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode, Version,
    body::{Body, Incoming},
    header::{
        CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderValue, TRANSFER_ENCODING,
    },
    http::request,
};

use super::{
    answer::{Answer, Passed},
    control,
    door::Latch,
    exchange::{Exchange, Reader},
    passage::Passage,
    shared::{Decision, Shared},
    upstream::Sender,
};
use crate::{
    fault::Fate,
    post::{CANARY, REPLAYED},
    route::Route,
};

/// Why a connection ends without an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Cut {
    #[error("a fault cut the connection")]
    Fault,
    #[error("the request broke off")]
    Request,
}

/// A worker's connection.
#[derive(Debug)]
pub(super) struct Caller {
    pub(super) shared: Arc<Shared>,
    pub(super) latch: Latch,
    /// Its own connection to the target, while no request is on it.
    pub(super) upstream: Mutex<Option<Sender>>,
}

/// Answers one request.
///
/// # Errors
/// When the connection is to end instead.
pub(super) async fn answer(caller: Arc<Caller>, request: Request<Incoming>) -> Result<Response<Answer>, Cut> {
    let shared = &caller.shared;
    if request.uri().path().starts_with(control::PREFIX) {
        return Ok(control::answer(shared, request).await.map(Answer::Own));
    }
    if let Some(what) = ambiguity(request.headers()) {
        // The rest of it is read, so that the answer arrives, and taken for nobody's request.
        drop(caller.open(request, None));
        let mut answer = words(StatusCode::BAD_REQUEST, what);
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        return Ok(answer);
    }
    let route = Some(request.uri().path()).filter(|_| *request.method() == Method::POST);
    let Some(route) = route.and_then(Route::of_path) else {
        return caller.pass(request, None).await;
    };
    let canary = canary(request.headers());
    let Decision { received, fate, held_until } = shared.decide(route, canary);
    let exchange = Exchange::begin(shared, route, canary, fate, received);
    match fate {
        Fate::Pass => caller.pass(request, Some(exchange)).await,
        Fate::Delay(time) => {
            let hold = tokio::time::sleep(time.into());
            match held_until {
                Some(end) => drop(end.run_until_cancelled(hold).await),
                None => hold.await,
            }
            caller.pass(request, Some(exchange)).await
        }
        Fate::DropRequest | Fate::Refuse => {
            let (_, mut body) = caller.open(request, Some(&exchange));
            if body.read_out().await {
                exchange.faulted();
            }
            Err(caller.slam())
        }
        Fate::DropAnswer => {
            let (head, body) = caller.open(request, Some(&exchange));
            if let Ok(answer) = caller.send(&head, body, Some(&exchange)).await {
                let answer = Passed::new(answer, &Method::HEAD, Some(exchange.clone()), caller.latch.clone());
                answer.into_body().read_out().await;
                exchange.faulted();
            }
            Err(caller.slam())
        }
    }
}

/// The number of a canary; `None` for everything else.
fn canary(headers: &HeaderMap) -> Option<u64> {
    headers.get(CANARY)?.to_str().ok()?.trim().parse().ok()
}

/// What in a head could be read in two ways, by the tap in one and by the target in the other.
fn ambiguity(headers: &HeaderMap) -> Option<&'static str> {
    let mut codings = headers.get_all(TRANSFER_ENCODING).into_iter();
    let is_chunked = |line: &HeaderValue| line.as_bytes().trim_ascii().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|first| !is_chunked(first) || codings.next().is_some()) {
        return Some("the only transfer coding that it knows is chunked, once");
    }
    // RFC 9112 section 3.2: more than one is an error, be they equal.
    (headers.get_all(HOST).into_iter().count() > 1).then_some("a request has one Host")
}

/// Whether `Connection: upgrade` is there, among others or alone.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let options = headers.get_all(CONNECTION).into_iter().filter_map(|line| line.to_str().ok());
    options.flat_map(|line| line.split(',')).any(|option| option.trim().eq_ignore_ascii_case("upgrade"))
}

/// Why the target gave no answer.
#[derive(Debug)]
enum NoAnswer {
    /// The request itself broke off.
    Request,
    /// It cannot be forwarded.
    Target,
    /// The words of whoever found out.
    Why(String),
}

impl Caller {
    /// Passes a request on and its answer back.
    async fn pass(
        &self,
        request: Request<Incoming>,
        exchange: Option<Arc<Exchange>>,
    ) -> Result<Response<Answer>, Cut> {
        let (head, body) = self.open(request, exchange.as_ref());
        match self.send(&head, body, exchange.as_ref()).await {
            Ok(mut answer) => {
                if answer.headers().contains_key(TRANSFER_ENCODING) {
                    // RFC 9112 section 6.3: the length is then none.
                    answer.headers_mut().remove(CONTENT_LENGTH);
                } else if !answer.headers().contains_key(CONTENT_LENGTH) && !answer.body().is_end_stream() {
                    // Ended by the end of the connection: as it is in HTTP/1.0, and stays so.
                    *answer.version_mut() = Version::HTTP_10;
                }
                Ok(Passed::new(answer, &head.method, exchange, self.latch.clone()).map(Answer::Passed))
            }
            Err(NoAnswer::Request) => Err(Cut::Request),
            Err(NoAnswer::Target) => Ok(words(
                StatusCode::NOT_IMPLEMENTED,
                "it passes on neither CONNECT nor a change of protocol",
            )),
            Err(NoAnswer::Why(why)) => {
                let why = format!("no answer from {}: {why}", self.shared.upstream.url);
                self.shared.target_failed(&why);
                Ok(words(StatusCode::BAD_GATEWAY, &why))
            }
        }
    }

    fn open(
        &self,
        request: Request<Incoming>,
        exchange: Option<&Arc<Exchange>>,
    ) -> (request::Parts, Passage) {
        let (head, body) = request.into_parts();
        let reader = exchange.map(|exchange| Reader::new(Arc::clone(exchange)));
        let is_expecting = head.headers.contains_key(EXPECT);
        (head, Passage::new(body, reader, &self.shared.tasks, is_expecting))
    }

    /// Sends a request to the target and returns the head of its answer.
    async fn send(
        &self,
        head: &request::Parts,
        body: Passage,
        exchange: Option<&Arc<Exchange>>,
    ) -> Result<Response<Incoming>, NoAnswer> {
        let target = self.shared.upstream.base.target_of(&head.uri);
        // Both would make a tunnel of the connection, in which no post is known from another.
        let is_tunnel = head.method == Method::CONNECT || asks_for_upgrade(&head.headers);
        let Some(target) = target.filter(|_| !is_tunnel) else {
            return Err(NoAnswer::Target);
        };
        let mut request = Request::new(body);
        *request.method_mut() = head.method.clone();
        *request.uri_mut() = target;
        *request.version_mut() = head.version;
        *request.headers_mut() = head.headers.clone();
        // The names as they were written.
        *request.extensions_mut() = head.extensions.clone();
        loop {
            let (mut sender, is_new) = self.sender().await?;
            if let Some(exchange) = exchange {
                exchange.forwarded();
            }
            let mut error = match sender.try_send_request(request).await {
                Ok(answer) if answer.status() == StatusCode::SWITCHING_PROTOCOLS => {
                    return Err(NoAnswer::Why("it changed the protocol, and nobody had asked".into()));
                }
                Ok(answer) => {
                    let is_replay = answer.headers().contains_key(REPLAYED);
                    if let Some(exchange) = exchange {
                        exchange.answered(answer.status().as_u16(), is_replay);
                    }
                    self.shared.target_answered();
                    *self.upstream.lock().unwrap_or_else(PoisonError::into_inner) = Some(sender);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            let unsent = error.take_message();
            let error = error.into_error();
            match unsent {
                // The target had closed the connection before a byte was sent.
                Some(again) if !is_new => request = again,
                _ if error.is_user() => return Err(NoAnswer::Request),
                _ => return Err(NoAnswer::Why(whole(&error))),
            }
        }
    }

    /// A connection to the target that is free, and whether it is a new one.
    async fn sender(&self) -> Result<(Sender, bool), NoAnswer> {
        let kept = self.upstream.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            return Ok((sender, false));
        }
        let connected = self.shared.upstream.connect(&self.shared.tasks).await;
        connected.map(|sender| (sender, true)).map_err(|error| NoAnswer::Why(whole(&error)))
    }

    /// The connection is reset as soon as this is returned.
    fn slam(&self) -> Cut {
        self.latch.reset();
        Cut::Fault
    }
}

/// An error and its causes.
fn whole(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// An answer of the tap's own, which is no JSON on purpose: the target's workers fail on it as they
/// do when nobody listens.
fn words(status: StatusCode, what: &str) -> Response<Answer> {
    let text = format!("springtide tap: {what}\n");
    let mut answer = Response::new(Answer::Own(Full::new(Bytes::from(text))));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    answer
}
