//! Runs the probes of a matrix: external commands beside the cells.
//!
//! A probe never breaks a cell. What goes wrong with it is told in its [`ProbeRun`] and in one
//! warning. It is told to end with SIGINT, on which profilers write what they have; one that does
//! not is told harder, and none outlives its cell, nor springtide.

mod child;
mod files;
mod guard;
mod output;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use crate::{
    moment::Moment,
    plan::{Cell, CellKind},
    scenario::{Filling, Probe, StartAt},
    telemetry::probe::ProbeRun,
};
use child::{Child, Ended};

/// Where in the run's folder probes leave their files.
const FOLDER: &str = "merge-profiles";

/// How long a probe may take to end after SIGINT, and then after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Grace {
    interrupt: Duration,
    terminate: Duration,
}

impl Default for Grace {
    fn default() -> Self {
        Self::FULL
    }
}

impl Grace {
    /// At the end of its window or cell: it has files to write.
    const FULL: Self = Self { interrupt: Duration::from_secs(10), terminate: Duration::from_secs(5) };
    /// When nobody wants its files any more.
    const SHORT: Self = Self { interrupt: Duration::from_secs(1), terminate: Duration::from_millis(500) };
}

/// How far the cell has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Stand {
    has_merged: bool,
    /// It is over, and probes are told to end.
    over: Option<Grace>,
}

/// The probes of a run, and the processes of those that are running.
#[derive(Debug, Default)]
pub struct Prober {
    probes: Vec<Probe>,
    watched: BTreeMap<String, u32>,
    folder: PathBuf,
    grace: Grace,
    at: Option<AtCell>,
}

/// A cell that has probes.
#[derive(Debug)]
struct AtCell {
    cell: Cell,
    probes: Vec<Probe>,
    dir: PathBuf,
    /// What is wrong with the folder.
    dir_problem: Option<String>,
    stand: watch::Sender<Stand>,
    /// One a probe, once T0 is known.
    tasks: Vec<JoinHandle<Ran>>,
}

/// What a probe's task brings back.
#[derive(Debug, Default)]
struct Ran {
    started: Option<Instant>,
    ended: Option<Instant>,
    run: ProbeRun,
}

impl Prober {
    /// The probes of a run, the watched processes that their commands may name, and the run's
    /// folder, in which they leave their files below `merge-profiles/`.
    pub fn new(probes: Vec<Probe>, watched: BTreeMap<String, u32>, folder: PathBuf) -> Self {
        Self { probes, watched, folder, grace: Grace::FULL, at: None }
    }

    /// A cell is about to begin. A warm-up has no probes.
    pub fn open(&mut self, cell: &Cell) {
        self.at = None;
        let probes: Vec<Probe> = self.probes.iter().filter(|p| p.runs_in(&cell.scenario)).cloned().collect();
        if probes.is_empty() || cell.kind == CellKind::WarmUp {
            return;
        }
        let folder = std::path::absolute(&self.folder).unwrap_or_else(|_| self.folder.clone());
        let dir = folder.join(FOLDER).join(of_cell(cell));
        let dir_problem = fresh(&dir).err().map(|e| format!("{}: {e}", dir.display()));
        let (stand, _) = watch::channel(Stand::default());
        self.at = Some(AtCell { cell: cell.clone(), probes, dir, dir_problem, stand, tasks: Vec::new() });
    }

    /// Its T0 is known, which may still be to come.
    pub fn started(&mut self, t0: Instant) {
        let Some(at) = self.at.as_mut().filter(|at| at.tasks.is_empty()) else { return };
        let filling = Filling {
            dir: &at.dir,
            scenario: at.cell.scenario.as_str(),
            repetition: at.cell.repetition,
            tasks: at.cell.tasks,
            pids: &self.watched,
        };
        for probe in &at.probes {
            let filled = match &at.dir_problem {
                Some(problem) => Err(problem.clone()),
                None => probe.filled(&filling),
            };
            let task = carry_out(probe.clone(), filled, at.dir.clone(), t0, at.stand.subscribe());
            at.tasks.push(tokio::spawn(task));
        }
    }

