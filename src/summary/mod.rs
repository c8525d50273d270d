//! A scenario's figures, pooled over its cells: what thresholds are held against and every report
//! prints. Computed from the run record, never stored.
//!
//! Cells of different faults have nothing to do with each other: where a scenario has several
//! levels, each level is a part with figures of its own.

mod metrics;
mod pooled;

use std::collections::BTreeMap;

use crate::{
    estimate::{Quantile, Sample},
    fault::Fault,
    micros::Micros,
    payload::Sizes,
    posts::RoutePosts,
    record::{CellRecord, RunRecord},
    route::Route,
    scenario::Scenario,
    snapshot::{ErrorKey, ErrorStats, Health, Phase, RequestKey, RequestStats},
    timeline::{JobOutcome, Stage},
    verdict::Verdict,
};
pub use metrics::TargetMetrics;
use pooled::Pooled;
pub use pooled::{Spans, spans_of};

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client's own clock: exact.
    Client,
    /// Changes seen between two polls: an interval.
    Poll,
    /// Posts of the target's workers, clocked by the tap.
    Tap,
    /// The target's own histograms: of each value only its bucket is known.
    Metrics,
}

impl Source {
    /// Where it stands among several, the best first.
    fn rank(self) -> u8 {
        match self {
            Self::Tap => 0,
            Self::Client => 1,
            Self::Metrics => 2,
            Self::Poll => 3,
        }
    }

    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Poll => "poll",
            Self::Tap => "tap",
            Self::Metrics => "metrics",
        }
    }
}

/// One stage of all jobs of a scenario.
#[derive(Debug, Clone)]
pub struct StageSummary {
    /// The stage.
    pub stage: Stage,
    /// Who clocked it.
    pub source: Source,
    /// The durations.
    pub sample: Sample,
}

impl StageSummary {
    /// The quantile `q`; `None` without any job.
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        self.sample.quantile(q)
    }

    /// The mean; `None` without any job, and when some are unfinished: that of the others would
    /// be too low.
    pub fn mean(&self) -> Option<Micros> {
        // Of values in buckets the sum is known, whatever bucket they are in.
        let is_known = self.sample.censored() == 0 || self.sample.is_in_buckets();
        is_known.then(|| self.sample.mean()).flatten()
    }
}

/// What polling cost the target.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Observer {
    /// Answered polls per job.
    pub polls_per_job: f64,
    /// Bytes of the polls' answers on the wire, all jobs.
    pub poll_bytes: u64,
    /// Share of the time the target spent answering us that went to polls, 0 to 1.
    pub share_of_api_time: f64,
}

/// One scenario of a run, or one level of its fault.
#[derive(Debug, Clone)]
pub struct ScenarioSummary {
    /// Its row, overrides applied.
    pub scenario: Scenario,
    /// The fault in its cells; `None` for a scenario of several levels, which is the sum of its
    /// [`parts`](Self::parts) and has no figure that is worth reading but how many cells and jobs
    /// there were.
    pub fault: Option<Fault>,
    /// The levels that were measured, each for itself; empty when the scenario has one.
    pub levels: Vec<ScenarioSummary>,
    /// Cells that were measured.
    pub cells: usize,
    /// Of them, cells that cannot be trusted; the figures leave them out unless there are no others.
    pub invalid: usize,
    /// Whether the figures come from INVALID cells because there were no others.
    pub untrusted: bool,
    /// Jobs submitted in the cells that count.
    pub submitted: u64,
    /// Jobs by kind of outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// Ledger residual of all cells, INVALID ones included.
    pub residual: u64,
    /// Each stage, in the order of a job's life; where there are several sources, the best first.
    pub stages: Vec<StageSummary>,
    /// Load-phase requests by method and path.
    pub requests: BTreeMap<RequestKey, RequestStats>,
    /// All of them together.
    pub all: RequestStats,
    /// Requests before T0 and after the last outcome, outside the clock.
    pub outside: BTreeMap<RequestKey, RequestStats>,
    /// Failures of all requests, each with its phase.
    pub errors: BTreeMap<ErrorKey, ErrorStats>,
    /// What was sent and fetched, one entry a kind that occurred.
    pub payloads: Vec<Sizes>,
    /// What the target's own metrics tell.
    pub metrics: TargetMetrics,
    /// The generator.
    pub health: Health,
    /// Time from T0 to the last outcome, all cells that count.
    pub duration: Micros,
    /// What polling cost.
    pub observer: Observer,
    /// The worst verdict of its cells.
    pub verdict: Verdict,
}

impl ScenarioSummary {
    /// Pools the cells of one scenario.
    pub fn of(run: &RunRecord, scenario: &Scenario) -> Self {
        let mut all = levels(scenario);
        if all.len() == 1 {
            return Self::of_part(run, scenario, all.pop().cloned());
        }
        let each = all.into_iter().map(|level| Self::of_part(run, scenario, Some(level.clone())));
        let levels = each.filter(|s| s.cells > 0).collect();
        Self { levels, ..Self::of_part(run, scenario, None) }
    }

