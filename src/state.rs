//! The states of a job, as the target names them, and the stages they bound.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A job's or task's state, in the target's own words.
///
/// The order of the variants is the order in which a healthy job passes
/// through them; `Canceled` and `Failed` sort last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobState {
    /// The row exists, the submit has not ended.
    Unknown,
    /// Accepted, no task has started.
    Pending,
    /// At least one task runs.
    Running,
    /// All tasks ended, the merge waits for a worker.
    MergingQueued,
    /// The merge runs.
    MergingRunning,
    /// Results are stored.
    Completed,
    /// The target gave up.
    Failed,
    /// A client canceled it.
    Canceled,
}

impl JobState {
    /// Every state, in order.
    pub const ALL: [Self; 8] = [
        Self::Unknown,
        Self::Pending,
        Self::Running,
        Self::MergingQueued,
        Self::MergingRunning,
        Self::Completed,
        Self::Failed,
        Self::Canceled,
    ];

    /// Whether the target never leaves this state.
    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Canceled)
    }

    /// Whether its results are being put together, or wait for it.
    pub fn is_merging(self) -> bool {
        matches!(self, Self::MergingQueued | Self::MergingRunning)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "UNKNOWN",
            Self::Pending => "PENDING",
            Self::Running => "RUNNING",
            Self::MergingQueued => "MERGING_QUEUED",
            Self::MergingRunning => "MERGING_RUNNING",
            Self::Completed => "COMPLETED",
            Self::Failed => "FAILED",
            Self::Canceled => "CANCELED",
        }
    }

    /// The state of that wire name; `None` for a name we do not know.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == name)
    }
}

impl fmt::Display for JobState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A part of a job's life that is timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Sending the submit to the last byte of its answer.
    Submit,
    /// Accepted to the first sight of RUNNING or a later state.
    Queue,
    /// RUNNING to MERGING_QUEUED or a later state.
    Run,
    /// The last task's end to MERGING_QUEUED: the tasks' results are handed over. Known to a tap only.
    HandOverQueued,
    /// MERGING_QUEUED to MERGING_RUNNING: they are handed over again. Known to a tap only.
    HandOverRunning,
    /// MERGING_QUEUED to COMPLETED: waiting for the merge, merging, persisting. A tap tells the
    /// persisting apart: to it the merge ends with the receipt of the results.
    Merge,
    /// The receipt of the results to the end of their answer. Known to a tap only.
    Persist,
    /// Sending the request for the results to their last byte.
    Fetch,
    /// Sending the submit to the last byte of the results.
    EndToEnd,
}

impl Stage {
    /// Every stage, in the order of a job's life; end-to-end last.
    pub const ALL: [Self; 9] = [
        Self::Submit,
        Self::Queue,
        Self::Run,
        Self::HandOverQueued,
        Self::HandOverRunning,
        Self::Merge,
        Self::Persist,
        Self::Fetch,
        Self::EndToEnd,
    ];

    /// Those that a client can tell by itself.
    pub const CLIENT: [Self; 6] =
        [Self::Submit, Self::Queue, Self::Run, Self::Merge, Self::Fetch, Self::EndToEnd];

    /// Those that a tap can tell.
    pub const TAP: [Self; 5] =
        [Self::Run, Self::HandOverQueued, Self::HandOverRunning, Self::Merge, Self::Persist];

    /// The name in files and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::Queue => "queue",
            Self::Run => "run",
            Self::HandOverQueued => "hand_over_queued",
            Self::HandOverRunning => "hand_over_running",
            Self::Merge => "merge",
            Self::Persist => "persist",
            Self::Fetch => "fetch",
            Self::EndToEnd => "end_to_end",
        }
    }

    /// Whether polling bounds it, so that it is an interval; a client clocks its others exactly.
    pub fn is_polled(self) -> bool {
        matches!(self, Self::Queue | Self::Run | Self::Merge)
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}
