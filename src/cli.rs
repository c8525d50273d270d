//! What can be typed: the flags, their environment twins and the file `springtide.toml`.
//!
//! A flag beats its environment variable, which beats the file, which beats the default. What a
//! combination of flags means is decided in `app`, not here. It is long because every flag stands
//! here once, with its help, and the help is read as one page.

use std::{ffi::OsString, path::PathBuf};

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
    /// Draw the reports of a finished run again, from its run.json
    Report(ReportArgs),
    /// Run the built-in stand-in backend alone, until Ctrl-C
    Backend(BackendArgs),
    /// Run the proxy between the target's workers and its API, until Ctrl-C
    Tap(TapArgs),
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

    /// Send spans of jobs, stages and requests to this OTLP endpoint, such as http://collector:4318
    #[arg(long, env = "SPRINGTIDE_OTLP", value_name = "URL", help_heading = "Telemetry")]
    pub otlp: Option<String>,

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
            Ok(cli) if !matches!(cli.command, None | Some(Command::Run(_))) => return Ok(cli),
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
        None => yield_to_flags(&mut cli.run, &matches),
        Some(Command::Run(run)) => {
            if let Some(matches) = matches.subcommand_matches("run") {
                yield_to_flags(run, matches);
            }
        }
        Some(Command::Report(_) | Command::Backend(_) | Command::Tap(_)) => {}
    }
    Ok(cli)
}

/// Of two flags that exclude each other, the one from the file gives way to the one that was typed.
fn yield_to_flags(run: &mut RunArgs, matches: &clap::ArgMatches) {
    let typed = |id: &str| {
        matches!(matches.value_source(id), Some(ValueSource::CommandLine | ValueSource::EnvVariable))
    };
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
        if let Some(run) = command.find_subcommand("run").cloned() {
            let run = run.mut_arg(&id, set);
            command = command.mut_subcommand("run", move |_| run);
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
        assert_eq!((cli.run.scenarios, cli.run.users), (vec!["S6".to_owned()], Some(10)));
    }

    #[test]
    fn a_flag_beats_the_file_and_the_file_beats_the_default() {
        let file =
            "scenario = \"S1\"\npoll-interval = \"1s\"\nno_warmup = true\nthreshold = [\"failures<1%\"]\n";
        let cli = typed(&["--poll-interval", "250ms"], Some(file)).unwrap();
        assert_eq!(cli.run.poll_interval, Micros(250_000));
        assert_eq!(cli.run.scenarios, ["S1"]);
        assert!(cli.run.no_warmup);
        assert_eq!(cli.run.thresholds.len(), 1);
        let Some(Command::Run(run)) = typed(&["run"], Some(file)).unwrap().command else { panic!() };
        assert_eq!(run.poll_interval, Micros(1_000_000));
    }

    #[test]
    fn of_flags_that_exclude_each_other_the_typed_one_holds() {
        let file = "scenario = \"S1\"\nusername = \"ann\"\nrun-time = \"1m\"\n";
        let run = typed(&["--register", "--jobs-per-user", "3"], Some(file)).unwrap().run;
        assert_eq!((run.username, run.run_time, run.jobs_per_user), (None, None, 3));
        let run = typed(&[], Some(file)).unwrap().run;
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
    #[case("user = 3", "unknown key \"user\"")]
    #[case("users = ", "springtide.toml: line 1")]
    #[case("users = 0", "springtide.toml: invalid value '0' for '--users")]
    #[case("password = \"x\"", "unknown key \"password\"")]
    fn a_bad_file_is_named(#[case] file: &str, #[case] says: &str) {
        let line = typed(&["--scenario", "S6"], Some(file)).unwrap_err();
        assert!(line.contains(says), "{line}");
    }
}
