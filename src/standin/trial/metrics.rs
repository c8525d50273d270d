//! `/metrics` against the truth, in both formats.

use std::collections::BTreeMap;

use reqwest::Method;

use super::{Client, quick, until};
use crate::standin::{Config, FailTasks, JobTruth, RouteTruth, StandIn, Truth};
use crate::timeline::JobState;

const OPEN: &str =
    "application/openmetrics-text;version=1.0.0;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";

/// Every line of an exposition that is no comment: name with labels, and value.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap();
            (name.to_owned(), value.parse().unwrap())
        })
        .collect()
}

/// Type and text of what is served to that Accept header.
async fn scraped(client: &Client, accept: &str) -> (String, String) {
    let request = client.http.get(format!("{}/metrics", client.base)).header("accept", accept);
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    let kind = response.headers()["content-type"].to_str().unwrap().to_owned();
    (kind, response.text().await.unwrap())
}

/// Counts by label, of the samples `<name>_count{<label>="…"}`.
fn counts(samples: &BTreeMap<String, f64>, name: &str) -> BTreeMap<String, f64> {
    let prefix = format!("{name}_count{{");
    let found = samples
        .iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(&prefix)?.strip_suffix('}')?.to_owned(), *value)));
    found.collect()
}

fn requests(truth: &Truth) -> BTreeMap<String, f64> {
    let one = |(line, route): (&String, &RouteTruth)| {
        let (method, path) = line.split_once(' ').unwrap();
        let label = |status| format!("route=\"{path}\",method=\"{method}\",status=\"{status}\"");
        route.by_status.iter().map(|(status, n)| (label(status), *n as f64)).collect::<Vec<_>>()
    };
    truth.client.iter().chain(&truth.worker).flat_map(one).collect()
}

#[tokio::test]
async fn counts_and_sums_are_those_of_the_truth() {
    let stand_in = StandIn::start(Config { fail_tasks: FailTasks::Indices(vec![2]), ..quick() }).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let jobs = [client.submit(4).await, client.submit(2).await];
    for job_id in &jobs {
        client.poll_until(job_id, "COMPLETED").await;
        assert_eq!(client.get(&format!("/results?job_id={job_id}")).await.status, 200);
    }
    let canceled = client.submit(2).await;
    client.send(Method::DELETE, &format!("/jobs/direct?job_id={canceled}"), "").await;
    client.get("/nowhere").await;
    until(&stand_in, "quiet", |truth| {
        let replies = |route: &RouteTruth| route.by_status.values().sum::<u64>() == route.requests;
        truth.jobs[2].ended_us.is_some() && truth.client.values().chain(truth.worker.values()).all(replies)
    })
    .await;
    let before = stand_in.truth();
    let (kind, classic) = scraped(&client, "*/*").await;
    assert_eq!(kind, "text/plain; version=0.0.4; charset=utf-8");
    let (kind, open) = scraped(&client, OPEN).await;
    assert_eq!(kind, "application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(open.ends_with("\n# EOF\n") && !classic.contains("# EOF"));
    assert_eq!(samples(&classic), samples(&open));
    let truth = stand_in.truth();
    assert_eq!((&truth.client, &truth.worker), (&before.client, &before.worker), "nobody counts a scrape");

    let found = samples(&classic);
    assert_eq!(counts(&found, "yaptide_http_request_duration_seconds"), requests(&truth));
    type Moment = fn(&JobTruth) -> Option<u64>;
    let stages: [(&str, Moment, Moment); 4] = [
        ("queue", |job| job.accepted_us, |job| job.running_us),
        ("run", |job| job.running_us, |job| job.tasks_done_us),
        ("merge", |job| job.merging_queued_us, |job| job.results_begun_us),
        ("persist", |job| job.results_begun_us, |job| job.completed_us),
    ];
    for (stage, from, to) in stages {
        let spans: Vec<f64> =
            truth.jobs.iter().filter_map(|job| Some((to(job)? - from(job)?) as f64 / 1e6)).collect();
        assert!(spans.len() >= 2, "{stage}");
        let sample =
            |what: &str| found[&format!("yaptide_stage_duration_seconds_{what}{{stage=\"{stage}\"}}")];
        assert_eq!(sample("count"), spans.len() as f64, "{stage}");
        assert!((sample("sum") - spans.iter().sum::<f64>()).abs() < 1e-6, "{stage}: {spans:?}");
    }
    let ended = |state| truth.jobs.iter().filter(|job| job.final_state == state).count() as f64;
    let expected =
        [JobState::Canceled, JobState::Completed].map(|state| (format!("state=\"{state}\""), ended(state)));
    assert_eq!(counts(&found, "yaptide_job_duration_seconds"), expected.into());
    let of = |line: &str, side: &BTreeMap<String, RouteTruth>| side[line].requests as f64;
    let expected = [
        ("submit", of("POST /jobs/direct", &truth.client)),
        ("results", of("GET /results", &truth.client)),
        ("task_post", of("POST /tasks", &truth.worker)),
        ("job_post", of("POST /jobs", &truth.worker)),
        ("estimators", of("POST /results", &truth.worker)),
    ];
    let expected = expected.map(|(kind, n)| (format!("kind=\"{kind}\""), n));
    assert_eq!(counts(&found, "yaptide_payload_bytes"), expected.into());
    let posted = found["yaptide_payload_bytes_sum{kind=\"estimators\"}"] / 2.0;
    assert!((1_050_000.0..1_200_000.0).contains(&posted), "{posted}");
    assert!(jobs.iter().all(|job_id| !classic.contains(job_id.as_str())));
}

#[tokio::test]
async fn only_get_finds_it() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::of(&stand_in);
    for (method, path) in [(Method::POST, "/metrics"), (Method::PUT, "/metrics"), (Method::GET, "/metrics/")]
    {
        let got = client.send(method, path, "").await;
        assert!(got.status == 404 && got.body.starts_with("<!doctype html>"), "{got:?}");
    }
}
