//! A Prometheus exposition endpoint beside a cell.

use serde::{Deserialize, Serialize};

use super::{Gap, Line};

/// An endpoint, scraped once a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ScrapeSeries {
    /// Where scrapes are missing.
    pub gaps: Vec<Gap>,
}

impl ScrapeSeries {
    /// Every figure that is worth a chart; `url` tells endpoints apart.
    pub fn lines(&self, _url: &str) -> Vec<Line> {
        Vec::new()
    }
}
