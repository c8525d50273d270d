//! What can be typed: the flags, their environment twins and the file `springtide.toml`.
//!
//! A flag beats its environment variable, which beats the file, which beats the default. What a
//! combination of flags means is decided in `app`, not here. It is long because every flag stands
//! here once, with its help, and the help is read as one page.

use std::{collections::BTreeSet, ffi::OsString, path::PathBuf};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand, error::ErrorKind, parser::ValueSource};

use crate::{
    micros::{self, Micros},
    standin::{Bug, Retries},
    tap,
    threshold::Threshold,
};

/// What stands behind every mistake.
const HINT: &str = " (see springtide --help)";

/// Name of the configuration file, read from the working directory.
pub const CONFIG_FILE: &str = "springtide.toml";

/// What `--standin-bug` takes, with an example of each.
const BUGS: &str = "\
Bugs (those with =SHARE hit that share of the jobs, all without it):
  lost-completed=1         COMPLETED is overwritten by RUNNING for good
  duplicate-results=1      results are stored more than once
  all-failed-stuck=1       all tasks fail, the job hangs in MERGING_RUNNING
  all-failed=1             all tasks fail, the job is FAILED
  stuck=0.2                the job never leaves RUNNING
  lose-job=0.2             the job disappears after it was accepted
  ghost=0.2                the submit answers 500, the job is there
  duplicate-job=0.2        one submit makes two jobs
  missing-results=0.2      COMPLETED, but no results
  broken-results=0.2       the results are cut-off JSON
  wrong-results=0.2        an estimator is missing in the results
  keys-void-after=5s       update keys are refused from then on
  refuse=3s..6s            connections are refused in that window
  slow-results=2s          storing results takes so much longer
  slow-fetch=2s            reading results takes so much longer
  error-500=/jobs:0.2      that share of requests to the route answers 500
  html                     every route answers a web page
  html-error               every route answers 502 with a web page
  login-refused            every login answers 401
  vanish-after=3s          the server is gone for good";

/// A load generator for job-based backends: submit, poll, fetch, with a ledger that adds up.
#[derive(Debug, Parser)]
#[command(
    name = "springtide",
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Without a subcommand springtide runs one scenario, as `run` does.\n\
                  `springtide matrix` runs a whole matrix, `springtide manager` one with workers on many hosts.\n\
                  Exit codes: 0 PASS, 1 jobs failed or a runtime error, 2 bad flags or files, 3 a threshold \
                  failed, 5 INVALID, 130/143 interrupted.\n\
                  Each flag can be set by SPRINGTIDE_<FLAG> or in springtide.toml; the password only by \
                  SPRINGTIDE_PASSWORD or --password-file."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// A run, when there is no subcommand.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What springtide can do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run all repetitions of one scenario (the default)
    Run(Box<RunArgs>),
    /// Run a whole matrix: every scenario in randomized blocks, and the evidence that comes of it
    Matrix(Box<MatrixArgs>),
    /// Draw the reports of a finished run again, from its run.json
    Report(ReportArgs),
    /// Run the built-in stand-in backend alone, until Ctrl-C
    Backend(BackendArgs),
    /// Run the proxy between the target's workers and its API, until Ctrl-C
    Tap(TapArgs),
    /// Carry out a matrix with workers on many hosts, which it meets on a Redis of its own
    Manager(Box<ManagerArgs>),
    /// Make load for one manager after another, until SIGTERM or Ctrl-C
    Worker(Box<WorkerArgs>),
}

/// Flags of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// Scenario of the matrix, such as S6; several, as in S6,S8, take turns
    #[arg(
        short = 's',
        long = "scenario",
        env = "SPRINGTIDE_SCENARIO",
        value_name = "ID",
        value_delimiter = ',',
        required = true
    )]
    pub scenarios: Vec<String>,
    /// How, on what and with what besides.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Flags of `matrix`.
#[derive(Debug, Clone, Args)]
pub struct MatrixArgs {
    /// Only these scenarios of the matrix, such as S1,S3 [default: all]
    #[arg(
        short = 's',
        long = "scenarios",
        alias = "scenario",
        env = "SPRINGTIDE_SCENARIOS",
        value_name = "IDS",
        value_delimiter = ','
    )]
    pub scenarios: Vec<String>,
    /// Go on with an interrupted run: its folder, or its run.json
    #[arg(long, env = "SPRINGTIDE_RESUME", value_name = "DIR")]
    pub resume: Option<PathBuf>,
    /// Make an INVALID cell again at the end, at most so often
    #[arg(long, env = "SPRINGTIDE_REQUEUE", value_name = "N", default_value_t = 2, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=10))]
    pub requeue: u32,
    /// How, on what and with what besides.
    #[command(flatten)]
    pub load: LoadArgs,
}

