//! Prometheus both ways: the endpoints that a run scrapes, and the page on which it shows itself.

use std::sync::Arc;

use anyhow::{Result, anyhow, bail};

use crate::{
    cli::LoadArgs,
    live::{Door, Metrics, Server},
    record::RunRecord,
    sampling::scrape::Scraper,
};

/// What `--metrics-url` and `--metrics-listen` name, found before anything starts.
pub(super) struct Metering {
    /// The endpoints.
    pub(super) scrapers: Vec<Scraper>,
    /// The open port of the page.
    door: Option<Door>,
}

impl Metering {
    /// Scrapes every endpoint once and opens the port.
    ///
    /// # Errors
    /// When an endpoint is not there, has no metrics or is named twice, or the port is taken.
    pub(super) async fn find(args: &LoadArgs) -> Result<Self> {
        let mut scrapers: Vec<Scraper> = Vec::new();
        for url in args.metrics_urls.iter().filter(|url| !url.is_empty()) {
            let scraper = Scraper::connect(url).await.map_err(|e| anyhow!("--metrics-url: {e}"))?;
            if scrapers.iter().any(|s| s.url() == scraper.url()) {
                bail!("--metrics-url {url}: stands there twice; name each endpoint once");
            }
            scrapers.push(scraper);
        }
        let door = match args.metrics_listen {
            Some(addr) => Some(Server::open(addr).await.map_err(|e| anyhow!("--metrics-listen: {e}"))?),
            None => None,
        };
        Ok(Self { scrapers, door })
    }

    /// Shows a run from now on, as long as the server is kept; `None` when nobody asked for it.
    pub(super) fn show(&mut self, run: &RunRecord) -> Option<(Arc<Metrics>, Server)> {
        let door = self.door.take()?;
        let info = vec![
            ("run_id", run.run_id.clone()),
            ("label", run.label.clone()),
            ("version", run.build.version.clone()),
            ("revision", run.build.revision.clone()),
            ("target", run.target.url.clone()),
            ("stand_in", run.target.stand_in.to_string()),
            ("seed", run.plan.seed.to_string()),
        ];
        let metrics = Arc::new(Metrics::new(info));
        let server = door.serve(Arc::clone(&metrics));
        tracing::info!("live figures at {}", server.url());
        Some((metrics, server))
    }
}
