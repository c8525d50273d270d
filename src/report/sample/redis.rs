//! A made-up Redis beside the cells of a made-up run.

use std::collections::BTreeMap;

use crate::{
    micros::Micros,
    moment::Moment,
    plan::Cell,
    telemetry::{
        Gap, Telemetry,
        redis::{CommandCost, RedisSample, RedisSeries, ResultSizes, SamplingCost},
    },
};

/// What a Redis shows beside a cell that lasts until `end`: a megabyte a task comes in and stays.
/// The second repetition has a gap.
pub(super) fn beside(cell: &Cell, end: Micros) -> Telemetry {
    let seconds = end.0.div_ceil(1_000_000) as i64;
    let tasks = u64::from(cell.users * cell.tasks);
    let total = tasks * 1_000_000 + u64::from(cell.repetition) * 20_000;
    let mut samples: Vec<RedisSample> = (-1..=seconds + 1)
        .map(|s| {
            let done = total * s.clamp(0, seconds) as u64 / seconds.max(1) as u64;
            let ticks = (s + 1) as u64;
            RedisSample {
                at: Moment(s * 1_000_000 + 1_500),
                used_memory: 2_000_000 + done,
                used_memory_rss: 12_000_000 + done,
                used_memory_peak: 2_000_000 + done,
                net_input: 5_000 + 10 * done + 400 * ticks,
                net_output: 9_000 + 4 * done + 5_200 * ticks,
                input_kbps: 12.5,
                output_kbps: 3.25,
                connected_clients: 6,
                blocked_clients: 1,
                ops_per_second: 40,
                commands: done / 20_000 + 18 * ticks,
                cpu: Micros(done / 50 + 300 * ticks),
                queues: [
                    (
                        "simulations".to_owned(),
                        tasks - tasks * s.clamp(0, seconds) as u64 / seconds.max(1) as u64,
                    ),
                    ("helper-short".to_owned(), 0),
                ]
                .into(),
                unacked: u64::from(cell.users),
                result_keys: done / 1_000_000,
                took: Micros(900),
                own_input: 400 * ticks,
                own_output: 5_200 * ticks,
                own_commands: 18 * ticks,
                ..RedisSample::default()
            }
        })
        .collect();
    let mut gaps = Vec::new();
    if cell.repetition == 2 && samples.len() > 4 {
        let (from, to) = (samples[1].at, samples[3].at);
        samples.remove(2);
        gaps.push(Gap { from, to, why: "no answer within 5.0 s".into() });
    }
    let spent = |calls: u64, each: u64| CommandCost {
        calls,
        busy: Micros(calls * each),
        p99: Some(Micros(each * 4)),
    };
    let commands: BTreeMap<String, CommandCost> =
        [("lpush", spent(tasks * 3, 900)), ("brpop", spent(tasks * 4, 12)), ("setex", spent(tasks, 700))]
            .map(|(name, cost)| (name.to_owned(), cost))
            .into();
    let series = RedisSeries {
        cost: SamplingCost {
            commands: 18 * samples.len() as u64,
            sent: 400 * samples.len() as u64,
            received: 5_200 * samples.len() as u64,
            busy: Micros(300 * samples.len() as u64),
        },
        samples,
        gaps,
        commands,
        results: ResultSizes {
            bytes: (0..tasks).map(|i| 1_000_000 + i * 10).collect(),
            aggregates: vec![tasks * 1_000_000; cell.users as usize],
            others: vec![180; cell.users as usize],
            is_partial: cell.repetition == 2,
        },
        cuts: Vec::new(),
    };
    Telemetry { redis: Some(series), ..Telemetry::default() }
}