/// Flags of `manager`: those of `matrix`, and where its workers are.
#[derive(Debug, Clone, Args)]
pub struct ManagerArgs {
    /// What to carry out.
    #[command(flatten)]
    pub matrix: MatrixArgs,
    /// Where it meets its workers.
    #[command(flatten)]
    pub plane: PlaneArgs,
    /// Workers to wait for before the first repetition: how many, or their names, as in a,b,c
    #[arg(
        long,
        env = "SPRINGTIDE_EXPECT_WORKERS",
        value_name = "N",
        default_value = "1",
        help_heading = "Plane"
    )]
    pub expect_workers: ExpectWorkers,
    /// End the run, INVALID, when they are not there after so long
    #[arg(long, env = "SPRINGTIDE_EXPECT_WORKERS_MAX_WAIT", value_name = "TIME", default_value = "60s", value_parser = seconds_or_span, help_heading = "Plane")]
    pub expect_workers_max_wait: Micros,
    /// A worker or manager that is not heard of for so long is lost
    #[arg(long, env = "SPRINGTIDE_PLANE_LEASE", value_name = "TIME", default_value = "5s", value_parser = lease, help_heading = "Plane")]
    pub plane_lease: Micros,
}

/// Where manager and workers meet.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Plane")]
pub struct PlaneArgs {
    /// Redis where manager and workers meet, such as rediss://worker@plane:6379/0; not the target's. Its password comes from SPRINGTIDE_PLANE_PASSWORD or --plane-password-file
    #[arg(long, env = "SPRINGTIDE_PLANE", value_name = "URL", required = true)]
    pub plane: String,
    /// File whose first line is the password of that Redis
    #[arg(long, env = "SPRINGTIDE_PLANE_PASSWORD_FILE", value_name = "FILE")]
    pub plane_password_file: Option<PathBuf>,
    /// PEM file of certificates to trust with rediss://, instead of the system's
    #[arg(long, env = "SPRINGTIDE_PLANE_CA_CERT", value_name = "FILE")]
    pub plane_ca_cert: Option<PathBuf>,
    /// File whose first line seals what the manager sends its workers of the target's accounts, or SPRINGTIDE_PLANE_SECRET; without it workers need the password themselves
    #[arg(long, env = "SPRINGTIDE_PLANE_SECRET_FILE", value_name = "FILE")]
    pub plane_secret_file: Option<PathBuf>,
    /// Take a Redis on another host that asks nobody for a password
    #[arg(long, env = "SPRINGTIDE_INSECURE_PLANE", value_parser = truth())]
    pub insecure_plane: bool,
}

/// Flags of `worker`. What it is to do comes from the manager.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    /// Where it meets its manager.
    #[command(flatten)]
    pub plane: PlaneArgs,
    /// Name among the workers of the plane [default: host name and process number]
    #[arg(long, env = "SPRINGTIDE_NAME", value_name = "NAME", value_parser = label)]
    pub name: Option<String>,
    /// Log all users in to this account of the target [default: the manager's]; its password comes from SPRINGTIDE_PASSWORD or --password-file
    #[arg(long, env = "SPRINGTIDE_USERNAME", value_name = "NAME")]
    pub username: Option<String>,
    /// File whose first line is the password
    #[arg(long, env = "SPRINGTIDE_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// PEM file of certificates to trust with https, instead of the system's
    #[arg(long, env = "SPRINGTIDE_CA_CERT", value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Take part only in runs of this matrix file
    #[arg(long, env = "SPRINGTIDE_MATRIX", value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Load threads [default: one for every 1000 users, at most one per core]
    #[arg(long, env = "SPRINGTIDE_LOAD_THREADS", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub load_threads: Option<u32>,
    /// Folder for what cannot be sent while the plane is away [default: springtide-spool in the system's folder for temporary files]
    #[arg(long, env = "SPRINGTIDE_SPOOL", value_name = "DIR")]
    pub spool: Option<PathBuf>,
    /// Send spans of requests to this OTLP endpoint, such as http://collector:4318
    #[arg(long, env = "SPRINGTIDE_OTLP", value_name = "URL")]
    pub otlp: Option<String>,
}

/// The workers a manager waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpectWorkers {
    /// How many.
    pub count: u32,
    /// Those that must be among them.
    pub names: BTreeSet<String>,
}

impl std::str::FromStr for ExpectWorkers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || "write a number from 1 to 10000, or names, as in a,b,c".to_owned();
        if let Ok(count) = text.parse::<i64>() {
            let count = u32::try_from(count).ok().filter(|n| (1..=10_000).contains(n)).ok_or_else(refused)?;
            return Ok(Self { count, names: BTreeSet::new() });
        }
        if text.parse::<f64>().is_ok() {
            return Err(refused());
        }
        let names = text.split(',').map(|name| label(name.trim())).collect::<Result<BTreeSet<_>, _>>();
        let names = names.map_err(|_| refused())?;
        Ok(Self { count: names.len() as u32, names })
    }
}

