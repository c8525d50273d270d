//! What the plane costs one worker: its CPU time over Redis, beside the same over memory, where manager
//! and worker share the process.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use springtide::{
    cluster::{
        manager::{Watcher, manage},
        members::Wanted,
        worker::{Ask, Worker},
    },
    crew,
    micros::Micros,
    plan::Cell,
    plane::{
        in_process::InProcess,
        manager_end::ManagerEnd,
        worker_end::{Terms, WorkerEnd},
    },
    record::CellRecord,
    snapshot::Totals,
};
use tokio::sync::watch;

use crate::{
    fleet::{cpu, hello},
    load::{Recorded, plan},
    process::{Redis, Role},
};

/// Seconds of load.
const SECONDS: u64 = 40;

struct Nobody;

impl Watcher for Nobody {
    fn opened(&mut self, _: &Cell, _: usize) {}
    fn progress(&mut self, _: &Cell, _: &[&Totals], _: Option<Micros>) {}
    fn closed(&mut self, _: CellRecord) -> Result<(), String> {
        Ok(())
    }
    fn told(&mut self, _: crew::Event) {}
}

/// One cell on one worker in this process; prints the CPU time in microseconds.
pub(crate) fn alone(seconds: u64) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let plane = Arc::new(InProcess::new());
        let mut plan = plan(1);
        plan.cells.truncate(1);
        let end = ManagerEnd::open(Arc::clone(&plane), None).await?;
        let terms = Terms { name: "w".into(), lease: None, spool: None, manager: None };
        let (_serve, ask) = watch::channel(Ask::Serve);
        let mut worker = Worker {
            end: WorkerEnd::join(plane, &terms, hello()).await?,
            driver: Arc::new(Recorded(seconds)),
            run_id: "r".into(),
            settings: plan.settings.clone(),
            ask,
        };
        let worker = tokio::spawn(async move { worker.serve().await });
        let (_stop, stopping) = watch::channel(None);
        let todo = (plan.cells.clone(), false);
        manage(end, &plan, todo, Wanted::any(1), &mut Nobody, None, stopping).await;
        worker.await?;
        println!("{}", cpu().as_micros());
        Ok(())
    })
}

/// Measures it.
pub(crate) fn measure() -> Result<String> {
    let redis = Redis::start()?;
    let s = SECONDS.to_string();
    let manager = Role::of(&["manager", &redis.url, "1", &s])?;
    let over_redis = Role::of(&["fleet", &redis.url, "1", &s])?;
    manager.says(Duration::from_secs(SECONDS + 120))?;
    let over_redis: f64 = over_redis.says(Duration::from_secs(60))?.parse()?;
    let in_memory: f64 = Role::of(&["alone", &s])?.says(Duration::from_secs(SECONDS + 60))?.parse()?;
    // The second cell was aborted after ten seconds.
    let (redis_s, memory_s) = (SECONDS as f64 + 10.0, SECONDS as f64);
    let share = |us: f64, s: f64| us / 1e6 / s * 100.0;
    let (over_redis, in_memory) = (share(over_redis, redis_s), share(in_memory, memory_s));
    Ok(format!(
        "## One worker, a frame of twenty histograms a second\n\n\
         | plane | CPU, share of a core | wanted | kept |\n|---|---|---|---|\n\
         | Redis; the worker alone, with all that it takes down | {over_redis:.2} % | < 1 % | {} |\n\
         | memory; worker and manager | {in_memory:.2} % | | |\n",
        if over_redis < 1.0 { "yes" } else { "NO" },
    ))
}
