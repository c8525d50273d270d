//! `springtide matrix`: killed at any moment and resumed, alone on its target, and what is INVALID
//! made again.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rstest::rstest;
use rustix::process::Signal;
use springtide::{record::RunRecord, timeline::JobState, verdict::Verdict};
use tempfile::TempDir;

use crate::{
    backend::Backend,
    support::{Ended, Going, Run, records_below, shared, wait_for},
};

/// Two scenarios of three repetitions each.
const MATRIX: &str = "
[[scenario]]
id = \"A\"
concurrent_jobs = 1
tasks = 2
repetitions = 3

[[scenario]]
id = \"B\"
concurrent_jobs = 3
tasks = 1
repetitions = 3
";

/// A folder with the matrix file in it.
fn place(matrix: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("m.toml");
    fs::write(&file, matrix).unwrap();
    (folder, file)
}

/// A quick matrix at a backend.
fn matrix(url: &str, file: &Path) -> Run {
    Run::of("matrix")
        .set("matrix", file.display())
        .set("poll-interval", "50ms")
        .set("job-timeout", "20s")
        .set("seed", 11)
        .set("host", url)
        .flag("register")
}

/// The same run once more, with no more than it needs.
fn resumed(folder: &Path) -> Run {
    Run::of("matrix").set("resume", folder.display())
}

fn saved(going: &Going) -> Option<(PathBuf, RunRecord)> {
    let path = records_below(going.home()).first()?.clone();
    // Whenever it is looked at, it is whole.
    let record = RunRecord::load(&path).unwrap();
    Some((path.parent().unwrap().to_owned(), record))
}

/// Waits until so many cells have ended.
fn ended_cells(going: &Going, cells: usize) -> PathBuf {
    wait_for("cells to end", Duration::from_secs(40), || {
        saved(going).filter(|(_, run)| run.cells.len() >= cells).map(|(folder, _)| folder)
    })
}

/// Asserts that every repetition of the plan is counted once.
#[track_caller]
fn is_whole(run: &RunRecord) {
    let counted: Vec<(String, u32)> =
        run.measured().map(|c| (c.cell.scenario.to_string(), c.cell.repetition)).collect();
    let once: BTreeSet<_> = counted.iter().cloned().collect();
    let planned: BTreeSet<_> = run.plan.measured().map(|c| (c.scenario.to_string(), c.repetition)).collect();
    assert_eq!(counted.len(), once.len(), "{counted:?}");
    assert_eq!(once, planned);
    for cell in run.measured() {
        assert_eq!(cell.totals.jobs.len() as u32, cell.cell.users, "{:?}", cell.cell);
        assert_eq!(cell.ledger.residual(), 0, "{:?}", cell.ledger);
    }
}

#[rstest]
#[case::before_the_first_cell(&[0], 1)]
#[case::in_the_middle_and_once_more(&[2, 4], 30)]
#[case::while_sessions_are_opened(&[3], 0)]
#[case::near_the_end(&[7], 10)]
fn killed_and_resumed_it_is_the_same_run(#[case] after_cells: &[usize], #[case] pause_ms: u64) {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 60ms");
    let (_place, file) = place(MATRIX);
    let going = matrix(&backend.url, &file).start();
    let mut folder = PathBuf::new();
    let mut homes: Vec<Ended> = Vec::new();
    let mut going = Some(going);
    for cells in after_cells {
        let now = going.take().unwrap_or_else(|| resumed(&folder).start());
        folder = match homes.is_empty() {
            true => ended_cells(&now, *cells),
            false => {
                wait_for("cells to end", Duration::from_secs(40), || {
                    (RunRecord::load(&folder).unwrap().cells.len() >= *cells).then_some(())
                });
                folder
            }
        };
        std::thread::sleep(Duration::from_millis(pause_ms));
        now.signal(Signal::KILL);
        homes.push(now.ends());
        let run = RunRecord::load(&folder).unwrap();
        assert!(run.verdict.is_none(), "it was killed before its end");
    }
    let before = RunRecord::load(&folder).unwrap();
    let ended = resumed(&folder).ends();
    let run = RunRecord::load(&folder).unwrap();
    assert_eq!(ended.code, Some(0), "{}\n{}", ended.out, ended.err);
    assert_eq!(run.plan, before.plan);
    assert_eq!(run.cells[..before.cells.len()], before.cells, "what was kept is kept");
    assert_eq!(run.resumed.len(), after_cells.len());
    is_whole(&run);
    let twin = matrix(&backend.url, &file).ends();
    assert_eq!(twin.record().plan.hash(), run.plan.hash(), "the same seed gives the same plan");
    // Jobs that were under way when it was killed were not left to load the target.
    let going_on: Vec<JobState> =
        backend.truth().jobs.iter().map(|j| j.final_state).filter(|s| !s.is_terminal()).collect();
    assert!(going_on.is_empty(), "{going_on:?}");
    assert!(folder.join("summary.md").is_file() && folder.join("report.html").is_file());
    assert!(!folder.join("accounts.key").exists(), "the run is over, its secret is gone");
    let again = resumed(&folder).ends();
    assert_eq!(again.code, Some(0), "nothing is left to do\n{}", again.err);
    assert_eq!(RunRecord::load(&folder).unwrap().cells, run.cells);
}

/// An interrupted matrix on a backend that goes on.
fn interrupted() -> (Backend, TempDir, PathBuf, Ended, PathBuf) {
    let backend = Backend::start("--standin-task-time 60ms");
    let (place, file) = place(MATRIX);
    let going = matrix(&backend.url, &file).start();
    let folder = ended_cells(&going, 2);
    going.signal(Signal::KILL);
    let ended = going.ends();
    (backend, place, file, ended, folder)
}