    /// Pools the cells with one fault, or all of them.
    fn of_part(run: &RunRecord, scenario: &Scenario, fault: Option<Fault>) -> Self {
        let cells = cells_of(run, scenario, fault.as_ref());
        let invalid = cells.iter().filter(|c| c.verdict == Verdict::Invalid).count();
        let untrusted = invalid == cells.len() && invalid > 0;
        let counting = sound(&cells);
        let counted = || counting.iter().copied();
        let pooled = Pooled::of(&counting);
        let metrics = TargetMetrics::of(&counting);

        let mut requests: BTreeMap<RequestKey, RequestStats> = BTreeMap::new();
        let mut all = RequestStats::default();
        for (key, stats) in counted().flat_map(|c| c.totals.phase(Phase::Load)) {
            requests.entry(key.clone()).or_default().merge(stats);
            all.merge(stats);
        }
        let mut outside: BTreeMap<RequestKey, RequestStats> = BTreeMap::new();
        let mut health = Health::default();
        for cell in counted() {
            for (key, stats) in &cell.totals.requests {
                if key.phase != Phase::Load {
                    outside.entry(key.clone()).or_default().merge(stats);
                }
            }
            health.merge(&cell.totals.health);
        }
        let mut outcomes = BTreeMap::new();
        for kind in JobOutcome::KINDS {
            outcomes.insert(kind.to_owned(), counted().map(|c| c.ledger.count(kind)).sum());
        }
        Self {
            cells: cells.len(),
            invalid,
            untrusted,
            submitted: counted().map(|c| c.ledger.submitted).sum(),
            residual: cells.iter().map(|c| c.ledger.residual()).sum(),
            outcomes,
            observer: pooled.observer(&requests, &all),
            payloads: pooled.payloads(),
            stages: pooled.stages(&metrics),
            metrics,
            outside,
            errors: errors(&counting),
            health,
            duration: counted().map(|c| c.duration).sum(),
            verdict: cells.iter().map(|c| c.verdict).max().unwrap_or(Verdict::Invalid),
            requests,
            all,
            scenario: scenario.clone(),
            fault,
            levels: Vec::new(),
        }
    }

    /// Every scenario of the run's plan that has a finished cell.
    pub fn of_run(run: &RunRecord) -> Vec<Self> {
        run.plan.scenarios.iter().map(|s| Self::of(run, s)).filter(|s| s.cells > 0).collect()
    }

    /// What has figures of its own: the levels, or the scenario itself.
    pub fn parts(&self) -> &[Self] {
        if self.levels.is_empty() { std::slice::from_ref(self) } else { &self.levels }
    }

    /// What to call it: `S6`, or `S7 latency +250 ms ± 10.0 ms` where there are several levels.
    pub fn name(&self) -> String {
        part_name(&self.scenario, self.fault.as_ref())
    }

    /// The fault in its cells, or the kind of it where they have several.
    pub fn fault(&self) -> String {
        self.fault.as_ref().map_or_else(|| self.scenario.fault.to_string(), Fault::to_string)
    }

    /// How many of the planned cells are its own.
    pub fn planned(&self) -> u32 {
        let is_its = |r: &u32| self.fault.as_ref().is_none_or(|f| self.scenario.level(*r) == f);
        (1..=self.scenario.repetitions).filter(is_its).count() as u32
    }

    /// Its finished cells.
    pub fn all_cells<'a>(&self, run: &'a RunRecord) -> Vec<&'a CellRecord> {
        cells_of(run, &self.scenario, self.fault.as_ref())
    }

    /// Its finished cells whose figures count: INVALID ones only when there are no others.
    pub fn counting<'a>(&self, run: &'a RunRecord) -> Vec<&'a CellRecord> {
        sound(&self.all_cells(run))
    }

    /// Posts of the target's workers by route, of the cells that count; empty without a tap.
    pub fn posts(&self, run: &RunRecord) -> BTreeMap<Route, RoutePosts> {
        let mut all: BTreeMap<Route, RoutePosts> = BTreeMap::new();
        let cells = self.counting(run);
        for (route, posts) in cells.iter().filter_map(|c| c.posts.as_ref()).flat_map(|p| &p.routes) {
            all.entry(*route).or_default().merge(posts);
        }
        all
    }

    /// The figures of one stage as the client has them; only for stages that a client can tell.
    pub fn stage(&self, stage: Stage) -> &StageSummary {
        let is_it = |s: &&StageSummary| s.stage == stage && matches!(s.source, Source::Client | Source::Poll);
        self.stages.iter().find(is_it).expect("every stage of a client is summed up")
    }

    /// The figures of one stage out of its best source that has any; `None` without one.
    pub fn best(&self, stage: Stage) -> Option<&StageSummary> {
        self.sources(stage).next()
    }

    /// The stages out of one source.
    pub fn of_source(&self, source: Source) -> impl Iterator<Item = &StageSummary> {
        self.stages.iter().filter(move |s| s.source == source)
    }

    /// Every source of a stage that has any figures, the best first.
    pub fn sources(&self, stage: Stage) -> impl Iterator<Item = &StageSummary> {
        self.stages.iter().filter(move |s| s.stage == stage && s.sample.count() > 0)
    }

    /// Whether a tap saw any of its cells.
    pub fn is_tapped(&self) -> bool {
        self.stages.iter().any(|s| s.source == Source::Tap)
    }

    /// Jobs that ended other than fetched.
    pub fn not_fetched(&self) -> u64 {
        self.outcomes.iter().filter(|(k, _)| *k != "fetched").map(|(_, n)| n).sum()
    }

    /// Share of jobs that were not fetched, 0 to 1; 0 without jobs.
    pub fn failure_ratio(&self) -> f64 {
        if self.submitted == 0 { 0.0 } else { self.not_fetched() as f64 / self.submitted as f64 }
    }
}

