//! A run on this host: the manager and one worker in one process, over the in-process plane.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::{facts, progress::Watch};
use crate::{
    attack::Attack,
    cluster::{
        manager,
        members::Wanted,
        rig::Rig,
        worker::{Ask, Worker},
    },
    loadtests::Kit,
    plan::{Cell, Plan},
    plane::{
        in_process::InProcess,
        manager_end::ManagerEnd,
        worker_end::{Terms, WorkerEnd},
    },
};

/// What the one worker of a local run is called.
const NAME: &str = "local";

/// Carries out the plan. Returns why it ended early, if it did.
///
/// # Errors
/// When the load threads cannot be started.
#[expect(clippy::too_many_arguments, reason = "what a run is made of, each used once")]
pub(super) async fn carry_out(
    plan: &Plan,
    todo: (Vec<Cell>, bool),
    run_id: &str,
    kit: &Arc<Kit>,
    threads: u32,
    watch: &mut Watch,
    rig: Option<Rig>,
    stop: watch::Receiver<Option<String>>,
) -> Result<Option<String>> {
    let capacity = plan.cells.iter().map(|c| c.users).max().unwrap_or(1);
    let attack = Attack::launch(capacity, threads, kit).context("cannot start the load")?;
    let plane = Arc::new(InProcess::new());
    let end = ManagerEnd::open(Arc::clone(&plane), None).await?;
    let terms = Terms { name: NAME.into(), lease: None, spool: None, manager: None };
    let (_serve, ask) = watch::channel(Ask::Serve);
    let mut worker = Worker {
        end: WorkerEnd::join(plane, &terms, facts::hello(String::new(), String::new())).await?,
        driver: Arc::new(attack),
        run_id: run_id.to_owned(),
        settings: plan.settings.clone(),
        ask,
    };
    let worker = tokio::spawn(async move { worker.serve().await });
    let ended = manager::manage(end, plan, todo, Wanted::any(1), watch, rig, stop).await;
    worker.await.context("the worker broke down")?;
    Ok(ended)
}
