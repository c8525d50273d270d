//! The five exit criteria of Phase 1, as the runbook has them: met, not met or not measured, with
//! the evidence in a sentence and the files that show it. Nothing here judges the target: a
//! criterion asks whether the figures are there.

mod beside;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    bootstrap::LEAST_CELLS,
    fault::FaultMode,
    plan::CellKind,
    record::RunRecord,
    relation::{Relation, Subject},
    report::{
        Format, Paper,
        figure::{bytes, said},
        relations,
    },
    resilience::Resilience,
    scenario::Matrix,
    summary::{self, ScenarioSummary},
    timeline::Stage,
    verdict::Verdict,
};

/// With fewer scenarios in its plan a run is no matrix, and the criteria are left out.
const LEAST_SCENARIOS: usize = 3;

/// One exit criterion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Criterion {
    /// Timing percentiles of run, merge and persist across the scenarios.
    StageTimings,
    /// How latency goes with the size of a payload.
    PayloadLatency,
    /// CPU and memory of the merge by number of tasks.
    MergeCost,
    /// What Redis does under concurrency.
    RedisSaturation,
    /// Limits of retries and idempotency, and recovery.
    FaultResilience,
}

/// Whether it is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The figures are there.
    Met,
    /// What was to give them ran, and they are not.
    NotMet,
    /// What would give them was not part of the run.
    NotMeasured,
}

impl State {
    /// As words.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "not met",
            Self::NotMeasured => "not measured",
        }
    }
}

/// A criterion, held against a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// Which.
    pub(crate) criterion: Criterion,
    /// Whether it is reached.
    pub(crate) state: State,
    /// Why, in a sentence.
    pub(crate) evidence: String,
    /// The files that show it, relative to the run's folder.
    pub(crate) files: Vec<String>,
}

impl Criterion {
    /// All of them, in the runbook's order.
    pub(crate) const ALL: [Self; 5] = [
        Self::StageTimings,
        Self::PayloadLatency,
        Self::MergeCost,
        Self::RedisSaturation,
        Self::FaultResilience,
    ];

    /// Its number in the runbook, from 1.
    pub(crate) fn number(self) -> u8 {
        self as u8 + 1
    }

    /// What it asks for.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::StageTimings => "timing percentiles for run, merge and persist across S1–S8",
            Self::PayloadLatency => "relation of payload size and endpoint latency quantified",
            Self::MergeCost => "merge CPU and memory for 4, 8, 16 and 32 tasks",
            Self::RedisSaturation => "Redis saturation behaviour under concurrency",
            Self::FaultResilience => "retry and idempotency limits and recovery under faults",
        }
    }

    fn judge(self, paper: &Paper<'_>) -> Ruling {
        let (state, evidence, files) = match self {
            Self::StageTimings => stage_timings(paper),
            Self::PayloadLatency => payload_latency(&paper.relations, paper),
            Self::MergeCost => beside::merge_cost(paper.run),
            Self::RedisSaturation => beside::redis_saturation(paper.run),
            Self::FaultResilience => fault_resilience(paper.run),
        };
        Ruling { criterion: self, state, evidence, files }
    }
}

/// Every criterion; none for a run of one or two scenarios, which never was to meet them.
pub(crate) fn all(paper: &Paper<'_>) -> Vec<Ruling> {
    if !is_matrix(paper.run) {
        return Vec::new();
    }
    Criterion::ALL.into_iter().map(|c| c.judge(paper)).collect()
}

/// Whether a run is one that the criteria are for.
pub(crate) fn is_matrix(run: &RunRecord) -> bool {
    run.plan.scenarios.len() >= LEAST_SCENARIOS
}

type Found = (State, String, Vec<String>);

fn not_measured(why: impl Into<String>) -> Found {
    (State::NotMeasured, why.into(), Vec::new())
}

