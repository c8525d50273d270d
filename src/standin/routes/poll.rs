//! `GET /jobs`, `GET` and `DELETE /jobs/direct`: polls derive and store the state; cancelling.

use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;
use serde_json::{Map, Value};

use crate::standin::backend::Backend;
use crate::standin::call::Call;
use crate::standin::job::PollRoute;
use crate::standin::reply::{Answer, Reply};
use crate::timeline::JobState;

pub(super) async fn jobs(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    poll(&backend, &call, PollRoute::Jobs)
}

pub(super) async fn direct(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    poll(&backend, &call, PollRoute::Direct)
}

fn poll(backend: &Backend, call: &Call, route: PollRoute) -> Answer {
    let user = backend.user(call)?;
    call.only_params(&["job_id"])?;
    let job_id = call.job_id()?;
    let mut store = backend.store();
    let (pk, _) = store.job_of(user.id, job_id)?;
    store.poll(pk, route);
    let (_, job) = store.job_of(user.id, job_id)?;
    if job.state.is(JobState::Unknown) && route == PollRoute::Jobs {
        let content = Map::from_iter([("job_state".to_owned(), Value::from("UNKNOWN"))]);
        return Ok(Reply::with(StatusCode::OK, "Job state is unknown", content));
    }
    let state = Value::from(job.state.as_str()).to_string();
    let mut body = String::with_capacity(128 + 256 * job.tasks.len());
    body.push_str("{\"job_state\":");
    body.push_str(&state);
    body.push_str(",\"job_tasks_status\":[");
    for (place, task) in job.tasks.iter().enumerate() {
        if place > 0 {
            body.push(',');
        }
        task.write(&mut body);
    }
    body.push_str("],\"message\":\"Job state: ");
    body.push_str(&state[1..state.len() - 1]);
    body.push_str("\"}\n");
    Ok(Reply::json(StatusCode::OK, body))
}

pub(super) async fn cancel(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    call.only_params(&["job_id"])?;
    let mut store = backend.store();
    let (pk, job) = store.job_of(user.id, call.job_id()?)?;
    if job.state.is_terminal() || job.state.is(JobState::Unknown) {
        let state = job.state.as_str();
        let content = Map::from_iter([("job_state".to_owned(), Value::from(state))]);
        let text = format!("Cannot cancel job which is in {state} state");
        return Ok(Reply::with(StatusCode::OK, &text, content));
    }
    store.cancel(pk);
    Ok(Reply::ok("Cancelled sucessfully"))
}
