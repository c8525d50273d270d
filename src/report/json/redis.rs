//! The target's Redis in the summary: a scenario's figures, and what is said over all of them.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    report::{Paper, redis_tables},
    saturation::{Cost, Inflection, Part, Saturation, Spread, Watched},
    telemetry::redis::{CommandCost, ResultSizes},
};

/// A scenario's Redis; bytes, milliseconds and plain numbers, medians over the cells that count.
#[derive(Serialize)]
pub(super) struct OfRedis {
    tasks_in_flight: u64,
    cells: usize,
    jobs: u64,
    samples: usize,
    gaps: usize,
    /// Why counters do not cover a cell; the figures are lower bounds then.
    cuts: Vec<String>,
    used_memory_peak: Option<OfSpread>,
    memory_above_start: Option<OfSpread>,
    memory_slope_per_s: Option<OfSpread>,
    input_bytes_per_job: Option<OfSpread>,
    output_bytes_per_job: Option<OfSpread>,
    commands_per_job: Option<OfSpread>,
    cpu_ms_per_job: Option<OfSpread>,
    commands_per_s: Option<OfSpread>,
    queue_peak: Option<OfSpread>,
    unacked_peak: Option<OfSpread>,
    evicted_keys: u64,
    task_results: OfSizes,
    aggregate_results: OfSizes,
    other_results: OfSizes,
    results_are_partial: bool,
    commands: BTreeMap<String, OfCommand>,
    sampling: OfSampling,
}

#[derive(Serialize)]
struct OfSpread {
    median: f64,
    min: f64,
    max: f64,
    cells: usize,
}

#[derive(Serialize)]
struct OfSizes {
    count: usize,
    min: Option<u64>,
    p50: Option<u64>,
    p95: Option<u64>,
    max: Option<u64>,
    sum: u64,
}

#[derive(Serialize)]
struct OfCommand {
    calls: u64,
    cpu_us: u64,
    /// Of all calls since Redis started or was reset.
    p99_since_start_us: Option<u64>,
}

#[derive(Serialize)]
struct OfSampling {
    commands: u64,
    sent_bytes: u64,
    received_bytes: u64,
    cpu_us: u64,
    seconds: f64,
}

impl OfSpread {
    fn of(spread: Option<Spread>, unit: f64) -> Option<Self> {
        spread.map(|s| Self { median: s.median / unit, min: s.min / unit, max: s.max / unit, cells: s.cells })
    }
}

impl OfSizes {
    fn of(part: &Part<'_>, which: fn(&ResultSizes) -> &[u64]) -> Self {
        let mut all: Vec<u64> = part.cells.iter().flat_map(|w| which(&w.series.results)).copied().collect();
        all.sort_unstable();
        let at = |q: f64| {
            let rank = ((q * all.len() as f64).ceil() as usize).max(1) - 1;
            all.get(rank).copied()
        };
        Self {
            count: all.len(),
            min: at(0.0),
            p50: at(0.5),
            p95: at(0.95),
            max: at(1.0),
            sum: all.iter().sum(),
        }
    }
}

