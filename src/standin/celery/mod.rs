//! Celery's traffic over a Redis: every task, every result and every step crosses it as at the
//! target, so that what one sees there (memory, traffic, keys, commands) is of the same kind.
//!
//! The pattern is that of celery 5.5 with kombu 5.5, their defaults untouched: messages wait on one
//! list (LPUSH, BRPOP), are noted in `unacked` until a worker starts on them, results are stored for
//! a day under `celery-task-meta-<id>`, and the chord of a job gathers its tasks' results in
//! `celery-taskset-meta-<group>.j` until they are as many as `….s` says. The work is in the messages:
//! a worker does what it popped, and a merge averages the results it was handed.
//!
//! What is left out: events, remote control, results that somebody waits for, and the redelivery of
//! what was fetched and not acknowledged within an hour.

mod broker;
mod cleaning;
mod consumer;
mod link;
mod message;
mod record;
mod results;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use redis::{RedisError, Value};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio_util::sync::CancellationToken;

pub use broker::{Broker, BrokerError};
pub(super) use consumer::{Assigned, Delivery};
pub(super) use message::{items, results_in};

use super::truth::RedisTruth;
use super::worker::Chord;
use link::Link;
use message::{About, Ids, Message};

/// How long results and chords stay: `result_expires`, a day.
const LIFE: u64 = 86_400;

/// Messages that were fetched and wait for a free worker, for each of them: `worker_prefetch_multiplier`.
const PREFETCH: usize = 4;

/// How long the claim on a list stays after its stand-in died, and how often it is renewed.
const CLAIM: Duration = Duration::from_secs(15);
const RENEW: Duration = Duration::from_secs(4);

/// Between the parts of a binding (kombu/transport/redis.py, `sep`).
const SEPARATOR: &str = "\x06\x16";

/// One job as its messages name it.
#[derive(Debug)]
pub(super) struct Signed {
    pub(super) chord: Arc<Chord>,
    ids: Ids,
}

impl Signed {
    /// The id of the message of task `index`.
    pub(super) fn task_id(&self, index: usize) -> Option<&str> {
        self.ids.tasks.get(index).map(String::as_str)
    }
}

/// The queue over Redis.
#[derive(Debug)]
pub(super) struct Celery {
    link: Link,
    queue: String,
    /// Marks the messages of this start.
    origin: String,
    /// Whether the declaration of the list is ours.
    declared: bool,
    /// By the id of any of its messages.
    jobs: Mutex<HashMap<String, Arc<Signed>>>,
}

/// The part of an inputs reply that goes into the messages.
#[derive(Deserialize)]
struct Inputs<'a> {
    #[serde(borrow)]
    input: InputFiles<'a>,
}

#[derive(Deserialize)]
struct InputFiles<'a> {
    #[serde(borrow)]
    input_files: &'a RawValue,
}

impl Celery {
    /// Connects, claims the list, and declares it as a worker does.
    ///
    /// # Errors
    /// The URL is none, nobody answers, or the list is somebody else's.
    pub(super) async fn open(broker: &Broker) -> Result<Self, BrokerError> {
        let link = Link::to(broker)?;
        let origin = message::uuid();
        let mut celery =
            Self { link, queue: broker.queue.clone(), origin, declared: false, jobs: Mutex::default() };
        let at = celery.link.at();
        let refused = |error: RedisError| BrokerError::Refused { at: at.clone(), reason: error.to_string() };
        let (queue, claim) = (&celery.queue, celery.claim());
        let mut look = redis::pipe();
        look.cmd("LLEN").arg(queue);
        look.cmd("SET").arg(&claim).arg(&celery.origin).arg("NX").arg("PX").arg(millis(CLAIM));
        look.cmd("PTTL").arg(&claim);
        let found = match celery.link.once(&look).await {
            Ok(found) => found,
            Err(error) => {
                // The claim may stand already. That it cannot be given up is no news then.
                let _ = celery.release().await;
                return Err(refused(error));
            }
        };
        let number = |value: Option<&Value>| match value {
            Some(Value::Int(number)) => u64::try_from(*number).unwrap_or(0),
            _ => 0,
        };
        if found.get(1) != Some(&Value::Okay) {
            let wait_s = number(found.get(2)).div_ceil(1000);
            return Err(BrokerError::Claimed { at, queue: queue.clone(), wait_s });
        }
        celery.link.record.fixed(&claim);
        let messages = number(found.first());
        if messages > 0 {
            celery.release().await.map_err(refused)?;
            return Err(BrokerError::InUse { at, queue: queue.clone(), messages });
        }
        let (binding, member) = celery.binding();
        let mut declare = redis::pipe();
        declare.cmd("EXISTS").arg(&binding);
        declare.cmd("SADD").arg(&binding).arg(member);
        let declared = celery.link.once(&declare).await.map_err(refused)?;
        // A member of ours in a set of somebody else's is taken away, but is no key of ours.
        celery.declared = declared.get(1) == Some(&Value::Int(1));
        if celery.declared && declared.first() == Some(&Value::Int(0)) {
            celery.link.record.fixed(&binding);
        }
        Ok(celery)
    }

