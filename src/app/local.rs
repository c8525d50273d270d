//! A run on this host: the manager and one worker in one process, over the in-process plane.

use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::progress::Watch;
use crate::{
    attack::Attack,
    cluster::{manager, rig::Rig, worker::Worker},
    loadtests::Kit,
    plan::{Cell, Plan},
    plane::in_process::InProcess,
};

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
    let worker = Worker {
        plane: Arc::clone(&plane),
        driver: Arc::new(attack),
        number: 0,
        run_id: run_id.to_owned(),
        settings: plan.settings.clone(),
    };
    let worker = tokio::spawn(worker.serve());
    let ended = manager::manage(&plane, plan, todo, 1, watch, rig, stop).await?;
    worker.await.context("the worker broke down")??;
    Ok(ended)
}
