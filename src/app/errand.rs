//! A run from start to reports: what `run` and `matrix` have in common.

use std::{fs, path::Path, sync::Arc, time::Duration};

use anyhow::{Result, anyhow, bail};
use jiff::{Timestamp, tz::TimeZone};
use rand::RngExt;
use tokio::sync::{Semaphore, watch};

use super::{
    Failure, Out, facts, folder, local,
    metering::Metering,
    preflight,
    progress::Watch,
    report,
    rigging::Rigging,
    wanted::{Wanted, stand_in_config},
};
use crate::{
    attack,
    cli::LoadArgs,
    judgement,
    loadtests::{Kit, session::Accounts, user::LOGINS_AT_ONCE},
    record::{RunRecord, SCHEMA},
    report::Paper,
    sampling::Samplers,
    standin::StandIn,
    target::{Origin, Sockets, origin::OriginError},
    verdict::{Exit, Verdict},
};

/// What is to be run.
pub(super) struct Errand {
    /// The flag that names scenarios.
    pub(super) flag: &'static str,
    /// Which; all of the matrix when empty.
    pub(super) scenarios: Vec<String>,
    /// How often an INVALID cell is made again.
    pub(super) requeue: u32,
    /// Everything else.
    pub(super) load: LoadArgs,
}

/// Runs scenarios and writes their reports. `stop` holds the reason once somebody wants it to end.
///
/// # Errors
/// Usage errors before anything has started or been written, runtime errors after.
pub(super) async fn carry_out(
    mut errand: Errand,
    out: &mut Out,
    stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    // A variable that is set to nothing is not set.
    let args = &mut errand.load;
    args.host = args.host.take().filter(|host| !host.is_empty());
    args.username = args.username.take().filter(|name| !name.is_empty());
    let wanted = Wanted::read(&errand).map_err(Failure::usage)?;
    let args = &errand.load;
    let started = Timestamp::now();
    let label = args.label.clone().unwrap_or_else(|| wanted.label());
    let origin = match &args.host {
        Some(url) => Some(target(url, args.ca_cert.as_deref()).map_err(Failure::usage)?),
        None => None,
    };
    let rigging = Rigging::find(args, &wanted.plan).await.map_err(Failure::usage)?;
    let metering = Metering::find(args).await.map_err(Failure::usage)?;
    let folder = folder::create(&args.out, &label, started).map_err(Failure::usage)?;
    let outcome = go(args, wanted, label, started, origin, rigging, metering, &folder, stop).await;
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

#[expect(clippy::too_many_arguments, reason = "each is made before the folder is, and used once")]
async fn go(
    args: &LoadArgs,
    wanted: Wanted,
    label: String,
    started: Timestamp,
    origin: Option<Origin>,
    mut rigging: Rigging,
    mut metering: Metering,
    folder: &Path,
    stop: watch::Receiver<Option<String>>,
) -> Result<RunRecord> {
    let Wanted { plan, input, account, warnings } = wanted;
    let run_id = run_id(started);
    let stand_in = match &origin {
        Some(_) => None,
        None => Some(StandIn::start(stand_in_config(&args.standin, plan.seed))?),
    };
    if let Some(stand_in) = &stand_in {
        rigging.stand_before(stand_in)?;
    }
    let origin = Arc::new(match (origin, &stand_in) {
        (Some(origin), _) => origin,
        (None, Some(stand_in)) => Origin::new(stand_in.url(), None)?,
        (None, None) => bail!("there is no target"),
    });
    let mut target = preflight::look(&origin, stand_in.is_some(), args.patience.into()).await?;
    target.retries = stand_in.is_some().then(|| args.standin.standin_retries.to_string());
    rigging.look(args.patience.into()).await?;
    tracing::info!(
        "target {}{}, seed {}, {} cells",
        target.url,
        if target.stand_in { " (built-in stand-in)" } else { "" },
        plan.seed,
        plan.cells.len()
    );
    warnings.iter().for_each(|said| tracing::warn!("{said}"));
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
        resumed: Vec::new(),
        revisions: Default::default(),
        note: None,
        target,
        rigging: rigging.facts.clone(),
        redis: None,
        plan: plan.clone(),
        thresholds: args.thresholds.clone(),
        cells: Vec::new(),
        checks: Vec::new(),
        verdict: None,
        stopped: None,
    };
    let mut watch = Watch::new(record, folder.to_owned(), args.no_progress);
    let live = metering.show(&watch.record, 1);
    watch.live = live.as_ref().map(|(metrics, _)| Arc::clone(metrics));
    let samplers = Samplers { scrapes: metering.scrapers, ..Samplers::default() };
    let rig = rigging.set_up(&run_id, samplers);
    let stopped = local::carry_out(&plan, &run_id, &kit, threads, &mut watch, rig, stop).await;
    let mut record = watch.finish();
    record.stopped = stopped?;
    if let Some(why) = record.stopped.as_deref().filter(|why| ![INTERRUPTED, TERMINATED].contains(why)) {
        tracing::error!("the run ends early: {why}");
    }
    record.finished = Some(Timestamp::now());
    judgement::close(&mut record);
    record.save(folder)?;
    drop((rigging, live));
    if let Some(mut stand_in) = stand_in {
        stand_in.stop();
    }
    Ok(record)
}

/// The target's address, with the flag to mend named in what is wrong with it.
fn target(url: &str, ca: Option<&Path>) -> Result<Origin> {
    Origin::new(url, ca).map_err(|e| match e {
        OriginError::Certificates { .. } => anyhow!("--ca-cert: {e}"),
        _ => anyhow!("--host: {e}"),
    })
}

/// A name that no other run has: the second it started, and four random letters.
fn run_id(started: Timestamp) -> String {
    let random: u16 = rand::rng().random();
    format!("{}-{random:04x}", started.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ"))
}
