//! Polling: `GET /jobs?job_id=` until the job is in a terminal state.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    job::Followed,
    turn::{Problem, Turn},
};
use crate::{
    target::{Answer, Endpoint, decode, endpoint::of_job, http::Exchange},
    timeline::{JobOutcome, JobState},
};

/// Polls until COMPLETED.
///
/// # Errors
/// The outcome, when the job ends otherwise: another terminal state, the job timeout, a target
/// that no longer knows the job or gives no usable answer for longer than our patience.
pub(super) async fn to_the_end(turn: &mut Turn<'_>, followed: &mut Followed) -> Result<(), JobOutcome> {
    let settings = &turn.run.settings;
    let began = Instant::now();
    let deadline = began + Duration::from(settings.job_timeout);
    let patience = Duration::from(settings.patience);
    let query = of_job(&followed.id);
    let mut last_answer = began;
    loop {
        let pause = turn.poll_pause().min(deadline.saturating_duration_since(Instant::now()));
        if !turn.wait(pause).await {
            return Err(JobOutcome::Canceled);
        }
        let read = |answer: &Answer| decode::json::<decode::Polled>(&answer.body);
        let polled = turn.in_session(Endpoint::Poll, &query, Bytes::new(), 200, read).await;
        match polled {
            Ok((polled, exchange)) => {
                last_answer = exchange.done;
                followed.job.tasks = polled.tasks().or(followed.job.tasks);
                if let Some(state) = polled.state() {
                    saw(turn, followed, state, &exchange);
                    match state {
                        JobState::Completed => return Ok(()),
                        JobState::Failed => return Err(JobOutcome::Failed),
                        JobState::Canceled => return Err(JobOutcome::Canceled),
                        _ => {}
                    }
                } else {
                    followed.job.unknown_states.insert(polled.job_state.chars().take(60).collect());
                }
            }
            Err(Problem { status: Some(404), .. }) => return Err(JobOutcome::Lost),
            Err(Problem { status: Some(401 | 403), what }) => {
                return Err(JobOutcome::Broken { what: format!("no access to the own job: {what}") });
            }
            Err(Problem { what, .. }) if last_answer.elapsed() >= patience => {
                let what = format!("{}{}: {what}", JobOutcome::NO_ANSWER, settings.patience);
                return Err(JobOutcome::Broken { what });
            }
            Err(_) => {}
        }
        if Instant::now() >= deadline {
            let in_state = followed.job.timeline.state().unwrap_or(JobState::Unknown);
            return Err(JobOutcome::TimedOut { in_state });
        }
    }
}

/// Takes down the state that a poll saw.
fn saw(turn: &Turn<'_>, followed: &mut Followed, state: JobState, exchange: &Exchange) {
    let timeline = &mut followed.job.timeline;
    let before = timeline.state();
    let clocked = turn.recorder.clocked(exchange);
    if let Some(from) = timeline.observe(state, clocked, exchange.wire_bytes) {
        followed.job.backwards.push((from, state));
    }
    if before != Some(state) {
        if state.is_merging() {
            turn.run.merging.arrive();
        }
        turn.recorder.state_changed(before, state);
    }
}
