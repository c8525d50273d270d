//! Made-up runs for the tests of every format: the same bytes each time, with cells closed by the
//! rules themselves.

mod tapped;

use tapped::{Tap, Truth};

use crate::{
    fault::{Fault, FaultMode},
    judgement,
    micros::Micros,
    plan::{Accounts, Cell, CellKind, InputFacts, Plan, Settings},
    record::{Build, CellRecord, Host, RunRecord, SCHEMA, Target},
    scenario::Scenario,
    snapshot::{
        Cancel, ErrorKey, ErrorStats, Job, JobKey, Listed, Phase, RequestKey, RequestStats, Results,
        TaskCounts, Totals,
    },
    timeline::{Clocked, JobOutcome, JobState},
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
    run.cells.push(CellRecord::close(old.cell, &plan, totals, old.t0_unix, old.workers, None, None, None));
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
        scenarios,
        overrides: Vec::new(),
        input: InputFacts { name: "proton-beam.json".into(), sha256: "1f".repeat(32), bytes: 4_817 },
        accounts: Accounts::Registered,
        settings: Settings { job_timeout: Micros(60_000_000), jobs_per_user, ..Settings::default() },
    };
    let started: jiff::Timestamp = "2026-10-01T12:00:00Z".parse().unwrap();
    let mut t0 = started.as_microsecond() as u64 + 2_000_000;
    let mut cells = Vec::new();
    for cell in plan.cells.clone() {
        let warm_up = cell.kind == CellKind::WarmUp;
        let tap = (is_tapped && !warm_up).then(|| Tap::on(&cell));
        let (totals, tap) = measure(&cell, jobs_per_user, t0, tap, &fate);
        let end = totals.jobs.values().map(|j| j.timeline.ended).max().unwrap_or_default();
        let (posts, injection) = tap.map(|tap| tap.close(&cell, end)).unzip();
        let workers = [(0, 9)].into();
        let record = CellRecord::close(cell, &plan, totals, t0, workers, None, posts, injection.flatten());
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
        target: Target {
            stand_in: true,
            url: "http://127.0.0.1:41234".into(),
            hello: "{\"message\":\"Hello world!\"}".into(),
            server: Some("springtide-standin".into()),
            keep_alive: true,
        },
        rigging: Default::default(),
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

/// Everything measured in a cell.
fn measure(
    cell: &Cell,
    jobs_per_user: u32,
    t0: u64,
    tap: Option<Tap>,
    fate: &impl Fn(&Cell, u32) -> Fate,
) -> (Totals, Option<Tap>) {
    let mut m = Measuring { dice: Dice(cell.seed | 1), t0, tap, totals: Totals::default() };
    for user in 0..cell.users {
        m.request(Phase::Setup, "PUT", "/auth/register", Micros::ZERO, 31_000, Ok((201, 180)));
        m.request(Phase::Setup, "POST", "/auth/login", Micros::ZERO, 24_000, Ok((202, 420)));
        let mut at = m.dice.up_to(20_000);
        for nth in 0..jobs_per_user {
            let key = JobKey { user, nth };
            let end = m.job(cell, key, at, fate(cell, user * jobs_per_user + nth));
            at = end.0 + 1_000;
        }
        m.totals.health.user_time += Micros(at);
        m.totals.health.waiting += Micros(at - at / 50);
        m.totals.health.in_flight += Micros(at / 60);
    }
    m.request(Phase::Settle, "GET", "/user/simulations", Micros::ZERO, 12_000, Ok((200, 2_400)));
    let target = &mut m.totals.target;
    target.accounts_read = cell.users;
    m.totals.health.cpu = Micros(m.totals.health.user_time.0 / 40);
    m.totals.health.capacity = Micros(m.totals.health.user_time.0);
    m.totals.health.sockets = u64::from(cell.users) + 1;
    (m.totals, m.tap)
}

struct Measuring {
    dice: Dice,
    t0: u64,
    tap: Option<Tap>,
    totals: Totals,
}

impl Measuring {
    /// A request that ends at `sent` + about `took` with a status and a body, or with an error.
    fn request(
        &mut self,
        phase: Phase,
        method: &str,
        name: &str,
        sent: Micros,
        took: u64,
        answer: Result<(u16, u64), (u16, &str)>,
    ) -> Clocked {
        let took = Micros(took / 2 + self.dice.up_to(took));
        let done = sent + took;
        let key = RequestKey { phase, method: method.into(), name: name.into() };
        let stats: &mut RequestStats = self.totals.requests.entry(key).or_default();
        let body = answer.map_or(30, |(_, body)| body);
        let status = answer.map_or_else(|(status, _)| status, |(status, _)| status);
        stats.sent_bytes += 310;
        stats.wire_bytes += body + 240;
        stats.body_bytes += body;
        if stats.count() == 0 {
            stats.connects += 1;
        }
        *stats.statuses.entry(status).or_default() += 1;
        let second = self.totals.series.at(done);
        let in_series = phase == Phase::Load;
        if in_series {
            second.body_bytes += body;
        }
        if let Err((_, error)) = answer {
            stats.failed.record(took);
            if in_series {
                second.failed.record(took);
            }
            let key = ErrorKey { phase, method: method.into(), name: name.into(), error: error.into() };
            let now = self.t0 + done.0;
            let one = ErrorStats { count: 1, first: now, last: now };
            let all = &mut self.totals.errors;
            all.entry(key).and_modify(|e| e.merge(&one)).or_insert(one);
        } else {
            stats.ok.record(took);
            stats.first_byte.record(Micros(took.0 * 4 / 5));
            if in_series {
                second.ok.record(took);
            }
        }
        Clocked { sent, done }
    }

    fn load(&mut self, method: &str, name: &str, sent: Micros, took: u64, body: u64) -> Clocked {
        let status = if name == "/jobs/direct" { 202 } else { 200 };
        self.request(Phase::Load, method, name, sent, took, Ok((status, body)))
    }

    /// Runs a job from its submit on and returns when it ended.
    fn job(&mut self, cell: &Cell, key: JobKey, at: u64, fate: Fate) -> Micros {
        let title = format!("{}-{}-{}-{}", cell.scenario, cell.repetition, key.user, key.nth);
        let id = format!("job-{:08x}-{}-{}", cell.seed as u32, key.user, key.nth);
        let mut job = Job {
            job_id: Some(id.clone()),
            submit_bytes: 4_817,
            ..Job::new(key.user % 2, title.clone(), JobOutcome::Fetched)
        };
        self.totals.progress.submitted += 1;
        self.totals.series.at(Micros(at)).jobs_change += 1;
        if fate == Fate::Rejected {
            let submit = self.request(
                Phase::Load,
                "POST",
                "/jobs/direct",
                Micros(at),
                20_000,
                Err((503, "status 503")),
            );
            job.timeline.submitted(submit);
            job.outcome = JobOutcome::Rejected { status: 503 };
            job.job_id = None;
            return self.end(key, job, submit.done);
        }
        let submit = self.load("POST", "/jobs/direct", Micros(at), 35_000, 92);
        job.timeline.submitted(submit);
        if fate != Fate::Vanished {
            let row = Listed { title, end_time: (fate != Fate::Stuck).then(|| "2026-10-01T12:01:00".into()) };
            self.totals.target.listed.insert(id, row);
        }
        let simulation = u64::from(cell.index) * 100 + u64::from(key.user);
        let mut now = self.poll_to_the_end(cell, &mut job, submit, fate, simulation);
        match fate {
            Fate::Failed => job.outcome = JobOutcome::Failed,
            Fate::Stuck => {
                job.outcome = JobOutcome::TimedOut { in_state: JobState::Running };
                job.cancel = Some(Cancel::Done);
                now = Micros(at + 60_000_000);
            }
            Fate::Broken => {
                self.request(Phase::Load, "GET", "/results", now, 60_000, Err((200, "results are not JSON")));
                job.outcome = JobOutcome::Broken { what: "results are not JSON".into() };
            }
            Fate::Fetched | Fate::Vanished | Fate::Rejected => {
                let body = 1_030_000 + self.dice.up_to(400);
                let fetch = self.load("GET", "/results", now, 80_000 + body / 50, body);
                job.timeline.fetch = Some(fetch);
                job.results = Some(Results {
                    simulation: self.tap.is_some().then_some(simulation),
                    wire_bytes: body + 260,
                    body_bytes: body,
                    estimators: 4,
                    pages: 21,
                    values: 98_892,
                    duplicates: 0,
                    shape: "aa".repeat(32),
                    sha256: "bb".repeat(32),
                });
                now = fetch.done;
            }
        }
        self.end(key, job, now)
    }

    /// Polls until a terminal state is seen; returns when it was.
    fn poll_to_the_end(
        &mut self,
        cell: &Cell,
        job: &mut Job,
        submit: Clocked,
        fate: Fate,
        simulation: u64,
    ) -> Micros {
        let (tasks, dice) = (u64::from(cell.tasks), &mut self.dice);
        let running = submit.done.0 + 150_000 + dice.up_to(700_000);
        let queued = running + 400_000 * tasks + dice.up_to(900_000);
        let merging = queued + 60_000 + dice.up_to(200_000);
        let mut completed = merging + 350_000 + dice.up_to(400_000);
        if let Some(tap) = &mut self.tap {
            let truth = Truth { running, queued, merging, results: completed - tapped::SERVED };
            completed += tapped::delay(&cell.fault);
            tap.simulation(simulation, cell.tasks, &truth, fate == Fate::Stuck);
            let partial =
                cell.scenario.as_str() == "S8" && cell.repetition.is_multiple_of(2) && simulation % 10 == 5;
            let missing = u32::from(partial || fate == Fate::Stuck);
            let completed = cell.tasks - missing;
            job.tasks = Some(TaskCounts { all: cell.tasks, completed, failed: 0 });
        }
        let mut at = submit.done.0;
        loop {
            at += 450_000 + self.dice.up_to(100_000);
            let poll = self.load("GET", "/jobs", Micros(at), 4_000, 640);
            let seen = poll.sent.0.midpoint(poll.done.0);
            let state = match seen {
                s if s < running => JobState::Pending,
                s if s < queued || fate == Fate::Stuck => JobState::Running,
                _ if fate == Fate::Failed => JobState::Failed,
                s if s < merging => JobState::MergingQueued,
                s if s < completed => JobState::MergingRunning,
                _ => JobState::Completed,
            };
            job.timeline.observe(state, poll, 880);
            self.totals.health.lag.record(Micros(20 + self.dice.up_to(900)));
            at = poll.done.0;
            if state.is_terminal() || fate == Fate::Stuck && at > submit.sent.0 + 59_000_000 {
                return poll.done;
            }
        }
    }

    fn end(&mut self, key: JobKey, mut job: Job, at: Micros) -> Micros {
        job.timeline.ended = at;
        self.totals.series.at(at).jobs_change -= 1;
        self.totals.jobs.insert(key, job);
        at
    }
}

/// Numbers that look random and never change.
struct Dice(u64);

impl Dice {
    fn up_to(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }
}

/// The rows of a CSV file, without its header; every row as long as that.
pub(crate) fn rows(bytes: &[u8]) -> Vec<csv::StringRecord> {
    let mut reader = csv::Reader::from_reader(bytes);
    reader.records().map(Result::unwrap).collect()
}