/// Of some scenarios of the runbook, those that this plan does not have: `S4, S5`.
fn not_planned(run: &RunRecord, wanted: impl IntoIterator<Item = String>) -> Option<String> {
    let has = |id: &String| run.plan.scenarios.iter().any(|s| s.id.is(id));
    let missing: Vec<String> = wanted.into_iter().filter(|id| !has(id)).collect();
    (!missing.is_empty()).then(|| format!("not in the plan: {}", missing.join(", ")))
}

fn file(format: Format, id: &str) -> String {
    format.path(id).display().to_string()
}

fn stage_timings(paper: &Paper<'_>) -> Found {
    let ids = || Matrix::runbook().scenarios.into_iter().map(|s| s.id.to_string());
    if let Some(why) = not_planned(paper.run, ids()) {
        return not_measured(why);
    }
    let (mut lacking, mut cells, mut jobs) = (Vec::new(), 0, 0);
    for id in ids() {
        let Some(s) = paper.scenarios.iter().find(|s| s.scenario.id.is(&id)) else {
            lacking.push(format!("{id} has no finished cell"));
            continue;
        };
        cells += s.cells - s.invalid;
        jobs += s.submitted;
        for part in s.parts() {
            let timed = |stage: &Stage| {
                let best = part.best(*stage);
                best.is_some_and(|b| b.sample.count() > b.sample.censored()) && !part.untrusted
            };
            let stages = [Stage::Run, Stage::Merge, Stage::Persist];
            let without: Vec<&str> = stages.iter().filter(|s| !timed(s)).map(|s| s.as_str()).collect();
            if part.untrusted {
                lacking.push(format!("{} has INVALID cells only", part.name()));
            } else if !without.is_empty() {
                lacking.push(format!("{} lacks {}", part.name(), without.join(", ")));
            }
        }
        if s.parts().len() < summary::levels(&s.scenario).len() {
            lacking.push(format!("{id} lacks a level of its fault"));
        }
    }
    let files = ids().map(|id| file(Format::Stages, &id)).collect();
    if lacking.is_empty() {
        let sources: BTreeSet<&str> = paper
            .parts()
            .flat_map(|p| [Stage::Run, Stage::Merge, Stage::Persist].map(|s| p.best(s)))
            .flatten()
            .map(|s| s.source.as_str())
            .collect();
        let sources: Vec<&str> = sources.into_iter().collect();
        let evidence = format!(
            "all three stages timed in {cells} sound cells of S1–S8, {jobs} jobs; by {}",
            sources.join(", ")
        );
        return (State::Met, evidence, files);
    }
    let hint = if paper.parts().any(ScenarioSummary::is_tapped) { "" } else { "; persist needs a tap" };
    (State::NotMet, format!("{}{hint}", shorten(&lacking)), files)
}

/// The first few, and how many more there are.
fn shorten(all: &[String]) -> String {
    const SAID: usize = 3;
    let more = all.len().saturating_sub(SAID);
    let said = all[..all.len().min(SAID)].join("; ");
    if more == 0 { said } else { format!("{said}; and {more} more") }
}

fn payload_latency(relations: &[Relation], paper: &Paper<'_>) -> Found {
    if relations.is_empty() {
        return not_measured("no sound cell without a fault carried a payload");
    }
    let lines: Vec<String> = relations.iter().filter_map(relations::sentence).collect();
    if lines.is_empty() {
        let spreads: Vec<String> = relations
            .iter()
            .map(|r| format!("{} {} to {}", r.subject.as_str(), bytes(r.least), bytes(r.most)))
            .collect();
        let why = format!(
            "the payloads of each endpoint are of one size, so that latency cannot go with it: {}; a tap tells more, since the posts of workers differ in size by route",
            spreads.join(", ")
        );
        return not_measured(why);
    }
    let ids = paper.scenarios.iter().filter(|s| s.scenario.fault == FaultMode::None);
    let files = ids.map(|s| file(Format::Payloads, s.scenario.id.as_str())).collect();
    let is_bounded = |r: &Relation| r.line.is_some_and(|line| line.interval.is_some());
    if relations.iter().any(is_bounded) {
        let is_of_one = |r: &Relation| matches!(r.subject, Subject::Kind(_)) && r.line.is_some();
        let mut said = lines.join("; ");
        if !relations.iter().any(is_of_one) {
            said.push_str("; each endpoint by itself carries payloads of one size, so that the line goes from endpoint to endpoint");
        }
        return (State::Met, said, files);
    }
    let why = format!(
        "{}; without an interval, which needs {LEAST_CELLS} cells of different sizes",
        lines.join("; ")
    );
    (State::NotMet, why, files)
}

