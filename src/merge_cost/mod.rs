//! What merging cost the watched processes: their CPU time and memory while jobs merged.
//!
//! Looks at a process are a tenth of a second apart, and where there is no tap a merge is seen only
//! between two polls. So each figure has bounds: it would be a wrong number without them.

mod windows;

use std::collections::BTreeMap;

use crate::{
    fault::FaultMode,
    micros::Micros,
    record::{CellRecord, RunRecord},
    scenario::Scenario,
    summary::{self, ScenarioSummary},
    telemetry::process::{ProcessSeries, Resident, Used},
    verdict::Verdict,
};
pub use windows::{Clock, Window, Windows};

/// Tasks per job for which the runbook wants to know it.
pub const TASKS: [u32; 4] = [4, 8, 16, 32];

/// One process in the cells of one scenario.
#[derive(Debug, Clone, PartialEq)]
pub struct MergeCost {
    /// The process, as it was called.
    pub process: String,
    /// Cells that count.
    pub cells: usize,
    /// Of them, those whose CPU time during merges was measured.
    pub with_cpu: usize,
    /// Of them, those whose memory during merges was measured.
    pub with_memory: usize,
    /// Merges in the cells with CPU time.
    pub merges: u64,
    /// CPU time during these.
    pub cpu: Used,
    /// The highest of all cells.
    pub memory: Option<Resident>,
    /// Growth of memory from T0 to the end, a cell each, rising.
    pub growth: Vec<i64>,
    /// Whose clock tells when a merge was; the less exact one where cells differ.
    pub clock: Clock,
    /// The longest pause between two looks.
    pub resolution: Option<Micros>,
    /// CPU time that looking took, and the time it was spread over.
    pub looking: (Micros, Micros),
    /// Why cells are missing, one sentence each.
    pub missing: Vec<String>,
}

impl MergeCost {
    /// CPU time per merge, with its bounds; `None` when none was measured.
    pub fn cpu_per_merge(&self) -> Option<Used> {
        let each = |m: Micros| Micros(m.0 / self.merges.max(1));
        let Used { least, about, most } = self.cpu;
        (self.merges > 0).then(|| Used { least: each(least), about: each(about), most: each(most) })
    }

    /// The middle one of the cells' growths.
    pub fn median_growth(&self) -> Option<i64> {
        self.growth.get(self.growth.len().saturating_sub(1) / 2).copied()
    }

    /// Every watched process in some cells, by name.
    fn of(cells: &[&CellRecord]) -> Vec<Self> {
        let mut all: BTreeMap<&str, Self> = BTreeMap::new();
        let names = cells.iter().flat_map(|c| c.telemetry.processes.keys());
        for name in names {
            all.entry(name).or_insert_with(|| Self::new(name));
        }
        for cell in cells {
            let windows = Windows::of(cell);
            for (name, cost) in &mut all {
                cost.cells += 1;
                match cell.telemetry.processes.get(*name) {
                    Some(series) => cost.add(cell, &windows, series),
                    None => cost.misses(cell, "it was not watched"),
                }
            }
        }
        all.into_values()
            .map(|mut cost| {
                cost.growth.sort_unstable();
                cost
            })
            .collect()
    }

    fn new(process: &str) -> Self {
        Self {
            process: process.into(),
            cells: 0,
            with_cpu: 0,
            with_memory: 0,
            merges: 0,
            cpu: Used::default(),
            memory: None,
            growth: Vec::new(),
            clock: Clock::Tap,
            resolution: None,
            looking: Default::default(),
            missing: Vec::new(),
        }
    }

    fn misses(&mut self, cell: &CellRecord, why: &str) {
        let place = &cell.cell;
        self.missing.push(format!("{} #{}: {why}", place.scenario, place.repetition));
    }

