//! One job as its client saw it: what was clocked, what was only seen between two polls, how it
//! ended.
//!
//! All moments are offsets from the cell's T0 on the client's monotonic clock. A change of state
//! is an interval: it happened after the *sending* of the last poll that saw the old state and
//! before the *receipt* of the first poll that saw the new one.

use std::fmt;

use serde::{Deserialize, Serialize};

pub use crate::state::{JobState, Stage};
use crate::{estimate::Span, micros::Micros};

/// A moment known to lie in `(after, before]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Between {
    /// Not before this.
    pub after: Micros,
    /// Not after this.
    pub before: Micros,
}

impl Between {
    /// A moment that is known.
    fn at(moment: Micros) -> Self {
        Self { after: moment, before: moment }
    }

    /// Midpoint of the bounds.
    pub fn midpoint(self) -> Micros {
        Micros(self.after.0.midpoint(self.before.0))
    }

    /// Half their distance.
    pub fn half_width(self) -> Micros {
        Micros(self.before.saturating_sub(self.after).0.div_ceil(2))
    }
}

/// A change of state, as polling saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Observed {
    /// The state that was new.
    pub state: JobState,
    /// When it began.
    pub began: Between,
}

/// A request that was clocked from sending to last byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clocked {
    /// Before the first byte was sent.
    pub sent: Micros,
    /// The answer's last byte was read.
    pub done: Micros,
}

impl Clocked {
    /// How long it took.
    pub fn took(self) -> Micros {
        self.done.saturating_sub(self.sent)
    }
}

/// How a job ended for its client. Data, never an error.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum JobOutcome {
    /// Completed, and the results were read whole.
    Fetched,
    /// The target said FAILED.
    Failed,
    /// The target said CANCELED, or we stopped and canceled it.
    Canceled,
    /// No terminal state within the job timeout.
    TimedOut {
        /// The last state seen.
        in_state: JobState,
    },
    /// The submit was refused.
    Rejected {
        /// HTTP status of the refusal; 0 when there was no answer at all.
        status: u16,
    },
    /// The target answers 404 for a job it had accepted.
    Lost,
    /// What came back makes no sense.
    Broken {
        /// What was wrong.
        what: String,
    },
}

impl JobOutcome {
    /// The kind without its details; a label in files.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Fetched => "fetched",
            Self::Failed => "failed",
            Self::Canceled => "canceled",
            Self::TimedOut { .. } => "timed_out",
            Self::Rejected { .. } => "rejected",
            Self::Lost => "lost",
            Self::Broken { .. } => "broken",
        }
    }

    /// Whether it came of getting no answer from the target, not even an error.
    pub fn is_unanswered(&self) -> bool {
        match self {
            Self::Rejected { status } => *status == 0,
            // An answer that is no use begins with its status.
            Self::Broken { what } => what
                .strip_prefix(Self::NO_ANSWER)
                .and_then(|rest| rest.split_once(": "))
                .is_some_and(|(_, why)| !why.starts_with(|c: char| c.is_ascii_digit())),
            _ => false,
        }
    }

    /// How [`Broken`](Self::Broken) begins for a job whose state could not be learned for longer than our
    /// patience; behind it stand that time, a colon, and why.
    pub const NO_ANSWER: &'static str = "no usable answer for ";

    /// Every kind, in the order in which ledgers list them.
    pub const KINDS: [&'static str; 7] =
        ["fetched", "failed", "canceled", "timed_out", "rejected", "lost", "broken"];
}

impl fmt::Display for JobOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut { in_state } => write!(f, "timed out in {in_state}"),
            Self::Rejected { status: 0 } => f.write_str("rejected: no answer"),
            Self::Rejected { status } => write!(f, "rejected with status {status}"),
            Self::Broken { what } => write!(f, "broken: {what}"),
            other => f.write_str(other.kind()),
        }
    }
}

/// Everything clocked and seen of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct JobTimeline {
    /// The submit.
    pub submit: Option<Clocked>,
    /// Changes of state in the order they were seen, backward ones included.
    pub seen: Vec<Observed>,
    /// The successful fetch of the results.
    pub fetch: Option<Clocked>,
    /// When the client let go of the job, whatever the outcome.
    pub ended: Micros,
    /// Answered polls.
    pub polls: u32,
    /// Bytes of their answers on the wire.
    pub poll_bytes: u64,
    /// Sending time of the last poll that got an answer, or of the submit.
    last_look: Micros,
}

