//! The internal workers: one FIFO queue for tasks and merges, `slots` of them at once.
//!
//! They know nothing of the server's tables. Like the target's workers they hold the
//! update key they were given and post over HTTP, without a timeout and, unless told
//! otherwise, once: a post that gets no reply kills the task it belongs to, and so its job.

mod merge;
mod post;
mod remote;
mod tally;
mod task;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::Mutex;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::bug::Flaw;
use super::celery::Celery;
use super::config::Config;
use super::job::Request;
use super::metrics::Metrics;
pub(super) use post::{PostError, Poster};
use remote::Remote;
pub(super) use tally::Tally;

/// One item of the queue.
#[derive(Debug)]
pub(super) enum Work {
    /// Simulate one task.
    Task(Arc<Chord>, usize),
    /// Tell the server that the merge is queued, then queue it.
    QueueMerge(Arc<Chord>),
    /// Average the tasks and post the results.
    Merge(Arc<Chord>),
}

impl Work {
    fn chord(&self) -> &Chord {
        match self {
            Self::Task(chord, _) | Self::QueueMerge(chord) | Self::Merge(chord) => chord,
        }
    }
}

/// What the tasks of one job share, and the count that starts the merge after the last.
#[derive(Debug)]
pub(super) struct Chord {
    simulation: u64,
    key: String,
    primaries: u64,
    outputs: Vec<String>,
    sim_type: String,
    program: Program,
    stuck: bool,
    /// Results are posted this often at once.
    results_posts: usize,
    /// By task index.
    fails: Vec<bool>,
    /// Whether the merge is tried at all.
    merges: bool,
    left: AtomicUsize,
    revoke: CancellationToken,
}

/// What simulates, as far as it shows in the posts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Program {
    /// Its log is watched: posts while it runs.
    Shieldhit,
    /// Posts at the start and at the end only.
    Fluka,
    /// The worker has no such program, and its task raises at once.
    Unknown,
}

impl Chord {
    /// The work of simulation `simulation`; `shape` is number of tasks and primaries of each.
    pub(super) fn new(
        config: &Config,
        simulation: u64,
        key: String,
        shape: (usize, u64),
        request: &Request,
        flaws: &[Flaw],
        revoke: CancellationToken,
    ) -> Arc<Self> {
        let (tasks, primaries) = shape;
        let doomed = |flaw: &Flaw| matches!(flaw, Flaw::AllFailed | Flaw::AllFailedStuck);
        let all_fail = flaws.iter().any(doomed) || primaries == 0;
        Arc::new(Self {
            simulation,
            key,
            primaries,
            outputs: request.outputs.clone(),
            sim_type: request.sim_type.clone(),
            program: match request.sim_type.as_str() {
                "shieldhit" => Program::Shieldhit,
                "fluka" => Program::Fluka,
                _ => Program::Unknown,
            },
            stuck: flaws.contains(&Flaw::Stuck),
            results_posts: if flaws.contains(&Flaw::DuplicateResults) { 3 } else { 1 },
            fails: (0..tasks).map(|index| all_fail || config.fails(simulation, index)).collect(),
            merges: !flaws.contains(&Flaw::AllFailed),
            left: AtomicUsize::new(tasks),
            revoke,
        })
    }

    /// The tasks, ready for the queue in memory.
    fn tasks(self: &Arc<Self>) -> impl Iterator<Item = Work> {
        (0..self.fails.len()).map(|index| Work::Task(Arc::clone(self), index))
    }

    /// Number of tasks.
    pub(super) fn size(&self) -> usize {
        self.fails.len()
    }

    pub(super) fn simulation(&self) -> u64 {
        self.simulation
    }

    /// The update key.
    pub(super) fn key(&self) -> &str {
        &self.key
    }

    pub(super) fn sim_type(&self) -> &str {
        &self.sim_type
    }

    /// Whether the merge is tried at all.
    pub(super) fn merges(&self) -> bool {
        self.merges
    }
}

