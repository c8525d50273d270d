//! The target's Redis beside a cell.
//!
//! Counters of Redis count from its start, so what a cell cost is a difference; one that was
//! restarted counts from zero again, which is seen and said, never subtracted.

mod figures;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

pub use figures::{Figures, slope};

use super::{Gap, Line, Unit};
use crate::{micros::Micros, moment::Moment};

/// Two samples further apart than this are not of one series: Redis is asked once a second.
pub const APART: Micros = Micros(1_600_000);

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
    /// Why what Redis counts does not cover the whole cell, such as a restart: differences of its
    /// counters are then lower bounds, and what [`commands`](Self::commands) has is too. Empty when
    /// it does.
    #[serde(default)]
    pub cuts: Vec<String>,
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
    /// From the question to its answer.
    #[serde(default)]
    pub took: Micros,
    /// The most bytes that its data took since its start, as it knows itself: a peak between two
    /// samples shows here.
    #[serde(default)]
    pub used_memory_peak: u64,
    /// CPU time of the whole process since its start, in the kernel and out of it.
    #[serde(default)]
    pub cpu: Micros,
    /// Commands since its start.
    #[serde(default)]
    pub commands: u64,
    /// Our own part of `net_input` since the cell was opened.
    #[serde(default)]
    pub own_input: u64,
    /// Our own part of `net_output` since the cell was opened.
    #[serde(default)]
    pub own_output: u64,
    /// Our own part of `commands` since the cell was opened.
    #[serde(default)]
    pub own_commands: u64,
    /// Whether its counters began anew between the sample before and this one.
    #[serde(default)]
    pub is_anew: bool,
}

/// What one command cost between two looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct CommandCost {
    /// How often it was called.
    pub calls: u64,
    /// CPU time it took, in all.
    pub busy: Micros,
    /// 99th percentile of its latency where Redis tells it (`latencystats`, from 7.0 on). It is
    /// that of all calls since Redis started or was last reset, not of the cell alone.
    pub p99: Option<Micros>,
}

/// Sizes of stored results: of the values as Celery stores them, its envelope of some 0.7 kB
/// around the result included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResultSizes {
    /// Bytes of each value of a task (an object that begins with `estimators`) seen for the first
    /// time in this cell.
    pub bytes: Vec<u64>,
    /// Bytes of each value that holds the results of many tasks, a list, as the tasks behind a
    /// chord return them.
    #[serde(default)]
    pub aggregates: Vec<u64>,
    /// Bytes of any other value, such as a failure or what a merge returns.
    #[serde(default)]
    pub others: Vec<u64>,
    /// Whether a scan was cut short or Redis was gone for a while, so that there may be more.
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
    /// Every figure that is worth a chart. Rates leave our own part out, and have no point where a
    /// sample before it is missing or the counters began anew.
    pub fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        let mut push = |name: String, unit: Unit, points: Vec<(Moment, f64)>| {
            if !points.is_empty() {
                lines.push(Line { name: format!("redis {name}"), unit, points });
            }
        };
        let of = |value: fn(&RedisSample) -> u64| -> Vec<(Moment, f64)> {
            self.samples.iter().map(|s| (s.at, value(s) as f64)).collect()
        };
        push("used_memory".into(), Unit::Bytes, of(|s| s.used_memory));
        push("used_memory_rss".into(), Unit::Bytes, of(|s| s.used_memory_rss));
        push("net in".into(), Unit::BytesPerSecond, self.rate(|s| s.net_input, |s| s.own_input));
        push("net out".into(), Unit::BytesPerSecond, self.rate(|s| s.net_output, |s| s.own_output));
        push("ops".into(), Unit::PerSecond, self.rate(|s| s.commands, |s| s.own_commands));
        let cpu = self.rate(|s| s.cpu.0, |_| 0).into_iter().map(|(at, us)| (at, us / 1e6)).collect();
        push("cpu".into(), Unit::Cores, cpu);
        for name in self.queue_names() {
            let points = self.samples.iter().filter_map(|s| Some((s.at, *s.queues.get(name)? as f64)));
            push(format!("queue {name}"), Unit::Count, points.collect());
        }
        push("unacked".into(), Unit::Count, of(|s| s.unacked));
        push("result keys".into(), Unit::Count, of(|s| s.result_keys));
        push("connected clients".into(), Unit::Count, of(|s| s.connected_clients));
        push("blocked clients".into(), Unit::Count, of(|s| s.blocked_clients));
        lines
    }

    /// Every queue that was looked at, sorted.
    pub fn queue_names(&self) -> BTreeSet<&str> {
        self.samples.iter().flat_map(|s| s.queues.keys().map(String::as_str)).collect()
    }

    /// Pairs of samples one after the other between which its counters only went on, and no sample
    /// is missing.
    fn steps(&self) -> impl Iterator<Item = (&RedisSample, &RedisSample)> {
        let pairs = self.samples.windows(2).map(|pair| (&pair[0], &pair[1]));
        pairs.filter(|(a, b)| !b.is_anew && b.at.0 > a.at.0 && b.at.0 - a.at.0 <= APART.0 as i64)
    }

    /// What a counter grew by a second, less our own part, at the later of two samples.
    fn rate(&self, of: fn(&RedisSample) -> u64, own: fn(&RedisSample) -> u64) -> Vec<(Moment, f64)> {
        self.steps()
            .filter_map(|(a, b)| {
                let all = of(b).checked_sub(of(a))?;
                let grown = all.saturating_sub(own(b).saturating_sub(own(a)));
                Some((b.at, grown as f64 * 1e6 / (b.at.0 - a.at.0) as f64))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A sample at a second whose counters all stand at `n`.
    fn sample(second: i64, n: u64) -> RedisSample {
        let queues = [("simulations".to_owned(), n)].into();
        RedisSample {
            at: Moment(second * 1_000_000),
            net_input: n,
            net_output: n,
            commands: n,
            cpu: Micros(n),
            queues,
            ..RedisSample::default()
        }
    }

    fn line(series: &RedisSeries, name: &str) -> Vec<(i64, f64)> {
        let lines = series.lines();
        let line = lines.iter().find(|l| l.name == name).unwrap();
        line.points.iter().map(|(at, y)| (at.0 / 1_000_000, *y)).collect()
    }

    #[test]
    fn a_rate_is_the_growth_a_second_less_our_own() {
        let own = RedisSample { own_input: 40, ..sample(1, 240) };
        let series = RedisSeries { samples: vec![sample(0, 100), own], ..RedisSeries::default() };
        assert_eq!(line(&series, "redis net in"), [(1, 100.0)]);
        assert_eq!(line(&series, "redis net out"), [(1, 140.0)]);
        assert_eq!(line(&series, "redis queue simulations"), [(0, 100.0), (1, 240.0)]);
    }

    #[test]
    fn no_rate_is_drawn_across_a_restart_or_a_hole() {
        let anew = RedisSample { is_anew: true, ..sample(2, 900) };
        let samples =
            vec![sample(0, 500), sample(1, 600), anew, sample(3, 950), sample(9, 990), sample(10, 5)];
        let series = RedisSeries { samples, ..RedisSeries::default() };
        assert_eq!(line(&series, "redis ops"), [(1, 100.0), (3, 50.0)]);
    }
}
