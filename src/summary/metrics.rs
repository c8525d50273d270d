//! What the target's own metrics tell of a scenario: histograms that grew in its cells.
//!
//! They count everything the target did between the first scrape of a cell and its last, for
//! whomever it did it, and tell of each value only its bucket.

use std::collections::BTreeMap;

use crate::{
    estimate::{Buckets, Sample},
    record::CellRecord,
    state::Stage,
    telemetry::scrape::{HistogramSeries, ScrapeSeries},
};

const STAGES: &str = "yaptide_stage_duration_seconds";
const JOBS: &str = "yaptide_job_duration_seconds";
const PAYLOADS: &str = "yaptide_payload_bytes";
const REQUESTS: &str = "yaptide_http_request_duration_seconds";
const FAMILIES: [&str; 4] = [STAGES, JOBS, PAYLOADS, REQUESTS];

/// Labels by which a request's endpoint may be told; the first that is there counts.
const ENDPOINT: [&str; 6] = ["route", "endpoint", "path", "handler", "url_rule", "name"];

/// The histograms of a scenario's cells, added up over labels that do not matter.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TargetMetrics {
    /// Stages by the target's own name for them, in seconds.
    pub stages: BTreeMap<String, Buckets>,
    /// Jobs, as the target clocks them, in seconds; nothing counted when it does not.
    pub jobs: Buckets,
    /// Payloads by kind, in bytes.
    pub payloads: BTreeMap<String, Buckets>,
    /// Requests by method and endpoint, in seconds.
    pub requests: BTreeMap<(String, String), Buckets>,
    /// Cells that are in it.
    pub cells: usize,
    /// Cells that are not, with the reason.
    pub left_out: Vec<String>,
}

impl TargetMetrics {
    /// Adds the cells up in which nothing is missing.
    pub fn of(cells: &[&CellRecord]) -> Self {
        let mut all = Self::default();
        for cell in cells {
            // The same endpoint by two names would count twice.
            let mut told: Vec<Vec<&HistogramSeries>> = Vec::new();
            let mut flaws = Vec::new();
            for (url, series) in &cell.telemetry.scrapes {
                let its: Vec<&HistogramSeries> = FAMILIES.iter().flat_map(|f| series.family(f)).collect();
                if its.is_empty() || told.iter().any(|other| is_same(other, &its)) {
                    continue;
                }
                let why = flaw(series, &its).or_else(|| strangers(&its, cell.ledger.submitted));
                flaws.extend(why.map(|why| format!("{url} {why}")));
                told.push(its);
            }
            if told.is_empty() {
                continue;
            }
            if !flaws.is_empty() {
                let (id, repetition) = (&cell.cell.scenario, cell.cell.repetition);
                all.left_out.push(format!("{id} #{repetition}: {}", flaws.join("; ")));
                continue;
            }
            all.cells += 1;
            told.into_iter().flatten().for_each(|h| all.add(h));
        }
        all
    }

    fn add(&mut self, h: &HistogramSeries) {
        let label = |name: &str| h.labels.get(name).cloned();
        let into = match h.name.as_str() {
            STAGES => self.stages.entry(label("stage").unwrap_or_default()).or_default(),
            JOBS => &mut self.jobs,
            PAYLOADS => self.payloads.entry(label("kind").unwrap_or_default()).or_default(),
            _ => {
                let endpoint = ENDPOINT.iter().find_map(|name| label(name)).unwrap_or_default();
                self.requests.entry((label("method").unwrap_or_default(), endpoint)).or_default()
            }
        };
        into.merge(&h.growth);
    }

    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        self.cells == 0 && self.left_out.is_empty()
    }

    /// The stages that the target calls as we do, those that it saw nothing of left out. What it
    /// takes for the whole of a job ends elsewhere than a client's.
    pub(super) fn samples(&self) -> impl Iterator<Item = (Stage, Sample)> + '_ {
        self.stages.iter().filter(|(_, b)| b.count() > 0).filter_map(|(name, buckets)| {
            let stage = Stage::ALL.into_iter().find(|s| s.as_str() == name)?;
            (stage != Stage::EndToEnd).then(|| (stage, Sample::in_buckets(buckets.clone())))
        })
    }
}

