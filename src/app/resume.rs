//! Going on with a run that was interrupted: its plan stands, and what is typed now must agree with it.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use anyhow::{Result, anyhow, bail};

use super::{errand::Errand, lock, rigging::Rigging};
use crate::{
    plan::{Accounts, Plan, Settings},
    record::{RedisFacts, RunRecord, Target},
};

/// How the name of a file begins that is built into the program.
const BUILT_IN: &str = "built-in";

/// The run as it was left.
pub(super) struct Before {
    /// Its record.
    pub(super) record: RunRecord,
    /// Its folder.
    pub(super) folder: PathBuf,
    /// The hold on it: two processes must not go on with one run.
    pub(super) held: File,
}

impl Before {
    /// Reads its record.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub(super) fn load(at: &Path) -> Result<Self> {
        RunRecord::load(at).map_err(|e| anyhow!("--resume {e}"))?;
        let folder = if at.is_dir() { Some(at) } else { at.parent() };
        let folder = folder.filter(|f| !f.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let held = lock::folder(folder).map_err(|e| anyhow!("--resume {e}"))?;
        // It may have gone on until now.
        let record = RunRecord::load(at).map_err(|e| anyhow!("--resume {e}"))?;
        Ok(Self { record, folder: folder.to_owned(), held })
    }

    /// Fills in what was not typed again: seed, matrix, scenarios, target, and how long leases last. How many
    /// workers are waited for is not filled in: one of them may be why the run was interrupted.
    ///
    /// # Errors
    /// When something must be typed again, since the record does not have it.
    pub(super) fn fill_in(&self, errand: &mut Errand) -> Result<()> {
        let (plan, args) = (&self.record.plan, &mut errand.load);
        if !args.is_typed("seed") {
            args.seed = Some(plan.seed);
        }
        if !args.is_typed("matrix") {
            args.matrix = (!plan.matrix_name.starts_with(BUILT_IN)).then(|| PathBuf::from(&plan.matrix_name));
            if let Some(matrix) = args.matrix.as_ref().filter(|m| !m.is_file()) {
                bail!("--resume: the run's matrix {} is not there; name it with --matrix", matrix.display());
            }
        }
        if !args.is_typed("input") {
            if !plan.input.name.starts_with(BUILT_IN) {
                bail!("--resume: the run submits {}; name that file with --input", plan.input.name);
            }
            args.input = None;
        }
        if !args.is_typed("scenarios") {
            errand.scenarios = plan.scenarios.iter().map(|s| s.id.to_string()).collect();
        }
        if !args.is_typed("host") {
            args.host = (!self.record.target.stand_in).then(|| self.record.target.url.clone());
        }
        if !args.is_typed("thresholds") {
            args.thresholds.clone_from(&self.record.thresholds);
        }
        if let (Some(asked), Some(crew)) = (&mut errand.plane, &self.record.crew)
            && !args.is_typed("plane_lease")
        {
            asked.lease = crew.lease;
        }
        if plan.accounts == Accounts::Registered && !self.record.target.stand_in && !args.is_typed("username")
        {
            args.username = None;
            args.register = true;
        }
        Ok(())
    }

    /// The plan to go on with: that of the record.
    ///
    /// # Errors
    /// Names what was typed otherwise than the record has it.
    pub(super) fn agree(&self, now: Plan, errand: &Errand) -> Result<Plan> {
        let (plan, args) = (&self.record.plan, &errand.load);
        let run = &self.record.run_id;
        if now.matrix_sha256 != plan.matrix_sha256 {
            bail!(
                "--resume: {} is not the matrix that run {run} began with ({} now, {} then); put the old one back, or start a new run",
                now.matrix_name,
                short(&now.matrix_sha256),
                short(&plan.matrix_sha256)
            );
        }
        if now.input.sha256 != plan.input.sha256 {
            bail!(
                "--resume: {} is not the input that run {run} began with ({} now, {} then); put the old one back, or start a new run",
                now.input.name,
                short(&now.input.sha256),
                short(&plan.input.sha256)
            );
        }
        if now.accounts != plan.accounts {
            let then = match plan.accounts {
                Accounts::Shared => "one account that all users share (--username)",
                Accounts::Registered => "an account for every user (--register)",
            };
            bail!("--resume: run {run} began with {then}; it cannot go on otherwise");
        }
        let Settings { limits, .. } = &plan.settings;
        let (was, is) = (&plan.settings, &now.settings);
        let same = [
            ("--seed", "seed", plan.seed == now.seed),
            ("--users", "users", plan.scenarios == now.scenarios),
            ("--tasks", "tasks", plan.scenarios == now.scenarios),
            ("--repetitions", "repetitions", plan.scenarios == now.scenarios),
            (errand.flag, "scenarios", plan.scenarios == now.scenarios),
            ("--no-warmup", "no_warmup", plan.cells == now.cells),
            ("--jobs-per-user", "jobs_per_user", was.jobs_per_user == is.jobs_per_user),
            ("--run-time", "run_time", was.run_time == is.run_time),
            ("--spawn-rate", "spawn_rate", was.spawn_rate == is.spawn_rate),
            ("--poll-interval", "poll_interval", was.poll_interval == is.poll_interval),
            ("--job-timeout", "job_timeout", was.job_timeout == is.job_timeout),
            ("--patience", "patience", was.patience == is.patience),
            ("--cool-down", "cool_down", was.cool_down == is.cool_down),
            ("--requeue", "requeue", was.requeue == is.requeue),
            ("--max-lag", "max_lag", limits.lag_p99 == is.limits.lag_p99),
            ("--max-cpu", "max_cpu", limits.cpu == is.limits.cpu),
        ];
        if let Some((flag, ..)) = same.iter().find(|(_, field, same)| args.is_typed(field) && !same) {
            bail!("--resume: run {run} began with another {flag}, and its plan stands; leave {flag} out");
        }
        Ok(plan.clone())
    }

