//! Merging in the summary as JSON: costs of watched processes, profiles, probes.

use serde::Serialize;

use crate::{
    merge_cost,
    micros::Micros,
    report::{
        Paper,
        merge_tables::{self, PLACES},
    },
    telemetry::probe::{ProbeRun, ProfileKind},
    timeline::Stage,
};

/// All of it; empty when no process was watched and no probe ran.
#[derive(Serialize)]
pub(super) struct OfMerge {
    costs: Vec<Cost>,
    profiles: Vec<OfProfile>,
    probes: Vec<Probe>,
}

/// A process in the cells of a scenario. CPU times are milliseconds per merge, memory is bytes.
#[derive(Serialize)]
struct Cost {
    tasks: u32,
    scenario: String,
    concurrent_jobs: u32,
    process: String,
    cells: usize,
    cells_with_cpu: usize,
    cells_with_memory: usize,
    merges: u64,
    wall_n: usize,
    wall_p50: Option<f64>,
    wall_p95: Option<f64>,
    cpu: Option<f64>,
    cpu_least: Option<f64>,
    cpu_most: Option<f64>,
    peak_memory: Option<u64>,
    peak_memory_at_most: Option<u64>,
    growth_p50: Option<i64>,
    growth_max: Option<i64>,
    clock: &'static str,
    resolution: Option<f64>,
    missing: Vec<String>,
}

#[derive(Serialize)]
struct OfProfile {
    tasks: u32,
    scenario: String,
    probe: String,
    kind: ProfileKind,
    total: u64,
    hotspots: Vec<Place>,
    files: Vec<String>,
}

#[derive(Serialize)]
struct Place {
    place: String,
    own: u64,
    total: Option<u64>,
    share: f64,
    cumulative: f64,
}

#[derive(Serialize)]
struct Probe {
    scenario: String,
    repetition: u32,
    #[serde(flatten)]
    run: ProbeRun,
}

impl OfMerge {
    pub(super) fn of(paper: &Paper<'_>) -> Self {
        let mut costs = Vec::new();
        for s in merge_tables::without_fault(paper) {
            let wall = s.best(Stage::Merge).map(|stage| &stage.sample);
            let quantile = |q: f64| wall.and_then(|sample| sample.quantile(q)).map(|q| q.value.as_ms());
            costs.extend(merge_cost::of_scenario(paper.run, s).into_iter().map(|c| {
                let cpu = c.cpu_per_merge();
                Cost {
                    tasks: s.scenario.tasks,
                    scenario: s.name(),
                    concurrent_jobs: s.scenario.concurrent_jobs,
                    cells: c.cells,
                    cells_with_cpu: c.with_cpu,
                    cells_with_memory: c.with_memory,
                    merges: c.merges,
                    wall_n: wall.map_or(0, |sample| sample.count()),
                    wall_p50: quantile(0.5),
                    wall_p95: quantile(0.95),
                    cpu: cpu.map(|u| u.about.as_ms()),
                    cpu_least: cpu.map(|u| u.least.as_ms()),
                    cpu_most: cpu.map(|u| u.most.as_ms()),
                    peak_memory: c.memory.map(|m| m.peak),
                    peak_memory_at_most: c.memory.map(|m| m.ceiling),
                    growth_p50: c.median_growth(),
                    growth_max: c.growth.last().copied(),
                    clock: c.clock.as_str(),
                    resolution: c.resolution.map(Micros::as_ms),
                    process: c.process,
                    missing: c.missing,
                }
            }));
        }
        let profile = |p: merge_tables::Profiled| OfProfile {
            tasks: p.tasks,
            kind: p.sum.kind,
            total: p.sum.total,
            hotspots: p
                .sum
                .first(PLACES)
                .into_iter()
                .map(|(h, share, cumulative)| Place {
                    place: h.place.clone(),
                    own: h.own,
                    total: h.total,
                    share,
                    cumulative,
                })
                .collect(),
            scenario: p.scenario,
            probe: p.probe,
            files: p.files,
        };
        let probes = paper.run.measured().flat_map(|cell| {
            cell.telemetry.probes.iter().map(|run| Probe {
                scenario: cell.cell.scenario.to_string(),
                repetition: cell.cell.repetition,
                // The places are told above, added up.
                run: ProbeRun { profiles: Vec::new(), ..run.clone() },
            })
        });
        Self {
            costs,
            profiles: merge_tables::profiled(paper).into_iter().map(profile).collect(),
            probes: probes.collect(),
        }
    }
}
