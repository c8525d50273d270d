//! Finds what looks on beside a run: Redis, exposition endpoints, processes, probes, and those who
//! are told how it goes.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use anyhow::{Result, anyhow, bail};

use super::{metering::Metering, redis};
use crate::{
    cli::LoadArgs,
    live::{Metrics, Server},
    plan::Plan,
    record::{RedisFacts, RunRecord},
    sampling::{Samplers, probe::Prober, process::ProcessSampler},
    scenario::Probe,
    spans::{self, Exporter},
};

/// The instruments of a run.
pub(super) struct Instruments {
    /// The target's Redis, if one was named.
    pub(super) redis: Option<RedisFacts>,
    samplers: Samplers,
    probes: Vec<Probe>,
    watched: BTreeMap<String, u32>,
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
    pub(super) async fn find(args: &LoadArgs, plan: &Plan, run_id: &str) -> Result<Self> {
        let mut watched = BTreeMap::new();
        let mut processes = Vec::new();
        for watch in &args.watch_pids {
            let name = &watch.name;
            if watched.insert(name.clone(), watch.pid).is_some() {
                bail!(
                    "--watch-pid {name}={}: there is another {name}; give each a name of its own",
                    watch.pid
                );
            }
            processes.push(ProcessSampler::new(name, watch.pid).map_err(|e| anyhow!("{e}"))?);
        }
        let (sampler, redis) = redis::sampler(args).await?.unzip();
        let exporter = match args.otlp.as_deref().filter(|url| !url.is_empty()) {
            Some(url) => Some(Exporter::new(url, run_id).map_err(|e| anyhow!("--otlp: {e}"))?),
            None => None,
        };
        let mut metering = Metering::find(args).await?;
        let scrapes = std::mem::take(&mut metering.scrapers);
        let samplers = Samplers { redis: sampler, scrapes, processes, probes: None };
        let probes = plan.probes.clone();
        Ok(Self { redis, samplers, probes, watched, exporter, metering, page: None })
    }

    /// Hands the samplers over to the rig; probes write below the run's folder.
    pub(super) fn set_up(&mut self, folder: &Path) -> Samplers {
        let (probes, watched) = (std::mem::take(&mut self.probes), std::mem::take(&mut self.watched));
        let prober = (!probes.is_empty()).then(|| Prober::new(probes, watched, folder.to_owned()));
        Samplers { probes: prober, ..std::mem::take(&mut self.samplers) }
    }

    /// Shows the run to a Prometheus, when it was asked for.
    pub(super) fn show(&mut self, run: &RunRecord) -> Option<Arc<Metrics>> {
        let (metrics, page) = self.metering.show(run)?;
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
