//! The target's Redis beside a cell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Gap, Line};
use crate::{micros::Micros, moment::Moment};

/// A Redis, sampled once a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedisSeries {
    /// In the order of time.
    pub samples: Vec<RedisSample>,
    /// Where samples are missing.
    pub gaps: Vec<Gap>,
    /// What its commands cost over the cell, by name in lower case; our own are left out.
    pub commands: BTreeMap<String, CommandCost>,
    /// Sizes in bytes of the `celery-task-meta-*` values that appeared in the cell.
    pub results: ResultSizes,
    /// What the sampling itself cost.
    pub cost: SamplingCost,
}

/// One look at Redis.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RedisSample {
    /// When: the middle between the question and its answer.
    pub at: Moment,
    /// Bytes that its data take.
    pub used_memory: u64,
    /// Bytes that the system gave it.
    pub used_memory_rss: u64,
    /// Bytes received since its start.
    pub net_input: u64,
    /// Bytes sent since its start.
    pub net_output: u64,
    /// Its own figure of the last second, in kB a second.
    pub input_kbps: f64,
    /// Its own figure of the last second, in kB a second.
    pub output_kbps: f64,
    /// Clients waiting in a blocking command, such as idle workers.
    pub blocked_clients: u64,
    /// Clients connected, ours among them.
    pub connected_clients: u64,
    /// Keys evicted since its start.
    pub evicted_keys: u64,
    /// Commands of the last second, by its own figure.
    pub ops_per_second: u64,
    /// Lengths of the Celery queues by name.
    pub queues: BTreeMap<String, u64>,
    /// Messages handed out and not acknowledged.
    pub unacked: u64,
    /// Keys named `celery-task-meta-*`, as far as the last bounded scan got.
    pub result_keys: u64,
}

/// What one command cost between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandCost {
    /// How often it was called.
    pub calls: u64,
    /// CPU time it took, in all.
    pub busy: Micros,
    /// 99th percentile of its latency since the last reset, where Redis tells it.
    pub p99: Option<Micros>,
}

/// Sizes of stored results.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultSizes {
    /// Bytes of each value seen for the first time in this cell.
    pub bytes: Vec<u64>,
    /// Whether a scan was cut short, so that there may be more.
    pub is_partial: bool,
}

/// What the sampling cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct SamplingCost {
    /// Commands sent.
    pub commands: u64,
    /// Bytes sent.
    pub sent: u64,
    /// Bytes received.
    pub received: u64,
    /// CPU time in Redis.
    pub busy: Micros,
}

impl RedisSeries {
    /// Every figure that is worth a chart.
    pub fn lines(&self) -> Vec<Line> {
        Vec::new()
    }
}
