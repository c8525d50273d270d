//! The tables: users, simulations, inputs, and how long results are kept.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hyper::StatusCode;
use sha2::{Digest, Sha256};

use super::bug::Flaw;
use super::job::{BadUpdate, Job, PollRoute, State, TaskUpdate};
use super::metrics::Metrics;
use super::reply::Reply;
use crate::timeline::JobState;

/// How many different inputs are shared between jobs.
const SHARED_INPUTS: usize = 64;

/// A user row.
#[derive(Debug, Clone)]
pub(super) struct User {
    pub(super) id: u64,
    pub(super) name: String,
    password: [u8; 32],
}

/// Everything that is stored, behind one lock.
#[derive(Debug, Default)]
pub(super) struct Store {
    users: Vec<User>,
    user_ids: HashMap<String, u64>,
    jobs: Vec<Job>,
    pks: HashMap<String, u64>,
    by_owner: HashMap<u64, Vec<u64>>,
    tasks: u64,
    in_flight: u64,
    inputs: VecDeque<Bytes>,
    kept: VecDeque<u64>,
    /// Told of every change of a job.
    metrics: Arc<Metrics>,
    pub(super) in_flight_max: u64,
    pub(super) submitted: u64,
    pub(super) logins: u64,
}

impl Store {
    /// Empty tables that tell these metrics of every change of a job.
    pub(super) fn telling(metrics: Arc<Metrics>) -> Self {
        Self { metrics, ..Self::default() }
    }

    /// Adds a user; `None` if the name is taken.
    pub(super) fn register(&mut self, name: &str, password: &str) -> Option<()> {
        if self.user_ids.contains_key(name) {
            return None;
        }
        let id = self.users.len() as u64 + 1;
        let password = Sha256::digest(password).into();
        self.users.push(User { id, name: name.to_owned(), password });
        self.user_ids.insert(name.to_owned(), id);
        Some(())
    }

    /// The user with this name and password.
    pub(super) fn login(&self, name: &str, password: &str) -> Option<&User> {
        let user = self.user(*self.user_ids.get(name)?)?;
        (user.password == <[u8; 32]>::from(Sha256::digest(password))).then_some(user)
    }

    pub(super) fn user(&self, id: u64) -> Option<&User> {
        self.users.get(usize::try_from(id).ok()?.checked_sub(1)?)
    }

    /// The key of the next simulation row.
    pub(super) fn next_pk(&self) -> u64 {
        self.jobs.len() as u64 + 1
    }

    /// Hands out the keys of `count` task rows; the first of them.
    pub(super) fn take_task_pks(&mut self, count: usize) -> u64 {
        let first = self.tasks + 1;
        self.tasks += count as u64;
        first
    }

    /// Adds a row; its key is the one [`next_pk`](Self::next_pk) gave.
    pub(super) fn insert(&mut self, job: Job) {
        let pk = self.next_pk();
        self.pks.insert(job.truth.job_id.clone(), pk);
        self.by_owner.entry(job.owner).or_default().push(pk);
        if !job.state.is(JobState::Unknown) {
            self.in_flight += 1;
            self.in_flight_max = self.in_flight_max.max(self.in_flight);
        }
        self.jobs.push(job);
    }

    /// The same bytes as an earlier input, shared, where there was one.
    pub(super) fn share_input(&mut self, input: Bytes) -> Bytes {
        if let Some(shared) = self.inputs.iter().find(|shared| **shared == input) {
            return shared.clone();
        }
        if self.inputs.len() == SHARED_INPUTS {
            self.inputs.pop_front();
        }
        self.inputs.push_back(input.clone());
        input
    }

    /// The row with this key, unless it was deleted.
    pub(super) fn by_pk(&mut self, pk: u64) -> Option<&mut Job> {
        let job = self.jobs.get_mut(usize::try_from(pk).ok()?.checked_sub(1)?)?;
        (!job.deleted).then_some(job)
    }

