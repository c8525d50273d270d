//! What every test is written with.
//!
//! No test waits without a deadline, and no process outlives its test: whoever is dropped early
//! takes its process with it. It is long because a run, its going and its end are one sentence in
//! every test.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use springtide::{
    finding::{Finding, Kind},
    record::{CellRecord, RunRecord},
    verdict::{Check, Exit, Rule},
};
use tempfile::TempDir;

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_springtide");

/// Runs that measure nothing share the machine; one that does has it to itself.
static MACHINE: RwLock<()> = RwLock::new(());

/// The machine, to share with other runs.
pub(crate) fn shared() -> RwLockReadGuard<'static, ()> {
    MACHINE.read().unwrap_or_else(|e| e.into_inner())
}

/// The machine, for this test alone.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    MACHINE.write().unwrap_or_else(|e| e.into_inner())
}

/// Waits until `condition` yields something, and fails the test with `what` when it does not in
/// time.
pub(crate) fn wait_for<T>(what: &str, within: Duration, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(it) = condition() {
            return it;
        }
        assert!(Instant::now() < deadline, "waited {within:?} in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A command line to be tried, in a folder of its own.
pub(crate) struct Run {
    program: PathBuf,
    words: Vec<String>,
    flags: Vec<(String, Option<String>)>,
    env: Vec<(String, OsString)>,
    home: TempDir,
    within: Duration,
    limits: Vec<String>,
}

impl Run {
    /// `springtide` and these words, separated by blanks.
    pub(crate) fn of(words: &str) -> Self {
        Self {
            program: PROGRAM.into(),
            words: words.split_whitespace().map(Into::into).collect(),
            flags: Vec::new(),
            env: Vec::new(),
            home: tempfile::tempdir().unwrap(),
            within: Duration::from_secs(60),
            limits: Vec::new(),
        }
    }

    /// The smallest run that has everything: two repetitions of three users with a job of two
    /// short tasks each, on the built-in stand-in.
    pub(crate) fn small() -> Self {
        Self::bare()
            .set("users", 3)
            .set("tasks", 2)
            .set("repetitions", 2)
            .set("poll-interval", "50ms")
            .set("job-timeout", "20s")
            .flag("no-warmup")
            .set("seed", 7)
            .set("standin-task-time", "20ms")
    }

    /// The same against a target.
    pub(crate) fn small_at(url: &str) -> Self {
        Self::small().without("standin-task-time").set("host", url).flag("register")
    }

    /// No more than the scenario: a case of `usage` adds its mistake.
    pub(crate) fn bare() -> Self {
        Self::of("").set("scenario", "S1")
    }

    /// `--name value`, instead of an earlier one.
    pub(crate) fn set(self, name: &str, value: impl ToString) -> Self {
        let mut run = self.without(name);
        run.flags.push((name.into(), Some(value.to_string())));
        run
    }

    /// `--name value` once more.
    pub(crate) fn also(mut self, name: &str, value: impl ToString) -> Self {
        self.flags.push((name.into(), Some(value.to_string())));
        self
    }

    /// `--name`.
    pub(crate) fn flag(mut self, name: &str) -> Self {
        self.flags.push((name.into(), None));
        self
    }

    /// Takes a flag back.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.flags.retain(|(n, _)| n != name);
        self
    }

    /// One cell instead of two.
    pub(crate) fn once(self) -> Self {
        self.set("repetitions", 1)
    }

    /// The stand-in misbehaves.
    pub(crate) fn bug(self, bug: &str) -> Self {
        self.also("standin-bug", bug)
    }

    /// Another program than ours.
    pub(crate) fn by(mut self, program: &Path) -> Self {
        self.program = program.to_owned();
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.env.push((name.into(), value.into()));
        self
    }

    /// A file in the working directory.
    pub(crate) fn file(self, name: &str, text: &str) -> Self {
        fs::write(self.home.path().join(name), text).unwrap();
        self
    }

    /// The hard limit on open files.
    pub(crate) fn open_files(mut self, limit: u32) -> Self {
        self.limits.push(format!("ulimit -n {limit}"));
        self
    }

    /// No file may become larger, in kB: beyond that the system refuses, as a full disk does.
    pub(crate) fn file_size(mut self, limit: u64) -> Self {
        // dash counts blocks of 512 bytes, and the signal that comes with the refusal is not ours.
        self.limits.push(format!("trap '' XFSZ && ulimit -f {}", 2 * limit));
        self
    }

    /// It must have ended by then.
    pub(crate) fn within(mut self, time: Duration) -> Self {
        self.within = time;
        self
    }

    /// Starts it.
    pub(crate) fn start(self) -> Going {
        let Self { program, words, flags, env, home, within, limits } = self;
        let mut command = match limits.is_empty() {
            true => Command::new(&program),
            false => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &format!("{} && exec \"$0\" \"$@\"", limits.join(" && "))]).arg(&program);
                shell
            }
        };
        command.args(words);
        for (name, value) in flags {
            command.arg(format!("--{name}")).args(value);
        }
        let said = tempfile::tempdir().unwrap();
        let into = |name| Stdio::from(fs::File::create(said.path().join(name)).unwrap());
        let child = command
            .env_clear()
            .envs(env)
            .current_dir(home.path())
            .stdin(Stdio::null())
            .stdout(into("out"))
            .stderr(into("err"))
            .spawn()
            .unwrap();
        Going { child, home: Some(home), said, began: Instant::now(), within }
    }

    /// Starts it and waits for its end.
    pub(crate) fn ends(self) -> Ended {
        self.start().ends()
    }

    /// The same while no other run goes on that waits for the machine to be shared.
    pub(crate) fn ends_shared(self) -> Ended {
        let _shared = shared();
        self.ends()
    }
}

