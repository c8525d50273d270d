//! The criteria that need something to be sampled beside the cells: the merge's process, and Redis.

use std::collections::{BTreeMap, BTreeSet};

use super::{Found, State, not_measured, not_planned};
use crate::{
    micros::Micros,
    moment::Moment,
    record::{CellRecord, RunRecord},
    report::figure::bytes,
    telemetry::{process::ProcessSeries, redis::RedisSeries},
    timeline::JobState,
    verdict::Verdict,
};

/// The numbers of tasks that the runbook has merges profiled for.
const TASKS: [u32; 4] = [4, 8, 16, 32];
/// The scenarios of the runbook that put Redis under load.
const UNDER_LOAD: [&str; 6] = ["S1", "S2", "S3", "S4", "S5", "S6"];

/// Stretches in which a job of the cell was merging, as far as polling tells.
fn merges(cell: &CellRecord) -> Vec<(Moment, Moment)> {
    let moment = |at: Micros| Moment(i64::try_from(at.0).unwrap_or(i64::MAX));
    let of = |job: &crate::snapshot::Job| {
        let begin = job.timeline.reached(JobState::MergingQueued)?.after;
        let end = job.timeline.reached(JobState::Completed)?.before;
        Some((moment(begin), moment(end)))
    };
    cell.totals.jobs.values().filter_map(of).collect()
}

/// What a watched process used while jobs of the cell were merging: CPU time and the most bytes
/// resident; `None` where it was not looked at meanwhile.
fn used(cell: &CellRecord, series: &ProcessSeries) -> Option<(Micros, u64)> {
    let merges = merges(cell);
    let is_merging = |at: Moment| merges.iter().any(|(begin, end)| *begin <= at && at <= *end);
    let during = || series.samples.iter().filter(|s| is_merging(s.at));
    let peak = during().map(|s| s.rss).max()?;
    let cpu = series
        .samples
        .windows(2)
        .filter(|pair| is_merging(Moment(i64::midpoint(pair[0].at.0, pair[1].at.0))))
        .map(|pair| pair[1].cpu.saturating_sub(pair[0].cpu))
        .sum();
    Some((cpu, peak))
}

fn sound(run: &RunRecord) -> impl Iterator<Item = &CellRecord> {
    run.measured().filter(|c| c.verdict != Verdict::Invalid)
}

pub(super) fn merge_cost(run: &RunRecord) -> Found {
    let probes: Vec<String> =
        sound(run).flat_map(|c| &c.telemetry.probes).flat_map(|p| p.files.iter().cloned()).collect();
    let files = |mut of_probes: Vec<String>| {
        of_probes.truncate(4);
        of_probes.insert(0, "run.json".into());
        of_probes
    };
    if sound(run).all(|c| c.telemetry.processes.is_empty()) {
        let ran = if probes.is_empty() { "" } else { ", though probes ran" };
        return (
            State::NotMeasured,
            format!("no process was watched{ran}: give --watch-pid NAME=PID"),
            probes,
        );
    }
    let (mut said, mut lacking) = (Vec::new(), Vec::new());
    for tasks in TASKS {
        let cells = || sound(run).filter(|c| c.cell.tasks == tasks && c.cell.fault.is_none());
        let all: Vec<(Micros, u64, usize)> = cells()
            .flat_map(|c| c.telemetry.processes.values().filter_map(move |s| Some((c, used(c, s)?))))
            .map(|(c, (cpu, peak))| (cpu, peak, c.totals.jobs.len()))
            .collect();
        let jobs: usize = all.iter().map(|u| u.2).sum();
        match all.iter().map(|u| u.1).max() {
            Some(peak) => {
                let cpu: Micros = all.iter().map(|u| u.0).sum();
                let each = Micros(cpu.0 / jobs.max(1) as u64);
                said.push(format!("{tasks} tasks {each} CPU a job, {} resident", bytes(peak)));
            }
            None if cells().next().is_none() => lacking.push(format!("no sound cell of {tasks} tasks")),
            None => lacking.push(format!("no look at a watched process during a merge of {tasks} tasks")),
        }
    }
    if lacking.is_empty() {
        return (State::Met, format!("while merging: {}", said.join("; ")), files(probes));
    }
    (State::NotMeasured, lacking.join("; "), files(probes))
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
    if whole < cells.len() || seen.len() < UNDER_LOAD.len() {
        let why = format!(
            "{whole} of {} sound cells of S1–S6 have Redis samples without gaps, {} of {} scenarios",
            cells.len(),
            seen.len(),
            UNDER_LOAD.len()
        );
        return (State::NotMet, why, files);
    }
    (State::Met, pressure(&cells), files)
}

/// What Redis had to bear, by concurrent jobs of the same number of tasks.
fn pressure(cells: &[&CellRecord]) -> String {
    let tasks = cells.iter().max_by_key(|c| c.cell.users).map_or(0, |c| c.cell.tasks);
    let mut by_users: BTreeMap<u32, Vec<(&RedisSeries, u64)>> = BTreeMap::new();
    for cell in cells.iter().filter(|c| c.cell.tasks == tasks) {
        let of_cell = by_users.entry(cell.cell.users).or_default();
        of_cell.extend(cell.telemetry.redis.as_ref().map(|r| (r, cell.ledger.submitted)));
    }
    let each = by_users.into_iter().map(|(users, all)| {
        let samples = || all.iter().flat_map(|(r, _)| &r.samples);
        let memory = samples().map(|s| s.used_memory).max().unwrap_or(0);
        let queue = samples().map(|s| s.queues.values().sum::<u64>()).max().unwrap_or(0);
        let traffic: u64 = all.iter().map(|(r, _)| traffic(r)).sum();
        let jobs: u64 = all.iter().map(|(_, jobs)| jobs).sum();
        format!(
            "{users} at once: memory to {}, queue to {queue}, {} a job",
            bytes(memory),
            bytes(traffic / jobs.max(1))
        )
    });
    format!("jobs of {tasks} tasks, {}", each.collect::<Vec<_>>().join("; "))
}

/// Bytes in and out of Redis between the first and the last look.
fn traffic(series: &RedisSeries) -> u64 {
    let (Some(first), Some(last)) = (series.samples.first(), series.samples.last()) else { return 0 };
    (last.net_input + last.net_output).saturating_sub(first.net_input + first.net_output)
}
