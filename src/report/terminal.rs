//! What a run prints on stdout when it ends: a table to read at once, and the line with the
//! result.

use std::fmt::Write as _;

use crate::{
    record::RunRecord,
    report::{
        Paper,
        crew::Workers,
        criteria::{self, Criterion},
        fault_tables, fold, matrix_tables, merge_tables, redis_tables,
        scenario_tables::stages,
        table::{Table, num, one_line},
        tables::{STAND_IN, STAND_IN_MEANS, untrusted_note},
    },
    resilience::Resilience,
    summary::ScenarioSummary,
    timeline::Stage,
    verdict::{Exit, Rule, Verdict},
};

/// The figures of each scenario, then what was found and which rules do not hold. Ends with a
/// line feed; the result line is not in it.
pub fn table(paper: &Paper<'_>) -> String {
    let run = paper.run;
    let mut out = String::new();
    let _ = writeln!(out, "run {} on {}", run.run_id, one_line(&run.target.url));
    if run.target.stand_in {
        let _ = writeln!(out, "*** {STAND_IN}: {STAND_IN_MEANS} ***");
    }
    if let Some(workers) = Workers::of(run) {
        let _ = writeln!(out, "workers: {}; plane {}", workers.said(), one_line(&workers.crew.plane));
    }
    if criteria::all(paper).is_empty() {
        paper.parts().for_each(|s| scenario(&mut out, s));
    } else {
        // A matrix has no room for every stage of every scenario.
        let narrow = ["results"].into_iter().fold(matrix_tables::decision(paper), Table::without);
        let _ = write!(out, "\n{}", narrow.text());
        out.push_str(
            "  † n too small (p50 needs 20, p95 200); CI over repetitions, ? where they do not bound it\n",
        );
        for s in paper.parts().filter(|s| s.untrusted) {
            let _ = writeln!(out, "  {}", untrusted_note(&s.name()));
        }
    }
    for r in Resilience::of_run(run) {
        let _ = write!(out, "\nresilience of {}:\n{}", r.scenario.id, fault_tables::jobs(&r).text());
        let wide = ["cells", "delayed", "requests dropped", "answers dropped", "refused"];
        out.push_str(&wide.into_iter().fold(fault_tables::posts(&r), Table::without).text());
        if let Some(delays) = fault_tables::delays(&r) {
            out.push_str(&delays.text());
        }
    }
    if let Some(redis) = redis_tables::short(paper) {
        let _ = write!(out, "\nRedis, medians of cells:\n{}", redis.text());
    }
    if let Some(merge) = merge_tables::brief(paper) {
        let _ = write!(out, "\nmerge:\n{merge}");
    }
    if paper.scenarios.is_empty() {
        out.push_str("\nno cell was finished: there are no figures\n");
    }
    for r in criteria::all(paper) {
        if r.criterion == Criterion::ALL[0] {
            out.push_str("\nexit criteria of Phase 1:\n");
        }
        let (n, title, state) = (r.criterion.number(), r.criterion.title(), r.state.as_str());
        let _ = writeln!(out, "  {n}. {state}: {title}; {}", cut(&one_line(&r.evidence)));
    }
    let found = findings(run);
    if !found.is_empty() {
        let _ = write!(out, "\nfindings:\n{found}");
    }
    let broken = broken(run);
    if !broken.is_empty() {
        let _ = write!(out, "\nchecks that do not hold:\n{}", broken.text());
    }
    out
}

/// As much as a line of a terminal has room for; the files have all of it.
fn cut(text: &str) -> String {
    const ROOM: usize = 120;
    match text.char_indices().nth(ROOM) {
        None => text.to_owned(),
        Some((at, _)) => format!("{} …", text[..at].trim_end()),
    }
}

fn scenario(out: &mut String, s: &ScenarioSummary) {
    let _ = writeln!(
        out,
        "\n{}  {} × {} tasks, fault {}: {} cells ({} invalid), {} jobs: {}",
        s.scenario.id,
        s.scenario.concurrent_jobs,
        s.scenario.tasks,
        s.fault(),
        s.cells,
        s.invalid,
        s.submitted,
        outcomes(s),
    );
    let narrow = ["min", "p90", "p99", "mean"].into_iter().fold(stages(s), Table::without);
    out.push_str(&narrow.text());
    let small = s.stages.iter().any(|stage| stage.quantile(0.95).is_some_and(|q| !q.supported));
    if small {
        out.push_str("  † n too small (p50 needs 20, p95 200): read the interval\n");
    }
    if s.untrusted {
        let _ = writeln!(out, "  {}", untrusted_note(&s.name()));
    }
}

fn outcomes(s: &ScenarioSummary) -> String {
    let some: Vec<String> = s
        .outcomes
        .iter()
        .filter(|(_, n)| **n > 0)
        .map(|(kind, n)| format!("{n} {}", kind.replace('_', " ")))
        .collect();
    if some.is_empty() { "none ended".into() } else { some.join(", ") }
}

/// A line a finding, and below it an example where the target is to blame, or whom it befell.
fn findings(run: &RunRecord) -> String {
    let mut out = String::new();
    for f in fold::findings(run) {
        let _ = writeln!(out, "  {}  {}×  {}", f.part, f.count, one_line(&f.kind.to_string()));
        if f.kind.is_about_workers() {
            for example in &f.examples {
                let _ = writeln!(out, "      {}", cut(&one_line(example)));
            }
        } else if let (false, Some(example)) = (f.kind.is_about_us(), f.examples.first()) {
            let _ = writeln!(out, "      such as {}", one_line(example));
        }
    }
    out
}

