//! The channel between a manager and its workers: two append-only logs and a clock.
//!
//! Commands are read by every worker, reports by the manager, each from the entry after the last
//! one it saw. On one host both ends are in one process ([`in_process`]); the code above the plane
//! is the same for any number of hosts.

pub mod in_process;

use std::future::Future;

use serde::{Deserialize, Serialize};

use crate::{micros::Micros, plan::Cell, snapshot::Frame};

/// What the manager tells its workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// Bring the users of your share to the start.
    Prepare {
        /// The cell.
        cell: Cell,
        /// How many workers share it.
        workers: u32,
    },
    /// T0 of the cell.
    Start {
        /// Which.
        cell: u32,
        /// On the plane's clock.
        at: Micros,
    },
    /// Every worker's jobs have an outcome: make the target quiet and read its list.
    Settle {
        /// Which.
        cell: u32,
    },
    /// The cell is given up: stop loading, cancel what is in flight.
    Abort {
        /// Which.
        cell: u32,
    },
    /// There will be no more.
    End,
}

/// What a worker tells the manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// All users of the share stand at the start.
    Ready {
        /// Who.
        worker: u32,
        /// Of which cell.
        cell: u32,
    },
    /// A job of the share was seen merging, for the first time.
    Merging {
        /// Who.
        worker: u32,
        /// Of which cell.
        cell: u32,
    },
    /// All jobs of the share have an outcome.
    Through {
        /// Who.
        worker: u32,
        /// Of which cell.
        cell: u32,
        /// T0 in Unix microseconds of the worker's clock.
        t0_unix: u64,
    },
    /// Measurements.
    Frame(Frame),
    /// The share cannot be carried out, or was stopped on command.
    GaveUp {
        /// Who.
        worker: u32,
        /// Of which cell.
        cell: u32,
        /// Why; `None` after an [`Command::Abort`].
        why: Option<String>,
    },
}

/// The plane is gone.
#[derive(Debug, thiserror::Error)]
#[error("plane: {0}")]
pub struct PlaneError(pub String);

/// A channel between a manager and its workers.
pub trait Plane: Send + Sync + 'static {
    /// The plane's clock, which all ends agree on.
    fn now(&self) -> Micros;
    /// Appends a command.
    fn command(&self, command: Command) -> impl Future<Output = Result<(), PlaneError>> + Send;
    /// Waits for the command number `index`, from 0.
    fn next_command(&self, index: u64) -> impl Future<Output = Result<Command, PlaneError>> + Send;
    /// Appends a report.
    fn report(&self, report: Report) -> impl Future<Output = Result<(), PlaneError>> + Send;
    /// Waits for the report number `index`, from 0. Reports before it may be forgotten.
    fn next_report(&self, index: u64) -> impl Future<Output = Result<Report, PlaneError>> + Send;
}
