//! The tables on a whole run, for HTML and Markdown alike.

use crate::{
    fault::Fault,
    repetitions::Repetitions,
    report::{
        Paper,
        figure::{self, NONE, TOO_SMALL_MEANS, part, said},
        fold,
        matrix_tables::{interval, interval_note},
        table::{Cell, Table, code, name, num},
        target_tables,
    },
    scenario::Scenario,
    summary::{self, ScenarioSummary},
    timeline::Stage,
};

/// Shown wherever a run on the stand-in is shown.
pub(crate) const STAND_IN: &str = "target: built-in stand-in";
/// What that means.
pub(crate) const STAND_IN_MEANS: &str = "its figures say nothing about any real backend";

/// Every rule of every cell, one row a rule.
pub(crate) fn checklist(paper: &Paper<'_>) -> Table {
    let mut t = Table::new(
        "Validity checklist: every rule, its worst cell",
        &["rule", "verdict", "held", "where", "evidence"],
    );
    for r in fold::rulings(paper.run) {
        let place = r.cell.map_or("run".into(), |c| format!("{} #{}", c.cell.scenario, c.cell.repetition));
        t.row(vec![
            r.rule.as_str().into(),
            r.verdict.into(),
            num(format!("{} of {}", r.applied - r.broken, r.applied)),
            place.into(),
            r.evidence.into(),
        ]);
    }
    t
}

/// What was found, about the target first.
pub(crate) fn findings(paper: &Paper<'_>) -> Table {
    let mut t = Table::new(
        "Findings, with the first examples as evidence",
        &["scenario", "finding", "about", "count", "cells", "examples"],
    );
    for f in fold::findings(paper.run) {
        let about = f.about();
        t.row(vec![
            f.part.into(),
            f.kind.to_string().into(),
            about.into(),
            num(f.count),
            // What befell workers between two cells is in none.
            num(if f.cells == 0 { NONE.into() } else { format!("{} of {}", f.cells, f.of_cells) }),
            if f.examples.is_empty() { NONE.into() } else { code(f.examples.join(", ")) },
        ]);
    }
    t
}

/// One row a scenario: the table decisions are taken on. Planned scenarios without a finished
/// cell are in it.
pub(crate) fn matrix(paper: &Paper<'_>) -> Table {
    let mut t = Table::new(
        "Scenarios: end to end, from sending the submit to the last byte of the results",
        &[
            "scenario",
            "verdict",
            "jobs × tasks",
            "fault",
            "cells",
            "n",
            "fetched",
            "p50",
            "p50 95 % CI",
            "p95",
            "p95 95 % CI",
            "max",
        ],
    );
    let mut untrusted = Vec::new();
    let repeated: Vec<_> = paper.repeated().collect();
    for scenario in &paper.run.plan.scenarios {
        for level in summary::levels(scenario) {
            let is_its =
                |s: &ScenarioSummary| s.scenario.id == scenario.id && s.fault.as_ref() == Some(level);
            let part = repeated.iter().find(|(s, _)| is_its(s));
            t.row(part.map_or_else(|| unmeasured(scenario, level), |(s, r)| measured(s, r)));
            untrusted.extend(part.filter(|(s, _)| s.untrusted).map(|(s, _)| s.name()));
        }
    }
    if !untrusted.is_empty() {
        t.note(untrusted_note(&untrusted.join(", ")));
    }
    t.note("n: jobs, unfinished ones included; \">=\" where the figure lies among unfinished jobs. Figures leave INVALID cells out.");
    t.note(interval_note(paper));
    t.note(TOO_SMALL_MEANS);
    t
}

/// What stands beside figures that come from INVALID cells.
pub(crate) fn untrusted_note(scenarios: &str) -> String {
    format!(
        "All cells of {scenarios} are INVALID: their figures are shown for diagnosis and must not be used."
    )
}

fn head(scenario: &Scenario, fault: &str, verdict: Cell, cells: String) -> Vec<Cell> {
    vec![
        scenario.id.to_string().into(),
        verdict,
        num(format!("{} × {}", scenario.concurrent_jobs, scenario.tasks)),
        name(fault),
        name(cells),
    ]
}

