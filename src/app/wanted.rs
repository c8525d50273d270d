//! What the flags and files of a run ask for, checked before anything starts.

use std::{fs, path::Path};

use anyhow::{Context, Result, anyhow, bail};
use rand::RngExt;

use super::{errand::Errand, facts, fleet::plane_secret, secret::PASSWORD};
use crate::{
    cli::{LoadArgs, StandInArgs},
    fault::FaultKind,
    loadtests::{input::Input, session::Account},
    micros::Micros,
    plan::{self, Cell, Limits, Plan, Settings},
    scenario::{Matrix, Probe, Scenario},
    standin::Config,
};

/// How long a job may take at a target whose pace we do not know.
const JOB_TIMEOUT: Micros = Micros(600_000_000);

/// What the flags and files ask for, checked.
pub(super) struct Wanted {
    pub(super) plan: Plan,
    pub(super) input: Input,
    /// The account all users share; `None` when each registers its own.
    pub(super) account: Option<Account>,
    /// What the one who typed it may not have meant.
    pub(super) warnings: Vec<String>,
}

impl Wanted {
    /// What a run is called when it was given no other name: by its scenarios, as many as fit.
    pub(super) fn label(&self) -> String {
        let mut label = String::new();
        for scenario in &self.plan.scenarios {
            let id = scenario.id.as_str();
            if label.len() + 1 + id.len() > 64 {
                break;
            }
            if !label.is_empty() {
                label.push('-');
            }
            label.push_str(id);
        }
        label
    }

