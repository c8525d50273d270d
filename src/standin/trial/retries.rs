//! Posts that get lost on the way: what dies of it, and what retries save.

use std::collections::BTreeSet;
use std::time::Duration;

use super::flaky::{Break, Flaky};
use super::{Client, files_job, quick, until};
use crate::post::CANARY;
use crate::route::Route;
use crate::standin::{Config, Retries, StandIn, Truth};
use crate::timeline::JobState;

/// Posts of a job of one short task, in their order: the task's id, RUNNING, COMPLETED from the
/// log, COMPLETED; MERGING_QUEUED, MERGING_RUNNING; results.
const POSTS: [&str; 7] = ["/tasks", "/tasks", "/tasks", "/tasks", "/jobs", "/jobs", "/results"];

async fn flaky(retries: Retries, breaks: &[(usize, Break)]) -> (StandIn, Flaky, Client) {
    let stand_in =
        StandIn::start(Config { task_time: Duration::from_millis(150), retries, ..quick() }).unwrap();
    let proxy = Flaky::start(stand_in.addr(), breaks).await;
    stand_in.post_through(&proxy.url).unwrap();
    let client = Client::logged_in(&stand_in).await;
    (stand_in, proxy, client)
}

fn of(counts: &std::collections::BTreeMap<Route, u64>) -> Vec<(Route, u64)> {
    counts.iter().map(|(route, n)| (*route, *n)).collect()
}

#[tokio::test]
async fn without_retries_one_lost_post_and_the_job_runs_for_ever() {
    for (nth, how, route) in [(4, Break::Before, Route::Tasks), (4, Break::Page, Route::Tasks)] {
        let (stand_in, proxy, client) = flaky(Retries::None, &[(nth, how)]).await;
        let job_id = client.submit(1).await;
        client.poll_until(&job_id, "RUNNING").await;
        until(&stand_in, "a death", |truth| truth.jobs[0].died_of.is_some()).await;
        assert_eq!(client.state(&job_id).await, "RUNNING");
        let truth = stand_in.truth();
        assert_eq!(truth.jobs[0].died_of, Some(route));
        assert_eq!(truth.jobs[0].final_state, JobState::Running);
        assert_eq!(of(&truth.worker_given_up), [(route, 1)]);
        assert_eq!(of(&truth.worker_attempts), [(Route::Tasks, 4)], "nothing follows");
        assert_eq!((truth.worker_retries.len(), truth.replayed), (0, 0));
        assert_eq!(truth.worker["POST /tasks"].requests, 3, "one never arrived");
        assert!(proxy.seen().iter().all(|seen| seen.header("idempotency-key").is_none()));
    }
}

#[tokio::test]
async fn without_retries_a_lost_answer_kills_as_well() {
    let (stand_in, _proxy, client) = flaky(Retries::None, &[(7, Break::After)]).await;
    let job_id = client.submit(1).await;
    // The results were stored; only the worker does not know.
    client.poll_until(&job_id, "COMPLETED").await;
    until(&stand_in, "a death", |truth| truth.jobs[0].died_of.is_some()).await;
    let truth = stand_in.truth();
    assert_eq!((truth.jobs[0].died_of, truth.jobs[0].results_posts), (Some(Route::Results), 1));
}

