//! One simulation, as its workers' posts tell it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Order;
use crate::{fault::Fate, micros::Micros, post::Post, route::Route, state::JobState};

/// When something became known to the target: after the receipt of the post that said so and
/// before the end of its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment {
    /// The post's head was read by the tap.
    pub received: Micros,
    /// Its exchange was over.
    pub answered: Micros,
}

/// One simulation. Moments are those of the first *accepted* post that says so, first by receipt.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulation {
    /// Posts that name it.
    pub posts: u64,
    /// Receipt of its first post, accepted or not.
    pub first_post: Option<Micros>,
    /// A task's state was told.
    pub first_state: Option<Moment>,
    /// A task was told to run.
    pub first_running: Option<Moment>,
    /// Distinct tasks that were spoken of.
    pub tasks: u32,
    /// Of them, those first told to have ended as COMPLETED.
    pub completed: u32,
    /// Of them, those first told to have ended as FAILED or CANCELED.
    pub failed: u32,
    /// The last word that a task has ended, before the merge was queued. A task may say so more
    /// than once: what watches it, and then itself.
    pub last_ended: Option<Moment>,
    /// MERGING_QUEUED was told.
    pub merging_queued: Option<Moment>,
    /// MERGING_RUNNING was told.
    pub merging_running: Option<Moment>,
    /// Receipt of the first whole post of results, accepted or not.
    #[serde(default)]
    pub results_received: Option<Micros>,
    /// The results were taken in.
    pub results: Option<Moment>,
    /// Posts of results.
    pub results_attempted: u64,
    /// Of them, those that were accepted.
    pub results_accepted: u64,
    /// Of these, those of which the target said that it did nothing again.
    pub results_replayed: u64,
    /// Bodies of it that the target never accepted.
    pub lost: u64,
    /// Bodies of it that were accepted without the worker learning of it.
    pub answers_lost: u64,
    /// Posts of it whose request or answer a fault cut off.
    pub dropped: u64,
    /// Posts of it that were repeated because the worker had not been told of success.
    pub retried: u64,
}

impl Simulation {
    /// Tasks that were told to have ended.
    pub fn ended(&self) -> u32 {
        self.completed + self.failed
    }

    /// Times the results were written, replays left out.
    pub fn final_writes(&self) -> u64 {
        self.results_accepted - self.results_replayed
    }

    /// From the receipt of the results to the end of their answer.
    pub fn persist(&self) -> Option<Micros> {
        self.results.map(|r| r.answered.saturating_sub(r.received))
    }
}

/// The earliest of some posts.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Earliest(Option<(Order, Moment)>);

impl Earliest {
    /// Takes it when it was received before. Returns whether it did.
    fn take(&mut self, post: &Post) -> bool {
        let order = (post.received, post.seq);
        let is_first = self.0.is_none_or(|(first, _)| order < first);
        if is_first {
            self.0 = Some((order, Moment { received: post.received, answered: post.ended }));
        }
        is_first
    }

    fn moment(self) -> Option<Moment> {
        self.0.map(|(_, moment)| moment)
    }
}

/// A simulation while its posts come in.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Telling {
    told: Simulation,
    state: Earliest,
    running: Earliest,
    queued: Earliest,
    merging: Earliest,
    results: Earliest,
    /// Of each task, its first terminal post and the state it told, and the moments of all of them.
    tasks: BTreeMap<u64, (Earliest, Option<JobState>, Vec<Moment>)>,
}

impl Telling {
    pub(super) fn add(&mut self, post: &Post) {
        let told = &mut self.told;
        told.posts += 1;
        told.first_post = Some(told.first_post.map_or(post.received, |first| first.min(post.received)));
        told.dropped += u64::from(matches!(post.fate, Fate::DropRequest | Fate::DropAnswer | Fate::Refuse));
        if post.route == Route::Results {
            told.results_attempted += 1;
            if post.hash.is_some() {
                let before = told.results_received.unwrap_or(post.received);
                told.results_received = Some(before.min(post.received));
            }
        }
        let task = post.task.filter(|_| post.route == Route::Tasks).map(|t| self.tasks.entry(t).or_default());
        if !post.is_accepted() {
            return;
        }
        match (post.route, post.state) {
            (Route::Results, _) => {
                told.results_accepted += 1;
                told.results_replayed += u64::from(post.replayed);
                self.results.take(post);
            }
            (Route::Jobs, Some(JobState::MergingQueued)) => _ = self.queued.take(post),
            (Route::Jobs, Some(JobState::MergingRunning)) => _ = self.merging.take(post),
            (Route::Tasks, Some(state)) => {
                self.state.take(post);
                if state == JobState::Running {
                    self.running.take(post);
                }
                if let (true, Some((first, ended_as, words))) = (state.is_terminal(), task) {
                    words.push(Moment { received: post.received, answered: post.ended });
                    if first.take(post) {
                        *ended_as = Some(state);
                    }
                }
            }
            _ => {}
        }
    }

    pub(super) fn close(&self) -> Simulation {
        let ended_as = |wanted: fn(JobState) -> bool| {
            self.tasks.values().filter(|(_, state, _)| state.is_some_and(wanted)).count() as u32
        };
        let queued = self.queued.moment().map(|m| m.received);
        let words = self.tasks.values().flat_map(|(.., words)| words).copied();
        Simulation {
            first_state: self.state.moment(),
            first_running: self.running.moment(),
            tasks: self.tasks.len() as u32,
            completed: ended_as(|s| s == JobState::Completed),
            failed: ended_as(|s| s != JobState::Completed),
            last_ended: words.filter(|m| queued.is_none_or(|queued| m.received <= queued)).max(),
            merging_queued: self.queued.moment(),
            merging_running: self.merging.moment(),
            results: self.results.moment(),
            ..self.told.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posts::sample::{post, post_of_task};

    fn told(posts: &[Post]) -> Simulation {
        let mut telling = Telling::default();
        posts.iter().for_each(|p| telling.add(p));
        telling.close()
    }

    #[test]
    fn the_first_accepted_post_of_each_task_counts() {
        let refused = Post { status: Some(400), ..post_of_task(1, 100, 0, JobState::Completed) };
        let s = told(&[
            refused,
            post_of_task(2, 150, 0, JobState::Running),
            post_of_task(3, 300, 0, JobState::Completed),
            post_of_task(4, 900, 0, JobState::Completed),
            post_of_task(5, 500, 1, JobState::Failed),
            post_of_task(6, 120, 2, JobState::Running),
        ]);
        assert_eq!((s.tasks, s.completed, s.failed, s.ended()), (3, 1, 1, 2));
        assert_eq!(s.last_ended.unwrap().received, Micros(900));
        assert_eq!((s.first_post, s.first_running.unwrap().received), (Some(Micros(100)), Micros(120)));
    }

    #[test]
    fn two_accepted_results_are_two_writes_unless_one_is_a_replay() {
        let write = |seq, replayed| Post { replayed, ..post(seq, seq * 100, Route::Results, 9) };
        assert_eq!(told(&[write(1, false), write(2, false)]).final_writes(), 2);
        assert_eq!(told(&[write(1, false), write(2, true)]).final_writes(), 1);
        assert_eq!(told(&[write(1, false)]).persist(), Some(Micros(50)));
    }
}
