//! The sampler of the target's Redis against a real redis-server.
//!
//! It is long because each way in which a Redis goes away is a test of its own. It sleeps where what is
//! tested is a series over so many seconds.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use redis::{Commands, Connection};
use rstest::rstest;
use rustix::process::{Pid, Signal, kill_process};
use springtide::{
    fault::Fault,
    moment::Moment,
    plan::{Cell, CellKind},
    sampling::redis::RedisSampler,
    telemetry::redis::{Figures, RedisSeries},
};
use tokio::{net::TcpListener, time};

use crate::{
    redis_server::{PASSWORD, RedisServer},
    support::alone,
};

fn cell() -> Cell {
    Cell {
        index: 0,
        kind: CellKind::Measured,
        scenario: "S1".to_owned().try_into().unwrap(),
        repetition: 1,
        attempt: 1,
        unbegun: 0,
        users: 1,
        tasks: 4,
        fault: Fault::none(),
        job_timeout: None,
        seed: 1,
    }
}

async fn sampler(url: &str) -> RedisSampler {
    let queues = ["simulations", "helper"].map(String::from).to_vec();
    RedisSampler::connect(url, None, None, queues, "").await.unwrap().0
}

/// What a task leaves behind, `pad` bytes of it results.
fn result(pad: usize) -> String {
    let results = "1".repeat(pad);
    format!(
        r#"{{"status": "SUCCESS", "result": {{"estimators": [{results}], "simulation_id": 7}}, "traceback": null, "children": [], "date_done": "2026-11-22T22:00:00", "group_id": "g", "task_id": "t"}}"#
    )
}

/// Stores a value under a name of Celery's, and says how long it is.
fn store(redis: &mut Connection, id: &str, value: &str) -> u64 {
    let () = redis.set_ex(format!("celery-task-meta-{id}"), value, 86_400).unwrap();
    value.len() as u64
}

fn sorted(mut sizes: Vec<u64>) -> Vec<u64> {
    sizes.sort_unstable();
    sizes
}

/// Its rates are those of counters that only grow.
fn has_sane_rates(series: &RedisSeries) {
    for line in series.lines() {
        assert!(line.points.iter().all(|(_, y)| y.is_finite() && *y >= 0.0), "{line:?}");
        assert!(line.points.windows(2).all(|p| p[0].0 < p[1].0), "{} goes back", line.name);
    }
    assert!(series.samples.windows(2).all(|s| s[0].at < s[1].at));
}

#[test]
fn a_cell_has_a_sample_a_second_and_its_commands_without_ours() {
    // A machine that is too busy to ask in time would be a gap, and rightly.
    let _machine = alone();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(watched_cell());
}

