//! The tables that only several scenarios or repetitions need: statistics over repetitions, exit
//! criteria, figures for a decision record, cells that were made again.

use std::collections::BTreeMap;

use crate::{
    bootstrap::{Interval, LEAST_CELLS, METHOD},
    fault::FaultKind,
    micros::Micros,
    payload::PayloadKind,
    repetitions::{Repeated, Repetitions},
    report::{
        Paper,
        criteria::{self, State},
        figure::{NONE, TOO_SMALL_MEANS, bytes, said},
        table::{Cell, Table, code, name, num},
    },
    summary::ScenarioSummary,
    telemetry::redis::Figures,
    timeline::{JobOutcome, Stage},
    verdict::{Rule, Verdict},
};

/// Where there is no interval, as there are too few repetitions.
fn needs() -> String {
    format!("needs {LEAST_CELLS} repetitions")
}

/// An interval over repetitions: `4.40 s … 4.70 s`, `?` on a side that they do not bound.
pub(crate) fn interval(interval: Option<Interval>) -> String {
    let side = |m: Option<Micros>| m.map_or_else(|| "?".to_owned(), |m| m.to_string());
    interval.map_or_else(needs, |i| format!("{} … {}", side(i.low), side(i.high)))
}

/// What is said of intervals below every table that has them.
pub(crate) fn interval_note(paper: &Paper<'_>) -> String {
    format!(
        "CI: {METHOD}; drawn from seed {} and the scenario's name. \"?\": the repetitions do not bound it on that side, or unfinished jobs lie there.",
        paper.run.plan.seed
    )
}

/// What a metric over repetitions is told by, behind its name.
const OVER_REPETITIONS: [&str; 8] =
    ["source", "cells", "n", "p50", "p50 95 % CI", "p95", "p95 95 % CI", "medians of cells"];

/// Every metric of a scenario with intervals over its repetitions.
pub(crate) fn over_repetitions(paper: &Paper<'_>, r: &Repetitions) -> Table {
    let columns: Vec<&str> = ["what"].into_iter().chain(OVER_REPETITIONS).collect();
    let mut t = Table::new(format!("{}: over its repetitions", r.name), &columns);
    for m in &r.metrics {
        t.row(std::iter::once(m.metric.as_str().into()).chain(figures(m)).collect());
    }
    t.note(interval_note(paper));
    t.note(TOO_SMALL_MEANS);
    t
}

/// The same of all scenarios.
pub(crate) fn stages(paper: &Paper<'_>) -> Table {
    let columns: Vec<&str> = ["scenario", "what"].into_iter().chain(OVER_REPETITIONS).collect();
    let mut t = Table::new("Stages of a job by their best source, over the repetitions", &columns);
    let names = short_names(&paper.parts().collect::<Vec<_>>());
    for ((_, r), short) in paper.repeated().zip(names) {
        for m in &r.metrics {
            t.row([short.as_str().into(), m.metric.as_str().into()].into_iter().chain(figures(m)).collect());
        }
    }
    t.note("Every source of each stage, and how far they agree, is in report.html and in timings/.");
    t.note(interval_note(paper));
    t.note(TOO_SMALL_MEANS);
    t
}

fn figures(m: &Repeated) -> [Cell; 8] {
    let spread = m.spread().map_or_else(
        || NONE.to_owned(),
        |(least, most)| format!("{} … {}", said(Some(least)), said(Some(most))),
    );
    [
        m.source.as_str().into(),
        num(m.counting),
        num(m.jobs),
        num(said(m.p50)),
        num(interval(m.p50_interval)),
        num(said(m.p95)),
        num(interval(m.p95_interval)),
        num(spread),
    ]
}

/// The five exit criteria of Phase 1; `None` for a run that is no matrix.
pub(crate) fn exit_criteria(paper: &Paper<'_>) -> Option<Table> {
    let all = criteria::all(paper);
    if all.is_empty() {
        return None;
    }
    let mut t = Table::new(
        "What Phase 1 was to find out, and what shows it",
        &["criterion", "state", "evidence", "files"],
    );
    for r in all {
        t.row(vec![
            format!("{}. {}", r.criterion.number(), r.criterion.title()).into(),
            Cell::State(
                r.state.as_str(),
                match r.state {
                    State::Met => Some(true),
                    State::NotMet => Some(false),
                    State::NotMeasured => None,
                },
            ),
            r.evidence.into(),
            files(&r.files),
        ]);
    }
    t.note("A criterion is met when its figures are there and sound; whether they are good enough is for the decision record to say.");
    Some(t)
}

/// Where the evidence stands: of many files of one kind the first and the last.
fn files(all: &[String]) -> Cell {
    match all {
        [] => NONE.into(),
        [first, .., last] if all.len() > 3 => code(format!("{first} … {last}")),
        some => code(some.join(", ")),
    }
}

