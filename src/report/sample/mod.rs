//! Made-up runs for the tests of every format: the same bytes each time, with cells closed by the
//! rules themselves.

mod crew;
mod measuring;
mod redis;
pub(crate) mod sampled;
mod scraped;
mod tapped;

use std::collections::VecDeque;

use measuring::measure;
pub(crate) use scraped::{scraped, scraped_run};
use tapped::Tap;

use crate::{
    crew::Part,
    fault::{Fault, FaultMode},
    judgement,
    micros::Micros,
    plan::{Accounts, Cell, CellKind, InputFacts, Plan, Settings},
    record::{Beside, Build, CellRecord, Host, RedisFacts, Resumed, RunRecord, SCHEMA, Target},
    scenario::{Matrix, Scenario},
    snapshot::ErrorKey,
    timeline::JobOutcome,
    verdict::Verdict,
};

/// What becomes of a job.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Fetched,
    Failed,
    Stuck,
    Rejected,
    Broken,
    /// Fetched, but the target's list does not have it.
    Vanished,
}

/// One that passes: S1, ten cells of two jobs.
pub(crate) fn good() -> RunRecord {
    run(&[("S1", 2, 4, 10)], 1, |_, _| Fate::Fetched)
}

/// Two scenarios: S1 passes, S2 has every kind of trouble and one INVALID cell; a threshold each.
pub(crate) fn mixed() -> RunRecord {
    let mut run = run(&[("S1", 2, 4, 4), ("S2", 30, 8, 3)], 1, |cell, n| {
        match (cell.scenario.as_str(), cell.repetition, n) {
            ("S2", 1, 3 | 7) => Fate::Failed,
            ("S2", 1, 11) | ("S2", 2, 4) => Fate::Stuck,
            ("S2", 2, 5) => Fate::Rejected,
            ("S2", 2, 6) => Fate::Broken,
            ("S2", 3, 9) => Fate::Vanished,
            _ => Fate::Fetched,
        }
    });
    run.thresholds = ["job.p95<60s", "submit.p99<1ms for S2"].map(|t| t.parse().unwrap()).to_vec();
    run.plan.overrides = vec!["S1: 4 repetitions instead of 10".into()];
    judgement::close(&mut run);
    run
}

/// S6 and its faulty twins S7 and S8 with two levels each, all seen by a tap. Under S8 one job a
/// cell hangs, and at 5 % one more is completed with partial results.
pub(crate) fn faults() -> RunRecord {
    let scenarios =
        [("S6", FaultMode::None), ("S7", FaultMode::Latency), ("S8", FaultMode::Drop)].map(|(id, fault)| {
            Scenario { fault, levels: Fault::default_levels(fault), ..scenario(id, 10, 8, 4) }
        });
    let mut run = carry_out(scenarios.to_vec(), 1, true, |cell, n| match cell.scenario.as_str() {
        "S8" if n == 3 => Fate::Stuck,
        _ => Fate::Fetched,
    });
    run.thresholds =
        ["persist.p95<800ms", "hand_over_queued.p50<1s for S6"].map(|t| t.parse().unwrap()).to_vec();
    judgement::close(&mut run);
    run
}

/// Four scenarios of rising load with a Redis beside each cell; their second cells have a gap.
pub(crate) fn redis() -> RunRecord {
    let scenarios = [("S1", 2, 4, 3), ("S2", 2, 8, 3), ("S3", 2, 16, 3), ("S4", 2, 32, 3)];
    let mut run = run(&scenarios, 1, |_, _| Fate::Fetched);
    for cell in run.cells.iter_mut().filter(|c| c.cell.kind == CellKind::Measured) {
        cell.telemetry = redis::beside(&cell.cell, cell.duration);
    }
    judgement::close(&mut run);
    run
}

/// S6 over a plane, with three workers, one of them lost for a while: PASS, with losses.
pub(crate) fn crew() -> RunRecord {
    crew::over_a_plane(run(&[("S6", 10, 8, 4)], 1, |_, _| Fate::Fetched))
}

