//! A run from start to reports: what `run` and `matrix` have in common.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use jiff::{Timestamp, tz::TimeZone};
use rand::RngExt;
use tokio::sync::{Semaphore, watch};

use super::{
    Failure, Out, facts,
    fleet::{Asked, Fleet},
    folder, key, local,
    lock::{self, Share},
    manifest::Manifest,
    preflight,
    progress::Watch,
    redis, report,
    resume::Before,
    scene::Scene,
    sealed::Credentials,
    wanted::{Wanted, knobs, stand_in_config},
};
use crate::{
    attack,
    cli::LoadArgs,
    judgement,
    loadtests::{Kit, session::Accounts, user::LOGINS_AT_ONCE},
    plan::Cell,
    record::{Resumed, RunRecord, SCHEMA, Target},
    report::Paper,
    spans,
    standin::{Config, StandIn},
    target::{Origin, Sockets},
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
    /// The run to go on with.
    pub(super) resume: Option<PathBuf>,
    /// What the folder is called when it was given no name; `None` for the names of the scenarios.
    pub(super) label: Option<&'static str>,
    /// Who else may load the target.
    pub(super) share: Share,
    /// Where its workers are; `None` for one in this process.
    pub(super) plane: Option<Asked>,
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
    let before = match &errand.resume {
        Some(at) => Some(Before::load(&folder::of_run(at, &args.out)).map_err(Failure::usage)?),
        None => None,
    };
    if let Some(before) = &before {
        before.fill_in(&mut errand).map_err(Failure::usage)?;
    }
    let mut wanted = Wanted::read(&errand).map_err(Failure::usage)?;
    if let Some(before) = &before {
        wanted.plan = before.agree(wanted.plan, &errand).map_err(Failure::usage)?;
    }
    let args = &errand.load;
    if before.is_none() {
        folder::try_out(&args.out).map_err(Failure::usage)?;
    }
    let run_id = before.as_ref().map_or_else(|| run_id(Timestamp::now()), |b| b.record.run_id.clone());
    let found = Scene::find(args, &wanted.plan, &run_id, errand.share).await;
    let scene = found.map_err(Failure::usage)?;
    let fleet = match &errand.plane {
        Some(asked) => {
            let target = scene.instruments.redis.as_ref().map(|redis| redis.run_id.as_str());
            Some(Fleet::find(asked, target, args.host.is_none()).await?)
        }
        None => None,
    };
    if let Some(fleet) = &fleet {
        fleet.is_free(&run_id).await?;
    }
    if let Some(before) = &before {
        before.same_eyes(&scene.rigging, &errand).map_err(Failure::usage)?;
        before.same_redis(scene.instruments.redis.as_ref()).map_err(Failure::usage)?;
    }
    let outcome = go(&errand, run_id, wanted, before, (scene, fleet), stop).await;
    let (run, folder) = match outcome {
        Ok(done) => done,
        Err(failure) => {
            if !args.json && failure.exit != Exit::Usage {
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

/// Everything from the first request to the finished record, and the folder that it is in.
async fn go(
    errand: &Errand,
    run_id: String,
    wanted: Wanted,
    before: Option<Before>,
    (mut scene, fleet): (Scene, Option<Fleet>),
    stop: watch::Receiver<Option<String>>,
) -> Result<(RunRecord, PathBuf), Failure> {
    let args = &errand.load;
    let (stand_in, origin, target) = meet(args, &wanted, &mut scene).await.map_err(Failure::runtime)?;
    if let Some(before) = &before {
        before.same_target(&target).map_err(Failure::usage)?;
    }
    wanted.warnings.iter().for_each(|said| tracing::warn!("{said}"));
    let is_new = before.is_none();
    let (record, folder, _held) = match before {
        Some(Before { record, folder, held }) => (again(record), folder, held),
        None => {
            let started = Timestamp::now();
            let label = args.label.clone().or_else(|| errand.label.map(str::to_owned));
            let label = label.unwrap_or_else(|| wanted.label());
            let folder = folder::create(&args.out, &label, started).map_err(Failure::usage)?;
            let held = lock::folder(&folder).map_err(Failure::runtime)?;
            let mut record = fresh(args, &wanted, &scene, target, (run_id, label), started);
            record.crew = fleet.as_ref().map(Fleet::crew);
            (record, folder, held)
        }
    };
    let record = RunRecord { thresholds: args.thresholds.clone(), ..record };
    tracing::info!(
        "target {}{}, seed {}, {} cells",
        record.target.url,
        if record.target.stand_in { " (built-in stand-in)" } else { "" },
        record.plan.seed,
        match record.resumed.last() {
            Some(now) => format!("{} of {}", record.todo().len(), now.cells as usize + record.todo().len()),
            None => record.plan.cells.len().to_string(),
        }
    );
    let outcome = measure(args, wanted, origin, (scene, fleet), record, &folder, stop).await;
    if let Some(mut stand_in) = stand_in {
        stand_in.stop();
    }
    match outcome {
        Ok(run) => Ok((run, folder)),
        Err(error) => {
            if is_new {
                folder::remove_unless_measured(&folder);
            }
            Err(Failure::runtime(error))
        }
    }
}

/// Starts the stand-in, if it is the target, and asks the target who it is.
async fn meet(
    args: &LoadArgs,
    wanted: &Wanted,
    scene: &mut Scene,
) -> Result<(Option<StandIn>, Arc<Origin>, Target)> {
    let stand_in = match &scene.origin {
        Some(_) => None,
        None => {
            let (password, ca) = (args.redis_password_file.as_deref(), args.redis_ca_cert.as_deref());
            let redis = redis::broker(args.redis_url.as_deref(), password, ca)?;
            let config = Config { redis, ..stand_in_config(&args.standin, wanted.plan.seed) };
            Some(StandIn::start(config)?)
        }
    };
    if let Some(stand_in) = &stand_in {
        scene.rigging.stand_before(stand_in)?;
    }
    let origin = Arc::new(match (scene.origin.take(), &stand_in) {
        (Some(origin), _) => origin,
        (None, Some(stand_in)) => Origin::new(stand_in.url(), None)?,
        (None, None) => bail!("there is no target"),
    });
    let mut target = preflight::look(&origin, stand_in.is_some(), args.patience.into()).await?;
    target.retries = stand_in.is_some().then(|| args.standin.standin_retries.to_string());
    target.knobs = stand_in.is_some().then(|| knobs(&args.standin));
    scene.rigging.look(args.patience.into()).await?;
    Ok((stand_in, origin, target))
}

/// The record of a run that begins.
fn fresh(
    args: &LoadArgs,
    wanted: &Wanted,
    scene: &Scene,
    target: Target,
    (run_id, label): (String, String),
    started: Timestamp,
) -> RunRecord {
    RunRecord {
        schema: SCHEMA,
        run_id,
        label,
        started,
        finished: None,
        build: facts::build(),
        command: facts::command_line(),
        host: facts::host(),
        resumed: Vec::new(),
        revisions: args.revisions.iter().map(|r| (r.name.clone(), r.sha.clone())).collect(),
        note: args.note.clone(),
        target,
        rigging: scene.rigging.facts.clone(),
        redis: scene.instruments.redis.clone(),
        watched: args.watch_pids.iter().map(|w| w.name.clone()).collect(),
        crew: None,
        plan: wanted.plan.clone(),
        thresholds: Vec::new(),
        cells: Vec::new(),
        checks: Vec::new(),
        verdict: None,
        stopped: None,
    }
}

/// The record of a run that goes on.
fn again(mut record: RunRecord) -> RunRecord {
    record.resumed.push(Resumed {
        at: Timestamp::now(),
        build: facts::build(),
        command: facts::command_line(),
        host: facts::host(),
        cells: record.cells.len() as u32,
    });
    record.checks.clear();
    (record.verdict, record.stopped) = (None, None);
    record
}

/// Carries out what is left of the plan, and judges it.
async fn measure(
    args: &LoadArgs,
    wanted: Wanted,
    origin: Arc<Origin>,
    (mut scene, fleet): (Scene, Option<Fleet>),
    record: RunRecord,
    folder: &Path,
    stop: watch::Receiver<Option<String>>,
) -> Result<RunRecord> {
    // From here on the run can be resumed.
    record.save(folder)?;
    let (plan, todo) = (record.plan.clone(), record.todo());
    let is_resumed = !record.resumed.is_empty();
    // Titles of jobs differ from those of the cell that was interrupted.
    let name = match record.resumed.len() {
        0 => record.run_id.clone(),
        n => format!("{}r{n}", record.run_id),
    };
    let spans = scene.instruments.spans();
    let samplers = scene.instruments.set_up(folder);
    let mut watch = Watch::new(
        record,
        todo.clone(),
        (args.out.clone(), folder.to_owned()),
        args.no_progress,
        spans.clone(),
    );
    watch.live = scene.instruments.show(&watch.record);
    let rig = scene.rigging.set_up(&name, samplers);
    let means = Means { args, wanted, origin, name, folder, spans };
    let todo = (todo, is_resumed);
    let stopped = match fleet {
        _ if todo.0.is_empty() => Ok(None),
        Some(fleet) => {
            let manifest = means.manifest(&fleet, &watch.record)?;
            fleet.carry_out(&plan, todo, manifest, &mut watch, rig, stop).await
        }
        None => {
            let (kit, threads) = means.kit(&watch.record, &todo.0)?;
            local::carry_out(&plan, todo, &means.name, &kit, threads, &mut watch, rig, stop).await
        }
    };
    let mut record = watch.finish();
    record.stopped = stopped?;
    if let Some(why) = record.stopped.as_deref().filter(|why| ![INTERRUPTED, TERMINATED].contains(why)) {
        tracing::error!("the run ends early: {why}");
    }
    record.finished = Some(Timestamp::now());
    judgement::close(&mut record);
    record.save(folder)?;
    scene.instruments.end().await;
    if record.stopped.is_none() {
        key::forget(folder);
    }
    Ok(record)
}

/// What users need, here or on other hosts.
struct Means<'a> {
    args: &'a LoadArgs,
    wanted: Wanted,
    origin: Arc<Origin>,
    /// How titles of jobs begin, behind `springtide `.
    name: String,
    folder: &'a Path,
    spans: Option<spans::Sender>,
}

impl Means<'_> {
    /// For users in this process, and on how many threads.
    fn kit(&self, record: &RunRecord, todo: &[Cell]) -> Result<(Arc<Kit>, u32)> {
        let users = todo.iter().map(|c| c.users).max().unwrap_or(1);
        let threads = self.args.load_threads.unwrap_or_else(|| attack::threads_for(users, facts::cores()));
        let accounts = match &self.wanted.account {
            Some(account) => Accounts::Shared(account.clone()),
            None => Accounts::Registered {
                prefix: Manifest::prefix(&record.run_id),
                key: key::of(self.folder, record.target.stand_in)?,
            },
        };
        let kit = Kit {
            origin: Arc::clone(&self.origin),
            sockets: Arc::new(Sockets::default()),
            input: self.wanted.input.clone(),
            accounts,
            logins: Semaphore::new(LOGINS_AT_ONCE),
            refresh_after: self.args.session_refresh.into(),
            timeout: Duration::from(self.args.patience),
            spans: self.spans.clone(),
            title: format!("springtide {}", record.run_id),
            most_users: record.plan.cells.iter().map(|c| c.users).max().unwrap_or(1),
        };
        Ok((Arc::new(kit), threads))
    }

    /// For workers elsewhere.
    fn manifest(&self, fleet: &Fleet, record: &RunRecord) -> Result<Manifest> {
        let account = self.wanted.account.as_ref();
        let sealed = match &fleet.secret {
            Some(secret) => {
                let key = match account {
                    None => Some(key::of(self.folder, record.target.stand_in)?),
                    Some(_) => None,
                };
                let account = account.map(|a| (a.username.clone(), a.password.clone()));
                Some(Credentials { account, key }.seal(secret, &record.run_id))
            }
            None => {
                if account.is_none() && !record.target.stand_in {
                    tracing::warn!(
                        "whoever reads the plane can work out the passwords of the accounts that this run registers; set SPRINGTIDE_PLANE_SECRET here and for the workers to prevent it"
                    );
                }
                None
            }
        };
        Ok(Manifest {
            version: record.build.version.clone(),
            build_hash: facts::build_hash().context("cannot read our own program")?,
            run_id: record.run_id.clone(),
            name: self.name.clone(),
            host: record.host.name.clone(),
            lease: fleet.lease(),
            target: self.origin.url().to_owned(),
            input: self.wanted.input.text(),
            refresh_after: self.args.session_refresh,
            username: account.map(|a| a.username.clone()),
            sealed,
            plan: record.plan.clone(),
        })
    }
}

/// A name that no other run has: the second it started, and four random letters.
fn run_id(started: Timestamp) -> String {
    let random: u16 = rand::rng().random();
    format!("{}-{random:04x}", started.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ"))
}
