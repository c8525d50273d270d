//! The traces of jobs, as the server that gets them sees them: one a job, on every request about it.

use std::collections::{BTreeMap, BTreeSet};

use rstest::rstest;
use springtide::{
    standin::{JobTruth, Truth},
    trace::Trace,
};

use crate::{backend::Backend, support::Run};

/// The routes about one job.
const OF_JOB: [&str; 4] = ["POST /jobs/direct", "GET /jobs", "DELETE /jobs/direct", "GET /results"];

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// The only trace of a job.
#[track_caller]
fn trace_of(job: &JobTruth) -> &str {
    let traced = &job.traced;
    assert_eq!((traced.valid, traced.ids.len()), (traced.requests, 1), "{job:#?}");
    traced.ids.first().unwrap()
}

/// Requests about jobs.
fn asked(truth: &Truth) -> u64 {
    OF_JOB.iter().filter_map(|route| truth.client.get(*route)).map(|route| route.requests).sum()
}

/// Two runs, since a trace must be of one run only.
#[rstest]
#[case::healthy("")]
#[case::given_up("stuck=0.5")]
#[case::completed_and_not_to_be_had("missing-results")]
#[case::known_by_the_list_only("ghost=0.5")]
#[case::gone("lose-job=0.5")]
#[case::failing_now_and_then("error-500=/jobs:0.2")]
fn every_request_about_a_job_is_of_its_trace(#[case] bug: &str) {
    let bugs = if bug.is_empty() { String::new() } else { format!("--standin-bug {bug}") };
    let backend = Backend::start(&format!("--seed 4 --standin-task-time 20ms {bugs}"));
    let run = || Run::small_at(&backend.url).set("job-timeout", "1500ms").ends_shared().record().run_id;
    let runs = [run(), run()];
    let truth = backend.truth();
    assert_eq!(truth.jobs.len(), 12);
    let ids: BTreeSet<&str> = truth.jobs.iter().map(trace_of).collect();
    assert_eq!(ids.len(), 12, "every job of every run has its own");
    for job in &truth.jobs {
        assert!(runs.iter().any(|run| job.title.contains(run)));
        assert_eq!(trace_of(job), hex(&Trace::of(&job.title).id().0), "it can be told from the title");
        assert_eq!((job.traced.same_parent, job.traced.sampled), (0, 0), "{:?}", job.traced);
    }
    assert_eq!(truth.jobs.iter().map(|j| j.traced.requests).sum::<u64>(), asked(&truth));
}

/// Both jobs that one submit made are of its trace, and both are asked about.
#[test]
fn a_job_that_was_made_twice_has_one_trace() {
    let backend = Backend::start("--standin-task-time 20ms --standin-bug duplicate-job");
    Run::small_at(&backend.url).once().ends_shared();
    let truth = backend.truth();
    let mut traces: BTreeMap<&str, u64> = BTreeMap::new();
    truth.jobs.iter().for_each(|job| *traces.entry(trace_of(job)).or_default() += 1);
    assert_eq!(traces.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}