/// The figures that decisions are taken on, one row a scenario.
pub(crate) fn decision(paper: &Paper<'_>) -> Table {
    let has_redis = paper.run.measured().any(|c| c.telemetry.redis.is_some());
    let mut columns = vec![
        "scenario",
        "load",
        "verdict",
        "cells",
        "n",
        "end to end p50 [95 % CI]",
        "p95 [95 % CI]",
        "run",
        "merge",
        "persist",
        "results",
        "not fetched",
    ];
    if has_redis {
        columns.push("Redis memory above start");
    }
    let mut t = Table::new("One row a scenario, or a level of its fault", &columns);
    let names = short_names(&paper.parts().collect::<Vec<_>>());
    for ((s, r), short) in paper.repeated().zip(names) {
        let with = |q, i: fn(&Repeated) -> Option<Interval>| {
            let of = r.stage(Stage::EndToEnd).and_then(i).filter(|i| i.low.or(i.high).is_some());
            of.map_or_else(|| said(q), |i| format!("{} [{}]", said(q), interval(Some(i))))
        };
        let e2e = s.stage(Stage::EndToEnd);
        let p50 = |stage| num(said(s.best(stage).and_then(|b| b.quantile(0.5))));
        let results = s.payloads.iter().find(|p| p.kind == PayloadKind::Results);
        let mut row: Vec<Cell> = vec![
            short.into(),
            name(format!("{} × {}", s.scenario.concurrent_jobs, s.scenario.tasks)),
            s.verdict.into(),
            num(s.cells - s.invalid),
            num(e2e.sample.count()),
            num(with(e2e.quantile(0.5), |m| m.p50_interval)),
            num(with(e2e.quantile(0.95), |m| m.p95_interval)),
            p50(Stage::Run),
            p50(Stage::Merge),
            p50(Stage::Persist),
            num(results.map_or_else(|| NONE.into(), |p| bytes(p.quantile(0.5)))),
            not_fetched(s),
        ];
        if has_redis {
            row.push(num(redis_rise(paper, s).map_or_else(|| NONE.into(), bytes)));
        }
        t.row(row);
    }
    t.note(
        "Medians where nothing else is said; Stages by their best source; load is concurrent jobs × tasks a job; n counts unfinished jobs too.",
    );
    t.note(interval_note(paper));
    t.note(TOO_SMALL_MEANS);
    t
}

/// How far a cell of the scenario drove the memory of Redis above where it stood: the median of the
/// cells. The peak itself is a history of the run.
fn redis_rise(paper: &Paper<'_>, s: &ScenarioSummary) -> Option<u64> {
    let cells = s.counting(paper.run);
    let figures = cells.iter().filter_map(|c| Figures::of(c.telemetry.redis.as_ref()?));
    let mut rises: Vec<u64> = figures.map(|f| f.memory_rise()).collect();
    rises.sort_unstable();
    rises.get(rises.len().saturating_sub(1) / 2).copied()
}

fn not_fetched(s: &ScenarioSummary) -> Cell {
    let kinds = JobOutcome::KINDS.into_iter().filter(|k| *k != "fetched");
    let some: Vec<String> = kinds
        .filter_map(|k| s.outcomes.get(k).filter(|n| **n > 0).map(|n| format!("{n} {}", k.replace('_', " "))))
        .collect();
    if some.is_empty() { num(0) } else { num(some.join(", ")) }
}

/// Short names of scenarios and levels: `S6`, `S7 +250 ms`, `S8 2 %`.
pub(crate) fn short_names(parts: &[&ScenarioSummary]) -> Vec<String> {
    let name = |s: &&ScenarioSummary| {
        let id = &s.scenario.id;
        match s.fault.as_ref().filter(|_| s.name() != id.as_str()).map(|f| &f.kind) {
            None | Some(FaultKind::None) => id.to_string(),
            Some(FaultKind::Latency { delay, .. }) => format!("{id} +{delay}"),
            Some(FaultKind::Drop { ratio, .. }) => format!("{id} {ratio}"),
            Some(FaultKind::Disconnect { refuse, .. }) => format!("{id} off {refuse}"),
        }
    };
    let mut names: Vec<String> = parts.iter().map(name).collect();
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for name in &mut names {
        let nth = seen.entry(name.clone()).or_default();
        *nth += 1;
        // Levels may differ in what has no room here.
        if *nth > 1 {
            name.push_str(&format!(" ({nth})"));
        }
    }
    names
}

/// INVALID cells that were made again; `None` when there was none.
pub(crate) fn remade(paper: &Paper<'_>) -> Option<Table> {
    let mut t = Table::new(
        "Cells that were made again",
        &["cell", "attempt", "verdict", "why it does not count", "the attempt that counts"],
    );
    for old in paper.run.replaced() {
        let why: Vec<String> = old
            .checks
            .iter()
            .filter(|c| c.verdict == Verdict::Invalid)
            .map(|c| format!("{}: {}", c.rule, c.evidence))
            .collect();
        let is_same = |c: &&crate::record::CellRecord| {
            c.cell.scenario == old.cell.scenario && c.cell.repetition == old.cell.repetition
        };
        let last = paper.run.measured().find(is_same);
        t.row(vec![
            format!("{} #{}", old.cell.scenario, old.cell.repetition).into(),
            num(old.cell.attempt),
            old.verdict.into(),
            if why.is_empty() { NONE.into() } else { why.join("; ").into() },
            last.map_or_else(|| NONE.into(), |c| name(format!("{}, {}", c.cell.attempt, c.verdict))),
        ]);
    }
    t.note("They are in no figure of this report.");
    (!t.is_empty()).then_some(t)
}

/// The limits of the command line; `None` when none was given.
pub(crate) fn thresholds(paper: &Paper<'_>) -> Option<Table> {
    let mut t = Table::new("Thresholds of the command line", &["verdict", "threshold and figure"]);
    for check in paper.run.checks.iter().filter(|c| c.rule == Rule::Threshold) {
        t.row(vec![check.verdict.into(), check.evidence.as_str().into()]);
    }
    (!t.is_empty()).then_some(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn short_names_tell_levels_apart() {
        let run = sample::matrix(2);
        let paper = Paper::of(&run);
        let names = short_names(&paper.parts().collect::<Vec<_>>());
        assert_eq!(
            names,
            ["S1", "S2", "S3", "S4", "S5", "S6", "S7 +250 ms", "S7 +1.00 s", "S8 2 %", "S8 5 %"]
        );
    }
}
