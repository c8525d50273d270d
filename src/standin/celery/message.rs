//! Messages and results as they lie in Redis: Celery's protocol 2 over kombu's Redis transport.
//!
//! What is written down here are the shapes that celery 5.5 and kombu 5.5 produce
//! (celery/app/amqp.py `as_task_v2`, celery/backends/base.py `_get_result_meta`,
//! kombu/transport/virtual/base.py `prepare_message`), the spaces of Python's `json` included.
//! The results of a job are megabytes: they stay text, and are cut and pasted but never read.

use std::io::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::standin::draw;

/// What a task does; the end of its name at the target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `run_single_simulation`.
    Task,
    /// `set_merging_queued_state`.
    QueueMerge,
    /// `merge_results`.
    Merge,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Self::Task => "yaptide.celery.tasks.run_single_simulation",
            Self::QueueMerge => "yaptide.celery.tasks.set_merging_queued_state",
            Self::Merge => "yaptide.celery.tasks.merge_results",
        }
    }
}

/// The ids of one job's messages; every job has its own, on every start.
#[derive(Debug)]
pub(super) struct Ids {
    pub(super) group: String,
    pub(super) tasks: Vec<String>,
    pub(super) queue_merge: String,
    pub(super) merge: String,
}

impl Ids {
    pub(super) fn new(tasks: usize) -> Self {
        Self {
            group: uuid(),
            tasks: (0..tasks).map(|_| uuid()).collect(),
            queue_merge: uuid(),
            merge: uuid(),
        }
    }

    /// Every id that a message can carry.
    pub(super) fn all(&self) -> impl Iterator<Item = &String> {
        self.tasks.iter().chain([&self.queue_merge, &self.merge])
    }
}

/// A version-4 UUID (RFC 9562).
pub(super) fn uuid() -> String {
    draw::uuid(rand::random())
}

/// Whom a message is about, and on which list it goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) queue: &'a str,
    /// Tells the messages of this start from all others.
    pub(super) origin: &'a str,
    pub(super) simulation: u64,
    pub(super) key: &'a str,
    pub(super) ids: &'a Ids,
}

/// A message ready for the list.
#[derive(Debug)]
pub(super) struct Message {
    pub(super) tag: String,
    pub(super) bytes: Vec<u8>,
}

impl About<'_> {
    /// The message of task `index`.
    pub(super) fn task(&self, index: usize, files: &RawValue, sim_type: &str) -> Message {
        let (simulation, key) = (self.simulation, self.key);
        let chord = self.signature(Step::QueueMerge, &[self.signature(Step::Merge, &[])]);
        let sim_type = Value::from(sim_type);
        let kwargs = format!(
            "{{\"files_dict\": {files}, \"task_id\": {index}, \"update_key\": \"{key}\", \
             \"simulation_id\": {simulation}, \"sim_type\": {sim_type}, \"keep_tmp_files\": false}}"
        );
        let embed =
            format!("{{\"callbacks\": null, \"errbacks\": null, \"chain\": null, \"chord\": {chord}}}");
        let body = format!("[[], {kwargs}, {embed}]");
        self.message(Step::Task, Some(index), body.as_bytes(), &kwargs)
    }

    /// The message of the step after all tasks; `results` are the pieces of a JSON array of results.
    pub(super) fn queue_merge(&self, results: &[&str]) -> Message {
        let chain = format!("[{}]", self.signature(Step::Merge, &[]));
        self.with_results(Step::QueueMerge, results, &chain)
    }

    /// The message of the merge; `results` is the array as the step before got it.
    pub(super) fn merge(&self, results: &str) -> Message {
        let inner = results.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(results);
        self.with_results(Step::Merge, &[inner], "[]")
    }

    fn with_results(&self, step: Step, results: &[&str], chain: &str) -> Message {
        let (simulation, key) = (self.simulation, self.key);
        let length: usize = results.iter().map(|text| text.len() + 2).sum();
        let mut body = Vec::with_capacity(length + 2048);
        body.extend_from_slice(b"[[[");
        for (place, result) in results.iter().enumerate() {
            body.extend_from_slice(if place > 0 { b", " } else { b"" });
            body.extend_from_slice(result.as_bytes());
        }
        let kwargs = format!("{{\"simulation_id\": {simulation}, \"update_key\": \"{key}\"}}");
        let embed = format!("\"callbacks\": null, \"errbacks\": null, \"chain\": {chain}, \"chord\": null");
        body.extend_from_slice(format!("]], {kwargs}, {{{embed}}}]").as_bytes());
        self.message(step, None, &body, &kwargs)
    }

    /// A task to be called later, as it stands inside another's message.
    fn signature(&self, step: Step, chain: &[Value]) -> Value {
        let id = if step == Step::Merge { &self.ids.merge } else { &self.ids.queue_merge };
        let mut options = json!({"task_id": id, "reply_to": self.origin});
        if !chain.is_empty() {
            options["chain"] = Value::from(chain);
        }
        json!({
            "task": step.name(),
            "args": [],
            "kwargs": {"simulation_id": self.simulation, "update_key": self.key},
            "options": options,
            "subtask_type": null,
            "immutable": false,
        })
    }

    fn message(&self, step: Step, index: Option<usize>, body: &[u8], kwargs: &str) -> Message {
        let ids = self.ids;
        let (id, group) = match (step, index) {
            (Step::Task, Some(index)) => (&ids.tasks[index], Some(&ids.group)),
            (Step::QueueMerge, _) => (&ids.queue_merge, None),
            _ => (&ids.merge, None),
        };
        let tag = uuid();
        // Celery writes at most 1024 characters of the arguments.
        let shown: String = kwargs.chars().take(1024).collect();
        let headers = json!({
            "lang": "py", "task": step.name(), "id": id, "shadow": null, "eta": null, "expires": null,
            "group": group, "group_index": index, "retries": 0, "timelimit": [null, null],
            "root_id": ids.tasks.first().unwrap_or(id), "parent_id": null, "argsrepr": "()",
            "kwargsrepr": shown, "origin": self.origin, "ignore_result": false,
            "replaced_task_nesting": 0, "stamped_headers": null, "stamps": {},
        });
        let properties = json!({
            "correlation_id": id, "reply_to": self.origin, "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": self.queue},
            "priority": 0, "body_encoding": "base64", "delivery_tag": tag,
        });
        let mut bytes = Vec::with_capacity(body.len() / 3 * 4 + 4096);
        bytes.extend_from_slice(b"{\"body\": \"");
        encode_onto(body, &mut bytes);
        let rest = format!(
            "\", \"content-encoding\": \"utf-8\", \"content-type\": \"application/json\", \
             \"headers\": {headers}, \"properties\": {properties}}}"
        );
        bytes.extend_from_slice(rest.as_bytes());
        Message { tag, bytes }
    }
}

