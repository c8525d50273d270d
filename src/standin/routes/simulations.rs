//! `GET` and `DELETE /user/simulations`.

use std::cmp::Ordering;
use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use crate::standin::backend::Backend;
use crate::standin::call::Call;
use crate::standin::clock::in_reply;
use crate::standin::job::Job;
use crate::standin::reply::{Answer, Reply};
use crate::timeline::JobState;

const PARAMS: [&str; 5] = ["page_size", "page_idx", "order_by", "order_type", "job_state"];

/// Rows of a page when none, or zero, is asked for.
const PAGE_SIZE: (usize, usize) = (6, 20);

pub(super) async fn list(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    if call.unknown_param(&PARAMS).is_some() {
        return Err(Reply::server_error());
    }
    let number = |name: &str, default: usize| match call.param(name) {
        None => Ok(default),
        Some(text) => text.parse::<usize>().map_err(|_| Reply::server_error()),
    };
    let size = match number("page_size", PAGE_SIZE.0)? {
        0 => PAGE_SIZE.1,
        size => size,
    };
    let index = number("page_idx", 1)?.max(1);
    let order = order(call.param("order_by").unwrap_or("start_time"))?;
    let descends = match call.param("order_type").unwrap_or("descend") {
        "descend" => true,
        "ascend" => false,
        _ => return Err(Reply::server_error()),
    };
    let states: Option<Vec<&str>> = call.param("job_state").map(|list| list.split(',').collect());
    if states.iter().flatten().any(|name| JobState::parse(name).is_none()) {
        return Err(Reply::server_error());
    }

    let store = backend.store();
    let wanted = |job: &&Job| states.as_ref().is_none_or(|names| names.contains(&job.state.as_str()));
    let mut jobs: Vec<&Job> = store.jobs_of(user.id).filter(wanted).collect();
    if let Some(order) = order {
        jobs.sort_by(|a, b| order(a, b));
    }
    if descends {
        jobs.reverse();
    }
    let rows: Vec<Value> = jobs.iter().skip((index - 1).saturating_mul(size)).take(size).map(row).collect();
    let content = Map::from_iter([
        ("page_count".to_owned(), Value::from(jobs.len().div_ceil(size))),
        ("simulations".to_owned(), Value::from(rows)),
        ("simulations_count".to_owned(), Value::from(jobs.len())),
    ]);
    Ok(Reply::with(StatusCode::OK, "User Simulations", content))
}

/// An ascending order of rows.
type Order = fn(&Job, &Job) -> Ordering;

/// How to sort by a column; rows come in the order of their start already.
fn order(column: &str) -> Result<Option<Order>, Reply> {
    match column {
        "start_time" => Ok(None),
        "end_time" => Ok(Some(|a, b| a.end_us.cmp(&b.end_us))),
        "title" => Ok(Some(|a, b| a.truth.title.cmp(&b.truth.title))),
        "job_id" => Ok(Some(|a, b| a.truth.job_id.cmp(&b.truth.job_id))),
        _ => Err(Reply::server_error()),
    }
}

fn row(job: &&Job) -> Value {
    json!({
        "end_time": job.end_us.map(in_reply),
        "job_id": job.truth.job_id,
        "metadata": {
            "input_type": if job.request.editor { "EDITOR" } else { "FILES" },
            "platform": "DIRECT",
            "server": "Yaptide",
            "sim_type": job.request.sim_type,
        },
        "start_time": in_reply(job.start_us),
        "title": job.truth.title,
    })
}

pub(super) async fn delete(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    if call.unknown_param(&["job_id"]).is_some() {
        return Err(Reply::server_error());
    }
    let Some(job_id) = call.param("job_id") else {
        let missing = Value::from(vec!["Missing data for required field."]);
        let content = Map::from_iter([("job_id".to_owned(), missing)]);
        return Err(Reply::with(StatusCode::BAD_REQUEST, "Wrong data provided", content));
    };
    let named = format!("Simulation with job_id={job_id}");
    let mut store = backend.store();
    let found = store.by_job_id(job_id);
    let (pk, job) = found.ok_or_else(|| Reply::not_found(&format!("{named} do not exist")))?;
    if job.owner != user.id {
        let text = format!("{named} does not belong to user");
        return Err(Reply::message(StatusCode::UNAUTHORIZED, &text));
    }
    let held = [JobState::Unknown, JobState::Pending, JobState::Running];
    if held.into_iter().any(|state| job.state.is(state)) {
        let text = format!("{named} is in {} state and cannot be deleted", job.state.as_str());
        return Err(Reply::message(StatusCode::FORBIDDEN, &text));
    }
    store.delete(pk);
    Ok(Reply::ok(&format!("{named} successfully deleted from database")))
}
