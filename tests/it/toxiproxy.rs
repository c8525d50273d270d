//! The client of Toxiproxy against a fake that follows the documented API and really proxies.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use springtide::{
    fault::{Distribution, Fault, FaultKind, FaultMode, Ratio, Side},
    micros::Micros,
    route::Route,
    standin::{Config, Retries, StandIn, Truth},
    toxiproxy::{Toxiproxy, ToxiproxyError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::toxiproxy_fake::{FakeToxiproxy, Lie, NAME};

/// A backend behind a fake, and our end of it.
struct Trial {
    backend: StandIn,
    fake: FakeToxiproxy,
    ours: Toxiproxy,
}

async fn opened() -> Trial {
    let backend = StandIn::start(Config::default()).unwrap();
    let fake = FakeToxiproxy::start(backend.url());
    let mut ours = of(&fake);
    assert_eq!(ours.open().await.unwrap(), Vec::<String>::new());
    assert_eq!((ours.listen(), ours.version()), (fake.listen_url.as_str(), "2.12.0"));
    Trial { backend, fake, ours }
}

fn of(fake: &FakeToxiproxy) -> Toxiproxy {
    Toxiproxy::new(&fake.api_url, NAME).unwrap()
}

fn latency(ms: u64) -> Fault {
    let (delay, jitter) = (Micros(ms * 1_000), Micros::ZERO);
    Fault::whole_cell(FaultKind::Latency { delay, jitter, distribution: Distribution::Uniform })
}

fn drop_of(percent: u32) -> Fault {
    Fault::whole_cell(FaultKind::Drop { ratio: Ratio::percent(percent), side: Side::Either })
}

fn disconnect() -> Fault {
    Fault::default_levels(FaultMode::Disconnect).remove(0)
}

/// Asks `GET /` on a connection of its own; how long it took, or `None` without an answer.
async fn get(url: &str) -> Option<Duration> {
    let begun = Instant::now();
    let exchange = async {
        let mut stream = TcpStream::connect(url.strip_prefix("http://").unwrap()).await.ok()?;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.ok()?;
        let (mut answer, mut piece) = (Vec::new(), [0; 4096]);
        while !answer.ends_with(b"\"}\n") {
            let n = stream.read(&mut piece).await.ok().filter(|n| *n > 0)?;
            answer.extend_from_slice(&piece[..n]);
        }
        answer.starts_with(b"HTTP/1.1 200").then(|| begun.elapsed())
    };
    tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("an end")
}

#[track_caller]
fn says(error: &ToxiproxyError, words: &[&str]) {
    let line = error.to_string();
    assert!(!line.contains('\n'), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
    }
}

/// Puts a toxic of somebody else there.
async fn add(fake: &FakeToxiproxy, toxic: &Value) -> u16 {
    let url = format!("{}/proxies/{NAME}/toxics", fake.api_url);
    reqwest::Client::new().post(url).body(toxic.to_string()).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn latency_is_set_read_back_and_taken_away() {
    let Trial { backend: _running, fake, mut ours } = opened().await;
    ours.inject(&latency(400)).await.unwrap();
    let expected = json!({"name": "springtide_latency", "type": "latency", "stream": "upstream",
        "toxicity": 1, "attributes": {"latency": 400, "jitter": 0}});
    assert_eq!(fake.toxics(), [expected]);
    let slow = get(ours.listen()).await.unwrap();
    assert!(slow >= Duration::from_millis(400), "{slow:?}");
    ours.clear().await.unwrap();
    assert!(fake.toxics().is_empty() && fake.enabled());
    let quick = get(ours.listen()).await.unwrap();
    assert!(quick < slow, "{quick:?}");
}

#[tokio::test]
async fn drops_reset_connections_before_the_target_sees_them() {
    let Trial { backend, fake, mut ours } = opened().await;
    ours.inject(&drop_of(2)).await.unwrap();
    assert_eq!(
        (&fake.toxics()[0]["type"], &fake.toxics()[0]["toxicity"]),
        (&json!("reset_peer"), &json!(0.02))
    );
    // The next fault takes the place of the one before.
    ours.inject(&drop_of(100)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(get(ours.listen()).await, None);
    }
    assert!(backend.truth().client.is_empty());
    ours.clear().await.unwrap();
    assert!(get(ours.listen()).await.is_some());
}

#[tokio::test]
async fn a_disconnect_closes_the_port_and_says_by_whom() {
    let Trial { backend: _running, fake, mut ours } = opened().await;
    for _ in 0..2 {
        ours.inject(&disconnect()).await.unwrap();
        assert_eq!((fake.enabled(), fake.names()), (false, vec!["springtide_disabled".to_owned()]));
        let refused = TcpStream::connect(ours.listen().strip_prefix("http://").unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        ours.clear().await.unwrap();
        assert!(fake.enabled() && fake.toxics().is_empty());
        assert!(get(ours.listen()).await.is_some(), "on the same port");
    }
}

#[tokio::test]
async fn what_is_read_back_must_be_what_was_set() {
    let Trial { fake, mut ours, .. } = opened().await;
    fake.lie(Some(Lie::HalfToxicity));
    let error = ours.inject(&drop_of(50)).await.unwrap_err();
    says(&error, &[NAME, "springtide_drop", "toxicity 0.25", "instead of", "toxicity 0.5"]);
    fake.lie(Some(Lie::StaysAsItIs));
    let error = ours.inject(&disconnect()).await.unwrap_err();
    assert!(matches!(error, ToxiproxyError::Differs { .. }), "{error}");
    says(&error, &["disabled"]);
    fake.lie(None);
    ours.clear().await.unwrap();
    assert!(fake.enabled() && fake.toxics().is_empty());
}

#[tokio::test]
async fn what_it_cannot_do_is_refused_before_anything_is_set() {
    let Trial { fake, mut ours, .. } = opened().await;
    let lost_answers = Fault::whole_cell(FaultKind::Drop { ratio: Ratio::percent(5), side: Side::After });
    assert!(Toxiproxy::check(&lost_answers).is_err());
    says(&ours.inject(&lost_answers).await.unwrap_err(), &["never answers"]);
    ours.inject(&Fault::none()).await.unwrap();
    assert_eq!(fake.changes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_proxy_that_is_not_there_is_named_with_those_that_are() {
    let trial = opened().await;
    let mut other = Toxiproxy::new(&trial.fake.api_url, "nope").unwrap();
    says(&other.open().await.unwrap_err(), &["--toxiproxy-proxy", "nope", NAME]);
    // The backend's port is not Toxiproxy's.
    let mut wrong = Toxiproxy::new(trial.backend.url(), NAME).unwrap();
    says(&wrong.open().await.unwrap_err(), &["--toxiproxy ", "/version", "HTTP API"]);
}

#[tokio::test]
async fn what_others_did_to_the_proxy_is_left_alone() {
    let Trial { fake, mut ours, .. } = opened().await;
    assert_eq!(add(&fake, &json!({"type": "bandwidth", "attributes": {"rate": 100}})).await, 200);
    let before = fake.changes();
    for error in [ours.open().await.unwrap_err(), ours.inject(&latency(5)).await.unwrap_err()] {
        says(&error, &[NAME, "bandwidth_downstream", "remove them"]);
    }
    assert_eq!(fake.changes(), before);

    let Trial { fake, mut ours, .. } = opened().await;
    let url = format!("{}/proxies/{NAME}", fake.api_url);
    let answer = reqwest::Client::new().post(url).body("{\"enabled\":false}").send().await.unwrap();
    assert_eq!(answer.status(), 200);
    for error in [ours.open().await.unwrap_err(), ours.clear().await.unwrap_err()] {
        says(&error, &["disabled, and not by springtide", "curl -X POST"]);
    }
    assert!(!fake.enabled());
}

#[tokio::test]
async fn what_a_crashed_run_left_is_taken_away() {
    let Trial { fake, mut ours, .. } = opened().await;
    ours.inject(&disconnect()).await.unwrap();
    drop(ours);
    let mut next = of(&fake);
    let left = next.open().await.unwrap();
    assert_eq!(left, ["removed toxic springtide_disabled", "enabled proxy yaptide again"]);
    assert!(fake.enabled() && fake.toxics().is_empty());
    next.inject(&latency(1)).await.unwrap();
    drop(next);
    assert_eq!(of(&fake).open().await.unwrap(), ["removed toxic springtide_latency"]);
    assert_eq!(of(&fake).open().await.unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn clearing_is_done_once_and_tried_often() {
    let Trial { fake, mut ours, .. } = opened().await;
    ours.inject(&disconnect()).await.unwrap();
    fake.lie(Some(Lie::Fails(3)));
    ours.clear().await.unwrap();
    assert!(fake.enabled() && fake.toxics().is_empty());
    let changes = fake.changes();
    ours.clear().await.unwrap();
    assert_eq!(fake.changes(), changes, "nothing is left to do");
}

#[tokio::test]
async fn what_stays_is_said_with_the_way_to_remove_it() {
    let Trial { fake, mut ours, .. } = opened().await;
    ours.inject(&latency(1)).await.unwrap();
    fake.lie(Some(Lie::KeepsToxics));
    let begun = Instant::now();
    let error = ours.clear().await.unwrap_err();
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    let curl = format!("curl -X DELETE {}/proxies/{NAME}/toxics/springtide_latency", fake.api_url);
    says(&error, &["by hand", &curl]);
    assert!(!error.to_string().contains("enabled\":true"), "it is enabled: {error}");
}

#[tokio::test]
async fn one_that_is_gone_or_silent_ends_in_an_error_in_time() {
    let Trial { mut fake, mut ours, .. } = opened().await;
    ours.inject(&disconnect()).await.unwrap();
    fake.kill();
    tokio::time::pause();
    let error = ours.clear().await.unwrap_err();
    says(&error, &["by hand", "no answer", "curl -X POST -d '{\"enabled\":true}'", "springtide_disabled"]);
    says(
        &of(&fake).open().await.unwrap_err(),
        &["--toxiproxy ", &fake.api_url, "is toxiproxy-server running"],
    );

    // It takes connections and never answers.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", silent.local_addr().unwrap());
    let error = Toxiproxy::new(&url, NAME).unwrap().open().await.unwrap_err();
    says(&error, &["none within 5 s"]);
}

#[tokio::test]
async fn the_fake_answers_as_the_original_does() {
    let Trial { fake, .. } = opened().await;
    let http = reqwest::Client::new();
    let latency = json!({"type": "latency", "attributes": {"latency": 5}});
    assert_eq!((add(&fake, &latency).await, add(&fake, &latency).await), (200, 409));
    assert_eq!(fake.toxics()[0]["name"], "latency_downstream");
    assert_eq!(add(&fake, &json!({"type": "nonsense"})).await, 400);
    assert_eq!(add(&fake, &json!({"type": "latency", "stream": "sideways"})).await, 400);
    let gone = http.get(format!("{}/proxies/none", fake.api_url)).send().await.unwrap();
    assert_eq!(gone.status(), 404);
    assert_eq!(gone.text().await.unwrap(), "{\"error\":\"proxy not found\",\"status\":404}\n");
    let toxic = format!("{}/proxies/{NAME}/toxics/latency_downstream", fake.api_url);
    assert_eq!(http.delete(&toxic).send().await.unwrap().status(), 204);
    assert_eq!(http.delete(&toxic).send().await.unwrap().status(), 404);
}

/// Submits a job of one task.
async fn submit(backend: &StandIn) {
    let http = reqwest::Client::new();
    let account = r#"{"username":"u","password":"p"}"#;
    let url = |path: &str| format!("{}{path}", backend.url());
    http.put(url("/auth/register")).body(account).send().await.unwrap();
    let login = http.post(url("/auth/login")).body(account).send().await.unwrap();
    let cookies = login.headers().get_all("set-cookie").iter();
    let pairs: Vec<&str> = cookies.map(|c| c.to_str().unwrap().split(';').next().unwrap()).collect();
    let body = r#"{"input_type":"files","sim_type":"shieldhit","ntasks":1,"input_files":{"info.json":"{}","beam.dat":"NSTAT 10 0\n"}}"#;
    let request = http.post(url("/jobs/direct")).header("cookie", pairs.join("; ")).body(body);
    assert_eq!(request.send().await.unwrap().status(), 202);
}

/// Waits until the truth fits.
async fn until(backend: &StandIn, what: &str, fits: impl Fn(&Truth) -> bool) {
    let all = async {
        while !fits(&backend.truth()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), all).await.expect(what);
}

#[tokio::test]
async fn workers_with_retries_get_through_when_the_fault_is_gone() {
    for (retries, fault) in [
        (Retries::Exponential, drop_of(100)),
        (Retries::Exponential, disconnect()),
        (Retries::None, disconnect()),
    ] {
        let task_time = Duration::from_millis(20);
        let backend = StandIn::start(Config { retries, task_time, ..Config::default() }).unwrap();
        let fake = FakeToxiproxy::start(backend.url());
        let mut ours = of(&fake);
        ours.open().await.unwrap();
        backend.post_through(ours.listen()).unwrap();
        ours.inject(&fault).await.unwrap();
        submit(&backend).await;
        if retries == Retries::None {
            until(&backend, "a death", |truth| truth.jobs[0].died_of == Some(Route::Tasks)).await;
            continue;
        }
        until(&backend, "a repeat", |truth| truth.worker_retries.values().sum::<u64>() > 0).await;
        assert!(backend.truth().worker.is_empty(), "{fault}: nothing gets through");
        ours.clear().await.unwrap();
        until(&backend, "the job's end", |truth| truth.jobs[0].completed_us.is_some()).await;
        let truth = backend.truth();
        assert_eq!((truth.jobs[0].results_posts, truth.replayed), (1, 0), "{fault}");
    }
}

/// What the fake is made after. `SPRINGTIDE_TEST_TOXIPROXY` is the address of its API.
#[tokio::test]
#[ignore = "needs a toxiproxy-server and SPRINGTIDE_TEST_TOXIPROXY=http://127.0.0.1:8474"]
async fn a_real_toxiproxy_does_as_the_fake() {
    let api = std::env::var("SPRINGTIDE_TEST_TOXIPROXY").expect("the address of a Toxiproxy's API");
    let backend = StandIn::start(Config::default()).unwrap();
    let name = format!("springtide-test-{}", std::process::id());
    let http = reqwest::Client::new();
    let body = json!({"name": name, "listen": "127.0.0.1:0", "upstream": backend.addr().to_string()});
    let made = http.post(format!("{api}/proxies")).body(body.to_string()).send().await.unwrap();
    assert_eq!(made.status(), 201);
    let mut ours = Toxiproxy::new(&api, &name).unwrap();
    assert_eq!(ours.open().await.unwrap(), Vec::<String>::new());
    says(&Toxiproxy::new(&api, "nope").unwrap().open().await.unwrap_err(), &["nope", &name]);
    assert!(get(ours.listen()).await.is_some());

    ours.inject(&latency(400)).await.unwrap();
    assert!(get(ours.listen()).await.unwrap() >= Duration::from_millis(400));
    ours.inject(&drop_of(2)).await.unwrap();
    let before = backend.truth();
    ours.inject(&drop_of(100)).await.unwrap();
    for _ in 0..5 {
        assert_eq!(get(ours.listen()).await, None);
    }
    assert_eq!(backend.truth(), before);
    for _ in 0..2 {
        ours.inject(&disconnect()).await.unwrap();
        assert_eq!(get(ours.listen()).await, None);
        ours.clear().await.unwrap();
        assert!(get(ours.listen()).await.is_some());
    }
    ours.inject(&disconnect()).await.unwrap();
    let mut next = Toxiproxy::new(&api, &name).unwrap();
    assert_eq!(next.open().await.unwrap().len(), 2);
    assert!(get(next.listen()).await.is_some());

    let toxics = format!("{api}/proxies/{name}/toxics");
    http.post(toxics).body(json!({"type": "bandwidth"}).to_string()).send().await.unwrap();
    says(&next.open().await.unwrap_err(), &["bandwidth_downstream"]);
    http.delete(format!("{api}/proxies/{name}")).send().await.unwrap();
    says(&next.open().await.unwrap_err(), &["no such proxy"]);
}
