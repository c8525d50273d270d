//! Jobs and tasks as rows, and the state machine that moves them.

use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use super::bug::Flaw;
use super::clock;
use super::metrics::{Metrics, Stage};
use super::stored::StoredResults;
use super::truth::JobTruth;
use crate::timeline::JobState;

/// A state as stored: workers may post any text, and the target takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    Known(JobState),
    Other(String),
}

impl State {
    pub(super) fn named(name: &str) -> Self {
        JobState::parse(name).map_or_else(|| Self::Other(name.to_owned()), Self::Known)
    }

    pub(super) fn as_str(&self) -> &str {
        match self {
            Self::Known(state) => state.as_str(),
            Self::Other(name) => name,
        }
    }

    pub(super) fn is(&self, state: JobState) -> bool {
        *self == Self::Known(state)
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Known(state) if state.is_terminal())
    }
}

/// Which of the two routes polls; they differ in what they may overwrite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PollRoute {
    Jobs,
    Direct,
}

/// What a submit asked for, as far as the server keeps it.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) sim_type: String,
    pub(super) editor: bool,
    /// Names of the outputs an editor project wants, in its order.
    pub(super) outputs: Vec<String>,
    /// The whole reply of `GET /inputs`.
    pub(super) inputs: Bytes,
}

/// One simulation row with its tasks.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) owner: u64,
    pub(super) request: Request,
    pub(super) state: State,
    pub(super) tasks: Vec<Task>,
    pub(super) start_us: u64,
    pub(super) end_us: Option<u64>,
    pub(super) results: Option<StoredResults>,
    pub(super) logfiles: Option<Bytes>,
    pub(super) fetched: bool,
    pub(super) deleted: bool,
    /// Tells the workers to let go of the job.
    pub(super) revoke: CancellationToken,
    pub(super) truth: JobTruth,
    /// What the metrics have been told.
    pub(super) told: Told,
}

/// Which stages of a job, and whether its end, are in the metrics.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Told {
    stages: [bool; 4],
    end: bool,
}

impl Job {
    pub(super) fn has(&self, flaw: Flaw) -> bool {
        self.truth.flaws.contains(&flaw)
    }

    /// Moves to `state`, unless the job has ended, and notes the moment. True if it moved.
    pub(super) fn enter(&mut self, state: State) -> bool {
        if self.state.is_terminal() {
            return false;
        }
        let now = clock::now_us();
        self.truth.final_state = match &state {
            State::Known(known) => *known,
            State::Other(_) => JobState::Unknown,
        };
        let moment = match &state {
            State::Known(JobState::MergingQueued) => Some(&mut self.truth.merging_queued_us),
            State::Known(JobState::MergingRunning) => Some(&mut self.truth.merging_running_us),
            State::Known(JobState::Completed) => Some(&mut self.truth.completed_us),
            _ => None,
        };
        if let Some(moment) = moment {
            moment.get_or_insert(now);
        }
        if state.is_terminal() {
            self.truth.ended_us.get_or_insert(now);
        }
        self.state = state;
        true
    }

    /// Stores the end of the merge: COMPLETED, or what the bugs make of it.
    pub(super) fn complete(&mut self) -> bool {
        let moved = self.enter(State::Known(JobState::Completed));
        if moved {
            self.end_us = self.truth.completed_us;
            if self.has(Flaw::LostCompleted) {
                // The late commit of a poll that had read RUNNING.
                self.state = State::Known(JobState::Running);
                self.truth.final_state = JobState::Running;
            }
        }
        moved
    }

    /// The state a poll finds, and stores.
    pub(super) fn poll(&mut self, route: PollRoute) -> bool {
        let settled = match &self.state {
            State::Known(JobState::Completed | JobState::Failed) => true,
            State::Known(JobState::MergingQueued | JobState::MergingRunning) => route == PollRoute::Jobs,
            State::Known(JobState::Unknown) => route == PollRoute::Jobs,
            _ => false,
        };
        if settled {
            return false;
        }
        match derive(&self.tasks) {
            // The stuck ones never show FAILED on the UI's route, however quick the poll is.
            Some(JobState::Failed)
                if self.has(Flaw::AllFailedStuck) && self.truth.merging_running_us.is_none() =>
            {
                false
            }
            Some(state) => self.enter(State::Known(state)),
            None => false,
        }
    }