    /// A job of the cell was seen merging, for the first time or again.
    pub fn merging(&mut self) {
        if let Some(at) = &self.at {
            at.stand.send_if_modified(|stand| !std::mem::replace(&mut stand.has_merged, true));
        }
    }

    /// The cell is over: probes that still run are told to end and waited for.
    pub async fn close(&mut self, t0: Instant) -> Vec<ProbeRun> {
        let Some(at) = self.at.take() else { return Vec::new() };
        let place = format!("{} #{}", at.cell.scenario, at.cell.repetition);
        let dir = at.dir.clone();
        let commands: Vec<(String, Vec<String>)> =
            at.probes.iter().map(|p| (p.name.to_string(), p.command.clone())).collect();
        let mut runs = Vec::new();
        for mut ran in at.end(self.grace).await {
            let moment = |at: Option<Instant>| at.map(|at| Moment::of(at, t0));
            (ran.run.started, ran.run.ended) = (moment(ran.started), moment(ran.ended));
            runs.push(ran.run);
        }
        if runs.is_empty() {
            // T0 never came.
            let never = |(name, command)| ProbeRun {
                name,
                command,
                problem: Some("the cell never began".into()),
                ..ProbeRun::default()
            };
            runs = commands.into_iter().map(never).collect();
        }
        // Profiles have megabytes.
        let gathered = tokio::task::spawn_blocking(move || {
            files::gather(&dir, &mut runs);
            runs
        });
        let runs = gathered.await.unwrap_or_default();
        for run in &runs {
            if let Some(problem) = &run.problem {
                tracing::warn!("probe {} in {place}: {problem}", run.name);
            }
        }
        runs
    }

    /// The cell is given up: probes that still run are ended quickly, and nothing of them is kept.
    pub async fn abandon(&mut self) {
        let Some(at) = self.at.take() else { return };
        let dir = at.dir.clone();
        at.end(Grace::SHORT).await;
        // What cannot be removed now is in nobody's way: the cell's next try removes it.
        let _ = fs::remove_dir_all(dir);
    }
}

impl AtCell {
    /// Ends all that runs, and waits for it.
    async fn end(self, grace: Grace) -> Vec<Ran> {
        self.stand.send_modify(|stand| stand.over = Some(grace));
        let mut all = Vec::new();
        for task in self.tasks {
            // A task that broke down took its process with it.
            all.push(task.await.unwrap_or_default());
        }
        all
    }
}

/// `S4-r03`, and `S4-r03-a2` for a second try.
fn of_cell(cell: &Cell) -> String {
    let again = if cell.attempt > 1 { format!("-a{}", cell.attempt) } else { String::new() };
    format!("{}-r{:02}{again}", cell.scenario, cell.repetition)
}

/// Makes an empty folder. What an interrupted try at the same cell left there goes.
fn fresh(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    fs::create_dir_all(dir)
}

/// Waits for the end of the cell; how long its probes may take to end then.
async fn grace_of(stand: &mut watch::Receiver<Stand>) -> Grace {
    let over = stand.wait_for(|stand| stand.over.is_some()).await;
    over.ok().and_then(|stand| stand.over).unwrap_or(Grace::SHORT)
}

