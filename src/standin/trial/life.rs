//! A job from submit to fetch, and what the truth says about it.

use std::time::Duration;

use reqwest::Method;

use super::{Client, quick, until};
use crate::standin::{Config, FailTasks, StandIn, Truth};
use crate::timeline::JobState;

#[tokio::test]
async fn a_job_runs_merges_and_is_fetched() {
    let stand_in = StandIn::start(Config { task_time: Duration::from_millis(120), ..quick() }).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(8).await;
    assert_eq!((job_id.len(), job_id.ends_with("DIRECT")), (58, true), "{job_id}");
    let seen = client.poll_until(&job_id, "COMPLETED").await;
    assert!(seen.contains(&"RUNNING".to_owned()), "{seen:?}");

    let poll = client.get(&format!("/jobs?job_id={job_id}")).await;
    // 84 B and 231 B a task, give or take the digits.
    assert!(poll.body.len().abs_diff(1944) < 40, "{} B: {}", poll.body.len(), poll.body);
    let results = client.get(&format!("/results?job_id={job_id}")).await;
    assert!((results.body.len() as f64 / 1_029_239.0 - 1.0).abs() < 0.05, "{}", results.body.len());
    let estimators = results.json()["estimators"].as_array().unwrap().clone();
    let pages = |e: &serde_json::Value| e["pages"].as_array().unwrap().len();
    assert_eq!(estimators.iter().map(pages).collect::<Vec<_>>(), [4, 3, 7, 7]);
    assert_eq!(results.json()["message"], "Results for simulation: 1");

    let truth = stand_in.truth();
    assert_eq!(truth.worker["POST /tasks"].by_status[&202], 4 * 8);
    assert_eq!(truth.worker["POST /jobs"].by_status[&202], 2);
    assert_eq!(truth.worker["POST /results"].by_status[&202], 1);
    assert_eq!((truth.jobs_submitted, truth.jobs_in_flight_max, truth.logins), (1, 1, 1));
    let job = &truth.jobs[0];
    assert_eq!((job.final_state, job.results_posts, job.tasks), (JobState::Completed, 1, 8));
    let moments = [
        Some(job.submitted_us),
        job.accepted_us,
        job.running_us,
        job.tasks_done_us,
        job.merging_queued_us,
        job.merging_running_us,
        job.completed_us,
    ];
    let moments: Vec<u64> = moments.into_iter().map(Option::unwrap).collect();
    assert!(moments.is_sorted(), "{moments:?}");
    assert_eq!(job.ended_us, job.completed_us);
    let fetch = &truth.client["GET /results"];
    assert_eq!((fetch.requests, fetch.by_status[&200], fetch.service_us.len()), (1, 1, 1));
    assert!(!truth.client.keys().any(|route| route.contains("_truth") || route.contains("tasks")));
}

#[tokio::test]
async fn the_truth_is_served_as_json() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    client.submit(2).await;
    until(&stand_in, "the end", |truth| truth.jobs[0].completed_us.is_some()).await;
    let served: Truth = serde_json::from_str(&client.get("/_truth").await.body).unwrap();
    assert_eq!(served.jobs, stand_in.truth().jobs);
    assert_eq!(served.client, stand_in.truth().client);
}

#[tokio::test]
async fn unpolled_jobs_skip_running_and_results_repeat_exactly() {
    let fetched = |seed| async move {
        let stand_in = StandIn::start(Config { seed, ..quick() }).unwrap();
        let client = Client::logged_in(&stand_in).await;
        let job_id = client.submit(3).await;
        until(&stand_in, "the end", |truth| truth.jobs[0].completed_us.is_some()).await;
        assert_eq!(client.poll_until(&job_id, "COMPLETED").await, ["COMPLETED"]);
        client.get(&format!("/results?job_id={job_id}")).await.body
    };
    let (once, again, other) = tokio::join!(fetched(1), fetched(1), fetched(2));
    assert!(once == again, "the same seed gives the same results");
    assert!(once != other, "another seed gives others");
}

#[tokio::test]
async fn a_merge_queues_behind_the_tasks_of_other_jobs() {
    let stand_in = StandIn::start(Config { slots: 1, ..quick() }).unwrap();
    let client = Client::logged_in(&stand_in).await;
    client.submit(1).await;
    client.submit(3).await;
    until(&stand_in, "the end", |truth| truth.jobs.iter().all(|job| job.completed_us.is_some())).await;
    let jobs = stand_in.truth().jobs;
    assert!(jobs[0].merging_queued_us > jobs[1].running_us, "{jobs:?}");
    assert!(jobs[0].merging_running_us > jobs[1].tasks_done_us, "{jobs:?}");
    assert_eq!(stand_in.truth().jobs_in_flight_max, 2);
}

