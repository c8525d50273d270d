//! `timings/<ID>.hlog`: HdrHistogram interval log, for HistogramLogProcessor and its like.
//!
//! An interval is a cell. Tags: `end_to_end`, and `METHOD:/path` for the requests that succeeded.

use std::time::{Duration, SystemTime};

use hdrhistogram::serialization::{
    V2DeflateSerializer,
    interval_log::{IntervalLogWriterBuilder, Tag},
};

use crate::{
    histogram::Histogram,
    record::{CellRecord, RunRecord},
    snapshot::Phase,
    summary::ScenarioSummary,
    timeline::Stage,
};

/// The log of a scenario's cells that count.
pub(super) fn log(run: &RunRecord, s: &ScenarioSummary) -> Vec<u8> {
    let mut cells = s.counting(run);
    cells.sort_by_key(|c| c.t0_unix);
    let base = cells.first().map_or(0, |c| c.t0_unix);
    let at = SystemTime::UNIX_EPOCH + Duration::from_micros(base);
    let unfinished = s.stage(Stage::EndToEnd).sample.censored();

    let (mut out, mut serializer) = (Vec::new(), V2DeflateSerializer::new());
    let mut builder = IntervalLogWriterBuilder::new();
    builder
        .add_comment("[Histogram log format version 1.3]")
        .add_comment(&format!(
            "springtide {}, run {}, scenario {}",
            run.build.version, run.run_id, s.scenario.id
        ))
        .add_comment("All values are in microseconds; Interval_Max too. One interval a cell.")
        .add_comment(&format!(
            "end_to_end has finished jobs only: {unfinished} unfinished ones are not in it."
        ))
        .with_start_time(at)
        .with_base_time(at);
    let mut log = builder.begin_log_with(&mut out, &mut serializer).expect(IN_MEMORY);
    for cell in cells {
        let start = Duration::from_micros(cell.t0_unix - base);
        for (tag, histogram) in histograms(cell) {
            if histogram.count() == 0 {
                continue;
            }
            let dense = histogram.to_dense();
            log.write_histogram(&dense, start, cell.duration.into(), Tag::new(&tag)).expect(IN_MEMORY);
        }
    }
    out
}

const IN_MEMORY: &str = "writing to memory does not fail";

fn histograms(cell: &CellRecord) -> Vec<(String, Histogram)> {
    let mut jobs = Histogram::default();
    for job in cell.totals.jobs.values() {
        if let Some(span) = job.timeline.stage(Stage::EndToEnd)
            && span.most.is_some()
        {
            jobs.record(span.midpoint());
        }
    }
    let mut all = vec![(Stage::EndToEnd.to_string(), jobs)];
    all.extend(cell.totals.phase(Phase::Load).map(|(key, stats)| {
        let tag = format!("{}:{}", key.method, key.name);
        (tag.replace([' ', ',', '\r', '\n'], "_"), stats.ok.clone())
    }));
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use base64::{Engine, engine::general_purpose::STANDARD};
    use hdrhistogram::serialization::{
        Deserializer,
        interval_log::{IntervalLogIterator, LogEntry},
    };

    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn the_log_reads_back_with_every_count() {
        let run = sample::mixed();
        let paper = Paper::of(&run);
        for s in &paper.scenarios {
            let bytes = log(&run, s);
            let mut counts: BTreeMap<String, u64> = BTreeMap::new();
            for entry in IntervalLogIterator::new(&bytes) {
                let LogEntry::Interval(interval) = entry.unwrap() else {
                    continue;
                };
                let packed = STANDARD.decode(interval.encoded_histogram()).unwrap();
                let histogram: hdrhistogram::Histogram<u64> =
                    Deserializer::new().deserialize(&mut &packed[..]).unwrap();
                *counts.entry(interval.tag().unwrap().to_string()).or_default() += histogram.len();
            }
            let e2e = &s.stage(Stage::EndToEnd).sample;
            assert_eq!(counts.remove("end_to_end").unwrap_or(0), (e2e.count() - e2e.censored()) as u64);
            let ok: u64 = s.requests.values().map(|r| r.ok.count()).sum();
            assert_eq!(counts.values().sum::<u64>(), ok);
        }
        assert!(String::from_utf8(log(&run, &paper.scenarios[0])).unwrap().contains("microseconds"));
    }
}
