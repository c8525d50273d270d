//! The texts of the contract, route by route.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Client, files_job, quick, until};
use crate::standin::{Config, StandIn};

const DATE: usize = "Sun, 22 Nov 2026 22:00:00 GMT".len();

#[tokio::test]
async fn accounts_and_sessions() {
    let stand_in = StandIn::start(quick()).unwrap();
    let mut client = Client::of(&stand_in);
    client.get("/").await.says(200, "Hello World!");
    client.get("/auth/status").await.is(401, "{\"message\": \"No token provided\"}\n");
    let account = r#"{"username":"u","password":"p"}"#;
    client.send(Method::PUT, "/auth/register", account).await.says(201, "User created");
    client.send(Method::PUT, "/auth/register", account).await.says(403, "User existing");
    client.send(Method::PUT, "/auth/register", r#"{"x":1}"#).await.says(400, "Wrong data provided");
    client.send(Method::PUT, "/auth/register", "{}").await.says(500, "Internal server error");
    client.post("/auth/login", "{}").await.says(400, "No JSON in body");
    client
        .post("/auth/login", r#"{"username":"u"}"#)
        .await
        .says(400, "Missing keys in JSON payload: {&#x27;password&#x27;}");
    client
        .post("/auth/login", r#"{"username":"u","password":"x"}"#)
        .await
        .says(401, "Invalid login or password");
    let not_json = "The browser (or proxy) sent a request that this server could not understand.";
    client.post("/auth/login", "nonsense").await.is(400, &format!("{{\"message\": \"{not_json}\"}}\n"));
    client.post("/auth/login", "[]").await.is(500, "{\"message\": \"Internal Server Error\"}\n");

    let got = client.post("/auth/login", account).await;
    let body = got.json();
    assert_eq!((got.status, &body["message"]), (202, &json!("Successfully logged in")));
    let life = body["refresh_exp"].as_u64().unwrap() - body["access_exp"].as_u64().unwrap();
    assert!(life.abs_diff(110 * 60 * 1000) < 10, "{life} ms");
    assert!(got.cookies[0].starts_with("access_token=eyJ"), "{:?}", got.cookies);
    assert!(got.cookies[0].ends_with("GMT; HttpOnly; Path=/; SameSite=Lax"), "{:?}", got.cookies);
    client.take_cookies(&got);
    client.get("/auth/status").await.is(200, "{\"message\":\"User status\",\"username\":\"u\"}\n");
    let refreshed = client.get("/auth/refresh").await;
    assert_eq!((refreshed.status, refreshed.cookies.len()), (200, 1));
    let out = client.send(Method::DELETE, "/auth/logout", "").await;
    out.says(200, "User logged out");
    assert_eq!(out.cookies.len(), 2);
    client.cookies = "access_token=garbage; refresh_token=garbage".to_owned();
    let bad = client.get("/auth/status").await;
    bad.is(403, "{\"message\": \"Refresh access token. Invalid token.\"}\n");
    let bad = client.get("/auth/refresh").await;
    bad.is(403, "{\"message\": \"Log in again. Invalid token.\"}\n");
}

#[tokio::test]
async fn access_tokens_expire_and_can_be_refreshed() {
    let lives = Config { access_life: Duration::from_millis(400), ..quick() };
    let stand_in = StandIn::start(lives).unwrap();
    let mut client = Client::logged_in(&stand_in).await;
    tokio::time::sleep(Duration::from_millis(410)).await;
    let expired = client.get("/auth/status").await;
    expired.is(403, "{\"message\": \"Refresh access token. Signature expired.\"}\n");
    let got = client.get("/auth/refresh").await;
    client.take_cookies(&got);
    assert_eq!(client.get("/auth/status").await.status, 200);
}

#[tokio::test]
async fn unknown_paths_methods_and_parameters() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let lost = client.get("/nowhere").await;
    assert!(lost.status == 404 && lost.body.starts_with("<!doctype html>"), "{lost:?}");
    let wrong = client.send(Method::DELETE, "/jobs", "").await;
    wrong.is(405, "{\"message\": \"The method is not allowed for the requested URL.\"}\n");
    let unknown = "{\"foo\":[\"Unknown field.\"],\"message\":\"Wrong parameters\"}\n";
    for path in ["/jobs", "/jobs/direct", "/results", "/estimators", "/inputs", "/logfiles"] {
        client.get(&format!("{path}?job_id=x&foo=1")).await.is(400, unknown);
        assert_eq!(client.get(path).await.status, 500, "{path} without job_id");
        let missing = client.get(&format!("{path}?job_id=x")).await;
        missing.says(404, "Job with provided ID does not exist");
    }
    assert_eq!(client.get("/user/simulations?foo=1").await.status, 500);
    client.get("/clusters").await.says(403, "User is not allowed to use this endpoint");
}

#[tokio::test]
async fn submits_are_checked() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let submit = |body: &'static str| client.post("/jobs/direct", body);
    submit("{}").await.says(400, "No JSON in body");
    let got = submit(r#"{"ntasks":1,"input_type":"files"}"#).await;
    got.says(400, "Missing keys in JSON payload: {&#x27;sim_type&#x27;}");
    let got = submit(r#"{"ntasks":1,"input_type":"x","sim_type":"shieldhit"}"#).await;
    got.says(400, "Wrong data provided");
    let got = submit(r#"{"ntasks":"1","input_type":"files","sim_type":"shieldhit","input_files":{}}"#).await;
    assert_eq!(got.status, 500);
    assert!(stand_in.truth().jobs.is_empty());
    let got = submit(r#"{"ntasks":1,"input_type":"editor","sim_type":"shieldhit","input_json":{}}"#).await;
    assert_eq!(got.status, 500);
    let zombie = stand_in.truth().jobs[0].job_id.clone();
    let poll = client.get(&format!("/jobs?job_id={zombie}")).await;
    poll.is(200, "{\"job_state\":\"UNKNOWN\",\"message\":\"Job state is unknown\"}\n");
    let got = client.send(Method::DELETE, &format!("/user/simulations?job_id={zombie}"), "").await;
    assert_eq!(got.status, 403);
}

#[tokio::test]
async fn polls_show_the_tasks() {
    let slow = StandIn::start(Config { task_time: Duration::from_secs(60), ..quick() }).unwrap();
    let client = Client::logged_in(&slow).await;
    let job_id = client.submit(4).await;
    let pending = client.get(&format!("/jobs?job_id={job_id}")).await;
    // The contract's 644 B are measured with keys of four digits.
    assert_eq!(pending.body.len() + 4 * 3, 644, "{}", pending.body);
    let task = pending.json()["job_tasks_status"][3].clone();
    assert_eq!((&task["task_id"], &task["requested_primaries"]), (&json!(4), &json!(2500)));
    assert_eq!(task["last_update_time"].as_str().unwrap().len(), DATE);

    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(2).await;
    let other = Client::as_user(&stand_in, "other").await;
    other
        .get(&format!("/jobs?job_id={job_id}"))
        .await
        .says(403, "Job with provided ID does not belong to the user");
    client.poll_until(&job_id, "COMPLETED").await;
    let done = client.get(&format!("/jobs/direct?job_id={job_id}")).await.json();
    let keys: Vec<&String> = done["job_tasks_status"][0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "end_time",
            "last_update_time",
            "requested_primaries",
            "simulated_primaries",
            "start_time",
            "task_id",
            "task_state"
        ]
    );
    assert_eq!(done["message"], "Job state: COMPLETED");
}

#[tokio::test]
async fn results_whole_and_in_parts() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let job_id = client.submit(1).await;
    let get = |tail: &str| {
        let path = format!("{}job_id={job_id}", tail.replace("JOB&", ""));
        let client = &client;
        async move { client.get(&path).await }
    };
    get("/results?").await.says(404, "Results are unavailable");
    get("/estimators?").await.says(404, "Pages metadata not found");
    client.poll_until(&job_id, "COMPLETED").await;
    let whole = get("/results?").await.json();
    let part = get("/results?estimator_name=yz_profile&").await.json();
    assert_eq!(part["pages"], whole["estimators"][1]["pages"]);
    assert_eq!(part["message"], "Results for simulation: 1");
    get("/results?estimator_name=none&").await.says(404, "Estimator not found");
    let page = get("/results?estimator_name=yz_profile&page_number=2&").await.json();
    assert_eq!(page["page"], whole["estimators"][1]["pages"][2]);
    assert_eq!(page["message"], "Page retrieved successfully");
    assert_eq!(get("/results?estimator_name=yz_profile&page_number=9&").await.status, 500);
    let some = get("/results?estimator_name=let_spectrum&page_numbers=0-1,6&").await.json();
    assert_eq!(some["pages"].as_array().unwrap().len(), 3);
    let none = get("/results?estimator_name=none&page_numbers=0&").await;
    none.is(200, "{\"message\":\"Pages retrieved successfully\",\"pages\":[]}\n");
    let listed = get("/estimators?").await;
    assert!(
        listed.body.starts_with(
            "{\"estimators_metadata\":[{\"name\":\"z_profile\",\"pages_metadata\":[{\"page_dimension\":1,\
         \"page_name\":\"DOSE\",\"page_number\":0}"
        ),
        "{}",
        listed.body
    );
    let inputs = get("/inputs?").await.json();
    assert_eq!(inputs["input"]["input_files"]["beam.dat"], "NSTAT 10000 0\n");
    get("/logfiles?").await.says(404, "Logfiles are unavailable");
}

#[tokio::test]
async fn the_list_of_simulations() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    let empty = "{\"message\":\"User Simulations\",\"page_count\":0,\"simulations\":[],\
                 \"simulations_count\":0}\n";
    client.get("/user/simulations").await.is(200, empty);
    let mut ids = Vec::new();
    for _ in 0..3 {
        ids.push(client.submit(1).await);
    }
    until(&stand_in, "the end", |truth| truth.jobs.iter().all(|job| job.completed_us.is_some())).await;
    let list = client.get("/user/simulations?page_size=2&page_idx=1").await.json();
    assert_eq!((&list["page_count"], &list["simulations_count"]), (&json!(2), &json!(3)));
    assert_eq!(list["simulations"][0]["job_id"], json!(ids[2]), "newest first");
    let metadata = json!({"input_type": "FILES", "platform": "DIRECT", "server": "Yaptide",
                          "sim_type": "shieldhit"});
    assert_eq!(list["simulations"][0]["metadata"], metadata);
    assert_eq!(list["simulations"][0]["end_time"].as_str().unwrap().len(), DATE);
    let tail = client.get("/user/simulations?page_idx=9").await.json();
    assert_eq!(tail["simulations"], json!([]));
    let none = client.get("/user/simulations?job_state=RUNNING,PENDING").await.json();
    assert_eq!(none["simulations_count"], 0);
    assert_eq!(client.get("/user/simulations?page_size=abc").await.status, 500);

    let delete = |path: String| {
        let client = &client;
        async move { client.send(Method::DELETE, &path, "").await }
    };
    let path = format!("/user/simulations?job_id={}", ids[0]);
    delete(path.clone())
        .await
        .says(200, &format!("Simulation with job_id={} successfully deleted from database", ids[0]));
    delete(path).await.says(404, &format!("Simulation with job_id={} do not exist", ids[0]));
    delete("/user/simulations".to_owned())
        .await
        .is(400, "{\"job_id\":[\"Missing data for required field.\"],\"message\":\"Wrong data provided\"}\n");
    let list = client.get("/user/simulations?page_size=0").await.json();
    assert_eq!((&list["simulations_count"], stand_in.truth().jobs.len()), (&json!(2), 3));
}

/// The update key of simulation 1, as a worker would have got it.
fn key(stand_in: &StandIn) -> String {
    stand_in.backend.mint.update_key(1, crate::standin::clock::now_us())
}

#[tokio::test]
async fn workers_post_under_their_key() {
    let stand_in = StandIn::start(quick()).unwrap();
    let client = Client::logged_in(&stand_in).await;
    // The workers do not know this program, so nobody else posts.
    let body = files_job(2).replace("shieldhit", "other");
    let job_id = client.post("/jobs/direct", &body).await.json()["job_id"].clone();
    let job_id = job_id.as_str().unwrap();

    let key = key(&stand_in);
    let post = |path: &'static str, body: Value| {
        let client = &client;
        async move { client.post(path, &body.to_string()).await }
    };
    let task = |id: u64, key: &str, update: Value| json!({"simulation_id": id, "task_id": 0, "update_key": key, "update_dict": update});
    post("/tasks", json!({"x": 1})).await.says(
        400,
        "Missing keys in JSON payload: {&#x27;simulation_id&#x27;, &#x27;task_id&#x27;, \
         &#x27;update_key&#x27;, &#x27;update_dict&#x27;}",
    );
    let mut extra = task(1, &key, json!({}));
    extra["more"] = json!(1);
    post("/tasks", extra).await.says(400, "Missing keys in JSON payload: set()");
    post("/tasks", task(9, &key, json!({}))).await.says(400, "Simulation 9 does not exist");
    post("/tasks", task(1, "bad", json!({}))).await.says(400, "Invalid update key");
    let session = client.cookies.split(['=', ';']).nth(1).unwrap().to_owned();
    assert_eq!(post("/tasks", task(1, &session, json!({}))).await.status, 500);
    let mut far = task(1, &key, json!({}));
    far["task_id"] = json!(77);
    post("/tasks", far).await.says(400, "Task 77 does not exist");
    let no_fraction = json!({"end_time": "2026-11-22 22:00:00"});
    assert_eq!(post("/tasks", task(1, &key, no_fraction)).await.status, 500);
    let banana = json!({"task_state": "BANANA", "simulated_primaries": 7});
    post("/tasks", task(1, &key, banana)).await.says(202, "Task updated");
    let shown = client.get(&format!("/jobs?job_id={job_id}")).await.json();
    assert_eq!(shown["job_tasks_status"][0]["task_state"], "BANANA");

    let job = |id: u64, state: &str| json!({"sim_id": id, "update_key": key, "job_state": state});
    post("/jobs", job(9, "RUNNING")).await.says(501, "Simulation 9 does not exist");
    assert_eq!(post("/jobs", json!({})).await.status, 500);
    post("/jobs", job(1, "MERGING_RUNNING")).await.says(202, "Task updated");
    assert_eq!(client.state(job_id).await, "MERGING_RUNNING");
    let results = |id: u64, estimators: Value| json!({"simulation_id": id, "update_key": key, "estimators": estimators});
    post("/results", json!({})).await.says(400, "Incomplete JSON data");
    post("/results", results(9, json!([]))).await.says(400, "Simulation does not exist");
    assert_eq!(post("/results", results(1, json!([{"name": 1}]))).await.status, 500);
    post("/results", results(1, json!([]))).await.says(202, "Results saved");
    assert_eq!(client.state(job_id).await, "COMPLETED");
    let done = task(1, &key, json!({"task_state": "RUNNING"}));
    post("/tasks", done).await.says(202, "Task updated");
    post("/jobs", job(1, "RUNNING")).await.says(202, "Task updated");
    assert_eq!(client.state(job_id).await, "COMPLETED", "terminal states stay");
    let logs = json!({"simulation_id": 1, "update_key": key, "logfiles": {"a.log": "text"}});
    post("/logfiles", logs).await.says(202, "Log files saved");
    let shown = client.get(&format!("/logfiles?job_id={job_id}")).await;
    shown.is(200, "{\"logfiles\":{\"a.log\":\"text\"},\"message\":\"Logfiles\"}\n");
}

#[tokio::test]
async fn connections_close_unless_told_otherwise() {
    for keep_alive in [false, true] {
        let stand_in = StandIn::start(Config { keep_alive, ..quick() }).unwrap();
        let response = reqwest::get(stand_in.url()).await.unwrap();
        let closes = response.headers().get("connection").is_some_and(|value| value == "close");
        assert_eq!(closes, !keep_alive);
    }
}
