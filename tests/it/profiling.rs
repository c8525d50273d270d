//! Watched processes and probes, with a real Python process, real py-spy and real memray.
//!
//! The commands are those of `loadtests/profile.toml`. The profilers come from `make test`, which
//! puts them beside what Cargo builds.

use std::{
    collections::BTreeMap,
    env,
    io::{BufRead, BufReader, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::Duration,
};

use springtide::{
    merge_cost::{Clock, Window, Windows},
    moment::Moment,
    plan::{Cell, Plan},
    record::CellRecord,
    sampling::{probe::Prober, process::ProcessSampler},
    scenario::{Matrix, Probe},
    standin::{Config, StandIn},
    telemetry::{
        probe::{ProbeRun, ProfileKind},
        process::ProcessSeries,
    },
    verdict::Exit,
};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::{
    backend::Served,
    support::{Run, alone, shared, wait_for},
};

/// Until something that takes a second or two has happened on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn profile() -> Matrix {
    Matrix::load(&Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtests/profile.toml")).unwrap()
}

/// Where `make test` put the profilers.
fn tools() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("python").join("bin")
}

/// A search path on which the profilers are, or the end of the test.
fn path() -> String {
    let path = format!("{}:{}", tools().display(), env::var("PATH").unwrap_or_default());
    for tool in ["py-spy", "memray", "gdb", "setsid"] {
        let is_there = env::split_paths(&path).any(|folder| folder.join(tool).is_file());
        assert!(is_there, "{tool} is missing: this test needs what `make test` installs");
    }
    path
}

/// `worker.py`, and its answers.
struct Worker {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Worker {
    fn start() -> Self {
        let python = tools().join("python");
        let python = if python.is_file() { python } else { PathBuf::from("python3") };
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/python/worker.py");
        let mut command = Command::new(&python);
        command.arg(script).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{}: {e}", python.display()));
        let (input, output) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut worker = Self { child, input, output };
        worker.answer();
        worker
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    fn answer(&mut self) -> serde_json::Value {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("the worker said {line:?}: {e}"))
    }

    fn tell(&mut self, words: &str) {
        writeln!(self.input.as_mut().unwrap(), "{words}").unwrap();
    }

