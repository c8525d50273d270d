//! What users do: the flows, one file each, and beside them the matrix files that say how many
//! users do it how often.
//!
//! A user lives as long as the run. For each cell it opens a session (`session`), looks after what an
//! earlier cell may have left (`tidy`), meets the others at the barrier, carries its jobs through
//! `job`: `submit` → `poll` → `fetch`, `cancel` for what it gives up, and at the end of the cell helps
//! to `settle`. To add a flow, write a file like `fetch.rs`, say what it sends with an `Endpoint`, and
//! call it from `job` or [`take_part`].

mod cancel;
mod fetch;
mod hello;
pub mod input;
mod job;
mod poll;
pub mod session;
mod settle;
mod submit;
mod tidy;
mod turn;
pub mod user;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use crate::{
    driver::{CellRun, Flow},
    plan::CellKind,
    recorder::Recorder,
    snapshot::{JobKey, Phase},
};
use turn::Turn;
pub use user::{Kit, User};

/// One user's part in one cell, from opening its session to settling. One that the share has no place
/// for only looks after the account that its worker's users share.
pub async fn take_part(user: &mut User, run: &CellRun, recorder: &Arc<Recorder>) {
    let number = run.share.first_user + user.slot();
    user.become_number(number);
    let stands_by = user.slot() >= run.share.users;
    let mut turn = Turn::new(user, run, recorder, number);
    if run.flow == Flow::Jobs && (!stands_by || turn.shares_account()) {
        match turn.open_session().await {
            Ok(()) if run.tidy => tidy::tidy(&mut turn).await,
            Ok(()) => {}
            Err(why) => run.fail(why),
        }
    }
    if stands_by {
        return;
    }
    run.start.arrive();
    let t0 = tokio::select! {
        biased;
        () = run.stop.cancelled() => return,
        t0 = run.start.opened() => t0,
    };
    turn.phase = Phase::Load;
    let begin = t0 + spawn_delay(number, run.settings.spawn_rate);
    tokio::select! {
        biased;
        () = run.stop.cancelled() => return,
        () = tokio::time::sleep_until(begin) => {}
    }
    run.let_go(Instant::now().saturating_duration_since(begin));
    turn.begin(begin);
    for nth in 0.. {
        let more = match run.settings.run_time {
            _ if run.share.cell.kind == CellKind::WarmUp => nth == 0,
            Some(run_time) => Instant::now() < t0 + Duration::from(run_time),
            None => nth < run.settings.jobs_per_user,
        };
        if !more || !run.may_submit() {
            break;
        }
        match run.flow {
            Flow::Jobs => job::carry_through(&mut turn, JobKey { user: number, nth }).await,
            Flow::Hello => hello::hello(&mut turn).await,
        }
    }
    turn.end();

    run.settle.arrive();
    tokio::select! {
        biased;
        () = run.stop.cancelled() => return,
        _ = run.settle.opened() => {}
    }
    turn.phase = Phase::Settle;
    if run.flow == Flow::Jobs {
        settle::settle(&mut turn).await;
    }
}

/// How long after T0 a user starts: with a spawn rate, users start evenly spaced.
fn spawn_delay(number: u32, rate: Option<f64>) -> Duration {
    rate.map_or(Duration::ZERO, |per_second| Duration::from_secs_f64(f64::from(number) / per_second))
}
