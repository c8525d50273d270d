//! `summary.md`: the runbook's summary, for pasting into an ADR.

use std::fmt::Write as _;

use crate::{
    report::{
        Paper, fault_tables, merge_tables, scenario_tables,
        table::escape_markdown,
        tables::{self, STAND_IN, STAND_IN_MEANS},
        tap_tables,
    },
    summary::ScenarioSummary,
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
    section(&mut out, "Scenarios", [tables::matrix(paper)]);
    section(&mut out, "Exit criteria", [tables::checklist(paper)]);
    section(&mut out, "Findings", [tables::findings(paper)]);
    section(&mut out, "Environment", [tables::facts(paper)]);
    let each = || paper.parts();
    section(
        &mut out,
        "Stages",
        each().flat_map(|s| {
            let mut tables = vec![scenario_tables::stages(s)];
            tables.extend(tap_tables::agreement(run, s));
            tables.push(scenario_tables::outcomes(s));
            tables
        }),
    );
    let resilience = fault_tables::all(paper);
    if !resilience.is_empty() {
        section(&mut out, "Resilience", resilience);
    }
    let merge = merge_tables::all(paper);
    if !merge.is_empty() {
        section(&mut out, "Merge", merge);
    }
    if paper.parts().any(ScenarioSummary::is_tapped) {
        section(&mut out, "Posts", each().filter_map(|s| tap_tables::posts(run, s)));
    }
    section(
        &mut out,
        "Requests",
        each().flat_map(|s| [scenario_tables::requests(s), scenario_tables::errors(s)]),
    );
    section(&mut out, "Payloads", [tables::payloads(paper)]);
    section(&mut out, "Ledger", each().map(|s| scenario_tables::ledger(run, s)));
    section(&mut out, "Observer cost", [tables::observer(paper)]);
    section(&mut out, "Generator health", each().map(|s| scenario_tables::health(run, s)));
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
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
                "Exit criteria",
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
