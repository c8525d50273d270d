//! `timings/<ID>_jobs.csv`: one row a job, those of INVALID cells included and marked.

use crate::{
    record::{CellRecord, RunRecord},
    report::{
        figure::{push_int, push_ms},
        sheet,
    },
    snapshot::{Job, JobKey},
    summary::{self, ScenarioSummary},
    timeline::{JobOutcome, Stage},
};

/// Its first line. Stages that polling bounds have a least and a most value; an empty field is
/// unknown, and an empty `most` beside a `least` means that the job never left the stage.
const HEADER: &str = "run_id,scenario,repetition,worker,user,nth,job_id,outcome,detail,submit_ms,queue_least_ms,queue_most_ms,run_least_ms,run_most_ms,merge_least_ms,merge_most_ms,fetch_ms,end_to_end_ms,end_to_end_censored,polls,poll_bytes,submit_bytes,results_bytes,skipped_states,cell_verdict";

/// The jobs of a scenario, cell by cell in the order of their submits.
pub(super) fn csv(run: &RunRecord, s: &ScenarioSummary) -> String {
    let cells = || run.measured().filter(|c| c.cell.scenario == s.scenario.id);
    let jobs: usize = cells().map(|c| c.totals.jobs.len()).sum();
    let mut out = String::with_capacity(HEADER.len() + 1 + jobs * 256);
    out.push_str(HEADER);
    out.push('\n');
    for cell in cells() {
        let mut lead = String::new();
        sheet::push_field(&mut lead, &run.run_id);
        lead.push_str(&format!(",{},{},", s.scenario.id, cell.cell.repetition));
        let mark = format!(",{}\n", cell.verdict);
        for (key, job) in summary::jobs_in_order(cell) {
            out.push_str(&lead);
            push_job(&mut out, key, job);
            out.push_str(&mark);
        }
    }
    out
}

fn push_job(out: &mut String, key: JobKey, job: &Job) {
    for n in [job.worker, key.user, key.nth] {
        push_int(out, u64::from(n));
        out.push(',');
    }
    sheet::push_field(out, job.job_id.as_deref().unwrap_or_default());
    out.push(',');
    out.push_str(job.outcome.kind());
    out.push(',');
    push_detail(out, &job.outcome);
    for stage in Stage::ALL {
        push_stage(out, job, stage);
    }
    for n in [u64::from(job.timeline.polls), job.timeline.poll_bytes, job.submit_bytes] {
        out.push(',');
        push_int(out, n);
    }
    out.push(',');
    if let Some(results) = &job.results {
        push_int(out, results.body_bytes);
    }
    out.push(',');
    for (i, state) in job.timeline.skipped().into_iter().enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(state.as_str());
    }
}

fn push_detail(out: &mut String, outcome: &JobOutcome) {
    match outcome {
        JobOutcome::TimedOut { in_state } => out.push_str(in_state.as_str()),
        JobOutcome::Rejected { status } => push_int(out, u64::from(*status)),
        JobOutcome::Broken { what } => sheet::push_field(out, what),
        JobOutcome::Fetched | JobOutcome::Failed | JobOutcome::Canceled | JobOutcome::Lost => {}
    }
}

fn push_stage(out: &mut String, job: &Job, stage: Stage) {
    // A refused submit is no job that takes its time; the summary leaves it out alike.
    let refused = matches!(job.outcome, JobOutcome::Rejected { .. }) && stage != Stage::Submit;
    let span = job.timeline.stage(stage).filter(|_| !refused);
    out.push(',');
    if let Some(span) = span {
        push_ms(out, span.least);
    }
    match stage {
        Stage::Queue | Stage::Run | Stage::Merge => {
            out.push(',');
            if let Some(most) = span.and_then(|s| s.most) {
                push_ms(out, most);
            }
        }
        Stage::EndToEnd => {
            out.push(',');
            if let Some(span) = span {
                out.push_str(if span.most.is_none() { "true" } else { "false" });
            }
        }
        Stage::Submit | Stage::Fetch => {}
    }
}

/// Jobs of a cell, for pictures that show only some of them.
pub(super) fn evenly<'a>(cell: &'a CellRecord, most: usize) -> Vec<(JobKey, &'a Job)> {
    let jobs = summary::jobs_in_order(cell);
    let step = jobs.len().div_ceil(most.max(1)).max(1);
    jobs.into_iter().step_by(step).collect()
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
            let rows = sample::rows(csv(&run, s).as_bytes());
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
        let rows = sample::rows(csv(&run, &Paper::of(&run).scenarios[0]).as_bytes());
        assert!(rows.iter().any(|r| r[6].contains("<script>") && r[6].contains('"')));
    }
}
