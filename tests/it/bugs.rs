//! What a run says of each bug that the stand-in can be told to have: outcome, finding, verdict
//! and exit code, and never a hang.

use std::time::Duration;

use rstest::rstest;
use springtide::{
    finding::Kind,
    snapshot::{Cancel, Phase},
    timeline::{JobOutcome, JobState, Stage},
    verdict::{Exit, Rule, Verdict},
};

use crate::support::{Ended, Run};

/// Three users, one cell; a job without an end is given up after a second and a half.
fn with(bug: &str) -> Run {
    Run::small().once().set("tasks", 1).set("job-timeout", "1500ms").set("patience", "2s").bug(bug)
}

fn run(bug: &str) -> Ended {
    with(bug).ends_shared()
}

/// The verdict on one rule in the only cell.
fn ruling(ended: &Ended, rule: Rule) -> Verdict {
    let run = ended.record();
    run.cells[0].checks.iter().find(|c| c.rule == rule).unwrap().verdict
}

#[test]
fn an_overwritten_completed_is_told_from_a_stuck_job() {
    let ended = with("lost-completed").set("job-timeout", "4s").ends_shared();
    ended.exits(Exit::Failed).jobs(&[("timed_out", 3)]);
    let overwritten = Kind::CompletedOverwritten { state: JobState::Running };
    assert!(ended.findings().iter().any(|f| f.kind == overwritten && f.count == 3), "{:?}", ended.findings());
    assert_eq!(ended.count(|k| matches!(k, Kind::Stuck { .. })), 0);
}

/// The first copy completes the job. Polls are rare, so that the others are stored, too, before the
/// results are fetched.
#[test]
fn results_stored_more_than_once_are_found() {
    let ended = with("duplicate-results").set("poll-interval", "2s").set("job-timeout", "20s").ends_shared();
    ended.exits(Exit::Failed);
    assert!(ended.count(|k| matches!(k, Kind::DuplicateResults)) > 0, "{:?}", ended.findings());
    for job in ended.record().cells[0].totals.jobs.values() {
        let twice = job.results.as_ref().unwrap().duplicates > 0;
        assert_eq!(twice, matches!(job.outcome, JobOutcome::Broken { .. }), "{:?}", job.outcome);
    }
}

#[test]
fn a_job_whose_tasks_all_failed_hangs_in_the_merge() {
    let ended = run("all-failed-stuck");
    ended.exits(Exit::Failed).jobs(&[("timed_out", 3)]);
    ended.found(&[(Kind::Stuck { state: JobState::MergingRunning }, 3)]);
}

#[test]
fn a_failed_job_fails_the_run() {
    let ended = run("all-failed");
    ended.exits(Exit::Failed).jobs(&[("failed", 3)]).found(&[(Kind::FailedJob, 3)]);
    assert_eq!(ended.residual(), 0);
}

#[test]
fn a_stuck_job_is_given_up_canceled_and_quiet() {
    let ended = run("stuck");
    ended.exits(Exit::Failed).jobs(&[("timed_out", 3)]);
    ended.found(&[(Kind::Stuck { state: JobState::Running }, 3)]);
    assert_eq!(ruling(&ended, Rule::Quiet), Verdict::Pass);
    for job in ended.record().cells[0].totals.jobs.values() {
        assert_eq!(job.cancel, Some(Cancel::Done));
        let span = job.timeline.stage(Stage::EndToEnd).unwrap();
        assert!(span.most.is_none() && span.least.0 >= 1_400_000, "censored at the timeout: {span:?}");
        assert!(job.timeline.stage(Stage::Merge).is_none(), "it never came so far");
    }
}

#[test]
fn a_lost_job_is_an_outcome_and_the_books_balance() {
    let ended = run("lose-job");
    ended.exits(Exit::Failed).jobs(&[("lost", 3)]).found(&[(Kind::LostJob, 3)]);
    assert_eq!((ended.residual(), ended.record().cells[0].ledger.listed), (0, 0));
}

#[test]
fn a_ghost_makes_the_cell_invalid() {
    let ended = run("ghost");
    ended.exits(Exit::Invalid).jobs(&[("rejected", 3)]);
    ended.found(&[(Kind::GhostJob, 3), (Kind::RejectedSubmit { status: 500 }, 3)]);
    assert_eq!((ended.residual(), ruling(&ended, Rule::LedgerAddsUp)), (3, Verdict::Invalid));
}

