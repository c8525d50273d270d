//! What can be found, and how it is said.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    micros::Micros,
    timeline::{JobState, Stage},
};

/// What can be found.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Kind {
    /// Jobs hang because a post of theirs was lost and no worker repeated it.
    StuckAfterLostPost {
        /// The state they hang in.
        state: JobState,
    },
    /// The target's list gives the job an end time, yet its state is not terminal: a COMPLETED
    /// was overwritten.
    CompletedOverwritten {
        /// The state it is in for good.
        state: JobState,
    },
    /// No terminal state within the job timeout.
    Stuck {
        /// The state it hangs in.
        state: JobState,
    },
    /// The state went against the order of a job's life.
    WentBackwards {
        /// From this.
        from: JobState,
        /// To this.
        to: JobState,
    },
    /// Results were taken in twice for one simulation, and not as a replay.
    DuplicateFinalWrite,
    /// COMPLETED, though not every task of the job had ended as COMPLETED.
    PartialResults,
    /// Posts that the target never took in, however often they were tried.
    PostsLost,
    /// Posts that the target took in without their worker learning of it.
    AnswersLost,
    /// The target answered posts of its own workers with an error.
    PostsRefusedByTarget {
        /// HTTP status.
        status: u16,
    },
    /// Workers repeated posts of whose success they had not been told.
    RetriesSeen,
    /// Estimators or pages stand in the results more than once.
    DuplicateResults,
    /// Jobs of one input have results of different shapes.
    ResultsDiffer,
    /// What came back makes no sense, such as results that are missing though the job is COMPLETED.
    BrokenResults {
        /// What was wrong.
        what: String,
    },
    /// The target has a job whose submit it never answered as accepted.
    GhostJob,
    /// One submit made two jobs.
    DuplicateJob,
    /// An accepted job is not in the target's list.
    VanishedJob,
    /// The target answers 404 for a job it accepted.
    LostJob,
    /// The target said FAILED.
    FailedJob,
    /// Submits were refused.
    RejectedSubmit {
        /// HTTP status, 0 for none.
        status: u16,
    },
    /// A state name outside the contract.
    UnknownState,
    /// A job that we gave up could not be canceled, or did not become terminal.
    NotQuiet,
    /// The target could not be asked for its own list.
    Unreconciled,
    /// More simulations posted than we have jobs for.
    ForeignPosts,
    /// The fault could not be injected just as it was ordered.
    FaultDeviates,
    /// The poll interval blurs a stage by more than 5 % of its median.
    PollTooCoarse {
        /// The stage.
        stage: Stage,
        /// Its median.
        median: Micros,
        /// The poll interval.
        interval: Micros,
    },
    /// States that no poll saw in some jobs, because they were shorter than the poll interval.
    SkippedState {
        /// The state.
        state: JobState,
    },
    /// A worker did not stay to the end of a cell.
    WorkerLost {
        /// Its name; of many, the first few.
        worker: String,
    },
    /// Jobs that were given up before the cell, and nobody saw whether the target still worked on them.
    LeftoversUnseen,
    /// Workers that the run lost, in a cell or between two.
    WorkersLost,
    /// Workers that came and were sent away.
    WorkersRefused,
    /// Frames of workers that were not counted on any more.
    LateFrames,
    /// The manager was cut off from the plane.
    CutOff,
}

impl Kind {
    /// Whether it speaks of how we looked and not of the target.
    pub fn is_about_us(&self) -> bool {
        self.is_about_workers()
            || matches!(
                self,
                Self::PollTooCoarse { .. }
                    | Self::SkippedState { .. }
                    | Self::ForeignPosts
                    | Self::FaultDeviates
                    | Self::LeftoversUnseen
            )
    }

    /// Whether it speaks of who made the load.
    pub fn is_about_workers(&self) -> bool {
        matches!(
            self,
            Self::WorkerLost { .. }
                | Self::WorkersLost
                | Self::WorkersRefused
                | Self::LateFrames
                | Self::CutOff
        )
    }