async fn watched_cell() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut sampler = sampler(&server.url()).await;
    let began = time::Instant::now();
    sampler.open(&cell()).await;
    // Another client does 50 of each, ten a second.
    let blob = "x".repeat(20_000);
    let mut tick = time::interval(Duration::from_millis(100));
    for i in 0..50 {
        tick.tick().await;
        let () = redis.lpush("simulations", &blob).unwrap();
        let () = redis.lpush("simulations\x06\x163", "urgent").unwrap();
        let () = redis.hset("unacked", i.to_string(), "x").unwrap();
    }
    let t0 = began + Duration::from_secs(1);
    let series = sampler.close(t0).await;
    assert_eq!(server.keys(), ["simulations", "simulations\u{6}\u{16}3", "unacked"], "nothing of ours");
    assert_eq!((series.gaps.as_slice(), series.cuts.as_slice()), ([].as_slice(), [].as_slice()));
    has_sane_rates(&series);
    let first = series.samples.first().unwrap();
    assert!((-1_000_000..-500_000).contains(&first.at.0), "{:?}", first.at);
    for pair in series.samples.windows(2) {
        let apart = pair[1].at.0 - pair[0].at.0;
        assert!(apart < 1_500_000, "{apart} µs apart");
    }
    assert!((6..=8).contains(&series.samples.len()), "{}", series.samples.len());
    let last = series.samples.last().unwrap();
    assert_eq!((last.queues["simulations"], last.queues["helper"], last.unacked), (100, 0, 50));
    assert!(last.connected_clients >= 2 && last.used_memory > first.used_memory + 900_000);

    assert_eq!(series.commands["lpush"].calls, 100);
    assert_eq!(series.commands["hset"].calls, 50);
    assert!(series.commands["lpush"].busy.0 > 0 && series.commands["lpush"].p99.is_some());
    for ours in ["info", "llen", "hlen", "scan", "strlen", "getrange"] {
        assert!(!series.commands.contains_key(ours), "{ours} is ours: {:?}", series.commands);
    }
    let cost = series.cost;
    assert!(cost.commands > 60 && cost.sent > 1_000 && cost.received > 10_000 && cost.busy.0 > 0, "{cost:?}");

    let figures = Figures::of(&series).unwrap();
    // 50 × 20 kB and what is around them; none of ours.
    assert!((1_000_000..1_030_000).contains(&figures.net_input), "{figures:?}");
    assert!(figures.net_output < 2_000, "{figures:?}");
    assert_eq!((figures.commands, figures.queue_peak, figures.unacked_peak), (150, 100, 50));
    let slope = figures.memory_slope.unwrap();
    assert!((100_000.0..500_000.0).contains(&slope), "{slope} B/s, about 200 kB/s were written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_those_of_the_results_stored_in_the_cell() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    for i in 0..700 {
        store(&mut redis, &format!("before-{i}"), &result(10));
    }
    let mut sampler = sampler(&server.url()).await;
    let t0 = time::Instant::now();
    let mut of_cell = async |from: usize| {
        sampler.open(&cell()).await;
        let mut stored = Vec::new();
        for i in from..from + 8 {
            stored.push(store(&mut redis, &format!("task-{i}"), &result(1_000 * (i + 1))));
            time::sleep(Duration::from_millis(200)).await;
        }
        let all = format!(r#"{{"status": "SUCCESS", "result": [{}], "task_id": "m"}}"#, "9".repeat(50_000));
        let aggregate = store(&mut redis, &format!("merge-{from}"), &all);
        store(&mut redis, &format!("failed-{from}"), r#"{"status": "FAILURE", "result": {"exc_type": "X"}}"#);
        store(&mut redis, &format!("running-{from}"), r#"{"status": "STARTED", "result": {"pid": 1}}"#);
        // What is stored at the very end is found by the last scan.
        for i in 0..300 {
            stored.push(store(&mut redis, &format!("late-{from}-{i}"), &result(i)));
        }
        let _: i64 = redis.del(format!("celery-task-meta-task-{from}")).unwrap();
        let series = sampler.close(t0).await;
        assert_eq!(sorted(series.results.bytes.clone()), sorted(stored));
        assert_eq!(series.results.aggregates, [aggregate]);
        assert_eq!(series.results.others.len(), 1, "a failure; one that runs is not counted");
        assert!(!series.results.is_partial);
    };
    of_cell(0).await;
    of_cell(100).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_is_one_gap_and_nothing_goes_backwards() {
    let mut server = RedisServer::start();
    let mut redis = server.connection();
    let mut sampler = sampler(&server.url()).await;
    let t0 = time::Instant::now();
    sampler.open(&cell()).await;
    let () = redis.set("big", "x".repeat(3_000_000)).unwrap();
    time::sleep(Duration::from_millis(2_300)).await;
    server.start_again();
    time::sleep(Duration::from_millis(2_500)).await;
    let () = server.connection().set("small", "x").unwrap();
    let series = sampler.close(t0).await;
    assert_eq!(series.gaps.len(), 1, "{:?}", series.gaps);
    let gap = &series.gaps[0];
    assert!(gap.why.contains("it was restarted"), "{}", gap.why);
    assert!(series.samples.iter().all(|s| s.at <= gap.from || s.at >= gap.to));
    assert_eq!(series.samples.iter().filter(|s| s.is_anew).count(), 1);
    assert_eq!(series.cuts, ["Redis was restarted"]);
    assert!(series.results.is_partial);
    assert_eq!(series.commands["set"].calls, 1, "since the restart");
    has_sane_rates(&series);
    let figures = Figures::of(&series).unwrap();
    assert!((3_000_000..3_100_000).contains(&figures.net_input) && figures.is_cut, "{figures:?}");
}

/// What is done to a server in the middle of a cell.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Harm {
    Killed,
    /// It is there, and answers nothing.
    Stopped,
}

#[rstest]
#[case(Harm::Killed)]
#[case(Harm::Stopped)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_gone_is_a_gap_and_holds_nobody_up(#[case] harm: Harm) {
    let mut server = RedisServer::start();
    let pid = Pid::from_raw(server.info("process_id") as i32).unwrap();
    let mut sampler = sampler(&server.url()).await;
    sampler.open(&cell()).await;
    let t0 = time::Instant::now();
    time::sleep(Duration::from_millis(1_200)).await;
    match harm {
        Harm::Killed => server.stop(),
        Harm::Stopped => kill_process(pid, Signal::STOP).unwrap(),
    }
    time::sleep(Duration::from_millis(1_500)).await;
    let within = async |what: &str, limit: f64, began: Instant| {
        let took = began.elapsed().as_secs_f64();
        assert!(took < limit, "{what} took {took} s");
    };
    let began = Instant::now();
    let series = sampler.close(t0).await;
    within("close", 3.0, began).await;
    let end = Moment::of(time::Instant::now(), t0);
    let gap = series.gaps.last().unwrap();
    assert_eq!(series.gaps.len(), 1, "{:?}", series.gaps);
    assert!(gap.to <= end && end.0 - gap.to.0 < 2_500_000 && gap.to.0 - gap.from.0 > 1_000_000, "{gap:?}");
    assert!(series.samples.len() >= 2 && series.samples.last().unwrap().at <= gap.from);
    assert!(series.results.is_partial && series.commands.is_empty());
    assert_eq!(series.cuts, ["Redis was not there when the cell was closed"]);
    has_sane_rates(&series);

    // The next cell begins without it, and sees it come back.
    let began = Instant::now();
    assert_eq!(sampler.idle(Duration::from_secs(60)).await, Ok(()));
    within("idle", 2.5, began).await;
    let began = Instant::now();
    sampler.open(&cell()).await;
    within("open", 2.5, began).await;
    match harm {
        Harm::Killed => server.start_again(),
        Harm::Stopped => kill_process(pid, Signal::CONT).unwrap(),
    }
    time::sleep(Duration::from_millis(3_200)).await;
    let series = sampler.close(t0).await;
    assert_eq!(series.gaps.len(), 1, "{:?}", series.gaps);
    assert!(series.samples.len() >= 2, "{}", series.samples.len());
    assert!(series.samples.iter().all(|s| s.at >= series.gaps[0].to));
    assert!(
        series.cuts.contains(&"Redis was not there when the cell was opened".to_owned()),
        "{:?}",
        series.cuts
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_waits_for_the_queues_and_may_be_given_up() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    let mut sampler = sampler(&server.url()).await;
    assert_eq!(sampler.idle(Duration::ZERO).await, Ok(()));
    for _ in 0..11 {
        let () = redis.lpush("simulations", "m").unwrap();
    }
    let () = redis.lpush("simulations\x06\x169", "m").unwrap();
    let () = redis.lpush("other", "m").unwrap();
    assert_eq!(
        sampler.idle(Duration::ZERO).await,
        Err("queue simulations still holds 12 messages after 0 s".into())
    );
    let () = redis.hset("unacked", "tag", "m").unwrap();
    let busy = sampler.idle(Duration::ZERO).await.unwrap_err();
    assert!(busy.contains("workers still hold 1 message back"), "{busy}");
    let () = redis.del("unacked").unwrap();
    // Dropped in the middle, again and again, as by a select.
    for ms in 0..20 {
        let _ = time::timeout(Duration::from_millis(ms), sampler.idle(Duration::from_secs(60))).await;
    }
    let waiting = sampler.idle(Duration::from_secs(30));
    let emptying = async {
        time::sleep(Duration::from_millis(400)).await;
        let _: i64 = redis.del(&["simulations", "simulations\x06\x169"]).unwrap();
    };
    let began = Instant::now();
    let (idle, ()) = tokio::join!(waiting, emptying);
    assert_eq!(idle, Ok(()));
    assert!(began.elapsed() < Duration::from_secs(5));
    let t0 = time::Instant::now();
    sampler.open(&cell()).await;
    assert_eq!(sampler.close(t0).await.samples.len(), 2, "it still works");
}

async fn refused(url: &str, password: Option<&str>, ca: Option<&Path>) -> String {
    let tried = RedisSampler::connect(url, password.map(str::to_owned), ca, Vec::new(), "").await;
    let said = tried.unwrap_err().to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!said.contains(PASSWORD) && !said.contains("wr-ong"), "{said}");
    said
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn passwords_and_users_are_taken_and_refused_in_one_line() {
    let server = RedisServer::start_with_password();
    let bare = format!("redis://127.0.0.1:{}/2", server.port());
    let (_, facts) = RedisSampler::connect(&bare, Some(PASSWORD.into()), None, Vec::new(), "").await.unwrap();
    assert_eq!(
        (facts.url.as_str(), facts.policy.as_str(), facts.run_id.len()),
        (bare.as_str(), "noeviction", 40)
    );
    let (_, facts) = RedisSampler::connect(&server.url(), None, None, Vec::new(), "").await.unwrap();
    assert!(!facts.url.contains(PASSWORD) && facts.version.contains('.'), "{facts:?}");

    assert!(refused(&bare, None, None).await.contains("wants a password"));
    assert!(refused(&bare, Some("wr-ong"), None).await.contains("refuses the password"));
    let mut redis = server.connection();
    let () = redis::cmd("ACL")
        .arg(&["SETUSER", "dim", "on", &format!(">{PASSWORD}"), "~*", "+llen"])
        .query(&mut redis)
        .unwrap();
    let dim = format!("redis://dim:{PASSWORD}@127.0.0.1:{}", server.port());
    let said = refused(&dim, None, None).await;
    assert!(said.contains("\"dim\" may not use INFO"), "{said}");
    let () = redis::cmd("ACL").arg(&["SETUSER", "dim", "+info", "+select"]).query(&mut redis).unwrap();
    let said = refused(&dim, None, None).await;
    assert!(said.contains("\"dim\" may not use HLEN"), "what is not seen is not nothing: {said}");
    assert!(refused(&bare.replace("/2", "/99"), Some(PASSWORD), None).await.contains("refuses SELECT"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_is_spoken_where_the_url_says_so() {
    let server = RedisServer::start_with_tls();
    let (url, ca) = (server.url(), server.ca());
    let (mut sampler, facts) =
        RedisSampler::connect(&url, None, Some(&ca), vec!["simulations".into()], "").await.unwrap();
    assert_eq!(facts.url, format!("rediss://127.0.0.1:{}/0", server.port()));
    sampler.open(&cell()).await;
    time::sleep(Duration::from_millis(1_200)).await;
    let series = sampler.close(time::Instant::now()).await;
    assert!(series.samples.len() >= 3);
    let figures = Figures::of(&series).unwrap();
    assert!(figures.net_input < 500 && figures.net_output < 500, "ours is counted inside TLS: {figures:?}");

    assert!(refused(&url, None, None).await.contains("TLS failed"), "an authority that nobody knows");
    assert!(refused(&url.replace("rediss", "redis"), None, None).await.contains("not answer as Redis"));
    let plain = RedisServer::start();
    let said = refused(&plain.url().replace("redis", "rediss"), None, Some(&ca)).await;
    assert!(said.contains("does it speak TLS"), "{said}");
    let said = refused(&plain.url(), None, Some(&ca)).await;
    assert!(said.contains("write rediss://"), "{said}");
    let said = refused(&url, None, Some(Path::new("/no/such.pem"))).await;
    assert!(said.contains("/no/such.pem"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_redis_is_told_so() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = free.local_addr().unwrap().port();
    let url = format!("redis://127.0.0.1:{port}");
    let serve = async {
        loop {
            let (stream, _) = free.accept().await.unwrap();
            let mut piece = [0; 64];
            stream.readable().await.unwrap();
            let _ = stream.try_read(&mut piece);
            let _ = stream.try_write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n");
        }
    };
    let said = tokio::select! {
        said = refused(&url, None, None) => said,
        () = serve => String::new(),
    };
    assert!(said.contains("does not answer as Redis does"), "{said}");
    drop(free);
    let said = refused(&url, None, None).await;
    assert!(said.contains("cannot connect") && said.contains("is Redis running there?"), "{said}");
}

/// `cargo test --test it ten_thousand -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "measures what sampling costs"]
async fn what_sampling_costs_beside_ten_thousand_results() {
    let server = RedisServer::start();
    let mut redis = server.connection();
    for i in 0..10_000 {
        store(&mut redis, &format!("{i:08}-0000-4000-8000-000000000000"), &result(1_000));
    }
    let mut sampler = sampler(&server.url()).await;
    let cpu = || {
        let stat = procfs::process::Process::myself().unwrap().stat().unwrap();
        (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
    };
    let began = Instant::now();
    let t0 = time::Instant::now();
    sampler.open(&cell()).await;
    println!("open took {:?}", began.elapsed());
    let (spent, began) = (cpu(), Instant::now());
    time::sleep(Duration::from_secs(30)).await;
    let (spent, seconds) = (cpu() - spent, began.elapsed().as_secs_f64());
    println!("in {seconds:.1} s: {spent:.2} s of our CPU, {:.2} % of a core", 100.0 * spent / seconds);
    let before = began.elapsed();
    let series = sampler.close(t0).await;
    println!("close took {:?}", began.elapsed() - before);
    let (first, last) = (series.samples.first().unwrap(), series.samples.last().unwrap());
    let cost = series.cost;
    println!(
        "{cost:?} in {} s; CPU of Redis {} µs, of it our commands {:.3} % of a core; slowest look {}; {} keys",
        last.at.0 / 1_000_000,
        last.cpu.0 - first.cpu.0,
        cost.busy.0 as f64 / (last.at.0 - first.at.0) as f64 * 100.0,
        series.samples.iter().map(|s| s.took).max().unwrap(),
        last.result_keys,
    );
    assert_eq!(last.result_keys, 10_000);
    assert!(series.results.bytes.is_empty() && !series.results.is_partial);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_waits_until_little_goes_through_redis() {
    let server = RedisServer::start();
    let mut sampler = sampler(&server.url()).await;
    let mut redis = server.connection();
    let until = std::time::Instant::now() + Duration::from_millis(2_500);
    let moving = std::thread::spawn(move || {
        let value = "x".repeat(100_000);
        while std::time::Instant::now() < until {
            let () = redis.set("somebody's", &value).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
    });
    let busy = sampler.idle(Duration::from_millis(1_500)).await.unwrap_err();
    assert!(busy.contains("Redis still moves"), "{busy}");
    assert_eq!(sampler.idle(Duration::from_secs(30)).await, Ok(()));
    assert!(std::time::Instant::now() >= until, "it was idle before its time");
    moving.join().unwrap();
}
