//! The submit: `POST /jobs/direct`.

use tokio::time::Instant;

use super::{
    job::Followed,
    turn::{Problem, Turn},
};
use crate::{
    target::{Answer, Endpoint, decode},
    timeline::{Clocked, JobOutcome},
};

/// Submits the job. It is sent once: a submit without an answer may have been accepted, and a
/// second one would make two jobs of it.
///
/// # Errors
/// The outcome, when there is no job to follow.
pub(super) async fn submit(turn: &mut Turn<'_>, followed: &mut Followed) -> Result<(), JobOutcome> {
    let body = turn.user.kit.input.body(turn.run.share.cell.tasks, &followed.job.title);
    followed.job.submit_bytes = body.len() as u64;
    let start = Instant::now();
    turn.recorder.submitting(start);
    let read = |answer: &Answer| {
        let submitted = decode::json::<decode::Submitted>(&answer.body)?;
        if submitted.job_id.is_empty() { Err("an empty job_id".into()) } else { Ok(submitted) }
    };
    let answered = turn.in_session(Endpoint::Submit, "", body, 202, read).await;
    match answered {
        Ok((submitted, exchange)) => {
            followed.job.timeline.submitted(turn.recorder.clocked(&exchange));
            followed.job.job_id = Some(submitted.job_id.clone());
            followed.id = submitted.job_id;
            Ok(())
        }
        Err(Problem { status, what }) => {
            let (sent, done) = (turn.recorder.offset(start), turn.recorder.offset(Instant::now()));
            followed.job.timeline.submitted(Clocked { sent, done });
            Err(match status {
                Some(202) => JobOutcome::Broken { what: format!("submit: {what}") },
                status => JobOutcome::Rejected { status: status.unwrap_or(0) },
            })
        }
    }
}
