//! The summary as JSON: what `--json` prints. Times are milliseconds with three decimals, `null`
//! where unknown; moments are RFC 3339. A scenario whose fault has several levels is one entry a
//! level.

mod faults;
mod matrix;
mod merge;
mod metrics;
mod redis;
mod workers;

use std::{borrow::Cow, collections::BTreeMap, path::PathBuf};

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    estimate::Quantile,
    micros::Micros,
    record::{Build, FILE, Host, RedisFacts, RunRecord, Target},
    repetitions::Repetitions,
    report::{Paper, fold},
    scenario::{Scenario, ScenarioId},
    snapshot::{RequestKey, RequestStats},
    summary::{ScenarioSummary, StageSummary},
    verdict::{Exit, Verdict},
};

/// The summary of a run that ends with `exit`, as one JSON document and a line feed.
pub fn summary(paper: &Paper<'_>, exit: Exit) -> String {
    let run = paper.run;
    let mut files = paper.files();
    files.insert(0, PathBuf::from(FILE));
    let (mut redis_of, saturation) = redis::of_run(paper);
    let document = Document {
        run_id: &run.run_id,
        label: &run.label,
        verdict: paper.verdict(),
        exit: exit.code(),
        started: run.started,
        finished: run.finished,
        stopped: run.stopped.as_deref(),
        command: &run.command,
        seed: run.plan.seed,
        plan_hash: run.plan.hash(),
        overrides: &run.plan.overrides,
        target: &run.target,
        build: &run.build,
        host: &run.host,
        revisions: &run.revisions,
        note: run.note.as_deref(),
        redis: run.redis.as_ref(),
        workers: workers::OfWorkers::of(run),
        exit_criteria: matrix::OfCriterion::of_run(paper),
        relations: paper.relations.iter().map(matrix::OfRelation::of).collect(),
        scenarios: paper
            .repeated()
            .map(|(s, r)| OfScenario::of(run, s, r, redis_of.remove(&s.name())))
            .collect(),
        saturation,
        resilience: faults::OfResilience::of_run(run),
        merge: merge::OfMerge::of(paper),
        findings: fold::findings(run)
            .into_iter()
            .map(|f| Finding {
                scenario: f.scenario.map(ScenarioId::as_str),
                part: f.part,
                text: f.kind.to_string(),
                about_us: f.kind.is_about_us(),
                count: f.count,
                cells: f.cells,
                examples: f.examples,
            })
            .collect(),
        checks: fold::rulings(run)
            .into_iter()
            .map(|r| Check {
                rule: r.rule.as_str(),
                verdict: r.verdict,
                held: r.applied - r.broken,
                applied: r.applied,
                scenario: r.cell.map(|c| c.cell.scenario.as_str()),
                repetition: r.cell.map(|c| c.cell.repetition),
                evidence: r.evidence,
            })
            .collect(),
        files,
    };
    let mut text = serde_json::to_string_pretty(&document).expect("a summary is plain data");
    text.push('\n');
    text
}

#[derive(Serialize)]
struct Document<'a> {
    run_id: &'a str,
    label: &'a str,
    verdict: Verdict,
    exit: u8,
    started: Timestamp,
    finished: Option<Timestamp>,
    stopped: Option<&'a str>,
    command: &'a str,
    seed: u64,
    plan_hash: String,
    overrides: &'a [String],
    target: &'a Target,
    build: &'a Build,
    host: &'a Host,
    revisions: &'a BTreeMap<String, String>,
    note: Option<&'a str>,
    redis: Option<&'a RedisFacts>,
    /// `null` for a run in one process.
    workers: Option<workers::OfWorkers<'a>>,
    /// Empty for a run that is no matrix.
    exit_criteria: Vec<matrix::OfCriterion>,
    relations: Vec<matrix::OfRelation>,
    scenarios: Vec<OfScenario<'a>>,
    /// What the load did to Redis; `null` when none was sampled.
    saturation: Option<redis::OfSaturation>,
    /// Each scenario with a fault, beside its twin; empty without one.
    resilience: Vec<faults::OfResilience>,
    /// What merging cost the watched processes, and what probes found.
    merge: merge::OfMerge,
    findings: Vec<Finding<'a>>,
    checks: Vec<Check<'a>>,
    files: Vec<PathBuf>,
}

