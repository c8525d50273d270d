//! Trials of the whole server over real HTTP: contract texts, the life of a job, the bugs.

mod bugs;
mod contract;
mod flaky;
mod life;
mod metrics;
mod retries;

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;

use super::{Bug, Config, StandIn};

/// No trial waits longer for anything.
const DEADLINE: Duration = Duration::from_secs(20);

/// A healthy server with short tasks.
fn quick() -> Config {
    Config { task_time: Duration::from_millis(30), login_cost: Duration::from_millis(1), ..Config::default() }
}

fn with_bugs(bugs: &[&str]) -> StandIn {
    let bugs: Vec<Bug> = bugs.iter().map(|bug| bug.parse().unwrap()).collect();
    StandIn::start(Config { bugs, ..quick() }).unwrap()
}

fn files_job(ntasks: usize) -> String {
    format!(
        r#"{{"input_type":"files","sim_type":"shieldhit","ntasks":{ntasks},"title":"probe","input_files":{{"info.json":"{{}}","beam.dat":"NSTAT 10000 0\n"}}}}"#
    )
}

/// A status and a body.
#[derive(Debug, PartialEq)]
struct Got {
    status: u16,
    body: String,
    cookies: Vec<String>,
}

impl Got {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn is(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
    }

    fn says(&self, status: u16, message: &str) {
        self.is(status, &format!("{{\"message\":\"{message}\"}}\n"));
    }
}

/// A client with the cookies of one session.
struct Client {
    http: reqwest::Client,
    base: String,
    cookies: String,
}

impl Client {
    fn of(stand_in: &StandIn) -> Self {
        let http = reqwest::Client::builder().timeout(DEADLINE).build().unwrap();
        Self { http, base: stand_in.url().to_owned(), cookies: String::new() }
    }

    async fn logged_in(stand_in: &StandIn) -> Self {
        Self::as_user(stand_in, "loaduser").await
    }

    async fn as_user(stand_in: &StandIn, name: &str) -> Self {
        let mut client = Self::of(stand_in);
        let body = format!(r#"{{"username":"{name}","password":"secret"}}"#);
        client.send(Method::PUT, "/auth/register", &body).await.says(201, "User created");
        let got = client.send(Method::POST, "/auth/login", &body).await;
        assert_eq!(got.status, 202);
        client.take_cookies(&got);
        client
    }

    fn take_cookies(&mut self, got: &Got) {
        let pairs: Vec<&str> = got.cookies.iter().filter_map(|cookie| cookie.split(';').next()).collect();
        self.cookies = pairs.join("; ");
    }

    async fn try_send(&self, method: Method, path: &str, body: &str) -> reqwest::Result<Got> {
        let request = self.http.request(method, format!("{}{path}", self.base));
        let request = request.header("Cookie", &self.cookies).body(body.to_owned());
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let cookies = headers.get_all("set-cookie").iter();
        let cookies = cookies.map(|cookie| cookie.to_str().unwrap().to_owned()).collect();
        Ok(Got { status, body: response.text().await?, cookies })
    }

    async fn send(&self, method: Method, path: &str, body: &str) -> Got {
        self.try_send(method, path, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Got {
        self.send(Method::GET, path, "").await
    }

    async fn post(&self, path: &str, body: &str) -> Got {
        self.send(Method::POST, path, body).await
    }

    async fn submit(&self, ntasks: usize) -> String {
        let got = self.post("/jobs/direct", &files_job(ntasks)).await;
        assert_eq!(got.status, 202, "{got:?}");
        got.json()["job_id"].as_str().unwrap().to_owned()
    }

    async fn state(&self, job_id: &str) -> String {
        let got = self.get(&format!("/jobs?job_id={job_id}")).await;
        got.json()["job_state"].as_str().unwrap_or_else(|| panic!("{got:?}")).to_owned()
    }

    /// Polls until the job is in `state`; the states on the way, without repeats.
    async fn poll_until(&self, job_id: &str, state: &str) -> Vec<String> {
        let mut seen: Vec<String> = Vec::new();
        let begun = Instant::now();
        while seen.last().is_none_or(|last| last != state) {
            assert!(begun.elapsed() < DEADLINE, "waited for {state}, saw {seen:?}");
            let now = self.state(job_id).await;
            if seen.last() != Some(&now) {
                seen.push(now);
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        seen
    }
}

/// Waits until the truth fits.
async fn until(stand_in: &StandIn, what: &str, fits: impl Fn(&super::Truth) -> bool) {
    let begun = Instant::now();
    while !fits(&stand_in.truth()) {
        assert!(begun.elapsed() < DEADLINE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(3)).await;
    }
}