    fn add(&mut self, cell: &CellRecord, windows: &Windows, series: &ProcessSeries) {
        self.resolution = self.resolution.max(series.resolution());
        let (first, last) = (series.samples.first(), series.samples.last());
        let span = first.zip(last).map_or(0, |(a, b)| (b.at.0 - a.at.0).unsigned_abs());
        self.looking.0 += series.cost;
        self.looking.1 += Micros(span);
        if !series.has_gap_before(cell.duration) {
            self.growth.extend(series.growth());
        }
        if windows.all.is_empty() {
            self.misses(cell, "no job was seen merging");
            return;
        }
        self.clock = self.clock.max(windows.clock);
        match windows.cpu(series) {
            Some(used) => {
                self.with_cpu += 1;
                self.merges += windows.all.len() as u64;
                self.cpu += used;
            }
            None => self.misses(cell, series.gaps.first().map_or("there are no samples", |gap| &gap.why)),
        }
        if let Some(memory) = windows.memory(series) {
            self.with_memory += 1;
            let so_far = self.memory.unwrap_or_default();
            self.memory = Some(Resident {
                peak: memory.peak.max(so_far.peak),
                ceiling: memory.ceiling.max(so_far.ceiling),
                samples: memory.samples + so_far.samples,
            });
        }
    }
}

/// Every watched process in the cells of a scenario that count.
pub fn of_scenario(run: &RunRecord, summary: &ScenarioSummary) -> Vec<MergeCost> {
    MergeCost::of(&summary.counting(run))
}

/// Whether CPU time and memory of merging were measured for jobs of so many tasks, in cells that
/// can be trusted and have no fault.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// Cells that ended.
    pub cells: usize,
    /// Of them, those in which CPU time of at least one process was measured.
    pub cpu: usize,
    /// Of them, those in which memory was.
    pub memory: usize,
    /// Merges with CPU time.
    pub merges: u64,
    /// The process that was seen best.
    pub cost: Option<MergeCost>,
    /// Why there is nothing, or less than there could be.
    pub why: Option<String>,
}

impl Evidence {
    /// Whether both were measured.
    pub fn is_measured(&self) -> bool {
        self.cpu > 0 && self.memory > 0
    }
}

/// What there is for each number of tasks in [`TASKS`].
pub fn evidence(run: &RunRecord) -> BTreeMap<u32, Evidence> {
    TASKS.into_iter().map(|tasks| (tasks, evidence_of(run, tasks))).collect()
}