/// How far a job has come, for bounding stages.
const MILESTONES: [JobState; 3] = [JobState::Running, JobState::MergingQueued, JobState::Completed];

impl JobTimeline {
    /// Notes the submit, answered or not.
    pub fn submitted(&mut self, submit: Clocked) {
        self.submit = Some(submit);
        self.last_look = submit.sent;
    }

    /// Notes what one poll saw. Returns the state it replaces when that one came later in a
    /// job's life: the target went backwards.
    pub fn observe(&mut self, state: JobState, poll: Clocked, bytes: u64) -> Option<JobState> {
        self.polls += 1;
        self.poll_bytes += bytes;
        let before = self.state();
        if before != Some(state) {
            let began = Between { after: self.last_look, before: poll.done };
            self.seen.push(Observed { state, began });
        }
        self.last_look = poll.sent;
        before.filter(|&b| state < b && state != JobState::Unknown || b.is_terminal() && state != b)
    }

    /// The state last seen.
    pub fn state(&self) -> Option<JobState> {
        self.seen.last().map(|o| o.state)
    }

    /// States a healthy job passes through that no poll saw.
    pub fn skipped(&self) -> Vec<JobState> {
        let Some(furthest) = self.seen.iter().map(|o| o.state).filter(|s| *s <= JobState::Completed).max()
        else {
            return Vec::new();
        };
        let path = [JobState::Pending, JobState::Running, JobState::MergingQueued, JobState::MergingRunning];
        path.into_iter().filter(|s| *s < furthest && !self.seen.iter().any(|o| o.state == *s)).collect()
    }

    /// When the job first was in `state` or any later one of a healthy life.
    pub fn reached(&self, state: JobState) -> Option<Between> {
        self.seen.iter().find(|o| o.state >= state && o.state <= JobState::Completed).map(|o| o.began)
    }

    /// When a stage began and when it ended; no end while the job has not left it. `None` when it
    /// never entered it, and for stages that no client can tell.
    pub fn bounds(&self, stage: Stage) -> Option<(Between, Option<Between>)> {
        let submit = self.submit?;
        let clocked = |c: Clocked| (Between::at(c.sent), Some(Between::at(c.done)));
        match stage {
            Stage::Submit => Some(clocked(submit)),
            Stage::Fetch => self.fetch.map(clocked),
            Stage::EndToEnd => Some((Between::at(submit.sent), self.fetch.map(|f| Between::at(f.done)))),
            // The target accepted it at some moment between sending the submit and its answer.
            Stage::Queue => {
                let start = Between { after: submit.sent, before: submit.done };
                (!self.seen.is_empty()).then(|| (start, self.reached(MILESTONES[0])))
            }
            Stage::Run => Some((self.reached(MILESTONES[0])?, self.reached(MILESTONES[1]))),
            Stage::Merge => Some((self.reached(MILESTONES[1])?, self.reached(MILESTONES[2]))),
            Stage::HandOverQueued | Stage::HandOverRunning | Stage::Persist => None,
        }
    }

    /// How long a stage took, as tightly as it is known. `None` when the job never entered it, and
    /// for stages that no client can tell; a stage it entered and did not leave is censored at the
    /// last moment at which it is known to have been in it.
    pub fn stage(&self, stage: Stage) -> Option<Span> {
        let (start, end) = self.bounds(stage)?;
        let until = if stage == Stage::EndToEnd { self.ended } else { self.last_sure() };
        Some(match end {
            Some(end) => Span {
                least: end.after.saturating_sub(start.before),
                most: Some(end.before.saturating_sub(start.after)),
            },
            None => Span::at_least(until.saturating_sub(start.before)),
        })
    }

