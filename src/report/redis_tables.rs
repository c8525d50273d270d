//! The tables on the target's Redis, for HTML, Markdown and the terminal alike.

use std::collections::BTreeMap;

use crate::{
    micros::Micros,
    report::{
        Paper,
        figure::{self, NONE},
        saturation_tables,
        table::{Cell, Table, code, name, num},
    },
    saturation::{Cost, Part, Saturation, Spread, Watched},
    telemetry::redis::CommandCost,
};

/// Commands listed of a scenario, those that took most of the CPU.
const COMMANDS: usize = 12;
/// Gaps listed of a run.
const GAPS: usize = 20;

/// The parts of a run whose Redis was sampled.
pub(crate) fn parts<'a>(paper: &Paper<'a>) -> Vec<Part<'a>> {
    paper.parts().filter_map(|s| Part::of(paper.run, s)).collect()
}

/// Every table; none when no Redis was sampled.
pub(crate) fn all(paper: &Paper<'_>) -> Vec<Table> {
    let parts = parts(paper);
    if parts.is_empty() {
        return Vec::new();
    }
    let saturation = Saturation::of(&parts);
    let mut tables = vec![memory(&parts), traffic(&parts), results(&parts), commands(&parts)];
    tables.push(saturation_tables::inflections(&saturation));
    tables.push(saturation_tables::correlations(&saturation));
    tables.push(gaps(&parts));
    tables.push(sampling(&parts));
    tables
}

/// What fits on a terminal: one row a scenario; `None` when no Redis was sampled.
pub(crate) fn short(paper: &Paper<'_>) -> Option<Table> {
    let mut t = Table::new(
        "Redis",
        &["scenario", "memory above start", "in per job", "out per job", "CPU per job", "queue", "gaps"],
    );
    for part in parts(paper) {
        let middle = |cost| part.spread(|w| w.cost(cost)).map(|s| s.median);
        t.row(vec![
            part.name.clone().into(),
            num(said(Cost::Memory, middle(Cost::Memory))),
            num(said(Cost::Input, middle(Cost::Input))),
            num(said(Cost::Output, middle(Cost::Output))),
            num(said(Cost::Cpu, middle(Cost::Cpu))),
            num(said(Cost::Queue, middle(Cost::Queue))),
            num(part.cells.iter().map(|w| w.figures.gaps).sum::<usize>()),
        ]);
    }
    (!t.is_empty()).then_some(t)
}

/// A cost with its unit.
pub(super) fn said(cost: Cost, value: Option<f64>) -> String {
    let Some(value) = value else { return NONE.into() };
    match cost {
        Cost::Memory | Cost::Input | Cost::Output => bytes(value),
        Cost::Cpu => Micros(value.max(0.0).round() as u64).to_string(),
        Cost::Commands | Cost::Queue => count(value),
        Cost::Ops => format!("{}/s", count(value)),
    }
}

fn bytes(value: f64) -> String {
    let sign = if value < 0.0 { "−" } else { "" };
    format!("{sign}{}", figure::bytes(value.abs().round() as u64))
}

pub(super) fn count(value: f64) -> String {
    if value.fract() == 0.0 || value >= 100.0 { format!("{value:.0}") } else { format!("{value:.1}") }
}

/// `12 MB (11 MB … 14 MB)`: the median over the cells and its ends.
fn spread(s: Option<Spread>, said: impl Fn(f64) -> String) -> Cell {
    num(match s {
        None => NONE.into(),
        Some(s) if said(s.min) == said(s.max) => said(s.median),
        Some(s) => format!("{} ({} … {})", said(s.median), said(s.min), said(s.max)),
    })
}

