//! Fetching messages: one connection that waits at the list, and `unacked` until work starts.

use std::sync::Arc;
use std::time::Duration;

use redis::{RedisError, Value};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::link::RESULTS;
use super::message::{self, Found, Step};
use super::{Celery, PREFETCH, SEPARATOR, Signed};
use crate::standin::clock::now_us;

/// kombu looks at four lists, one for each step of priority; only the first is used.
const PRIORITIES: [u8; 3] = [3, 6, 9];

/// BRPOP waits so long, in seconds, as kombu's does.
const WAIT_S: u64 = 1;

/// The pause before another connection, and after a message that is not ours.
const PAUSE: Duration = Duration::from_millis(200);

/// Fetched messages may take so many KiB; one more is fetched then, and waits.
const HELD_KIB: u32 = 64 * 1024;

/// A message that a worker may start on.
#[derive(Debug)]
pub(in crate::standin) struct Delivery {
    job: Arc<Signed>,
    assigned: Assigned,
    tag: String,
    held: Held,
}

/// A message's part of what may be held; given back when dropped.
#[derive(Debug)]
pub(in crate::standin) struct Held(
    #[expect(dead_code, reason = "held, not read")] Option<OwnedSemaphorePermit>,
);

impl Delivery {
    pub(in crate::standin) fn job(&self) -> &Arc<Signed> {
        &self.job
    }

    pub(in crate::standin) fn open(self) -> (Arc<Signed>, Assigned, Held) {
        (self.job, self.assigned, self.held)
    }
}

/// What the message asks for.
#[derive(Debug)]
pub(in crate::standin) enum Assigned {
    /// Simulate the task with this index.
    Task(usize),
    /// Say that the merge is queued, and queue it; the body of the message.
    QueueMerge(Vec<u8>),
    /// Average what is in the body.
    Merge(Vec<u8>),
}

/// What was read out of a message.
struct Parts {
    tag: String,
    id: String,
    ours: bool,
    assigned: Option<Assigned>,
}

impl Celery {
    /// The channel between the one who fetches and the workers.
    pub(in crate::standin) fn inbox(slots: usize) -> (mpsc::Sender<Delivery>, mpsc::Receiver<Delivery>) {
        mpsc::channel(PREFETCH * slots)
    }

    /// Fetches until nobody listens any more; a lost connection is made anew.
    pub(in crate::standin) async fn consume(self: Arc<Self>, workers: mpsc::Sender<Delivery>) {
        let room = Arc::new(Semaphore::new(HELD_KIB as usize));
        while !workers.is_closed() {
            if let Err(error) = self.consume_over_one(&workers, &room).await {
                tracing::debug!(%error, "the list cannot be read");
                self.link.record.lost();
                tokio::time::sleep(PAUSE).await;
            }
        }
    }

    async fn consume_over_one(
        &self,
        workers: &mpsc::Sender<Delivery>,
        room: &Arc<Semaphore>,
    ) -> Result<(), RedisError> {
        let mut connection = self.link.fresh().await?;
        let mut pop = redis::cmd("BRPOP");
        pop.arg(&self.queue);
        for priority in PRIORITIES {
            pop.arg(format!("{}{SEPARATOR}{priority}", self.queue));
        }
        pop.arg(WAIT_S);
        while !workers.is_closed() {
            self.link.record.went_one(&pop);
            let reply: Value = pop.query_async(&mut connection).await?;
            self.link.record.came(&reply);
            let Value::Array(mut parts) = reply else { continue };
            let (Some(Value::BulkString(message)), Some(Value::BulkString(list))) =
                (parts.pop(), parts.pop())
            else {
                continue;
            };
            if let Some(delivery) = self.reserve(&list, message, room).await {
                // Nobody listens only when the stand-in stops.
                let _ = workers.send(delivery).await;
            }
        }
        Ok(())
    }

    /// Notes the message as fetched, and finds the job it belongs to.
    async fn reserve(&self, list: &[u8], message: Vec<u8>, room: &Arc<Semaphore>) -> Option<Delivery> {
        let kib = u32::try_from(message.len() / 1024).unwrap_or(HELD_KIB).min(HELD_KIB);
        let held = Arc::clone(room).acquire_many_owned(kib).await.ok();
        let (origin, queue) = (self.origin.clone(), self.queue.clone());
        let read = move || {
            let parts = take_apart(&message, &origin);
            let noted = message::unacked(&message, &queue);
            (parts, noted, message)
        };
        let (parts, noted, message) = tokio::task::spawn_blocking(read).await.ok()?;
        let Some(Parts { tag, id, assigned, ours: true }) = parts else {
            self.put_back(list, message).await;
            return None;
        };
        drop(message);
        self.link.record.reserved(&tag);
        let mut note = redis::pipe();
        note.atomic();
        let now = now_us() as f64 / 1e6;
        note.cmd("ZADD").arg("unacked_index").arg(now).arg(&tag);
        note.cmd("HSET").arg("unacked").arg(&tag).arg(noted);
        if let Err(error) = self.link.run(&note, RESULTS).await {
            tracing::debug!(%error, "a message was not noted as fetched");
        }
        let job = self.jobs().get(&id).cloned();
        match (job, assigned) {
            (Some(job), Some(assigned)) => Some(Delivery { job, assigned, tag, held: Held(held) }),
            // Of a job that is over: a repeat after a lost reply, most likely.
            _ => {
                self.acknowledge(&tag).await;
                None
            }
        }
    }

    /// A worker starts on it: acknowledged early, as Celery does unless told otherwise.
    pub(in crate::standin) async fn started(&self, delivery: &Delivery) {
        self.acknowledge(&delivery.tag).await;
    }

    async fn acknowledge(&self, tag: &str) {
        let mut drop = redis::pipe();
        drop.atomic();
        drop.cmd("ZREM").arg("unacked_index").arg(tag);
        drop.cmd("HDEL").arg("unacked").arg(tag);
        match self.link.run(&drop, RESULTS).await {
            Ok(_) => self.link.record.acked(tag),
            Err(error) => tracing::debug!(%error, "a message was not acknowledged"),
        }
    }

    /// Somebody else's message goes back to its list, behind all others.
    async fn put_back(&self, list: &[u8], message: Vec<u8>) {
        tracing::warn!(queue = self.queue, "found a message that is not the stand-in's and put it back");
        let mut back = redis::pipe();
        back.cmd("LPUSH").arg(list).arg(message);
        if let Err(error) = self.link.run(&back, RESULTS).await {
            tracing::warn!(%error, "a message that is not the stand-in's was lost");
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// `None` for what is no message at all.
fn take_apart(message: &[u8], origin: &str) -> Option<Parts> {
    let found = Found::read(message)?;
    let (tag, id) = (found.tag().to_owned(), found.id().to_owned());
    let assigned = found.step().zip(found.body()).and_then(|(step, body)| match step {
        Step::Task => message::asked(&body).map(|(_, index)| Assigned::Task(index)),
        Step::QueueMerge => Some(Assigned::QueueMerge(body)),
        Step::Merge => Some(Assigned::Merge(body)),
    });
    Some(Parts { tag, id, ours: found.origin() == origin, assigned })
}
