//! Runs the probes of a matrix.

use tokio::time::Instant;

use crate::{plan::Cell, telemetry::probe::ProbeRun};

/// The probes of a run, and the processes of those that are running.
#[derive(Debug, Default)]
pub struct Prober {}

impl Prober {
    /// A cell is about to begin.
    pub fn open(&mut self, _cell: &Cell) {}

    /// Its T0 is known, which may still be to come.
    pub fn started(&mut self, _t0: Instant) {}

    /// A job of the cell was seen merging, for the first time or again.
    pub fn merging(&mut self) {}

    /// The cell is over: probes that still run are told to end and waited for.
    pub async fn close(&mut self, _t0: Instant) -> Vec<ProbeRun> {
        Vec::new()
    }
}
