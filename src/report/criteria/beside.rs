//! The criteria that need something to be sampled beside the cells: the merge's process, and Redis.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, State, not_measured, not_planned};
use crate::{
    merge_cost,
    micros::Micros,
    record::{CellRecord, RunRecord},
    report::figure::bytes,
    saturation,
    telemetry::redis::{Figures, RedisSeries},
    verdict::Verdict,
};

/// The scenarios of the runbook that put Redis under load.
const UNDER_LOAD: [&str; 6] = ["S1", "S2", "S3", "S4", "S5", "S6"];

fn sound(run: &RunRecord) -> impl Iterator<Item = &CellRecord> {
    run.measured().filter(|c| c.verdict != Verdict::Invalid)
}

pub(super) fn merge_cost(run: &RunRecord) -> Found {
    let probes: Vec<String> =
        sound(run).flat_map(|c| &c.telemetry.probes).flat_map(|p| p.files.iter().cloned()).collect();
    if sound(run).all(|c| c.telemetry.processes.is_empty()) {
        let ran = if probes.is_empty() { "" } else { ", though probes ran" };
        let why = format!("no process was watched{ran}: give --watch-pid NAME=PID");
        return (State::NotMeasured, why, probes);
    }
    let (mut said, mut lacking) = (Vec::new(), Vec::new());
    for (tasks, evidence) in merge_cost::evidence(run) {
        match evidence
            .cost
            .as_ref()
            .filter(|_| evidence.is_measured())
            .map(|c| (c, c.cpu_per_merge(), c.memory))
        {
            Some((_, Some(cpu), _)) if cpu.least == Micros::ZERO => lacking.push(format!(
                "{tasks} tasks: merges are too short to be told from what is around them ({} … {} CPU each)",
                cpu.least, cpu.most
            )),
            Some((cost, Some(cpu), Some(memory))) => said.push(format!(
                "{tasks} tasks {} … {} CPU a merge, {} resident ({}, {} of {} cells)",
                cpu.least,
                cpu.most,
                bytes(memory.peak),
                cost.process,
                evidence.cpu.min(evidence.memory),
                evidence.cells
            )),
            _ => lacking
                .push(format!("{tasks} tasks: {}", evidence.why.as_deref().unwrap_or("nothing was seen"))),
        }
    }
    // Of what the probes left, what was read as a profile.
    let profiles = sound(run).flat_map(|c| &c.telemetry.probes).filter(|p| !p.profiles.is_empty());
    let mut files: Vec<String> = profiles.flat_map(|p| &p.files).take(4).cloned().collect();
    files.insert(0, "summary.md".into());
    if lacking.is_empty() {
        return (State::Met, format!("while merging: {}", said.join("; ")), files);
    }
    (State::NotMeasured, lacking.join("; "), files)
}

pub(super) fn redis_saturation(run: &RunRecord) -> Found {
    if let Some(why) = not_planned(run, UNDER_LOAD.map(str::to_owned)) {
        return not_measured(why);
    }
    let cells: Vec<&CellRecord> =
        sound(run).filter(|c| UNDER_LOAD.iter().any(|id| c.cell.scenario.is(id))).collect();
    if run.redis.is_none() && cells.iter().all(|c| c.telemetry.redis.is_none()) {
        return not_measured("Redis was not looked at: give --redis-url");
    }
    let files = UNDER_LOAD.iter().map(|id| format!("redis/{id}_redis.csv")).collect();
    let series = |c: &&&CellRecord| {
        c.telemetry.redis.as_ref().is_some_and(|r| !r.samples.is_empty() && r.gaps.is_empty())
    };
    let whole = cells.iter().filter(series).count();
    let seen: BTreeSet<&str> = cells.iter().filter(series).map(|c| c.cell.scenario.as_str()).collect();
    // Under saturation a look may well come late: a scenario needs one cell that was seen whole.
    if seen.len() < UNDER_LOAD.len() {
        let why = format!(
            "{whole} of {} sound cells of S1–S6 have Redis samples without gaps, {} of {} scenarios",
            cells.len(),
            seen.len(),
            UNDER_LOAD.len()
        );
        return (State::NotMet, why, files);
    }
    let seen = format!("{whole} of {} cells without gaps; {}", cells.len(), pressure(&cells));
    (State::Met, seen, files)
}

/// What Redis had to bear, by concurrent jobs of the same number of tasks.
fn pressure(cells: &[&CellRecord]) -> String {
    let tasks = cells.iter().max_by_key(|c| c.cell.users).map_or(0, |c| c.cell.tasks);
    let mut by_users: BTreeMap<u32, Vec<(&RedisSeries, u64)>> = BTreeMap::new();
    for cell in cells.iter().filter(|c| c.cell.tasks == tasks) {
        let of_cell = by_users.entry(cell.cell.users).or_default();
        of_cell.extend(cell.telemetry.redis.as_ref().map(|r| (r, saturation::jobs(cell))));
    }
    let each = by_users.into_iter().map(|(users, all)| {
        let figures: Vec<Figures> = all.iter().filter_map(|(r, _)| Figures::of(r)).collect();
        let memory = figures.iter().map(|f| f.memory_rise()).max().unwrap_or(0);
        let queue = figures.iter().map(|f| f.queue_peak).max().unwrap_or(0);
        let traffic: u64 = figures.iter().map(|f| f.net_input + f.net_output).sum();
        let jobs: u64 = all.iter().map(|(_, jobs)| jobs).sum();
        format!(
            "{users} at once: memory up by {} at most, queue to {queue}, {} a job",
            bytes(memory),
            bytes(traffic / jobs.max(1))
        )
    });
    format!("jobs of {tasks} tasks, {}", each.collect::<Vec<_>>().join("; "))
}