    /// Whether it speaks of what became of posts, so that a fault may be behind it.
    pub fn is_of_posts(&self) -> bool {
        matches!(
            self,
            Self::StuckAfterLostPost { .. }
                | Self::DuplicateFinalWrite
                | Self::PostsLost
                | Self::AnswersLost
                | Self::PostsRefusedByTarget { .. }
                | Self::RetriesSeen
        )
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CompletedOverwritten { state } => write!(
                f,
                "COMPLETED overwritten: the target's list has an end time, but the job stays {state}"
            ),
            Self::StuckAfterLostPost { state } => write!(
                f,
                "jobs stuck in {state} after a post of theirs was lost: the target's workers do not repeat a post, so one lost post can leave a job {state} for ever"
            ),
            Self::DuplicateFinalWrite => f.write_str("simulations whose results were written twice"),
            Self::PartialResults => {
                f.write_str("COMPLETED though not all of its tasks had ended so: its results may be partial")
            }
            Self::PostsLost => f.write_str("posts of the target's workers lost for good"),
            Self::AnswersLost => {
                f.write_str("posts taken in by the target without their worker ever learning of it")
            }
            Self::PostsRefusedByTarget { status } => {
                write!(f, "posts of the target's own workers answered with status {status}")
            }
            Self::RetriesSeen => f.write_str("posts repeated after a failure: the target's workers do retry"),
            Self::ForeignPosts => f.write_str(
                "simulations in excess of our jobs, among them somebody else's: they are left out of stages and counts, and a fault may have hit them too",
            ),
            Self::FaultDeviates => f.write_str("the fault could not be injected just as ordered"),
            Self::Stuck { state } => write!(f, "stuck in {state} until the job timeout"),
            Self::WentBackwards { from, to } => {
                write!(f, "state went backwards from {from} to {to}")
            }
            Self::DuplicateResults => {
                f.write_str("results stored more than once: duplicate estimators or pages")
            }
            Self::ResultsDiffer => f.write_str("results of one input differ in shape"),
            Self::BrokenResults { what } if what.starts_with("results") => {
                write!(f, "COMPLETED, but the {what}")
            }
            Self::BrokenResults { what } => write!(f, "no outcome that makes sense: {what}"),
            Self::GhostJob => f.write_str("ghost: the target has a job whose submit it did not accept"),
            Self::DuplicateJob => f.write_str("duplicate: one submit made more than one job"),
            Self::VanishedJob => f.write_str("vanished: an accepted job is not in the target's list"),
            Self::LostJob => f.write_str("lost: the target answers 404 for a job it accepted"),
            Self::FailedJob => f.write_str("the target ended the job as FAILED"),
            Self::RejectedSubmit { status: 0 } => f.write_str("submit got no answer"),
            Self::RejectedSubmit { status } => write!(f, "submit refused with status {status}"),
            Self::UnknownState => f.write_str("state name outside the contract"),
            Self::NotQuiet => {
                f.write_str("a job that was given up or left over could not be made terminal; it loads this cell or later ones")
            }
            Self::Unreconciled => f.write_str("the target's own list of jobs could not be read"),
            Self::PollTooCoarse { stage, median, interval } => write!(
                f,
                "the poll interval ({interval}) exceeds 5 % of a cell's median {stage} stage ({median}): lower --poll-interval for sharper figures"
            ),
            Self::SkippedState { state } => {
                write!(f, "{state} was shorter than the poll interval and not seen")
            }
            Self::WorkerLost { worker } => {
                write!(f, "lost before the end of a cell, which is INVALID for it: worker {worker}")
            }
            Self::LeftoversUnseen => f.write_str(
                "jobs were given up before this cell, and nothing told whether the target still worked on them, which would slow the cell: give --redis-url or a tap",
            ),
            Self::WorkersLost => f.write_str("workers lost"),
            Self::WorkersRefused => f.write_str("workers sent away"),
            Self::LateFrames => f.write_str(
                "frames of workers that were not counted on any more: kept apart, in no figure",
            ),
            Self::CutOff => f.write_str("cut off from the plane: every worker stopped, and joined anew"),
        }
    }
}
