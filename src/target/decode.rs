//! What the target's answers mean. Unknown fields are ignored, so that another release of the
//! backend does not break a run; missing ones are an error that names them.

use std::collections::{BTreeMap, BTreeSet};

use hyper::header::{HeaderMap, SET_COOKIE};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use sha2::{Digest, Sha256};

use crate::{
    scenario::hex,
    snapshot::{Results, TaskCounts},
    state::JobState,
};

/// Answer to a submit.
#[derive(Debug, Deserialize)]
pub struct Submitted {
    /// Opaque id of the new job.
    pub job_id: String,
}

/// Answer to a poll.
#[derive(Debug, Deserialize)]
pub struct Polled {
    /// The name of its state.
    pub job_state: String,
    /// Its tasks, where the target tells of them.
    #[serde(default)]
    pub job_tasks_status: Vec<TaskStatus>,
}

/// One task, as a poll shows it.
#[derive(Debug, Deserialize)]
pub struct TaskStatus {
    /// The name of its state.
    #[serde(default)]
    pub task_state: String,
}

impl Polled {
    /// The state, if we know its name.
    ///
    /// The target calls a job PENDING unless it finds a task that runs at this very moment, so also
    /// one whose first tasks have ended while the rest waits. A task that is not PENDING any more
    /// shows that the job has begun: it is RUNNING then.
    pub fn state(&self) -> Option<JobState> {
        let pending = JobState::Pending.as_str();
        let begun =
            || self.job_tasks_status.iter().any(|t| !t.task_state.is_empty() && t.task_state != pending);
        match JobState::parse(&self.job_state)? {
            JobState::Pending if begun() => Some(JobState::Running),
            state => Some(state),
        }
    }
}

impl Polled {
    /// How its tasks stand; `None` where the target does not tell of them.
    pub fn tasks(&self) -> Option<TaskCounts> {
        let count =
            |s: JobState| self.job_tasks_status.iter().filter(|t| t.task_state == s.as_str()).count() as u32;
        let all = self.job_tasks_status.len() as u32;
        (all > 0).then(|| TaskCounts {
            all,
            completed: count(JobState::Completed),
            failed: count(JobState::Failed),
        })
    }
}

/// Answer to a cancel.
#[derive(Debug, Deserialize)]
pub struct Canceled {
    /// There when it could not be canceled any more: the state it is in.
    pub job_state: Option<String>,
}

/// One page of the account's jobs.
#[derive(Debug, Deserialize)]
pub struct Simulations {
    /// How many pages there are.
    pub page_count: u64,
    /// The jobs of this page.
    pub simulations: Vec<Simulation>,
}

/// One job of the account.
#[derive(Debug, Deserialize)]
pub struct Simulation {
    /// Its id.
    pub job_id: String,
    /// Its title, ours if it is ours.
    #[serde(default)]
    pub title: Option<String>,
    /// When it ended, if the target says so.
    #[serde(default)]
    pub end_time: Option<String>,
}

/// Reads a JSON answer.
///
/// # Errors
/// One short line without ids: not JSON (and what it looks like), or which field is missing.
pub fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|e| match e.classify() {
        serde_json::error::Category::Data => {
            let text = e.to_string();
            let what = text.split(" at line").next().unwrap_or_default();
            format!("unexpected answer: {what}")
        }
        _ if looks_like_html(body) => "HTML instead of JSON".into(),
        _ if body.is_empty() => "empty body".into(),
        _ => "not JSON".into(),
    })
}

/// A message with `#` for every word that holds a number of three digits or more, so that like
/// counts with like.
fn without_ids(message: &str) -> String {
    let is_id = |word: &&str| word.bytes().filter(u8::is_ascii_digit).count() >= 3;
    let words: Vec<&str> =
        message.split_whitespace().take(30).map(|w| if is_id(&w) { "#" } else { w }).collect();
    words.join(" ").chars().take(120).collect()
}

fn looks_like_html(body: &[u8]) -> bool {
    let start = String::from_utf8_lossy(&body[..body.len().min(256)]).trim_start().to_ascii_lowercase();
    start.starts_with("<!doctype") || start.starts_with("<html")
}

/// The `message` of an answer, shortened; a word on its looks when it has none.
pub fn message(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Message {
        message: String,
    }
    match serde_json::from_slice::<Message>(body) {
        Ok(m) => without_ids(&m.message),
        Err(_) if looks_like_html(body) => "HTML page".into(),
        Err(_) => "no message".into(),
    }
}

/// The cookies an answer sets: name → value.
pub fn cookies(headers: &HeaderMap) -> BTreeMap<String, String> {
    headers
        .get_all(SET_COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok()?.split(';').next()?.split_once('='))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect()
}

#[derive(Deserialize)]
struct ResultsBody {
    estimators: Vec<Estimator>,
    #[serde(default)]
    message: Option<String>,
}

/// The number that the message of whole results ends with: the id by which workers know the job.
fn simulation(message: &str) -> Option<u64> {
    message.strip_prefix("Results for simulation: ")?.trim().parse().ok()
}

#[derive(Deserialize)]
struct Estimator {
    name: String,
    pages: Vec<Page>,
}

#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    dimensions: u32,
    data: PageData,
    #[serde(default)]
    metadata: PageMetadata,
}