/// What `run` and `matrix` have in common.
#[derive(Debug, Clone, Args)]
pub struct LoadArgs {
    /// Matrix file [default: the runbook's S1-S8]
    #[arg(long, env = "SPRINGTIDE_MATRIX", value_name = "FILE")]
    pub matrix: Option<PathBuf>,
    /// Target, such as http://yaptide:5000; without it the built-in stand-in
    #[arg(short = 'H', long, env = "SPRINGTIDE_HOST", value_name = "URL")]
    pub host: Option<String>,
    /// Log all users in to this account; its password comes from SPRINGTIDE_PASSWORD or --password-file
    #[arg(long, env = "SPRINGTIDE_USERNAME", value_name = "NAME")]
    pub username: Option<String>,
    /// File whose first line is the password
    #[arg(long, env = "SPRINGTIDE_PASSWORD_FILE", value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// Register an account for every user (always done on the stand-in)
    #[arg(long, env = "SPRINGTIDE_REGISTER", value_parser = truth())]
    pub register: bool,
    /// PEM file of certificates to trust with https, instead of the system's
    #[arg(long, env = "SPRINGTIDE_CA_CERT", value_name = "FILE")]
    pub ca_cert: Option<PathBuf>,
    /// Payload to submit: a JSON body for POST /jobs/direct [default: a SHIELD-HIT12A pencil beam]
    #[arg(long, env = "SPRINGTIDE_INPUT", value_name = "FILE")]
    pub input: Option<PathBuf>,

    /// Users, each with one job in flight [default: the scenario's concurrent_jobs]
    #[arg(short = 'u', long, env = "SPRINGTIDE_USERS", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=100_000), help_heading = "Load")]
    pub users: Option<u32>,
    /// Tasks per job [default: the scenario's]
    #[arg(long, env = "SPRINGTIDE_TASKS", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=10_000), help_heading = "Load")]
    pub tasks: Option<u32>,
    /// Repetitions [default: the scenario's]
    #[arg(long, env = "SPRINGTIDE_REPETITIONS", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000), help_heading = "Load")]
    pub repetitions: Option<u32>,
    /// Jobs each user submits one after another in a repetition
    #[arg(long, env = "SPRINGTIDE_JOBS_PER_USER", value_name = "N", default_value_t = 1, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000_000), help_heading = "Load")]
    pub jobs_per_user: u32,
    /// Let users submit job after job for so long in each repetition, such as 90s or 1h30m
    #[arg(short = 't', long, env = "SPRINGTIDE_RUN_TIME", value_name = "TIME", value_parser = seconds_or_span, conflicts_with = "jobs_per_user", help_heading = "Load")]
    pub run_time: Option<Micros>,
    /// Users started per second [default: all at once]
    #[arg(short = 'r', long, env = "SPRINGTIDE_SPAWN_RATE", value_name = "N", allow_negative_numbers = true, value_parser = positive, help_heading = "Load")]
    pub spawn_rate: Option<f64>,
    /// Pause between two polls of a job, jittered by 10 %
    #[arg(long, env = "SPRINGTIDE_POLL_INTERVAL", value_name = "TIME", default_value = "500ms", value_parser = some_span, help_heading = "Load")]
    pub poll_interval: Micros,
    /// Give a job up and cancel it after so long [default: 10m; on the stand-in twice what its work takes, and 8s]
    #[arg(long, env = "SPRINGTIDE_JOB_TIMEOUT", value_name = "TIME", value_parser = some_span, help_heading = "Load")]
    pub job_timeout: Option<Micros>,
    /// Give the target up when it gives no answer for so long; also the timeout of a request
    #[arg(long, env = "SPRINGTIDE_PATIENCE", value_name = "TIME", default_value = "30s", value_parser = some_span, help_heading = "Load")]
    pub patience: Micros,
    /// Rest between two repetitions, after the target has become quiet
    #[arg(long, env = "SPRINGTIDE_COOL_DOWN", value_name = "TIME", default_value = "0s", value_parser = span, help_heading = "Load")]
    pub cool_down: Micros,
    /// Renew a session when it is so old
    #[arg(long, env = "SPRINGTIDE_SESSION_REFRESH", value_name = "TIME", default_value = "8m", value_parser = some_span, help_heading = "Load")]
    pub session_refresh: Micros,
    /// Leave out the discarded first job
    #[arg(long, env = "SPRINGTIDE_NO_WARMUP", value_parser = truth(), help_heading = "Load")]
    pub no_warmup: bool,
    /// Seed of order, jitter and everything else random [default: drawn, and told]
    #[arg(long, env = "SPRINGTIDE_SEED", value_name = "N", help_heading = "Load")]
    pub seed: Option<u64>,
    /// Load threads [default: one for every 1000 users, at most one per core]
    #[arg(long, env = "SPRINGTIDE_LOAD_THREADS", value_name = "N", allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Load")]
    pub load_threads: Option<u32>,

