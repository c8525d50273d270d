//! A watched process beside a cell.

use serde::{Deserialize, Serialize};

use super::{Gap, Line};
use crate::{micros::Micros, moment::Moment};

/// A process and its descendants, looked at several times a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSeries {
    /// In the order of time.
    pub samples: Vec<ProcessSample>,
    /// Where samples are missing, such as after its end.
    pub gaps: Vec<Gap>,
}

/// One look at a process, its descendants added in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessSample {
    /// When.
    pub at: Moment,
    /// CPU time used since its start, by it and its descendants.
    pub cpu: Micros,
    /// Bytes resident.
    pub rss: u64,
    /// The most bytes that were ever resident, as the kernel has it.
    pub peak_rss: u64,
    /// How many processes these are.
    pub processes: u32,
}

impl ProcessSeries {
    /// Every figure that is worth a chart; `name` tells processes apart.
    pub fn lines(&self, _name: &str) -> Vec<Line> {
        Vec::new()
    }
}