/// A run that goes on.
pub(crate) struct Going {
    child: Child,
    home: Option<TempDir>,
    said: TempDir,
    began: Instant,
    within: Duration,
}

impl Going {
    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(pid_of(&self.child), signal).unwrap();
    }

    /// What it has written to stdout so far.
    pub(crate) fn out(&self) -> String {
        fs::read_to_string(self.said.path().join("out")).unwrap_or_default()
    }

    /// What it has written to stderr so far.
    pub(crate) fn err(&self) -> String {
        fs::read_to_string(self.said.path().join("err")).unwrap_or_default()
    }

    /// Where it runs.
    pub(crate) fn home(&self) -> &Path {
        self.home.as_ref().unwrap().path()
    }

    /// Waits for its end, no longer than it may take.
    pub(crate) fn ends(mut self) -> Ended {
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(self.began.elapsed() < self.within, "a hang; stderr so far:\n{}", self.err());
            std::thread::sleep(Duration::from_millis(5));
        };
        Ended {
            code: status.code(),
            signal: status.signal(),
            out: fs::read_to_string(self.said.path().join("out")).unwrap(),
            err: self.err(),
            took: self.began.elapsed(),
            home: self.home.take().unwrap(),
        }
    }
}

impl Drop for Going {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// A run that came to its end.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// Its stdout.
    pub(crate) out: String,
    /// Its stderr.
    pub(crate) err: String,
    /// How long it took.
    pub(crate) took: Duration,
    /// Its working directory.
    pub(crate) home: TempDir,
}

/// Rules that speak of the machine the test runs on. A busy one breaks them, rightly, and then
/// the run is INVALID; what a test is about is judged without them.
pub(crate) const OF_THE_MACHINE: [Rule; 4] =
    [Rule::SchedulingLag, Rule::GeneratorCpu, Rule::LittlesLaw, Rule::StartTogether];

impl Ended {
    /// Asserts how the run ended, whatever the machine was doing: the exit code and the last line on
    /// stdout are those of the checks in the record, and without the checks that the machine may
    /// break it is `expected`.
    #[track_caller]
    pub(crate) fn exits(&self, expected: Exit) -> &Self {
        let run = self.record();
        let all: Vec<&Check> = run.all_checks().collect();
        let of_target: Vec<&Check> =
            all.iter().filter(|c| !OF_THE_MACHINE.contains(&c.rule)).copied().collect();
        assert_eq!(Exit::of(of_target.iter().copied()), expected, "{of_target:#?}\n{}", self.err);
        let code = Exit::of(all.iter().copied()).code();
        assert_eq!(self.code, Some(i32::from(code)), "{}", self.err);
        let (last, verdict) = (self.out.lines().last().unwrap_or_default(), run.verdict.unwrap());
        if !self.out.starts_with('{') {
            let fits =
                last.starts_with(&format!("RESULT: {verdict}")) && last.ends_with(&format!("(exit {code})"));
            assert!(fits, "{verdict}, exit {code}: {last:?}");
        }
        self
    }