impl OfRedis {
    /// Of each scenario by name; those without samples are not in it.
    pub(super) fn of_parts(parts: &[Part<'_>]) -> BTreeMap<String, Self> {
        parts.iter().map(|part| (part.name.clone(), Self::of(part))).collect()
    }

    fn of(part: &Part<'_>) -> Self {
        let cost = |cost: Cost, unit| OfSpread::of(part.spread(|w| w.cost(cost)), unit);
        let other = |of: fn(&Watched<'_>) -> Option<f64>| OfSpread::of(part.spread(of), 1.0);
        let mut commands: BTreeMap<String, CommandCost> = BTreeMap::new();
        let (mut cuts, mut sampling) = (
            Vec::new(),
            OfSampling { commands: 0, sent_bytes: 0, received_bytes: 0, cpu_us: 0, seconds: 0.0 },
        );
        for w in &part.cells {
            for (name, c) in &w.series.commands {
                let sum = commands.entry(name.clone()).or_default();
                sum.calls += c.calls;
                sum.busy += c.busy;
                sum.p99 = sum.p99.max(c.p99);
            }
            cuts.extend(w.series.cuts.iter().cloned());
            sampling.commands += w.series.cost.commands;
            sampling.sent_bytes += w.series.cost.sent;
            sampling.received_bytes += w.series.cost.received;
            sampling.cpu_us += w.series.cost.busy.0;
            sampling.seconds += w.figures.span.as_secs();
        }
        cuts.sort();
        cuts.dedup();
        let sum = |of: fn(&Watched<'_>) -> usize| part.cells.iter().map(of).sum();
        Self {
            tasks_in_flight: part.load,
            cells: part.cells.len(),
            jobs: part.cells.iter().map(|w| w.jobs).sum(),
            samples: sum(|w| w.figures.samples),
            gaps: sum(|w| w.figures.gaps),
            cuts,
            used_memory_peak: other(|w| Some(w.figures.memory_peak as f64)),
            memory_above_start: cost(Cost::Memory, 1.0),
            memory_slope_per_s: other(|w| w.figures.memory_slope),
            input_bytes_per_job: cost(Cost::Input, 1.0),
            output_bytes_per_job: cost(Cost::Output, 1.0),
            commands_per_job: cost(Cost::Commands, 1.0),
            cpu_ms_per_job: cost(Cost::Cpu, 1e3),
            commands_per_s: cost(Cost::Ops, 1.0),
            queue_peak: cost(Cost::Queue, 1.0),
            unacked_peak: other(|w| Some(w.figures.unacked_peak as f64)),
            evicted_keys: part.cells.iter().map(|w| w.figures.evicted).sum(),
            task_results: OfSizes::of(part, |r| &r.bytes),
            aggregate_results: OfSizes::of(part, |r| &r.aggregates),
            other_results: OfSizes::of(part, |r| &r.others),
            results_are_partial: part.cells.iter().any(|w| w.series.results.is_partial),
            commands: commands
                .into_iter()
                .map(|(name, c)| {
                    let p99_since_start_us = c.p99.map(|p| p.0);
                    (name, OfCommand { calls: c.calls, cpu_us: c.busy.0, p99_since_start_us })
                })
                .collect(),
            sampling,
        }
    }
}

/// What is said over all scenarios; `null` when no Redis was sampled.
#[derive(Serialize)]
pub(super) struct OfSaturation {
    inflections: Vec<OfInflection>,
    correlations: Vec<OfCorrelation>,
}

/// `found` is `at`, `nowhere` or `unknown`; values are bytes, microseconds or plain numbers.
#[derive(Serialize)]
struct OfInflection {
    figure: String,
    found: &'static str,
    scenario: Option<String>,
    tasks_in_flight: Option<f64>,
    seen: Option<f64>,
    expected: Option<f64>,
    half_width: Option<f64>,
}

#[derive(Serialize)]
struct OfCorrelation {
    stage: &'static str,
    figure: &'static str,
    cells: usize,
    spearman: Option<f64>,
    pearson: Option<f64>,
    pearson_within_scenarios: Option<f64>,
}

/// The parts of a run, by name, and what is said over them.
pub(super) fn of_run(paper: &Paper<'_>) -> (BTreeMap<String, OfRedis>, Option<OfSaturation>) {
    let parts = redis_tables::parts(paper);
    if parts.is_empty() {
        return (BTreeMap::new(), None);
    }
    let Saturation { correlations, costs, stages } = Saturation::of(&parts);
    let costs = costs.into_iter().map(|(cost, found)| (cost.name().to_owned(), found));
    let stages = stages.into_iter().map(|(stage, found)| (format!("{stage} p50"), found));
    let said = OfSaturation {
        inflections: costs.chain(stages).map(|(figure, found)| OfInflection::of(figure, found)).collect(),
        correlations: correlations
            .into_iter()
            .filter(|c| c.cells > 0)
            .map(|c| OfCorrelation {
                stage: c.stage.as_str(),
                figure: c.cost.name(),
                cells: c.cells,
                spearman: c.spearman,
                pearson: c.pearson,
                pearson_within_scenarios: c.within,
            })
            .collect(),
    };
    (OfRedis::of_parts(&parts), Some(said))
}

impl OfInflection {
    fn of(figure: String, found: Inflection) -> Self {
        let bare = Self {
            figure,
            found: "nowhere",
            scenario: None,
            tasks_in_flight: None,
            seen: None,
            expected: None,
            half_width: None,
        };
        match found {
            Inflection::Nowhere { .. } => bare,
            Inflection::Unknown { .. } => Self { found: "unknown", ..bare },
            Inflection::At { point, expected, half_width } => Self {
                found: "at",
                seen: Some(point.value()),
                scenario: Some(point.name),
                tasks_in_flight: Some(point.load),
                expected: Some(expected),
                half_width,
                ..bare
            },
        }
    }
}
