//! Probes: external commands, such as profilers, that run in a window of a cell.

use serde::{Deserialize, Serialize};

use super::ScenarioId;
use crate::micros::Micros;

/// A `[[probe]]` of the matrix file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Names its files: 1 to 32 letters, digits, `-` or `_`.
    pub name: ProbeName,
    /// The program and its arguments, placeholders not yet filled in.
    pub command: Vec<String>,
    /// When it starts.
    pub start_at: StartAt,
    /// It is told to end after this long, or when the cell ends.
    pub window: Micros,
    /// The scenarios it runs in; all when empty.
    pub scenarios: Vec<ScenarioId>,
}

/// Name of a probe: the same rules as for scenarios, since both become parts of file names.
pub type ProbeName = ScenarioId;

/// When a probe starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    /// At T0.
    #[default]
    Cell,
    /// When the first job of the cell is seen merging.
    FirstMerge,
}
