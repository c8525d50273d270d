//! Every switch shows its effect, and nothing else changes.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;

use super::{Client, until, with_bugs};
use crate::standin::Flaw;
use crate::timeline::JobState;

#[tokio::test]
async fn lost_completed() {
    let stand_in = with_bugs(&["lost-completed"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    until(&stand_in, "completion", |truth| truth.jobs[0].completed_us.is_some()).await;
    assert_eq!(client.poll_until(&job_id, "RUNNING").await, ["RUNNING"]);
    let list = client.get("/user/simulations").await.json();
    assert!(list["simulations"][0]["end_time"].is_string());
    assert_eq!(stand_in.truth().jobs[0].final_state, JobState::Running);
}

#[tokio::test]
async fn duplicate_results() {
    let stand_in = with_bugs(&["duplicate-results"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    until(&stand_in, "all posts", |truth| truth.jobs[0].results_posts == 3).await;
    let results = client.get(&format!("/results?job_id={job_id}")).await;
    assert_eq!(results.json()["estimators"].as_array().unwrap().len(), 12);
    assert!(results.body.len() > 2_800_000, "{}", results.body.len());
    assert_eq!(client.state(&job_id).await, "COMPLETED");
}

#[tokio::test]
async fn all_failed_stuck_and_the_way_out() {
    let stand_in = with_bugs(&["all-failed-stuck"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(2).await;
    let seen = client.poll_until(&job_id, "MERGING_RUNNING").await;
    assert!(!seen.contains(&"FAILED".to_owned()), "{seen:?}");
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(client.state(&job_id).await, "MERGING_RUNNING");
    let direct = client.get(&format!("/jobs/direct?job_id={job_id}")).await.json();
    assert_eq!(direct["job_state"], "FAILED", "the other route lets it go");
}

#[tokio::test]
async fn all_failed() {
    let stand_in = with_bugs(&["all-failed"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(2).await;
    client.poll_until(&job_id, "FAILED").await;
    let job = &stand_in.truth().jobs[0];
    assert_eq!((job.final_state, job.merging_queued_us), (JobState::Failed, None));
    assert!(job.ended_us.is_some());
}

#[tokio::test]
async fn stuck() {
    let stand_in = with_bugs(&["stuck"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(2).await;
    client.poll_until(&job_id, "RUNNING").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(client.state(&job_id).await, "RUNNING");
}

#[tokio::test]
async fn lose_job() {
    let stand_in = with_bugs(&["lose-job"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    let poll = client.get(&format!("/jobs?job_id={job_id}")).await;
    poll.says(404, "Job with provided ID does not exist");
    assert_eq!(client.get("/user/simulations").await.json()["simulations_count"], 0);
    assert_eq!(stand_in.truth().jobs[0].flaws, [Flaw::LoseJob]);
}

#[tokio::test]
async fn ghost() {
    let stand_in = with_bugs(&["ghost"]);
    let client = Client::logged_in(&stand_in).await;
    assert_eq!(client.post("/jobs/direct", &super::files_job(1)).await.status, 500);
    let list = client.get("/user/simulations?job_state=UNKNOWN").await.json();
    assert_eq!(list["simulations_count"], 1);
    assert_eq!(stand_in.truth().jobs[0].accepted_us, None);
}

#[tokio::test]
async fn duplicate_job() {
    let stand_in = with_bugs(&["duplicate-job"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    let list = client.get("/user/simulations?order_type=ascend").await.json();
    assert_eq!(list["simulations_count"], 2);
    assert_eq!(list["simulations"][0]["job_id"], json!(job_id));
    assert_ne!(list["simulations"][1]["job_id"], json!(job_id));
    until(&stand_in, "both", |truth| truth.jobs.iter().all(|job| job.completed_us.is_some())).await;
    assert_eq!(stand_in.truth().jobs_submitted, 1);
}

#[tokio::test]
async fn results_that_are_missing_broken_or_wrong() {
    let fetch = |bug: &'static str| async move {
        let stand_in = with_bugs(&[bug]);
        let client = Client::logged_in(&stand_in).await;
        let job_id = client.submit(1).await;
        client.poll_until(&job_id, "COMPLETED").await;
        client.get(&format!("/results?job_id={job_id}")).await
    };
    let (missing, broken, wrong) =
        tokio::join!(fetch("missing-results"), fetch("broken-results"), fetch("wrong-results"));
    missing.says(404, "Results are unavailable");
    assert!(broken.status == 200 && broken.body.len() > 400_000);
    assert!(serde_json::from_str::<serde_json::Value>(&broken.body).is_err());
    assert_eq!(wrong.json()["estimators"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn keys_void_after() {
    let stand_in = with_bugs(&["keys-void-after=0s"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    until(&stand_in, "the posts", |truth| {
        truth.worker.get("POST /results").is_some_and(|line| line.by_status.contains_key(&400))
    })
    .await;
    let worker = stand_in.truth().worker;
    assert!(worker.values().all(|line| line.by_status.keys().eq([&400])), "{worker:?}");
    assert_eq!(client.state(&job_id).await, "PENDING", "a refused post is dropped");
}

#[tokio::test]
async fn refuse_cuts_a_window_and_kills_the_tasks_in_it() {
    let stand_in = with_bugs(&["refuse=2s..2300ms"]);
    let client = Client::logged_in(&stand_in).await;
    let begun = Instant::now();
    let mut jobs = Vec::new();
    let mut refused = 0;
    // Submits until the window closes: the last ones have their tasks in it.
    while begun.elapsed() < super::DEADLINE {
        match client.try_send(Method::POST, "/jobs/direct", &super::files_job(1)).await {
            Ok(got) if refused == 0 => jobs.push(got.json()["job_id"].as_str().unwrap().to_owned()),
            Ok(_) => break,
            Err(_) => refused += 1,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(refused > 0 && !jobs.is_empty());
    let next = client.submit(1).await;
    client.poll_until(&next, "COMPLETED").await;
    let state = client.state(jobs.last().unwrap()).await;
    assert!(state == "RUNNING" || state == "PENDING", "{state}");
}

#[tokio::test]
async fn slow_results_and_slow_fetch() {
    let stand_in = with_bugs(&["slow-results=150ms", "slow-fetch=150ms"]);
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    client.poll_until(&job_id, "COMPLETED").await;
    let job = &stand_in.truth().jobs[0];
    assert!(job.completed_us.unwrap() - job.merging_running_us.unwrap() >= 150_000);
    client.get(&format!("/results?job_id={job_id}")).await;
    assert!(stand_in.truth().client["GET /results"].service_us[0] >= 150_000);
}

#[tokio::test]
async fn error_500_hits_a_share_of_one_route() {
    let stand_in = with_bugs(&["error-500=/auth/status:0.3"]);
    let client = Client::logged_in(&stand_in).await;
    for _ in 0..100 {
        client.get("/auth/status").await;
        client.get("/").await.says(200, "Hello World!");
    }
    let failed = stand_in.truth().client["GET /auth/status"].by_status[&500];
    assert!((15..45).contains(&failed), "{failed}");
}

#[tokio::test]
async fn html_pages_instead_of_json() {
    for (bug, status) in [("html", 200), ("html-error", 502)] {
        let stand_in = with_bugs(&[bug]);
        let client = Client::of(&stand_in);
        for path in ["/", "/jobs?job_id=x", "/auth/status"] {
            let got = client.get(path).await;
            assert!(got.status == status && got.body.starts_with("<html>"), "{got:?}");
        }
        let post = client.post("/tasks", "{}").await;
        post.says(400, "No JSON in body");
    }
}

#[tokio::test]
async fn login_refused() {
    let stand_in = with_bugs(&["login-refused"]);
    let client = Client::of(&stand_in);
    let account = r#"{"username":"u","password":"p"}"#;
    client.send(Method::PUT, "/auth/register", account).await.says(201, "User created");
    client.post("/auth/login", account).await.says(401, "Invalid login or password");
    assert_eq!(stand_in.truth().logins, 0);
}

#[tokio::test]
async fn vanish_after() {
    let stand_in = with_bugs(&["vanish-after=150ms"]);
    let client = Client::of(&stand_in);
    let begun = Instant::now();
    while client.try_send(Method::GET, "/", "").await.is_ok() {
        assert!(begun.elapsed() < super::DEADLINE);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(client.try_send(Method::GET, "/", "").await.is_err(), "for good");
}