#[tokio::test]
async fn some_failed_tasks_do_not_fail_the_job() {
    let fail_tasks = FailTasks::Indices(vec![0]);
    let stand_in = StandIn::start(Config { fail_tasks, ..quick() }).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(2).await;
    client.poll_until(&job_id, "COMPLETED").await;
    let poll = client.get(&format!("/jobs?job_id={job_id}")).await.json();
    assert_eq!(poll["job_tasks_status"][0]["task_state"], "FAILED");
    assert_eq!(poll["job_tasks_status"][1]["simulated_primaries"], 5000);
}

#[tokio::test]
async fn progress_shows_while_a_task_runs() {
    let config = Config {
        task_time: Duration::from_millis(200),
        progress_every: Duration::from_millis(60),
        ..quick()
    };
    let stand_in = StandIn::start(config).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    until(&stand_in, "progress", |truth| {
        truth.worker.get("POST /tasks").is_some_and(|line| line.by_status.get(&202) >= Some(&3))
    })
    .await;
    let task = client.get(&format!("/jobs?job_id={job_id}")).await.json()["job_tasks_status"][0].clone();
    assert!((1..10_000).contains(&task["simulated_primaries"].as_u64().unwrap()), "{task}");
    client.poll_until(&job_id, "COMPLETED").await;
}

#[tokio::test]
async fn a_canceled_job_ends_at_once_and_frees_its_workers() {
    let stand_in =
        StandIn::start(Config { task_time: Duration::from_secs(30), slots: 1, ..quick() }).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(4).await;
    let path = format!("/jobs/direct?job_id={job_id}");
    until(&stand_in, "a start", |truth| truth.worker.contains_key("POST /tasks")).await;
    client.send(Method::DELETE, &path, "").await.says(200, "Cancelled sucessfully");
    assert_eq!(client.state(&job_id).await, "CANCELED");
    client.send(Method::DELETE, &path, "").await.is(
        200,
        "{\"job_state\":\"CANCELED\",\"message\":\"Cannot cancel job which is in CANCELED state\"}\n",
    );
    let next = client.submit(1).await;
    until(&stand_in, "the slot", |truth| truth.worker["POST /tasks"].requests >= 2).await;
    assert_eq!(client.state(&next).await, "PENDING");
    assert!(stand_in.truth().jobs[0].ended_us.is_some());
}

#[tokio::test]
async fn editor_jobs_carry_the_names_of_their_outputs() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let names = ["one", "two", "three", "four", "five"].map(|name| format!(r#"{{"name":"{name}"}}"#));
    let body = format!(
        r#"{{"input_type":"editor","sim_type":"shieldhit","ntasks":2,"input_json":{{"beam":{{"numberOfParticles":10}},"scoringManager":{{"outputs":[{}]}}}}}}"#,
        names.join(",")
    );
    let job_id = client.post("/jobs/direct", &body).await.json()["job_id"].as_str().unwrap().to_owned();
    client.poll_until(&job_id, "COMPLETED").await;
    let listed = client.get(&format!("/estimators?job_id={job_id}")).await.json();
    let listed: Vec<_> =
        listed["estimators_metadata"].as_array().unwrap().iter().map(|e| e["name"].clone()).collect();
    assert_eq!(listed, ["one", "two", "three", "four", "five"]);
}

#[tokio::test]
async fn old_results_are_dropped_once_fetched() {
    let stand_in = StandIn::start(Config { kept_results: 1, ..quick() }).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let (first, second) = (client.submit(1).await, client.submit(1).await);
    for job_id in [&first, &second] {
        client.poll_until(job_id, "COMPLETED").await;
        let got = client.get(&format!("/results?job_id={job_id}")).await;
        assert_eq!(got.status, 200, "an unfetched result is kept beyond the limit");
    }
    let third = client.submit(1).await;
    client.poll_until(&third, "COMPLETED").await;
    client.get(&format!("/results?job_id={first}")).await.says(404, "Results are unavailable");
}

#[tokio::test]
async fn posts_can_go_through_a_tap_and_the_server_stops() {
    let mut stand_in = StandIn::start(quick()).unwrap();
    let mut tap = StandIn::start(quick()).unwrap();
    stand_in.post_through(tap.url()).unwrap();
    assert!(stand_in.post_through("ftp://x").is_err());
    Client::logged_in(&stand_in).await.submit(1).await;
    until(&tap, "a post", |truth| truth.worker.contains_key("POST /tasks")).await;
    assert!(stand_in.truth().worker.is_empty());
    tap.stop();
    stand_in.stop();
    assert_eq!(stand_in.truth().jobs.len(), 1, "the truth outlives the server");
    assert!(Client::of(&stand_in).try_send(Method::GET, "/", "").await.is_err());
}

#[test]
fn a_taken_port_is_an_error() {
    let first = StandIn::start(Config::default()).unwrap();
    let second = StandIn::start(Config { listen: first.addr(), ..Config::default() });
    assert!(second.unwrap_err().to_string().contains(&first.addr().to_string()));
    let bad = Config { internal_url: Some("nowhere".to_owned()), ..Config::default() };
    assert!(StandIn::start(bad).unwrap_err().to_string().contains("nowhere"));
}
