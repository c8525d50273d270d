//! `GET /inputs` and `GET /logfiles`.

use std::sync::Arc;

use axum::extract::State;
use hyper::StatusCode;

use crate::standin::backend::Backend;
use crate::standin::call::Call;
use crate::standin::reply::{Answer, Reply};
use crate::timeline::JobState;

pub(super) async fn inputs(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    call.only_params(&["job_id"])?;
    let mut store = backend.store();
    let (_, job) = store.job_of(user.id, call.job_id()?)?;
    if job.state.is(JobState::Unknown) {
        return Err(Reply::not_found("Input of simulation is unavailable"));
    }
    Ok(Reply::json(StatusCode::OK, job.request.inputs.clone()))
}

pub(super) async fn logfiles(State(backend): State<Arc<Backend>>, call: Call) -> Answer {
    let user = backend.user(&call)?;
    call.only_params(&["job_id"])?;
    let mut store = backend.store();
    let (_, job) = store.job_of(user.id, call.job_id()?)?;
    let logfiles = job.logfiles.clone();
    let body = logfiles.ok_or_else(|| Reply::not_found("Logfiles are unavailable"))?;
    Ok(Reply::json(StatusCode::OK, body))
}
