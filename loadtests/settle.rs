//! The end of a cell: jobs that were given up must be quiet, then the target's own list of our
//! jobs is read.
//!
//! It happens when no user measures any more, so that it disturbs no figure.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    cancel,
    turn::{Problem, Turn},
};
use crate::{
    snapshot::{Cancel, Listed, TargetView},
    target::{Answer, Endpoint, decode, endpoint::of_job},
    timeline::JobState,
    trace::Trace,
};

/// How long canceled jobs may take to become terminal.
pub(super) const QUIET_WITHIN: Duration = Duration::from_secs(10);
/// Jobs a page.
const PAGE: u64 = 100;
/// A page of the list that cannot be read is asked for this often.
const TRIES: u32 = 3;
/// A list longer than this is not read to its end: its target counts wrongly.
const MOST_PAGES: u64 = 10_000;
/// Pages without a job of ours after which the rest is older than the cell.
const FOREIGN_PAGES: u32 = 2;

/// Waits for the user's given-up jobs and reads its account's list; of users who share an account
/// only the first does that.
pub(super) async fn settle(turn: &mut Turn<'_>) {
    let mut view = TargetView::default();
    let given_up = std::mem::take(&mut turn.user.given_up);
    wait_for(turn, given_up, Instant::now() + QUIET_WITHIN, &mut view.unfinished).await;
    if !turn.shares_account() || turn.user.slot() == 0 {
        match read_list(turn, &mut view).await {
            Ok(()) => {
                view.accounts_read += 1;
                let deadline = Instant::now() + QUIET_WITHIN;
                let canceled = cancel_open(turn, &view).await;
                wait_for(turn, canceled, deadline, &mut view.unfinished).await;
            }
            Err(problem) => {
                view.errors.insert(problem.what);
            }
        }
    }
    turn.recorder.target(view);
}

/// Cancels jobs that the list has without an end, such as ghosts, whose ids no user knows: they must
/// not go on beside the next cell. Returns those that are to be waited for.
pub(super) async fn cancel_open(turn: &mut Turn<'_>, view: &TargetView) -> BTreeMap<String, Trace> {
    let mut canceled = BTreeMap::new();
    for (id, row) in &view.listed {
        if row.end_time.is_some() {
            continue;
        }
        turn.trace = Some(Trace::of(&row.title).taken_up_by(turn.run.share.worker));
        // A FAILED or CANCELED job has no end time either, and what gives no state can be given none.
        let state = still_going(turn, id, Instant::now()).await.and_then(|s| JobState::parse(&s));
        if state.is_none() || view.unfinished.contains_key(id) {
            continue;
        }
        if let Cancel::TooLate(_) = cancel::cancel(turn, id).await {
            // It ended meanwhile, or is UNKNOWN: a row without tasks, which does nothing.
            continue;
        }
        canceled.extend(turn.trace.take().map(|trace| (id.clone(), trace)));
    }
    turn.trace = None;
    canceled
}

/// Waits until jobs are terminal, and notes those that are not in time.
pub(super) async fn wait_for(
    turn: &mut Turn<'_>,
    jobs: BTreeMap<String, Trace>,
    deadline: Instant,
    unfinished: &mut BTreeMap<String, String>,
) {
    for (id, trace) in jobs {
        turn.trace = Some(trace);
        if let Some(state) = still_going(turn, &id, deadline).await {
            unfinished.insert(id, state);
        }
    }
    turn.trace = None;
}

/// The state of a job that has not become terminal in time; `None` when it has, or is gone.
async fn still_going(turn: &mut Turn<'_>, id: &str, deadline: Instant) -> Option<String> {
    let query = of_job(id);
    let patience = Duration::from(turn.run.settings.patience);
    let mut last_answer = Instant::now();
    loop {
        let read = |answer: &Answer| decode::json::<decode::Polled>(&answer.body);
        let state = match turn.in_session(Endpoint::Poll, &query, Bytes::new(), 200, read).await {
            Ok((polled, _)) => {
                last_answer = Instant::now();
                polled.job_state
            }
            Err(Problem { status: Some(404), .. }) => return None,
            Err(problem) if last_answer.elapsed() >= patience => return Some(problem.what),
            Err(problem) => problem.what,
        };
        if JobState::parse(&state).is_some_and(JobState::is_terminal) {
            return None;
        }
        if Instant::now() >= deadline || !turn.wait(Duration::from_millis(250)).await {
            return Some(state);
        }
    }
}

/// Reads the account's list, newest first, and keeps the jobs of this cell.
async fn read_list(turn: &mut Turn<'_>, view: &mut TargetView) -> Result<(), Problem> {
    let run_tag = turn.run.tag.rsplit_once(' ').map_or(turn.run.tag.clone(), |(run, _)| run.to_owned());
    let cell_tag = format!("{} ", turn.run.tag);
    read_list_of(turn, view, &run_tag, &cell_tag).await
}

/// Reads the list until jobs with titles of the run end, and keeps those with titles of the cell.
pub(super) async fn read_list_of(
    turn: &mut Turn<'_>,
    view: &mut TargetView,
    run_tag: &str,
    cell_tag: &str,
) -> Result<(), Problem> {
    let mut foreign = 0;
    for index in 1.. {
        let query = format!("page_size={PAGE}&page_idx={index}&order_by=start_time&order_type=descend");
        let page = read_page(turn, &query).await?;
        let mut ours = false;
        let page_has_rows = !page.simulations.is_empty();
        for row in page.simulations {
            let title = row.title.unwrap_or_default();
            ours |= title.starts_with(run_tag);
            if title.starts_with(cell_tag) {
                view.listed.insert(row.job_id, Listed { title, end_time: row.end_time });
            }
        }
        foreign = if ours { 0 } else { foreign + 1 };
        let more = page_has_rows && index < page.page_count && index < MOST_PAGES;
        if !more || foreign >= FOREIGN_PAGES || turn.run.stop.is_cancelled() {
            break;
        }
    }
    Ok(())
}

/// Reads one page. One bad answer says nothing of the rest, so it is asked for again.
async fn read_page(turn: &mut Turn<'_>, query: &str) -> Result<decode::Simulations, Problem> {
    let mut tries = 1..=TRIES;
    loop {
        tries.next();
        let read = |answer: &Answer| decode::json::<decode::Simulations>(&answer.body);
        match turn.in_session(Endpoint::Simulations, query, Bytes::new(), 200, read).await {
            Ok((page, _)) => return Ok(page),
            Err(problem) if tries.is_empty() => return Err(problem),
            Err(problem) if !turn.wait(Duration::from_millis(250)).await => return Err(problem),
            Err(_) => {}
        }
    }
}
