//! Samples the target's Redis.

use std::time::Duration;

use tokio::time::Instant;

use crate::{plan::Cell, telemetry::redis::RedisSeries};

/// A connection to the target's Redis, and the task that samples it.
#[derive(Debug, Default)]
pub struct RedisSampler {}

impl RedisSampler {
    /// Waits until the queues are empty.
    ///
    /// # Errors
    /// What was still waiting there after `within`.
    pub async fn idle(&mut self, _within: Duration) -> Result<(), String> {
        Ok(())
    }

    /// A cell is about to begin: samples are kept from now on.
    pub async fn open(&mut self, _cell: &Cell) {}

    /// The cell is over.
    pub async fn close(&mut self, _t0: Instant) -> RedisSeries {
        RedisSeries::default()
    }
}
