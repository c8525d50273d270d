//! `payloads/<ID>_payloads.csv`: one row a payload of the cells that count, those of jobs first.

use crate::{
    payload::{Payload, PayloadKind},
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
                push(&mut out, payload);
            }
        }
        for kind in PayloadKind::ALL {
            for payload in cell.posts.iter().flat_map(|posts| kind.of_posts(posts)) {
                out.extend_from_slice(&lead);
                out.extend_from_slice(kind.as_str().as_bytes());
                push(&mut out, payload);
            }
        }
    }
    out
}

fn push(out: &mut Vec<u8>, payload: Payload) {
    out.push(b',');
    push_int(out, payload.wire);
    out.push(b',');
    push_int(out, payload.decoded);
    out.push(b',');
    push_ms(out, payload.latency);
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn a_row_a_payload() {
        for run in [sample::mixed(), sample::faults()] {
            for s in &Paper::of(&run).scenarios {
                let rows = sample::rows(&csv(&run, s));
                let count: u64 = s.payloads.iter().map(|p| p.count()).sum();
                assert_eq!(rows.len() as u64, count);
                assert!(rows.iter().all(|r| r.len() == 7 && &r[0] == run.run_id.as_str()));
                let has = |kind: &str| rows.iter().any(|r| &r[3] == kind);
                assert!(has("submit") && has("results"));
                let of_workers = ["post_tasks", "post_jobs", "post_results"];
                assert!(of_workers.into_iter().all(|kind| has(kind) == s.parts()[0].is_tapped()));
            }
        }
    }
}
