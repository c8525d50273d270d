//! Runs of the real binary against the built-in stand-in.

use std::{collections::BTreeSet, fs, time::Duration};

use rstest::rstest;
use springtide::{
    plan::CellKind,
    timeline::{JobOutcome, Stage},
    verdict::{Exit, Rule, Verdict},
};

use crate::{
    backend::{Backend, ask},
    support::{Run, files_below, wait_for},
};

#[test]
fn a_small_run_passes_and_its_books_balance() {
    let ended = Run::small().ends_shared();
    ended.exits(Exit::Pass).jobs(&[("fetched", 6)]).found(&[]);
    assert_eq!(ended.residual(), 0);
    let run = ended.record();
    assert_eq!(run.plan.seed, 7);
    assert_eq!((run.cells.len(), run.plan.cells.len()), (2, 2));
    assert!(run.target.stand_in && run.finished.is_some() && run.stopped.is_none());
    for cell in &run.cells {
        assert_eq!((cell.ledger.submitted, cell.ledger.listed), (3, 3));
        assert!(cell.ledger.reconciled);
        assert_eq!(cell.workers.len(), 1);
        for job in cell.totals.jobs.values() {
            assert_eq!(job.outcome, JobOutcome::Fetched);
            let results = job.results.as_ref().unwrap();
            assert_eq!((results.estimators, results.pages, results.values), (4, 21, 98_892));
            let whole = job.timeline.stage(Stage::EndToEnd).unwrap();
            let parts: u64 =
                [Stage::Submit, Stage::Fetch].map(|s| job.timeline.stage(s).unwrap().least.0).iter().sum();
            assert!(parts < whole.least.0 && whole.least <= cell.duration);
        }
    }
    let shapes: BTreeSet<_> = run
        .cells
        .iter()
        .flat_map(|c| c.totals.jobs.values())
        .map(|j| &j.results.as_ref().unwrap().shape)
        .collect();
    assert_eq!(shapes.len(), 1);
}

#[test]
fn the_overrides_of_the_matrix_are_told() {
    let run = Run::small().once().ends_shared().record();
    assert_eq!(run.plan.overrides.len(), 3, "{:?}", run.plan.overrides);
    let scenario = &run.plan.scenarios[0];
    assert_eq!((scenario.concurrent_jobs, scenario.tasks, scenario.repetitions), (3, 2, 1));
}

#[test]
fn one_seed_gives_one_plan() {
    let plan = |seed: Option<u32>| {
        let run = Run::small().once().set("users", 1).set("tasks", 1).without("seed");
        let run = seed.map_or(Run::small().once().set("users", 1).set("tasks", 1).without("seed"), |s| {
            run.set("seed", s)
        });
        run.ends_shared().record().plan
    };
    let (one, same, other, drawn) = (plan(Some(1)), plan(Some(1)), plan(Some(2)), plan(None));
    assert_eq!((one.hash(), &one), (same.hash(), &same));
    assert_ne!(one.hash(), other.hash());
    assert_ne!(drawn.seed, 0, "a drawn seed is kept, so that the run can be repeated");
    assert_ne!(drawn.hash(), one.hash());
}

#[test]
fn a_warm_up_runs_first_and_is_thrown_away() {
    let ended = Run::small().once().without("no-warmup").ends_shared();
    let run = ended.exits(Exit::Pass).record();
    assert_eq!(run.cells.len(), 2);
    let (first, second) = (&run.cells[0], &run.cells[1]);
    assert_eq!((first.cell.kind, first.cell.users, first.cell.repetition), (CellKind::WarmUp, 1, 0));
    assert!(first.totals.jobs.is_empty() && first.totals.requests.is_empty());
    assert_eq!((second.cell.kind, second.totals.jobs.len()), (CellKind::Measured, 3));
}

#[test]
fn users_submit_as_many_jobs_as_asked_for() {
    let ended = Run::small().once().set("users", 2).set("jobs-per-user", 3).ends_shared();
    ended.exits(Exit::Pass).jobs(&[("fetched", 6)]);
    let run = ended.record();
    let keys: Vec<_> = run.cells[0].totals.jobs.keys().map(|k| (k.user, k.nth)).collect();
    assert_eq!(keys, [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]);
    // A closed loop: a user's next job begins when its last one has ended.
    for user in 0..2 {
        let jobs: Vec<_> =
            run.cells[0].totals.jobs.iter().filter(|(k, _)| k.user == user).map(|(_, j)| j).collect();
        for pair in jobs.windows(2) {
            assert!(pair[0].timeline.ended <= pair[1].timeline.submit.unwrap().sent);
        }
    }
}

