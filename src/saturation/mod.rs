//! What the load cost the target's Redis: figures a scenario, how they go together with the stages
//! of the jobs, and where they leave the trend of the smaller loads.
//!
//! Facts only, out of what was sampled beside the cells that count.

mod inflection;
mod statistics;

use crate::{
    record::{CellRecord, RunRecord},
    summary::{self, ScenarioSummary},
    telemetry::redis::{Figures, RedisSeries},
    timeline::Stage,
};
pub use inflection::{FAR, Inflection, LEAST_LOADS, NEAR, Point, inflection};
use statistics::{median, pearson, spearman};

/// With fewer cells than this no coefficient is given: any two lists of four go together somehow.
pub const LEAST_CELLS: usize = 5;

/// The stages that go through Redis, or wait for what does.
pub const STAGES: [Stage; 5] =
    [Stage::Merge, Stage::HandOverQueued, Stage::HandOverRunning, Stage::Persist, Stage::EndToEnd];

/// What a cell costs its Redis, as one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Bytes that its data rose above where they stood before the cell.
    Memory,
    /// Bytes sent to it a job.
    Input,
    /// Bytes it sent a job.
    Output,
    /// Its CPU time a job, in microseconds.
    Cpu,
    /// Commands a job.
    Commands,
    /// Commands a second.
    Ops,
    /// The most messages waiting.
    Queue,
}

impl Cost {
    /// Every one.
    pub const ALL: [Self; 7] =
        [Self::Memory, Self::Input, Self::Output, Self::Cpu, Self::Commands, Self::Ops, Self::Queue];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory above start",
            Self::Input => "bytes in per job",
            Self::Output => "bytes out per job",
            Self::Cpu => "CPU of Redis per job",
            Self::Commands => "commands per job",
            Self::Ops => "commands per second",
            Self::Queue => "longest queue",
        }
    }

    /// Whether it grows with the tasks of each job, however many jobs there are; otherwise with the
    /// tasks in flight.
    fn is_per_job(self) -> bool {
        match self {
            Self::Input | Self::Output | Self::Cpu | Self::Commands => true,
            Self::Memory | Self::Ops | Self::Queue => false,
        }
    }

    /// Differences below this are nothing to talk about.
    fn least(self) -> f64 {
        match self {
            Self::Memory => 1e6,
            Self::Input | Self::Output => 100e3,
            Self::Cpu => 10e3,
            Self::Commands | Self::Ops => 10.0,
            Self::Queue => 4.0,
        }
    }
}

/// A cell and its Redis.
#[derive(Debug)]
pub struct Watched<'a> {
    /// The cell.
    pub cell: &'a CellRecord,
    /// What was sampled.
    pub series: &'a RedisSeries,
    /// What it cost.
    pub figures: Figures,
    /// Jobs of it that the target accepted.
    pub jobs: u64,
}

/// Jobs of a cell that the target accepted: what a cost per job is a cost of.
pub fn jobs(cell: &CellRecord) -> u64 {
    cell.ledger.submitted.saturating_sub(cell.ledger.count("rejected"))
}

impl<'a> Watched<'a> {
    fn of(cell: &'a CellRecord) -> Option<Self> {
        let series = cell.telemetry.redis.as_ref()?;
        Some(Self { cell, series, figures: Figures::of(series)?, jobs: jobs(cell) })
    }

    /// One of its costs; `None` where it cannot be told.
    pub fn cost(&self, cost: Cost) -> Option<f64> {
        let f = &self.figures;
        // Counters that do not cover the whole cell say less than there was.
        let is_whole = !f.is_cut;
        let per_job = |n: u64| (is_whole && self.jobs > 0).then(|| n as f64 / self.jobs as f64);
        match cost {
            Cost::Memory => Some(f.memory_rise() as f64),
            Cost::Input => per_job(f.net_input),
            Cost::Output => per_job(f.net_output),
            Cost::Cpu => per_job(f.cpu.0),
            Cost::Commands => per_job(f.commands),
            Cost::Ops => f.ops().filter(|_| is_whole),
            Cost::Queue => Some(f.queue_peak as f64),
        }
    }