#[derive(Deserialize)]
struct PageData {
    values: Vec<Number>,
}

/// A number of which only that it is one matters.
struct Number;

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        f64::deserialize(from).map(|_| Self)
    }
}

#[derive(Default, Deserialize)]
struct PageMetadata {
    #[serde(default)]
    page_number: Option<serde_json::Value>,
}

/// Checks the results of a job: they parse, there is at least one estimator, and each has pages
/// with values. CPU-bound: milliseconds per megabyte.
///
/// # Errors
/// What is wrong with them, without ids.
pub fn results(body: &[u8], wire_bytes: u64) -> Result<Results, String> {
    let ResultsBody { estimators, message } = json(body)?;
    if estimators.is_empty() {
        return Err("no estimators".into());
    }
    let mut names = BTreeSet::new();
    let (mut pages, mut values, mut duplicates) = (0, 0, 0);
    // A target may give estimators and pages in whatever order its database has them.
    let mut shapes = Vec::new();
    for estimator in &estimators {
        duplicates += u32::from(!names.insert(&estimator.name));
        let mut shape = Vec::new();
        if estimator.pages.is_empty() {
            return Err("an estimator without pages".into());
        }
        let mut numbers = BTreeSet::new();
        for page in &estimator.pages {
            if let Some(number) = &page.metadata.page_number {
                duplicates += u32::from(!numbers.insert(number.to_string()));
            }
            if page.data.values.is_empty() {
                return Err("a page without values".into());
            }
            pages += 1;
            values += page.data.values.len() as u64;
            let number = page.metadata.page_number.as_ref().map(ToString::to_string);
            shape.push((number, page.dimensions, page.data.values.len()));
        }
        shape.sort_unstable();
        shapes.push((&estimator.name, shape));
    }
    shapes.sort_unstable();
    Ok(Results {
        simulation: message.as_deref().and_then(simulation),
        wire_bytes,
        body_bytes: body.len() as u64,
        estimators: estimators.len() as u32,
        pages,
        values,
        duplicates,
        shape: hex(&Sha256::digest(format!("{shapes:?}"))),
        sha256: hex(&Sha256::digest(body)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str =
        r#"{"dimensions":0,"data":{"name":"D","unit":"1","values":[1.5]},"metadata":{"page_number":"0"}}"#;

    #[test]
    fn results_are_counted() {
        let body =
            format!(r#"{{"estimators":[{{"name":"a","metadata":{{}},"pages":[{PAGE}]}}],"message":"m"}}"#);
        let r = results(body.as_bytes(), 1).unwrap();
        assert_eq!((r.estimators, r.pages, r.values, r.duplicates), (1, 1, 1, 0));
    }

    #[test]
    fn duplicates_are_seen() {
        let e = format!(r#"{{"name":"a","pages":[{PAGE},{PAGE}]}}"#);
        let body = format!(r#"{{"estimators":[{e},{e}]}}"#);
        assert_eq!(results(body.as_bytes(), 1).unwrap().duplicates, 3);
    }

    #[test]
    fn nonsense_is_named() {
        let said = |body: &[u8]| results(body, 0).unwrap_err();
        assert_eq!(said(b"<!DOCTYPE html><title>x"), "HTML instead of JSON");
        assert_eq!(said(br#"{"estimators":[]}"#), "no estimators");
        assert_eq!(said(br#"{"estimators":[{"name":"a","pages"#), "not JSON");
        assert_eq!(said(br#"{"message":"hm"}"#), "unexpected answer: missing field `estimators`");
    }

    #[test]
    fn a_pending_job_with_a_task_that_ended_has_begun() {
        let state = |body: &str| json::<Polled>(body.as_bytes()).unwrap().state();
        let tasks = |job: &str, tasks: &str| {
            state(&format!(r#"{{"job_state":"{job}","job_tasks_status":[{tasks}],"message":"m"}}"#))
        };
        let (done, waits) = (r#"{"task_id":1,"task_state":"COMPLETED"}"#, r#"{"task_state":"PENDING"}"#);
        assert_eq!(tasks("PENDING", waits), Some(JobState::Pending));
        assert_eq!(tasks("PENDING", &format!("{done},{waits}")), Some(JobState::Running));
        assert_eq!(tasks("MERGING_QUEUED", done), Some(JobState::MergingQueued));
        assert_eq!(state(r#"{"job_state":"UNKNOWN","message":"m"}"#), Some(JobState::Unknown));
        assert_eq!(tasks("BANANA", done), None);
    }

    #[test]
    fn a_message_counts_with_its_like() {
        assert_eq!(
            message(br#"{"message": "Simulation 99999 does not exist"}"#),
            "Simulation # does not exist"
        );
        assert_eq!(message(b"<html>"), "HTML page");
    }

    #[test]
    fn cookies_are_read() {
        let mut headers = HeaderMap::new();
        headers.append(SET_COOKIE, "access_token=abc; HttpOnly; Path=/".parse().unwrap());
        headers.append(SET_COOKIE, "refresh_token=def; Path=/".parse().unwrap());
        let jar = cookies(&headers);
        assert_eq!(jar.get("access_token").map(String::as_str), Some("abc"));
        assert_eq!(jar.len(), 2);
    }
}
