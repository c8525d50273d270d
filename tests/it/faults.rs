//! Faults end to end: a stand-in in this process, whose truth is at hand, a tap in a process of its
//! own between its workers and itself, and a run that reads the one and loads the other.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use springtide::{
    finding::Kind,
    post::FaultStatus,
    record::{CellRecord, RunRecord},
    route::Route,
    standin::{Config, Retries, StandIn, Truth},
    timeline::{JobOutcome, JobState},
    verdict::{Exit, Rule, Verdict},
};

use crate::{
    backend::{Served, ask},
    support::{Ended, Run, alone, shared, wait_for},
};

/// Tasks that take no time worth waiting for.
fn quick() -> Config {
    Config { task_time: Duration::from_millis(20), ..Config::default() }
}

/// A stand-in whose workers post through a tap.
struct Tapped {
    stand_in: StandIn,
    tap: Served,
}

impl Tapped {
    fn start(config: Config) -> Self {
        let stand_in = StandIn::start(config).unwrap();
        let tap = Served::start("tap", &format!("--upstream {}", stand_in.url()));
        stand_in.post_through(&tap.url).unwrap();
        Self { stand_in, tap }
    }

    fn run(&self, scenario: &str) -> Run {
        Run::small_at(self.stand_in.url()).set("scenario", scenario).set("tap", &self.tap.url)
    }

    fn fault(&self) -> FaultStatus {
        serde_json::from_slice(&ask(&self.tap.url, "GET", "/_tap/fault", "")).unwrap()
    }

    /// Waits until a fault is at work.
    fn harmed(&self) {
        wait_for("a fault in the tap", Duration::from_secs(30), || self.fault().active.then_some(()));
    }
}

/// A matrix of one scenario with three users.
fn matrix(fault: &str, levels: &str) -> String {
    format!(
        "[[scenario]]\nid = \"S8\"\nconcurrent_jobs = 3\ntasks = 4\nfault = \"{fault}\"\nlevels = [{levels}]\nrepetitions = 2\n"
    )
}

fn cells(ended: &Ended) -> Vec<CellRecord> {
    ended.record().cells
}

fn check(cell: &CellRecord, rule: Rule) -> (Verdict, String) {
    let check = cell.checks.iter().find(|c| c.rule == rule).unwrap_or_else(|| panic!("no {rule}"));
    (check.verdict, check.evidence.clone())
}

/// Jobs that died of a post, as the stand-in has it.
fn died(truth: &Truth) -> usize {
    truth.jobs.iter().filter(|j| j.completed_us.is_none()).count()
}

#[test]
fn a_delay_shows_in_the_results_by_as_much_as_was_ordered() {
    let _alone = alone();
    let tapped = Tapped::start(quick());
    let levels = "{ delay = \"250ms\", jitter = \"10ms\" }, { delay = \"500ms\" }";
    let ended = tapped
        .run("S8")
        .file("m.toml", &matrix("latency", levels))
        .set("matrix", "m.toml")
        .set("users", 2)
        .set("tasks", 1)
        .ends();
    ended.exits(Exit::Pass);
    for (cell, delay) in cells(&ended).iter().zip([250.0, 500.0]) {
        let results = &cell.posts.as_ref().unwrap().routes[&Route::Results];
        assert_eq!(results.fates.delayed, 2);
        let (took, served) = (results.took.quantile(0.5).as_ms(), results.served.quantile(0.5).as_ms());
        // Medians of two posts each: what one of them waited for on a busy machine is in one of the two.
        let noise = delay * 0.05 + 80.0;
        assert!((took - served - delay).abs() < noise, "{took} - {served} against {delay}");
        let held = results.held.quantile(0.5).as_ms();
        assert!((held - delay).abs() < delay * 0.1, "held for {held} against {delay}");
        assert_eq!(check(cell, Rule::FaultProven).0, Verdict::Pass);
    }
    assert!(ended.folder().join("resilience/S8_resilience.csv").is_file());
}

