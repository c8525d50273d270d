//! What was carried out under an idempotency key, so that a repeat is answered and not done again.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Request, StatusCode};
use tokio::sync::OnceCell;

use super::reply::Reply;
use crate::post::REPLAYED;

/// The header with the key.
pub(super) const KEY: &str = "idempotency-key";

/// Keys that are remembered, about 250 bytes each; beyond it the oldest are forgotten.
///
/// They outlive their job: the post that ends it is repeated after its end.
const REMEMBERED: usize = 100_000;

/// A path and the key of a post to it.
pub(super) type Key = (&'static str, String);

/// An answer that was given.
#[derive(Debug)]
struct Given {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

/// All answers given under a key.
#[derive(Debug, Default)]
pub(super) struct Memory {
    known: Mutex<Known>,
    replayed: AtomicU64,
}

#[derive(Debug, Default)]
struct Known {
    answers: HashMap<Key, Arc<OnceCell<Given>>>,
    /// The keys, oldest first.
    order: VecDeque<Key>,
}

impl Known {
    fn of(&mut self, key: Key, most: usize) -> Arc<OnceCell<Given>> {
        if let Some(cell) = self.answers.get(&key) {
            return Arc::clone(cell);
        }
        if self.order.len() >= most
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        let cell = Arc::default();
        self.order.push_back(key.clone());
        self.answers.insert(key, Arc::clone(&cell));
        cell
    }
}

impl Memory {
    /// How many posts were answered from memory.
    pub(super) fn replayed(&self) -> u64 {
        self.replayed.load(Ordering::Relaxed)
    }

    /// Carries a post out, or answers it as the one of the same key was answered; while that one is
    /// in work, waits for it.
    ///
    /// An answer of 5xx is given but not remembered: nothing was done, so the repeat may try.
    pub(super) async fn once<F>(&self, key: Key, carry_out: F) -> Response
    where
        F: Future<Output = Result<Response, Infallible>>,
    {
        let cell = self.known.lock().unwrap_or_else(PoisonError::into_inner).of(key, REMEMBERED);
        let mut is_first = false;
        let given = cell.get_or_try_init(|| {
            is_first = true;
            async {
                let Ok(response) = carry_out.await;
                if response.status().is_server_error() {
                    return Err(response);
                }
                let (head, body) = response.into_parts();
                let body = axum::body::to_bytes(body, usize::MAX).await;
                let body = body.map_err(|_| Reply::server_error().into_response())?;
                Ok(Given { status: head.status, headers: head.headers, body })
            }
        });
        let given = match given.await {
            Ok(given) => given,
            Err(response) => return response,
        };
        let mut response = Response::new(Body::from(given.body.clone()));
        *response.status_mut() = given.status;
        response.headers_mut().clone_from(&given.headers);
        if !is_first {
            self.replayed.fetch_add(1, Ordering::Relaxed);
            response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

/// The key that a post to `path` carries.
pub(super) fn key_of<B>(path: &'static str, request: &Request<B>) -> Option<Key> {
    let key = request.headers().get(KEY)?.to_str().ok()?;
    Some((path, key.to_owned()))
}

#[cfg(test)]
mod tests {
    use axum::response::{IntoResponse, Response};
    use hyper::StatusCode;
    use tokio::sync::Notify;

    use super::{Known, Memory, REPLAYED, Reply};

    fn key(name: &str) -> super::Key {
        ("/tasks", name.to_owned())
    }

    fn is_replay(response: &Response) -> bool {
        response.headers().get(REPLAYED).is_some_and(|value| value == "true")
    }

    #[tokio::test]
    async fn of_two_at_once_one_is_carried_out() {
        let (memory, go) = (Memory::default(), Notify::new());
        let first = memory.once(key("a"), async {
            go.notified().await;
            Ok(Reply::accepted("done").into_response())
        });
        let second = memory.once(key("a"), async { panic!("carried out twice") });
        let (first, second, ()) = tokio::join!(first, second, async { go.notify_one() });
        assert_eq!((first.status(), second.status()), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
        assert_eq!((is_replay(&first), is_replay(&second), memory.replayed()), (false, true, 1));
        assert_eq!(first.headers()["content-type"], second.headers()["content-type"]);
    }

    #[tokio::test]
    async fn what_failed_may_be_tried_again() {
        let memory = Memory::default();
        let failed = memory.once(key("a"), async { Ok(Reply::server_error().into_response()) }).await;
        assert_eq!(failed.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let done = memory.once(key("a"), async { Ok(Reply::accepted("done").into_response()) }).await;
        assert_eq!((done.status(), is_replay(&done)), (StatusCode::ACCEPTED, false));
        let refused = |text| async move { Ok(Reply::bad_request(text).into_response()) };
        memory.once(key("b"), refused("no")).await;
        let again = memory.once(key("b"), refused("another")).await;
        assert!(again.status() == StatusCode::BAD_REQUEST && is_replay(&again));
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut known = Known::default();
        let first = known.of(key("a"), 2);
        known.of(key("b"), 2);
        assert!(std::sync::Arc::ptr_eq(&first, &known.of(key("a"), 2)));
        known.of(key("c"), 2);
        assert!(!known.answers.contains_key(&key("a")));
        assert_eq!((known.answers.len(), known.order.len()), (2, 2));
    }
}