    /// Reads and checks everything, and starts nothing.
    ///
    /// # Errors
    /// One line with the flag, the value and the remedy.
    pub(super) fn read(errand: &Errand) -> Result<Self> {
        let (args, flag) = (&errand.load, errand.flag);
        let (matrix, matrix_name) = match &args.matrix {
            Some(path) => (Matrix::load(path).map_err(|e| anyhow!("--{e}"))?, path.display().to_string()),
            None => (Matrix::runbook(), "built-in loadtests/matrix.toml".into()),
        };
        let mut rows: Vec<&Scenario> = Vec::new();
        if errand.scenarios.is_empty() {
            rows.extend(&matrix.scenarios);
        }
        for id in &errand.scenarios {
            let row = matrix.get(id.trim()).ok_or_else(|| {
                anyhow!("{flag} {id}: {matrix_name} has no such scenario; it has {}", matrix.ids())
            })?;
            if rows.contains(&row) {
                bail!("{flag} {id}: stands there twice; name each scenario once");
            }
            rows.push(row);
        }
        for threshold in &args.thresholds {
            // It could only fail, at the end.
            if let Some(other) =
                threshold.scenario().filter(|other| rows.iter().all(|r| !r.id.is(other.as_str())))
            {
                let ids: Vec<&str> = rows.iter().map(|r| r.id.as_str()).collect();
                bail!("--threshold {threshold}: the run has no {other}, it has {}", ids.join(", "));
            }
        }
        for (flag, path) in [("--csv", &args.csv), ("--html", &args.html)] {
            let Some(path) = path else { continue };
            let folder = path.parent().filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
            if !folder.is_dir() {
                bail!("{flag} {}: there is no folder {}; make it first", path.display(), folder.display());
            }
        }
        let is_tls = args.host.as_ref().is_some_and(|host| host.trim().starts_with("https://"));
        if let (Some(file), false) = (&args.ca_cert, is_tls) {
            bail!("--ca-cert {}: goes only with an https:// target; leave it out", file.display());
        }
        let (mut scenarios, mut overrides, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
        for row in rows {
            let (scenario, said) = overridden(row, args);
            let (levels, repetitions) = (scenario.levels.len(), scenario.repetitions);
            if (repetitions as usize) < levels {
                warnings.push(format!(
                    "only {repetitions} of the {levels} levels of {} are measured: it has one repetition each, and {repetitions} in all",
                    scenario.id
                ));
            }
            scenarios.push(scenario);
            overrides.extend(said);
        }
        let input = match &args.input {
            Some(path) => Input::load(path)?,
            None => Input::built_in(),
        };
        for (i, revision) in args.revisions.iter().enumerate() {
            if args.revisions[..i].iter().any(|r| r.name == revision.name) {
                bail!(
                    "--revision {}={}: stands there twice; give each part one revision",
                    revision.name,
                    revision.sha
                );
            }
        }
        // Workers have the password themselves, unless it is sealed for them.
        let needs_password = match &errand.plane {
            Some(asked) => plane_secret(&asked.plane)?.is_some(),
            None => true,
        };
        let account = account(args, needs_password)?;
        let seed = args.seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
        let users = scenarios.iter().map(|s| s.concurrent_jobs).max().unwrap_or(1);
        if errand.plane.is_none() {
            facts::allow_open_files(u64::from(users) * 2 + 256).map_err(|e| anyhow!("--users: {e}"))?;
        }
        let mut cells = Plan::cells(seed, &scenarios, !args.no_warmup);
        if args.host.is_none() && args.job_timeout.is_none() {
            cells.iter_mut().for_each(|c| c.job_timeout = Some(stand_in_timeout(&args.standin, c)));
        }
        let longest = cells.iter().filter_map(|c| c.job_timeout).max().unwrap_or(JOB_TIMEOUT);
        let job_timeout = args.job_timeout.unwrap_or(longest);
        let probes = Probe::of_scenarios(matrix.probes.clone(), &scenarios);
        Probe::check(&probes, args.watch_pids.iter().map(|w| w.name.as_str())).map_err(|e| anyhow!("{e}"))?;
        let plan = Plan {
            seed,
            matrix_sha256: matrix.sha256,
            matrix_name,
            scenarios,
            overrides,
            input: input.facts.clone(),
            accounts: if account.is_some() { plan::Accounts::Shared } else { plan::Accounts::Registered },
            settings: Settings {
                poll_interval: args.poll_interval,
                job_timeout,
                patience: args.patience,
                jobs_per_user: args.jobs_per_user,
                run_time: args.run_time,
                spawn_rate: args.spawn_rate,
                requeue: errand.requeue,
                cool_down: args.cool_down,
                limits: Limits {
                    lag_p99: args.max_lag,
                    cpu: f64::from(args.max_cpu) / 100.0,
                    ..Limits::default()
                },
            },
            probes,
            cells,
        };
        Ok(Self { plan, input, account, warnings })
    }
}

/// The row with what the flags change in it, and a sentence for each change.
fn overridden(row: &Scenario, args: &LoadArgs) -> (Scenario, Vec<String>) {
    let mut scenario = row.clone();
    let mut said = Vec::new();
    let mut change = |flag: &str, what: &str, value: Option<u32>, field: &mut u32| {
        if let Some(value) = value.filter(|v| v != field) {
            said.push(format!("{flag} {value} instead of {} {what} as {} has it", *field, row.id));
            *field = value;
        }
    };
    change("--users", "concurrent jobs", args.users, &mut scenario.concurrent_jobs);
    change("--tasks", "tasks per job", args.tasks, &mut scenario.tasks);
    change("--repetitions", "repetitions", args.repetitions, &mut scenario.repetitions);
    (scenario, said)
}

fn account(args: &LoadArgs, needs_password: bool) -> Result<Option<Account>> {
    if let (Some(name), true) = (&args.username, args.register) {
        bail!(
            "--username {name}: goes not with --register, which makes an account for every user; leave one out"
        );
    }
    if args.host.is_none() && args.username.is_some() {
        bail!(
            "--username: the stand-in registers an account for every user; give a target with --host, or leave it out"
        );
    }
    let Some(username) = args.username.clone() else {
        if args.host.is_some() && !args.register {
            bail!(
                "--host needs an account: give --username (with {PASSWORD} or --password-file), or --register to make one for every user"
            );
        }
        return Ok(None);
    };
    let password = password(args.password_file.as_deref())?;
    if password.is_empty() && needs_password {
        bail!("--username {username} needs a password: set {PASSWORD} or name a file with --password-file");
    }
    Ok(Some(Account { username, password }))
}

/// The password of the account that all users share; empty where there is none.
///
/// # Errors
/// When its file cannot be read.
pub(super) fn password(file: Option<&Path>) -> Result<String> {
    Ok(match file {
        Some(path) => fs::read_to_string(path)
            .with_context(|| format!("--password-file {}", path.display()))?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        None => std::env::var(PASSWORD).unwrap_or_default(),
    })
}

/// The stand-in that the flags describe.
pub(super) fn stand_in_config(args: &StandInArgs, seed: u64) -> Config {
    Config {
        seed,
        slots: args.standin_slots as usize,
        task_time: args.standin_task_time.into(),
        retries: args.standin_retries,
        bugs: args.standin_bugs.clone(),
        ..Config::default()
    }
}

/// The same as a sentence, for the record.
pub(super) fn knobs(args: &StandInArgs) -> String {
    let mut said = format!(
        "{} slots, tasks of {}, retries {}",
        args.standin_slots, args.standin_task_time, args.standin_retries
    );
    for bug in &args.standin_bugs {
        said.push_str(&format!(", bug {bug}"));
    }
    said
}

/// How long a job of a cell may take on the stand-in, whose pace is known: twice what the work of the
/// whole cell takes, and a little.
fn stand_in_timeout(args: &StandInArgs, cell: &Cell) -> Micros {
    let (slots, task_time) = (f64::from(args.standin_slots), args.standin_task_time.as_secs());
    let delay = match cell.fault.kind {
        FaultKind::Latency { delay, jitter, .. } => (delay + jitter).as_secs(),
        _ => 0.0,
    };
    let (users, tasks) = (f64::from(cell.users), f64::from(cell.tasks));
    // A task posts four times and, while it runs, every other second; a job four times more.
    let task = 1.4 * task_time + delay * (4.0 + task_time / 2.0);
    let work = (users * tasks / slots).ceil() * task + (users / slots).ceil() * (0.5 + 4.0 * delay);
    Micros::from_ms((2.0 * work + 8.0) * 1e3)
}
