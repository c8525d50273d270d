//! The stand-in over a real Redis: what it stores, what it moves, what it leaves.
//!
//! It is long because the shapes of Celery's messages and keys are held one by one.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use reqwest::{Client, Method};
use rstest::rstest;
use springtide::{
    standin::{Broker, Config, FailTasks, RedisTruth, ResultKind, StandIn, StandInError, Truth},
    timeline::JobState,
};

use crate::{
    redis_server::{PASSWORD, RedisServer},
    support::{alone, shared},
};

/// No test waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(60);

/// A stand-in with short tasks on that Redis, or on none.
fn config(redis: Option<&RedisServer>) -> Config {
    Config {
        task_time: Duration::from_millis(20),
        login_cost: Duration::ZERO,
        redis: redis.map(|server| Broker::at(server.url())),
        ..Config::default()
    }
}

/// Carries the test out. Whoever holds the machine does so outside of it.
fn run(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(test);
}

/// A user with a session.
struct User {
    http: Client,
    base: String,
    cookies: String,
}

impl User {
    async fn of(stand_in: &StandIn) -> Self {
        let mut user = Self { http: Client::new(), base: stand_in.url().to_owned(), cookies: String::new() };
        let account = r#"{"username":"u","password":"p"}"#;
        user.send(Method::PUT, "/auth/register", account).await;
        let login = user.http.post(format!("{}/auth/login", user.base)).body(account).send().await.unwrap();
        let cookies = login.headers().get_all("set-cookie").iter();
        let pairs: Vec<&str> = cookies.map(|c| c.to_str().unwrap().split(';').next().unwrap()).collect();
        user.cookies = pairs.join("; ");
        user
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> (u16, String) {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(DEADLINE);
        let request = request.header("cookie", &self.cookies).body(body.to_owned());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    /// Submits the fixture's job; its id.
    async fn submit(&self, tasks: usize) -> String {
        let (status, body) = self.try_submit(tasks).await;
        assert_eq!(status, 202, "{body}");
        let body: serde_json::Value = serde_json::from_str(&body).unwrap();
        body["job_id"].as_str().unwrap().to_owned()
    }

    async fn try_submit(&self, tasks: usize) -> (u16, String) {
        let text = include_str!("../../fixtures/submit/shieldhit_files.json");
        let mut job: serde_json::Value = serde_json::from_str(text).unwrap();
        job["ntasks"] = tasks.into();
        self.send(Method::POST, "/jobs/direct", &job.to_string()).await
    }

    async fn results(&self, job_id: &str) -> String {
        let (status, body) = self.send(Method::GET, &format!("/results?job_id={job_id}"), "").await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

/// Waits until the truth fits.
async fn until(stand_in: &StandIn, what: &str, fits: impl Fn(&Truth) -> bool) {
    let begun = Instant::now();
    while !fits(&stand_in.truth()) {
        assert!(begun.elapsed() < DEADLINE, "waited for {what}: {:?}", stand_in.truth().jobs);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn redis_truth(stand_in: &StandIn) -> RedisTruth {
    stand_in.truth().redis.expect("it works over Redis")
}

/// Every job is done, and so is everything in Redis.
async fn until_done(stand_in: &StandIn, jobs: usize) {
    until(stand_in, "the end of all jobs", |truth| {
        let redis = truth.redis.as_ref().unwrap();
        let merged = redis.results.values().filter(|result| result.kind == ResultKind::Merge).count();
        let idle = redis.messages_waiting + redis.messages_unacked == 0;
        truth.jobs.len() == jobs
            && truth.jobs.iter().all(|job| job.completed_us.is_some())
            && merged == jobs
            && idle
    })
    .await;
}

fn strlen(server: &RedisServer, key: &str) -> u64 {
    redis::cmd("STRLEN").arg(key).query(&mut server.connection()).unwrap()
}

#[test]
fn what_redis_holds_is_what_the_stand_in_says_and_goes_with_it() {
    let _machine = shared();
    run(async {
        let server = RedisServer::start();
        let foreign: Vec<(&str, &str)> = vec![
            ("celery-task-meta-of-somebody-else", "SET"),
            ("unacked", "HSET"),
            ("unacked_index", "ZADD"),
            ("_kombu.binding.simulations", "SADD"),
        ];
        let mut connection = server.connection();
        for (key, command) in &foreign {
            let mut put = redis::cmd(command);
            put.arg(key);
            match *command {
                "HSET" => put.arg("tag").arg("x"),
                "ZADD" => put.arg(1).arg("tag"),
                _ => put.arg("x"),
            };
            put.exec(&mut connection).unwrap();
        }
        let before = server.keys();
        let mut stand_in = StandIn::start(config(Some(&server))).unwrap();
        let user = User::of(&stand_in).await;
        for tasks in [4, 2] {
            user.submit(tasks).await;
        }
        until_done(&stand_in, 2).await;
        let truth = redis_truth(&stand_in);
        let kinds = |kind| truth.results.values().filter(|result| result.kind == kind).count();
        assert_eq!([ResultKind::Task, ResultKind::QueueMerge, ResultKind::Merge].map(kinds), [6, 2, 2]);
        for (key, result) in &truth.results {
            assert!(key.starts_with("celery-task-meta-"), "{key}");
            assert_eq!(strlen(&server, key), result.bytes, "{key}");
            let life: i64 = redis::cmd("TTL").arg(key).query(&mut connection).unwrap();
            assert!((86_000..=86_400).contains(&life), "{key} lives {life} s");
            if result.kind == ResultKind::Task {
                assert!((850_000..1_150_000).contains(&result.bytes), "{result:?}");
            }
        }
        let found = server.keys();
        let others = found.iter().filter(|key| !truth.results.contains_key(*key) && !before.contains(key));
        let others: Vec<&String> = others.collect();
        assert_eq!(others, ["springtide:stand-in:simulations"]);
        assert_eq!(found.len() as u64, truth.keys + before.len() as u64, "{found:?}");
        stand_in.stop();
        assert_eq!(server.keys(), before);
        let binding: Vec<String> = redis::cmd("SMEMBERS").arg(foreign[3].0).query(&mut connection).unwrap();
        assert_eq!(binding, ["x"]);
    });
}

/// A job that is under way, and one that waits, leave nothing either.
#[test]
fn a_stop_in_the_middle_leaves_nothing() {
    let _machine = shared();
    run(async {
        let server = RedisServer::start();
        let slow = Config { task_time: Duration::from_secs(30), slots: 1, ..config(Some(&server)) };
        let mut stand_in = StandIn::start(slow).unwrap();
        let user = User::of(&stand_in).await;
        user.submit(16).await;
        until(&stand_in, "a full worker", |truth| {
            let redis = truth.redis.as_ref().unwrap();
            redis.messages_unacked >= 4 && truth.worker.contains_key("POST /tasks")
        })
        .await;
        let keys = server.keys();
        for expected in ["simulations", "unacked", "unacked_index"] {
            assert!(keys.iter().any(|key| key == expected), "{keys:?}");
        }
        assert_eq!(keys.len() as u64, redis_truth(&stand_in).keys, "{keys:?}");
        stand_in.stop();
        assert_eq!(server.keys(), Vec::<String>::new());
    });
}

/// The message of a task is of the size that was measured, and says what Celery says.
#[test]
fn messages_have_the_shape_of_the_target() {
    let _machine = shared();
    run(async {
        let server = RedisServer::start();
        let slow = Config { task_time: Duration::from_secs(30), slots: 1, ..config(Some(&server)) };
        let stand_in = StandIn::start(slow).unwrap();
        User::of(&stand_in).await.submit(16).await;
        until(&stand_in, "a full worker", |truth| truth.redis.as_ref().unwrap().messages_unacked >= 4).await;
        let listed: Vec<String> =
            redis::cmd("LRANGE").arg("simulations").arg(0).arg(-1).query(&mut server.connection()).unwrap();
        assert!(!listed.is_empty());
        for message in &listed {
            assert!((5_500..8_500).contains(&message.len()), "{} B", message.len());
            let json: serde_json::Value = serde_json::from_str(message).unwrap();
            let headers = &json["headers"];
            assert_eq!(headers["task"], "yaptide.celery.tasks.run_single_simulation");
            assert_eq!(headers["timelimit"], serde_json::json!([null, null]));
            assert_eq!(json["properties"]["correlation_id"], headers["id"]);
            assert_eq!(json["properties"]["delivery_info"]["routing_key"], "simulations");
            let body = base64::Engine::decode(
                &base64::engine::general_purpose::STANDARD,
                json["body"].as_str().unwrap(),
            );
            let body: serde_json::Value = serde_json::from_slice(&body.unwrap()).unwrap();
            assert_eq!(body[1]["task_id"], headers["group_index"]);
            assert_eq!(body[1]["simulation_id"], 1);
            assert!(body[1]["files_dict"]["beam.dat"].is_string() && body[1]["update_key"].is_string());
            let chord = &body[2]["chord"];
            assert_eq!(chord["task"], "yaptide.celery.tasks.set_merging_queued_state");
            assert_eq!(chord["options"]["chain"][0]["task"], "yaptide.celery.tasks.merge_results");
        }
        let noted: BTreeMap<String, String> =
            redis::cmd("HGETALL").arg("unacked").query(&mut server.connection()).unwrap();
        for (tag, noted) in noted {
            let json: serde_json::Value = serde_json::from_str(&noted).unwrap();
            assert_eq!(
                (&json[0]["properties"]["delivery_tag"], &json[2]),
                (&tag.into(), &"simulations".into())
            );
        }
    });
}

#[rstest]
#[case::whole(FailTasks::None)]
#[case::with_a_failed_task(FailTasks::Indices(vec![1]))]
fn results_are_the_same_as_without_redis(#[case] fail_tasks: FailTasks) {
    let _machine = shared();
    run(async {
        let server = RedisServer::start();
        let mut fetched = Vec::new();
        for redis in [None, Some(&server)] {
            let stand_in =
                StandIn::start(Config { fail_tasks: fail_tasks.clone(), ..config(redis) }).unwrap();
            let user = User::of(&stand_in).await;
            let job_id = user.submit(3).await;
            until(&stand_in, "the end", |truth| truth.jobs[0].completed_us.is_some()).await;
            fetched.push(user.results(&job_id).await);
            assert_eq!(
                stand_in.truth().worker["POST /tasks"].requests,
                if fail_tasks == FailTasks::None { 12 } else { 11 }
            );
        }
        assert!(fetched[0] == fetched[1], "{} and {} B", fetched[0].len(), fetched[1].len());
    });
}

/// Number of tasks, and for such a job at the target, in MB: what Redis got and gave, what it held at
/// most, what it kept.
const MEASURED: [(usize, [f64; 4]); 4] = [
    (4, [41.9, 15.1, 34.0, 8.0]),
    (8, [79.2, 28.6, 49.0, 15.0]),
    (16, [149.9, 54.2, 92.0, 29.0]),
    (32, [284.8, 103.1, 185.0, 55.0]),
];

#[test]
fn traffic_and_memory_are_those_of_the_target_in_proportion() {
    let _machine = alone();
    run(async {
        let server = RedisServer::start();
        let stand_in =
            StandIn::start(Config { task_time: Duration::from_millis(1), ..config(Some(&server)) }).unwrap();
        let user = User::of(&stand_in).await;
        let mut measured: Vec<[f64; 4]> = Vec::new();
        for (place, (tasks, _)) in MEASURED.into_iter().enumerate() {
            let figures = || {
                ["total_net_input_bytes", "total_net_output_bytes", "used_memory_peak", "used_memory"]
                    .map(|figure| server.info(figure))
            };
            let (before, counted_before) = (figures(), redis_truth(&stand_in));
            user.submit(tasks).await;
            until_done(&stand_in, place + 1).await;
            let (after, counted) = (figures(), redis_truth(&stand_in));
            let moved =
                [counted.bytes_in - counted_before.bytes_in, counted.bytes_out - counted_before.bytes_out];
            for (place, ours) in moved.into_iter().enumerate() {
                // MULTI, EXEC, QUEUED and the test's own INFO are not counted.
                let redis = after[place] - before[place];
                assert!(redis.abs_diff(ours) < 60_000, "{tasks} tasks: Redis counts {redis} B, we {ours} B");
            }
            // The peak is one of all times, and each job is larger than the one before.
            let held = after[2].saturating_sub(before[3]);
            let kept = after[3].saturating_sub(before[3]);
            measured.push(
                [after[0] - before[0], after[1] - before[1], held, kept].map(|bytes| bytes as f64 / 1e6),
            );
        }
        for ((tasks, target), ours) in MEASURED.into_iter().zip(&measured) {
            for (figure, (ours, target)) in
                ["in", "out", "peak", "kept"].into_iter().zip(ours.iter().zip(target))
            {
                let ratio = ours / target;
                assert!(
                    (1.0 / 1.6..1.6).contains(&ratio),
                    "{tasks} tasks, {figure}: {ours:.1} MB, there {target}"
                );
            }
        }
        for (figure, place) in [("in", 0), ("out", 1), ("kept", 3)] {
            let ours = measured[3][place] / measured[0][place];
            let target = MEASURED[3].1[place] / MEASURED[0].1[place];
            assert!(
                (ours / target - 1.0).abs() < 0.25,
                "{figure}: 32 tasks are {ours:.2} times 4, there {target:.2}"
            );
        }
    });
}

/// With Redis gone and back, empty: nobody panics, jobs in the middle may be stuck, new ones are done.
#[test]
fn a_redis_that_dies_takes_jobs_but_nobody_else() {
    let _machine = shared();
    run(async {
        let mut server = RedisServer::start();
        let slow = Config { task_time: Duration::from_millis(300), slots: 2, ..config(Some(&server)) };
        let mut stand_in = StandIn::start(slow).unwrap();
        let user = User::of(&stand_in).await;
        let stuck = user.submit(8).await;
        until(&stand_in, "a result", |truth| !truth.redis.as_ref().unwrap().results.is_empty()).await;
        server.stop();
        let (status, body) = user.try_submit(2).await;
        assert_eq!((status, body.as_str()), (500, "{\"message\": \"Internal Server Error\"}\n"));
        assert_eq!(stand_in.truth().jobs[1].final_state, JobState::Unknown);
        server.start_again();
        let next = user.submit(2).await;
        until(&stand_in, "the end of the next", |truth| {
            truth.jobs.iter().any(|job| job.job_id == next && job.completed_us.is_some())
        })
        .await;
        user.results(&next).await;
        let truth = stand_in.truth();
        let first = &truth.jobs[0];
        assert_eq!((first.job_id.as_str(), first.completed_us), (stuck.as_str(), None), "its chord is gone");
        assert!(truth.redis.unwrap().connections_lost > 0);
        stand_in.stop();
        assert_eq!(server.keys(), Vec::<String>::new());
    });
}

/// The one line with which it does not start.
fn refusal(broker: Broker) -> String {
    let error = StandIn::start(Config { redis: Some(broker), ..Config::default() }).unwrap_err();
    assert!(matches!(error, StandInError::Redis(_)), "{error}");
    let line = error.to_string();
    assert!(!line.contains('\n') && !line.contains(PASSWORD), "{line}");
    line
}

#[track_caller]
fn says(line: &str, words: &[&str]) {
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

#[test]
fn a_redis_that_cannot_be_used_is_one_clear_line() {
    let mut server = RedisServer::start_with_password();
    let at = format!("127.0.0.1:{}", server.port());
    let wrong = server.url().replace(PASSWORD, "wrong");
    says(&refusal(Broker::at(wrong)), &[&at, "password"]);
    says(&refusal(Broker::at("http://x")), &["redis://"]);
    let mut connection = server.connection();
    redis::cmd("LPUSH").arg("simulations").arg("x").exec(&mut connection).unwrap();
    says(&refusal(Broker::at(server.url())), &[&at, "simulations", "1 message", "another database"]);
    assert_eq!(server.keys(), ["simulations"], "nothing of ours is left, nothing of theirs is gone");
    redis::cmd("DEL").arg("simulations").exec(&mut connection).unwrap();
    redis::cmd("SET").arg("simulations").arg("x").exec(&mut connection).unwrap();
    says(&refusal(Broker::at(server.url())), &[&at, "WRONGTYPE"]);
    let url = server.url();
    server.stop();
    says(&refusal(Broker::at(url)), &[&at, "is it running"]);
}

#[test]
fn two_on_one_redis_do_not_mix() {
    let _machine = shared();
    run(async {
        let server = RedisServer::start();
        let first = StandIn::start(config(Some(&server))).unwrap();
        says(&refusal(Broker::at(server.url())), &["another stand-in", "simulations"]);
        let other = Broker { queue: "others".to_owned(), ..Broker::at(server.url()) };
        let second = StandIn::start(Config { redis: Some(other), ..config(None) }).unwrap();
        for stand_in in [&first, &second] {
            let user = User::of(stand_in).await;
            user.submit(2).await;
            user.submit(2).await;
        }
        for stand_in in [&first, &second] {
            until_done(stand_in, 2).await;
            assert_eq!(stand_in.truth().worker["POST /results"].by_status[&202], 2);
        }
        drop(first);
        let left = server.keys();
        let theirs = redis_truth(&second);
        assert_eq!(left.len() as u64, theirs.keys, "{left:?}");
        assert!(theirs.results.keys().all(|key| left.contains(key)));
        // The place is free again.
        drop(StandIn::start(config(Some(&server))).unwrap());
    });
}

/// A message of somebody else on our list stays there, and a job of ours gets through all the same.
#[test]
fn a_message_of_somebody_else_is_put_back() {
    let _machine = shared();
    run(async {
        let server = RedisServer::start();
        let mut stand_in = StandIn::start(config(Some(&server))).unwrap();
        let mut connection = server.connection();
        redis::cmd("LPUSH").arg("simulations").arg("not ours").exec(&mut connection).unwrap();
        User::of(&stand_in).await.submit(2).await;
        until_done(&stand_in, 1).await;
        stand_in.stop();
        let left: Vec<String> =
            redis::cmd("LRANGE").arg("simulations").arg(0).arg(-1).query(&mut connection).unwrap();
        assert_eq!(left, ["not ours"]);
        assert_eq!(server.keys(), ["simulations"]);
    });
}

#[test]
fn tls_and_a_password_will_do() {
    let _machine = shared();
    run(async {
        let server = RedisServer::start_with_tls();
        let trusted = Broker { ca: Some(server.ca()), ..Broker::at(server.url()) };
        let stand_in = StandIn::start(Config { redis: Some(trusted), ..config(None) }).unwrap();
        User::of(&stand_in).await.submit(1).await;
        until_done(&stand_in, 1).await;
        drop(stand_in);
        says(&refusal(Broker::at(server.url())), &[&format!("127.0.0.1:{}", server.port())]);
        let missing = Broker { ca: Some("/nowhere/ca.pem".into()), ..Broker::at(server.url()) };
        says(&refusal(missing), &["/nowhere/ca.pem"]);
    });
}