/// The whole runbook, S1 to S8 with the levels of their faults, seen by a tap and with Redis and a
/// worker process sampled beside. One cell of S5 was INVALID and made again, one of S7 is INVALID
/// for good when there are four repetitions; some jobs of S8 hang, and results differ in size.
pub(crate) fn matrix(repetitions: u32) -> RunRecord {
    let scenarios = Matrix::runbook().scenarios.into_iter().map(|s| Scenario { repetitions, ..s });
    let mut run = carry_out(scenarios.collect(), 1, true, |cell, n| match cell.scenario.as_str() {
        "S8" if n == 3 && cell.repetition.is_multiple_of(2) => Fate::Stuck,
        "S5" if n == 2 && (cell.repetition, cell.attempt) == (2, 1) => Fate::Vanished,
        _ => Fate::Fetched,
    });
    run.label = "matrix".into();
    run.run_id = "20261001-120000-matrix-5c".into();
    run.command = "springtide matrix --redis-url redis://127.0.0.1:6379 --watch-pid worker=4711".into();
    run.note = Some("before the merge moves out of the worker".into());
    run.revisions = [("backend", "4be1c0d"), ("ui", "90aa17e")].map(|(a, b)| (a.into(), b.into())).into();
    run.redis = Some(RedisFacts {
        url: "redis://127.0.0.1:6379".into(),
        version: "7.2.4".into(),
        run_id: "4f".repeat(20),
        maxmemory: 0,
        policy: "noeviction".into(),
    });
    run.resumed = vec![Resumed {
        at: "2026-10-01T12:20:00Z".parse().unwrap(),
        build: run.build.clone(),
        command: "springtide matrix --resume latest".into(),
        host: run.host.clone(),
        cells: 9,
    }];
    for cell in run.cells.iter_mut().filter(|c| c.cell.kind == CellKind::Measured) {
        sampled::sample(cell);
        sampled::resize(cell);
    }
    run.thresholds = ["job.p95<60s for S6", "persist.p95<2s"].map(|t| t.parse().unwrap()).to_vec();
    judgement::close(&mut run);
    run
}

/// Planned, nothing done.
pub(crate) fn empty() -> RunRecord {
    let mut run = good();
    run.cells.clear();
    run.stopped = Some("interrupted".into());
    run.finished = None;
    judgement::close(&mut run);
    run
}

/// Every cell has a job that vanished.
pub(crate) fn invalid_only() -> RunRecord {
    run(&[("S1", 3, 4, 2)], 1, |_, n| match n {
        0 => Fate::Vanished,
        _ => Fate::Fetched,
    })
}

/// No job was fetched.
pub(crate) fn failed_only() -> RunRecord {
    run(&[("S1", 3, 4, 2)], 1, |_, n| match n {
        0 => Fate::Stuck,
        _ => Fate::Failed,
    })
}

/// Hostile text wherever text comes from outside.
pub(crate) fn nasty() -> RunRecord {
    const EVIL: &str = "<script>alert(\"x\")</script>,|`'&";
    let mut run = run(&[("S1", 3, 4, 1)], 1, |_, n| match n {
        0 => Fate::Broken,
        1 => Fate::Failed,
        _ => Fate::Fetched,
    });
    run.command = format!("springtide --host {EVIL}");
    run.label = EVIL.into();
    run.target.hello = EVIL.into();
    run.target.server = Some(EVIL.into());
    run.plan.overrides = vec![EVIL.into()];
    run.note = Some(EVIL.into());
    run.revisions = [(EVIL.into(), EVIL.into())].into();
    let plan = run.plan.clone();
    let old = run.cells.pop().unwrap();
    let mut totals = old.totals;
    for job in totals.jobs.values_mut() {
        let id = job.job_id.take().unwrap_or_default();
        let row = totals.target.listed.remove(&id).unwrap();
        let evil = format!("{id}{EVIL}");
        totals.target.listed.insert(evil.clone(), row);
        job.job_id = Some(evil);
        if let JobOutcome::Broken { what } = &mut job.outcome {
            *what = EVIL.into();
        }
    }
    totals.errors =
        totals.errors.into_iter().map(|(key, e)| (ErrorKey { error: EVIL.into(), ..key }, e)).collect();
    let mut workers = old.workers;
    (workers[0].name, workers[0].lost) = (EVIL.into(), Some(EVIL.into()));
    run.crew = Some(crew::of_one(&workers[0], EVIL));
    run.cells.push(CellRecord::close(old.cell, &plan, totals, old.t0_unix, workers, None, Beside::default()));
    judgement::close(&mut run);
    run
}

/// A run of scenarios `(id, users, tasks, repetitions)`, judged.
pub(crate) fn run(
    scenarios: &[(&str, u32, u32, u32)],
    jobs_per_user: u32,
    fate: impl Fn(&Cell, u32) -> Fate,
) -> RunRecord {
    let scenarios = scenarios.iter().map(|&(id, users, tasks, n)| scenario(id, users, tasks, n));
    carry_out(scenarios.collect(), jobs_per_user, false, fate)
}