/// Where work waits.
#[derive(Debug, Clone)]
pub(super) enum Queue {
    /// In this process. It has no bound, as the target's has none.
    Memory(UnboundedSender<Work>),
    /// In Redis.
    Celery(Arc<Celery>),
}

/// The queue took no work.
#[derive(Debug)]
pub(super) struct Unpublished;

impl Queue {
    /// Puts the tasks of a job there; `inputs` is the reply of `GET /inputs`.
    pub(super) async fn publish(&self, chord: &Arc<Chord>, inputs: &Bytes) -> Result<(), Unpublished> {
        match self {
            Self::Memory(queue) => {
                for work in chord.tasks() {
                    // The workers are gone only when the server stops; nobody waits for the work then.
                    let _ = queue.send(work);
                }
                Ok(())
            }
            Self::Celery(celery) => celery.publish(chord, inputs).await.map_err(|error| {
                tracing::debug!(%error, "a job was not published");
                Unpublished
            }),
        }
    }
}

/// The other end of it.
#[derive(Debug)]
pub(super) enum Inbox {
    Memory(UnboundedSender<Work>, UnboundedReceiver<Work>),
    Celery(Arc<Celery>, Arc<Metrics>),
}

/// All the internal workers on a queue in memory.
#[derive(Debug)]
pub(super) struct Workers {
    config: Config,
    poster: Arc<Poster>,
    queue: UnboundedSender<Work>,
}

impl Workers {
    /// Starts `slots` of them; they end when `stop` is cancelled.
    pub(super) fn start(
        config: Config,
        poster: Arc<Poster>,
        inbox: Inbox,
        tracker: &TaskTracker,
        stop: &CancellationToken,
    ) {
        let slots = config.slots.max(1);
        let (queue, inbox) = match inbox {
            Inbox::Memory(queue, inbox) => (queue, inbox),
            Inbox::Celery(celery, metrics) => {
                let remote = Remote { config, poster, celery, metrics };
                return remote.start(tracker, stop);
            }
        };
        let workers = Arc::new(Self { config, poster, queue });
        let inbox = Arc::new(Mutex::new(inbox));
        for _ in 0..slots {
            let work = Arc::clone(&workers).work(Arc::clone(&inbox));
            let stop = stop.clone();
            tracker.spawn(async move { stop.run_until_cancelled(work).await });
        }
    }

    async fn work(self: Arc<Self>, inbox: Arc<Mutex<UnboundedReceiver<Work>>>) {
        loop {
            let next = inbox.lock().await.recv().await;
            let Some(work) = next else { return };
            let revoke = work.chord().revoke.clone();
            if revoke.is_cancelled() {
                continue;
            }
            if let Some(Err(error)) = revoke.run_until_cancelled(self.perform(&work)).await {
                let simulation = work.chord().simulation;
                tracing::debug!(simulation, %error, "work died");
                self.poster.tally().died(simulation, error.route());
            }
        }
    }

    /// One item to its end. An error is the death of a Celery task: nothing follows it.
    async fn perform(&self, work: &Work) -> Result<(), PostError> {
        let next = match work {
            Work::Task(chord, index) => {
                let ended = task::run(&self.config, &self.poster, chord, *index, None).await?;
                let last = ended && chord.left.fetch_sub(1, Ordering::AcqRel) == 1;
                (last && chord.merges).then(|| Work::QueueMerge(Arc::clone(chord)))
            }
            Work::QueueMerge(chord) => {
                merge::announce(&self.poster, chord, "MERGING_QUEUED").await?;
                Some(Work::Merge(Arc::clone(chord)))
            }
            Work::Merge(chord) => {
                merge::announce(&self.poster, chord, "MERGING_RUNNING").await?;
                merge::run(&self.config, &self.poster, chord).await?;
                None
            }
        };
        if let Some(next) = next {
            // The inbox lives as long as any worker, so this cannot fail while one sends.
            let _ = self.queue.send(next);
        }
        Ok(())
    }
}