    /// Applies a worker's update to task `index`; `None` if there is no such task.
    ///
    /// # Errors
    /// The update has a value of the wrong kind; nothing was changed.
    pub(super) fn update_task(&mut self, index: usize, update: TaskUpdate) -> Option<Result<(), BadUpdate>> {
        let task = self.tasks.get_mut(index)?;
        if let Err(bad) = task.apply(update) {
            return Some(Err(bad));
        }
        let running = task.state.is(JobState::Running);
        let merging_or_ended = self.state.is_terminal()
            || self.truth.merging_queued_us.is_some()
            || self.truth.merging_running_us.is_some();
        if running && !merging_or_ended {
            self.truth.running_us.get_or_insert_with(clock::now_us);
        }
        if self.truth.tasks_done_us.is_none() && self.tasks.iter().all(|t| t.state.is_terminal()) {
            self.truth.tasks_done_us = Some(clock::now_us());
        }
        Some(Ok(()))
    }

    /// Tells the metrics what came to its end since they were told last.
    pub(super) fn tell(&mut self, metrics: &Metrics) {
        let truth = &self.truth;
        let stages = [
            (Stage::Queue, truth.accepted_us, truth.running_us),
            (Stage::Run, truth.running_us, truth.tasks_done_us),
            (Stage::Merge, truth.merging_queued_us, truth.results_begun_us),
            (Stage::Persist, truth.results_begun_us, truth.completed_us),
        ];
        for ((stage, from, to), told) in stages.into_iter().zip(&mut self.told.stages) {
            if let (false, Some(from), Some(to)) = (*told, from, to) {
                metrics.stage(stage, from, to);
                *told = true;
            }
        }
        if let (false, Some(from), Some(to)) = (self.told.end, truth.accepted_us, truth.ended_us) {
            // A lost COMPLETED is one that ended as such.
            let state = if truth.completed_us == Some(to) { JobState::Completed } else { truth.final_state };
            metrics.job(state.as_str(), from, to);
            self.told.end = true;
        }
    }

    /// Cancels what is not over; the caller has checked that the job may be canceled.
    pub(super) fn cancel(&mut self) {
        self.revoke.cancel();
        for task in &mut self.tasks {
            if task.state.is(JobState::Pending) || task.state.is(JobState::Running) {
                task.state = State::Known(JobState::Canceled);
            }
        }
        self.enter(State::Known(JobState::Canceled));
    }

    /// Forgets the row; its truth stays.
    pub(super) fn delete(&mut self) {
        self.deleted = true;
        self.tasks = Vec::new();
        self.results = None;
        self.logfiles = None;
        self.request.inputs = Bytes::new();
        self.revoke.cancel();
    }
}

/// The state the tasks imply; `None` leaves the stored one as it is.
fn derive(tasks: &[Task]) -> Option<JobState> {
    let all = |state| !tasks.is_empty() && tasks.iter().all(|task| task.state.is(state));
    if all(JobState::Pending) {
        Some(JobState::Pending)
    } else if all(JobState::Failed) {
        Some(JobState::Failed)
    } else if tasks.iter().any(|task| task.state.is(JobState::Running)) {
        Some(JobState::Running)
    } else {
        None
    }
}

/// One task row.
#[derive(Debug, Clone)]
pub(super) struct Task {
    /// The row's key, which polls show; workers use the index instead.
    pub(super) pk: u64,
    pub(super) state: State,
    requested: u64,
    simulated: u64,
    estimated_seconds: u64,
    start_us: Option<u64>,
    end_us: Option<u64>,
    updated_us: u64,
}

/// A worker's `update_dict`, its values still to be checked.
pub(super) type TaskUpdate = serde_json::Map<String, serde_json::Value>;

/// An update of the wrong type or form, on which the target raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BadUpdate;

impl Task {
    pub(super) fn pending(pk: u64, requested: u64, now_us: u64) -> Self {
        Self {
            pk,
            state: State::Known(JobState::Pending),
            requested,
            simulated: 0,
            estimated_seconds: 0,
            start_us: None,
            end_us: None,
            updated_us: now_us,
        }
    }

