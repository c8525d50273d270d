//! The stand-in: a backend that speaks the target's HTTP contract, in this process.
//!
//! It is what runs when there is no `--host`, and the ground truth of springtide's tests:
//! it knows when each job changed its state, how long each request took, and which of its
//! jobs are flawed because it was told so. It listens on its own thread, with its own
//! runtime, and its internal workers post over real loopback HTTP.
//!
//! It is not the target: nothing is stored on disk, nothing is simulated, and the costs
//! of a real database are absent. Those of a broker are there if it is given a Redis
//! ([`Config::redis`]): then all work and all results cross it as Celery's would. Memory: results are kept for the last
//! [`Config::kept_results`] jobs (1 MB each), inputs are shared, and a row with its truth
//! stays for ever (about 2 kB for a job of 8 tasks).
//!
//! ```no_run
//! use springtide::standin::{Config, StandIn};
//! let stand_in = StandIn::start(Config::default())?;
//! println!("serving on {}", stand_in.url());
//! # Ok::<(), springtide::standin::StandInError>(())
//! ```

mod backend;
mod bug;
mod call;
mod celery;
mod clock;
mod config;
mod draw;
pub mod estimators;
mod gate;
mod job;
mod ledger;
mod metrics;
mod replay;
mod reply;
mod retries;
mod routes;
mod server;
mod store;
mod stored;
mod token;
mod traced;
#[cfg(test)]
mod trial;
mod truth;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc as handshake};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use bug::{Bug, BugError, Flaw};
pub use celery::{Broker, BrokerError};
pub use config::{Config, FailTasks};
pub use estimators::Estimators;
pub use retries::Retries;
pub use traced::Traced;
pub use truth::{JobTruth, RedisTruth, ResultKind, RouteTruth, SERVICE_TIMES_KEPT, StoredResult, Truth};

use backend::Backend;
use celery::Celery;
use metrics::Metrics;
use worker::{Inbox, Poster, Queue, Workers};

use crate::target::url_of;

/// Threads that serve requests; merges have as many of their own.
const THREADS: usize = 2;

/// How long the runtime may take to end after the last connection.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// How long its keys in Redis may take to go.
const CLEANING: Duration = Duration::from_secs(5);

/// Why a stand-in does not start.
#[derive(Debug, thiserror::Error)]
pub enum StandInError {
    /// The address cannot be listened on.
    #[error("stand-in cannot listen on {addr}; choose another port, or 0 for a free one")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The system refused a thread.
    #[error("stand-in cannot start its threads")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
    /// The URL for the workers' posts cannot be used.
    #[error("internal URL {url:?} is not of the form http://host:port")]
    InternalUrl {
        /// The URL given.
        url: String,
    },
    /// The Redis for tasks and results cannot be used.
    #[error("stand-in: {0}")]
    Redis(#[from] BrokerError),
}

/// A running stand-in. It stops when dropped.
#[derive(Debug)]
pub struct StandIn {
    addr: SocketAddr,
    url: String,
    backend: Arc<Backend>,
    poster: Arc<Poster>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

/// What the server's thread sends back once it listens.
type Ready = (SocketAddr, Arc<Backend>, Arc<Poster>);

impl StandIn {
    /// Starts a stand-in and returns when it listens.
    ///
    /// # Errors
    /// The address is taken, a thread is refused, or the internal URL is malformed.
    pub fn start(config: Config) -> Result<Self, StandInError> {
        let stop = CancellationToken::new();
        let (ready, started) = handshake::sync_channel(1);
        let thread = {
            let stop = stop.clone();
            std::thread::Builder::new()
                .name("stand-in".to_owned())
                .spawn(move || run(config, &ready, stop))
                .map_err(|source| StandInError::Threads { source })?
        };
        let died = || io::Error::other("the server's thread ended");
        let outcome = started.recv().unwrap_or_else(|_| Err(StandInError::Threads { source: died() }));
        let (addr, backend, poster) = outcome?;
        let (url, thread) = (url_of(addr), Some(thread));
        Ok(Self { addr, url, backend, poster, stop, thread })
    }

    /// The base URL, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Everything it has seen so far; also after it was stopped.
    pub fn truth(&self) -> Truth {
        self.backend.truth()
    }

    /// Sends the posts of the internal workers to another base URL from now on: a tap,
    /// which cannot be started before the stand-in it forwards to.
    ///
    /// # Errors
    /// The URL is not of the form `http://host:port`.
    pub fn post_through(&self, url: &str) -> Result<(), StandInError> {
        let bad = || StandInError::InternalUrl { url: url.to_owned() };
        self.poster.redirect(url).ok_or_else(bad)
    }

    /// Stops: no new connection, half a second for what is in work, then the thread ends.
    /// Jobs in the queue stay where they are; a Redis is left as it was found, which may take
    /// 5 s more if it is slow.
    pub fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to add at the end.
            let _ = thread.join();
        }
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The server's thread.
fn run(config: Config, ready: &handshake::SyncSender<Result<Ready, StandInError>>, stop: CancellationToken) {
    let built = runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .max_blocking_threads(THREADS)
        .thread_name("stand-in")
        .enable_all()
        .build();
    let outcome = built.map_err(|source| StandInError::Threads { source }).and_then(|runtime| {
        let guard = runtime.enter();
        let addr = config.listen;
        let listener = server::listen(addr)
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|source| StandInError::Listen { addr, source })?;
        let (addr, listener) = listener;
        let url = config.internal_url.clone().unwrap_or_else(|| url_of(addr));
        let poster = Poster::new(&url, config.retries, config.seed);
        let poster = poster.ok_or(StandInError::InternalUrl { url })?;
        drop(guard);
        let celery = match &config.redis {
            Some(broker) => Some(Arc::new(runtime.block_on(Celery::open(broker))?)),
            None => None,
        };
        Ok((runtime, addr, listener, Arc::new(poster), celery))
    });
    let (runtime, addr, listener, poster, celery) = match outcome {
        Ok(parts) => parts,
        Err(error) => {
            // The starter waits for exactly this.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let metrics = Arc::new(Metrics::default());
    let (queue, inbox) = match &celery {
        Some(celery) => {
            let inbox = Inbox::Celery(Arc::clone(celery), Arc::clone(&metrics));
            (Queue::Celery(Arc::clone(celery)), inbox)
        }
        None => {
            let (sender, receiver) = mpsc::unbounded_channel();
            (Queue::Memory(sender.clone()), Inbox::Memory(sender, receiver))
        }
    };
    let backend = Arc::new(Backend::new(config.clone(), queue, Arc::clone(poster.tally()), metrics));
    let _ = ready.send(Ok((addr, Arc::clone(&backend), Arc::clone(&poster))));
    runtime.block_on(async {
        let tracker = TaskTracker::new();
        Workers::start(config, poster, inbox, &tracker, &stop);
        server::serve(backend, listener, tracker, stop).await;
        if let Some(celery) = celery
            && tokio::time::timeout(CLEANING, celery.clean()).await.is_err()
        {
            tracing::warn!("keys of the stand-in stay in Redis, which is slow; results end after a day");
        }
    });
    runtime.shutdown_timeout(SHUTDOWN);
}