    /// Tells it to do something, and waits until it has.
    fn ask(&mut self, words: &str) -> serde_json::Value {
        self.tell(words);
        self.answer()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It ends at the end of its input, its child before it; one that a debugger stopped does not.
        drop(self.input.take());
        let deadline = std::time::Instant::now() + Duration::from_secs(5);
        while matches!(self.child.try_wait(), Ok(None)) && std::time::Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The machine is held by threads, so these tests are no tasks.
fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

/// The cell of a repetition of S4.
fn cell(repetition: u32) -> Cell {
    let cells = Plan::cells(1, &profile().scenarios, false);
    cells.into_iter().find(|c| c.scenario.is("S4") && c.repetition == repetition).unwrap()
}

/// The shipped probe of that name, which finds the profilers.
fn shipped(name: &str) -> Probe {
    let mut probe = profile().probes.into_iter().find(|p| p.name.is(name)).unwrap();
    probe.command.splice(0..0, ["env".to_owned(), format!("PATH={}", path())]);
    probe
}

/// One probe beside one cell of a worker.
struct Beside {
    worker: Worker,
    prober: Prober,
    folder: TempDir,
    dir: PathBuf,
    t0: Instant,
}

impl Beside {
    fn start(probe: Probe, repetition: u32) -> Self {
        // A test runner in the background ignores SIGINT, and so would all that it starts.
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        let (worker, folder) = (Worker::start(), tempfile::tempdir().unwrap());
        let watched: BTreeMap<String, u32> = [("celery".to_owned(), worker.pid())].into();
        Probe::check(std::slice::from_ref(&probe), watched.keys().map(String::as_str)).unwrap();
        let mut prober = Prober::new(vec![probe], watched, folder.path().to_owned());
        let cell = cell(repetition);
        prober.open(&cell);
        let t0 = Instant::now();
        prober.started(t0);
        let dir = folder.path().join(format!("merge-profiles/S4-r{repetition:02}"));
        Self { worker, prober, folder, dir, t0 }
    }

    /// Waits until the probe has said that.
    async fn until_it_says(&self, file: &str, what: &str) {
        let deadline = Instant::now() + PATIENCE;
        let said = || std::fs::read_to_string(self.dir.join(file)).unwrap_or_default();
        while !said().contains(what) {
            let all = ["py-spy.stdout", "py-spy.stderr", "memray.stdout", "memray.stderr"]
                .map(|f| std::fs::read_to_string(self.dir.join(f)).unwrap_or_default());
            assert!(Instant::now() < deadline, "{file} never said {what:?}: {all:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn close(mut self) -> (ProbeRun, TempDir) {
        let run = self.prober.close(self.t0).await.remove(0);
        (run, self.folder)
    }
}

#[test]
fn py_spy_finds_the_hot_function_in_a_forked_child() {
    let _machine = shared();
    block_on(async {
        let mut beside = Beside::start(shipped("py-spy"), 1);
        beside.until_it_says("py-spy.stdout", "Sampling process").await;
        beside.worker.ask("merge 2");
        let (run, folder) = beside.close().await;
        assert_eq!((run.problem.as_deref(), run.code), (None, Some(0)), "{run:?}");
        assert!(run.files.contains(&"merge-profiles/S4-r01/py-spy.txt".to_owned()), "{:?}", run.files);
        let text = std::fs::read_to_string(folder.path().join("merge-profiles/S4-r01/py-spy.txt")).unwrap();
        let [profile] = &run.profiles[..] else { panic!("{:?}", run.profiles) };
        assert_eq!((profile.kind, profile.unreadable), (ProfileKind::Stacks, 0));
        let (hottest, share, _) = profile.first(1)[0];
        assert!(
            hottest.place.starts_with("merge_average (") && hottest.place.contains("worker.py"),
            "{text}"
        );
        assert!(share > 0.7, "{share} in {text}");
        // Two seconds of CPU at 100 looks a second; a busy machine makes more of the time, not fewer.
        assert!(hottest.own > 120, "{text}");
        let callers: Vec<&str> = profile.widest(5).iter().map(|(h, _)| h.place.as_str()).collect();
        assert!(callers.iter().any(|place| place.starts_with("child (")), "{callers:?}");
    });
}

#[test]
fn memray_finds_what_allocates_in_a_running_process() {
    let _machine = alone();
    block_on(async {
        let mut beside = Beside::start(shipped("memray"), 2);
        beside.until_it_says("memray.stdout", "tracking PID").await;
        beside.worker.ask("hold");
        let (run, _folder) = beside.close().await;
        assert_eq!((run.problem.as_deref(), run.code), (None, Some(0)), "{run:?}");
        let [profile] = &run.profiles[..] else { panic!("{run:?}") };
        assert_eq!(profile.kind, ProfileKind::Allocations);
        let (largest, share, _) = profile.first(1)[0];
        assert!(
            largest.place.starts_with("allocate_pages (") && largest.place.contains("worker.py"),
            "{profile:?}"
        );
        assert!((50_000_000..55_000_000).contains(&largest.own) && share > 0.9, "{profile:?}");
    });
}

#[test]
fn the_shipped_probes_take_turns() {
    let _machine = shared();
    block_on(async {
        for (name, repetition) in [("py-spy", 2), ("memray", 1)] {
            let beside = Beside::start(shipped(name), repetition);
            let (run, _folder) = beside.close().await;
            assert!(run.profiles.is_empty() && run.files.is_empty(), "{run:?}");
        }
    });
}

/// What a sampler saw while the worker did something, and what the worker says of it.
fn watched(words: &str) -> (ProcessSeries, serde_json::Value, f64) {
    let mut worker = Worker::start();
    let mut sampler = ProcessSampler::new("celery", worker.pid()).unwrap();
    let before = worker.ask("merge 0")["cpu"].as_f64().unwrap();
    sampler.open(&cell(1));
    let t0 = Instant::now();
    let after = worker.ask(words);
    let (name, series) = sampler.close(t0);
    assert_eq!(name, "celery");
    let spent = after["cpu"].as_f64().unwrap() - before;
    (series, after, spent)
}

#[test]
fn cpu_and_memory_are_what_the_process_says_itself() {
    let _machine = shared();
    let (series, said, spent) = watched("merge 1.5");
    let (first, last) = (series.samples.first().unwrap(), series.samples.last().unwrap());
    let seen = (last.cpu.0 - first.cpu.0) as f64 / 1e6;
    assert!((seen / spent - 1.0).abs() < 0.15, "{seen} s seen, {spent} s used");
    assert!(spent > 1.4, "{spent}");
    let peak = series.samples.iter().map(|s| s.rss).max().unwrap() as f64;
    let resident = said["own"].as_f64().unwrap() + said["child"].as_f64().unwrap();
    assert!(resident > 50e6 && (peak / resident - 1.0).abs() < 0.1, "{peak} seen, {resident} resident");
    let ceiling = series.samples.iter().map(|s| s.peak_rss).max().unwrap() as f64;
    assert!(ceiling >= peak * 0.99, "{ceiling} {peak}");
    assert!((series.own_peak as f64) < peak, "the 50 MB are its child's");
    assert_eq!(series.samples.iter().map(|s| s.processes).max(), Some(2));
    assert_eq!(last.processes, 1, "the child has ended, and its CPU time is not lost");
    assert!(series.gaps.is_empty() && first.at < Moment(500_000), "{:?} {:?}", series.gaps, first.at);
    let span = (last.at.0 - first.at.0) as f64;
    assert!(series.looks as f64 > span / 300_000.0, "{} looks in {span} µs", series.looks);
    println!("{} looks cost {} in {:.2} s", series.looks, series.cost, span / 1e6);
}

#[test]
fn a_process_that_ends_is_a_gap_with_its_reason() {
    let mut worker = Worker::start();
    let pid = worker.pid();
    let mut sampler = ProcessSampler::new("celery", pid).unwrap();
    sampler.open(&cell(1));
    worker.tell("quit");
    wait_for("the worker's end", PATIENCE, || worker.child.try_wait().unwrap());
    let t0 = Instant::now();
    // The looks are a tenth of a second apart; the last one is at the end.
    let (_, series) = sampler.close(t0);
    assert_eq!(series.gaps.len(), 1);
    assert_eq!(series.gaps[0].why, format!("it (pid {pid}) has ended"));
    assert!(series.gaps[0].to >= Moment(0) && series.has_gap(Moment(-1), Moment(0)));
    sampler.open(&cell(2));
    let (_, next) = sampler.close(Instant::now());
    assert!(next.samples.is_empty() && next.gaps.len() == 1, "the next cell has nothing but a gap");
    let error = ProcessSampler::new("celery", pid).unwrap_err();
    assert!(error.starts_with(&format!("--watch-pid celery={pid}: there is no such process")), "{error}");
    assert_eq!(error.lines().count(), 1);
}

/// A tap in a process of its own has a clock of its own; its merges must fall where polling saw
/// them, and be known more closely.
#[test]
fn merges_of_the_tap_are_where_polling_saw_them() {
    let stand_in =
        StandIn::start(Config { task_time: Duration::from_millis(20), ..Config::default() }).unwrap();
    let tap = Served::start("tap", &format!("--upstream {}", stand_in.url()));
    stand_in.post_through(&tap.url).unwrap();
    let run = Run::small_at(stand_in.url()).set("tap", &tap.url).ends_shared();
    for cell in run.exits(Exit::Pass).record().cells {
        let tapped = Windows::of(&cell);
        let polled = Windows::of(&CellRecord { posts: None, ..cell });
        assert_eq!((tapped.clock, polled.clock), (Clock::Tap, Clock::Poll));
        assert_eq!((tapped.all.len(), polled.all.len()), (3, 3));
        let sorted = |all: &[Window], of: fn(&Window) -> Moment| {
            let mut all: Vec<Moment> = all.iter().map(of).collect();
            all.sort();
            all
        };
        let begins = sorted(&tapped.all, |w| w.start.0).into_iter().zip(sorted(&polled.all, |w| w.start.1));
        let ends = sorted(&tapped.all, |w| w.end.0).into_iter().zip(sorted(&polled.all, |w| w.end.1));
        for (tap, poll) in begins.chain(ends) {
            assert!(tap <= poll, "the tap had it at {tap}, and polling had seen it at {poll}");
            assert!(poll.0 - tap.0 < 5_000_000, "{tap} {poll}");
        }
        for w in &tapped.all {
            assert!(w.start.1.0 - w.start.0.0 < 100_000, "{w:?}");
        }
    }
}
