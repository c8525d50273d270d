//! Canceling a job that is given up: `DELETE /jobs/direct?job_id=`.

use bytes::Bytes;

use super::turn::Turn;
use crate::{
    snapshot::Cancel,
    target::{Answer, Endpoint, decode, endpoint::of_job},
};

/// Asks the target to stop the job, once.
pub(super) async fn cancel(turn: &mut Turn<'_>, id: &str) -> Cancel {
    let query = of_job(id);
    let read = |answer: &Answer| decode::json::<decode::Canceled>(&answer.body);
    match turn.in_session(Endpoint::Cancel, &query, Bytes::new(), 200, read).await {
        Ok((decode::Canceled { job_state: Some(state) }, _)) => Cancel::TooLate(state),
        Ok(_) => Cancel::Done,
        Err(problem) => Cancel::Refused(problem.what),
    }
}
