//! What would have been sampled beside a made-up cell: a Redis once a second, a worker process
//! four times a second; and results whose size differs from cell to cell.

use crate::{
    micros::Micros,
    moment::Moment,
    record::CellRecord,
    telemetry::{
        Line, Unit,
        process::{ProcessSample, ProcessSeries},
        redis::{RedisSample, RedisSeries, ResultSizes},
    },
    timeline::JobState,
};

/// Fills a cell's telemetry.
pub(super) fn sample(cell: &mut CellRecord) {
    let (users, tasks) = (u64::from(cell.cell.users), u64::from(cell.cell.tasks));
    let before = u64::from(cell.cell.index) * 40_000_000;
    let seconds = cell.duration.0.div_ceil(1_000_000);
    let at = |i: u64| Moment(i as i64 * 1_000_000 - 900_000);
    let one = |i: u64| {
        let through = i as f64 / seconds.max(1) as f64;
        let moved = (users * tasks) as f64 * 2.1e6 * through;
        // Fills while tasks end and empties when the results are merged.
        let held = (users * tasks) as f64 * 0.95e6 * (through * std::f64::consts::PI).sin().max(0.0);
        RedisSample {
            at: at(i),
            used_memory: 2_400_000 + held as u64,
            used_memory_rss: 9_000_000 + held as u64,
            net_input: before + (moved * 0.52) as u64,
            net_output: before + (moved * 0.48) as u64,
            blocked_clients: 4,
            connected_clients: 9 + users,
            ops_per_second: 20 + users * tasks / 2,
            queues: [("celery".to_owned(), (users * tasks).saturating_sub(i * 4))].into(),
            result_keys: (users * tasks * i) / (seconds + 1),
            ..RedisSample::default()
        }
    };
    cell.telemetry.redis = Some(RedisSeries {
        samples: (0..=seconds + 1).map(one).collect(),
        results: ResultSizes { bytes: vec![948_211; (users * tasks) as usize], ..ResultSizes::default() },
        ..RedisSeries::default()
    });
    let merges: Vec<(u64, u64)> = cell
        .totals
        .jobs
        .values()
        .filter_map(|job| {
            let begin = job.timeline.reached(JobState::MergingQueued)?.after.0;
            Some((begin, job.timeline.reached(JobState::Completed)?.before.0))
        })
        .collect();
    let (mut cpu, mut peak_rss) = (0, 0);
    let mut samples = Vec::new();
    for i in 0..seconds * 20 {
        let now = i * 50_000;
        let merging = merges.iter().filter(|(begin, end)| *begin <= now && now <= *end).count() as u64;
        cpu += 800 + merging.min(2) * 22_000;
        let rss = 88_000_000 + merging * tasks * 2_700_000;
        peak_rss = rss.max(peak_rss);
        samples.push(ProcessSample { at: Moment(now as i64), cpu: Micros(cpu), rss, peak_rss, processes: 3 });
    }
    cell.telemetry.processes.insert("worker".into(), ProcessSeries { samples, ..ProcessSeries::default() });
}

/// Gives the results of a cell another size, and their fetch the time that goes with it.
pub(super) fn resize(cell: &mut CellRecord) {
    let share = 0.6 + 0.2 * f64::from(cell.cell.repetition % 5);
    for job in cell.totals.jobs.values_mut() {
        let Some((results, fetch)) = job.results.as_mut().zip(job.timeline.fetch.as_mut()) else { continue };
        results.body_bytes = (results.body_bytes as f64 * share) as u64;
        results.wire_bytes = results.body_bytes + 260;
        let spent = fetch.took().0;
        fetch.done = Micros(fetch.sent.0 + (spent as f64 * (0.4 + 0.6 * share)) as u64);
    }
}

/// Ten figures once a second over `seconds`, whatever the telemetry of the cell itself has.
pub(crate) fn lines(cell: &CellRecord, seconds: u32) -> Vec<Line> {
    const FIGURES: [(&str, Unit, f64); 10] = [
        ("redis used_memory", Unit::Bytes, 9e6),
        ("redis input", Unit::BytesPerSecond, 4e6),
        ("redis output", Unit::BytesPerSecond, 3e6),
        ("redis commands", Unit::PerSecond, 800.0),
        ("redis queue celery", Unit::Count, 60.0),
        ("redis unacked", Unit::Count, 8.0),
        ("redis clients", Unit::Count, 14.0),
        ("worker CPU", Unit::Cores, 1.6),
        ("worker RSS", Unit::Bytes, 4e8),
        ("http_requests p95", Unit::Seconds, 0.2),
    ];
    let load = f64::from(cell.cell.users * cell.cell.tasks) / 80.0;
    let of = |(n, (name, unit, most)): (usize, (&str, Unit, f64))| {
        let point = |second: u32| {
            let wave = (f64::from(second) / (3.0 + n as f64)).sin().abs();
            let share = 0.1 + load * wave + 0.02 * f64::from((second * 7 + cell.cell.index) % 5);
            (Moment(i64::from(second) * 1_000_000), most * share)
        };
        // One figure has a gap in the middle of every cell.
        let is_there = |s: &u32| n != 4 || !(seconds / 3..seconds / 2).contains(s);
        Line { name: name.into(), unit, points: (0..seconds).filter(is_there).map(point).collect() }
    };
    FIGURES.into_iter().enumerate().map(of).collect()
}
