//! The checks and findings of many cells as one row each.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    crew::What,
    finding::{self, Finding, Kind},
    plan::CellKind,
    record::{CellRecord, RunRecord},
    scenario::ScenarioId,
    summary,
    timeline::Stage,
    verdict::{self, Check, Rule, Verdict},
};

/// One rule over all cells and the run; thresholds stay apart, since each is a rule of its own.
#[derive(Debug)]
pub(crate) struct Ruling<'a> {
    /// The rule.
    pub(crate) rule: Rule,
    /// The worst it says.
    pub(crate) verdict: Verdict,
    /// How often it was applied and did not hold.
    pub(crate) broken: usize,
    /// How often it was applied.
    pub(crate) applied: usize,
    /// The evidence of the worst case.
    pub(crate) evidence: &'a str,
    /// Its cell; `None` for a rule on the whole run.
    pub(crate) cell: Option<&'a CellRecord>,
}

/// Every rule that was applied: what the run must keep first, then what each cell must.
pub(crate) fn rulings(run: &RunRecord) -> Vec<Ruling<'_>> {
    let mut rulings: Vec<Ruling<'_>> = Vec::new();
    let of_run = run.checks.iter().map(|c| (c, None));
    let of_cells = run.measured().flat_map(|cell| cell.checks.iter().map(move |c| (c, Some(cell))));
    for (check, cell) in of_run.chain(of_cells) {
        let broken = usize::from(check.verdict != Verdict::Pass);
        let known = rulings.iter_mut().find(|r| r.rule == check.rule && check.rule != Rule::Threshold);
        let Some(ruling) = known else {
            rulings.push(Ruling {
                rule: check.rule,
                verdict: check.verdict,
                broken,
                applied: 1,
                evidence: &check.evidence,
                cell,
            });
            continue;
        };
        ruling.applied += 1;
        ruling.broken += broken;
        if (check.verdict, strain(check, cell)) > (ruling.verdict, strain(check, ruling.cell)) {
            ruling.verdict = check.verdict;
            ruling.evidence = &check.evidence;
            ruling.cell = cell;
        }
    }
    rulings
}

/// How near a rule comes to being broken in a cell: tells the worst of cells with one verdict.
fn strain(check: &Check, cell: Option<&CellRecord>) -> f64 {
    let Some(cell) = cell else { return 0.0 };
    let health = &cell.totals.health;
    match check.rule {
        Rule::LedgerAddsUp => cell.ledger.residual() as f64,
        Rule::SchedulingLag => verdict::worst_lag(&cell.workers, &cell.totals).as_secs(),
        Rule::GeneratorCpu => verdict::worst_cpu(&cell.workers, &cell.totals),
        Rule::StartTogether => verdict::worst_start(&cell.workers).as_secs(),
        Rule::LittlesLaw => health.unaccounted(),
        Rule::JobsFetched => (cell.ledger.ended() - cell.ledger.count("fetched")) as f64,
        Rule::Quiet => cell.totals.target.unfinished.len() as f64,
        Rule::Reconciled
        | Rule::FramesComplete
        | Rule::TargetReached
        | Rule::Idle
        | Rule::TapComplete
        | Rule::FaultProven
        | Rule::ResultsAgree
        | Rule::Threshold
        | Rule::RunComplete => 0.0,
    }
}

impl Found<'_> {
    /// Whom it speaks of.
    pub(crate) fn about(&self) -> &'static str {
        match &*self.kind {
            kind if kind.is_about_workers() => "the workers",
            kind if kind.is_about_us() => "how we looked",
            _ if self.under_fault => "under the fault",
            _ => "the target",
        }
    }
}

/// One kind of finding in one scenario, or in one level of its fault; or in the run as a whole.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    /// Where; `None` for the run as a whole.
    pub(crate) scenario: Option<&'a ScenarioId>,
    /// The same with the level of the fault, where there are several; or `run`.
    pub(crate) part: String,
    /// Whether a fault was injected there.
    pub(crate) under_fault: bool,
    /// What; of a stage that is blurred, the cell where it is blurred most.
    pub(crate) kind: Cow<'a, Kind>,
    /// How often in all cells.
    pub(crate) count: u64,
    /// Cells that have it.
    pub(crate) cells: usize,
    /// Cells of the scenario; of the run, those that do not count too.
    pub(crate) of_cells: usize,
    /// The first few examples.
    pub(crate) examples: Vec<Cow<'a, str>>,
}