    /// Median of a stage in this cell out of its best source, in microseconds; `None` where it has
    /// none or lies among unfinished jobs.
    fn stage(stages: &[summary::StageSummary], stage: Stage) -> Option<f64> {
        let best = stages.iter().find(|s| s.stage == stage && s.sample.count() > 0)?;
        best.quantile(0.5).filter(|q| !q.at_least).map(|q| q.value.0 as f64)
    }
}

/// The cells of a scenario, or of a level of its fault, whose Redis was sampled.
#[derive(Debug)]
pub struct Part<'a> {
    /// What to call it.
    pub name: String,
    /// Tasks in flight at once: jobs × tasks of each.
    pub load: u64,
    /// Tasks of each job.
    pub tasks: u64,
    /// Whether there was a fault in its cells.
    pub is_faulty: bool,
    /// Those that count; at least one.
    pub cells: Vec<Watched<'a>>,
}

/// The middle and the ends of a figure over the cells of a scenario.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Spread {
    /// The median.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
    /// Of how many cells.
    pub cells: usize,
}

impl Spread {
    /// `None` without a value.
    pub fn of(values: Vec<f64>) -> Option<Self> {
        let (cells, min) = (values.len(), values.iter().copied().min_by(f64::total_cmp)?);
        let max = values.iter().copied().max_by(f64::total_cmp)?;
        Some(Self { median: median(values)?, min, max, cells })
    }
}

impl<'a> Part<'a> {
    /// The part of a scenario; `None` when no cell of it that counts was sampled.
    pub fn of(run: &'a RunRecord, s: &ScenarioSummary) -> Option<Self> {
        let cells: Vec<Watched<'a>> = s.counting(run).into_iter().filter_map(Watched::of).collect();
        let load = u64::from(s.scenario.concurrent_jobs) * u64::from(s.scenario.tasks);
        let is_faulty = s.fault.as_ref().is_none_or(|f| !f.is_none());
        let tasks = u64::from(s.scenario.tasks);
        (!cells.is_empty()).then(|| Self { name: s.name(), load, tasks, is_faulty, cells })
    }

    /// A figure over its cells; those that cannot tell are left out.
    pub fn spread(&self, of: impl Fn(&Watched<'_>) -> Option<f64>) -> Option<Spread> {
        Spread::of(self.cells.iter().filter_map(of).collect())
    }
}

/// How a cost of Redis goes together with a stage, over the fault-free cells of all scenarios.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Correlation {
    /// The cost.
    pub cost: Cost,
    /// The stage, its median in each cell.
    pub stage: Stage,
    /// How many cells tell both.
    pub cells: usize,
    /// Pearson's r; `None` with fewer than [`LEAST_CELLS`] or without spread.
    pub pearson: Option<f64>,
    /// Spearman's ρ, likewise.
    pub spearman: Option<f64>,
    /// Pearson's r of what is left when the mean of its scenario is taken off each cell: whether
    /// they go together where the load is the same. `None` unless [`LEAST_CELLS`] are left after
    /// one was spent on each scenario.
    pub within: Option<f64>,
}

/// What can be said over all scenarios of a run.
#[derive(Debug, Default)]
pub struct Saturation {
    /// Each cost with each stage that any cell tells.
    pub correlations: Vec<Correlation>,
    /// Each cost and its trend.
    pub costs: Vec<(Cost, Inflection)>,
    /// Each stage, the median of the medians of its cells, and its trend.
    pub stages: Vec<(Stage, Inflection)>,
}

