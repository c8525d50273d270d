//! What a worker leaves behind: results for a day, and the chord's count of them.

use std::sync::Arc;

use redis::{Pipeline, RedisError, Value};

use super::link::{PUBLISHING, RESULTS};
use super::message::{self, Message};
use super::{Celery, LIFE, Signed};
use crate::standin::clock::{in_result, now_us};
use crate::standin::truth::ResultKind;

impl Celery {
    /// Task `index` returned `result`: it is stored, and counted in the chord
    /// (celery/backends/redis.py, `on_chord_part_return`). The last one starts the next step.
    ///
    /// # Errors
    /// Redis cannot be reached or refuses.
    pub(in crate::standin) async fn task_done(
        self: &Arc<Self>,
        job: &Arc<Signed>,
        index: usize,
        result: String,
    ) -> Result<(), RedisError> {
        let Some(id) = job.ids.tasks.get(index).cloned() else { return Ok(()) };
        let group = job.ids.group.clone();
        let done = in_result(now_us());
        let write = {
            let (id, group) = (id.clone(), group.clone());
            move || (message::meta(&id, Some(&group), &result, &done), message::chord_part(&id, &result))
        };
        let Ok((meta, part)) = tokio::task::spawn_blocking(write).await else { return Ok(()) };
        self.store(&id, meta, ResultKind::Task).await?;

        let [results, more, size] = ['j', 't', 's'].map(|which| self.chord_key(&group, which));
        self.link.record.chord(&results);
        let mut count = redis::pipe();
        count.atomic();
        count.cmd("ZADD").arg(&results).arg(index).arg(part);
        count.cmd("ZCOUNT").arg(&results).arg("-inf").arg("+inf");
        count.cmd("GET").arg(&more);
        count.cmd("GET").arg(&size);
        for key in [&results, &more, &size] {
            count.cmd("EXPIRE").arg(key).arg(LIFE);
        }
        let counted = self.link.run(&count, RESULTS).await?;
        drop(count);
        let size = number(counted.get(3));
        if size.is_none() || number(counted.get(1)) != size {
            return Ok(());
        }
        if job.chord.merges() {
            self.call_back(job, &results).await?;
        }
        let mut over = redis::pipe();
        over.atomic();
        for which in ['j', 't', 's'] {
            over.cmd("DEL").arg(self.chord_key(&group, which));
        }
        self.link.run(&over, RESULTS).await?;
        for which in ['j', 's'] {
            self.link.record.chord_gone(&self.chord_key(&group, which));
        }
        Ok(())
    }

    /// Hands all results to the next step.
    async fn call_back(self: &Arc<Self>, job: &Arc<Signed>, results: &str) -> Result<(), RedisError> {
        let mut gather = redis::pipe();
        gather.cmd("ZRANGE").arg(results).arg(0).arg(-1);
        let gathered = self.link.run(&gather, RESULTS).await?;
        let Some(Value::Array(parts)) = gathered.into_iter().next() else { return Ok(()) };
        let (celery, job) = (Arc::clone(self), Arc::clone(job));
        let write = move || {
            let parts: Vec<&[u8]> = parts
                .iter()
                .filter_map(
                    |part| if let Value::BulkString(part) = part { Some(part.as_slice()) } else { None },
                )
                .collect();
            let results: Vec<&str> = parts.into_iter().filter_map(message::result_of_part).collect();
            celery.about(&job).queue_merge(&results)
        };
        match tokio::task::spawn_blocking(write).await {
            Ok(message) => self.send(message).await,
            // The stand-in stops.
            Err(_) => Ok(()),
        }
    }

    /// The step before the merge returned what it was handed: the merge is queued first
    /// (celery/app/trace.py), and then all results are stored once more.
    ///
    /// # Errors
    /// Redis cannot be reached or refuses.
    pub(in crate::standin) async fn merge_queued(
        self: &Arc<Self>,
        job: &Arc<Signed>,
        body: Vec<u8>,
    ) -> Result<(), RedisError> {
        let done = in_result(now_us());
        let write = {
            let (celery, job) = (Arc::clone(self), Arc::clone(job));
            move || {
                let results = message::results_in(&body)?;
                let meta = message::meta(&job.ids.queue_merge, None, results, &done);
                Some((celery.about(&job).merge(results), meta))
            }
        };
        let Ok(Some((message, meta))) = tokio::task::spawn_blocking(write).await else { return Ok(()) };
        self.send(message).await?;
        self.store(&job.ids.queue_merge, meta, ResultKind::QueueMerge).await
    }

    /// The merge is over.
    ///
    /// # Errors
    /// Redis cannot be reached or refuses.
    pub(in crate::standin) async fn merged(&self, job: &Signed) -> Result<(), RedisError> {
        self.forget(job);
        let id = &job.ids.merge;
        self.store(id, message::meta(id, None, "{}", &in_result(now_us())), ResultKind::Merge).await
    }

    /// Stores a result, and tells whoever waits for it (celery/backends/redis.py, `_set`); before
    /// that Celery looks whether there is one already.
    async fn store(&self, id: &str, meta: Vec<u8>, kind: ResultKind) -> Result<(), RedisError> {
        let key = format!("celery-task-meta-{id}");
        let mut look = redis::pipe();
        look.cmd("GET").arg(&key);
        self.link.run(&look, RESULTS).await?;
        self.link.record.stored(&key, meta.len(), kind);
        let mut commands = Pipeline::new();
        commands.atomic();
        commands.cmd("SETEX").arg(&key).arg(LIFE).arg(&meta);
        commands.cmd("PUBLISH").arg(&key).arg(&meta);
        drop(meta);
        self.link.run(&commands, RESULTS).await.map(|_| ())
    }

    async fn send(&self, message: Message) -> Result<(), RedisError> {
        let mut commands = redis::pipe();
        self.push(&mut commands, &message);
        drop(message);
        self.link.run(&commands, PUBLISHING).await.map(|_| ())
    }
}

fn number(value: Option<&Value>) -> Option<u64> {
    match value? {
        Value::Int(number) => u64::try_from(*number).ok(),
        Value::BulkString(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        _ => None,
    }
}
