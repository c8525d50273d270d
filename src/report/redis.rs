//! `redis/<ID>_redis.csv`: one row a second of each cell, those of INVALID cells included and
//! marked, and one for each gap where it begins.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    record::{CellRecord, RunRecord},
    report::{figure::ms, sheet},
    summary::ScenarioSummary,
    telemetry::redis::RedisSample,
};

/// Its first columns, and those behind the queues. Counters are since the start of Redis; `own_…`
/// is our part of them since the cell was opened. A row of a gap has only `gap` and `gap_to_s`.
const LEAD: &str = "run_id,scenario,repetition,attempt,at_s,unix_ms,used_memory,used_memory_rss,used_memory_peak,net_input_bytes,net_output_bytes,input_kbps,output_kbps,connected_clients,blocked_clients,evicted_keys,ops_per_s,commands,cpu_s";
const TAIL: &str = "unacked,result_keys,own_input_bytes,own_output_bytes,own_commands,took_ms,counters_anew,gap,gap_to_s,cell_verdict";

/// Columns between the place of a row and the gap.
const FIGURES: usize = 13 + 7;

/// Whether a scenario has any such row.
pub(super) fn is_of(run: &RunRecord, s: &ScenarioSummary) -> bool {
    run.measured().any(|c| c.cell.scenario == s.scenario.id && c.telemetry.redis.is_some())
}

/// The samples of a scenario, cell by cell.
pub(super) fn csv(run: &RunRecord, s: &ScenarioSummary) -> Vec<u8> {
    let cells: Vec<&CellRecord> = run.measured().filter(|c| c.cell.scenario == s.scenario.id).collect();
    let series = || cells.iter().filter_map(|c| c.telemetry.redis.as_ref());
    let names: BTreeSet<&str> = series().flat_map(|r| r.queue_names()).collect();
    let columns: String = columns(&names).iter().map(|c| format!(",{c}")).collect();
    let header = format!("{LEAD}{columns},{TAIL}");
    let rows = cells.iter().flat_map(|cell| rows(run, cell, &names));
    sheet::csv(&header, rows)
}

/// `queue_<name>` with everything odd in the name an underscore; no two alike.
fn columns(names: &BTreeSet<&str>) -> Vec<String> {
    let mut taken: BTreeMap<String, u32> = BTreeMap::new();
    let plain = |name: &str| -> String {
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect()
    };
    names
        .iter()
        .map(|name| {
            let column = format!("queue_{}", plain(name));
            let times = taken.entry(column.clone()).and_modify(|n| *n += 1).or_insert(1);
            if *times == 1 { column } else { format!("{column}_{times}") }
        })
        .collect()
}

fn rows(run: &RunRecord, cell: &CellRecord, names: &BTreeSet<&str>) -> Vec<Vec<String>> {
    let Some(series) = &cell.telemetry.redis else { return Vec::new() };
    let place = |at: crate::moment::Moment| {
        let unix_us = i128::from(cell.t0_unix) + i128::from(at.0);
        vec![
            run.run_id.clone(),
            cell.cell.scenario.to_string(),
            cell.cell.repetition.to_string(),
            cell.cell.attempt.to_string(),
            seconds(at),
            (unix_us / 1_000).to_string(),
        ]
    };
    let mut all = Vec::new();
    for sample in &series.samples {
        let mut row = place(sample.at);
        row.extend(figures(sample, names));
        row.extend([String::new(), String::new(), cell.verdict.to_string()]);
        all.push((sample.at, 1, row));
    }
    for gap in &series.gaps {
        let mut row = place(gap.from);
        row.extend(std::iter::repeat_n(String::new(), FIGURES + names.len()));
        row.extend([gap.why.clone(), seconds(gap.to), cell.verdict.to_string()]);
        // Behind the sample that it begins with.
        all.push((gap.from, 2, row));
    }
    all.sort_by_key(|(at, kind, _)| (*at, *kind));
    all.into_iter().map(|(.., row)| row).collect()
}

fn seconds(at: crate::moment::Moment) -> String {
    format!("{:.3}", at.as_secs())
}

fn figures(s: &RedisSample, names: &BTreeSet<&str>) -> Vec<String> {
    let mut row: Vec<String> =
        [s.used_memory, s.used_memory_rss, s.used_memory_peak, s.net_input, s.net_output]
            .map(|n| n.to_string())
            .to_vec();
    row.extend([s.input_kbps, s.output_kbps].map(|n| n.to_string()));
    let counts = [s.connected_clients, s.blocked_clients, s.evicted_keys, s.ops_per_second, s.commands];
    row.extend(counts.map(|n| n.to_string()));
    row.push(format!("{:.6}", s.cpu.as_secs()));
    row.extend(names.iter().map(|name| s.queues.get(*name).map_or_else(String::new, u64::to_string)));
    let counts = [s.unacked, s.result_keys, s.own_input, s.own_output, s.own_commands];
    row.extend(counts.map(|n| n.to_string()));
    row.extend([ms(s.took), s.is_anew.to_string()]);
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn a_row_a_second_and_one_a_gap() {
        let run = sample::redis();
        let paper = Paper::of(&run);
        let s = &paper.scenarios[0];
        let text = csv(&run, s);
        let header = String::from_utf8_lossy(&text).lines().next().unwrap().to_owned();
        let at = |name: &str| header.split(',').position(|c| c == name).unwrap_or_else(|| panic!("{name}"));
        let rows = sample::rows(&text);
        let cells: Vec<&CellRecord> = run.measured().filter(|c| c.cell.scenario == s.scenario.id).collect();
        let (samples, gaps) = cells
            .iter()
            .filter_map(|c| c.telemetry.redis.as_ref())
            .fold((0, 0), |(samples, gaps), r| (samples + r.samples.len(), gaps + r.gaps.len()));
        assert!(samples > 5 && gaps > 0);
        assert_eq!(rows.len(), samples + gaps);
        let first = &rows[0];
        let telemetry = cells[0].telemetry.redis.as_ref().unwrap();
        assert_eq!(&first[at("used_memory")], telemetry.samples[0].used_memory.to_string());
        assert_eq!(&first[at("queue_helper_short")], "0");
        let unix: u64 = first[at("unix_ms")].parse().unwrap();
        let at_s: f64 = first[at("at_s")].parse().unwrap();
        assert!((unix as f64 - cells[0].t0_unix as f64 / 1e3 - at_s * 1e3).abs() < 2.0);
        for row in rows.iter().filter(|r| !r[at("gap")].is_empty()) {
            assert!(row[at("used_memory")].is_empty() && row[at("result_keys")].is_empty());
            assert!(row[at("gap_to_s")].parse::<f64>().unwrap() > row[at("at_s")].parse::<f64>().unwrap());
        }
        assert!(rows.iter().all(|r| !r[at("cell_verdict")].is_empty()));
    }

    #[test]
    fn names_of_queues_make_columns_of_their_own() {
        let names = BTreeSet::from(["a-b", "a.b", "Main"]);
        assert_eq!(columns(&names), ["queue_main", "queue_a_b", "queue_a_b_2"]);
    }
}