    fn apply(&mut self, update: TaskUpdate) -> Result<(), BadUpdate> {
        if self.state.is_terminal() {
            return Ok(());
        }
        let text = |key: &str| match update.get(key) {
            None | Some(serde_json::Value::Null) => Ok(None),
            Some(value) => value.as_str().map(Some).ok_or(BadUpdate),
        };
        let count = |key: &str| match update.get(key) {
            None | Some(serde_json::Value::Null) => Ok(0),
            Some(value) => value.as_u64().ok_or(BadUpdate),
        };
        let moment = |key: &str| match text(key)? {
            None => Ok(None),
            Some(text) => clock::from_post(text).map(Some).ok_or(BadUpdate),
        };
        let (state, start, end) = (text("task_state")?, moment("start_time")?, moment("end_time")?);
        let (requested, simulated) = (count("requested_primaries")?, count("simulated_primaries")?);
        let estimated = count("estimated_time")?;

        if requested > 0 {
            self.requested = requested;
        }
        if simulated > 0 {
            self.simulated = simulated;
        }
        self.start_us = self.start_us.or(start);
        self.end_us = self.end_us.or(end);
        if self.end_us.is_some() {
            self.estimated_seconds = 0;
        } else if estimated > 0 {
            self.estimated_seconds = estimated;
        }
        if let Some(state) = state {
            self.state = State::named(state);
            if self.state.is(JobState::Completed) {
                self.simulated = self.requested;
            }
        }
        self.updated_us = clock::now_us();
        Ok(())
    }

    /// Appends the task as polls show it: keys sorted, unset ones absent.
    pub(super) fn write(&self, out: &mut String) {
        let moment = |out: &mut String, key: &str, micros: u64| {
            out.push_str(key);
            clock::write_reply(out, micros);
            out.push_str("\",");
        };
        out.push('{');
        if let Some(end) = self.end_us {
            moment(out, "\"end_time\":\"", end);
        }
        if self.estimated_seconds > 0 {
            let (minutes, seconds) = (self.estimated_seconds / 60, self.estimated_seconds % 60);
            out.push_str(&format!(
                "\"estimated_time\":{{\"hours\":{},\"minutes\":{},\"seconds\":{seconds}}},",
                minutes / 60,
                minutes % 60
            ));
        }
        moment(out, "\"last_update_time\":\"", self.updated_us);
        out.push_str(&format!(
            "\"requested_primaries\":{},\"simulated_primaries\":{},",
            self.requested, self.simulated
        ));
        if let Some(start) = self.start_us {
            moment(out, "\"start_time\":\"", start);
        }
        let state = serde_json::Value::from(self.state.as_str());
        out.push_str(&format!("\"task_id\":{},\"task_state\":{state}}}", self.pk));
    }
}