#[derive(Serialize)]
struct OfScenario<'a> {
    #[serde(flatten)]
    scenario: &'a Scenario,
    name: String,
    level: String,
    verdict: Verdict,
    cells: usize,
    invalid_cells: usize,
    untrusted: bool,
    submitted: u64,
    outcomes: &'a BTreeMap<String, u64>,
    failure_ratio: f64,
    residual: u64,
    duration: f64,
    stages: Vec<OfStage>,
    /// The best source of each stage, and the requests, with the repetition as the unit.
    repetitions: Vec<matrix::OfRepeated>,
    requests: Vec<OfEndpoint<'a>>,
    payloads: Vec<OfPayload>,
    agreement: Vec<faults::OfAgreement>,
    /// `null` where the target's metrics were not scraped.
    target_metrics: Option<metrics::OfMetrics>,
    posts: Vec<faults::OfRoute>,
    polls_per_job: f64,
    poll_bytes: u64,
    polling_share_of_api_time: f64,
    /// `null` when no Redis was sampled beside it.
    redis: Option<redis::OfRedis>,
}

impl<'a> OfScenario<'a> {
    fn of(
        run: &RunRecord,
        s: &'a ScenarioSummary,
        repetitions: &Repetitions,
        redis: Option<redis::OfRedis>,
    ) -> Self {
        Self {
            scenario: &s.scenario,
            name: s.name(),
            level: s.fault(),
            verdict: s.verdict,
            cells: s.cells,
            invalid_cells: s.invalid,
            untrusted: s.untrusted,
            submitted: s.submitted,
            outcomes: &s.outcomes,
            failure_ratio: s.failure_ratio(),
            residual: s.residual,
            duration: s.duration.as_ms(),
            stages: s.stages.iter().map(OfStage::of).collect(),
            repetitions: repetitions.metrics.iter().map(matrix::OfRepeated::of).collect(),
            requests: s.requests.iter().map(|(k, r)| OfEndpoint::of(k, r)).collect(),
            payloads: s
                .payloads
                .iter()
                .map(|p| OfPayload {
                    kind: p.kind.as_str(),
                    count: p.count(),
                    min: p.min(),
                    p50: p.quantile(0.5),
                    p95: p.quantile(0.95),
                    max: p.max(),
                    size_latency_correlation: p.correlation,
                })
                .collect(),
            agreement: faults::OfAgreement::of(run, s),
            target_metrics: metrics::OfMetrics::of(s),
            posts: faults::OfRoute::of(run, s),
            polls_per_job: s.observer.polls_per_job,
            poll_bytes: s.observer.poll_bytes,
            polling_share_of_api_time: s.observer.share_of_api_time,
            redis,
        }
    }
}

/// A stage; `at_least` names the figures that are lower bounds because unfinished jobs are among
/// them, `unsupported` those that n is too small for.
#[derive(Serialize)]
struct OfStage {
    stage: &'static str,
    source: &'static str,
    n: usize,
    censored: usize,
    min: Option<f64>,
    p50: Option<f64>,
    p50_low: Option<f64>,
    p50_high: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p95_low: Option<f64>,
    p95_high: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    half_width_p50: Option<f64>,
    /// Where only buckets are known: of the same figures, between which bounds each lies.
    buckets: Option<BTreeMap<&'static str, (f64, Option<f64>)>>,
    at_least: Vec<&'static str>,
    unsupported: Vec<&'static str>,
}