fn unmeasured(scenario: &Scenario, level: &Fault) -> Vec<Cell> {
    let planned = (1..=scenario.repetitions).filter(|r| scenario.level(*r) == level).count();
    let cells = format!("0 of {planned}");
    let mut row = head(scenario, &level.to_string(), "not measured".into(), cells);
    row.extend(std::iter::repeat_n(num(NONE), 7));
    row
}

fn measured(s: &ScenarioSummary, repetitions: &Repetitions) -> Vec<Cell> {
    let e2e = &s.stage(Stage::EndToEnd).sample;
    let repeated = repetitions.stage(Stage::EndToEnd);
    let (p50, p95) = (e2e.quantile(0.5), e2e.quantile(0.95));
    let fetched = s.outcomes.get("fetched").copied().unwrap_or(0);
    let invalid = match s.invalid {
        0 => String::new(),
        n => format!(", {n} INVALID"),
    };
    let cells = format!("{} of {}{invalid}", s.cells, s.planned());
    let mut row = head(&s.scenario, &s.fault(), s.verdict.into(), cells);
    row.extend([
        num(e2e.count()),
        num(part(fetched, s.submitted)),
        num(said(p50)),
        num(interval(repeated.and_then(|r| r.p50_interval))),
        num(said(p95)),
        num(interval(repeated.and_then(|r| r.p95_interval))),
        num(said(e2e.max())),
    ]);
    row
}

/// Sizes and latencies of what jobs send and fetch.
pub(crate) fn payloads(paper: &Paper<'_>) -> Table {
    let mut t = Table::new(
        "Payloads: size of the body, and latency of the request that carried it",
        &[
            "scenario",
            "kind",
            "count",
            "min",
            "p50",
            "p95",
            "max",
            "latency p50",
            "latency p95",
            "latency max",
            "r(size, latency)",
        ],
    );
    for s in paper.parts() {
        for sizes in &s.payloads {
            let of_stage = sizes.kind.stage().map(|stage| &s.stage(stage).sample);
            let Some(latency) = of_stage.or(sizes.latency.as_ref()) else {
                continue;
            };
            t.row(vec![
                s.name().into(),
                sizes.kind.as_str().into(),
                num(sizes.count()),
                num(figure::bytes(sizes.min())),
                num(figure::bytes(sizes.quantile(0.5))),
                num(figure::bytes(sizes.quantile(0.95))),
                num(figure::bytes(sizes.max())),
                num(said(latency.quantile(0.5))),
                num(said(latency.quantile(0.95))),
                num(said(latency.max())),
                num(sizes.correlation.map_or_else(|| NONE.into(), |r| format!("{r:.2}"))),
            ]);
        }
    }
    for s in paper.parts() {
        for (kind, b) in s.metrics.payloads.iter().filter(|(_, b)| b.count() > 0) {
            let mut row =
                vec![s.name().into(), format!("{kind} (target's metrics)").into(), num(b.count()), num(NONE)];
            row.extend([0.5, 0.95, 1.0].map(|q| num(target_tables::size(b, q))));
            row.extend(std::iter::repeat_n(num(NONE), 4));
            t.row(row);
        }
    }
    if paper.parts().any(ScenarioSummary::is_tapped) {
        t.note("post_…: bodies that the target's workers posted, seen by the tap; latency is what the worker waited, delays of a fault included.");
    }
    t.note("r is Pearson's correlation of size and latency within the scenario; – where all payloads are of one size.");
    t
}

/// What polling cost the target.
pub(crate) fn observer(paper: &Paper<'_>) -> Table {
    let mut t = Table::new(
        "Observer cost: what looking cost the target",
        &["scenario", "jobs", "polls per job", "bytes of polling", "share of API time"],
    );
    for s in paper.parts() {
        t.row(vec![
            s.name().into(),
            num(s.submitted),
            num(format!("{:.1}", s.observer.polls_per_job)),
            num(figure::bytes(s.observer.poll_bytes)),
            num(figure::percent(s.observer.share_of_api_time)),
        ]);
    }
    t
}