#[test]
fn a_run_time_makes_a_closed_loop() {
    let ended = Run::small().once().set("users", 2).set("tasks", 1).set("run-time", "2").ends_shared();
    let run = ended.exits(Exit::Pass).record();
    let cell = &run.cells[0];
    assert!(cell.ledger.submitted >= 4, "{} jobs in two seconds", cell.ledger.submitted);
    let last = cell.totals.jobs.values().map(|j| j.timeline.submit.unwrap().sent).max().unwrap();
    assert!(last.0 < 2_000_000, "the last job began at {last}");
    assert!(cell.duration.0 >= 2_000_000, "it ended at {}", cell.duration);
}

#[test]
fn a_spawn_rate_spaces_the_users() {
    let ended = Run::small().once().set("users", 4).set("spawn-rate", 5).ends_shared();
    let run = ended.exits(Exit::Pass).record();
    for (key, job) in &run.cells[0].totals.jobs {
        let sent = job.timeline.submit.unwrap().sent.0;
        let due = u64::from(key.user) * 200_000;
        assert!((due..due + 150_000).contains(&sent), "user {} submitted at {sent} µs", key.user);
    }
}

#[test]
fn without_a_spawn_rate_all_submit_at_once() {
    let run = Run::small().once().set("users", 10).set("tasks", 1).ends_shared().record();
    let sent: Vec<u64> =
        run.cells[0].totals.jobs.values().map(|j| j.timeline.submit.unwrap().sent.0).collect();
    assert!(sent.iter().all(|&s| s < 100_000), "{sent:?}");
}

#[test]
fn a_threshold_that_is_kept_changes_nothing() {
    let ended = Run::small()
        .once()
        .also("threshold", "job.p95<60s")
        .also("threshold", "failures<1% for S1")
        .also("threshold", "requests.failures<=0%")
        .ends_shared();
    let run = ended.exits(Exit::Pass).record();
    assert_eq!(run.checks.iter().filter(|c| c.rule == Rule::Threshold).count(), 3);
}

#[test]
fn a_threshold_that_is_not_kept_exits_with_3() {
    let ended = Run::small().once().set("threshold", "job.max<1ms").ends_shared();
    let run = ended.exits(Exit::Threshold).record();
    let failed: Vec<_> = run.checks.iter().filter(|c| c.verdict == Verdict::Fail).collect();
    assert_eq!(failed.len(), 1);
    assert!(failed[0].evidence.contains("job.max<1ms"), "{}", failed[0].evidence);
}

#[test]
fn thresholds_can_stand_in_the_environment() {
    let run = Run::small().once().set("users", 1).env("SPRINGTIDE_THRESHOLD", "job.max<1ms;failures<1%");
    let ended = run.ends_shared();
    assert_eq!(ended.exits(Exit::Threshold).record().thresholds.len(), 2);
}

/// A flag beats the environment, which beats the file, which beats the default.
#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = "users = 4\ntasks = 1\nrepetitions = 1\nseed = 11\npoll-interval = \"60ms\"\nno_warmup = true\nstandin-task-time = \"20ms\"\n";
    let ended = Run::bare()
        .file("springtide.toml", file)
        .env("SPRINGTIDE_USERS", "3")
        .env("SPRINGTIDE_POLL_INTERVAL", "70ms")
        .set("users", 2)
        .ends_shared();
    let plan = ended.exits(Exit::Pass).record().plan;
    let scenario = &plan.scenarios[0];
    assert_eq!(scenario.concurrent_jobs, 2, "the flag");
    assert_eq!(plan.settings.poll_interval.0, 70_000, "the environment");
    assert_eq!((scenario.tasks, scenario.repetitions, plan.seed), (1, 1, 11), "the file");
    assert_eq!(plan.settings.patience.0, 30_000_000, "the default");
}

#[test]
fn the_scenario_can_stand_in_the_file() {
    let file = "scenario = \"S2\"\nusers = 1\ntasks = 1\nrepetitions = 1\nno-warmup = true\nstandin-task-time = \"20ms\"\n";
    for words in ["", "run"] {
        let run = Run::of(words).file("springtide.toml", file).ends_shared();
        assert_eq!(run.exits(Exit::Pass).record().plan.scenarios[0].id.as_str(), "S2");
    }
}

#[test]
fn a_label_names_the_folder_and_latest_points_there() {
    let ended =
        Run::small().once().set("users", 1).set("label", "before-fix").set("out", "kept/here").ends_shared();
    let folder = ended.folder();
    assert!(folder.starts_with(ended.home.path().join("kept/here")), "{folder:?}");
    assert!(folder.to_str().unwrap().ends_with("-before-fix"), "{folder:?}");
    assert_eq!(ended.record().label, "before-fix");
    let latest = fs::canonicalize(ended.home.path().join("kept/here/latest")).unwrap();
    assert_eq!(latest, fs::canonicalize(&folder).unwrap());
}