/// The life of one probe beside one cell. A run that is dropped, its sender with it, ends it too.
async fn carry_out(
    probe: Probe,
    command: Result<Vec<String>, String>,
    dir: PathBuf,
    t0: Instant,
    mut stand: watch::Receiver<Stand>,
) -> Ran {
    let mut ran = Ran::default();
    ran.run.name = probe.name.to_string();
    let command = match command {
        Ok(command) => command,
        Err(problem) => {
            ran.run.command = probe.command;
            ran.run.problem = Some(problem);
            return ran;
        }
    };
    ran.run.command.clone_from(&command);
    let mut over = stand.clone();
    let is_due = async {
        sleep_until(t0).await;
        if probe.start_at == StartAt::FirstMerge {
            let merging = stand.wait_for(|stand| stand.has_merged || stand.over.is_some()).await;
            return merging.is_ok_and(|stand| stand.has_merged && stand.over.is_none());
        }
        true
    };
    let is_due = tokio::select! {
        is_due = is_due => is_due,
        _ = grace_of(&mut over) => false,
    };
    if !is_due {
        ran.run.problem = Some(match probe.start_at {
            StartAt::Cell => "the cell was over before its T0".into(),
            StartAt::FirstMerge => "no job was seen merging".into(),
        });
        return ran;
    }
    let mut child = match Child::start(&command, &dir, probe.name.as_str()) {
        Ok(child) => child,
        Err(problem) => {
            ran.run.problem = Some(problem);
            return ran;
        }
    };
    let began = Instant::now();
    ran.started = Some(began);
    let ended = tokio::select! {
        () = child.gone() => None,
        () = sleep_until(began + Duration::from(probe.window)) => Some(Grace::FULL),
        grace = grace_of(&mut over) => Some(grace),
    };
    let Ended { code, problem, notes } = match ended {
        None => child.reap(None).await,
        Some(grace) => {
            let told = child.end(grace, &mut over).await;
            child.reap(Some(told)).await
        }
    };
    ran.ended = Some(Instant::now());
    ran.run.code = code;
    ran.run.problem = problem;
    ran.run.notes = notes;
    ran
}

#[cfg(test)]
mod tests {
    use std::{process::Command, time::Duration};

    use super::*;
    use crate::{micros::Micros, plan::Plan, scenario::Matrix};

    /// A prober with one probe beside the first cell of S1, and the folder it works in.
    fn prober(script: &str, start_at: StartAt, window: u64) -> (Prober, Cell, tempfile::TempDir) {
        let folder = tempfile::tempdir().unwrap();
        let probe = Probe {
            name: "p".to_owned().try_into().unwrap(),
            command: ["sh", "-c", script, "p", "{dir}"].map(Into::into).to_vec(),
            start_at,
            window: Micros(window * 1_000),
            scenarios: Vec::new(),
        };
        let cell = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
        let mut prober = Prober::new(vec![probe], BTreeMap::new(), folder.path().to_owned());
        // As long as a test wants to wait for one that hears nothing.
        let (interrupt, terminate) = (Duration::from_secs(2), Duration::from_millis(1_500));
        prober.grace = Grace { interrupt, terminate };
        (prober, cell, folder)
    }