    /// Tap between the target's workers and its API (springtide tap); its token comes from SPRINGTIDE_TAP_TOKEN or --tap-token-file
    #[arg(long, env = "SPRINGTIDE_TAP", value_name = "URL", help_heading = "Tap and faults")]
    pub tap: Option<String>,
    /// File whose first line is the tap's token
    #[arg(
        long,
        env = "SPRINGTIDE_TAP_TOKEN_FILE",
        value_name = "FILE",
        requires = "tap",
        help_heading = "Tap and faults"
    )]
    pub tap_token_file: Option<PathBuf>,
    /// HTTP API of a Toxiproxy that is to do the faults instead of the tap, such as http://toxiproxy:8474
    #[arg(
        long,
        env = "SPRINGTIDE_TOXIPROXY",
        value_name = "URL",
        requires = "toxiproxy_proxy",
        help_heading = "Tap and faults"
    )]
    pub toxiproxy: Option<String>,
    /// Name of the proxy in that Toxiproxy which the target's workers post through
    #[arg(
        long,
        env = "SPRINGTIDE_TOXIPROXY_PROXY",
        value_name = "NAME",
        requires = "toxiproxy",
        help_heading = "Tap and faults"
    )]
    pub toxiproxy_proxy: Option<String>,

    /// The target's Redis, such as redis://127.0.0.1:6379/0: sampled every second, and used by the stand-in's workers; its password comes from SPRINGTIDE_REDIS_PASSWORD or --redis-password-file
    #[arg(long, env = "SPRINGTIDE_REDIS_URL", value_name = "URL", help_heading = "Telemetry")]
    pub redis_url: Option<String>,
    /// File whose first line is the password of that Redis
    #[arg(
        long,
        env = "SPRINGTIDE_REDIS_PASSWORD_FILE",
        value_name = "FILE",
        requires = "redis_url",
        help_heading = "Telemetry"
    )]
    pub redis_password_file: Option<PathBuf>,
    /// PEM file of certificates to trust with rediss://, instead of the system's
    #[arg(
        long,
        env = "SPRINGTIDE_REDIS_CA_CERT",
        value_name = "FILE",
        requires = "redis_url",
        help_heading = "Telemetry"
    )]
    pub redis_ca_cert: Option<PathBuf>,
    /// Celery queues to look at, which must be empty before a repetition begins
    #[arg(
        long = "redis-queues",
        env = "SPRINGTIDE_REDIS_QUEUES",
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "simulations,helper,helper-short",
        help_heading = "Telemetry"
    )]
    pub redis_queues: Vec<String>,
    /// Prometheus metrics to scrape every second, such as http://redis-exporter:9121/metrics (repeatable)
    #[arg(
        long = "metrics-url",
        env = "SPRINGTIDE_METRICS_URL",
        value_name = "URL",
        value_delimiter = ',',
        help_heading = "Telemetry"
    )]
    pub metrics_urls: Vec<String>,
    /// Show springtide's own live metrics at /metrics on this address, such as 127.0.0.1:9646
    #[arg(long, env = "SPRINGTIDE_METRICS_LISTEN", value_name = "ADDR", help_heading = "Telemetry")]
    pub metrics_listen: Option<std::net::SocketAddr>,
    /// Send spans of jobs, stages and requests to this OTLP endpoint, such as http://collector:4318
    #[arg(long, env = "SPRINGTIDE_OTLP", value_name = "URL", help_heading = "Telemetry")]
    pub otlp: Option<String>,
    /// Watch CPU and memory of a process of this host and its children, such as celery=4711 (repeatable)
    #[arg(
        long = "watch-pid",
        env = "SPRINGTIDE_WATCH_PID",
        value_name = "NAME=PID",
        value_delimiter = ',',
        help_heading = "Telemetry"
    )]
    pub watch_pids: Vec<WatchPid>,

    /// Revision of a part of what is under test, such as backend=0c84dff7 (repeatable)
    #[arg(
        long = "revision",
        env = "SPRINGTIDE_REVISION",
        value_name = "NAME=SHA",
        value_delimiter = ',',
        help_heading = "Evidence"
    )]
    pub revisions: Vec<Revision>,
    /// A sentence to keep with the run
    #[arg(long, env = "SPRINGTIDE_NOTE", value_name = "TEXT", help_heading = "Evidence")]
    pub note: Option<String>,

    /// Fail the run unless this holds, such as 'job.p95<30s' or 'failures<1% for S6' (repeatable)
    #[arg(
        long = "threshold",
        env = "SPRINGTIDE_THRESHOLD",
        value_name = "RULE",
        value_delimiter = ';',
        help_heading = "Verdict"
    )]
    pub thresholds: Vec<Threshold>,
    /// INVALID when 1 % of planned waits end later than this
    #[arg(long, env = "SPRINGTIDE_MAX_LAG", value_name = "TIME", default_value = "100ms", value_parser = span, help_heading = "Verdict")]
    pub max_lag: Micros,
    /// INVALID when the load threads use more than this share of their cores, in percent
    #[arg(long, env = "SPRINGTIDE_MAX_CPU", value_name = "PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u8).range(1..=100), help_heading = "Verdict")]
    pub max_cpu: u8,

    /// Folder under which a dated folder for the run is made
    #[arg(
        short = 'o',
        long,
        env = "SPRINGTIDE_OUT",
        value_name = "DIR",
        default_value = "reports",
        help_heading = "Output"
    )]
    pub out: PathBuf,
    /// Name of the run's folder [default: the scenario's id]
    #[arg(long, env = "SPRINGTIDE_LABEL", value_name = "TEXT", value_parser = label, help_heading = "Output")]
    pub label: Option<String>,
    /// Write Locust's four CSV files also as PREFIX_stats.csv and so on
    #[arg(long, env = "SPRINGTIDE_CSV", value_name = "PREFIX", help_heading = "Output")]
    pub csv: Option<PathBuf>,
    /// Write the HTML report also to this file
    #[arg(long, env = "SPRINGTIDE_HTML", value_name = "FILE", help_heading = "Output")]
    pub html: Option<PathBuf>,
    /// Print the summary as JSON on stdout, instead of the table and the RESULT line
    #[arg(long, env = "SPRINGTIDE_JSON", value_parser = truth(), help_heading = "Output")]
    pub json: bool,
    /// Accepted for those used to Locust; springtide has no web interface to leave out
    #[arg(long, env = "SPRINGTIDE_HEADLESS", value_parser = truth(), help_heading = "Output")]
    pub headless: bool,
    /// Log lines instead of a progress line, even on a terminal
    #[arg(long, env = "SPRINGTIDE_NO_PROGRESS", value_parser = truth(), help_heading = "Output")]
    pub no_progress: bool,

    /// The stand-in, when there is no --host.
    #[command(flatten)]
    pub standin: StandInArgs,
    /// Names of the fields that were typed or set in the environment, not taken from a file or default.
    #[arg(skip)]
    pub typed: BTreeSet<String>,
}

