//! `summary.md`: the runbook's summary, for pasting into an ADR.

use std::fmt::Write as _;

use crate::{
    report::{
        Paper,
        crew::Workers,
        crew_tables,
        domains::Domain,
        environment, fault_tables, matrix_tables, relations, scenario_tables,
        table::escape_markdown,
        tables::{self, STAND_IN, STAND_IN_MEANS},
        tap_tables, target_tables,
    },
    summary::ScenarioSummary,
    verdict::Verdict,
};

/// The whole summary.
pub(super) fn summary(paper: &Paper<'_>) -> String {
    let run = paper.run;
    let mut out = format!("# springtide: {}\n\n", escape_markdown(&run.label));
    let _ = writeln!(out, "**Verdict: {}**\n", paper.verdict());
    if run.target.stand_in {
        let _ = writeln!(out, "# {STAND_IN}\n\n{STAND_IN_MEANS}\n");
    }
    if let Some(why) = &run.stopped {
        let _ = writeln!(out, "Stopped before its plan was done: {}\n", escape_markdown(why));
    }
    out.push_str(&lead(paper));
    let criteria = matrix_tables::exit_criteria(paper);
    let is_matrix = criteria.is_some();
    if let Some(criteria) = criteria {
        section(&mut out, "Exit criteria of Phase 1", [criteria]);
        section(&mut out, "Figures for the decision record", [matrix_tables::decision(paper)]);
    }
    section(&mut out, "Environment", [environment::facts(paper)]);
    workers(&mut out, paper);
    section(
        &mut out,
        "Scenarios",
        std::iter::once(tables::matrix(paper)).chain(matrix_tables::remade(paper)),
    );
    if is_matrix {
        section(&mut out, "Stages", [matrix_tables::stages(paper)]);
    } else {
        stages(&mut out, paper);
    }
    section(&mut out, "Payloads", [relations::table(paper), tables::payloads(paper)]);
    for domain in &Domain::ALL {
        let tables = (domain.tables)(paper);
        if tables.is_empty() {
            let _ = writeln!(out, "## {}\n\n{}\n", domain.title, escape_markdown(&domain.missing()));
        } else {
            section(&mut out, domain.title, tables);
        }
    }
    let resilience = fault_tables::all(paper);
    if !resilience.is_empty() {
        section(&mut out, "Resilience", resilience);
    }
    section(&mut out, "Findings", [tables::findings(paper)]);
    if let Some(thresholds) = matrix_tables::thresholds(paper) {
        section(&mut out, "Thresholds", [thresholds]);
    }
    section(&mut out, "Validity", [tables::checklist(paper)]);
    if is_matrix {
        out.push_str("Posts, requests, ledger, observer cost and generator health of each scenario are in report.html and in the files beside this one.\n");
    } else {
        details(&mut out, paper);
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

/// Who made the load, where it was more than this process.
fn workers(out: &mut String, paper: &Paper<'_>) {
    let Some(workers) = Workers::of(paper.run) else { return };
    let _ = writeln!(out, "## Workers\n\n{}.\n", workers.said());
    out.extend(crew_tables::troubles(paper.run, &workers).map(|t| t.markdown()));
    out.push_str("Each worker has a row in report.html, and one for each cell in timings/workers.csv.\n\n");
}

/// Each scenario's stages by every source, and how these agree.
fn stages(out: &mut String, paper: &Paper<'_>) {
    let run = paper.run;
    section(
        out,
        "Stages",
        paper.repeated().flat_map(|(s, r)| {
            let mut tables = vec![scenario_tables::stages(s)];
            tables.extend((s.cells > 1).then(|| matrix_tables::over_repetitions(paper, r)));
            tables.extend(tap_tables::agreement(run, s));
            tables.extend(target_tables::metrics(s));
            tables.extend(target_tables::agreement(s));
            tables.extend(target_tables::endpoints(run, s));
            tables.push(scenario_tables::outcomes(s));
            tables
        }),
    );
}

/// What stands behind the figures of each scenario.
fn details(out: &mut String, paper: &Paper<'_>) {
    let run = paper.run;
    let each = || paper.parts();
    if paper.parts().any(ScenarioSummary::is_tapped) {
        section(out, "Posts", each().filter_map(|s| tap_tables::posts(run, s)));
    }
    section(out, "Requests", each().flat_map(|s| [scenario_tables::requests(s), scenario_tables::errors(s)]));
    section(out, "Ledger", each().map(|s| scenario_tables::ledger(run, s)));
    section(out, "Observer cost", [tables::observer(paper)]);
    section(out, "Generator health", each().map(|s| scenario_tables::health(run, s)));
}

/// What was done, in a sentence or two.
fn lead(paper: &Paper<'_>) -> String {
    let run = paper.run;
    let (done, planned) = (run.measured().count(), run.plan.measured().count());
    let count = |n: usize, one: &str| if n == 1 { format!("1 {one}") } else { format!("{n} {one}s") };
    let mut text = format!(
        "{} of {} from seed {}, {done} of {planned} cells measured",
        count(run.plan.scenarios.len(), "scenario"),
        escape_markdown(&run.plan.matrix_name),
        run.plan.seed
    );
    let invalid = run.measured().filter(|c| c.verdict == Verdict::Invalid).count();
    let again = run.replaced().count();
    for (n, what) in [(invalid, "INVALID"), (again, "made again")] {
        if n > 0 {
            let _ = write!(text, ", {n} {what}");
        }
    }
    format!("{text}; on {}, {:.0}.\n\n", escape_markdown(&run.target.url), run.started)
}

fn section(out: &mut String, title: &str, tables: impl IntoIterator<Item = crate::report::table::Table>) {
    let _ = writeln!(out, "## {title}\n");
    let before = out.len();
    for table in tables {
        out.push_str(&table.markdown());
    }
    if out.len() == before {
        out.push_str("no cell was finished\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_summary_reads_so() {
        let run = sample::mixed();
        insta::assert_snapshot!(summary(&Paper::of(&run)));
    }

    #[test]
    fn a_run_with_faults_reads_so() {
        let run = sample::faults();
        insta::assert_snapshot!(summary(&Paper::of(&run)));
    }

    #[test]
    fn a_run_with_workers_reads_so() {
        let run = sample::crew();
        insta::assert_snapshot!(summary(&Paper::of(&run)));
    }

    #[test]
    fn a_matrix_has_what_an_engineer_looks_for_in_that_order() {
        let text = summary(&Paper::of(&sample::matrix(3)));
        let mut last = 0;
        for title in [
            "Exit criteria of Phase 1",
            "Figures for the decision record",
            "Environment",
            "Scenarios",
            "Stages",
            "Payloads",
            "Redis",
            "Merge",
            "Resilience",
            "Findings",
            "Thresholds",
            "Validity",
        ] {
            let at = text.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("{title}"));
            assert!(at > last, "{title}");
            last = at;
        }
        for said in [
            "1. timing percentiles",
            "5. retry and idempotency limits",
            "| revision of backend | `4be1c0d` |",
            "| note | before the merge moves out of the worker |",
            "| target's Redis | 7.2.4 at ",
            "| order of the cells | 1: ",
            "| resumed | 2026-10-01T12:20:00Z, after 9 cells |",
            "Cells that were made again:",
            "| S5 #2 | 1 | **INVALID** | the job ledger adds up",
            "Stages of a job by their best source, over the repetitions:",
            "needs 3 repetitions",
        ] {
            assert!(text.contains(said), "{said}");
        }
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let run = sample::nasty();
        let text = summary(&Paper::of(&run));
        let outside_code: String = text.split('`').step_by(2).collect();
        assert!(!outside_code.contains("<script>"));
    }

    #[test]
    fn runs_without_figures_have_every_section() {
        for run in [sample::empty(), sample::invalid_only(), sample::failed_only()] {
            let text = summary(&Paper::of(&run));
            for title in [
                "Scenarios",
                "Validity",
                "Findings",
                "Environment",
                "Stages",
                "Requests",
                "Payloads",
                "Ledger",
                "Observer cost",
                "Generator health",
            ] {
                assert!(text.contains(&format!("\n## {title}\n")), "{title}");
            }
        }
    }
}
