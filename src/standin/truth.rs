//! What the stand-in knows to be true: the yardstick for what springtide reports about it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::bug::Flaw;
use super::traced::Traced;
use crate::route::Route;
use crate::timeline::JobState;

/// Service times kept per route; later requests are counted but not timed.
pub const SERVICE_TIMES_KEPT: usize = 200_000;

/// Everything the server has seen so far; also the JSON of `GET /_truth`.
///
/// Moments are unix times in microseconds, from the wall clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Truth {
    /// When the server started.
    pub started_us: u64,
    /// Every simulation row ever made, in order; deleted and lost ones too.
    pub jobs: Vec<JobTruth>,
    /// Requests of clients, by `"GET /jobs"`; unknown paths are `"GET (other)"`.
    pub client: BTreeMap<String, RouteTruth>,
    /// Posts of workers, by `"POST /tasks"`.
    pub worker: BTreeMap<String, RouteTruth>,
    /// Posts that the internal workers sent, repeats included, by their own count: some of them
    /// never arrived.
    #[serde(default)]
    pub worker_attempts: BTreeMap<Route, u64>,
    /// Those of them that were repeats.
    #[serde(default)]
    pub worker_retries: BTreeMap<Route, u64>,
    /// Posts that got no usable answer and were not sent again: no connection, no JSON, or 5xx.
    #[serde(default)]
    pub worker_given_up: BTreeMap<Route, u64>,
    /// Repeated posts that were answered from memory, because they had been carried out.
    #[serde(default)]
    pub replayed: u64,
    /// What was moved over Redis; `None` without one.
    #[serde(default)]
    pub redis: Option<RedisTruth>,
    /// Submits that made at least one row.
    pub jobs_submitted: u64,
    /// The most jobs that were accepted and not ended at one time.
    pub jobs_in_flight_max: u64,
    /// Logins that succeeded.
    pub logins: u64,
}

/// What the stand-in has put into Redis and got out of it, by its own count: what a Redis lost in a
/// restart is still in it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedisTruth {
    /// By key (`celery-task-meta-…`), what was stored there; none is forgotten before the stop.
    pub results: BTreeMap<String, StoredResult>,
    /// Keys of its own that Redis should hold now: results, chords that are not over, the lists of
    /// messages, the declaration of the queue and the claim on it.
    pub keys: u64,
    /// Messages on the list.
    pub messages_waiting: u64,
    /// Messages that were fetched and that no worker has started on.
    pub messages_unacked: u64,
    /// Commands sent, MULTI and EXEC not counted.
    pub commands: u64,
    /// Bytes of the commands; a reconnection's greeting is not counted.
    pub bytes_in: u64,
    /// Bytes of the replies.
    pub bytes_out: u64,
    /// Connections that broke or could not be made.
    pub connections_lost: u64,
}

/// One stored result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredResult {
    /// What STRLEN of its key says.
    pub bytes: u64,
    /// Whose result it is.
    pub kind: ResultKind,
}

/// Which step returned it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResultKind {
    /// One task: its estimators, or that it failed.
    Task,
    /// The step before the merge: the results of all tasks.
    QueueMerge,
    /// The merge: next to nothing.
    Merge,
}

/// One job. A moment is taken under the lock of the state change: whatever was
/// answered from a state read before it saw the old state, everything later the new one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JobTruth {
    /// The id the client knows.
    pub job_id: String,
    /// The title it gave.
    pub title: String,
    /// Whose job it is.
    pub username: String,
    /// The id the workers know.
    pub simulation_id: u64,
    /// Number of tasks, after clamping.
    pub tasks: usize,
    /// What was wrong with it on purpose.
    pub flaws: Vec<Flaw>,
    /// The submit's head had arrived.
    pub submitted_us: u64,
    /// The reply to the submit was about to be sent; `None` when it was an error.
    pub accepted_us: Option<u64>,
    /// From here a poll would find a task RUNNING.
    pub running_us: Option<u64>,
    /// The last task ended.
    pub tasks_done_us: Option<u64>,
    /// The job became MERGING_QUEUED.
    pub merging_queued_us: Option<u64>,
    /// The job became MERGING_RUNNING.
    pub merging_running_us: Option<u64>,
    /// The head of the first post to `/results` that was accepted had arrived.
    #[serde(default)]
    pub results_begun_us: Option<u64>,
    /// The job became COMPLETED.
    pub completed_us: Option<u64>,
    /// The job became COMPLETED, FAILED or CANCELED.
    pub ended_us: Option<u64>,
    /// The state as stored now; UNKNOWN also stands for a name outside the contract.
    pub final_state: JobState,
    /// Posts to `/results` that were accepted.
    pub results_posts: u64,
    /// Where the post was to go that killed a task of it, or its merge; the first such post.
    #[serde(default)]
    pub died_of: Option<Route>,
    /// The clients' requests about it, and of which traces they were.
    #[serde(default)]
    pub traced: Traced,
}

/// What one route has done.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RouteTruth {
    /// Requests whose head arrived.
    pub requests: u64,
    /// Replies by status; the rest of `requests` was cut off or is still in work.
    pub by_status: BTreeMap<u16, u64>,
    /// From head received to last body byte handed to the connection, in microseconds,
    /// in the order of completion; the first [`SERVICE_TIMES_KEPT`].
    pub service_us: Vec<u64>,
}
