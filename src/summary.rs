//! A scenario's figures, pooled over its cells: what thresholds are held against and every report
//! prints. Computed from the run record, never stored.

use std::{collections::BTreeMap, thread};

use crate::{
    estimate::{Collecting, Quantile, Sample},
    micros::Micros,
    payload::{Payload, PayloadKind, Sizes},
    record::{CellRecord, RunRecord},
    scenario::{Scenario, ScenarioId},
    snapshot::{ErrorKey, ErrorStats, Health, Job, Phase, RequestKey, RequestStats},
    timeline::{JobOutcome, Stage},
    verdict::Verdict,
};

/// Where a figure comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The client's own clock: exact.
    Client,
    /// Changes seen between two polls: an interval.
    Poll,
}

impl Source {
    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Poll => "poll",
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
        (self.sample.censored() == 0).then(|| self.sample.mean()).flatten()
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

/// One scenario of a run.
#[derive(Debug, Clone)]
pub struct ScenarioSummary {
    /// Its row, overrides applied.
    pub scenario: Scenario,
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
    /// Each stage, in the order of a job's life.
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
        let cells: Vec<&CellRecord> = run.measured().filter(|c| c.cell.scenario == scenario.id).collect();
        let invalid = cells.iter().filter(|c| c.verdict == Verdict::Invalid).count();
        let untrusted = invalid == cells.len() && invalid > 0;
        let counting = counting(run, &scenario.id);
        let counted = || counting.iter().copied();
        let pooled = Pooled::of(&counting);

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
            stages: pooled.stages(),
            outside,
            errors: errors(&counting),
            health,
            duration: counted().map(|c| c.duration).sum(),
            verdict: cells.iter().map(|c| c.verdict).max().unwrap_or(Verdict::Invalid),
            requests,
            all,
            scenario: scenario.clone(),
        }
    }

    /// Every scenario of the run's plan that has a finished cell.
    pub fn of_run(run: &RunRecord) -> Vec<Self> {
        run.plan.scenarios.iter().map(|s| Self::of(run, s)).filter(|s| s.cells > 0).collect()
    }

    /// The figures of one stage.
    pub fn stage(&self, stage: Stage) -> &StageSummary {
        self.stages.iter().find(|s| s.stage == stage).expect("every stage is summed up")
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

/// The finished cells of a scenario whose figures count: INVALID ones only when there are no
/// others.
pub fn counting<'a>(run: &'a RunRecord, scenario: &ScenarioId) -> Vec<&'a CellRecord> {
    let all: Vec<&CellRecord> = run.measured().filter(|c| c.cell.scenario == *scenario).collect();
    let sound: Vec<&CellRecord> = all.iter().copied().filter(|c| c.verdict != Verdict::Invalid).collect();
    if sound.is_empty() { all } else { sound }
}

/// Failures of every phase.
fn errors(cells: &[&CellRecord]) -> BTreeMap<ErrorKey, ErrorStats> {
    let mut all: BTreeMap<ErrorKey, ErrorStats> = BTreeMap::new();
    for (key, stats) in cells.iter().flat_map(|c| &c.totals.errors) {
        all.entry(key.clone()).and_modify(|ours| ours.merge(stats)).or_insert(*stats);
    }
    all
}

/// What the jobs of a scenario add up to, collected in one walk: a run may have millions.
#[derive(Default)]
struct Pooled {
    jobs: u64,
    polls: u64,
    poll_bytes: u64,
    stages: [Collecting; Stage::CLIENT.len()],
    payloads: [Vec<Payload>; PayloadKind::ALL.len()],
}

impl Pooled {
    /// Walks the jobs of some cells, on as many threads as there are cores.
    fn of(cells: &[&CellRecord]) -> Self {
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let walks: Vec<_> = cells
                .chunks(cells.len().div_ceil(threads).max(1))
                .map(|part| {
                    scope.spawn(move || {
                        let mut pooled = Self::default();
                        let jobs = part.iter().flat_map(|c| c.totals.jobs.values());
                        jobs.for_each(|job| pooled.add(job));
                        pooled
                    })
                })
                .collect();
            walks.into_iter().fold(Self::default(), |mut all, walk| {
                all.merge(walk.join().expect("adding up does not panic"));
                all
            })
        })
    }

    fn merge(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.polls += other.polls;
        self.poll_bytes += other.poll_bytes;
        for (ours, theirs) in self.stages.iter_mut().zip(other.stages) {
            ours.merge(theirs);
        }
        for (ours, theirs) in self.payloads.iter_mut().zip(other.payloads) {
            ours.extend(theirs);
        }
    }

    fn add(&mut self, job: &Job) {
        self.jobs += 1;
        self.polls += u64::from(job.timeline.polls);
        self.poll_bytes += job.timeline.poll_bytes;
        let refused = matches!(job.outcome, JobOutcome::Rejected { .. });
        for (stage, collecting) in Stage::CLIENT.into_iter().zip(&mut self.stages) {
            if refused && stage != Stage::Submit {
                continue;
            }
            if let Some(span) = job.timeline.stage(stage) {
                collecting.add(span);
            }
        }
        for (kind, payloads) in PayloadKind::ALL.into_iter().zip(&mut self.payloads) {
            payloads.extend(kind.of(job));
        }
    }

    fn observer(&self, requests: &BTreeMap<RequestKey, RequestStats>, all: &RequestStats) -> Observer {
        let time = |s: &RequestStats| (s.ok.sum() + s.failed.sum()).0 as f64;
        let polling: f64 = requests
            .iter()
            .filter(|(k, _)| k.method == "GET" && k.name == "/jobs")
            .map(|(_, s)| time(s))
            .sum();
        Observer {
            polls_per_job: if self.jobs == 0 { 0.0 } else { self.polls as f64 / self.jobs as f64 },
            poll_bytes: self.poll_bytes,
            share_of_api_time: if time(all) == 0.0 { 0.0 } else { polling / time(all) },
        }
    }

    fn payloads(&self) -> Vec<Sizes> {
        let all = PayloadKind::ALL.into_iter().zip(&self.payloads);
        all.filter(|(_, p)| !p.is_empty()).map(|(kind, p)| Sizes::of(kind, p)).collect()
    }

    fn stages(self) -> Vec<StageSummary> {
        // Sorting is most of the work on a large run, and the stages have nothing to do with each
        // other.
        thread::scope(|scope| {
            let all = Stage::CLIENT.into_iter().zip(self.stages);
            let sorting: Vec<_> = all.map(|(stage, c)| (stage, scope.spawn(move || c.finish()))).collect();
            sorting
                .into_iter()
                .map(|(stage, sorted)| {
                    let source = if stage.is_polled() { Source::Poll } else { Source::Client };
                    let sample = sorted.join().expect("sorting does not panic");
                    StageSummary { stage, source, sample }
                })
                .collect()
        })
    }
}