fn scenario(id: &str, concurrent_jobs: u32, tasks: u32, repetitions: u32) -> Scenario {
    Scenario {
        id: id.to_owned().try_into().unwrap(),
        concurrent_jobs,
        tasks,
        fault: FaultMode::None,
        levels: vec![Fault::none()],
        repetitions,
    }
}

fn carry_out(
    scenarios: Vec<Scenario>,
    jobs_per_user: u32,
    is_tapped: bool,
    fate: impl Fn(&Cell, u32) -> Fate,
) -> RunRecord {
    let plan = Plan {
        seed: 42,
        matrix_sha256: "6d".repeat(32),
        matrix_name: "built-in".into(),
        cells: Plan::cells(42, &scenarios, true),
        overrides: Vec::new(),
        input: InputFacts { name: "proton-beam.json".into(), sha256: "1f".repeat(32), bytes: 4_817 },
        accounts: Accounts::Registered,
        settings: Settings {
            job_timeout: Micros(60_000_000),
            jobs_per_user,
            // The only made-up run with a tap and the whole runbook.
            requeue: u32::from(is_tapped && scenarios.len() == 8),
            ..Settings::default()
        },
        probes: Vec::new(),
        scenarios,
    };
    let started: jiff::Timestamp = "2026-10-01T12:00:00Z".parse().unwrap();
    let mut t0 = started.as_microsecond() as u64 + 2_000_000;
    let mut cells = Vec::new();
    let mut queue: VecDeque<Cell> = plan.cells.clone().into();
    while let Some(cell) = queue.pop_front() {
        let warm_up = cell.kind == CellKind::WarmUp;
        let tap = (is_tapped && !warm_up).then(|| Tap::on(&cell));
        let (totals, tap) = measure(&cell, jobs_per_user, t0, tap, &fate);
        let end = totals.jobs.values().map(|j| j.timeline.ended).max().unwrap_or_default();
        let (posts, injection) = tap.map(|tap| tap.close(&cell, end, &totals)).unzip();
        let part = Part {
            name: "local".into(),
            epoch: 2,
            users: cell.users,
            frames: 9,
            health: totals.health.clone(),
            ..Part::default()
        };
        let workers = vec![part];
        let beside = Beside { posts, injection: injection.flatten(), ..Beside::default() };
        let record = CellRecord::close(cell, &plan, totals, t0, workers, None, beside);
        if record.verdict == Verdict::Invalid && record.cell.attempt <= plan.settings.requeue {
            let index = (plan.cells.len() + queue.len()) as u32;
            queue.push_back(record.cell.again(index, true));
        }
        t0 += record.duration.0 + 3_000_000;
        cells.push(if warm_up { record.without_totals() } else { record });
    }
    let mut run = RunRecord {
        schema: SCHEMA,
        run_id: "20261001-120000-mixed-3f".into(),
        label: "mixed".into(),
        started,
        finished: jiff::Timestamp::from_microsecond(t0 as i64).ok(),
        build: Build {
            version: "0.1.0".into(),
            revision: "0123abc".into(),
            profile: "release".into(),
            goose: "0.19.0".into(),
        },
        command: "springtide --scenario S1 --users 2".into(),
        host: Host {
            name: "bench-1".into(),
            cpu: "Example CPU @ 2.40GHz".into(),
            cores: 2,
            memory: 8_000_000_000,
            kernel: "Linux 6.1.0".into(),
            open_files: 65_536,
        },
        resumed: Vec::new(),
        revisions: Default::default(),
        note: None,
        target: Target {
            stand_in: true,
            url: "http://127.0.0.1:41234".into(),
            hello: "{\"message\":\"Hello world!\"}".into(),
            server: Some("springtide-standin".into()),
            keep_alive: true,
            retries: None,
            knobs: None,
        },
        rigging: Default::default(),
        redis: None,
        watched: Vec::new(),
        crew: None,
        plan,
        thresholds: Vec::new(),
        cells,
        checks: Vec::new(),
        verdict: None,
        stopped: None,
    };
    judgement::close(&mut run);
    run
}

/// The rows of a CSV file, without its header; every row as long as that.
pub(crate) fn rows(bytes: &[u8]) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_reader(bytes);
    reader.records().map(Result::unwrap).collect()
}