/// Of sound cells with a fault, how many were followed by one without, and how many of these passed.
fn after_the_fault(run: &RunRecord) -> (usize, usize) {
    let measured: Vec<_> = run.cells.iter().filter(|c| c.cell.kind == CellKind::Measured).collect();
    let next = |i: usize| measured[i + 1..].iter().find(|c| c.cell.fault.is_none());
    let followed: Vec<Verdict> = (0..measured.len())
        .filter(|&i| !measured[i].cell.fault.is_none() && measured[i].verdict != Verdict::Invalid)
        .filter_map(|i| next(i).map(|c| c.verdict))
        .collect();
    (followed.iter().filter(|v| **v == Verdict::Pass).count(), followed.len())
}

fn fault_resilience(run: &RunRecord) -> Found {
    const UNDER_FAULT: [&str; 2] = ["S7", "S8"];
    if let Some(why) = not_planned(run, UNDER_FAULT.map(str::to_owned)) {
        return not_measured(why);
    }
    let files = UNDER_FAULT.map(|id| file(Format::Resilience, id)).to_vec();
    let all = Resilience::of_run(run);
    let (mut figures, mut lacking) = (Vec::new(), Vec::new());
    let (mut has_twin, mut lasted) = (true, false);
    for id in UNDER_FAULT {
        let Some(r) = all.iter().find(|r| r.scenario.id.is(id)) else {
            lacking.push(format!("{id} has no finished cell with a fault"));
            continue;
        };
        has_twin &= r.twin.is_some();
        if r.levels.len() < summary::levels(r.scenario).len() {
            lacking.push(format!("{id} lacks a level of its fault"));
        }
        for level in &r.levels {
            let proven = level.cells.iter().filter(|(c, _)| c.verdict != Verdict::Invalid).count();
            let f = &level.total;
            match (proven, f.duplicate_writes, &f.posts) {
                (0, ..) => lacking.push(format!("{}: no sound cell that proves its fault", level.name)),
                (_, Some(twice), Some(posts)) => {
                    let (jobs, stuck) = (f.jobs, f.stuck_jobs());
                    let (attempted, lost, retried) = (posts.attempted, posts.lost, posts.retried);
                    let mut text = format!(
                        "{}: {stuck} of {jobs} jobs stuck, {lost} of {attempted} posts lost, {retried} retried, {twice} final results written twice",
                        level.name
                    );
                    match f.recovery_p50() {
                        Some(q) => text.push_str(&format!(", recovered in {}", said(Some(q)))),
                        None => lasted = true,
                    }
                    figures.push(text);
                }
                _ => lacking.push(format!("{}: retries and duplicate writes need a tap", level.name)),
            }
        }
    }
    if !lacking.is_empty() {
        return (State::NotMet, shorten(&lacking), files);
    }
    if lasted {
        let (passed, followed) = after_the_fault(run);
        if followed == 0 {
            let why = "recovery was not seen: the faults lasted as long as their cells, and no cell without one followed";
            return (State::NotMet, why.into(), files);
        }
        figures.push(format!(
            "recovery: where the fault lasted as long as its cell, the next cell without one passed {passed} of {followed} times"
        ));
    }
    if !has_twin {
        figures.push("no scenario of as much load without a fault beside it".into());
    }
    (State::Met, figures.join("; "), files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{moment::Moment, report::sample, telemetry::Gap};

    fn ruling(run: &RunRecord, criterion: Criterion) -> (State, String, Vec<String>) {
        let all = all(&Paper::of(run));
        let r = all.into_iter().find(|r| r.criterion == criterion).unwrap();
        (r.state, r.evidence, r.files)
    }

    fn without(id: &str) -> RunRecord {
        let mut run = sample::matrix(2);
        run.plan.scenarios.retain(|s| s.id.as_str() != id);
        run.cells.retain(|c| c.cell.scenario.as_str() != id);
        run
    }

    #[test]
    fn a_whole_matrix_with_everything_beside_it_meets_them_all() {
        let run = sample::matrix(3);
        let all = all(&Paper::of(&run));
        let states: Vec<(u8, State)> = all.iter().map(|r| (r.criterion.number(), r.state)).collect();
        assert_eq!(states, [1, 2, 3, 4, 5].map(|n| (n, State::Met)), "{all:#?}");
        for r in &all {
            assert!(!r.evidence.is_empty() && !r.files.is_empty() && !r.evidence.contains('\n'), "{r:?}");
        }
    }

    #[test]
    fn a_run_of_one_or_two_scenarios_has_none() {
        assert_eq!(all(&Paper::of(&sample::good())), []);
        assert_eq!(all(&Paper::of(&sample::mixed())), []);
    }

    #[test]
    fn timings_need_every_stage_of_every_scenario() {
        let mut run = sample::matrix(2);
        let of = |run: &RunRecord| ruling(run, Criterion::StageTimings);
        assert_eq!(of(&without("S3")).0, State::NotMeasured);
        assert!(of(&without("S3")).1.contains("not in the plan: S3"));
        run.cells.iter_mut().filter(|c| c.cell.scenario.as_str() == "S2").for_each(|c| c.posts = None);
        let (state, evidence, files) = of(&run);
        assert_eq!((state, evidence.as_str(), files.len()), (State::NotMet, "S2 lacks persist", 8));
        run.cells.iter_mut().for_each(|c| c.posts = None);
        assert!(of(&run).1.ends_with("and 7 more; persist needs a tap"), "{}", of(&run).1);
        let mut run = sample::matrix(2);
        run.cells.retain(|c| c.cell.scenario.as_str() != "S4");
        assert_eq!((of(&run).0, of(&run).1.as_str()), (State::NotMet, "S4 has no finished cell"));
        let mut run = sample::matrix(2);
        let s1 = run.cells.iter_mut().filter(|c| c.cell.scenario.as_str() == "S1");
        s1.for_each(|c| c.verdict = Verdict::Invalid);
        assert_eq!(of(&run).1, "S1 has INVALID cells only");
        let mut run = sample::matrix(2);
        run.cells.retain(|c| (c.cell.scenario.as_str(), c.cell.repetition) != ("S8", 2));
        assert_eq!(of(&run).1, "S8 lacks a level of its fault");
    }

    #[test]
    fn payloads_of_one_size_tell_nothing_of_latency() {
        let of = |run: &RunRecord| ruling(run, Criterion::PayloadLatency);
        let mut untapped = sample::faults();
        untapped.cells.iter_mut().for_each(|c| c.posts = None);
        let (state, evidence, _) = of(&untapped);
        assert_eq!(state, State::NotMeasured);
        assert!(evidence.contains("of one size"), "{evidence}");
        let (state, evidence, _) = of(&sample::faults());
        assert_eq!(state, State::Met);
        assert!(evidence.contains("posts_of_all_routes"), "{evidence}");
        let mut run = sample::matrix(3);
        assert_eq!(of(&run).0, State::Met);
        // Two cells of different sizes: a line, and no interval.
        run.cells.retain(|c| c.cell.scenario.as_str() == "S6" && c.cell.repetition > 1);
        assert_eq!(of(&run).0, State::NotMet, "{}", of(&run).1);
        run.cells.clear();
        assert_eq!(of(&run).0, State::NotMeasured);
    }

    #[test]
    fn merges_need_a_watched_process_for_each_number_of_tasks() {
        let of = |run: &RunRecord| ruling(run, Criterion::MergeCost);
        let mut run = sample::matrix(2);
        assert!(of(&run).1.contains("32 tasks"), "{}", of(&run).1);
        for cell in run.cells.iter_mut().filter(|c| c.cell.tasks == 16) {
            cell.telemetry.processes.values_mut().for_each(|p| p.samples.truncate(3));
        }
        let (state, evidence, _) = of(&run);
        let says = "16 tasks: S3 #1: there are no samples";
        assert_eq!((state, evidence.as_str()), (State::NotMeasured, says));
        assert!(of(&without("S4")).1.contains("32 tasks: no scenario"), "{}", of(&without("S4")).1);
        run.cells.iter_mut().for_each(|c| c.telemetry.processes.clear());
        assert!(of(&run).1.contains("give --watch-pid"));
    }

    #[test]
    fn redis_needs_a_cell_without_a_gap_of_every_scenario() {
        let of = |run: &RunRecord| ruling(run, Criterion::RedisSaturation);
        let mut run = sample::matrix(2);
        let (state, evidence, _) = of(&run);
        assert_eq!(state, State::Met);
        for users in ["1 at once", "5 at once", "10 at once"] {
            assert!(evidence.contains(users), "{evidence}");
        }
        let cell = run.cells.iter().find(|c| c.cell.scenario.as_str() == "S5" && c.telemetry.redis.is_some());
        let gap = Gap { from: Moment(0), to: Moment(1), why: "refused".into() };
        let cell = cell.unwrap();
        let repetition = cell.cell.repetition;
        let mut break_in = |is_it: &dyn Fn(&crate::record::CellRecord) -> bool| {
            let cells = run.cells.iter_mut().filter(|c| c.cell.scenario.as_str() == "S5" && is_it(c));
            for redis in cells.filter_map(|c| c.telemetry.redis.as_mut()) {
                redis.gaps.push(gap.clone());
            }
            of(&run)
        };
        // The one that was made again counts no more; its successor does.
        let (state, evidence, _) = break_in(&|c| c.cell.repetition == repetition);
        assert_eq!(state, State::Met);
        assert!(evidence.starts_with("11 of 12 cells without gaps"), "{evidence}");
        break_in(&|_| true);
        assert_eq!(of(&run).0, State::NotMet, "{}", of(&run).1);
        assert_eq!(of(&without("S5")).0, State::NotMeasured);
        run.redis = None;
        run.cells.iter_mut().for_each(|c| c.telemetry.redis = None);
        assert!(of(&run).1.contains("give --redis-url"));
    }

    #[test]
    fn resilience_needs_proven_faults_and_a_tap() {
        let of = |run: &RunRecord| ruling(run, Criterion::FaultResilience);
        let mut run = sample::matrix(2);
        let (state, evidence, files) = of(&run);
        assert_eq!((state, files.len()), (State::Met, 2));
        assert!(evidence.contains("S8 drop 5 %: 1 of 10 jobs stuck"), "{evidence}");
        assert_eq!(of(&without("S7")).0, State::NotMeasured);
        assert!(of(&without("S6")).1.contains("without a fault beside it"));
        let unproven = run.cells.iter_mut().filter(|c| c.cell.scenario.as_str() == "S7");
        unproven.for_each(|c| c.verdict = Verdict::Invalid);
        assert!(of(&run).1.contains("no sound cell that proves its fault"), "{}", of(&run).1);
        let mut run = sample::matrix(2);
        run.cells.iter_mut().for_each(|c| c.posts = None);
        assert_eq!(of(&run).0, State::NotMet);
    }
}