#[tokio::test]
async fn with_retries_the_job_completes_and_nothing_is_done_twice() {
    // Connections: post 1 twice, 2 twice, 3, 4, MERGING_QUEUED twice, MERGING_RUNNING twice,
    // results three times.
    let breaks = [
        (1, Break::Before),
        (3, Break::After),
        (7, Break::Unavailable),
        (9, Break::Page),
        (11, Break::After),
        (12, Break::Before),
    ];
    let (stand_in, proxy, client) = flaky(Retries::Exponential, &breaks).await;
    let job_id = client.submit(1).await;
    client.poll_until(&job_id, "COMPLETED").await;
    let seen = proxy.has_seen(13).await;
    let truth = stand_in.truth();
    assert_eq!(of(&truth.worker_retries), [(Route::Tasks, 2), (Route::Jobs, 2), (Route::Results, 2)]);
    assert_eq!(of(&truth.worker_attempts), [(Route::Tasks, 6), (Route::Jobs, 4), (Route::Results, 3)]);
    assert!(truth.worker_given_up.is_empty());
    assert_eq!(truth.replayed, 2);
    let job = &truth.jobs[0];
    assert_eq!((job.results_posts, job.died_of, job.final_state), (1, None, JobState::Completed));
    assert_eq!(truth.worker["POST /results"].requests, 2, "what the server saw, replays included");

    let keys: Vec<&str> = seen.iter().map(|seen| seen.header("idempotency-key").unwrap()).collect();
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), POSTS.len(), "one key a post: {keys:?}");
    for (one, next) in seen.iter().zip(&seen[1..]) {
        let same_key = one.header("idempotency-key") == next.header("idempotency-key");
        assert_eq!(same_key, one.request == next.request, "a repeat has the same bytes");
    }
    let replays: Vec<usize> = (1..).zip(&seen).filter(|(_, seen)| seen.is_replay()).map(|(n, _)| n).collect();
    assert_eq!(replays, [4, 13]);
    let body = |n: usize| seen[n - 1].answer.as_ref().unwrap().split_once("\r\n\r\n").unwrap().1.to_owned();
    assert_eq!((body(3), body(11)), (body(4), body(13)), "the same answer");
}

#[tokio::test]
async fn a_post_is_carried_out_though_its_worker_hung_up() {
    let bugs = vec!["slow-results=300ms".parse().unwrap()];
    let config = Config { bugs, retries: Retries::Exponential, ..quick() };
    let stand_in = StandIn::start(config).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let post = || {
        let request = client.http.post(format!("{}/results", stand_in.url()));
        request.header("idempotency-key", "k").body("{}").send()
    };
    // The first one hangs up as soon as the server has its request.
    tokio::select! {
        biased;
        () = until(&stand_in, "the request", |truth| truth.worker.contains_key("POST /results")) => {}
        _ = post() => {}
    }
    let answer = post().await.unwrap();
    assert_eq!(
        (answer.status().as_u16(), answer.headers().get("idempotency-replayed").is_some()),
        (400, true)
    );
    assert_eq!(stand_in.truth().replayed, 1);
}

#[tokio::test]
async fn keys_concern_posts_of_workers_only() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    for _ in 0..2 {
        let request = client.http.post(format!("{}/jobs/direct", stand_in.url()));
        let request = request.header("idempotency-key", "k").header("cookie", &client.cookies);
        assert_eq!(request.body(files_job(1)).send().await.unwrap().status(), 202);
    }
    assert_eq!((stand_in.truth().jobs_submitted, stand_in.truth().replayed), (2, 0));
}

#[tokio::test]
async fn canaries_are_answered_and_not_counted() {
    let stand_in = StandIn::start(quick()).unwrap();
    let http = Client::of(&stand_in).http;
    let before = stand_in.truth();
    for path in ["/tasks", "/results"] {
        let request = http.post(format!("{}{path}", stand_in.url())).header(CANARY, "7").body("{}");
        assert_eq!(request.send().await.unwrap().status(), 400, "{path}");
    }
    let get = http.get(stand_in.url()).header(CANARY, "8");
    assert_eq!(get.send().await.unwrap().status(), 200);
    assert_eq!(stand_in.truth(), before);
}

#[test]
fn an_older_truth_is_read() {
    let mut truth = serde_json::to_value(Truth::default()).unwrap();
    let map = truth.as_object_mut().unwrap();
    map.retain(|key, _| !key.starts_with("worker_") && key != "replayed");
    assert_eq!(serde_json::from_value::<Truth>(truth).unwrap(), Truth::default());
}