/// Findings of all measured cells, INVALID ones included: those about the target first, then what
/// befell the workers of the whole run.
pub(crate) fn findings(run: &RunRecord) -> Vec<Found<'_>> {
    let mut all = Vec::new();
    let parts = run.plan.scenarios.iter().flat_map(|s| summary::levels(s).into_iter().map(move |l| (s, l)));
    for (scenario, level) in parts {
        let cells = summary::cells_of(run, scenario, Some(level));
        let mut found: Vec<Found<'_>> = Vec::new();
        for finding in cells.iter().flat_map(|c| &c.findings) {
            let Some(known) = found.iter_mut().find(|f| is_like(&f.kind, &finding.kind)) else {
                found.push(Found {
                    scenario: Some(&scenario.id),
                    part: summary::part_name(scenario, Some(level)),
                    under_fault: !level.is_none(),
                    kind: Cow::Borrowed(&finding.kind),
                    count: finding.count,
                    cells: 1,
                    of_cells: cells.len(),
                    examples: examples(finding).collect(),
                });
                continue;
            };
            known.count += finding.count;
            known.cells += 1;
            if finding.kind < *known.kind {
                known.kind = Cow::Borrowed(&finding.kind);
            }
            for example in examples(finding) {
                if known.examples.len() < 3 && !known.examples.contains(&example) {
                    known.examples.push(example);
                }
            }
        }
        all.extend(found);
    }
    all.extend(befallen(run));
    all.sort_by_key(|f| (f.kind.is_about_us(), !f.kind.is_about_workers()));
    all
}

fn examples(finding: &Finding) -> impl Iterator<Item = Cow<'_, str>> {
    finding.examples.iter().map(|e| Cow::Borrowed(e.as_str()))
}

/// What befell the workers of the run, whether the cell counts in which it did or not.
fn befallen(run: &RunRecord) -> impl Iterator<Item = Found<'_>> {
    let found = run.crew.iter().flat_map(|crew| {
        let found = finding::of_crew(crew, |cell| place(run, cell));
        found.into_iter().map(move |f| (crew, f))
    });
    found.map(|(crew, Finding { kind, count, examples })| {
        let is_its = |what: &What| match what {
            What::Lost { .. } => kind == Kind::WorkersLost,
            What::LateFrames { .. } => kind == Kind::LateFrames,
            What::Cut { .. } => kind == Kind::CutOff,
            _ => false,
        };
        let cells: BTreeSet<u32> =
            crew.events.iter().filter(|e| is_its(&e.what)).filter_map(|e| e.cell).collect();
        Found {
            scenario: None,
            part: "run".into(),
            under_fault: false,
            cells: cells.len(),
            of_cells: run.cells.len(),
            kind: Cow::Owned(kind),
            count,
            examples: examples.into_iter().map(Cow::Owned).collect(),
        }
    })
}

/// A cell by its index: `S6 #2`, `S6 #2 (attempt 2)`, `warm-up of S6`.
pub(crate) fn place(run: &RunRecord, index: u32) -> String {
    let all = run.cells.iter().map(|c| &c.cell).chain(&run.plan.cells);
    match all.into_iter().find(|c| c.index == index) {
        None => format!("cell {index}"),
        Some(c) if c.kind == CellKind::WarmUp => format!("warm-up of {}", c.scenario),
        Some(c) if c.attempt > 1 => format!("{} #{} (attempt {})", c.scenario, c.repetition, c.attempt),
        Some(c) => format!("{} #{}", c.scenario, c.repetition),
    }
}

/// Whether two findings differ in nothing but the cell's own median.
fn is_like(a: &Kind, b: &Kind) -> bool {
    match (blurred(a), blurred(b)) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

fn blurred(kind: &Kind) -> Option<Stage> {
    match kind {
        Kind::PollTooCoarse { stage, .. } => Some(*stage),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_rule_is_one_row_with_its_worst_cell() {
        let run = sample::mixed();
        let rulings = rulings(&run);
        let rows = |rule| rulings.iter().filter(move |r| r.rule == rule).count();
        assert_eq!((rows(Rule::JobsFetched), rows(Rule::LedgerAddsUp)), (1, 1));
        assert_eq!(rows(Rule::Threshold), run.checks.iter().filter(|c| c.rule == Rule::Threshold).count());
        let fetched = rulings.iter().find(|r| r.rule == Rule::JobsFetched).unwrap();
        assert_eq!(fetched.verdict, Verdict::Fail);
        assert_eq!(fetched.applied, run.measured().count());
        let missing = |c: &CellRecord| c.ledger.ended() - c.ledger.count("fetched");
        let most = run.measured().map(missing).max().unwrap();
        assert_eq!(missing(fetched.cell.unwrap()), most);
    }

    #[test]
    fn a_blurred_stage_is_one_finding_whatever_the_medians() {
        let run = sample::mixed();
        let blurred = findings(&run).iter().filter(|f| blurred(&f.kind) == Some(Stage::Queue)).count();
        assert_eq!(blurred, run.plan.scenarios.len());
    }
}