#[test]
fn without_retries_a_dropped_post_leaves_its_job_stuck_and_the_report_counts_what_the_truth_counts() {
    let _shared = shared();
    let tapped = Tapped::start(quick());
    let ended = tapped
        .run("S8")
        .file("m.toml", &matrix("drop", "{ ratio = \"8%\" }"))
        .set("matrix", "m.toml")
        .set("users", 10)
        .set("job-timeout", "10s")
        .ends();
    ended.exits(Exit::Pass);
    let (mut stuck, mut harmed) = (0, 0);
    for cell in cells(&ended) {
        let (posts, injection) = (cell.posts.unwrap(), cell.injection.unwrap());
        let (seen, decided) = (posts.all().fates, injection.fates.unwrap());
        assert_eq!(
            (seen.requests_dropped, seen.answers_dropped),
            (decided.requests_dropped, decided.answers_dropped)
        );
        harmed += decided.harmed();
        stuck +=
            cell.totals.jobs.values().filter(|j| matches!(j.outcome, JobOutcome::TimedOut { .. })).count();
    }
    let truth = tapped.stand_in.truth();
    assert!(harmed > 0 && stuck > 0, "8 % of some 340 posts, 17 of which a job cannot do without");
    assert_eq!(stuck, died(&truth), "{:?}", truth.jobs);
    let lost: u64 = truth.worker_given_up.values().sum();
    assert_eq!(harmed, lost, "a worker that is told nothing gives up");
    let said = ended.findings();
    let found = said.iter().filter(|f| matches!(f.kind, Kind::StuckAfterLostPost { .. }));
    assert_eq!(found.map(|f| f.count).sum::<u64>(), stuck as u64, "{said:?}");
    assert!(ended.out.contains("stuck in RUNNING"), "{}", ended.out);
}

#[test]
fn with_retries_no_job_is_stuck_and_every_repeated_post_is_counted() {
    let _shared = shared();
    let tapped = Tapped::start(Config { retries: Retries::Exponential, ..quick() });
    let ended = tapped
        .run("S8")
        .file("m.toml", &matrix("drop", "{ ratio = \"8%\" }"))
        .set("matrix", "m.toml")
        .set("users", 10)
        .ends();
    ended.exits(Exit::Pass).jobs(&[("fetched", 20)]);
    let truth = tapped.stand_in.truth();
    let mut repeated: BTreeMap<Route, u64> = BTreeMap::new();
    let (mut replayed, mut doubles) = (0, 0);
    for cell in cells(&ended) {
        let posts = cell.posts.unwrap();
        for (route, of_route) in &posts.routes {
            *repeated.entry(*route).or_default() += of_route.repeated;
            replayed += of_route.replayed;
        }
        doubles += posts.simulations.values().filter(|s| s.results_accepted > 1 + s.results_replayed).count();
    }
    repeated.retain(|_, n| *n > 0);
    assert!(!repeated.is_empty());
    assert_eq!(repeated, truth.worker_retries);
    assert_eq!((replayed, doubles), (truth.replayed, 0));
    assert!(truth.jobs.iter().all(|j| j.results_posts == 1));
}

#[test]
fn a_tap_that_is_killed_makes_the_cell_invalid_and_says_why() {
    let _shared = shared();
    let tapped = Tapped::start(quick());
    let going = tapped
        .run("S8")
        .file("m.toml", &matrix("latency", "{ delay = \"2s\" }"))
        .set("matrix", "m.toml")
        .start();
    tapped.harmed();
    wait_for("jobs", Duration::from_secs(30), || (tapped.stand_in.truth().jobs_submitted > 0).then_some(()));
    tapped.tap.signal(Signal::KILL);
    let ended = going.ends();
    ended.exits(Exit::Invalid);
    let run = ended.record();
    assert_eq!(run.cells.len(), 1);
    let (verdict, evidence) = check(&run.cells[0], Rule::TapComplete);
    assert_eq!(verdict, Verdict::Invalid);
    assert!(evidence.contains(&tapped.tap.url), "{evidence}");
    assert!(ended.out.contains("INVALID") && ended.out.contains(&tapped.tap.url), "{}", ended.out);
}

#[test]
fn a_tap_that_is_started_anew_costs_one_cell() {
    let _shared = shared();
    let mut tapped = Tapped::start(quick());
    let level = "{ delay = \"500ms\" }";
    let going = tapped.run("S8").file("m.toml", &matrix("latency", level)).set("matrix", "m.toml").start();
    tapped.harmed();
    wait_for("jobs", Duration::from_secs(30), || (tapped.stand_in.truth().jobs_submitted > 0).then_some(()));
    let address = tapped.tap.url.strip_prefix("http://").unwrap().to_owned();
    tapped.tap.signal(Signal::KILL);
    let upstream = format!("--upstream {}", tapped.stand_in.url());
    tapped.tap = Served::start_at(&address, "tap", &upstream);
    let ended = going.ends();
    ended.exits(Exit::Invalid);
    let verdicts: Vec<Verdict> = cells(&ended).iter().map(|c| c.verdict).collect();
    assert_eq!(verdicts, [Verdict::Invalid, Verdict::Pass], "{}", ended.err);
}

#[rstest]
#[case::killed(Signal::KILL, Duration::from_secs(8))]
#[case::interrupted(Signal::INT, Duration::from_secs(4))]
fn no_fault_outlives_its_run(#[case] signal: Signal, #[case] within: Duration) {
    let _shared = shared();
    let tapped = Tapped::start(quick());
    let going = tapped
        .run("S8")
        .file("m.toml", &matrix("latency", "{ delay = \"1s\" }"))
        .set("matrix", "m.toml")
        .start();
    tapped.harmed();
    let began = Instant::now();
    going.signal(signal);
    wait_for("no fault in the tap", within, || tapped.fault().order.is_none().then_some(()));
    assert_eq!(tapped.fault().expired, signal == Signal::KILL, "{:?}", began.elapsed());
    going.ends();
}

