//! Finds what looks on beside a run: Redis, exposition endpoints, processes, probes, and those who
//! are told how it goes.

use std::{path::Path, sync::Arc};

use anyhow::{Result, anyhow};

use super::{metering::Metering, redis};
use crate::{
    cli::LoadArgs,
    live::{Metrics, Server},
    plan::Plan,
    record::{RedisFacts, RunRecord},
    sampling::Samplers,
    spans::{self, Exporter},
};

/// The instruments of a run.
pub(super) struct Instruments {
    /// The target's Redis, if one was named.
    pub(super) redis: Option<RedisFacts>,
    samplers: Samplers,
    exporter: Option<Exporter>,
    metering: Metering,
    /// The page of the run, once it is shown.
    page: Option<Server>,
}

impl Instruments {
    /// Finds what the flags name.
    ///
    /// # Errors
    /// When it is not there; one line with the flag, the value and the remedy.
    pub(super) async fn find(args: &LoadArgs, _plan: &Plan, run_id: &str) -> Result<Self> {
        let (sampler, redis) = redis::sampler(args).await?.unzip();
        let exporter = match args.otlp.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => Some(Exporter::new(url, run_id).map_err(|e| anyhow!("--otlp: {e}"))?),
            None => None,
        };
        let mut metering = Metering::find(args).await?;
        let scrapes = std::mem::take(&mut metering.scrapers);
        let samplers = Samplers { redis: sampler, scrapes, ..Samplers::default() };
        Ok(Self { redis, samplers, exporter, metering, page: None })
    }

    /// Hands the samplers over to the rig; probes write below the run's folder.
    pub(super) fn set_up(&mut self, _folder: &Path) -> Samplers {
        std::mem::take(&mut self.samplers)
    }

    /// Shows the run to a Prometheus, when it was asked for.
    pub(super) fn show(&mut self, run: &RunRecord, workers: u32) -> Option<Arc<Metrics>> {
        let (metrics, page) = self.metering.show(run, workers)?;
        self.page = Some(page);
        Some(metrics)
    }

    /// Where spans are left, when somebody collects them.
    pub(super) fn spans(&self) -> Option<spans::Sender> {
        self.exporter.as_ref().map(Exporter::sender)
    }

    /// Sends what is left to be sent.
    pub(super) async fn end(&mut self) {
        if let Some(exporter) = self.exporter.take() {
            tracing::info!("{}", exporter.finish().await);
        }
    }
}