fn broken(run: &RunRecord) -> Table {
    let mut t = Table::new("checks", &["verdict", "rule", "held", "worst", "evidence"]);
    for r in fold::rulings(run) {
        if r.verdict == Verdict::Pass {
            continue;
        }
        let place = r.cell.map_or("run".into(), |c| format!("{} #{}", c.cell.scenario, c.cell.repetition));
        t.row(vec![
            r.verdict.into(),
            r.rule.as_str().into(),
            num(format!("{} of {}", r.applied - r.broken, r.applied)),
            place.into(),
            r.evidence.into(),
        ]);
    }
    t
}

/// The last line on stdout: `RESULT: PASS … (exit 0)`, with a short reason where it is no PASS.
/// One line without a line feed.
pub fn result_line(paper: &Paper<'_>, exit: Exit) -> String {
    let verdict = paper.verdict();
    let reason = fold::rulings(paper.run)
        .into_iter()
        .filter(|r| r.verdict == verdict && verdict != Verdict::Pass)
        // A tap that is lost is why its fault did not show and why the run stopped; frames that are missing,
        // why nothing else adds up.
        .min_by_key(|r| match r.rule {
            Rule::TapComplete => 0,
            Rule::FramesComplete => 1,
            Rule::RunComplete => 3,
            _ => 2,
        })
        .map(|r| {
            let place = r.cell.map(|c| format!(" ({} #{})", c.cell.scenario, c.cell.repetition));
            format!("{}: {}{}", r.rule, r.evidence, place.unwrap_or_default())
        });
    let said = match (verdict, reason) {
        (_, Some(reason)) => reason,
        (Verdict::Pass, None) => jobs(paper),
        (_, None) => "the run was not judged".into(),
    };
    one_line(&format!("RESULT: {verdict} {said} (exit {})", exit.code()))
}

fn jobs(paper: &Paper<'_>) -> String {
    let sum = |f: fn(&ScenarioSummary) -> u64| paper.scenarios.iter().map(f).sum::<u64>();
    let submitted = sum(|s| s.submitted);
    let fetched = sum(|s| s.outcomes.get("fetched").copied().unwrap_or(0));
    let mut said = format!("{fetched} of {submitted} jobs fetched");
    let stuck = sum(|s| s.outcomes.get("timed_out").copied().unwrap_or(0));
    if stuck > 0 {
        let _ = write!(said, ", {stuck} stuck under a fault");
    }
    let mut parts = paper.parts();
    if let (Some(one), None) = (parts.next(), parts.next()) {
        let e2e = &one.stage(Stage::EndToEnd).sample;
        let p50 = super::figure::said(e2e.quantile(0.5));
        let _ = write!(said, ", end to end p50 {p50} (n={})", e2e.count());
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_table_reads_so() {
        insta::assert_snapshot!(table(&Paper::of(&sample::mixed())));
    }

    #[test]
    fn faults_read_so() {
        insta::assert_snapshot!(table(&Paper::of(&sample::faults())));
    }

    #[test]
    fn workers_read_so() {
        insta::assert_snapshot!(table(&Paper::of(&sample::crew())));
    }

    #[test]
    fn the_result_line_has_verdict_reason_and_exit() {
        let good = sample::good();
        assert_eq!(
            result_line(&Paper::of(&good), Exit::of(good.all_checks())),
            "RESULT: PASS 20 of 20 jobs fetched, end to end p50 3.64 s (n=20) (exit 0)"
        );
        let failed = sample::failed_only();
        let line = result_line(&Paper::of(&failed), Exit::of(failed.all_checks()));
        assert!(line.starts_with("RESULT: FAIL every job was fetched: 0 of "), "{line}");
        assert!(line.ends_with("(exit 1)"), "{line}");
        let invalid = sample::invalid_only();
        let line = result_line(&Paper::of(&invalid), Exit::of(invalid.all_checks()));
        assert!(line.starts_with("RESULT: INVALID the job ledger adds up: "), "{line}");
        assert!(line.ends_with("(exit 5)"), "{line}");
    }

    #[test]
    fn the_result_line_names_the_cause_and_not_what_follows_from_it() {
        let mut run = sample::invalid_only();
        let broken = |rule, why: &str| crate::verdict::Check::new(rule, false, Verdict::Invalid, why.into());
        for cell in &mut run.cells {
            let missing = broken(Rule::FramesComplete, "w1 is lost");
            cell.checks = vec![missing, broken(Rule::Reconciled, "not read")];
            cell.verdict = Verdict::Invalid;
        }
        run.checks.push(broken(Rule::RunComplete, "0 of 1 cells"));
        let line = result_line(&Paper::of(&run), Exit::of(run.all_checks()));
        assert!(
            line.starts_with("RESULT: INVALID every frame of every worker arrived: w1 is lost"),
            "{line}"
        );
    }

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        let mut run = sample::nasty();
        run.checks.push(crate::verdict::Check::new(
            Rule::Threshold,
            false,
            Verdict::Fail,
            "a\u{1b}[2J\nRESULT: PASS".into(),
        ));
        run.verdict = Some(Verdict::Fail);
        assert!(!table(&Paper::of(&run)).contains('\u{1b}'));
        assert_eq!(result_line(&Paper::of(&run), Exit::Threshold).lines().count(), 1);
    }

    #[test]
    fn a_run_without_cells_has_no_figures() {
        let text = table(&Paper::of(&sample::empty()));
        assert!(text.contains("no cell was finished"), "{text}");
    }
}