    /// The last moment at which the job is known not to have ended as FAILED or CANCELED, and not
    /// to have gone on.
    pub fn last_sure(&self) -> Micros {
        let given_up = self.seen.iter().find(|o| o.state > JobState::Completed);
        given_up.map_or(self.last_look, |o| o.began.after)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn clocked(sent: u64, done: u64) -> Clocked {
        Clocked { sent: Micros(sent), done: Micros(done) }
    }

    fn job() -> JobTimeline {
        let mut t = JobTimeline::default();
        t.submitted(clocked(0, 50));
        t
    }

    #[test]
    fn a_change_lies_between_sending_the_last_old_poll_and_receiving_the_first_new_one() {
        let mut t = job();
        t.observe(JobState::Pending, clocked(100, 110), 1);
        t.observe(JobState::Running, clocked(200, 210), 1);
        assert_eq!(t.seen[1].began, Between { after: Micros(100), before: Micros(210) });
    }

    #[test]
    fn skipped_states_are_named_and_share_the_interval() {
        let mut t = job();
        t.observe(JobState::Pending, clocked(100, 110), 1);
        t.observe(JobState::Completed, clocked(200, 210), 1);
        assert_eq!(t.skipped(), [JobState::Running, JobState::MergingQueued, JobState::MergingRunning]);
        let merge = t.stage(Stage::Merge).unwrap();
        assert_eq!((merge.least, merge.most), (Micros(0), Some(Micros(110))));
    }

    #[test]
    fn a_failed_job_left_its_stage_after_the_last_look_that_saw_it_there() {
        let mut t = job();
        t.observe(JobState::Pending, clocked(1_000, 1_010), 1);
        t.observe(JobState::Failed, clocked(1_500, 1_510), 1);
        assert_eq!(t.stage(Stage::Queue).unwrap(), Span::at_least(Micros(950)));
    }

    #[test]
    fn going_backwards_is_told() {
        let mut t = job();
        assert_eq!(t.observe(JobState::MergingRunning, clocked(1, 2), 1), None);
        assert_eq!(t.observe(JobState::Running, clocked(3, 4), 1), Some(JobState::MergingRunning));
    }

    #[test]
    fn an_unfinished_job_is_censored() {
        let mut t = job();
        t.observe(JobState::Running, clocked(100, 110), 1);
        t.observe(JobState::Running, clocked(900, 910), 1);
        t.ended = Micros(1000);
        assert_eq!(t.stage(Stage::EndToEnd).unwrap(), Span::at_least(Micros(1000)));
        assert_eq!(t.stage(Stage::Run).unwrap(), Span::at_least(Micros(790)));
        assert_eq!(t.stage(Stage::Merge), None);
    }

    /// A true life and the polls that watched it.
    fn lives() -> impl Strategy<Value = ([u64; 4], Vec<(u64, u64, u64)>)> {
        let truth = prop::array::uniform4(1u64..5_000).prop_map(|gaps| {
            let mut at = 60;
            gaps.map(|g| {
                at += g;
                at
            })
        });
        let polls = prop::collection::vec((1u64..900, 0u64..50, 0u64..50), 1..80);
        (truth, polls).prop_flat_map(|(t, p)| (Just(t), Just(p)))
    }

    proptest! {
        #[test]
        fn every_stage_contains_the_truth((truth, gaps) in lives()) {
            let states = [JobState::Running, JobState::MergingQueued, JobState::MergingRunning, JobState::Completed];
            let mut t = job();
            let mut at = 60;
            for (gap, there, back) in gaps {
                let (sent, read, done) = (at + gap, at + gap + there, at + gap + there + back);
                at = done;
                let state = truth.iter().rposition(|&m| m <= read).map_or(JobState::Pending, |i| states[i]);
                t.observe(state, clocked(sent, done), 1);
            }
            t.ended = Micros(at);
            let exact = [(Stage::Queue, 50, truth[0]), (Stage::Run, truth[0], truth[1]), (Stage::Merge, truth[1], truth[3])];
            for (stage, from, to) in exact {
                if let Some(span) = t.stage(stage) {
                    let d = Micros(to - from);
                    prop_assert!(span.least <= d, "{stage}: {span:?} against {d:?}");
                    if let Some(most) = span.most { prop_assert!(d <= most, "{stage}: {span:?} against {d:?}"); }
                }
            }
            let json = serde_json::to_string(&t).unwrap();
            prop_assert_eq!(serde_json::from_str::<JobTimeline>(&json).unwrap(), t);
        }
    }
}