fn evidence_of(run: &RunRecord, tasks: u32) -> Evidence {
    let is_its = |s: &&Scenario| s.tasks == tasks && s.fault == FaultMode::None;
    let mut scenarios: Vec<&Scenario> = run.plan.scenarios.iter().filter(is_its).collect();
    // While a job merges alone, what is used is the merge's.
    if scenarios.iter().any(|s| s.concurrent_jobs == 1) {
        scenarios.retain(|s| s.concurrent_jobs == 1);
    }
    if scenarios.is_empty() {
        return Evidence {
            why: Some("no scenario without a fault has so many tasks".into()),
            ..Evidence::default()
        };
    }
    let cells: Vec<&CellRecord> = scenarios
        .iter()
        .flat_map(|s| summary::cells_of(run, s, None))
        .filter(|c| c.verdict != Verdict::Invalid)
        .collect();
    let costs = MergeCost::of(&cells);
    // Of several processes the one that was seen best: the others may have nothing to do with it.
    let best = costs.iter().max_by_key(|c| (c.with_cpu.min(c.with_memory), c.merges));
    let why = match best {
        _ if cells.is_empty() => Some("no cell was finished that can be trusted".into()),
        None => Some("no process was watched (--watch-pid)".into()),
        Some(best) => best.missing.first().cloned(),
    };
    Evidence {
        cells: cells.len(),
        cpu: best.map_or(0, |c| c.with_cpu),
        memory: best.map_or(0, |c| c.with_memory),
        merges: best.map_or(0, |c| c.merges),
        cost: best.cloned(),
        why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        moment::Moment,
        report::sample,
        telemetry::{Gap, process::ProcessSample},
    };

    /// A process that uses half a core all the time, its memory rising a kB with each look.
    fn watched(run: &mut RunRecord) {
        for cell in &mut run.cells {
            let looks = cell.duration.0 as i64 / 100_000 + 3;
            let samples = (0..looks).map(|i| ProcessSample {
                at: Moment((i - 1) * 100_000),
                cpu: Micros(i as u64 * 50_000),
                rss: 1_000_000 + i as u64 * 1_000,
                peak_rss: 9_000_000,
                processes: 3,
            });
            let series = ProcessSeries { samples: samples.collect(), ..ProcessSeries::default() };
            cell.telemetry.processes.insert("celery".into(), series);
        }
    }

    #[test]
    fn cpu_is_that_of_the_time_in_which_jobs_merged() {
        let mut run = sample::good();
        watched(&mut run);
        let summary = &ScenarioSummary::of_run(&run)[0];
        let cost = &of_scenario(&run, summary)[0];
        assert_eq!((cost.cells, cost.with_cpu, cost.with_memory), (10, 10, 10));
        assert_eq!((cost.merges, cost.clock), (20, Clock::Poll));
        let used = cost.cpu_per_merge().unwrap();
        assert!(used.least <= used.about && used.about <= used.most, "{used:?}");
        // Two users whose merges overlap or not: half a core over the merge, or half of that.
        let merge = summary.best(crate::timeline::Stage::Merge).unwrap().sample.mean().unwrap();
        assert!(used.most.0 >= merge.0 / 4 && used.least.0 <= merge.0 / 2, "{used:?} of {merge}");
        assert!(cost.median_growth().unwrap() > 0);
        assert_eq!(cost.memory.unwrap().ceiling, 9_000_000);
        assert_eq!(cost.resolution, Some(Micros(100_000)));
    }

    #[test]
    fn the_tap_tells_more_closely_when_its_clock_is_known() {
        let mut run = sample::faults();
        watched(&mut run);
        let cost = |run: &RunRecord| of_scenario(run, &ScenarioSummary::of_run(run)[0]).remove(0);
        let polled = cost(&run);
        assert_eq!(polled.clock, Clock::Poll, "nothing is known of the tap's clock");
        for posts in run.cells.iter_mut().filter_map(|c| c.posts.as_mut()) {
            posts.t0 = Some(crate::timeline::Between { after: Micros(0), before: Micros(500) });
        }
        let tapped = cost(&run);
        assert_eq!(tapped.clock, Clock::Tap);
        let width = |c: &MergeCost| c.cpu.most.0 - c.cpu.least.0;
        assert!(width(&tapped) <= width(&polled), "{tapped:?} {polled:?}");
    }

    #[test]
    fn evidence_says_what_is_missing() {
        let mut run = sample::good();
        let none = evidence(&run);
        assert_eq!(none.keys().copied().collect::<Vec<_>>(), TASKS);
        assert!(none[&4].why.as_ref().unwrap().contains("--watch-pid"));
        assert!(none[&32].why.as_ref().unwrap().contains("no scenario"));
        assert!(none.values().all(|e| !e.is_measured()));
        watched(&mut run);
        let all = evidence(&run);
        assert!(all[&4].is_measured());
        assert_eq!((all[&4].cells, all[&4].cpu, all[&4].memory, all[&4].why.clone()), (10, 10, 10, None));
        let ended = Gap { from: Moment(-200_000), to: Moment(i64::MAX), why: "it (pid 7) has ended".into() };
        for cell in &mut run.cells {
            cell.telemetry.processes.get_mut("celery").unwrap().gaps.push(ended.clone());
        }
        let gone = evidence(&run);
        assert!(!gone[&4].is_measured());
        assert!(gone[&4].why.as_ref().unwrap().ends_with("it (pid 7) has ended"));
        assert!(evidence(&sample::empty())[&4].why.as_ref().unwrap().contains("no cell was finished"));
    }
}