fn memory(parts: &[Part<'_>]) -> Table {
    let mut t = Table::new(
        "Redis: memory and queues",
        &[
            "scenario",
            "tasks in flight",
            "cells",
            "samples",
            "gaps",
            "peak",
            "above start",
            "slope",
            "queue",
            "unacked",
            "evicted",
        ],
    );
    for part in parts {
        let sum = |of: fn(&Watched<'_>) -> u64| part.cells.iter().map(of).sum::<u64>();
        t.row(vec![
            part.name.clone().into(),
            num(part.load),
            num(part.cells.len()),
            num(sum(|w| w.figures.samples as u64)),
            num(sum(|w| w.figures.gaps as u64)),
            spread(part.spread(|w| Some(w.figures.memory_peak as f64)), bytes),
            spread(part.spread(|w| w.cost(Cost::Memory)), bytes),
            spread(part.spread(|w| w.figures.memory_slope), |v| format!("{}/s", bytes(v))),
            spread(part.spread(|w| w.cost(Cost::Queue)), count),
            spread(part.spread(|w| Some(w.figures.unacked_peak as f64)), count),
            num(sum(|w| w.figures.evicted)),
        ]);
    }
    t.note("Medians over the cells that count, least and most in brackets. Memory is used_memory; its peak is what Redis saw itself where that rose within the cell, otherwise the largest of a sample a second. Slope: least squares over the samples from T0 on. Queue: the most messages waiting at a sample, all queues and their priorities together; unacked: handed out to workers and not acknowledged.");
    if parts.iter().flat_map(|p| &p.cells).any(|w| w.figures.is_cut) {
        t.note(cuts(parts));
    }
    t
}

/// What of the cells is a lower bound, and why.
fn cuts(parts: &[Part<'_>]) -> String {
    let mut places: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for w in parts.iter().flat_map(|p| &p.cells) {
        for why in &w.series.cuts {
            places
                .entry(why)
                .or_default()
                .push(format!("{} #{}", w.cell.cell.scenario, w.cell.cell.repetition));
        }
    }
    let each = places.iter().map(|(why, cells)| format!("{why} ({})", cells.join(", ")));
    format!(
        "What Redis counts is a lower bound where its counters do not cover the cell: {}.",
        each.collect::<Vec<_>>().join("; ")
    )
}

fn traffic(parts: &[Part<'_>]) -> Table {
    let costs = [Cost::Input, Cost::Output, Cost::Commands, Cost::Cpu, Cost::Ops];
    let mut t = Table::new(
        "Redis: traffic and work",
        &[
            "scenario",
            "jobs",
            "in per job",
            "out per job",
            "commands per job",
            "CPU per job",
            "commands per second",
        ],
    );
    for part in parts {
        let mut row = vec![part.name.clone().into(), num(part.cells.iter().map(|w| w.jobs).sum::<u64>())];
        row.extend(costs.map(|cost| spread(part.spread(|w| w.cost(cost)), |v| said(cost, Some(v)))));
        t.row(row);
    }
    t.note("Per job that the target accepted, ended or not; cells in which Redis was restarted are left out there. Bytes as Redis counts them, without the sampling's own; CPU is that of the whole process, the kernel's part included.");
    t
}

fn results(parts: &[Part<'_>]) -> Table {
    let mut t = Table::new(
        "Redis: stored results (celery-task-meta-*)",
        &["scenario", "of", "count", "min", "p50", "p95", "max", "in all"],
    );
    let mut partial = Vec::new();
    for part in parts {
        let kinds = ["one task", "many tasks", "other"];
        for (i, kind) in kinds.into_iter().enumerate() {
            let all = part.cells.iter().flat_map(|w| {
                let r = &w.series.results;
                [&r.bytes, &r.aggregates, &r.others][i].iter().copied()
            });
            let mut sizes: Vec<u64> = all.collect();
            if sizes.is_empty() && i > 0 {
                continue;
            }
            sizes.sort_unstable();
            let at = |q: f64| {
                let rank = ((q * sizes.len() as f64).ceil() as usize).clamp(1, sizes.len().max(1)) - 1;
                num(sizes.get(rank).map_or_else(|| NONE.into(), |n| figure::bytes(*n)))
            };
            t.row(vec![
                part.name.clone().into(),
                name(kind),
                num(sizes.len()),
                at(0.0),
                at(0.5),
                at(0.95),
                at(1.0),
                num(figure::bytes(sizes.iter().sum())),
            ]);
        }
        let cut = part.cells.iter().filter(|w| w.series.results.is_partial);
        partial.extend(cut.map(|w| format!("{} #{}", w.cell.cell.scenario, w.cell.cell.repetition)));
    }
    t.note("Values that were stored within the cells, whole as Celery stores them: its envelope is some 0.7 kB of each. One task: an object that begins with estimators. Many tasks: a list, as what stands behind a chord hands on. Told by their first 200 bytes.");
    if !partial.is_empty() {
        t.note(format!(
            "There may be more of them in {}: the keys could not all be walked through.",
            partial.join(", ")
        ));
    }
    t
}

fn commands(parts: &[Part<'_>]) -> Table {
    let mut t = Table::new(
        "Redis: commands",
        &[
            "scenario",
            "command",
            "calls per job",
            "CPU per call",
            "CPU per job",
            "share of command CPU",
            "p99 since start",
        ],
    );
    for part in parts {
        let mut all: BTreeMap<&str, CommandCost> = BTreeMap::new();
        for (name, cost) in part.cells.iter().flat_map(|w| &w.series.commands) {
            let sum = all.entry(name).or_default();
            sum.calls += cost.calls;
            sum.busy += cost.busy;
            sum.p99 = sum.p99.max(cost.p99);
        }
        let jobs: u64 = part.cells.iter().filter(|w| !w.series.commands.is_empty()).map(|w| w.jobs).sum();
        let busy: Micros = all.values().map(|c| c.busy).sum();
        let mut rows: Vec<(&str, CommandCost)> = all.into_iter().collect();
        rows.sort_by_key(|(name, c)| (std::cmp::Reverse(c.busy), *name));
        let per_job = |n: u64| (jobs > 0).then(|| n as f64 / jobs as f64);
        for (name, c) in rows.into_iter().take(COMMANDS) {
            t.row(vec![
                part.name.clone().into(),
                code(name),
                num(per_job(c.calls).map_or_else(|| NONE.into(), count)),
                num(format!("{:.1} µs", c.busy.0 as f64 / c.calls.max(1) as f64)),
                num(said(Cost::Cpu, per_job(c.busy.0))),
                num(if busy == Micros::ZERO {
                    NONE.into()
                } else {
                    figure::percent(c.busy.0 as f64 / busy.0 as f64)
                }),
                num(c.p99.map_or_else(|| NONE.into(), |p| p.to_string())),
            ]);
        }
    }
    t.note(format!("Differences of commandstats over each cell, our own commands left out; the {COMMANDS} of each scenario that took most. CPU is the execution of the command alone, without reading and writing its bytes. p99 is latencystats' own, of all calls since Redis started or was reset, not of these cells."));
    t
}

fn gaps(parts: &[Part<'_>]) -> Table {
    let mut t = Table::new("Redis: gaps in the samples", &["cell", "from", "to", "long", "why"]);
    let all: Vec<(&Watched<'_>, &crate::telemetry::Gap)> =
        parts.iter().flat_map(|p| &p.cells).flat_map(|w| w.series.gaps.iter().map(move |g| (w, g))).collect();
    for (w, gap) in all.iter().take(GAPS) {
        let long = Micros(u64::try_from(gap.to.0 - gap.from.0).unwrap_or(0));
        t.row(vec![
            format!("{} #{}", w.cell.cell.scenario, w.cell.cell.repetition).into(),
            num(gap.from),
            num(gap.to),
            num(long),
            code(gap.why.as_str()),
        ]);
    }
    if all.len() > GAPS {
        t.note(format!("{} more are in the CSV files.", all.len() - GAPS));
    }
    t
}

fn sampling(parts: &[Part<'_>]) -> Table {
    let mut t = Table::new(
        "Redis: what the sampling cost it",
        &[
            "scenario",
            "commands per second",
            "bytes per second to it",
            "from it",
            "CPU of a core",
            "share of its CPU",
        ],
    );
    for part in parts {
        let per_second = |of: fn(&Watched<'_>) -> u64| {
            part.spread(|w| {
                let span = w.figures.span;
                (span > Micros::ZERO).then(|| of(w) as f64 / span.as_secs())
            })
        };
        let share = part.spread(|w| {
            let all = w.figures.cpu + w.series.cost.busy;
            (all > Micros::ZERO).then(|| w.series.cost.busy.0 as f64 / all.0 as f64)
        });
        let percent = |v: f64| format!("{:.3} %", v * 100.0);
        t.row(vec![
            part.name.clone().into(),
            spread(per_second(|w| w.series.cost.commands), count),
            spread(per_second(|w| w.series.cost.sent), bytes),
            spread(per_second(|w| w.series.cost.received), bytes),
            spread(per_second(|w| w.series.cost.busy.0), |us| percent(us / 1e6)),
            spread(share, percent),
        ]);
    }
    t.note("CPU is the execution of our commands as commandstats has it. They are left out of every figure above.");
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_tables_read_so() {
        let run = sample::redis();
        let paper = Paper::of(&run);
        let text: String = all(&paper).iter().map(Table::markdown).collect();
        insta::assert_snapshot!(format!("{text}{}", short(&paper).unwrap().text()));
    }

    #[test]
    fn without_a_redis_there_is_none() {
        for run in [sample::mixed(), sample::empty()] {
            let paper = Paper::of(&run);
            assert!(all(&paper).is_empty() && short(&paper).is_none());
        }
    }

    #[test]
    fn every_report_has_them() {
        let run = sample::redis();
        let paper = Paper::of(&run);
        let markdown = crate::report::markdown::summary(&paper);
        let html = crate::report::html::page(&paper);
        let terminal = crate::report::terminal::table(&paper);
        for table in all(&paper) {
            assert!(markdown.contains(&table.markdown()) && html.contains(&table.html()));
        }
        assert!(terminal.contains(&short(&paper).unwrap().text()), "{terminal}");
    }

    #[test]
    fn what_is_only_a_lower_bound_is_said() {
        let mut run = sample::redis();
        let cell = run.cells.iter_mut().find(|c| c.telemetry.redis.is_some()).unwrap();
        let place = format!("Redis was restarted ({} #{})", cell.cell.scenario, cell.cell.repetition);
        cell.telemetry.redis.as_mut().unwrap().cuts = vec!["Redis was restarted".into()];
        let text = all(&Paper::of(&run))[0].markdown();
        assert!(text.contains("a lower bound") && text.contains(&place), "{text}");
    }
}
