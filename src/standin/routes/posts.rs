//! What workers post: `/tasks`, `/jobs`, `/results`, `/logfiles`, each under an update key.

use std::sync::Arc;

use axum::extract::State;
use bytes::Bytes;
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::standin::backend::Backend;
use crate::standin::bug::Flaw;
use crate::standin::call::{Call, not_json, require_keys};
use crate::standin::clock::from_post;
use crate::standin::job::State as JobRowState;
use crate::standin::metrics::Payload;
use crate::standin::reply::{Answer, Reply};
use crate::standin::stored::Posted;
use crate::timeline::JobState;

const TASK_KEYS: [&str; 4] = ["simulation_id", "task_id", "update_key", "update_dict"];

pub(super) async fn task(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    backend.metrics.payload(Payload::TaskPost, call.body.len());
    let mut body = call.filled_object()?;
    require_keys(&body, &TASK_KEYS)?;
    if body.len() > TASK_KEYS.len() {
        return Err(Reply::bad_request("Missing keys in JSON payload: set()"));
    }
    let pk = body["simulation_id"].as_u64().ok_or_else(Reply::server_error)?;
    if backend.store().by_pk(pk).is_none() {
        return Err(Reply::bad_request(&format!("Simulation {pk} does not exist")));
    }
    backend.check_key(&body["update_key"], pk)?;
    let index = body["task_id"].as_i64().ok_or_else(Reply::server_error)?;
    let Some(Value::Object(update)) = body.remove("update_dict") else {
        return Err(Reply::server_error());
    };
    let mut store = backend.store();
    let gone = || Reply::bad_request(&format!("Task {index} does not exist"));
    let place = usize::try_from(index).map_err(|_| gone())?;
    let applied = store.update_task(pk, place, update).ok_or_else(gone)?;
    applied.map_err(|_| Reply::server_error())?;
    let job = store.by_pk(pk).ok_or_else(gone)?;
    // The healthy way to fail needs no lucky poll.
    let failed = job.has(Flaw::AllFailed) && job.tasks.iter().all(|t| t.state.is(JobState::Failed));
    if failed {
        store.enter(pk, JobRowState::Known(JobState::Failed));
    }
    Ok(Reply::accepted("Task updated"))
}

pub(super) async fn job(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    backend.metrics.payload(Payload::JobPost, call.body.len());
    let body = call.object()?;
    let pk = body.get("sim_id").and_then(Value::as_u64).ok_or_else(Reply::server_error)?;
    if backend.store().by_pk(pk).is_none() {
        let text = format!("Simulation {pk} does not exist");
        return Err(Reply::message(StatusCode::NOT_IMPLEMENTED, &text));
    }
    backend.check_key(body.get("update_key").ok_or_else(Reply::server_error)?, pk)?;
    let state = body.get("job_state").and_then(Value::as_str).ok_or_else(Reply::server_error)?;
    let end = match body.get("end_time") {
        None | Some(Value::Null) => None,
        Some(text) => {
            let moment = text.as_str().and_then(from_post);
            Some(moment.ok_or_else(Reply::server_error)?)
        }
    };
    let mut store = backend.store();
    if let Some(job) = store.by_pk(pk).filter(|job| !job.state.is_terminal()) {
        job.end_us = job.end_us.or(end);
        if let Some(log) = body.get("log") {
            job.logfiles.get_or_insert_with(|| logfiles_reply(log));
        }
    }
    store.enter(pk, JobRowState::named(state));
    Ok(Reply::accepted("Task updated"))
}

/// The body of `/results`; the estimators stay text until they are checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WireResults<'a> {
    simulation_id: Value,
    update_key: Value,
    #[serde(borrow)]
    estimators: &'a RawValue,
}

pub(super) async fn results(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    backend.metrics.payload(Payload::Estimators, call.body.len());
    let slow = backend.slow_results();
    if !slow.is_zero() {
        tokio::time::sleep(slow).await;
    }
    // About 1 MB of JSON: kept off the threads that answer polls.
    let store = move || store_results(&backend, &call.body, call.arrived_us);
    tokio::task::spawn_blocking(store).await.map_err(|_| Reply::server_error())?
}

fn store_results(backend: &Backend, body: &Bytes, arrived_us: u64) -> Answer {
    let incomplete = || match serde_json::from_slice::<Value>(body) {
        Err(_) => not_json(),
        Ok(Value::Object(_)) => Reply::bad_request("Incomplete JSON data"),
        Ok(_) => Reply::server_error(),
    };
    let wire: WireResults<'_> = serde_json::from_slice(body).map_err(|_| incomplete())?;
    let pk = wire.simulation_id.as_u64().ok_or_else(Reply::server_error)?;
    let gone = || Reply::bad_request("Simulation does not exist");
    let outputs = {
        let mut store = backend.store();
        let job = store.by_pk(pk).ok_or_else(gone)?;
        job.request.editor.then(|| job.request.outputs.clone())
    };
    backend.check_key(&wire.update_key, pk)?;
    let mut posted = Posted::read(wire.estimators).map_err(|_| Reply::server_error())?;
    if let Some(outputs) = outputs {
        posted = posted.renamed(&outputs).map_err(|_| Reply::server_error())?;
    }
    // A first post is assembled before the lock is taken; a repeat, being rare, under it.
    let first = posted.clone().store(pk);
    let mut store = backend.store();
    let job = store.by_pk(pk).ok_or_else(gone)?;
    job.truth.results_posts += 1;
    job.truth.results_begun_us.get_or_insert(arrived_us);
    let doubles = job.has(Flaw::DuplicateResults);
    match &mut job.results {
        None => job.results = Some(first),
        Some(stored) if doubles => posted.add_to(stored, pk),
        Some(stored) => posted.upsert(stored, pk),
    }
    store.complete(pk);
    store.keep_results(pk, backend.config.kept_results);
    Ok(Reply::accepted("Results saved"))
}

pub(super) async fn logfiles(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let body = call.object()?;
    let keys = ["simulation_id", "update_key", "logfiles"];
    if body.len() != keys.len() || keys.iter().any(|key| !body.contains_key(*key)) {
        return Err(Reply::bad_request("Incomplete JSON data"));
    }
    let pk = body["simulation_id"].as_u64().ok_or_else(Reply::server_error)?;
    let gone = || Reply::bad_request("Simulation does not exist");
    if backend.store().by_pk(pk).is_none() {
        return Err(gone());
    }
    backend.check_key(&body["update_key"], pk)?;
    let mut store = backend.store();
    let job = store.by_pk(pk).ok_or_else(gone)?;
    job.logfiles.get_or_insert_with(|| logfiles_reply(&body["logfiles"]));
    Ok(Reply::accepted("Log files saved"))
}

/// The reply of `GET /logfiles`; only the oldest row is ever shown.
fn logfiles_reply(files: &Value) -> Bytes {
    let content: Map<String, Value> =
        Map::from_iter([("logfiles".to_owned(), files.clone()), ("message".to_owned(), json!("Logfiles"))]);
    Bytes::from(format!("{}\n", Value::Object(content)))
}
