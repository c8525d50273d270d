//! The HTTP routes, one file for each group of the contract.

mod account;
mod inputs;
mod poll;
mod posts;
mod results;
mod simulations;
mod submission;
mod submit;

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::{get, post, put};
use hyper::header::CONTENT_TYPE;
use hyper::{HeaderMap, StatusCode};

use super::backend::Backend;
use super::call::Call;
use super::metrics::Format;
use super::reply::{Answer, Reply};

/// Every route of the contract, `/_truth` and `/metrics`.
pub(super) fn router(backend: Arc<Backend>) -> Router {
    Router::new()
        .route("/", get(async || Reply::ok("Hello World!")))
        .route("/_truth", get(truth))
        // Other methods find no such path: the target has none.
        .route("/metrics", get(metrics).fallback(async || Reply::unknown_path()))
        .route("/auth/register", put(account::register))
        .route("/auth/login", post(account::login))
        .route("/auth/refresh", get(account::refresh))
        .route("/auth/status", get(account::status))
        .route("/auth/logout", axum::routing::delete(account::logout))
        .route("/user/update", post(account::update))
        .route("/user/simulations", get(simulations::list).delete(simulations::delete))
        .route("/clusters", get(not_for_users))
        .route("/jobs/batch", get(not_for_users).post(not_for_users).delete(not_for_users))
        .route("/jobs/direct", get(poll::direct).post(submit::submit).delete(poll::cancel))
        .route("/jobs", get(poll::jobs).post(posts::job))
        .route("/tasks", post(posts::task))
        .route("/results", get(results::fetch).post(posts::results))
        .route("/estimators", get(results::estimators))
        .route("/inputs", get(inputs::inputs))
        .route("/logfiles", get(inputs::logfiles).post(posts::logfiles))
        .fallback(async || Reply::unknown_path())
        .method_not_allowed_fallback(async || Reply::wrong_method())
        .with_state(backend)
}

async fn truth(State(backend): State<Arc<Backend>>) -> Reply {
    let body = serde_json::to_vec(&backend.truth()).expect("the truth is plain JSON");
    Reply::json(StatusCode::OK, body)
}

async fn metrics(State(backend): State<Arc<Backend>>, headers: HeaderMap) -> impl IntoResponse {
    let format = Format::wanted(&headers);
    ([(CONTENT_TYPE, format.content_type())], backend.metrics.text(format))
}

async fn not_for_users(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    backend.user(&call)?;
    let text = "User is not allowed to use this endpoint";
    Err(Reply::message(StatusCode::FORBIDDEN, text))
}