impl OfStage {
    fn of(stage: &StageSummary) -> Self {
        let sample = &stage.sample;
        let figures: [(&'static str, Option<Quantile>); 6] = [
            ("min", sample.min()),
            ("p50", stage.quantile(0.5)),
            ("p90", stage.quantile(0.9)),
            ("p95", stage.quantile(0.95)),
            ("p99", stage.quantile(0.99)),
            ("max", sample.max()),
        ];
        let names = |which: fn(&Quantile) -> bool| {
            figures.iter().filter(|(_, q)| q.as_ref().is_some_and(which)).map(|(name, _)| *name).collect()
        };
        let of_bucket = |(name, q): &(&'static str, Option<Quantile>)| {
            let (low, high) = q.as_ref()?.bucket?;
            Some((*name, (low.as_ms(), high.map(Micros::as_ms))))
        };
        let buckets = sample.is_in_buckets().then(|| figures.iter().filter_map(of_bucket).collect());
        let [min, p50, p90, p95, p99, max] = figures.map(|(_, q)| q);
        let value = |q: Option<Quantile>| q.map(|q| q.value.as_ms());
        let side =
            |q: Option<Quantile>, side: fn(Quantile) -> Option<Micros>| q.and_then(side).map(Micros::as_ms);
        Self {
            stage: stage.stage.as_str(),
            source: stage.source.as_str(),
            n: sample.count(),
            censored: sample.censored(),
            min: value(min),
            p50: value(p50),
            p50_low: side(p50, |q| q.low),
            p50_high: side(p50, |q| q.high),
            p90: value(p90),
            p95: value(p95),
            p95_low: side(p95, |q| q.low),
            p95_high: side(p95, |q| q.high),
            p99: value(p99),
            max: value(max),
            mean: stage.mean().map(Micros::as_ms),
            half_width_p50: sample.half_width().map(Micros::as_ms),
            buckets,
            at_least: names(|q| q.at_least),
            unsupported: names(|q| !q.supported),
        }
    }
}

/// Load-phase requests of an endpoint; times of those that succeeded.
#[derive(Serialize)]
struct OfEndpoint<'a> {
    method: &'a str,
    name: &'a str,
    count: u64,
    failures: u64,
    statuses: &'a BTreeMap<u16, u64>,
    first_byte_p50: Option<f64>,
    p50: Option<f64>,
    p90: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    max: Option<f64>,
    mean: Option<f64>,
    sent_bytes: u64,
    wire_bytes: u64,
    body_bytes: u64,
    connections: u64,
}

impl<'a> OfEndpoint<'a> {
    fn of(key: &'a RequestKey, r: &'a RequestStats) -> Self {
        let some = |value: Micros| (r.ok.count() > 0).then(|| value.as_ms());
        Self {
            method: &key.method,
            name: &key.name,
            count: r.count(),
            failures: r.failed.count(),
            statuses: &r.statuses,
            first_byte_p50: (r.first_byte.count() > 0).then(|| r.first_byte.quantile(0.5).as_ms()),
            p50: some(r.ok.quantile(0.5)),
            p90: some(r.ok.quantile(0.9)),
            p95: some(r.ok.quantile(0.95)),
            p99: some(r.ok.quantile(0.99)),
            max: some(r.ok.max()),
            mean: some(r.ok.mean()),
            sent_bytes: r.sent_bytes,
            wire_bytes: r.wire_bytes,
            body_bytes: r.body_bytes,
            connections: r.connects,
        }
    }
}

/// Sizes in bytes of the body.
#[derive(Serialize)]
struct OfPayload {
    kind: &'static str,
    count: u64,
    min: u64,
    p50: u64,
    p95: u64,
    max: u64,
    size_latency_correlation: Option<f64>,
}

#[derive(Serialize)]
struct Finding<'a> {
    /// `null` for what concerns the run as a whole.
    scenario: Option<&'a str>,
    part: String,
    text: String,
    about_us: bool,
    count: u64,
    cells: usize,
    examples: Vec<Cow<'a, str>>,
}

