//! Thresholds: `job.p95<30s`, `submit.p99<500ms for S6`, `failures<1%`.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{scenario::ScenarioId, timeline::Stage};

/// A limit on one figure, for one scenario or for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Threshold {
    figure: Figure,
    /// Microseconds or a ratio of 1, as the figure is.
    limit: f64,
    inclusive: bool,
    scenario: Option<ScenarioId>,
    text: String,
}

/// What a threshold limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Figure {
    /// The duration of a stage.
    Stage(Stage, Aggregate),
    /// Response times of load-phase requests, failed ones included.
    Requests(Aggregate),
    /// Share of jobs that were not fetched.
    JobFailures,
    /// Share of load-phase requests that failed.
    RequestFailures,
}

/// Which number of a sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Aggregate {
    /// A quantile, 0 to 1.
    Quantile(f64),
    /// The mean.
    Mean,
    /// The largest.
    Max,
}

const HELP: &str = "write FIGURE<LIMIT [for SCENARIO] with FIGURE one of job.pNN, submit.pNN, queue.pNN, run.pNN, merge.pNN, fetch.pNN, hand_over_queued.pNN, hand_over_running.pNN, persist.pNN (these three with a tap), requests.pNN (or .mean, .max), failures, requests.failures, and LIMIT like 500ms, 30s, 2m or 1%";

impl Threshold {
    /// The scenario it is limited to.
    pub fn scenario(&self) -> Option<&ScenarioId> {
        self.scenario.as_ref()
    }

    /// What is limited.
    pub fn figure(&self) -> Figure {
        self.figure
    }

    /// Whether a value keeps the limit: microseconds, or a ratio of 1, as the figure is.
    pub fn is_kept_by(&self, value: f64) -> bool {
        if self.inclusive { value <= self.limit } else { value < self.limit }
    }
}

impl FromStr for Threshold {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fail = |what: &str| format!("{what}; {HELP}");
        let (rule, scenario) = match text.split_once(" for ") {
            Some((rule, id)) => (rule, Some(ScenarioId::try_from(id.trim().to_owned())?)),
            None => (text, None),
        };
        let (name, limit) = rule.split_once('<').ok_or_else(|| fail("no '<' in it"))?;
        let (inclusive, limit) = match limit.strip_prefix('=') {
            Some(rest) => (true, rest),
            None => (false, limit),
        };
        let (name, limit) = (name.trim(), limit.trim());
        let figure = match name.split_once('.') {
            None if name == "failures" => Figure::JobFailures,
            Some(("requests", "failures")) => Figure::RequestFailures,
            Some(("requests", a)) => Figure::Requests(aggregate(a).ok_or_else(|| fail("unknown figure"))?),
            Some((stage, a)) => Figure::Stage(
                named_stage(stage).ok_or_else(|| fail("unknown figure"))?,
                aggregate(a).ok_or_else(|| fail("unknown figure"))?,
            ),
            None => return Err(fail("unknown figure")),
        };
        let is_share = matches!(figure, Figure::JobFailures | Figure::RequestFailures);
        let limit = if is_share { parse_share(limit) } else { parse_time(limit) }
            .ok_or_else(|| fail(if is_share { "limit is no percentage" } else { "limit is no time" }))?;
        Ok(Self { figure, limit, inclusive, scenario, text: text.trim().to_owned() })
    }
}

fn named_stage(name: &str) -> Option<Stage> {
    if name == "job" {
        return Some(Stage::EndToEnd);
    }
    Stage::ALL.into_iter().find(|s| s.as_str() == name)
}

fn aggregate(name: &str) -> Option<Aggregate> {
    match name {
        "mean" | "avg" => Some(Aggregate::Mean),
        "max" => Some(Aggregate::Max),
        "med" | "median" => Some(Aggregate::Quantile(0.5)),
        _ => {
            let percent: f64 = name.strip_prefix('p')?.parse().ok()?;
            (percent > 0.0 && percent < 100.0).then_some(Aggregate::Quantile(percent / 100.0))
        }
    }
}

/// `1%` or `0.01` as a ratio.
fn parse_share(text: &str) -> Option<f64> {
    let value = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&value).then_some(value)
}

/// `500ms`, `30s`, `2m`, `1h`, `250us` in microseconds.
fn parse_time(text: &str) -> Option<f64> {
    crate::micros::parse(text).map(|m| m.0 as f64)
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl TryFrom<String> for Threshold {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Threshold> for String {
    fn from(t: Threshold) -> Self {
        t.text
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("job.p95<30s", 30e6)]
    #[case("submit.p99<500ms for S6", 500e3)]
    #[case("failures<1%", 0.01)]
    #[case("requests.failures <= 0.5%", 0.005)]
    #[case("merge.p99.9<2m", 120e6)]
    #[case("requests.max<1h", 3600e6)]
    #[case("persist.p95<2s for S7", 2e6)]
    #[case("hand_over_queued.p95<500ms", 500e3)]
    fn they_are_read_as_written(#[case] text: &str, #[case] limit: f64) {
        let t: Threshold = text.parse().unwrap();
        assert!((t.limit - limit).abs() < 1e-9);
        let json = serde_json::to_string(&t).unwrap();
        assert_eq!(serde_json::from_str::<Threshold>(&json).unwrap(), t);
    }

    #[rstest]
    #[case("job.p95>30s")]
    #[case("job.p95<30")]
    #[case("job.p101<30s")]
    #[case("jobs.p95<30s")]
    #[case("failures<2s")]
    #[case("failures<200%")]
    #[case("")]
    fn nonsense_is_refused_with_the_remedy(#[case] text: &str) {
        assert!(text.parse::<Threshold>().unwrap_err().contains("write FIGURE<LIMIT"));
    }
}