/// Appends the text in base64.
fn encode_onto(text: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.resize(start + text.len().div_ceil(3) * 4, 0);
    STANDARD.encode_slice(text, &mut out[start..]).expect("there is room for every character");
}

/// What `unacked` holds of a message: with exchange and list (kombu/transport/redis.py, `QoS.append`).
pub(super) fn unacked(message: &[u8], queue: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.len() + queue.len() + 16);
    out.push(b'[');
    out.extend_from_slice(message);
    out.extend_from_slice(format!(", \"\", {}]", Value::from(queue)).as_bytes());
    out
}

/// A message found on the list.
#[derive(Debug, Deserialize)]
pub(super) struct Found<'a> {
    body: &'a str,
    #[serde(borrow)]
    headers: Headers<'a>,
    #[serde(borrow)]
    properties: Properties<'a>,
}

#[derive(Debug, Deserialize)]
struct Headers<'a> {
    task: &'a str,
    id: &'a str,
    origin: &'a str,
}

#[derive(Debug, Deserialize)]
struct Properties<'a> {
    delivery_tag: &'a str,
}

impl<'a> Found<'a> {
    /// `None` for what is not a message of this form.
    pub(super) fn read(bytes: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }

    pub(super) fn step(&self) -> Option<Step> {
        [Step::Task, Step::QueueMerge, Step::Merge].into_iter().find(|step| step.name() == self.headers.task)
    }

    pub(super) fn id(&self) -> &'a str {
        self.headers.id
    }

    pub(super) fn tag(&self) -> &'a str {
        self.properties.delivery_tag
    }

    pub(super) fn origin(&self) -> &'a str {
        self.headers.origin
    }

    /// The body, out of base64.
    pub(super) fn body(&self) -> Option<Vec<u8>> {
        STANDARD.decode(self.body).ok()
    }
}

#[derive(Deserialize)]
struct TaskKwargs {
    task_id: usize,
    simulation_id: u64,
}

/// What a task's body asks for: simulation and index.
pub(super) fn asked(body: &[u8]) -> Option<(u64, usize)> {
    let (_, kwargs, _): (IgnoredAny, TaskKwargs, IgnoredAny) = serde_json::from_slice(body).ok()?;
    Some((kwargs.simulation_id, kwargs.task_id))
}

/// The array of results in the body of a later step.
pub(in crate::standin) fn results_in(body: &[u8]) -> Option<&str> {
    type Body<'a> = ((&'a RawValue,), IgnoredAny, IgnoredAny);
    let ((results,), ..): Body<'_> = serde_json::from_slice(body).ok()?;
    Some(results.get())
}

/// The items of an array, as text.
pub(in crate::standin) fn items(array: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(array).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// What lies under `celery-task-meta-<id>`.
pub(super) fn meta(id: &str, group: Option<&str>, result: &str, date_done: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(result.len() + 512);
    let head = b"{\"status\": \"SUCCESS\", \"result\": ";
    out.extend_from_slice(head);
    out.extend_from_slice(result.as_bytes());
    let tail = format!(", \"traceback\": null, \"children\": [], \"date_done\": \"{date_done}\"");
    out.extend_from_slice(tail.as_bytes());
    if let Some(group) = group {
        out.extend_from_slice(format!(", \"group_id\": \"{group}\"").as_bytes());
    }
    out.extend_from_slice(format!(", \"task_id\": \"{id}\"}}").as_bytes());
    out
}

/// A member of the chord's sorted set.
pub(super) fn chord_part(id: &str, result: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(result.len() + 64);
    let wrote = write!(out, "[1, \"{id}\", \"SUCCESS\", {result}]");
    wrote.expect("a vector takes every text");
    out
}

/// The result in a member of the chord's sorted set.
pub(super) fn result_of_part(part: &[u8]) -> Option<&str> {
    let (_, _, _, result): (u8, &str, &str, &RawValue) = serde_json::from_slice(part).ok()?;
    Some(result.get())
}