/// The different faults of a scenario, in the order in which they take turns.
pub fn levels(scenario: &Scenario) -> Vec<&Fault> {
    let mut all: Vec<&Fault> = Vec::new();
    for level in &scenario.levels {
        if !all.contains(&level) {
            all.push(level);
        }
    }
    all
}

/// What to call a scenario, or a level of its fault where there are several.
pub fn part_name(scenario: &Scenario, fault: Option<&Fault>) -> String {
    match fault {
        Some(fault) if levels(scenario).len() > 1 => format!("{} {fault}", scenario.id),
        _ => scenario.id.to_string(),
    }
}

/// The finished cells of a scenario, or those with one fault.
pub fn cells_of<'a>(run: &'a RunRecord, scenario: &Scenario, fault: Option<&Fault>) -> Vec<&'a CellRecord> {
    let is_its = |c: &&CellRecord| c.cell.scenario == scenario.id && fault.is_none_or(|f| c.cell.fault == *f);
    run.measured().filter(is_its).collect()
}

/// Of some cells those whose figures count: INVALID ones only when there are no others.
pub fn sound<'a>(all: &[&'a CellRecord]) -> Vec<&'a CellRecord> {
    let sound: Vec<&CellRecord> = all.iter().copied().filter(|c| c.verdict != Verdict::Invalid).collect();
    if sound.is_empty() { all.to_vec() } else { sound }
}

/// Each stage of the jobs of some cells, by each source that tells it, the best first.
pub fn stages_of(cells: &[&CellRecord]) -> Vec<StageSummary> {
    Pooled::of(cells).stages(&TargetMetrics::of(cells))
}

/// Failures of every phase.
fn errors(cells: &[&CellRecord]) -> BTreeMap<ErrorKey, ErrorStats> {
    let mut all: BTreeMap<ErrorKey, ErrorStats> = BTreeMap::new();
    for (key, stats) in cells.iter().flat_map(|c| &c.totals.errors) {
        all.entry(key.clone()).and_modify(|ours| ours.merge(stats)).or_insert(*stats);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn levels_are_parts_of_their_own_and_add_up_to_the_scenario() {
        let run = sample::faults();
        let all = ScenarioSummary::of_run(&run);
        let names: Vec<String> = all.iter().flat_map(|s| s.parts()).map(ScenarioSummary::name).collect();
        assert_eq!(
            names,
            [
                "S6",
                "S7 latency +250 ms ± 10.0 ms",
                "S7 latency +1.00 s ± 40.0 ms",
                "S8 drop 2 %",
                "S8 drop 5 %"
            ]
        );
        for s in &all {
            let sum = |of: fn(&ScenarioSummary) -> u64| s.parts().iter().map(of).sum::<u64>();
            assert_eq!(sum(|p| p.submitted), s.submitted);
            assert_eq!(sum(|p| p.cells as u64), s.cells as u64);
            assert_eq!(sum(|p| p.planned().into()), u64::from(s.scenario.repetitions));
            assert_eq!(sum(|p| p.all.count()), s.all.count());
        }
    }

    #[test]
    fn one_measured_level_of_several_keeps_its_name() {
        let mut run = sample::faults();
        run.cells.retain(|c| c.cell.repetition == 1);
        let names: Vec<String> =
            ScenarioSummary::of_run(&run).iter().flat_map(|s| s.parts()).map(ScenarioSummary::name).collect();
        assert_eq!(names, ["S6", "S7 latency +250 ms ± 10.0 ms", "S8 drop 2 %"]);
    }

    #[test]
    fn the_best_source_is_the_tap_where_it_saw_anything() {
        let mut run = sample::faults();
        let source = |run: &RunRecord, stage| ScenarioSummary::of_run(run)[0].best(stage).map(|s| s.source);
        assert_eq!(source(&run, Stage::Run), Some(Source::Tap));
        assert_eq!(source(&run, Stage::Queue), Some(Source::Poll));
        run.cells.iter_mut().for_each(|c| c.posts = None);
        assert_eq!((source(&run, Stage::Run), source(&run, Stage::Persist)), (Some(Source::Poll), None));
        assert!(!ScenarioSummary::of_run(&run)[0].is_tapped());
    }
}