impl LoadArgs {
    /// Whether the field was typed, or set in the environment.
    pub fn is_typed(&self, field: &str) -> bool {
        self.typed.contains(field)
    }
}

/// A process to watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchPid {
    /// What to call it.
    pub name: String,
    /// Its number on this host.
    pub pid: u32,
}

impl std::str::FromStr for WatchPid {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, pid) = named(text, "celery=4711")?;
        match pid.parse() {
            Ok(pid @ 1..) => Ok(Self { name, pid }),
            _ => Err("write NAME=PID with the number of a process, such as celery=4711".into()),
        }
    }
}

/// A revision of a part of what is under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revision {
    /// Of what.
    pub name: String,
    /// Which.
    pub sha: String,
}

impl std::str::FromStr for Revision {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, sha) = named(text, "backend=0c84dff7")?;
        let fits = (1..=80).contains(&sha.len()) && sha.chars().all(|c| c.is_ascii_graphic());
        if !fits {
            return Err("write NAME=SHA, such as backend=0c84dff7".into());
        }
        Ok(Self { name, sha: sha.to_owned() })
    }
}

/// `NAME=VALUE`, where the name is fit for files and tables.
fn named<'a>(text: &'a str, example: &str) -> Result<(String, &'a str), String> {
    match text.split_once('=') {
        Some((name, value)) => label(name).map(|name| (name, value)),
        None => Err(format!("write NAME=VALUE, such as {example}")),
    }
}

/// Knobs of the stand-in.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Built-in stand-in (without --host)")]
pub struct StandInArgs {
    /// Tasks and merges it works on at once
    #[arg(long, env = "SPRINGTIDE_STANDIN_SLOTS", value_name = "N", default_value_t = 8, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub standin_slots: u32,
    /// Mean time of a task
    #[arg(long, env = "SPRINGTIDE_STANDIN_TASK_TIME", value_name = "TIME", default_value = "350ms", value_parser = span)]
    pub standin_task_time: Micros,
    /// Whether its workers post again what got no answer: none or exponential
    #[arg(long, env = "SPRINGTIDE_STANDIN_RETRIES", value_name = "POLICY", default_value = "none")]
    pub standin_retries: Retries,
    /// Let it misbehave, see `springtide backend --help` (repeatable)
    #[arg(long = "standin-bug", env = "SPRINGTIDE_STANDIN_BUG", value_name = "BUG", value_delimiter = ';')]
    pub standin_bugs: Vec<Bug>,
}

