//! A real Prometheus beside a run, with the shipped configuration, rules and dashboard: it reads our
//! page, and every query that is shipped has an answer.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::process::Signal;
use serde_json::Value;
use springtide::estimate::Buckets;
use tempfile::TempDir;

use crate::{
    odd::Odd,
    scrape::{exposition, page_of},
    support::{Run, end, shared, wait_for},
};

/// Long enough for a few scrapes of five seconds and the rules behind them, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

/// A program of the Debian package `prometheus`.
fn program(name: &str) -> Command {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&paths).map(|folder| folder.join(name)).find(|path| path.is_file());
    Command::new(found.unwrap_or_else(|| {
        panic!("{name} is not installed: make test installs it (Debian package prometheus)")
    }))
}

/// A Prometheus of our own.
struct Prometheus {
    child: Child,
    url: String,
    folder: TempDir,
}

impl Prometheus {
    /// Starts one with the shipped files, in which nothing but the targets is changed.
    fn start(targets: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut config = fs::read_to_string(deploy().join("prometheus/prometheus.yml")).unwrap();
        for (shipped, ours) in targets {
            let (from, to) = (format!("[\"{shipped}\"]"), format!("[\"{ours}\"]"));
            assert_eq!(config.matches(&from).count(), 1, "{shipped}");
            config = config.replace(&from, &to);
        }
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        fs::copy(deploy().join("prometheus/rules.yml"), folder.path().join("rules.yml")).unwrap();
        let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let said = |name: &str| Stdio::from(fs::File::create(folder.path().join(name)).unwrap());
        let child = program("prometheus")
            .arg(format!("--config.file={}", folder.path().join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=warn")
            .stdin(Stdio::null())
            .stdout(said("out"))
            .stderr(said("err"))
            .spawn()
            .unwrap();
        let started = Self { child, url: format!("http://{addr}"), folder };
        wait_for("Prometheus", PATIENCE, || {
            started.get("/-/ready").ok().filter(|(status, _)| *status == 200)
        });
        started
    }

    fn get(&self, path: &str) -> Result<(u16, Vec<u8>), reqwest::Error> {
        let url = format!("{}{path}", self.url);
        let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
            let answer = client.get(url).send().await?;
            Ok((answer.status().as_u16(), answer.bytes().await?.to_vec()))
        })
    }

    /// The data of an answer of its API; what it says when it is an error fails the test.
    #[track_caller]
    fn api(&self, path: &str) -> Value {
        let (status, body) = self.get(&format!("/api/v1/{path}")).unwrap();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert!(status == 200 && answer["status"] == "success", "{path}: {answer}\n{}", self.err());
        answer["data"].clone()
    }

    /// The series that a query finds now.
    #[track_caller]
    fn query(&self, query: &str) -> Vec<Value> {
        let encoded = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let data = self.api(&format!("query?query={encoded}"));
        data["result"].as_array().unwrap().clone()
    }

    /// Waits until a query finds something.
    #[track_caller]
    fn finds(&self, query: &str) -> Vec<Value> {
        wait_for(query, PATIENCE, || Some(self.query(query)).filter(|found| !found.is_empty()))
    }

