//! `payloads/<ID>_payloads.csv`: one row a payload of the cells that count.

use crate::{
    payload::PayloadKind,
    record::RunRecord,
    report::{
        figure::{push_int, push_ms},
        sheet,
    },
    summary::ScenarioSummary,
};

const HEADER: &str = "run_id,scenario,repetition,kind,bytes_wire,bytes_decoded,latency_ms";

/// The payloads of a scenario.
pub(super) fn csv(run: &RunRecord, s: &ScenarioSummary) -> Vec<u8> {
    let cells = s.counting(run);
    let jobs: usize = cells.iter().map(|c| c.totals.jobs.len()).sum();
    let mut out = Vec::with_capacity(HEADER.len() + 1 + jobs * 2 * (run.run_id.len() + 48));
    out.extend_from_slice(HEADER.as_bytes());
    out.push(b'\n');
    for cell in cells {
        let mut lead = Vec::new();
        sheet::push_field(&mut lead, &run.run_id);
        lead.extend_from_slice(format!(",{},{},", s.scenario.id, cell.cell.repetition).as_bytes());
        for job in cell.totals.jobs.values() {
            for kind in PayloadKind::ALL {
                let Some(payload) = kind.of(job) else {
                    continue;
                };
                out.extend_from_slice(&lead);
                out.extend_from_slice(kind.as_str().as_bytes());
                out.push(b',');
                push_int(&mut out, payload.wire);
                out.push(b',');
                push_int(&mut out, payload.decoded);
                out.push(b',');
                push_ms(&mut out, payload.latency);
                out.push(b'\n');
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn a_row_a_payload() {
        let run = sample::mixed();
        for s in &Paper::of(&run).scenarios {
            let rows = sample::rows(&csv(&run, s));
            let count: u64 = s.payloads.iter().map(|p| p.count()).sum();
            assert_eq!(rows.len() as u64, count);
            assert!(rows.iter().all(|r| r.len() == 7 && &r[0] == run.run_id.as_str()));
        }
    }
}