#[test]
fn what_is_not_the_same_run_is_refused() {
    let _shared = shared();
    let (_backend, _place, file, _home, folder) = interrupted();
    let other = Backend::start("");
    let before = fs::read(folder.join("run.json")).unwrap();
    let input =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/submit/shieldhit_files.json"))
            .unwrap();
    let cases: [(Run, &[&str]); 6] = [
        (resumed(&folder).set("seed", 12), &["--resume", "another --seed"]),
        (resumed(&folder).set("users", 2), &["--resume", "another --users"]),
        (resumed(&folder).set("poll-interval", "1s"), &["--resume", "another --poll-interval"]),
        (resumed(&folder).set("scenarios", "A"), &["--resume", "another --scenarios"]),
        (resumed(&folder).set("host", &other.url), &["--resume", "began on", "cannot go on there"]),
        (
            resumed(&folder).file("in.json", &input.replace("NSTAT", "NSTAT ")).set("input", "in.json"),
            &["--resume", "in.json is not the input"],
        ),
    ];
    for (run, words) in cases {
        run.ends().leaves_with(2).says_only(words);
    }
    fs::write(&file, MATRIX.replace("repetitions = 3", "repetitions = 4")).unwrap();
    resumed(&folder).ends().leaves_with(2).says_only(&["--resume", "m.toml is not the matrix"]);
    fs::remove_file(&file).unwrap();
    resumed(&folder).ends().leaves_with(2).says_only(&["m.toml"]);
    assert_eq!(fs::read(folder.join("run.json")).unwrap(), before, "the record is as it was");
}

#[test]
fn a_record_that_is_none_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    resumed(folder.path()).ends().leaves_with(2).says_only(&["--resume", "run.json"]);
    fs::write(folder.path().join("run.json"), "{\"schema\":3,").unwrap();
    resumed(folder.path()).ends().leaves_with(2).says_only(&["--resume", "not a run record"]);
}

#[test]
fn a_matrix_has_its_target_to_itself() {
    let _shared = shared();
    let (backend, other) = (Backend::start("--standin-task-time 300ms"), Backend::start(""));
    let (_place, file) = place(MATRIX);
    let going = matrix(&backend.url, &file).start();
    ended_cells(&going, 0);
    let local = backend.url.replace("127.0.0.1", "localhost");
    for second in [matrix(&backend.url, &file), matrix(&local, &file), Run::small_at(&backend.url)] {
        let ended = second.ends();
        ended.leaves_with(2).says_only(&["--host", "loads this target now", &going.pid().to_string()]);
        ended.leaves_only(&[]);
    }
    Run::small_at(&other.url).once().ends().leaves_with(0);
    going.signal(Signal::KILL);
    let folder = saved(&going).unwrap().0;
    let _home = going.ends();
    resumed(&folder).ends().leaves_with(0);
}

#[test]
fn an_invalid_cell_is_made_again_and_told() {
    let _shared = shared();
    let (_place, file) = place(MATRIX);
    let ended = Run::of("matrix")
        .set("matrix", file.display())
        .set("poll-interval", "50ms")
        .set("standin-task-time", "20ms")
        .set("seed", 4)
        .bug("ghost=0.1")
        .ends();
    let run = ended.record();
    let replaced: Vec<_> = run.replaced().collect();
    assert!(!replaced.is_empty(), "this seed has a ghost");
    assert!(replaced.iter().all(|c| c.verdict == Verdict::Invalid));
    is_counted_once(&run);
    assert!(ended.err.contains("to be made again at the end"), "{}", ended.err);
    let worst = run.measured().map(|c| c.verdict).max().unwrap();
    assert_eq!(run.verdict, Some(worst), "what was made again does not count");
}

#[track_caller]
fn is_counted_once(run: &RunRecord) {
    let counted: BTreeSet<_> =
        run.measured().map(|c| (c.cell.scenario.to_string(), c.cell.repetition)).collect();
    assert_eq!((counted.len(), run.measured().count()), (6, 6));
}

#[test]
fn what_stays_invalid_is_given_up_after_so_many_tries() {
    let _shared = shared();
    let (_place, file) = place(&MATRIX.replace("repetitions = 3", "repetitions = 1"));
    let run = |requeue: u32| {
        Run::of("matrix")
            .set("matrix", file.display())
            .set("poll-interval", "50ms")
            .set("standin-task-time", "20ms")
            .set("max-lag", "0s")
            .set("requeue", requeue)
            .flag("no-warmup")
            .ends()
            .leaves_with(5)
            .record()
    };
    assert_eq!((run(2).cells.len(), run(0).cells.len()), (6, 2));
}

#[test]
fn a_disk_that_fills_up_costs_no_cell_that_was_kept() {
    let _shared = shared();
    let backend = Backend::start("--standin-task-time 20ms");
    let (_place, file) = place(MATRIX);
    let whole = matrix(&backend.url, &file).within(Duration::from_secs(150)).ends();
    let size = fs::metadata(whole.folder().join("run.json")).unwrap().len();
    let ended =
        matrix(&backend.url, &file).file_size(size * 6 / 10 / 1024).within(Duration::from_secs(150)).ends();
    ended.leaves_with(1);
    assert!(ended.err.contains("run.json") && ended.err.contains("File too large"), "{}", ended.err);
    let kept = ended.record();
    assert!((1..8).contains(&kept.cells.len()), "{} cells", kept.cells.len());
    let resumed = resumed(&ended.folder()).ends();
    assert_eq!(resumed.code, Some(0), "{}", resumed.err);
    let run = ended.record();
    assert_eq!(run.cells[..kept.cells.len()], kept.cells);
    is_whole(&run);
}