fn is_same(a: &[&HistogramSeries], b: &[&HistogramSeries]) -> bool {
    let key = |h: &HistogramSeries| (h.name.clone(), h.labels.clone(), h.growth.clone());
    a.len() == b.len()
        && a.iter().zip(b).all(|(a, b)| key(a) == key(b))
        && a.iter().any(|h| h.growth.count() > 0)
}

/// Why a cell's growth is not all of it.
fn flaw(series: &ScrapeSeries, its: &[&HistogramSeries]) -> Option<String> {
    if !series.is_whole {
        let why = series.gaps.first().map_or("no scrape", |gap| gap.why.as_str());
        return Some(format!("was not scraped at the cell's start or end ({why})"));
    }
    its.iter().any(|h| h.resets > 0).then(|| "was started anew in the cell".into())
}

/// Why a growth is not only ours: a stage of more jobs than there were. Without it, the target's own
/// figures would tell of somebody else's jobs.
fn strangers(its: &[&HistogramSeries], jobs: u64) -> Option<String> {
    let mut of_stage: BTreeMap<Option<&String>, u64> = BTreeMap::new();
    for h in its.iter().filter(|h| h.name == STAGES) {
        *of_stage.entry(h.labels.get("stage")).or_default() += h.growth.count();
    }
    let most = of_stage.values().copied().max()?;
    (most > jobs).then(|| format!("counted {most} jobs in a stage where {jobs} were ours"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::sample,
        summary::{ScenarioSummary, Source},
        telemetry::Gap,
    };

    /// A run whose S6 cells were scraped; one of them not at its end.
    fn scraped() -> crate::record::RunRecord {
        let mut run = sample::faults();
        for cell in &mut run.cells {
            let mut series = sample::scraped(cell);
            if cell.cell.scenario.as_str() == "S6" && cell.cell.repetition == 1 {
                series.is_whole = false;
                series.gaps.push(Gap {
                    from: Default::default(),
                    to: Default::default(),
                    why: "timed out".into(),
                });
            }
            cell.telemetry.scrapes.insert("http://a/metrics".into(), series.clone());
            cell.telemetry.scrapes.insert("http://b/metrics".into(), series);
        }
        run
    }

    #[test]
    fn growth_is_added_up_over_cells_and_labels_and_never_twice() {
        let run = scraped();
        let all = ScenarioSummary::of_run(&run);
        let s = &all[0];
        let others = s.counting(&run).into_iter().filter(|c| c.cell.repetition != 1);
        let jobs: usize = others.map(|c| c.totals.jobs.len()).sum();
        assert_eq!((s.metrics.cells, s.metrics.left_out.len()), (s.cells - 1, 1));
        assert!(
            s.metrics.left_out[0].contains("#1: http://a/metrics was not scraped")
                && s.metrics.left_out[0].contains("timed out")
        );
        assert_eq!(s.metrics.stages["merge"].count(), jobs as u64);
        let merge: Vec<Source> =
            s.stages.iter().filter(|x| x.stage == Stage::Merge).map(|x| x.source).collect();
        assert_eq!(merge, [Source::Tap, Source::Metrics, Source::Poll]);
        let fetch: Vec<Source> =
            s.stages.iter().filter(|x| x.stage == Stage::Fetch).map(|x| x.source).collect();
        assert_eq!(fetch, [Source::Client, Source::Metrics]);
    }

    #[test]
    fn a_cell_with_a_new_start_is_left_out() {
        let mut run = scraped();
        let cell = run
            .cells
            .iter_mut()
            .find(|c| c.cell.scenario.as_str() == "S6" && c.cell.repetition == 2)
            .unwrap();
        for series in cell.telemetry.scrapes.values_mut() {
            series.histograms[0].resets = 1;
        }
        let s = &ScenarioSummary::of_run(&run)[0];
        assert!(
            s.metrics.left_out.iter().any(|l| l.contains("#2") && l.contains("anew")),
            "{:?}",
            s.metrics.left_out
        );
    }
}
