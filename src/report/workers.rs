//! `timings/workers.csv`: one row a cell and worker of a run over a plane, those of warm-ups
//! (repetition 0) and of cells that were made again included.

use crate::{
    crew::Part,
    record::{CellRecord, RunRecord},
    report::sheet,
};

/// Its first line. Times are microseconds; `clock_offset_us` is the plane's clock less the worker's.
/// `start_late_us` is empty for a worker that did not start, the lag without planned waits.
const HEADER: &str = "run_id,scenario,cell,repetition,attempt,worker,epoch,users,frames,gaps,repeated,clock_offset_us,clock_error_us,start_late_us,lag_p99_us,lag_max_us,cpu_share,sockets,lost,cell_verdict";

/// The workers of all cells, in the order the cells ran.
pub(super) fn csv(run: &RunRecord) -> Vec<u8> {
    let rows = run.cells.iter().flat_map(|cell| cell.workers.iter().map(move |part| row(run, cell, part)));
    sheet::csv(HEADER, rows)
}

fn row(run: &RunRecord, record: &CellRecord, part: &Part) -> Vec<String> {
    let (cell, health) = (&record.cell, &part.health);
    let lag = |us: crate::micros::Micros| {
        if health.lag.count() == 0 { String::new() } else { us.0.to_string() }
    };
    vec![
        run.run_id.clone(),
        cell.scenario.to_string(),
        cell.index.to_string(),
        cell.repetition.to_string(),
        cell.attempt.to_string(),
        sheet::inert(&part.name),
        part.epoch.to_string(),
        part.users.to_string(),
        part.frames.to_string(),
        part.gaps.to_string(),
        part.repeated.to_string(),
        part.offset.ahead.to_string(),
        part.offset.error.0.to_string(),
        part.start_late.map_or_else(String::new, |late| late.0.to_string()),
        lag(health.lag.quantile(0.99)),
        lag(health.lag.max()),
        format!("{:.4}", health.cpu_share()),
        health.sockets.to_string(),
        sheet::inert(part.lost.as_deref().unwrap_or_default()),
        record.verdict.to_string(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn column(name: &str) -> usize {
        HEADER.split(',').position(|c| c == name).unwrap()
    }

    #[test]
    fn a_row_a_cell_and_worker() {
        let run = sample::crew();
        let rows = sample::rows(&csv(&run));
        assert_eq!(rows.len(), run.cells.iter().map(|c| c.workers.len()).sum::<usize>());
        for cell in &run.cells {
            let its: Vec<_> =
                rows.iter().filter(|r| r[column("cell")] == cell.cell.index.to_string()).collect();
            let users: u32 = its.iter().map(|r| r[column("users")].parse::<u32>().unwrap()).sum();
            assert_eq!(users, cell.cell.users);
        }
        let lost: Vec<_> = rows.iter().filter(|r| !r[column("lost")].is_empty()).collect();
        assert_eq!(lost.len(), 1);
        assert_eq!((&lost[0][column("worker")], &lost[0][column("cell_verdict")]), ("load-b", "INVALID"));
        assert_eq!(&lost[0][column("lost")], "its lease ran out");
        assert!(lost[0][column("start_late_us")].is_empty(), "it was gone before it could say so");
        let ahead: i64 = rows[0][column("clock_offset_us")].parse().unwrap();
        assert!(ahead < 0, "a number stays one");
    }

    #[test]
    fn what_a_worker_is_called_is_no_formula() {
        let mut run = sample::crew();
        let part = &mut run.cells[0].workers[0];
        part.name = "=cmd|' /C calc'!A0".into();
        part.lost = Some("a, \"b\"\n@c".into());
        let bytes = csv(&run);
        let rows = sample::rows(&bytes);
        assert_eq!(&rows[0][column("worker")], "'=cmd|' /C calc'!A0");
        assert_eq!(&rows[0][column("lost")], "a, \"b\"\n@c");
    }
}
