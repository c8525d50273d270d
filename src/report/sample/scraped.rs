//! A target that tells of itself.

use crate::{
    estimate::Buckets,
    moment::Moment,
    record::{CellRecord, RunRecord},
    telemetry::scrape::{HistogramSeries, ScrapeSeries},
    timeline::Stage,
};

/// What an endpoint would have told of a cell: its jobs' stages, payloads and polls, in buckets.
pub(crate) fn scraped(cell: &CellRecord) -> ScrapeSeries {
    let jobs: Vec<_> = cell.totals.jobs.values().collect();
    let spans = |stage| -> Vec<f64> {
        jobs.iter().filter_map(|j| j.timeline.stage(stage)).map(|s| s.midpoint().as_secs()).collect()
    };
    let seconds = [0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
    let mut histograms: Vec<HistogramSeries> = [Stage::Run, Stage::Merge, Stage::Fetch]
        .map(|stage| {
            let label = ("stage", stage.as_str());
            // As if a job without that stage had gone through it in no time.
            let mut values = spans(stage);
            values.resize(jobs.len(), 0.1);
            histogram("yaptide_stage_duration_seconds", &[label], &values, &seconds)
        })
        .into();
    let ends = spans(Stage::EndToEnd);
    histograms.push(histogram("yaptide_job_duration_seconds", &[("status", "COMPLETED")], &ends, &seconds));
    let sizes: Vec<f64> =
        jobs.iter().filter_map(|j| j.results.as_ref()).map(|r| r.body_bytes as f64).collect();
    let bytes = [1e5, 1e6, 2e6, 4e6];
    histograms.push(histogram("yaptide_payload_bytes", &[("kind", "results")], &sizes, &bytes));
    let labels = [("method", "GET"), ("route", "/jobs"), ("status", "200")];
    histograms.push(histogram(
        "yaptide_http_request_duration_seconds",
        &labels,
        &[0.01, 0.02, 0.7],
        &seconds,
    ));
    ScrapeSeries {
        at: vec![Moment(-500_000), Moment(500_000)],
        is_whole: true,
        histograms,
        ..ScrapeSeries::default()
    }
}

fn histogram(name: &str, labels: &[(&str, &str)], values: &[f64], bounds: &[f64]) -> HistogramSeries {
    let up_to = |b: f64| values.iter().filter(|v| **v <= b).count() as f64;
    let points = bounds.iter().copied().chain([f64::INFINITY]).map(|b| (b, up_to(b))).collect();
    HistogramSeries {
        name: name.into(),
        labels: labels.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect(),
        growth: Buckets::of_cumulative(points, Some(values.iter().sum())).unwrap(),
        resets: 0,
        counts: vec![(1, values.len() as u64, None)],
    }
}

/// S6 to S8, seen by a tap and telling of themselves.
pub(crate) fn scraped_run() -> RunRecord {
    let mut run = super::faults();
    for cell in &mut run.cells {
        let series = scraped(cell);
        cell.telemetry.scrapes.insert("http://yaptide:5000/metrics".into(), series);
    }
    run
}