    /// Puts a job's tasks on the list, in the order of celery/canvas.py `_apply_tasks`: the size of
    /// the chord goes before the last of them.
    ///
    /// # Errors
    /// Redis cannot be reached or refuses.
    pub(super) async fn publish(&self, chord: &Arc<Chord>, inputs: &Bytes) -> Result<(), RedisError> {
        let count = chord.size();
        let job = Arc::new(Signed { chord: Arc::clone(chord), ids: Ids::new(count) });
        let files = serde_json::from_slice::<Inputs<'_>>(inputs).map(|inputs| inputs.input.input_files);
        let files = files.map(RawValue::to_owned).unwrap_or_default();
        let about = self.about(&job);
        let mut messages: Vec<Message> =
            (0..count).map(|index| about.task(index, &files, chord.sim_type())).collect();
        {
            let mut jobs = self.jobs();
            jobs.extend(job.ids.all().map(|id| (id.clone(), Arc::clone(&job))));
        }
        let last = messages.pop();
        let mut commands = redis::pipe();
        for message in &messages {
            self.push(&mut commands, message);
        }
        let size = self.chord_key(&job.ids.group, 's');
        self.link.record.chord(&size);
        commands.cmd("SETEX").arg(&size).arg(LIFE).arg(count).ignore();
        commands.cmd("PUBLISH").arg(&size).arg(count).ignore();
        if let Some(last) = &last {
            self.push(&mut commands, last);
        }
        let sent = self.link.run(&commands, link::PUBLISHING).await;
        if sent.is_err() {
            self.forget(&job);
        }
        sent.map(|_| ())
    }

    /// Renews the claim until stopped; a Redis that was away gets it anew.
    pub(super) async fn hold_claim(self: Arc<Self>, stop: CancellationToken) {
        let mut again = redis::pipe();
        again.cmd("SET").arg(self.claim()).arg(&self.origin).arg("PX").arg(millis(CLAIM));
        while stop.run_until_cancelled(tokio::time::sleep(RENEW)).await.is_some() {
            if let Err(error) = self.link.once(&again).await {
                tracing::debug!(%error, "the claim was not renewed");
            }
        }
    }

    /// No message of the job is worth anything any more.
    pub(super) fn forget(&self, job: &Signed) {
        let mut jobs = self.jobs();
        for id in job.ids.all() {
            jobs.remove(id);
        }
    }

    /// What was moved and stored.
    pub(super) fn truth(&self) -> RedisTruth {
        self.link.record.truth()
    }

    fn about<'a>(&'a self, job: &'a Signed) -> About<'a> {
        About {
            queue: &self.queue,
            origin: &self.origin,
            simulation: job.chord.simulation(),
            key: job.chord.key(),
            ids: &job.ids,
        }
    }

    fn push(&self, commands: &mut redis::Pipeline, message: &Message) {
        self.link.record.waits(&message.tag);
        commands.cmd("LPUSH").arg(&self.queue).arg(&message.bytes).ignore();
    }

    fn claim(&self) -> String {
        format!("springtide:stand-in:{}", self.queue)
    }

    /// Key and member (kombu/transport/redis.py, `_queue_bind`).
    fn binding(&self) -> (String, String) {
        let queue = &self.queue;
        (format!("_kombu.binding.{queue}"), format!("{queue}{SEPARATOR}{SEPARATOR}{queue}"))
    }

    /// `j` holds the results, `s` how many there must be, `t` how many more or fewer.
    fn chord_key(&self, group: &str, which: char) -> String {
        format!("celery-taskset-meta-{group}.{which}")
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<String, Arc<Signed>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
