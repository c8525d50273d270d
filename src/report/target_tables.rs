//! The tables on what the target's own metrics tell, for HTML and Markdown alike.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    estimate::{Buckets, Sample, Within},
    micros::Offset,
    record::RunRecord,
    report::{
        figure::{self, NONE, TOO_SMALL_MEANS, said},
        table::{Table, code, num},
    },
    summary::{ScenarioSummary, Source},
    telemetry::scrape::{MOST_SERIES, ScrapeSeries},
};

/// The most troubles of a scenario that are told.
const NOTES: usize = 12;

/// Stages, jobs, payloads and requests as the target counts them; `None` where nobody asked it.
pub(crate) fn metrics(s: &ScenarioSummary) -> Option<Table> {
    let m = &s.metrics;
    if m.is_empty() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: stages and payloads as the target's own metrics tell them", s.name()),
        &["what", "n", "p50", "p90", "p95", "p99", "max", "mean"],
    );
    let stages = m.stages.iter().map(|(name, b)| (format!("stage {name}"), b));
    let jobs = [("job".to_owned(), &m.jobs)].into_iter();
    let requests = m.requests.iter().map(|((method, at), b)| (format!("{method} {at}"), b));
    for (what, b) in stages.chain(jobs).chain(requests).filter(|(_, b)| b.count() > 0) {
        let sample = Sample::in_buckets(b.clone());
        let mut row = vec![code(what.trim()), num(b.count())];
        row.extend([0.5, 0.9, 0.95, 0.99].map(|q| num(said(sample.quantile(q)))));
        row.extend([num(said(sample.max())), num(sample.mean().map_or(NONE.into(), |m| m.to_string()))]);
        t.row(row);
    }
    for (kind, b) in m.payloads.iter().filter(|(_, b)| b.count() > 0) {
        let mut row = vec![code(format!("payload {kind}")), num(b.count())];
        row.extend([0.5, 0.9, 0.95, 0.99, 1.0].map(|q| num(size(b, q))));
        row.push(num(b.mean().map_or_else(|| NONE.into(), |m| figure::bytes(m as u64))));
        t.row(row);
    }
    if t.is_empty() {
        let mut row = vec!["nothing that can be trusted".into(), num(0)];
        row.extend(std::iter::repeat_n(num(NONE), 6));
        t.row(row);
    }
    t.note(format!(
        "Histograms scraped from --metrics-url, as they grew from the first scrape of each cell to its last, {} cells. They count whatever the target did in that time, for whomever. Of a value only its bucket is known: \"4.2 s in 2.5 s … 5 s\" is drawn on a straight line through the bucket, and the bucket is what it is worth; \">=\" lies beyond the last bound. The mean is exact.",
        m.cells
    ));
    t.note(TOO_SMALL_MEANS);
    for cell in &m.left_out {
        t.note(format!("Left out, since nobody knows what was counted in it: {cell}."));
    }
    Some(t)
}

/// How the endpoints were scraped beside the cells of a scenario; `None` where none was.
pub(crate) fn endpoints(run: &RunRecord, s: &ScenarioSummary) -> Option<Table> {
    let mut by_url: BTreeMap<&str, Vec<&ScrapeSeries>> = BTreeMap::new();
    for (url, series) in s.counting(run).iter().flat_map(|c| &c.telemetry.scrapes) {
        by_url.entry(url).or_default().push(series);
    }
    if by_url.is_empty() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: exposition endpoints, scraped once a second", s.name()),
        &["endpoint", "cells", "whole", "scrapes", "bytes", "gaps", "series", "left out"],
    );
    let mut notes = BTreeSet::new();
    for (url, all) in by_url {
        let sum = |of: fn(&ScrapeSeries) -> u64| all.iter().map(|s| of(s)).sum::<u64>();
        let most = |of: fn(&ScrapeSeries) -> u64| all.iter().map(|s| of(s)).max().unwrap_or(0);
        t.row(vec![
            code(url),
            num(all.len()),
            num(all.iter().filter(|s| s.is_whole).count()),
            num(sum(|s| s.at.len() as u64)),
            num(figure::bytes(sum(|s| s.bytes))),
            num(sum(|s| s.gaps.len() as u64)),
            num(most(|s| (s.figures.len() + s.histograms.len()) as u64)),
            num(most(|s| s.left_out.series)),
        ]);
        notes.extend(all.iter().flat_map(|s| &s.gaps).map(|gap| format!("{url}, a gap: {}", gap.why)));
        notes.extend(
            all.iter().flat_map(|s| &s.left_out.names).map(|name| format!("{url}, left out: {name}")),
        );
    }
    t.note(format!("Whole: cells whose first and last scrape succeeded. Series: the most kept of a cell; of one endpoint {MOST_SERIES} are kept, a histogram counts as one."));
    notes.into_iter().take(NOTES).for_each(|note| t.note(note));
    Some(t)
}