    /// Asserts that the process ended with that code, run record or not.
    #[track_caller]
    pub(crate) fn leaves_with(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "signal {:?}\n{}\n{}", self.signal, self.out, self.err);
        self
    }

    /// Asserts that there is one line on stderr that holds all of `words`, and nothing on stdout.
    #[track_caller]
    pub(crate) fn says_only(&self, words: &[&str]) -> &Self {
        let line = self.err.strip_suffix('\n').expect("a whole line on stderr");
        assert!(!line.contains('\n') && !line.is_empty(), "not one line:\n{line}");
        assert!(line.starts_with("springtide: "), "{line}");
        for word in words {
            assert!(line.contains(word), "{word:?} is not in: {line}");
        }
        // A run that had begun ends with its result on stdout; a mistake says nothing there.
        match self.code {
            Some(1) => assert!(
                self.out.starts_with("RESULT: FAIL ") && self.out.lines().count() == 1,
                "{}",
                self.out
            ),
            _ => assert_eq!(self.out, ""),
        }
        self
    }

    /// Asserts that no file or folder was made but those.
    #[track_caller]
    pub(crate) fn leaves_only(&self, files: &[&str]) -> &Self {
        let mut found: Vec<String> = fs::read_dir(self.home.path())
            .unwrap()
            .map(|e| e.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        found.sort();
        assert_eq!(found, files);
        self
    }

    /// Every `run.json` below the working directory.
    pub(crate) fn records(&self) -> Vec<PathBuf> {
        records_below(self.home.path())
    }

    /// The folder of the run.
    #[track_caller]
    pub(crate) fn folder(&self) -> PathBuf {
        let records = self.records();
        assert_eq!(records.len(), 1, "{records:?}\n{}", self.err);
        records[0].parent().unwrap().to_owned()
    }

    /// The record of the run.
    #[track_caller]
    pub(crate) fn record(&self) -> RunRecord {
        RunRecord::load(&self.folder()).unwrap()
    }

    /// Jobs by outcome, of all cells; those with none are left out.
    #[track_caller]
    pub(crate) fn outcomes(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (kind, n) in self.record().cells.iter().flat_map(|c| &c.ledger.outcomes) {
            if *n > 0 {
                *sum.entry(kind.clone()).or_default() += n;
            }
        }
        sum
    }

    /// What was found, but for what is about ourselves.
    #[track_caller]
    pub(crate) fn findings(&self) -> Vec<Finding> {
        let cells: Vec<CellRecord> = self.record().cells;
        cells.into_iter().flat_map(|c| c.findings).filter(|f| !f.kind.is_about_us()).collect()
    }

    /// How often that was found.
    #[track_caller]
    pub(crate) fn count(&self, like: fn(&Kind) -> bool) -> u64 {
        self.findings().iter().filter(|f| like(&f.kind)).map(|f| f.count).sum()
    }

    /// Asserts that this was found so often, and nothing else.
    #[track_caller]
    pub(crate) fn found(&self, expected: &[(Kind, u64)]) -> &Self {
        let found: Vec<(Kind, u64)> = self.findings().into_iter().map(|f| (f.kind, f.count)).collect();
        assert_eq!(found, expected);
        self
    }

    /// Asserts the jobs' outcomes.
    #[track_caller]
    pub(crate) fn jobs(&self, expected: &[(&str, u64)]) -> &Self {
        let expected = expected.iter().map(|(kind, n)| ((*kind).to_owned(), *n)).collect();
        assert_eq!(self.outcomes(), expected, "{}", self.err);
        self
    }

    /// Sum of the ledgers' residuals.
    #[track_caller]
    pub(crate) fn residual(&self) -> u64 {
        self.record().cells.iter().map(|c| c.ledger.residual()).sum()
    }
}

/// Every `run.json` below a folder; links are not followed.
pub(crate) fn records_below(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> =
        files_below(folder).into_iter().filter(|f| f.ends_with("run.json")).collect();
    found.sort();
    found
}

/// Every file below a folder; links are not followed.
pub(crate) fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files_below(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

pub(crate) fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Ends a process of ours, if it has not ended, and waits for it.
pub(crate) fn end(child: &mut Child) {
    if child.try_wait().is_ok_and(|status| status.is_none()) {
        let _ = child.kill();
        let _ = child.wait();
    }
}
