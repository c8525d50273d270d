//! The end: everything the stand-in put into Redis is taken out again, and nothing else.

use redis::{RedisError, Value};

use super::Celery;
use super::message::Found;

/// Keys, tags or messages in one command or pipeline.
const BATCH: usize = 200;

impl Celery {
    /// Takes away what the record names. What cannot be taken away is said; results and chords end
    /// by themselves after a day.
    pub(in crate::standin) async fn clean(&self) {
        if let Err(error) = self.take_away().await {
            let at = self.link.at();
            tracing::warn!(%error, at, "keys of the stand-in stay in Redis; results end after a day");
        }
    }

    async fn take_away(&self) -> Result<(), RedisError> {
        if self.link.record.any_waiting() {
            self.drain().await?;
        }
        let tags = self.link.record.unacked();
        for tags in tags.chunks(BATCH) {
            let mut commands = redis::pipe();
            commands.cmd("ZREM").arg("unacked_index").arg(tags);
            commands.cmd("HDEL").arg("unacked").arg(tags);
            self.link.once(&commands).await?;
        }
        let (binding, member) = self.binding();
        let claim = self.claim();
        let keys = self.link.record.keys();
        if self.declared {
            let mut commands = redis::pipe();
            commands.cmd("SREM").arg(&binding).arg(member);
            self.link.once(&commands).await?;
        }
        let results: Vec<String> = keys.into_iter().filter(|key| *key != binding && *key != claim).collect();
        for keys in results.chunks(BATCH) {
            let mut commands = redis::pipe();
            commands.cmd("UNLINK").arg(keys);
            self.link.once(&commands).await?;
        }
        self.release().await
    }

    /// Gives the claim up, if it is still ours.
    pub(super) async fn release(&self) -> Result<(), RedisError> {
        let claim = self.claim();
        let mut whose = redis::pipe();
        whose.cmd("GET").arg(&claim);
        if self.link.once(&whose).await?.first() == Some(&Value::BulkString(self.origin.clone().into_bytes()))
        {
            let mut commands = redis::pipe();
            commands.cmd("DEL").arg(&claim);
            self.link.once(&commands).await?;
        }
        Ok(())
    }

    /// Takes what waits off the list and puts back what is not ours.
    async fn drain(&self) -> Result<(), RedisError> {
        let mut length = redis::pipe();
        length.cmd("LLEN").arg(&self.queue);
        let Some(Value::Int(mut left)) = self.link.once(&length).await?.into_iter().next() else {
            return Ok(());
        };
        while left > 0 {
            let mut pop = redis::pipe();
            let batch = left.min(8);
            for _ in 0..batch {
                pop.cmd("RPOP").arg(&self.queue);
            }
            left -= batch;
            let mut back = redis::pipe();
            for message in self.link.once(&pop).await? {
                let Value::BulkString(message) = message else { continue };
                let ours = Found::read(&message).is_some_and(|found| found.origin() == self.origin);
                if !ours {
                    back.cmd("LPUSH").arg(&self.queue).arg(message);
                }
            }
            if back.cmd_iter().next().is_some() {
                self.link.once(&back).await?;
            }
        }
        Ok(())
    }
}