    /// The row a client names; lost ones are not found.
    pub(super) fn by_job_id(&mut self, job_id: &str) -> Option<(u64, &mut Job)> {
        let pk = *self.pks.get(job_id)?;
        let job = self.by_pk(pk)?;
        (!job.has(Flaw::LoseJob)).then_some((pk, job))
    }

    /// The row a client names, whether it is to be found or not.
    pub(super) fn ever_named(&mut self, job_id: &str) -> Option<&mut Job> {
        let pk = *self.pks.get(job_id)?;
        self.jobs.get_mut(usize::try_from(pk).ok()?.checked_sub(1)?)
    }

    /// The row a client names, if it is there and theirs.
    pub(super) fn job_of(&mut self, user: u64, job_id: &str) -> Result<(u64, &mut Job), Reply> {
        let found = self.by_job_id(job_id);
        let (pk, job) = found.ok_or_else(|| Reply::not_found("Job with provided ID does not exist"))?;
        if job.owner != user {
            let text = "Job with provided ID does not belong to the user";
            return Err(Reply::message(StatusCode::FORBIDDEN, text));
        }
        Ok((pk, job))
    }

    /// The rows of a user, oldest first.
    pub(super) fn jobs_of(&self, user: u64) -> impl Iterator<Item = &Job> {
        let pks = self.by_owner.get(&user).map_or(&[][..], Vec::as_slice);
        let rows = pks.iter().filter_map(|pk| self.jobs.get(usize::try_from(*pk - 1).ok()?));
        rows.filter(|job| !job.deleted && !job.has(Flaw::LoseJob))
    }

    /// Every row ever made.
    pub(super) fn all(&self) -> &[Job] {
        &self.jobs
    }

    /// Moves a job and keeps the count of jobs in flight.
    pub(super) fn enter(&mut self, pk: u64, state: State) {
        self.move_job(pk, |job| job.enter(state));
    }

    /// Lets a poll derive the state.
    pub(super) fn poll(&mut self, pk: u64, route: PollRoute) {
        self.move_job(pk, |job| job.poll(route));
    }

    /// Applies a worker's update to a task; `None` if there is no such task.
    ///
    /// # Errors
    /// The update has a value of the wrong kind; nothing was changed.
    pub(super) fn update_task(
        &mut self,
        pk: u64,
        index: usize,
        update: TaskUpdate,
    ) -> Option<Result<(), BadUpdate>> {
        let metrics = Arc::clone(&self.metrics);
        let job = self.by_pk(pk)?;
        let applied = job.update_task(index, update);
        job.tell(&metrics);
        applied
    }

    /// Ends the merge.
    pub(super) fn complete(&mut self, pk: u64) {
        self.move_job(pk, Job::complete);
    }

    /// Cancels what is not over.
    pub(super) fn cancel(&mut self, pk: u64) {
        self.move_job(pk, |job| {
            job.cancel();
            true
        });
    }

