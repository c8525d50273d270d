//! One job from its submit to its outcome.

use super::{cancel, fetch, poll, submit, turn::Turn};
use crate::{
    snapshot::{Cancel, Job, JobKey},
    timeline::{JobOutcome, JobState},
    trace::Trace,
};

/// How a job looks while it is followed.
pub(super) struct Followed {
    pub(super) job: Job,
    /// The id, once accepted.
    pub(super) id: String,
}

/// Submits a job, follows it to an outcome, and takes it down. A job that is given up is canceled.
pub(super) async fn carry_through(turn: &mut Turn<'_>, key: JobKey) {
    let title = turn.run.title(key);
    turn.trace = Some(Trace::of(&title));
    let mut followed =
        Followed { job: Job::new(turn.run.share.worker, title, JobOutcome::Lost), id: String::new() };
    let outcome = match submit::submit(turn, &mut followed).await {
        Err(outcome) => outcome,
        Ok(()) => match poll::to_the_end(turn, &mut followed).await {
            Ok(()) => fetch::fetch(turn, &mut followed).await,
            Err(outcome) => outcome,
        },
    };
    followed.job.outcome = outcome;
    followed.job.timeline.ended = turn.recorder.offset(tokio::time::Instant::now());
    if is_given_up(&followed.job) {
        let cancel = cancel::cancel(turn, &followed.id).await;
        let over =
            matches!(&cancel, Cancel::TooLate(s) if JobState::parse(s).is_some_and(JobState::is_terminal));
        if let (false, Some(trace)) = (over, turn.trace.clone()) {
            turn.user.given_up.insert(followed.id.clone(), trace);
        }
        followed.job.cancel = Some(cancel);
    }
    turn.trace = None;
    let failed = followed.job.outcome != JobOutcome::Fetched;
    turn.recorder.job(key, followed.job);
    if failed {
        // A target that refuses at once must not be asked again at once.
        let pause = turn.poll_pause();
        turn.wait(pause).await;
    }
}

/// Whether the job may still be going on at the target though its client has let go of it.
fn is_given_up(job: &Job) -> bool {
    job.job_id.is_some()
        && !job.timeline.state().is_some_and(|s| s.is_terminal())
        && job.outcome != JobOutcome::Lost
}