    fn err(&self) -> String {
        fs::read_to_string(self.folder.path().join("err")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// The number of a query's result.
fn value(series: &Value) -> f64 {
    series["value"][1].as_str().unwrap().parse().unwrap()
}

/// A backend that is asked for the nth time, as its metrics have it.
fn yaptide(n: u32) -> String {
    let n = n + 1;
    let mut text = String::new();
    for (name, labels, bounds) in [
        ("yaptide_stage_duration_seconds", "stage=\"merge\"", ["0.5", "1.0", "2.5"]),
        ("yaptide_job_duration_seconds", "state=\"COMPLETED\"", ["1.0", "5.0", "10.0"]),
        ("yaptide_payload_bytes", "kind=\"results\"", ["1000.0", "1000000.0", "2000000.0"]),
        ("yaptide_http_request_duration_seconds", "route=\"/jobs\",method=\"GET\"", ["0.01", "0.1", "1.0"]),
    ] {
        text += &format!("# TYPE {name} histogram\n");
        for (le, of_each) in bounds.into_iter().zip([1, 4, 9]).chain([("+Inf", 10)]) {
            text += &format!("{name}_bucket{{{labels},le=\"{le}\"}} {}\n", n * of_each);
        }
        text += &format!("{name}_sum{{{labels}}} {}\n{name}_count{{{labels}}} {}\n", n * 15, n * 10);
    }
    text + "# EOF\n"
}

/// Every query of the dashboard, with what it is for.
fn dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(deploy().join("grafana/springtide.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((panel["title"].to_string(), target["expr"].as_str().unwrap().to_owned()));
        }
    }
    for annotation in dashboard["annotations"]["list"].as_array().unwrap() {
        all.push((annotation["name"].to_string(), annotation["expr"].as_str().unwrap().to_owned()));
    }
    // As Grafana fills its variables in.
    all.iter_mut()
        .for_each(|(_, expr)| *expr = expr.replace("$scenario", ".*").replace("$__rate_interval", "20s"));
    assert!(all.iter().all(|(_, expr)| !expr.contains('$')), "{all:#?}");
    all
}

#[test]
fn promtool_has_nothing_to_say_against_the_shipped_files() {
    for (what, file) in [("config", "prometheus.yml"), ("rules", "rules.yml")] {
        let output = program("promtool")
            .args(["check", what])
            .arg(deploy().join("prometheus").join(file))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success() && said.contains("SUCCESS"), "{said}");
    }
}

#[test]
fn every_query_that_is_shipped_has_an_answer_while_a_run_goes_on() {
    let _shared = shared();
    let (asked, open) = (AtomicU32::new(0), "application/openmetrics-text; version=1.0.0; charset=utf-8");
    let backend = Odd::start(false, move |_| exposition(open, yaptide(asked.fetch_add(1, Ordering::SeqCst))));
    let redis = Odd::start(false, |_| exposition("text/plain; version=0.0.4", "redis_up 1\n"));
    let matrix = "[[scenario]]\nid = \"S7\"\nconcurrent_jobs = 2\ntasks = 2\nfault = \"latency\"\nlevels = [{ delay = \"50ms\" }]\nrepetitions = 1\n";
    let going = Run::small()
        .file("m.toml", matrix)
        .set("matrix", "m.toml")
        .set("scenario", "S7")
        .once()
        .set("run-time", "5m")
        .set("metrics-listen", "127.0.0.1:0")
        .within(Duration::from_secs(400))
        .start();
    let page = page_of(&going);
    let addr = |url: &str| url.strip_prefix("http://").unwrap().to_owned();
    let prometheus = Prometheus::start(&[
        ("127.0.0.1:9646", &addr(&page)),
        ("127.0.0.1:5000", &addr(&backend.url)),
        ("127.0.0.1:9121", &addr(&redis.url)),
    ]);

    // All three are read, and nothing of what they say is refused.
    for job in ["springtide", "yaptide", "redis"] {
        wait_for(job, PATIENCE, || {
            let up = prometheus.query(&format!("up{{job=\"{job}\"}} == 1"));
            (!up.is_empty()).then_some(())
        });
    }
    let targets = prometheus.api("targets")["activeTargets"].clone();
    for target in targets.as_array().unwrap() {
        assert_eq!(target["lastError"], "", "{target}");
    }

    // The names of DESIGN 8, with the scenario and never a job's id.
    for name in [
        "springtide_http_request_duration_seconds_bucket",
        "springtide_job_stage_duration_seconds_bucket{stage=\"merge\"}",
        "springtide_job_duration_seconds_bucket{outcome=\"fetched\"}",
        "springtide_jobs_total{outcome=\"fetched\"} > 0",
        "springtide_jobs_in_flight",
        "springtide_polls_total",
        "springtide_payload_bytes_bucket{kind=\"results\"}",
        "springtide_fault_active{mode=\"latency\"} == 1",
        "springtide_worker_up",
        "springtide_run_info{stand_in=\"true\"}",
    ] {
        let found = prometheus.finds(name);
        let labels = found[0]["metric"].as_object().unwrap();
        let is_of_run = name.contains("worker_up") || name.contains("run_info");
        assert!(is_of_run || labels["scenario"] == "S7", "{labels:?}");
        assert!(!labels.contains_key("job_id"), "{labels:?}");
    }

    for (what, query) in dashboard() {
        assert!(!prometheus.finds(&query).is_empty(), "{what}");
    }
    let scenarios = prometheus.api("label/scenario/values?match[]=springtide_jobs_total");
    assert_eq!(scenarios, serde_json::json!(["S7"]));

    let groups = prometheus.api("rules")["groups"].clone();
    let rules: Vec<&Value> =
        groups.as_array().unwrap().iter().flat_map(|g| g["rules"].as_array().unwrap()).collect();
    assert!(rules.len() >= 10, "{groups}");
    for rule in rules {
        assert!(rule["health"] == "ok" && rule.get("lastError").is_none(), "{rule}");
        if rule["type"] == "recording" {
            prometheus.finds(rule["name"].as_str().unwrap());
        }
    }

    // Our line through a bucket is theirs.
    let theirs = |q: f64| {
        let merge = "sum by (le) (yaptide_stage_duration_seconds_bucket{stage=\"merge\"})";
        value(&prometheus.finds(&format!("histogram_quantile({q}, {merge})"))[0])
    };
    let points = vec![(0.5, 1.0), (1.0, 4.0), (2.5, 9.0), (f64::INFINITY, 10.0)];
    let ours = Buckets::of_cumulative(points, None).unwrap();
    for q in [0.05, 0.25, 0.5, 0.8, 0.95] {
        let (a, b) = (ours.quantile(q).unwrap().value, theirs(q));
        assert!((a - b).abs() < 1e-9, "p{q}: {a} here, {b} there");
    }

    going.signal(Signal::INT);
    going.ends().leaves_with(130);
}
