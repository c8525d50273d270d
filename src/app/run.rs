//! `springtide run`: all repetitions of one scenario.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use jiff::{Timestamp, tz::TimeZone};
use rand::RngExt;
use tokio::sync::{Semaphore, watch};

use super::{Failure, Out, facts, folder, local, preflight, progress::Watch, report};
use crate::{
    attack,
    cli::{RunArgs, StandInArgs},
    fault::FaultMode,
    judgement,
    loadtests::{
        Kit,
        input::Input,
        session::{Account, Accounts},
        user::LOGINS_AT_ONCE,
    },
    plan::{self, Limits, Plan, Settings},
    record::{RunRecord, SCHEMA},
    report::Paper,
    scenario::{Matrix, Scenario},
    standin::{Config, StandIn},
    target::{Origin, Sockets, origin::OriginError},
    verdict::{Exit, Verdict},
};

/// Environment variable of the password.
const PASSWORD: &str = "SPRINGTIDE_PASSWORD";

/// Runs a scenario and writes its reports. `stop` holds the reason once somebody wants it to end.
///
/// # Errors
/// Usage errors before anything has started or been written, runtime errors after.
pub async fn run(
    mut args: RunArgs,
    out: &mut Out,
    stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    // A variable that is set to nothing is not set.
    args.host = args.host.filter(|host| !host.is_empty());
    args.username = args.username.filter(|name| !name.is_empty());
    let wanted = Wanted::read(&args).map_err(Failure::usage)?;
    let started = Timestamp::now();
    let label = args.label.clone().unwrap_or_else(|| wanted.plan.scenarios[0].id.to_string());
    let origin = match &args.host {
        Some(url) => Some(target(url, args.ca_cert.as_deref()).map_err(Failure::usage)?),
        None => None,
    };
    let folder = folder::create(&args.out, &label, started).map_err(Failure::usage)?;
    let outcome = go(&args, wanted, label, started, origin, &folder, stop).await;
    let run = match outcome {
        Ok(run) => run,
        Err(error) => {
            // Nothing was measured, so there is nothing to keep.
            for folder in folder.ancestors().take(2) {
                let _ = fs::remove_dir(folder);
            }
            let failure = Failure::runtime(error);
            if !args.json {
                let code = failure.exit.code();
                // It is on stderr too; a reader of stdout that has gone away misses nothing more.
                let _ = writeln!(out, "RESULT: {} {failure} (exit {code})", Verdict::Fail);
            }
            return Err(failure);
        }
    };
    folder::point_latest_at(&args.out, &folder);
    let paper = Paper::of(&run);
    paper.write_all(&folder).map_err(Failure::runtime)?;
    report::print(&paper, &folder, args.json, out).map_err(Failure::runtime)?;
    report::copy(&paper, &folder, args.csv.as_deref(), args.html.as_deref()).map_err(Failure::runtime)?;
    Ok(report::exit_of(&run))
}

/// The reason of a run that was interrupted by Ctrl-C.
pub const INTERRUPTED: &str = "interrupted (SIGINT)";
/// The reason of a run that was terminated.
pub const TERMINATED: &str = "terminated (SIGTERM)";

async fn go(
    args: &RunArgs,
    wanted: Wanted,
    label: String,
    started: Timestamp,
    origin: Option<Origin>,
    folder: &Path,
    stop: watch::Receiver<Option<String>>,
) -> Result<RunRecord> {
    let Wanted { plan, input, account } = wanted;
    let run_id = run_id(started);
    let stand_in = match &origin {
        Some(_) => None,
        None => Some(StandIn::start(stand_in_config(&args.standin, plan.seed))?),
    };
    let origin = Arc::new(match (origin, &stand_in) {
        (Some(origin), _) => origin,
        (None, Some(stand_in)) => Origin::new(stand_in.url(), None)?,
        (None, None) => bail!("there is no target"),
    });
    let target = preflight::look(&origin, stand_in.is_some(), args.patience.into()).await?;
    tracing::info!(
        "target {}{}, seed {}, {} cells",
        target.url,
        if target.stand_in { " (built-in stand-in)" } else { "" },
        plan.seed,
        plan.cells.len()
    );
    let users = plan.cells.iter().map(|c| c.users).max().unwrap_or(1);
    let threads = args.load_threads.unwrap_or_else(|| attack::threads_for(users, facts::cores()));
    let kit = Arc::new(Kit {
        origin,
        sockets: Arc::new(Sockets::default()),
        input,
        accounts: match account {
            Some(account) => Accounts::Shared(account),
            None => Accounts::Registered { prefix: format!("springtide-{run_id}") },
        },
        logins: Semaphore::new(LOGINS_AT_ONCE),
        refresh_after: args.session_refresh.into(),
        timeout: Duration::from(args.patience),
    });
    let record = RunRecord {
        schema: SCHEMA,
        run_id: run_id.clone(),
        label,
        started,
        finished: None,
        build: facts::build(),
        command: facts::command_line(),
        host: facts::host(),
        target,
        plan: plan.clone(),
        thresholds: args.thresholds.clone(),
        cells: Vec::new(),
        checks: Vec::new(),
        verdict: None,
        stopped: None,
    };
    let mut watch = Watch::new(record, folder.to_owned(), args.no_progress);
    let stopped = local::carry_out(&plan, &run_id, &kit, threads, &mut watch, stop).await;
    let mut record = watch.finish();
    record.stopped = stopped?;
    if let Some(why) = record.stopped.as_deref().filter(|why| ![INTERRUPTED, TERMINATED].contains(why)) {
        tracing::error!("the run ends early: {why}");
    }
    record.finished = Some(Timestamp::now());
    judgement::close(&mut record);
    record.save(folder)?;
    if let Some(mut stand_in) = stand_in {
        stand_in.stop();
    }
    Ok(record)
}

