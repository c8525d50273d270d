//! A Prometheus exposition endpoint beside a cell: what is kept of it, and what that tells.

mod keep;
pub mod text;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::keep::Keeper;
use self::text::Format;
use super::{Gap, Line, Unit};
use crate::{estimate::Buckets, moment::Moment};

/// The most series that are kept of one endpoint; a histogram counts as one.
pub const MOST_SERIES: usize = 500;
/// The most buckets of a histogram that is kept.
pub const MOST_BUCKETS: usize = 256;
/// The most lines of one endpoint that are drawn.
const MOST_LINES: usize = 24;

/// An endpoint, scraped once a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrapeSeries {
    /// When it was scraped, in the order of time; failures are gaps.
    pub at: Vec<Moment>,
    /// Where scrapes are missing.
    pub gaps: Vec<Gap>,
    /// How it writes.
    pub format: Format,
    /// Whether the first and the last scrape of the cell succeeded: without them nobody knows how
    /// much was counted in the cell.
    pub is_whole: bool,
    /// Counters and gauges.
    pub figures: Vec<FigureSeries>,
    /// Histograms.
    pub histograms: Vec<HistogramSeries>,
    /// What there was beside them.
    pub left_out: LeftOut,
    /// Bytes of all answers.
    pub bytes: u64,
}

/// A counter or a gauge.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct FigureSeries {
    /// The name of its samples.
    pub name: String,
    /// What tells it from others of that name.
    pub labels: BTreeMap<String, String>,
    /// Whether it only rises, but for new starts of the target.
    pub is_counter: bool,
    /// Index of a scrape and the value from there on, where it is another than before; `None` where
    /// it is not told or no finite number.
    pub changes: Vec<(u32, Option<f64>)>,
}

/// A histogram in a cell.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramSeries {
    /// The family's name.
    pub name: String,
    /// What tells it from others of that name.
    pub labels: BTreeMap<String, String>,
    /// What was counted from the first scrape of the cell to the last.
    pub growth: Buckets,
    /// How often counting began anew; what was counted just before is missing in the growth.
    pub resets: u32,
    /// Index of a scrape, and how many values and which sum of them there were from the first scrape
    /// to that one, where it is more than before.
    pub counts: Vec<(u32, u64, Option<f64>)>,
}

/// What an endpoint told that is not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Series beyond [`MOST_SERIES`], the most of one scrape.
    pub series: u64,
    /// Names of some of them, and of histograms that are none, with the reason.
    pub names: Vec<String>,
}

impl FigureSeries {
    /// Its values, one a scrape.
    fn values(&self, scrapes: usize) -> Vec<Option<f64>> {
        let mut values = vec![None; scrapes];
        for (i, (from, value)) in self.changes.iter().enumerate() {
            let to = self.changes.get(i + 1).map_or(scrapes, |(to, _)| *to as usize);
            if let Some(stretch) = values.get_mut(*from as usize..to.min(scrapes)) {
                stretch.fill(*value);
            }
        }
        values
    }

    /// A gauge's values, or how fast a counter rises, over time. After a new start of the target a
    /// counter has risen by what it says: it began at zero.
    pub fn points(&self, at: &[Moment]) -> Vec<(Moment, f64)> {
        let values = at.iter().copied().zip(self.values(at.len()));
        let mut points: Vec<(Moment, f64)> = values.filter_map(|(at, v)| Some((at, v?))).collect();
        if self.is_counter {
            points = points.windows(2).filter_map(|w| rate(w[0], w[1])).collect();
        }
        points
    }

    fn label(&self) -> String {
        labelled(&self.name, &self.labels)
    }
}

/// How fast a counter rose between two moments.
fn rate((t0, before): (Moment, f64), (t1, now): (Moment, f64)) -> Option<(Moment, f64)> {
    let grown = if now < before { now } else { now - before };
    let secs = t1.as_secs() - t0.as_secs();
    (secs > 0.0).then(|| (t1, grown / secs))
}

impl HistogramSeries {
    /// Values a second, over time.
    pub fn points(&self, at: &[Moment]) -> Vec<(Moment, f64)> {
        let mut counts = self.counts.iter().peekable();
        let mut n = 0;
        let mut points = Vec::new();
        for (i, moment) in at.iter().enumerate() {
            while let Some((_, count, _)) = counts.next_if(|c| c.0 as usize <= i) {
                n = *count;
            }
            points.push((*moment, n as f64));
        }
        points.windows(2).filter_map(|w| rate(w[0], w[1])).collect()
    }
}

/// `name{a="b"}`, for people.
fn labelled(name: &str, labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return name.to_owned();
    }
    let all: Vec<String> = labels.iter().map(|(n, v)| format!("{n}={v:?}")).collect();
    format!("{name}{{{}}}", all.join(","))
}

/// Whether a metric is of the target itself, or of what its cells are held against.
pub fn is_of_interest(name: &str) -> bool {
    ["yaptide_", "celery_", "flower_"].iter().any(|start| name.starts_with(start))
        || [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "redis_memory_used_bytes",
            "redis_memory_used_rss_bytes",
            "redis_connected_clients",
            "redis_blocked_clients",
            "redis_commands_processed_total",
            "redis_evicted_keys_total",
            "redis_net_input_bytes_total",
            "redis_net_output_bytes_total",
        ]
        .contains(&name)
}

/// What the values of a metric are counted in, as its name says.
fn unit(name: &str, is_counter: bool) -> Unit {
    let bare = name.strip_suffix("_total").unwrap_or(name);
    match (is_counter, bare) {
        (true, _) if bare.ends_with("_bytes") => Unit::BytesPerSecond,
        (true, _) if bare.ends_with("cpu_seconds") => Unit::Cores,
        (true, _) => Unit::PerSecond,
        (false, _) if bare.ends_with("_bytes") => Unit::Bytes,
        (false, _) if bare.ends_with("_seconds") => Unit::Seconds,
        (false, _) => Unit::Count,
    }
}

impl ScrapeSeries {
    /// Every figure that is worth a chart, at most two dozen; `url` tells endpoints apart.
    pub fn lines(&self, url: &str) -> Vec<Line> {
        // An endpoint of few series is one that somebody chose.
        let all = self.figures.len() + self.histograms.len() <= MOST_LINES;
        let figures = self.figures.iter().filter(|f| all || is_of_interest(&f.name)).map(|f| Line {
            name: format!("{url} {}", f.label()),
            unit: unit(&f.name, f.is_counter),
            points: f.points(&self.at),
        });
        let histograms = self.histograms.iter().filter(|h| all || is_of_interest(&h.name)).map(|h| Line {
            name: format!("{url} {}", labelled(&format!("{}_count", h.name), &h.labels)),
            unit: Unit::PerSecond,
            points: h.points(&self.at),
        });
        figures.chain(histograms).filter(|line| !line.points.is_empty()).take(MOST_LINES).collect()
    }

    /// The histograms of one family.
    pub fn family(&self, name: &str) -> impl Iterator<Item = &HistogramSeries> {
        self.histograms.iter().filter(move |h| h.name == name)
    }
}