    /// Whether what looks on is what the run began with: cells that were seen by different eyes do not
    /// make one table.
    ///
    /// # Errors
    /// Names what is missing, or is there besides.
    pub(super) fn same_eyes(&self, rigging: &Rigging, errand: &Errand) -> Result<()> {
        let (run, args) = (&self.record, &errand.load);
        let url = |tap: &Option<crate::record::TapFacts>| {
            tap.as_ref().filter(|t| !t.built_in).map(|t| t.url.clone())
        };
        let (was, is) = (&run.rigging, &rigging.facts);
        let toxiproxy = |f: &crate::record::RiggingFacts| f.toxiproxy.as_ref().map(|t| t.proxy.clone());
        let mut watched: Vec<&str> = run.watched.iter().map(String::as_str).collect();
        watched.sort_unstable();
        let mut now: Vec<&str> = args.watch_pids.iter().map(|w| w.name.as_str()).collect();
        now.sort_unstable();
        let redis = args.redis_url.as_deref().is_some_and(|u| !u.is_empty());
        let same = [
            ("--tap", url(&was.tap) == url(&is.tap)),
            ("--toxiproxy", toxiproxy(was) == toxiproxy(is)),
            ("--redis-url", run.redis.is_some() == redis),
            ("--plane", run.crew.is_some() == errand.plane.is_some()),
            ("--watch-pid", watched == now),
            (
                "--revision",
                args.revisions.is_empty()
                    || args.revisions.iter().all(|r| run.revisions.get(&r.name) == Some(&r.sha)),
            ),
            ("--note", args.note.is_none() || args.note == run.note),
        ];
        if let Some((flag, _)) = same.iter().find(|(_, same)| !same) {
            bail!(
                "--resume: run {} began with another {flag}, and cells of both do not go together; give the same {flag}",
                run.run_id
            );
        }
        Ok(())
    }

    /// Whether its Redis is the one that the run began with.
    ///
    /// # Errors
    /// When it is another.
    pub(super) fn same_redis(&self, now: Option<&RedisFacts>) -> Result<()> {
        match (&self.record.redis, now) {
            (Some(then), Some(now)) if then.url != now.url => bail!(
                "--resume: run {} began with the Redis {}, and this is {}; give the same --redis-url",
                self.record.run_id,
                then.url,
                now.url
            ),
            _ => Ok(()),
        }
    }

    /// Whether the target is the one that the run began with.
    ///
    /// # Errors
    /// When it is another.
    pub(super) fn same_target(&self, now: &Target) -> Result<()> {
        let (then, run) = (&self.record.target, &self.record.run_id);
        if then.stand_in != now.stand_in || (!now.stand_in && then.url != now.url) {
            let name = |t: &Target| if t.stand_in { "the stand-in".into() } else { t.url.clone() };
            bail!(
                "--resume: run {run} began on {}, and this is {}; it cannot go on there",
                name(then),
                name(now)
            );
        }
        if then.knobs != now.knobs {
            let said = |t: &Target| t.knobs.clone().unwrap_or_default();
            bail!(
                "--resume: run {run} began on a stand-in with {}, and this one has {}; give the same --standin flags",
                said(then),
                said(now)
            );
        }
        Ok(())
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