impl Saturation {
    /// Looks at the parts without a fault.
    pub fn of(parts: &[Part<'_>]) -> Self {
        let parts: Vec<&Part<'_>> = parts.iter().filter(|p| !p.is_faulty).collect();
        if parts.is_empty() {
            return Self::default();
        }
        // Stage medians of each cell of each part.
        let stages: Vec<Vec<Vec<Option<f64>>>> =
            parts.iter().map(|p| p.cells.iter().map(stages).collect()).collect();
        let point = |part: &Part<'_>, is_per_job: bool, values: Vec<f64>| {
            let driver = if is_per_job { part.tasks } else { part.load } as f64;
            let (name, load) = (part.name.clone(), part.load as f64);
            (!values.is_empty()).then_some(Point { name, load, driver, values })
        };
        let costs = Cost::ALL.map(|cost| {
            let values = |p: &Part<'_>| p.cells.iter().filter_map(|w| w.cost(cost)).collect();
            let points: Vec<Point> =
                parts.iter().filter_map(|p| point(p, cost.is_per_job(), values(p))).collect();
            (cost, inflection(&points, cost.least()))
        });
        let mut correlations = Vec::new();
        let mut trends = Vec::new();
        for (i, stage) in STAGES.into_iter().enumerate() {
            let points: Vec<Point> = parts
                .iter()
                .zip(&stages)
                .filter_map(|(p, cells)| {
                    // A job waits for all tasks before its own end, but merges its own only.
                    point(p, stage != Stage::EndToEnd, cells.iter().filter_map(|c| c[i]).collect())
                })
                .collect();
            if points.is_empty() {
                continue;
            }
            // Below the tenth of a second it is the poll interval that shows.
            trends.push((stage, inflection(&points, 100e3)));
            for cost in Cost::ALL {
                let groups: Vec<Vec<(f64, f64)>> = parts
                    .iter()
                    .zip(&stages)
                    .map(|(p, cells)| {
                        let both = p.cells.iter().zip(cells);
                        both.filter_map(|(w, c)| Some((w.cost(cost)?, c[i]?))).collect()
                    })
                    .collect();
                correlations.push(correlation(cost, stage, &groups));
            }
        }
        Self { correlations, costs: costs.to_vec(), stages: trends }
    }
}

fn stages(watched: &Watched<'_>) -> Vec<Option<f64>> {
    let all = summary::stages_of(&[watched.cell]);
    STAGES.into_iter().map(|stage| Watched::stage(&all, stage)).collect()
}

/// Points by scenario.
fn correlation(cost: Cost, stage: Stage, groups: &[Vec<(f64, f64)>]) -> Correlation {
    let all: Vec<(f64, f64)> = groups.concat();
    let mut left = Vec::new();
    for group in groups.iter().filter(|g| g.len() > 1) {
        let n = group.len() as f64;
        let (mx, my) =
            (group.iter().map(|p| p.0).sum::<f64>() / n, group.iter().map(|p| p.1).sum::<f64>() / n);
        left.extend(group.iter().map(|(x, y)| (x - mx, y - my)));
    }
    let spent = groups.iter().filter(|g| g.len() > 1).count();
    let enough = |n: usize| n >= LEAST_CELLS;
    Correlation {
        cost,
        stage,
        cells: all.len(),
        pearson: pearson(&all).filter(|_| enough(all.len())),
        spearman: spearman(&all).filter(|_| enough(all.len())),
        within: pearson(&left).filter(|_| enough(left.len() - spent)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_cells_have_no_coefficient() {
        let line = |n: u32| (0..n).map(|i| (f64::from(i), f64::from(i))).collect::<Vec<_>>();
        let of = |groups: &[Vec<(f64, f64)>]| correlation(Cost::Memory, Stage::Merge, groups);
        let four = of(&[line(2), line(2)]);
        assert_eq!((four.cells, four.pearson, four.spearman, four.within), (4, None, None, None));
        let five = of(&[line(5)]);
        assert_eq!((five.pearson, five.spearman, five.within), (Some(1.0), Some(1.0), None));
        assert_eq!(of(&[line(6)]).within, Some(1.0));
        assert_eq!(of(&[]).cells, 0);
    }

    #[test]
    fn what_only_the_load_drives_does_not_go_together_within_a_scenario() {
        // Two scenarios far apart; within each, one rises as the other falls.
        let group = |at: f64| (0..4).map(|i| (at + f64::from(i), at - f64::from(i))).collect::<Vec<_>>();
        let c = correlation(Cost::Input, Stage::EndToEnd, &[group(0.0), group(1_000.0)]);
        assert!(c.pearson.unwrap() > 0.99);
        assert!((c.within.unwrap() + 1.0).abs() < 1e-9);
    }
}