#[test]
fn workers_that_do_not_post_through_the_tap_are_noticed() {
    let _shared = shared();
    let tapped = Tapped::start(quick());
    tapped.stand_in.post_through(tapped.stand_in.url()).unwrap();
    let ended = tapped.run("S1").once().ends();
    ended.exits(Exit::Invalid);
    let (verdict, evidence) = check(&cells(&ended)[0], Rule::TapComplete);
    assert_eq!(verdict, Verdict::Invalid);
    assert!(evidence.contains("do not post through it"), "{evidence}");
}

/// The jobs' tasks take so long that a fault has something to hit.
#[test]
fn a_fault_of_somebody_else_makes_a_cell_invalid() {
    let _shared = shared();
    let tapped = Tapped::start(Config { task_time: Duration::from_secs(2), ..Config::default() });
    let going = tapped.run("S1").once().start();
    wait_for("jobs", Duration::from_secs(30), || (tapped.stand_in.truth().jobs_submitted > 2).then_some(()));
    let fault = json!({"mode": "latency", "delay": 300_000, "jitter": 0, "distribution": "uniform",
        "routes": ["/tasks"], "window": {"from": 0, "to": null}});
    let order = json!({"run": "else", "cell": 1, "seed": 1, "lease": 3_000_000, "fault": fault});
    ask(&tapped.tap.url, "PUT", "/_tap/fault", &order.to_string());
    tapped.harmed();
    let ended = going.ends();
    ended.exits(Exit::Invalid);
    let (verdict, evidence) = check(&cells(&ended)[0], Rule::TapComplete);
    assert_eq!(verdict, Verdict::Invalid);
    assert!(evidence.contains("none of ours"), "{evidence}");
}

#[test]
fn a_disconnect_is_proven_and_the_first_job_after_it_is_timed() {
    let _shared = shared();
    let tapped = Tapped::start(Config { retries: Retries::Exponential, ..quick() });
    let levels = "{ refuse = \"1s\", from = \"0s\" }";
    let ended =
        tapped.run("S8").file("m.toml", &matrix("disconnect", levels)).set("matrix", "m.toml").once().ends();
    ended.exits(Exit::Pass).jobs(&[("fetched", 3)]);
    let cell = &cells(&ended)[0];
    assert!(cell.posts.as_ref().unwrap().all().fates.refused > 0);
    let csv = fs::read_to_string(ended.folder().join("resilience/S8_resilience.csv")).unwrap();
    let mut rows = csv::Reader::from_reader(csv.as_bytes());
    let column = rows.headers().unwrap().iter().position(|h| h == "recovery_ms").unwrap();
    let row = rows.records().next().unwrap().unwrap();
    let recovery: f64 = row[column].parse().unwrap();
    assert!((0.0..15_000.0).contains(&recovery), "{recovery}");
}

#[test]
fn a_window_that_never_came_is_no_proof() {
    let _shared = shared();
    let tapped = Tapped::start(quick());
    let levels = "{ delay = \"100ms\", from = \"20s\" }";
    let run = tapped.run("S8").file("m.toml", &matrix("latency", levels)).set("matrix", "m.toml").once();
    let ended = run.within(Duration::from_secs(50)).ends();
    ended.exits(Exit::Invalid);
    let (verdict, evidence) = check(&cells(&ended)[0], Rule::FaultProven);
    assert_eq!(verdict, Verdict::Invalid, "{evidence}");
}

#[test]
fn a_fault_stands_beside_its_twin_without_one() {
    let _shared = shared();
    let ended = Run::small()
        .set("scenario", "S6,S7")
        .set("matrix", concat!(env!("CARGO_MANIFEST_DIR"), "/loadtests/smoke.toml"))
        .once()
        .ends();
    ended.exits(Exit::Pass).jobs(&[("fetched", 6)]);
    let csv = fs::read_to_string(ended.folder().join("resilience/S7_resilience.csv")).unwrap();
    let scenarios: Vec<&str> = csv.lines().skip(1).filter_map(|l| l.split(',').nth(1)).collect();
    assert_eq!(scenarios, ["S7", "S6"]);
    let run: RunRecord = ended.record();
    assert!(run.rigging.tap.is_some_and(|t| t.built_in));
    assert!(
        run.cells.iter().all(|c| c
            .totals
            .jobs
            .values()
            .all(|j| j.timeline.state() == Some(JobState::Completed)))
    );
}