#[test]
fn nothing_of_goose_reaches_stdout_and_the_record_is_whole() {
    let ended = Run::small().once().ends_shared();
    assert!(!ended.out.to_lowercase().contains("goose"), "{}", ended.out);
    let parts: Vec<_> =
        files_below(&ended.folder()).into_iter().filter(|f| f.to_string_lossy().ends_with(".part")).collect();
    assert!(parts.is_empty(), "{parts:?}");
}

#[test]
fn the_last_line_is_the_result() {
    let ended = Run::small().ends_shared();
    let code = ended.exits(Exit::Pass).code.unwrap();
    let last = ended.out.lines().last().unwrap();
    let verdict = ended.record().verdict.unwrap();
    assert!(last.starts_with(&format!("RESULT: {verdict}")), "{last}");
    assert!(last.ends_with(&format!("(exit {code})")), "{last}");
    assert!(ended.out.to_lowercase().contains("stand-in"), "figures of the stand-in say so");
}

#[test]
fn json_is_all_there_is_on_stdout() {
    let ended = Run::small().once().flag("json").ends_shared();
    let summary: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    let run = ended.exits(Exit::Pass).record();
    assert_eq!(summary["run_id"], run.run_id.as_str());
    assert_eq!(summary["seed"], 7);
    assert_eq!(summary["plan_hash"], run.plan.hash().as_str());
    assert_eq!(summary["exit"], ended.code.unwrap());
}

#[test]
fn every_file_of_the_design_is_written() {
    let ended = Run::small().once().set("csv", "mine").set("html", "mine.html").ends_shared();
    let folder = ended.folder();
    for file in [
        "run.json",
        "report.html",
        "summary.md",
        "timings/S1_stats.csv",
        "timings/S1_stats_history.csv",
        "timings/S1_failures.csv",
        "timings/S1_exceptions.csv",
        "timings/S1_jobs.csv",
        "timings/S1_stages.csv",
        "timings/S1.hlog",
        "payloads/S1_payloads.csv",
    ] {
        assert!(folder.join(file).is_file(), "{file} is not there");
    }
    for copy in
        ["mine_stats.csv", "mine_stats_history.csv", "mine_failures.csv", "mine_exceptions.csv", "mine.html"]
    {
        assert!(ended.home.path().join(copy).is_file(), "{copy} is not there");
    }
}

#[test]
fn reports_are_drawn_again_from_the_record_alone() {
    let ended = Run::small().once().ends_shared();
    let folder = ended.folder();
    let record = fs::read(folder.join("run.json")).unwrap();
    let before: Vec<_> = files_below(&folder);
    for file in before.iter().filter(|f| !f.ends_with("run.json")) {
        fs::remove_file(file).unwrap();
    }
    Run::of(&format!("report {}", folder.display())).ends().leaves_with(0);
    assert_eq!(files_below(&folder), before);
    assert_eq!(fs::read(folder.join("run.json")).unwrap(), record);
}

/// The password goes to the target and nowhere else.
#[rstest]
#[case::of_the_environment(false)]
#[case::of_a_file(true)]
fn the_password_is_nowhere(#[case] in_a_file: bool) {
    const PASSWORD: &str = "correct-horse-battery-staple";
    let backend = Backend::start("--standin-task-time 300ms");
    let account = format!("{{\"username\":\"ann\",\"password\":\"{PASSWORD}\"}}");
    ask(&backend.url, "PUT", "/auth/register", &account);
    let run = Run::small_at(&backend.url).without("register").set("username", "ann").set("tasks", 1);
    let run = if in_a_file {
        run.file("secret", &format!("{PASSWORD}\n")).set("password-file", "secret")
    } else {
        run.env("SPRINGTIDE_PASSWORD", PASSWORD)
    };
    let going = run.env("SPRINGTIDE_LOG", "trace").start();
    wait_for("a job at the backend", Duration::from_secs(20), || {
        (!backend.truth().jobs.is_empty()).then_some(())
    });
    let command = fs::read(format!("/proc/{}/cmdline", going.pid())).unwrap();
    let ended = going.ends();
    ended.exits(Exit::Pass).jobs(&[("fetched", 6)]);
    let holds = |bytes: &[u8]| bytes.windows(PASSWORD.len()).any(|w| w == PASSWORD.as_bytes());
    assert!(!holds(&command), "on the command line");
    assert!(!holds(ended.out.as_bytes()) && !holds(ended.err.as_bytes()), "in the output");
    for file in files_below(ended.home.path()) {
        assert!(file.ends_with("secret") || !holds(&fs::read(&file).unwrap()), "in {}", file.display());
    }
    let run = ended.record();
    assert_eq!(run.cells[0].ledger.listed, 3, "of a shared account only the cell's jobs are counted");
    assert!(backend.truth().jobs.iter().all(|j| j.username == "ann"));
}