#[test]
fn a_duplicate_job_makes_the_cell_invalid() {
    let ended = with("duplicate-job").set("job-timeout", "20s").ends_shared();
    ended.exits(Exit::Invalid).jobs(&[("fetched", 3)]).found(&[(Kind::DuplicateJob, 3)]);
    assert_eq!((ended.residual(), ended.record().cells[0].ledger.listed), (3, 6));
}

#[rstest]
#[case::missing("missing-results", "missing")]
#[case::cut_off("broken-results", "not JSON")]
fn results_that_are_no_results_break_the_job(#[case] bug: &str, #[case] says: &str) {
    let ended = with(bug).set("job-timeout", "20s").ends_shared();
    ended.exits(Exit::Failed).jobs(&[("broken", 3)]);
    let found = ended.findings();
    let [one] = &found[..] else { panic!("{found:?}") };
    assert!(matches!(&one.kind, Kind::BrokenResults { what } if what.contains(says)), "{one:?}");
    assert_eq!((one.count, ended.residual()), (3, 0));
}

/// With this seed a minority of the twelve jobs lacks an estimator.
#[test]
fn results_unlike_the_others_are_found() {
    let ended = with("wrong-results=0.3")
        .set("users", 4)
        .set("jobs-per-user", 3)
        .set("job-timeout", "20s")
        .ends_shared();
    ended.exits(Exit::Failed).jobs(&[("fetched", 12)]);
    let run = ended.record();
    let short = run.cells[0].totals.jobs.values().filter(|j| j.results.as_ref().unwrap().estimators == 3);
    let short = short.count() as u64;
    assert!((1..6).contains(&short), "{short} of 12; choose another seed");
    ended.found(&[(Kind::ResultsDiffer, short)]);
    assert_eq!(ruling(&ended, Rule::ResultsAgree), Verdict::Fail);
}

#[test]
fn void_update_keys_leave_jobs_where_they_are() {
    let ended = run("keys-void-after=1ms");
    ended.exits(Exit::Failed).jobs(&[("timed_out", 3)]);
    // Four posts of a job's task, two on its merge, and its results.
    ended.found(&[
        (Kind::Stuck { state: JobState::Pending }, 3),
        (Kind::PostsLost, 21),
        (Kind::PostsRefusedByTarget { status: 400 }, 21),
    ]);
}

/// Tasks of 1.2 to 2.8 s end while connections are cut, from 1.5 s to 4 s after the start: their
/// last posts are lost, and nobody ever ends the jobs.
#[test]
fn posts_that_are_refused_for_a_while_leave_jobs_running() {
    let ended = with("refuse=1500ms..4s")
        .set("tasks", 2)
        .set("standin-task-time", "2s")
        .set("job-timeout", "5s")
        .set("patience", "20s")
        .ends_shared();
    ended.exits(Exit::Failed).jobs(&[("timed_out", 3)]);
    assert_eq!(ended.count(|k| *k == Kind::Stuck { state: JobState::Running }), 3);
    assert!(ended.count(|k| *k == Kind::PostsLost) >= 3, "at least one of each job: {:?}", ended.findings());
    let run = ended.record();
    let polls =
        run.cells[0].totals.requests.iter().find(|(k, _)| k.phase == Phase::Load && k.name == "/jobs");
    assert!(polls.unwrap().1.failed.count() > 0, "polls were refused too, and counted");
}

#[rstest]
#[case::storing("slow-results=600ms", Stage::Merge)]
#[case::reading("slow-fetch=600ms", Stage::Fetch)]
fn slowness_is_seen_in_its_stage(#[case] bug: &str, #[case] stage: Stage) {
    let ended = with(bug).set("job-timeout", "20s").ends_shared();
    ended.exits(Exit::Pass).jobs(&[("fetched", 3)]);
    let run = ended.record();
    let totals = &run.cells[0].totals;
    for job in totals.jobs.values() {
        let span = job.timeline.stage(stage).unwrap();
        assert!(span.most.unwrap().0 >= 600_000, "{stage}: {span:?}");
    }
    let fetches = totals.requests.iter().find(|(k, _)| k.name == "/results").unwrap().1;
    assert_eq!(fetches.ok.count(), 3);
    if stage == Stage::Fetch {
        assert!(fetches.ok.min().0 >= 600_000 && fetches.first_byte.min().0 >= 600_000);
        assert!(fetches.first_byte.max() <= fetches.ok.max());
    }
}