#[derive(Serialize)]
struct Check<'a> {
    rule: &'static str,
    verdict: Verdict,
    held: usize,
    applied: usize,
    scenario: Option<&'a str>,
    repetition: Option<u32>,
    evidence: &'a str,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::report::sample;

    #[test]
    fn it_is_json_with_verdict_exit_and_files() {
        let run = sample::mixed();
        let exit = Exit::of(run.all_checks());
        let value: Value = serde_json::from_str(&summary(&Paper::of(&run), exit)).unwrap();
        assert_eq!(value["verdict"], "INVALID");
        assert_eq!(value["exit"], 5);
        assert_eq!(value["scenarios"][0]["id"], "S1");
        assert_eq!(value["scenarios"][0]["stages"].as_array().unwrap().len(), 6);
        let files: Vec<&str> = value["files"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(files.contains(&"run.json") && files.contains(&"timings/S1_stats.csv"));
    }

    #[test]
    fn redis_is_told_where_it_was_sampled() {
        let run = sample::redis();
        let value: Value = serde_json::from_str(&summary(&Paper::of(&run), Exit::Pass)).unwrap();
        let redis = &value["scenarios"][0]["redis"];
        assert_eq!((redis["cells"].as_u64(), redis["gaps"].as_u64()), (Some(3), Some(1)));
        // 10 bytes in for each of a result, two users with four tasks each.
        let input = redis["input_bytes_per_job"]["median"].as_f64().unwrap();
        assert!((40e6..41e6).contains(&input), "{input}");
        assert_eq!(redis["task_results"]["count"], 24);
        assert!(redis["commands"]["lpush"]["calls"].as_u64().unwrap() > 0);
        let found = &value["saturation"]["inflections"][0];
        assert_eq!(
            (found["figure"].as_str(), found["found"].as_str()),
            (Some("memory above start"), Some("nowhere"))
        );
        let without: Value =
            serde_json::from_str(&summary(&Paper::of(&sample::mixed()), Exit::Pass)).unwrap();
        assert!(without["saturation"].is_null() && without["scenarios"][0]["redis"].is_null());
    }

    #[test]
    fn a_matrix_has_its_criteria_and_intervals() {
        let run = sample::matrix(3);
        let value: Value = serde_json::from_str(&summary(&Paper::of(&run), Exit::Invalid)).unwrap();
        let states: Vec<&Value> =
            value["exit_criteria"].as_array().unwrap().iter().map(|c| &c["state"]).collect();
        assert_eq!(states, ["met"; 5]);
        let s6 = &value["scenarios"][5];
        let e2e = s6["repetitions"].as_array().unwrap().iter().find(|m| m["metric"] == "end_to_end").unwrap();
        assert_eq!((&e2e["cells"], &e2e["n"], &e2e["resamples"]), (&3.into(), &30.into(), &2_000.into()));
        let number = |name: &str| e2e[name].as_f64().unwrap();
        assert!(number("p50_low") <= number("p50"));
        assert_eq!(e2e["each"].as_array().unwrap().len(), 3);
        assert!(value["relations"][1]["slope"].as_f64().unwrap() > 0.0);
        assert_eq!(value["revisions"]["backend"], "4be1c0d");
        let one: Value = serde_json::from_str(&summary(&Paper::of(&sample::good()), Exit::Pass)).unwrap();
        assert_eq!(one["exit_criteria"], serde_json::json!([]));
    }

    #[test]
    fn what_is_unknown_is_null_and_what_is_a_bound_is_flagged() {
        let run = sample::failed_only();
        let value: Value = serde_json::from_str(&summary(&Paper::of(&run), Exit::Failed)).unwrap();
        let e2e = &value["scenarios"][0]["stages"][5];
        assert_eq!(e2e["stage"], "end_to_end");
        assert!(e2e["mean"].is_null());
        assert!(e2e["at_least"].as_array().unwrap().contains(&"max".into()));
        assert!(value["scenarios"][0]["stages"][4]["p50"].is_null(), "nothing was fetched");
    }
}
