//! The process of a probe: a group of its own, told to end, then made to, and waited for.

use std::{
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::{
    process::Command,
    sync::watch,
    time::{Instant, sleep, timeout, timeout_at},
};

use super::{Grace, Stand, guard::Guard, output::Copying};

/// How long what was killed may take to be gone.
const KILLED: Duration = Duration::from_secs(1);
/// How often a group whose leader has ended is looked at.
const PAUSE: Duration = Duration::from_millis(50);
/// Variables of the environment that are none of a probe's business: passwords are among them.
const OURS: &str = "SPRINGTIDE_";

/// How it was made to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// SIGINT was enough.
    Interrupted,
    /// It took SIGTERM.
    Terminated,
    /// It took SIGKILL.
    Killed,
}

/// What came of it.
pub(super) struct Ended {
    pub(super) code: Option<i32>,
    pub(super) problem: Option<String>,
    pub(super) notes: Vec<String>,
}

/// A running probe.
pub(super) struct Child {
    process: tokio::process::Child,
    group: Group,
    guard: Option<Guard>,
    outputs: [Copying; 2],
}

/// A process group that is killed when it is forgotten.
struct Group(Option<Pid>);

impl Group {
    /// A group that is gone has nothing to be told.
    fn tell(&self, signal: Signal) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, signal);
        }
    }

    /// Whether any of it still does something; ended ones that nobody waits for do not count.
    fn lives(&self) -> bool {
        let Some(pid) = self.0 else { return false };
        if test_kill_process_group(pid).is_err() {
            return false;
        }
        let all = procfs::process::all_processes().into_iter().flatten().flatten();
        let number = pid.as_raw_nonzero().get();
        all.filter_map(|p| p.stat().ok()).any(|s| s.pgrp == number && !matches!(s.state, 'Z' | 'X'))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.tell(Signal::KILL);
    }
}

impl Child {
    /// Starts a command; its outputs go to `<name>.stdout` and `<name>.stderr` in `dir`.
    pub(super) fn start(command: &[String], dir: &Path, name: &str) -> Result<Self, String> {
        let (program, arguments) = command.split_first().ok_or("there is no command")?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        for (variable, _) in std::env::vars_os() {
            if variable.to_string_lossy().starts_with(OURS) {
                command.env_remove(variable);
            }
        }
        let mut process = command.spawn().map_err(|e| match e.kind() {
            std::io::ErrorKind::NotFound => {
                format!("{program} could not be started: it is not installed, or not in PATH")
            }
            _ => format!("{program} could not be started: {e}"),
        })?;
        let pid = process.id().and_then(|pid| i32::try_from(pid).ok());
        let group = Group(pid.and_then(Pid::from_raw));
        let guard = pid.and_then(Guard::over);
        let outputs = [
            Copying::start(process.stdout.take(), dir.join(format!("{name}.stdout"))),
            Copying::start(process.stderr.take(), dir.join(format!("{name}.stderr"))),
        ];
        Ok(Self { process, group, guard, outputs })
    }

    /// Until it has ended by itself. What it leaves running is ended by [`reap`](Self::reap).
    pub(super) async fn gone(&mut self) {
        let _ = self.process.wait().await;
    }

    /// Until it and all that it started in its group have ended.
    async fn all_gone(&mut self) {
        let _ = self.process.wait().await;
        while self.group.lives() {
            sleep(PAUSE).await;
        }
    }

    /// Tells it to end, and makes it. A cell that is given up meanwhile makes it shorter.
    pub(super) async fn end(&mut self, grace: Grace, stand: &mut watch::Receiver<Stand>) -> Told {
        self.group.tell(Signal::INT);
        let began = Instant::now();
        let hurry = async { drop(stand.wait_for(|stand| stand.over == Some(Grace::SHORT)).await) };
        let is_gone = tokio::select! {
            gone = timeout(grace.interrupt, self.all_gone()) => gone.is_ok(),
            () = hurry => timeout_at(began + Grace::SHORT.interrupt, self.all_gone()).await.is_ok(),
        };
        if is_gone {
            return Told::Interrupted;
        }
        self.group.tell(Signal::TERM);
        if timeout(grace.terminate, self.all_gone()).await.is_ok() {
            return Told::Terminated;
        }
        self.group.tell(Signal::KILL);
        let _ = timeout(KILLED, self.all_gone()).await;
        Told::Killed
    }

    /// What came of it, its outputs read to their end.
    pub(super) async fn reap(mut self, told: Option<Told>) -> Ended {
        let status = timeout(KILLED, self.process.wait()).await.ok().and_then(Result::ok);
        let mut notes = Vec::new();
        if self.group.lives() {
            notes.push("it left processes behind, which were killed".into());
            self.group.tell(Signal::KILL);
            let _ = timeout(KILLED, self.all_gone()).await;
        }
        // Nothing of this number is ours any more.
        self.group.0 = None;
        if let Some(guard) = self.guard.take() {
            guard.dismiss().await;
        }
        let mut last_words = String::new();
        for (output, name) in self.outputs.iter_mut().zip(["stdout", "stderr"]) {
            let copied = output.end().await;
            notes.extend(copied.note.map(|note| format!("{name} {note}")));
            last_words = copied.last_line;
        }
        let problem = problem(status, told).map(|problem| match last_words.is_empty() {
            true => problem,
            false => format!("{problem}: {last_words}"),
        });
        Ended { code: status.and_then(|s| s.code()), problem, notes }
    }
}

/// What is wrong with the way it ended; `None` for a good one.
fn problem(status: Option<ExitStatus>, told: Option<Told>) -> Option<String> {
    let Some(status) = status else {
        return Some("it could not be ended, not by SIGKILL either".into());
    };
    match told {
        Some(Told::Killed) => {
            return Some("it ended neither on SIGINT nor on SIGTERM, and was killed".into());
        }
        Some(Told::Terminated) => return Some("it did not end on SIGINT, and needed SIGTERM".into()),
        Some(Told::Interrupted) | None => {}
    }
    /// What shells make of an end by SIGINT.
    const INTERRUPTED: i32 = 128 + Signal::INT.as_raw();
    let is_told = told.is_some();
    match (status.code(), status.signal()) {
        (Some(0), _) => None,
        (Some(INTERRUPTED), _) if is_told => None,
        (_, Some(signal)) if is_told && signal == Signal::INT.as_raw() => None,
        (Some(code), _) => Some(format!("exit code {code}")),
        (None, signal) => Some(format!("signal {} ended it", signal.unwrap_or_default())),
    }
}
