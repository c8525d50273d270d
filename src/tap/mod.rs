//! The tap: a proxy between the target's workers and its API, and the run's way to it.
//!
//! It passes HTTP/1.1 on as it comes, takes down what the workers' posts are and how long they take
//! (never what is in them), and does to them what a run has ordered. A run asks for both over paths
//! below `/_tap/`, by way of a [`Link`]. It listens on its own thread, with its own runtime.
//!
//! It is not a cache, a balancer or a gate: every request goes to one target, changed in nothing.
//! Memory: the posts of late ([`Config::buffer`], about 250 bytes each) and less than a megabyte for
//! each open connection, whatever passes through it.

mod alive;
mod answer;
mod base;
mod control;
mod door;
mod exchange;
mod link;
mod log;
mod order;
mod passage;
mod proxy;
mod scan;
mod serve;
mod shared;
#[cfg(test)]
mod trial;
mod upstream;

use std::{
    fmt, io,
    net::SocketAddr,
    sync::{Arc, mpsc as handshake},
    thread::JoinHandle,
    time::Duration,
};

use tokio::runtime;
use tokio_util::sync::CancellationToken;

pub use link::{Link, LinkError, canary_at};

use shared::Shared;
use upstream::Upstream;

use crate::target::url_of;

/// Posts that are kept for readers when nothing else is said.
pub const BUFFER: usize = 250_000;

/// Threads that write out what a run reads, and look names up.
const THREADS: usize = 2;

/// How long the runtime may take to end after the last connection.
const SHUTDOWN: Duration = Duration::from_secs(1);

/// Where a tap stands.
#[derive(Clone)]
pub struct Config {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The target's API, `http://host:port[/prefix]`. It need not be there yet.
    pub upstream: String,
    /// What runs must know to ask for anything; nothing when `None`, which only loopback allows.
    pub token: Option<String>,
    /// The most posts that are kept for readers.
    pub buffer: usize,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listen, upstream, token, buffer } = self;
        f.debug_struct("Config")
            .field("listen", listen)
            .field("upstream", upstream)
            .field("token", &token.as_ref().map(|_| "…"))
            .field("buffer", buffer)
            .finish()
    }
}

/// Why a tap does not start.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The address cannot be listened on.
    #[error("tap cannot listen on {addr}; choose another port, or 0 for a free one")]
    Listen {
        /// The address asked for.
        addr: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Others than this machine could order faults.
    #[error(
        "tap on {addr} can be reached from other machines and has no token; set SPRINGTIDE_TAP_TOKEN or \
         --token-file, or listen on 127.0.0.1"
    )]
    NoToken {
        /// The address asked for.
        addr: SocketAddr,
    },
    /// No header can carry the token.
    #[error("the tap's token must be 1 to 1024 printable ASCII characters without blanks")]
    BadToken,
    /// It speaks plain HTTP to one host.
    #[error("upstream {url:?} is not of the form http://host:port; the tap does not speak https")]
    Upstream {
        /// The URL given.
        url: String,
    },
    /// Every request would come round again until nothing is left to serve it with.
    #[error("upstream {url} is this tap itself, on {addr}; give the address of the target's API")]
    Loop {
        /// The URL given.
        url: String,
        /// Where the tap would listen.
        addr: SocketAddr,
    },
    /// The system refused a thread.
    #[error("tap cannot start its threads")]
    Threads {
        /// What the system said.
        source: io::Error,
    },
}

/// A running tap. It stops when dropped.
#[derive(Debug)]
pub struct Tap {
    addr: SocketAddr,
    url: String,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

type Ready = Result<SocketAddr, TapError>;

impl Tap {
    /// Starts a tap and returns when it listens.
    ///
    /// # Errors
    /// The address is taken or open to others without a token, the upstream's URL or the token is
    /// malformed, the upstream is the tap itself, or a thread is refused.
    pub fn start(config: Config) -> Result<Self, TapError> {
        let Config { listen, upstream, token, buffer } = config;
        let is_fit = |t: &String| (1..=1024).contains(&t.len()) && t.bytes().all(|b| b.is_ascii_graphic());
        match &token {
            Some(token) if !is_fit(token) => return Err(TapError::BadToken),
            None if !listen.ip().is_loopback() => return Err(TapError::NoToken { addr: listen }),
            _ => {}
        }
        let token = token.map(|token| control::digest(token.as_bytes()));
        let upstream = Upstream::new(&upstream).ok_or(TapError::Upstream { url: upstream })?;
        let shared = Arc::new(Shared::new(upstream, buffer.max(1), token));
        let stop = shared.stop.clone();
        let (ready, started) = handshake::sync_channel(1);
        let thread = std::thread::Builder::new()
            .name("tap".to_owned())
            .spawn(move || run(shared, listen, &ready))
            .map_err(|source| TapError::Threads { source })?;
        let died = || io::Error::other("the tap's thread ended");
        let outcome = started.recv().unwrap_or_else(|_| Err(TapError::Threads { source: died() }));
        let addr = outcome?;
        Ok(Self { addr, url: url_of(addr), stop, thread: Some(thread) })
    }

    /// The base URL under which this machine reaches it, `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address it listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops: no new connection, half a second for what is under way, then the thread ends.
    pub fn stop(&mut self) {
        self.stop.cancel();
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed; there is nothing to add at the end.
            let _ = thread.join();
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The tap's thread.
fn run(shared: Arc<Shared>, addr: SocketAddr, ready: &handshake::SyncSender<Ready>) {
    // One thread for all posts: handing them from thread to thread costs the slowest of them a
    // millisecond.
    let built = runtime::Builder::new_current_thread()
        .max_blocking_threads(THREADS)
        .thread_name("tap")
        .enable_all()
        .build();
    let outcome = built.map_err(|source| TapError::Threads { source }).and_then(|runtime| {
        let guard = runtime.enter();
        let (addr, listener) = serve::listen(addr)
            .and_then(|listener| Ok((listener.local_addr()?, listener)))
            .map_err(|source| TapError::Listen { addr, source })?;
        drop(guard);
        if shared.upstream.is_at(addr) {
            return Err(TapError::Loop { url: shared.upstream.url.clone(), addr });
        }
        Ok((runtime, addr, listener))
    });
    let (runtime, addr, listener) = match outcome {
        Ok(parts) => parts,
        Err(error) => {
            // The starter waits for exactly this.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(addr));
    runtime.block_on(serve::serve(shared, listener));
    runtime.shutdown_timeout(SHUTDOWN);
}