    async fn wait_for(path: &Path) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !path.exists() {
            assert!(Instant::now() < deadline, "waited in vain for {}", path.display());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// What a test runner that was put into the background ignores, its children would ignore too.
    fn hear_interrupts() {
        let _ = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
    }

    fn lives(pid: &str) -> bool {
        let state = |s: procfs::process::Stat| !matches!(s.state, 'Z' | 'X');
        let process = procfs::process::Process::new(pid.trim().parse().unwrap());
        process.and_then(|p| p.stat()).is_ok_and(state)
    }

    /// Runs it from T0 until `ready` is there, and closes the cell.
    async fn run(script: &str, window: u64, ready: Option<&str>) -> (ProbeRun, Duration, tempfile::TempDir) {
        hear_interrupts();
        let (mut prober, cell, folder) = prober(script, StartAt::Cell, window);
        prober.open(&cell);
        let t0 = Instant::now();
        prober.started(t0);
        if let Some(ready) = ready {
            let dir = folder.path().join(FOLDER).join(of_cell(&cell));
            wait_for(&dir.join(ready)).await;
        } else {
            let task = &prober.at.as_ref().unwrap().tasks[0];
            let deadline = Instant::now() + Duration::from_secs(30);
            while !task.is_finished() {
                assert!(Instant::now() < deadline, "it did not end by itself");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let began = Instant::now();
        let run = prober.close(t0).await.remove(0);
        (run, began.elapsed(), folder)
    }

    #[tokio::test]
    async fn one_that_ends_well_has_its_outputs_kept() {
        let (run, _, folder) = run("echo out; echo err >&2; echo more > $1/x.txt", 60_000, None).await;
        assert_eq!((run.problem, run.code, run.notes.len()), (None, Some(0), 0));
        let dir = format!("merge-profiles/{}-r01", cell_id());
        let names: Vec<String> = ["p.stderr", "p.stdout", "x.txt"].map(|f| format!("{dir}/{f}")).to_vec();
        assert_eq!(run.files, names);
        assert_eq!(fs::read_to_string(folder.path().join(&run.files[1])).unwrap(), "out\n");
        assert!(run.started.unwrap().0 >= 0 && run.ended > run.started);
    }

    fn cell_id() -> String {
        Plan::cells(1, &Matrix::runbook().scenarios, false)[0].scenario.to_string()
    }

    #[tokio::test]
    async fn one_that_fails_is_told_with_its_last_words() {
        let (run, _, _folder) = run("echo one; echo 'no such pid' >&2; exit 3", 60_000, None).await;
        assert_eq!((run.problem.as_deref(), run.code), (Some("exit code 3: no such pid"), Some(3)));
    }

    #[tokio::test]
    async fn one_that_is_not_installed_is_told() {
        let (mut prober, cell, _folder) = prober("", StartAt::Cell, 1_000);
        prober.probes[0].command = vec!["no-such-profiler".into()];
        prober.open(&cell);
        prober.started(Instant::now());
        while !prober.at.as_ref().unwrap().tasks[0].is_finished() {
            tokio::task::yield_now().await;
        }
        let run = prober.close(Instant::now()).await.remove(0);
        assert!(run.problem.unwrap().contains("no-such-profiler could not be started: it is not installed"));
        assert_eq!((run.started, run.files.len()), (None, 0));
    }

    #[tokio::test]
    async fn the_end_of_the_window_interrupts_it() {
        let script = "trap 'echo written > $1/late; exit 0' INT; while :; do sleep 0.05; done";
        let (run, _, folder) = run(script, 300, None).await;
        assert_eq!((run.problem, run.code), (None, Some(0)));
        let late = folder.path().join(run.files.last().unwrap());
        assert_eq!(fs::read_to_string(late).unwrap(), "written\n");
        let took = run.ended.unwrap().0 - run.started.unwrap().0;
        assert!((300_000..5_000_000).contains(&took), "{took}");
    }

    #[tokio::test]
    async fn the_end_of_the_cell_interrupts_it_and_all_that_it_started() {
        let script =
            "sh -c 'echo $$ > $0/pid.part; mv $0/pid.part $0/pid; while :; do sleep 1; done' $1 & wait";
        let (run, took, folder) = run(script, 60_000, Some("pid")).await;
        // A shell's background process ignores SIGINT, so this takes a SIGTERM.
        assert!(run.problem.unwrap().contains("needed SIGTERM"));
        let pid =
            fs::read_to_string(folder.path().join(FOLDER).join(format!("{}-r01/pid", cell_id()))).unwrap();
        assert!(!lives(&pid));
        assert!(took < Duration::from_secs(8), "{took:?}");
    }

    #[tokio::test]
    async fn one_that_hears_nothing_is_killed_in_time() {
        let script = "trap '' INT TERM; echo > $1/up; while :; do sleep 1; done";
        let (run, took, _folder) = run(script, 60_000, Some("up")).await;
        assert!(run.problem.unwrap().contains("was killed"));
        assert_eq!(run.code, None);
        assert!(took < Duration::from_secs(8), "{took:?}");
        let full = Grace::FULL.interrupt + Grace::FULL.terminate;
        assert!(full <= Duration::from_secs(15), "what a cell may be held up by one that hears nothing");
    }

    #[tokio::test]
    async fn a_talkative_one_is_cut_and_not_held_up() {
        let (run, _, folder) = run("head -c 100000000 /dev/zero; exit 0", 60_000, None).await;
        assert_eq!((run.problem, run.code), (None, Some(0)));
        assert_eq!(run.notes, ["stdout was cut: 4000000 of 100000000 bytes are kept"]);
        assert_eq!(fs::metadata(folder.path().join(&run.files[0])).unwrap().len(), 4_000_000);
    }

    #[tokio::test]
    async fn at_first_merge_it_waits_for_one() {
        hear_interrupts();
        let (mut prober, cell, folder) = prober("echo > $1/up; exec sleep 60", StartAt::FirstMerge, 60_000);
        prober.open(&cell);
        let t0 = Instant::now();
        prober.started(t0);
        let run = prober.close(t0).await.remove(0);
        assert_eq!(run.problem.as_deref(), Some("no job was seen merging"));
        prober.open(&cell);
        prober.started(t0);
        prober.merging();
        prober.merging();
        wait_for(&folder.path().join(FOLDER).join(format!("{}-r01/up", cell_id()))).await;
        let run = prober.close(t0).await.remove(0);
        assert_eq!((run.problem, run.code), (None, None), "SIGINT ended it, as it was meant to");
    }

    #[tokio::test]
    async fn a_cell_that_is_given_up_leaves_nothing() {
        let script = "trap '' INT TERM; echo $$ > $1/p; mv $1/p $1/pid; while :; do sleep 1; done";
        let (mut prober, cell, folder) = prober(script, StartAt::Cell, 60_000);
        prober.open(&cell);
        prober.started(Instant::now());
        let dir = folder.path().join(FOLDER).join(of_cell(&cell));
        wait_for(&dir.join("pid")).await;
        let pid = fs::read_to_string(dir.join("pid")).unwrap();
        let began = Instant::now();
        prober.abandon().await;
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        assert!(!lives(&pid) && !dir.exists());
        assert!(prober.close(Instant::now()).await.is_empty());
    }

    #[tokio::test]
    async fn a_prober_that_is_dropped_takes_its_processes_with_it() {
        let script = "trap '' INT TERM; echo $$ > $1/p; mv $1/p $1/pid; while :; do sleep 1; done";
        let (mut prober, cell, folder) = prober(script, StartAt::Cell, 60_000);
        prober.open(&cell);
        prober.started(Instant::now());
        let dir = folder.path().join(FOLDER).join(of_cell(&cell));
        wait_for(&dir.join("pid")).await;
        let pid = fs::read_to_string(dir.join("pid")).unwrap();
        drop(prober);
        let deadline = Instant::now() + Duration::from_secs(10);
        while lives(&pid) {
            assert!(Instant::now() < deadline, "it outlived its prober");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn the_guard_ends_what_springtide_cannot() {
        let mut sleeper = Command::new("sleep");
        std::os::unix::process::CommandExt::process_group(&mut sleeper, 0);
        hear_interrupts();
        let mut sleeper = sleeper.arg("60").spawn().unwrap();
        // Forgotten without a word, as when springtide is killed: its input comes to an end.
        drop(guard::Guard::over(sleeper.id() as i32));
        let deadline = Instant::now() + Duration::from_secs(10);
        while sleeper.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it was not ended");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    #[tokio::test]
    async fn warm_ups_and_other_scenarios_have_none() {
        let (mut prober, cell, folder) = prober("exit 1", StartAt::Cell, 1_000);
        prober.open(&Cell { kind: CellKind::WarmUp, ..cell.clone() });
        prober.started(Instant::now());
        assert!(prober.close(Instant::now()).await.is_empty());
        prober.probes[0].scenarios = vec!["other".to_owned().try_into().unwrap()];
        prober.open(&cell);
        assert!(prober.close(Instant::now()).await.is_empty());
        assert!(!folder.path().join(FOLDER).exists());
        assert_eq!(of_cell(&Cell { attempt: 2, repetition: 12, ..cell }), format!("{}-r12-a2", cell_id()));
    }
}