/// What the flags and files ask for, checked.
struct Wanted {
    plan: Plan,
    input: Input,
    /// The account all users share; `None` when each registers its own.
    account: Option<Account>,
}

impl Wanted {
    fn read(args: &RunArgs) -> Result<Self> {
        let (matrix, matrix_name) = match &args.matrix {
            Some(path) => (Matrix::load(path).map_err(|e| anyhow!("--{e}"))?, path.display().to_string()),
            None => (Matrix::runbook(), "built-in loadtests/matrix.toml".into()),
        };
        let id = args.scenario.as_deref().unwrap_or_default();
        let row = matrix.get(id).ok_or_else(|| {
            anyhow!("--scenario {id}: {matrix_name} has no such scenario; it has {}", matrix.ids())
        })?;
        if row.fault != FaultMode::None {
            bail!(
                "--scenario {id}: its fault {:?} cannot be injected yet; take one with fault = \"none\"",
                row.fault.to_string()
            );
        }
        for threshold in &args.thresholds {
            // It could only fail, at the end.
            if let Some(other) = threshold.scenario().filter(|other| **other != row.id) {
                bail!("--threshold {threshold}: the run has no {other}, it has {}", row.id);
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
        let (scenario, overrides) = overridden(row, args);
        let input = match &args.input {
            Some(path) => Input::load(path)?,
            None => Input::built_in(),
        };
        let account = account(args)?;
        let seed = args.seed.unwrap_or_else(|| u64::from(rand::rng().random::<u32>()));
        facts::allow_open_files(u64::from(scenario.concurrent_jobs) * 2 + 256)
            .map_err(|e| anyhow!("--users: {e}"))?;
        let cells = Plan::cells(seed, std::slice::from_ref(&scenario), !args.no_warmup);
        let plan = Plan {
            seed,
            matrix_sha256: matrix.sha256,
            matrix_name,
            scenarios: vec![scenario],
            overrides,
            input: input.facts.clone(),
            accounts: if account.is_some() { plan::Accounts::Shared } else { plan::Accounts::Registered },
            settings: Settings {
                poll_interval: args.poll_interval,
                job_timeout: args.job_timeout,
                patience: args.patience,
                jobs_per_user: args.jobs_per_user,
                run_time: args.run_time,
                spawn_rate: args.spawn_rate,
                cool_down: args.cool_down,
                limits: Limits {
                    lag_p99: args.max_lag,
                    cpu: f64::from(args.max_cpu) / 100.0,
                    ..Limits::default()
                },
            },
            cells,
        };
        Ok(Self { plan, input, account })
    }
}

/// The target's address, with the flag to mend named in what is wrong with it.
fn target(url: &str, ca: Option<&Path>) -> Result<Origin> {
    Origin::new(url, ca).map_err(|e| match e {
        OriginError::Certificates { .. } => anyhow!("--ca-cert: {e}"),
        _ => anyhow!("--host: {e}"),
    })
}

/// The row with what the flags change in it, and a sentence for each change.
fn overridden(row: &Scenario, args: &RunArgs) -> (Scenario, Vec<String>) {
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

fn account(args: &RunArgs) -> Result<Option<Account>> {
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
    let password = match &args.password_file {
        Some(path) => fs::read_to_string(path)
            .with_context(|| format!("--password-file {}", path.display()))?
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned(),
        None => std::env::var(PASSWORD).unwrap_or_default(),
    };
    if password.is_empty() {
        bail!("--username {username} needs a password: set {PASSWORD} or name a file with --password-file");
    }
    Ok(Some(Account { username, password }))
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

/// A name that no other run has: the second it started, and four random letters.
fn run_id(started: Timestamp) -> String {
    let random: u16 = rand::rng().random();
    format!("{}-{random:04x}", started.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ"))
}
