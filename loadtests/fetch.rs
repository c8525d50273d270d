//! Fetching the results: `GET /results?job_id=`, all estimators, read whole and checked.

use std::sync::Arc;

use bytes::Bytes;
use serde::de::IgnoredAny;
use tokio::time::Instant;

use super::{
    job::Followed,
    turn::{Problem, Turn},
};
use crate::{
    micros::Micros,
    recorder::thread_cpu,
    target::{Answer, Endpoint, decode, endpoint::of_job},
    timeline::JobOutcome,
};

/// A fetch that fails for want of a whole answer is tried this often.
const TRIES: u32 = 3;

/// Fetches and checks the results of a completed job. What is timed ends with the last byte; the
/// check runs on a thread of its own, so that it holds up no other user.
pub(super) async fn fetch(turn: &mut Turn<'_>, followed: &mut Followed) -> JobOutcome {
    let query = of_job(&followed.id);
    let mut last = String::new();
    for attempt in 0..TRIES {
        if attempt > 0 {
            let pause = turn.poll_pause();
            if !turn.wait(pause).await {
                break;
            }
        }
        // The whole check comes after the clock has stopped; what is not JSON at all fails here.
        let read = |answer: &Answer| match answer.body.first() {
            Some(b'{') => Ok(answer.body.clone()),
            _ => decode::json::<IgnoredAny>(&answer.body).map(|_| answer.body.clone()),
        };
        match turn.in_session(Endpoint::Results, &query, Bytes::new(), 200, read).await {
            Ok((body, exchange)) => {
                let start = Instant::now();
                let wire = exchange.wire_bytes;
                let recorder = Arc::clone(turn.recorder);
                let check = move || {
                    let cpu = thread_cpu();
                    let results = decode::results(&body, wire);
                    recorder.cpu(thread_cpu().saturating_sub(cpu).into(), Micros::ZERO);
                    results
                };
                let checked = tokio::task::spawn_blocking(check).await;
                turn.checked_since(start);
                return match checked {
                    Ok(Ok(results)) => {
                        let duplicates = results.duplicates;
                        followed.job.results = Some(results);
                        if duplicates == 0 {
                            followed.job.timeline.fetch = Some(turn.recorder.clocked(&exchange));
                            JobOutcome::Fetched
                        } else {
                            JobOutcome::Broken {
                                what: "results hold estimators or pages more than once".into(),
                            }
                        }
                    }
                    Ok(Err(what)) => broken(&what),
                    Err(_) => broken("the check was cut short"),
                };
            }
            Err(Problem { status: Some(200), what }) => return broken(&what),
            Err(Problem { status: Some(404), what }) => return broken(&format!("missing, {what}")),
            Err(Problem { what, .. }) => last = what,
        }
    }
    broken(&format!("not to be had in {TRIES} tries, {last}"))
}

fn broken(what: &str) -> JobOutcome {
    JobOutcome::Broken { what: format!("results: {what}") }
}