    /// The queue did not take the job: the row stays as a submit that broke off leaves it.
    pub(super) fn unpublished(&mut self, pk: u64) {
        let Some(job) = self.by_pk(pk) else { return };
        job.state = State::Known(JobState::Unknown);
        job.truth.final_state = JobState::Unknown;
        job.truth.accepted_us = None;
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Deletes the row and everything that hangs on it.
    pub(super) fn delete(&mut self, pk: u64) {
        let Some(job) = self.by_pk(pk) else { return };
        let in_flight = !job.state.is_terminal();
        let (owner, job_id) = (job.owner, job.truth.job_id.clone());
        job.delete();
        self.in_flight = self.in_flight.saturating_sub(u64::from(in_flight));
        self.pks.remove(&job_id);
        if let Some(pks) = self.by_owner.get_mut(&owner) {
            pks.retain(|other| *other != pk);
        }
        self.kept.retain(|other| *other != pk);
    }

    fn move_job(&mut self, pk: u64, change: impl FnOnce(&mut Job) -> bool) {
        let metrics = Arc::clone(&self.metrics);
        let Some(job) = self.by_pk(pk) else { return };
        let was = job.state.is_terminal();
        let ended = change(job) && !was && job.state.is_terminal();
        job.tell(&metrics);
        if ended {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
    }

    /// Notes that `pk` has results now, and drops those of the oldest jobs beyond `limit`:
    /// fetched ones first, and others only beyond four times the limit.
    pub(super) fn keep_results(&mut self, pk: u64, limit: usize) {
        if !self.kept.contains(&pk) {
            self.kept.push_back(pk);
        }
        while self.kept.len() > limit {
            let fetched = |pk: &u64| {
                let index = usize::try_from(*pk - 1).unwrap_or(usize::MAX);
                self.jobs.get(index).is_some_and(|job| job.fetched)
            };
            let oldest = match self.kept.iter().position(fetched) {
                Some(place) => self.kept.remove(place),
                None if self.kept.len() > limit.saturating_mul(4) => self.kept.pop_front(),
                None => return,
            };
            if let Some(job) = oldest.and_then(|pk| self.by_pk(pk)) {
                job.results = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde_json::value::RawValue;

    use super::Store;
    use crate::standin::job::{Job, State};
    use crate::standin::stored::Posted;
    use crate::timeline::JobState;

    fn with_jobs(count: u64) -> Store {
        let mut store = Store::default();
        for pk in 1..=count {
            assert_eq!(store.next_pk(), pk);
            store.insert(Job::sample(pk, 1));
        }
        store
    }

    fn finish(store: &mut Store, pk: u64, limit: usize) {
        let none = RawValue::from_string("[]".to_owned()).unwrap();
        let results = Posted::read(&none).unwrap().store(pk);
        store.by_pk(pk).unwrap().results = Some(results);
        store.complete(pk);
        store.keep_results(pk, limit);
    }

    fn kept(store: &mut Store, count: u64) -> Vec<u64> {
        (1..=count).filter(|pk| store.by_pk(*pk).is_some_and(|job| job.results.is_some())).collect()
    }

    #[test]
    fn fetched_results_go_first_and_others_only_when_there_are_far_too_many() {
        let mut store = with_jobs(9);
        for pk in 1..=4 {
            finish(&mut store, pk, 2);
        }
        assert_eq!(kept(&mut store, 9), [1, 2, 3, 4], "nobody has fetched them");
        store.by_pk(2).unwrap().fetched = true;
        finish(&mut store, 5, 2);
        assert_eq!(kept(&mut store, 9), [1, 3, 4, 5]);
        for pk in 6..=9 {
            finish(&mut store, pk, 1);
        }
        assert_eq!(kept(&mut store, 9), [6, 7, 8, 9]);
    }

    #[test]
    fn jobs_in_flight_are_counted_once() {
        let mut store = with_jobs(3);
        store.complete(1);
        store.complete(1);
        store.enter(2, State::Known(JobState::Failed));
        store.delete(2);
        store.insert(Job::sample(4, 1));
        assert_eq!((store.in_flight, store.in_flight_max), (2, 3));
        store.cancel(3);
        store.delete(4);
        assert_eq!(store.in_flight, 0);
        assert_eq!((store.all().len(), store.jobs_of(1).count()), (4, 2));
    }

    #[test]
    fn equal_inputs_are_stored_once() {
        let mut store = Store::default();
        let first = store.share_input(Bytes::from("x".repeat(100)));
        let second = store.share_input(Bytes::from("x".repeat(100)));
        assert_eq!(first.as_ptr(), second.as_ptr());
        assert_ne!(store.share_input(Bytes::from("y")), first);
    }

    #[test]
    fn names_are_taken_once_and_passwords_count() {
        let mut store = Store::default();
        assert!(store.register("a", "p").is_some());
        assert!(store.register("a", "q").is_none());
        assert!(store.login("a", "q").is_none() && store.login("b", "p").is_none());
        assert_eq!(store.login("a", "p").map(|user| user.id), Some(1));
    }
}