/// A payload's size with its bucket.
pub(crate) fn size(b: &Buckets, q: f64) -> String {
    let bytes = |n: f64| figure::bytes(n.max(0.0).round() as u64);
    match b.quantile(q) {
        None => NONE.into(),
        Some(Within { low, high: None, .. }) => format!(">= {}", bytes(low)),
        Some(Within { value, low, high: Some(high) }) => {
            format!("{} in {} … {}", bytes(value), bytes(low), bytes(high))
        }
    }
}

/// A stage that the target's metrics tell and somebody else, too.
pub(crate) struct Beside {
    pub(crate) stage: &'static str,
    pub(crate) other: Source,
    pub(crate) n: [usize; 2],
    pub(crate) medians: [String; 2],
    /// Median by metrics less that of the other.
    pub(crate) apart: Option<Offset>,
    /// Whether the other's median lies in the bucket of this one: then they do not disagree.
    pub(crate) agrees: bool,
}

/// The medians of each stage by the target's metrics and by every other source.
pub(crate) fn beside(s: &ScenarioSummary) -> Vec<Beside> {
    let mut all = Vec::new();
    for ours in s.of_source(Source::Metrics) {
        for other in s.sources(ours.stage).filter(|x| x.source != Source::Metrics) {
            let (Some(a), Some(b)) = (ours.quantile(0.5), other.quantile(0.5)) else { continue };
            let within = |(low, high): (_, Option<_>)| low <= b.value && high.is_none_or(|h| b.value <= h);
            all.push(Beside {
                stage: ours.stage.as_str(),
                other: other.source,
                n: [ours.sample.count(), other.sample.count()],
                medians: [said(Some(a)), said(Some(b))],
                // Two bounds have no difference.
                apart: (!a.at_least && !b.at_least).then(|| Offset::of(a.value, b.value)),
                agrees: a.bucket.is_some_and(within),
            });
        }
    }
    all
}

/// The target's metrics against the tap and the polls.
pub(crate) fn agreement(s: &ScenarioSummary) -> Option<Table> {
    let all = beside(s);
    if all.is_empty() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: the target's own metrics against the other sources", s.name()),
        &["stage", "against", "n", "n there", "p50", "p50 there", "difference", "in one bucket"],
    );
    for b in all {
        let [n, there] = b.n;
        let [p50, p50_there] = b.medians;
        t.row(vec![
            b.stage.into(),
            b.other.as_str().into(),
            num(n),
            num(there),
            num(p50),
            num(p50_there),
            num(b.apart.map_or_else(|| NONE.into(), |d| d.to_string())),
            if b.agrees { "yes" } else { "no" }.into(),
        ]);
    }
    t.note("Difference of the medians, the metrics' less the other's. Where the other median lies in the bucket of this one, the difference is no disagreement. What the target calls a stage may begin and end elsewhere.");
    Some(t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{Paper, sample},
        telemetry::Gap,
    };

    #[test]
    fn every_figure_stands_beside_its_bucket() {
        let run = sample::scraped_run();
        let paper = Paper::of(&run);
        let s = &paper.scenarios[0];
        let text = metrics(s).unwrap().text();
        for what in ["stage merge", "job", "payload results", "GET /jobs"] {
            let row = text.lines().find(|l| l.contains(what)).unwrap_or_else(|| panic!("{what} in {text}"));
            assert!(row.matches(" … ").count() >= 4, "{row}");
        }
        let beside = agreement(s).unwrap().text();
        assert!(beside.contains("merge") && beside.contains("tap") && beside.contains("poll"), "{beside}");
        assert!(metrics(&Paper::of(&sample::good()).scenarios[0]).is_none());
    }

    #[test]
    fn a_run_in_which_no_cell_counts_says_why() {
        let mut run = sample::scraped_run();
        for series in run.cells.iter_mut().flat_map(|c| c.telemetry.scrapes.values_mut()) {
            series.is_whole = false;
            series.gaps =
                vec![Gap { from: Default::default(), to: Default::default(), why: "status 503".into() }];
        }
        let paper = Paper::of(&run);
        let how = endpoints(&run, &paper.scenarios[0]).unwrap().markdown();
        assert!(how.contains("a gap: status 503"), "{how}");
        let text = metrics(&paper.scenarios[0]).unwrap().markdown();
        assert!(text.contains("Left out") && text.contains("status 503"), "{text}");
        assert!(agreement(&paper.scenarios[0]).is_none());
    }
}
