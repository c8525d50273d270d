//! Scrapes a Prometheus exposition endpoint.

use tokio::time::Instant;

use crate::{plan::Cell, telemetry::scrape::ScrapeSeries};

/// An endpoint, and the task that scrapes it.
#[derive(Debug, Default)]
pub struct Scraper {}

impl Scraper {
    /// A cell is about to begin: scrapes are kept from now on.
    pub async fn open(&mut self, _cell: &Cell) {}

    /// The cell is over: the address, and what was seen.
    pub async fn close(&mut self, _t0: Instant) -> (String, ScrapeSeries) {
        (String::new(), ScrapeSeries::default())
    }
}
