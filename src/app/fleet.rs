//! A run on many hosts, the manager's side: the plane is found and looked at, the run laid down on it,
//! and the plan carried out with the workers that come.

use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use tokio::{runtime::Runtime, sync::watch};

use super::{
    Failure,
    manifest::Manifest,
    progress::Watch,
    secret::{PLANE_PASSWORD, PLANE_SECRET, secret},
};
use crate::{
    cli::{ExpectWorkers, PlaneArgs},
    cluster::{manager, members::Wanted, rig::Rig},
    crew::Crew,
    micros::Micros,
    plan::{Cell, Plan},
    plane::{
        MANAGER, Plane, PlaneError,
        manager_end::ManagerEnd,
        redis_streams::{Door, Facts, Lobby, check},
    },
};

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    pub(super) plane: PlaneArgs,
    pub(super) lease: Micros,
    pub(super) expect: ExpectWorkers,
    pub(super) max_wait: Micros,
}

/// The plane of a run, before the run is laid down there.
pub(super) struct Fleet {
    asked: Asked,
    door: Door,
    facts: Facts,
    /// What seals the target's accounts.
    pub(super) secret: Option<String>,
}

/// The way to the plane that the flags name.
///
/// # Errors
/// One line with the flag and the remedy.
pub(super) fn door(args: &PlaneArgs) -> Result<Door> {
    let password = secret("--plane-password-file", args.plane_password_file.as_deref(), PLANE_PASSWORD)?;
    Door::new(&args.plane, password, args.plane_ca_cert.as_deref()).map_err(|e| anyhow!("--plane: {e}"))
}

/// What manager and workers share beside the plane.
///
/// # Errors
/// When its file cannot be read, or says nothing.
pub(super) fn plane_secret(args: &PlaneArgs) -> Result<Option<String>> {
    let found = secret("--plane-secret-file", args.plane_secret_file.as_deref(), PLANE_SECRET)?;
    match (&args.plane_secret_file, found) {
        (Some(file), Some(empty)) if empty.is_empty() => {
            bail!("--plane-secret-file {}: its first line is empty", file.display())
        }
        (_, found) => Ok(found),
    }
}

/// What is wrong with a plane: to be mended where it was named, or something that passes.
pub(super) fn failure(error: PlaneError) -> Failure {
    let is_passing = error.is_passing();
    let error = anyhow!("--plane: {error}");
    if is_passing { Failure::runtime(error) } else { Failure::usage(error) }
}

impl Fleet {
    /// Finds the plane and looks whether it can be used. `target` is what the target's Redis calls
    /// itself, if one was named; the stand-in cannot be reached from everywhere.
    ///
    /// # Errors
    /// One line with the flag and the remedy.
    pub(super) async fn find(
        asked: &Asked,
        target: Option<&str>,
        is_stand_in: bool,
    ) -> Result<Self, Failure> {
        let door = door(&asked.plane).map_err(Failure::usage)?;
        if asked.expect.names.contains(MANAGER) {
            return Err(Failure::usage(anyhow!(
                "--expect-workers: {MANAGER} is the manager's name, no worker's"
            )));
        }
        let secret = plane_secret(&asked.plane).map_err(Failure::usage)?;
        let facts = check(&door, asked.plane.insecure_plane, target).await;
        let facts = facts.map_err(failure)?;
        if is_stand_in && !facts.is_near {
            return Err(Failure::usage(anyhow!(
                "the built-in stand-in listens on this host only, and the plane {door} is for several: start `springtide backend --listen` where all workers reach it, and name it with --host"
            )));
        }
        Ok(Self { asked: asked.clone(), door, facts, secret })
    }

    /// Whether a run that is to go on has a manager that is alive, and we may look at all. The lease of
    /// one that is not runs out in a moment.
    ///
    /// # Errors
    /// When it has, or the plane does not let us.
    pub(super) async fn is_free(&self, run_id: &str) -> Result<(), Failure> {
        let plane = Lobby::at(&self.door).take_over(run_id, "");
        let mut left = None;
        loop {
            let holders = plane.holders(&[MANAGER]).await.map_err(failure)?;
            let Some(held) = holders.first().copied().flatten() else { return Ok(()) };
            if left.is_some_and(|(epoch, left)| held.epoch != epoch || held.left > left) {
                let epoch = held.epoch;
                return Err(Failure::usage(anyhow!(
                    "--resume: run {run_id} has a manager that is alive (epoch {epoch}); wait for its end, or end it"
                )));
            }
            left = Some((held.epoch, held.left));
            tokio::time::sleep((held.left / 4).max(Duration::from_millis(20))).await;
        }
    }

    /// For the run's record.
    pub(super) fn crew(&self) -> Crew {
        Crew {
            plane: self.facts.url.clone(),
            version: self.facts.version.clone(),
            run_id: self.facts.run_id.clone(),
            lease: self.asked.lease,
            expected: self.asked.expect.count,
            events: Vec::new(),
        }
    }

    /// How long leases last.
    pub(super) fn lease(&self) -> Micros {
        self.asked.lease
    }

    /// Carries out the plan. Returns why it ended early, if it did.
    ///
    /// # Errors
    /// When the run cannot be laid down on the plane.
    pub(super) async fn carry_out(
        self,
        plan: &Plan,
        todo: (Vec<Cell>, bool),
        manifest: Manifest,
        watch: &mut Watch,
        rig: Option<Rig>,
        stop: watch::Receiver<Option<String>>,
    ) -> Result<Option<String>> {
        let wanted = Wanted {
            count: self.asked.expect.count,
            names: self.asked.expect.names.clone(),
            max_wait: self.asked.max_wait,
            build_hash: Some(manifest.build_hash.clone()),
            plan_hash: Some(plan.hash()),
        };
        // The lease is renewed on a thread of its own: closing a large cell takes this one some time.
        let own = Beside(Some(
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .thread_name("plane")
                .enable_all()
                .build()
                .context("cannot start a thread for the plane")?,
        ));
        let (run_id, text, lease) = (manifest.run_id.clone(), manifest.text(), self.asked.lease);
        let (lobby, is_resumed) = (Lobby::at(&self.door), todo.1);
        let opened = own.spawn(async move {
            let plane = match is_resumed {
                true => lobby.take_over(&run_id, &text),
                false => lobby.open_run(&run_id, &text).await?,
            };
            ManagerEnd::open(plane.into(), Some(lease.into())).await
        });
        let opened = opened.await.context("the thread for the plane broke down")?;
        let end = opened.map_err(|e| match e {
            PlaneError::Held { epoch, .. } => {
                anyhow!("run {} has another manager that is alive (epoch {epoch})", manifest.run_id)
            }
            e => anyhow!("--plane: {e}"),
        })?;
        let n = self.asked.expect.count;
        tracing::info!(
            "run {} is open on {}; waiting up to {} for {n} {}",
            manifest.run_id,
            self.door,
            self.asked.max_wait,
            if n == 1 { "worker" } else { "workers" }
        );
        Ok(manager::manage(end, plan, todo, wanted, watch, rig, stop).await)
    }
}

/// A runtime beside ours, which does not wait for its tasks when it goes.
struct Beside(Option<Runtime>);

impl std::ops::Deref for Beside {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("it is there until it is dropped")
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