/// Flags of `report`.
#[derive(Debug, Clone, Args)]
pub struct ReportArgs {
    /// Folder of the run, or its run.json
    #[arg(value_name = "DIR")]
    pub run: PathBuf,
    /// Print the summary as JSON on stdout
    #[arg(long)]
    pub json: bool,
}

/// Flags of `backend`.
#[derive(Debug, Clone, Args)]
#[command(after_help = BUGS)]
pub struct BackendArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "SPRINGTIDE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:5000")]
    pub listen: std::net::SocketAddr,
    /// Where its workers post to, when that is not itself: a tap or another proxy before it
    #[arg(long, env = "SPRINGTIDE_INTERNAL_URL", value_name = "URL")]
    pub internal_url: Option<String>,
    /// Redis that its workers move tasks and results through, as Celery does, such as redis://127.0.0.1:6379/0
    #[arg(long, env = "SPRINGTIDE_REDIS_URL", value_name = "URL")]
    pub redis_url: Option<String>,
    /// File whose first line is the password of that Redis, or SPRINGTIDE_REDIS_PASSWORD
    #[arg(long, env = "SPRINGTIDE_REDIS_PASSWORD_FILE", value_name = "FILE", requires = "redis_url")]
    pub redis_password_file: Option<PathBuf>,
    /// Seed of task times and bugs
    #[arg(long, env = "SPRINGTIDE_SEED", value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// How it behaves.
    #[command(flatten)]
    pub standin: StandInArgs,
}

/// Flags of `tap`. The token itself has no flag: SPRINGTIDE_TAP_TOKEN, or a file.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Give the target's workers http://ADDR as the address of its API, and a run the same address."
)]
pub struct TapArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "SPRINGTIDE_LISTEN", value_name = "ADDR", default_value = "127.0.0.1:8475")]
    pub listen: std::net::SocketAddr,
    /// The target's API, such as http://yaptide:5000
    #[arg(long, env = "SPRINGTIDE_UPSTREAM", value_name = "URL")]
    pub upstream: String,
    /// File whose first line is what runs must know; needed beyond 127.0.0.1, or SPRINGTIDE_TAP_TOKEN
    #[arg(long, env = "SPRINGTIDE_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Posts kept until a run reads them, about 250 bytes each
    #[arg(long, env = "SPRINGTIDE_BUFFER", value_name = "N", default_value_t = tap::BUFFER as u32, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    pub buffer: u32,
}

/// Reads the command line, the environment and the file's text, if there is a file.
///
/// # Errors
/// As one line with the flag, the value and the remedy; help and version texts come as errors of
/// their own kind, as clap has it.
pub fn parse(args: impl IntoIterator<Item = OsString>, config: Option<&str>) -> Result<Cli, clap::Error> {
    let args: Vec<OsString> = args.into_iter().collect();
    let command = match config.map(|text| with_config(Cli::command(), text)) {
        None => Cli::command(),
        Some(Ok(command)) => command,
        // The file concerns only runs: help, and commands of another kind, work without it.
        Some(Err(error)) => match read(Cli::command(), &args) {
            Ok(cli)
                if !matches!(
                    cli.command,
                    None | Some(Command::Run(_) | Command::Matrix(_) | Command::Manager(_))
                ) =>
            {
                return Ok(cli);
            }
            Err(other) if !other.use_stderr() => return Err(other),
            _ => return Err(error),
        },
    };
    read(command, &args).map_err(|error| {
        // What goes wrong alike without the file is not the file's fault.
        let is_same = |other: &clap::Error| other.to_string() == error.to_string();
        let ours = config.is_none()
            || !error.use_stderr()
            || read(Cli::command(), &args).is_err_and(|e| is_same(&e));
        if ours { error } else { refuse(&one_line(&error)) }
    })
}

fn read(command: clap::Command, args: &[OsString]) -> Result<Cli, clap::Error> {
    let matches = command.try_get_matches_from(args)?;
    let mut cli = Cli::from_arg_matches(&matches)?;
    match &mut cli.command {
        None => yield_to_flags(&mut cli.run.load, &matches),
        Some(Command::Run(run)) => {
            if let Some(matches) = matches.subcommand_matches("run") {
                yield_to_flags(&mut run.load, matches);
            }
        }
        Some(Command::Matrix(matrix)) => {
            if let Some(matches) = matches.subcommand_matches("matrix") {
                yield_to_flags(&mut matrix.load, matches);
            }
        }
        Some(Command::Manager(manager)) => {
            if let Some(matches) = matches.subcommand_matches("manager") {
                yield_to_flags(&mut manager.matrix.load, matches);
            }
        }
        Some(Command::Report(_) | Command::Backend(_) | Command::Tap(_) | Command::Worker(_)) => {}
    }
    Ok(cli)
}