#[test]
fn polls_that_fail_now_and_then_are_counted_and_survived() {
    let ended =
        with("error-500=/jobs:0.2").set("job-timeout", "20s").set("poll-interval", "20ms").ends_shared();
    ended.exits(Exit::Pass).jobs(&[("fetched", 3)]);
    let run = ended.record();
    let totals = &run.cells[0].totals;
    let polls = totals.requests.iter().find(|(k, _)| k.phase == Phase::Load && k.name == "/jobs").unwrap().1;
    let errors: u64 = totals.errors.iter().filter(|(k, _)| k.name == "/jobs").map(|(_, e)| e.count).sum();
    assert!(errors > 0);
    assert_eq!((polls.failed.count(), polls.statuses[&500]), (errors, errors));
    assert_eq!(polls.ok.count(), polls.statuses[&200]);
    let seconds: u64 = totals.series.0.values().map(|s| s.failed.count()).sum();
    assert_eq!(seconds, errors);
}

#[test]
fn submits_that_fail_are_rejected_jobs() {
    let ended = run("error-500=/jobs/direct:1");
    ended.exits(Exit::Failed).jobs(&[("rejected", 3)]).found(&[(Kind::RejectedSubmit { status: 500 }, 3)]);
    assert_eq!(ended.residual(), 0);
}

/// Fetches are tried three times, a list is not.
#[rstest]
#[case::results("/results", Exit::Failed, "broken")]
#[case::list("/user/simulations", Exit::Invalid, "fetched")]
fn a_route_that_always_fails_is_named(#[case] route: &str, #[case] exit: Exit, #[case] outcome: &str) {
    let ended = with(&format!("error-500={route}:1")).set("job-timeout", "20s").ends_shared();
    ended.exits(exit).jobs(&[(outcome, 3)]);
    let run = ended.record();
    assert!(run.cells[0].totals.errors.keys().any(|k| k.name == route && k.error.starts_with("500")));
}

#[rstest]
#[case::page("html", "HTML page")]
#[case::gateway("html-error", "502 HTML page")]
#[case::login("login-refused", "401 Invalid login or password")]
fn a_target_that_gives_no_session_ends_the_run_with_a_reason(#[case] bug: &str, #[case] why: &str) {
    let ended = run(bug);
    ended.exits(Exit::Failed);
    let run = ended.record();
    let stopped = run.stopped.as_deref().unwrap();
    assert!(stopped.contains("no session") && stopped.contains(why), "{stopped}");
    assert!(run.cells.is_empty());
    assert_eq!(ended.err.lines().filter(|l| l.contains(why)).count(), 1, "{}", ended.err);
    assert!(ended.took < Duration::from_secs(10), "{:?}", ended.took);
}

/// Jobs of five seconds, and after one second nobody is there any more.
#[test]
fn a_target_that_vanishes_makes_the_run_invalid_and_the_books_balance() {
    let ended = with("vanish-after=1s")
        .set("standin-task-time", "5s")
        .set("repetitions", 3)
        .set("job-timeout", "20s")
        .set("patience", "1s")
        .ends_shared();
    ended.exits(Exit::Invalid).jobs(&[("broken", 3)]);
    let run = ended.record();
    assert_eq!(run.cells.len(), 1, "no sense in another cell");
    assert!(run.stopped.unwrap().contains("does not answer any more"));
    let ledger = &run.cells[0].ledger;
    assert_eq!((ledger.submitted, ledger.ended(), ledger.residual()), (3, 3, 0));
    assert!(!ledger.reconciled);
    assert!(ended.count(|k| matches!(k, Kind::NotQuiet | Kind::Unreconciled)) > 0);
}

#[test]
fn several_bugs_at_once_are_told_apart() {
    let ended =
        with("stuck=0.4").set("users", 8).bug("all-failed=0.4").set("job-timeout", "3s").ends_shared();
    ended.exits(Exit::Failed);
    let outcomes = ended.outcomes();
    assert_eq!(outcomes.values().sum::<u64>(), 8);
    assert!(outcomes.len() >= 2, "{outcomes:?}; choose another seed");
    assert_eq!(ended.residual(), 0);
}
