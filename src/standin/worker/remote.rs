//! The same work from a queue in Redis: what is to be done, and on what, is in the messages.

use std::sync::Arc;

use redis::RedisError;
use tokio::sync::{Mutex, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::post::{PostError, Poster};
use super::{merge, task};
use crate::standin::celery::{Assigned, Celery, Delivery, Signed};
use crate::standin::config::Config;
use crate::standin::estimators::Estimators;
use crate::standin::metrics::{Metrics, Payload};

/// Why a task or a step died.
#[derive(Debug, thiserror::Error)]
enum Death {
    #[error(transparent)]
    Post(#[from] PostError),
    #[error("Redis did not take what it had to: {0}")]
    Redis(#[from] RedisError),
}

/// A worker process of several slots.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) config: Config,
    pub(super) poster: Arc<Poster>,
    pub(super) celery: Arc<Celery>,
    pub(super) metrics: Arc<Metrics>,
}

impl Remote {
    /// Starts one that fetches and `slots` that work; they end when `stop` is cancelled.
    pub(super) fn start(self, tracker: &TaskTracker, stop: &CancellationToken) {
        let slots = self.config.slots.max(1);
        let (outbox, inbox) = Celery::inbox(slots);
        let fetching = Arc::clone(&self.celery).consume(outbox);
        tracker.spawn(stop.clone().run_until_cancelled_owned(fetching));
        tracker.spawn(Arc::clone(&self.celery).hold_claim(stop.clone()));
        let remote = Arc::new(self);
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..slots {
            let working = Arc::clone(&remote).work(Arc::clone(&inbox));
            tracker.spawn(stop.clone().run_until_cancelled_owned(working));
        }
    }

    async fn work(self: Arc<Self>, inbox: Arc<Mutex<mpsc::Receiver<Delivery>>>) {
        loop {
            let next = inbox.lock().await.recv().await;
            let Some(delivery) = next else { return };
            self.celery.started(&delivery).await;
            let job = Arc::clone(delivery.job());
            let revoke = job.chord.revoke.clone();
            match revoke.run_until_cancelled(self.perform(delivery)).await {
                Some(Ok(())) => {}
                None => self.celery.forget(&job),
                Some(Err(error)) => {
                    let simulation = job.chord.simulation;
                    tracing::debug!(simulation, %error, "work died");
                    if let Death::Post(error) = error {
                        self.poster.tally().died(simulation, error.route());
                    }
                }
            }
        }
    }

    /// One message to its end. An error is the death of a Celery task: nothing follows it.
    async fn perform(&self, delivery: Delivery) -> Result<(), Death> {
        let (job, assigned, _held) = delivery.open();
        let chord = &*job.chord;
        match assigned {
            Assigned::Task(index) => {
                let id = job.task_id(index);
                if task::run(&self.config, &self.poster, chord, index, id).await? {
                    let result = self.result(&job, index).await;
                    self.celery.task_done(&job, index, result).await?;
                }
            }
            Assigned::QueueMerge(body) => {
                merge::announce(&self.poster, chord, "MERGING_QUEUED").await?;
                self.celery.merge_queued(&job, body).await?;
            }
            Assigned::Merge(body) => {
                merge::announce(&self.poster, chord, "MERGING_RUNNING").await?;
                merge::run_on(&self.config, &self.poster, chord, body).await?;
                self.celery.merged(&job).await?;
            }
        }
        Ok(())
    }

    /// What a task returns: its estimators, or what is left of a failed one.
    async fn result(&self, job: &Signed, index: usize) -> String {
        let (simulation, key) = (job.chord.simulation, job.chord.key.clone());
        if job.chord.fails.get(index).copied().unwrap_or(true) {
            return format!(
                "{{\"logfiles\": {{}}, \"stdout\": \"\", \"stderr\": \"\", \
                 \"simulation_id\": {simulation}, \"update_key\": \"{key}\"}}"
            );
        }
        let seed = self.config.seed_of_task(simulation, index);
        let tasks = job.chord.size();
        let write = move || Estimators::generate(seed, tasks).results_post(simulation, &key, &[]);
        let result = tokio::task::spawn_blocking(write).await.unwrap_or_default();
        self.metrics.payload(Payload::TaskEstimators, result.len());
        String::from_utf8(result).unwrap_or_default()
    }
}
