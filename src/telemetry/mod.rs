//! What was sampled beside a cell, and what can be said of it: data and arithmetic, no sockets.
//!
//! Everything is on the cell's own clock ([`Moment`]): from the moment the cell was opened, before
//! its T0, to the moment it was closed. The hands that fill it are in `sampling`.

pub mod probe;
pub mod process;
pub mod redis;
pub mod scrape;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::moment::Moment;
use probe::ProbeRun;
use process::ProcessSeries;
use redis::RedisSeries;
use scrape::ScrapeSeries;

/// Everything sampled beside one cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Telemetry {
    /// The target's Redis; `None` when none was named.
    pub redis: Option<RedisSeries>,
    /// Exposition endpoints, by address.
    pub scrapes: BTreeMap<String, ScrapeSeries>,
    /// Watched processes, by the name they were given.
    pub processes: BTreeMap<String, ProcessSeries>,
    /// External commands that ran beside the cell.
    pub probes: Vec<ProbeRun>,
}

/// A stretch without samples.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// The last sample before it, or the opening of the cell.
    pub from: Moment,
    /// The first sample after it, or the closing of the cell.
    pub to: Moment,
    /// Why.
    pub why: String,
}

/// One figure over time, fit to be drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// What it is, such as `redis used_memory`.
    pub name: String,
    /// What it is counted in.
    pub unit: Unit,
    /// In the order of time.
    pub points: Vec<(Moment, f64)>,
}

/// What a line is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Bytes a second.
    BytesPerSecond,
    /// Of a second, such as commands.
    PerSecond,
    /// A plain number, such as the length of a queue.
    Count,
    /// Share of one core, 1.0 is a whole one.
    Cores,
    /// Seconds.
    Seconds,
}

impl Telemetry {
    /// Whether nothing was sampled.
    pub fn is_empty(&self) -> bool {
        self == &Self::default()
    }

    /// Every figure that is worth a chart.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        lines.extend(self.redis.iter().flat_map(RedisSeries::lines));
        lines.extend(self.processes.iter().flat_map(|(name, series)| series.lines(name)));
        lines.extend(self.scrapes.iter().flat_map(|(url, series)| series.lines(url)));
        lines
    }
}