#[cfg(test)]
impl Job {
    /// A row as a submit leaves it.
    pub(super) fn sample(pk: u64, tasks: usize) -> Self {
        let (state, now) = (JobState::Pending, clock::now_us());
        Self {
            owner: 1,
            request: Request {
                sim_type: "shieldhit".to_owned(),
                editor: false,
                outputs: Vec::new(),
                inputs: Bytes::new(),
            },
            state: State::Known(state),
            tasks: (0..tasks as u64).map(|i| Task::pending(i + 1, 10, now)).collect(),
            start_us: now,
            end_us: None,
            results: None,
            logfiles: None,
            fetched: false,
            deleted: false,
            revoke: CancellationToken::new(),
            told: Told::default(),
            truth: JobTruth {
                job_id: format!("job-{pk}"),
                title: String::new(),
                username: "u".to_owned(),
                simulation_id: pk,
                tasks,
                flaws: Vec::new(),
                submitted_us: now,
                accepted_us: Some(now),
                running_us: None,
                tasks_done_us: None,
                merging_queued_us: None,
                merging_running_us: None,
                results_begun_us: None,
                completed_us: None,
                ended_us: None,
                final_state: state,
                results_posts: 0,
                died_of: None,
                traced: Default::default(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::{BadUpdate, Job, PollRoute, State, TaskUpdate};
    use crate::timeline::JobState;

    fn update(value: serde_json::Value) -> TaskUpdate {
        value.as_object().unwrap().clone()
    }

    fn post(job: &mut Job, index: usize, value: serde_json::Value) {
        job.update_task(index, update(value)).unwrap().unwrap();
    }

    fn shown(job: &Job) -> serde_json::Value {
        let mut out = String::new();
        job.tasks[0].write(&mut out);
        serde_json::from_str(&out).unwrap()
    }

    #[rstest]
    #[case(["PENDING", "PENDING"], "PENDING")]
    #[case(["FAILED", "FAILED"], "FAILED")]
    #[case(["RUNNING", "PENDING"], "RUNNING")]
    #[case(["FAILED", "RUNNING"], "RUNNING")]
    #[case(["COMPLETED", "PENDING"], "PENDING")]
    #[case(["COMPLETED", "COMPLETED"], "PENDING")]
    #[case(["FAILED", "COMPLETED"], "PENDING")]
    #[case(["BANANA", "PENDING"], "PENDING")]
    fn a_poll_derives(#[case] tasks: [&str; 2], #[case] expected: &str) {
        let mut job = Job::sample(1, 2);
        for (index, state) in tasks.into_iter().enumerate() {
            post(&mut job, index, json!({ "task_state": state }));
        }
        assert_eq!(job.state.as_str(), "PENDING", "only a poll moves the job");
        job.poll(PollRoute::Jobs);
        assert_eq!(job.state.as_str(), expected);
    }

    #[rstest]
    #[case("MERGING_QUEUED", PollRoute::Jobs, "MERGING_QUEUED")]
    #[case("MERGING_RUNNING", PollRoute::Jobs, "MERGING_RUNNING")]
    #[case("MERGING_RUNNING", PollRoute::Direct, "FAILED")]
    #[case("COMPLETED", PollRoute::Direct, "COMPLETED")]
    #[case("CANCELED", PollRoute::Jobs, "CANCELED")]
    #[case("UNKNOWN", PollRoute::Jobs, "UNKNOWN")]
    #[case("BANANA", PollRoute::Jobs, "FAILED")]
    fn a_poll_leaves_what_it_must(#[case] stored: &str, #[case] route: PollRoute, #[case] expected: &str) {
        let mut job = Job::sample(1, 1);
        post(&mut job, 0, json!({"task_state": "FAILED"}));
        job.enter(State::named(stored));
        job.poll(route);
        assert_eq!(job.state.as_str(), expected);
    }

    #[test]
    fn terminal_states_stay_and_others_may_go_back() {
        let mut job = Job::sample(1, 1);
        assert!(job.enter(State::Known(JobState::MergingRunning)));
        assert!(job.enter(State::Known(JobState::Pending)), "backwards is allowed");
        assert!(job.complete());
        let completed = job.truth.completed_us;
        assert!(!job.enter(State::Known(JobState::Running)));
        assert!(!job.complete());
        assert_eq!(job.state, State::Known(JobState::Completed));
        assert_eq!((job.truth.completed_us, job.end_us), (completed, completed));
    }

    #[test]
    fn updates_follow_the_contract() {
        let mut job = Job::sample(1, 1);
        post(&mut job, 0, json!({"start_time": "2026-11-22 22:00:00.5", "unknown": 1}));
        post(&mut job, 0, json!({"start_time": "2026-11-22 23:00:00.5", "simulated_primaries": 0}));
        assert_eq!(shown(&job)["start_time"], "Sun, 22 Nov 2026 22:00:00 GMT", "the first wins");
        post(&mut job, 0, json!({"estimated_time": 3725}));
        let estimated = json!({"hours": 1, "minutes": 2, "seconds": 5});
        assert_eq!(shown(&job)["estimated_time"], estimated);
        let end = "2026-11-22 22:00:09.1";
        post(&mut job, 0, json!({"end_time": end, "task_state": "COMPLETED"}));
        assert_eq!(shown(&job)["simulated_primaries"], 10);
        assert_eq!(shown(&job).get("estimated_time"), None);
        post(&mut job, 0, json!({"task_state": "RUNNING"}));
        assert_eq!(shown(&job)["task_state"], "COMPLETED", "a late update is ignored");
        assert!(job.truth.tasks_done_us.is_some() && job.truth.running_us.is_none());
    }

    #[test]
    fn bad_updates_change_nothing() {
        let mut job = Job::sample(1, 1);
        for bad in [
            json!({"task_state": 1}),
            json!({"task_state": "RUNNING", "start_time": "2026-11-22 22:00:00"}),
            json!({"task_state": "RUNNING", "simulated_primaries": "7"}),
        ] {
            assert_eq!(job.update_task(0, update(bad)), Some(Err(BadUpdate)));
        }
        assert_eq!(job.update_task(1, TaskUpdate::new()), None);
        assert!(job.tasks[0].state.is(JobState::Pending));
    }

    #[test]
    fn the_truth_notes_the_first_running_task_only() {
        let mut job = Job::sample(1, 2);
        post(&mut job, 0, json!({"task_state": "RUNNING"}));
        let first = job.truth.running_us;
        post(&mut job, 1, json!({"task_state": "RUNNING"}));
        assert!(first.is_some() && job.truth.running_us == first);
        let mut late = Job::sample(2, 1);
        late.enter(State::Known(JobState::MergingQueued));
        post(&mut late, 0, json!({"task_state": "RUNNING"}));
        assert_eq!(late.truth.running_us, None, "no poll would show it");
    }
}
