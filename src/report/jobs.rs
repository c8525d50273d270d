//! `timings/<ID>_jobs.csv`: one row a job, those of INVALID cells included and marked.

use crate::{
    record::RunRecord,
    report::{
        figure::{push_int, push_ms},
        sheet,
    },
    snapshot::{Job, JobKey},
    summary::ScenarioSummary,
    timeline::{JobOutcome, Stage},
};

/// Its first line. Stages that polling bounds have a least and a most value; an empty field is
/// unknown, and an empty `most` beside a `least` means that the job never left the stage.
const HEADER: &str = "run_id,scenario,repetition,worker,user,nth,job_id,outcome,detail,submit_ms,queue_least_ms,queue_most_ms,run_least_ms,run_most_ms,merge_least_ms,merge_most_ms,fetch_ms,end_to_end_ms,end_to_end_censored,polls,poll_bytes,submit_bytes,results_bytes,skipped_states,cell_verdict";

/// The jobs of a scenario, cell by cell, user by user.
pub(super) fn csv(run: &RunRecord, s: &ScenarioSummary) -> Vec<u8> {
    let cells = || run.measured().filter(|c| c.cell.scenario == s.scenario.id);
    let jobs: usize = cells().map(|c| c.totals.jobs.len()).sum();
    let mut out = Vec::with_capacity(HEADER.len() + 1 + jobs * 256);
    out.extend_from_slice(HEADER.as_bytes());
    out.push(b'\n');
    for cell in cells() {
        let mut lead = Vec::new();
        sheet::push_field(&mut lead, &run.run_id);
        lead.extend_from_slice(format!(",{},{},", s.scenario.id, cell.cell.repetition).as_bytes());
        let mark = format!(",{}\n", cell.verdict);
        for (&key, job) in &cell.totals.jobs {
            out.extend_from_slice(&lead);
            push_job(&mut out, key, job);
            out.extend_from_slice(mark.as_bytes());
        }
    }
    out
}

fn push_job(out: &mut Vec<u8>, key: JobKey, job: &Job) {
    for n in [job.worker, key.user, key.nth] {
        push_int(out, u64::from(n));
        out.push(b',');
    }
    sheet::push_field(out, job.job_id.as_deref().unwrap_or_default());
    out.push(b',');
    out.extend_from_slice(job.outcome.kind().as_bytes());
    out.push(b',');
    push_detail(out, &job.outcome);
    for stage in Stage::CLIENT {
        push_stage(out, job, stage);
    }
    for n in [u64::from(job.timeline.polls), job.timeline.poll_bytes, job.submit_bytes] {
        out.push(b',');
        push_int(out, n);
    }
    out.push(b',');
    if let Some(results) = &job.results {
        push_int(out, results.body_bytes);
    }
    out.push(b',');
    for (i, state) in job.timeline.skipped().into_iter().enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(state.as_str().as_bytes());
    }
}

fn push_detail(out: &mut Vec<u8>, outcome: &JobOutcome) {
    match outcome {
        JobOutcome::TimedOut { in_state } => out.extend_from_slice(in_state.as_str().as_bytes()),
        JobOutcome::Rejected { status } => push_int(out, u64::from(*status)),
        JobOutcome::Broken { what } => sheet::push_field(out, what),
        JobOutcome::Fetched | JobOutcome::Failed | JobOutcome::Canceled | JobOutcome::Lost => {}
    }
}

fn push_stage(out: &mut Vec<u8>, job: &Job, stage: Stage) {
    // A refused submit is no job that takes its time; the summary leaves it out alike.
    let refused = matches!(job.outcome, JobOutcome::Rejected { .. }) && stage != Stage::Submit;
    let span = job.timeline.stage(stage).filter(|_| !refused);
    out.push(b',');
    if let Some(span) = span {
        push_ms(out, span.least);
    }
    match stage {
        Stage::Queue | Stage::Run | Stage::Merge => {
            out.push(b',');
            if let Some(most) = span.and_then(|s| s.most) {
                push_ms(out, most);
            }
        }
        Stage::EndToEnd => {
            out.push(b',');
            if let Some(span) = span {
                out.extend_from_slice(if span.most.is_none() { b"true" } else { b"false" });
            }
        }
        Stage::Submit | Stage::Fetch | Stage::HandOverQueued | Stage::HandOverRunning | Stage::Persist => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn a_row_a_job_invalid_cells_marked() {
        let run = sample::mixed();
        let mut verdicts = std::collections::BTreeSet::new();
        for s in &Paper::of(&run).scenarios {
            let rows = sample::rows(&csv(&run, s));
            let jobs: usize = run
                .measured()
                .filter(|c| c.cell.scenario == s.scenario.id)
                .map(|c| c.totals.jobs.len())
                .sum();
            assert_eq!(rows.len(), jobs);
            verdicts.extend(rows.iter().map(|r| r[24].to_owned()));
            for row in &rows {
                assert_eq!(row.len(), HEADER.split(',').count());
                assert_eq!(row[18].is_empty(), &row[7] == "rejected");
            }
        }
        assert!(verdicts.contains("INVALID"), "{verdicts:?}");
    }

    #[test]
    fn names_from_outside_are_quoted() {
        let run = sample::nasty();
        let rows = sample::rows(&csv(&run, &Paper::of(&run).scenarios[0]));
        assert!(rows.iter().any(|r| r[6].contains("<script>") && r[6].contains('"')));
    }
}