/// Of two flags that exclude each other, the one from the file gives way to the one that was typed.
fn yield_to_flags(run: &mut LoadArgs, matches: &clap::ArgMatches) {
    let typed = |id: &str| {
        let is_known = matches.try_contains_id(id).is_ok();
        let source = if is_known { matches.value_source(id) } else { None };
        matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
    run.typed = matches.ids().map(clap::Id::as_str).filter(|id| typed(id)).map(str::to_owned).collect();
    if typed("register") && run.register && !typed("username") {
        run.username = None;
    } else if typed("username") && !typed("register") {
        run.register = false;
    }
    if typed("jobs_per_user") && !typed("run_time") {
        run.run_time = None;
    }
}

/// A fault of the configuration file.
fn refuse(why: &str) -> clap::Error {
    let why = why.trim_start_matches("springtide: ").trim_end_matches(HINT);
    Cli::command().error(ErrorKind::ValueValidation, format!("{CONFIG_FILE}: {why}"))
}

/// Makes the file's values the defaults of the flags.
fn with_config(mut command: clap::Command, text: &str) -> Result<clap::Command, clap::Error> {
    let table: toml::Table = toml::from_str(text).map_err(|e| {
        let line = e.span().map_or(1, |s| text[..s.start].matches('\n').count() + 1);
        refuse(&format!("line {line}: {}", e.message()))
    })?;
    for (key, value) in table {
        let name = key.replace('_', "-");
        let known = |c: &clap::Command| {
            c.get_arguments().find(|a| a.get_long() == Some(&name)).map(|a| a.get_id().clone())
        };
        let id = known(&command).ok_or_else(|| {
            refuse(&format!("unknown key {key:?}; keys are the long flags of springtide run, without --"))
        })?;
        let values: Vec<String> = match value {
            toml::Value::Array(items) => items.iter().map(plain).collect::<Option<_>>(),
            one => plain(&one).map(|v| vec![v]),
        }
        .ok_or_else(|| {
            refuse(&format!("{key}: must be a text, a number, a truth value or a list of them"))
        })?;
        let set = move |arg: clap::Arg| arg.default_values(values.clone()).required(false);
        command = command.mut_arg(&id, set.clone());
        for name in ["run", "matrix", "manager"] {
            let with_it = command.find_subcommand(name).filter(|c| known(c).as_ref() == Some(&id)).cloned();
            if let Some(sub) = with_it {
                let sub = sub.mut_arg(&id, set.clone());
                command = command.mut_subcommand(name, move |_| sub);
            }
        }
    }
    Ok(command)
}

fn plain(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(s) => Some(s.clone()),
        toml::Value::Integer(n) => Some(n.to_string()),
        toml::Value::Float(x) => Some(x.to_string()),
        toml::Value::Boolean(b) => Some(b.to_string()),
        _ => None,
    }
}

/// A usage error as one line: what, where, how to mend it.
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    // Behind it come the ways to call springtide, on a line each, and where to read more.
    let said = text.split("Usage:").next().unwrap_or_default();
    let said = said.split("For more information").next().unwrap_or_default();
    let line = said.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("springtide: {}{HINT}", line.strip_prefix("error: ").unwrap_or(&line))
}

/// `1`, `true`, `yes` and the like are true; nothing, `0`, `false`, `no` and `off` are false.
fn truth() -> clap::builder::FalseyValueParser {
    clap::builder::FalseyValueParser::new()
}

/// A time to wait for: not so short that waiting becomes a busy loop.
fn some_span(text: &str) -> Result<Micros, String> {
    let least = Micros(1_000);
    span(text).and_then(|s| if s < least { Err("must be 1ms or more".into()) } else { Ok(s) })
}

fn span(text: &str) -> Result<Micros, String> {
    micros::parse(text).ok_or_else(|| "write a time with its unit, such as 500ms, 30s or 1m30s".into())
}

/// A lease long enough for a hiccup of the network, short enough to be waited for.
fn lease(text: &str) -> Result<Micros, String> {
    let fits = |s: &Micros| (Micros(500_000)..=Micros(600_000_000)).contains(s);
    span(text).and_then(|s| if fits(&s) { Ok(s) } else { Err("must be 500ms to 10m".into()) })
}

/// As Locust has it: a bare number is seconds.
fn seconds_or_span(text: &str) -> Result<Micros, String> {
    let span =
        text.parse::<u64>().map_or_else(|_| span(text), |s| Ok(Micros(s.saturating_mul(1_000_000))))?;
    if span == Micros::ZERO { Err("must be longer than nothing".into()) } else { Ok(span) }
}

fn positive(text: &str) -> Result<f64, String> {
    let range = 0.001..=1e6;
    text.parse()
        .ok()
        .filter(|x| range.contains(x))
        .ok_or_else(|| "write a number from 0.001 to 1000000".into())
}

