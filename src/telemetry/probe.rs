//! A probe beside a cell.

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

/// What came of a probe in one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRun {
    /// Which probe.
    pub name: String,
    /// The command as it was started; the first word is the program.
    pub command: Vec<String>,
    /// When it was started; `None` when it never was.
    pub started: Option<Moment>,
    /// When it ended.
    pub ended: Option<Moment>,
    /// Its exit code; `None` when a signal ended it or it never started.
    pub code: Option<i32>,
    /// Files that it left in the run's folder, relative to it, stdout and stderr among them.
    pub files: Vec<String>,
    /// What went wrong; `None` when nothing did.
    pub problem: Option<String>,
}
