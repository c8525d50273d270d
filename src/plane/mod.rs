//! The plane between a manager and its workers: logs that are only appended to, leases with a fence,
//! and a clock that all agree on.
//!
//! A [`Plane`] is one run's. It is narrow on purpose: on one host it is memory ([`in_process`]), over
//! many hosts Redis Streams ([`redis_streams`]). What makes it fit to be trusted (renewing leases,
//! waiting for what is lost to come back, keeping what cannot be sent) stands once above it, in
//! [`worker_end`] and [`manager_end`].

pub mod clock;
pub mod in_process;
pub mod manager_end;
pub mod message;
pub mod outbox;
pub mod permit;
pub mod redis_streams;
#[cfg(test)]
pub(crate) mod trial;
pub mod worker_end;

use std::{collections::BTreeMap, fmt, future::Future, sync::Arc, time::Duration};

pub use message::{Command, Hello, Report, Sent};

use crate::{crew::Member, micros::Micros};

/// The name of the manager's lease; no worker may go by it.
pub const MANAGER: &str = "manager";

/// A log of a run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Log {
    /// What the manager says, read by everyone.
    Commands,
    /// Who came: one entry for each life of a worker, read by the manager.
    Roll,
    /// What the worker of that name says, read by the manager.
    Reports(String),
}

/// An entry of a log.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// In [`Log::Commands`].
    Command(Command),
    /// In [`Log::Roll`].
    Member(Member),
    /// In [`Log::Reports`].
    Sent(Arc<Sent>),
}

/// A place in a log: behind the entry with this id. The default is before the first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(pub u64, pub u64);

impl fmt::Display for Place {
    /// As Redis writes an id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

/// Who holds a lease now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The epoch it was taken with.
    pub epoch: u64,
    /// How long it lasts unless it is renewed.
    pub left: Duration,
}

/// Why something did not work on the plane. One line each, never with a password.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlaneError {
    /// It cannot be reached, or does not take anything: later it may.
    #[error("the plane {0}")]
    Away(String),
    /// Somebody else holds the lease.
    #[error("the lease of {name} is held by another (epoch {epoch})")]
    Held {
        /// Whose.
        name: String,
        /// With that epoch.
        epoch: u64,
    },
    /// The lease ran out, or somebody else took it since: what was to be done was not done.
    #[error("the lease of {0} is lost")]
    Fenced(Member),
    /// The run is over and its logs are gone.
    #[error("the run is gone from the plane")]
    Gone,
    /// It will never work: a refused password, a right that is missing, an entry that nobody can read.
    #[error("the plane {0}")]
    Refused(String),
}

impl PlaneError {
    /// Whether the same may work later.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Away(_))
    }
}

/// One run's logs, leases and clock.
///
/// No method waits for ever: what does not answer is [`PlaneError::Away`] after a while.
pub trait Plane: Send + Sync + 'static {
    /// Appends an entry; with a fence only if that lease is held at this moment.
    ///
    /// After an error that [is passing](PlaneError::is_passing) it may have been appended or not:
    /// entries must bear to be read twice.
    fn append(
        &self,
        log: &Log,
        entry: &Entry,
        fence: Option<&Member>,
    ) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// What stands in the logs behind these places, which are moved on; each log in its order. Waits
    /// up to `wait` for the first entry, and returns nothing when there is none.
    fn read(
        &self,
        places: &mut BTreeMap<Log, Place>,
        wait: Duration,
    ) -> impl Future<Output = Result<Vec<Entry>, PlaneError>> + Send;

    /// The place behind the last entry of a log.
    fn end_of(&self, log: &Log) -> impl Future<Output = Result<Place, PlaneError>> + Send;

    /// Forgets the entries up to these places, if that lease is held at this moment.
    fn trim(
        &self,
        places: &BTreeMap<Log, Place>,
        fence: &Member,
    ) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// Takes the lease of that name, with an epoch that nobody had before.
    fn take(&self, name: &str, ttl: Duration) -> impl Future<Output = Result<Member, PlaneError>> + Send;

    /// Lets the lease last `ttl` from now on.
    fn renew(&self, lease: &Member, ttl: Duration) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// Gives the lease back, if it is still held.
    fn release(&self, lease: &Member) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// Who holds the leases of these names, in their order.
    fn holders(&self, names: &[&str]) -> impl Future<Output = Result<Vec<Option<Held>>, PlaneError>> + Send;

    /// The plane's clock, in Unix microseconds: one look, as old as the way back took.
    fn time(&self) -> impl Future<Output = Result<Micros, PlaneError>> + Send;

    /// Tells workers that wait for a run that this one is open.
    fn announce(&self) -> impl Future<Output = Result<(), PlaneError>> + Send;

    /// Lets the logs go: the run is over.
    fn close(&self) -> impl Future<Output = Result<(), PlaneError>> + Send;
}
