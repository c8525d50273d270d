//! The hands of the telemetry: tasks that sample Redis, exposition endpoints and processes beside
//! the cells, and run the probes.
//!
//! Each sampler has the same life: `open` when a cell is armed, `started` when its T0 is known,
//! `close` when it is over. None of them ever breaks a cell: what is missing is a gap.

pub mod probe;
pub mod process;
pub mod redis;
pub mod scrape;

use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::Instant;

use crate::{plan::Cell, telemetry::Telemetry};

/// Everything that watches beside the cells of a run.
#[derive(Debug, Default)]
pub struct Samplers {
    /// The target's Redis.
    pub redis: Option<redis::RedisSampler>,
    /// Exposition endpoints.
    pub scrapes: Vec<scrape::Scraper>,
    /// Processes of this host.
    pub processes: Vec<process::ProcessSampler>,
    /// External commands.
    pub probes: Option<probe::Prober>,
}

impl Samplers {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.redis.is_none() && self.scrapes.is_empty() && self.processes.is_empty() && self.probes.is_none()
    }

    /// Whether there is anything that tells when the target is idle.
    pub fn see_idleness(&self) -> bool {
        self.redis.is_some()
    }

    /// Waits until the target is idle, as far as its Redis tells: its queues are empty.
    ///
    /// # Errors
    /// What was still waiting there after `within`.
    pub async fn idle(&mut self, within: Duration) -> Result<(), String> {
        match &mut self.redis {
            Some(redis) => redis.idle(within).await,
            None => Ok(()),
        }
    }

    /// A cell is about to begin.
    pub async fn open(&mut self, cell: &Cell) {
        if let Some(redis) = &mut self.redis {
            redis.open(cell).await;
        }
        join_all(self.scrapes.iter_mut().map(|s| s.open(cell))).await;
        self.processes.iter_mut().for_each(|s| s.open(cell));
        if let Some(probes) = &mut self.probes {
            probes.open(cell);
        }
    }

    /// Its T0 is known.
    pub fn started(&mut self, t0: Instant) {
        if let Some(probes) = &mut self.probes {
            probes.started(t0);
        }
    }

    /// A job of the cell was seen merging.
    pub fn merging(&mut self) {
        if let Some(probes) = &mut self.probes {
            probes.merging();
        }
    }

    /// The cell is over: what was seen, on the clock of its T0.
    pub async fn close(&mut self, t0: Instant) -> Telemetry {
        let mut all = Telemetry::default();
        if let Some(redis) = &mut self.redis {
            all.redis = Some(redis.close(t0).await);
        }
        for (url, series) in join_all(self.scrapes.iter_mut().map(|s| s.close(t0))).await {
            all.scrapes.insert(url, series);
        }
        all.processes = self.processes.iter_mut().map(|s| s.close(t0)).collect();
        if let Some(probes) = &mut self.probes {
            all.probes = probes.close(t0).await;
        }
        all
    }

    /// The cell is given up: nothing of it is kept, and nothing goes on.
    pub async fn abandon(&mut self) {
        if self.is_empty() {
            return;
        }
        if let Some(probes) = &mut self.probes {
            probes.abandon().await;
        }
        let _ = self.close(Instant::now()).await;
    }
}