fn label(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.len() <= 64
        && !text.starts_with('.')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if fits { Ok(text.into()) } else { Err("write 1 to 64 letters, digits, '-', '_' or '.'".into()) }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn typed(args: &[&str], config: Option<&str>) -> Result<Cli, String> {
        let args = std::iter::once("springtide").chain(args.iter().copied()).map(OsString::from);
        parse(args, config).map_err(|e| one_line(&e))
    }

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_bug_in_the_help_can_be_asked_for() {
        let named: Vec<&str> = BUGS.lines().skip(1).filter_map(|l| l.split_whitespace().next()).collect();
        assert_eq!(named.len(), 20);
        for bug in named {
            typed(&["backend", "--standin-bug", bug], None).unwrap();
        }
    }

    #[test]
    fn the_main_job_needs_no_subcommand() {
        let cli = typed(&["--scenario", "S6", "--users", "10"], None).unwrap();
        assert!(cli.command.is_none());
        assert_eq!((cli.run.scenarios, cli.run.load.users), (vec!["S6".to_owned()], Some(10)));
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file =
            "scenario = \"S1\"\npoll-interval = \"1s\"\nno_warmup = true\nthreshold = [\"failures<1%\"]\n";
        let cli = typed(&["--poll-interval", "250ms"], Some(file)).unwrap();
        assert_eq!(cli.run.load.poll_interval, Micros(250_000));
        assert_eq!(cli.run.scenarios, ["S1"]);
        assert!(cli.run.load.no_warmup);
        assert_eq!(cli.run.load.thresholds.len(), 1);
        let Some(Command::Run(run)) = typed(&["run"], Some(file)).unwrap().command else { panic!() };
        assert_eq!(run.load.poll_interval, Micros(1_000_000));
    }

    #[test]
    fn of_flags_that_exclude_each_other_the_typed_one_holds() {
        let file = "scenario = \"S1\"\nusername = \"ann\"\nrun-time = \"1m\"\n";
        let run = typed(&["--register", "--jobs-per-user", "3"], Some(file)).unwrap().run.load;
        assert_eq!((run.username, run.run_time, run.jobs_per_user), (None, None, 3));
        let run = typed(&[], Some(file)).unwrap().run.load;
        assert_eq!((run.username.as_deref(), run.run_time), (Some("ann"), Some(Micros(60_000_000))));
    }

    #[test]
    fn a_bad_file_does_not_stand_in_the_way_of_other_commands() {
        assert!(typed(&["report", "x"], Some("nonsense = 1")).is_ok());
        assert!(typed(&["--help"], Some("nonsense")).unwrap_err().contains("load generator"));
    }

    #[rstest]
    #[case(&["--scenario", "S6", "--poll-interval", "0s"], "1ms or more")]
    #[case(&["--scenario", "S6", "--users", "-1"], "'-1' for '--users")]
    #[case(&["compare"], "compare")]
    #[case(&["--users", "10"], "--scenario")]
    #[case(&["--scenario", "S6", "--users", "0"], "--users")]
    #[case(&["--scenario", "S6", "--poll-interval", "5"], "500ms, 30s")]
    #[case(&["--scenario", "S6", "--threshold", "job.p95>3s"], "write FIGURE<LIMIT")]
    #[case(&["--scenario", "S6", "--label", "a/b"], "letters, digits")]
    #[case(&["--scenario", "S6", "--password", "x"], "--password")]
    #[case(&["--scenario", "S6", "--run-time", "0"], "longer than nothing")]
    fn bad_flags_are_named_in_one_line(#[case] args: &[&str], #[case] says: &str) {
        let line = typed(args, None).unwrap_err();
        assert!(line.contains(says), "{line}");
        assert_eq!(line.lines().count(), 1, "{line}");
    }

    #[rstest]
    #[case("3", Some((3, "")))]
    #[case("b, a,b", Some((2, "a b")))]
    #[case("0", None)]
    #[case("10001", None)]
    #[case("1.5", None)]
    #[case("-1", None)]
    #[case("a,,b", None)]
    #[case("a/b", None)]
    fn workers_are_expected_by_number_or_name(#[case] text: &str, #[case] expected: Option<(u32, &str)>) {
        let read = text.parse::<ExpectWorkers>();
        let read = read.map(|e| (e.count, e.names.into_iter().collect::<Vec<_>>().join(" ")));
        assert_eq!(read.ok(), expected.map(|(count, names)| (count, names.to_owned())));
    }

    #[rstest]
    #[case("user = 3", "unknown key \"user\"")]
    #[case("users = ", "springtide.toml: line 1")]
    #[case("users = 0", "springtide.toml: invalid value '0' for '--users")]
    #[case("password = \"x\"", "unknown key \"password\"")]
    fn a_bad_file_is_named(#[case] file: &str, #[case] says: &str) {
        let line = typed(&["--scenario", "S6"], Some(file)).unwrap_err();
        assert!(line.contains(says), "{line}");
    }
}
