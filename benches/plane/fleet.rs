//! Many workers in one process, each with everything of its own but the process.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result, anyhow};
use rustix::{
    process::{Resource, Rlimit, getrlimit, setrlimit},
    time::{ClockId, clock_gettime},
};
use springtide::{
    cluster::worker::{Ask, Served, Worker},
    plan::Settings,
    plane::{
        Hello,
        redis_streams::{After, Door, Lobby},
        worker_end::{Terms, WorkerEnd},
    },
    record::{Build, Host},
};
use tokio::sync::watch;

use crate::load::Recorded;

/// How long leases last, here and at the manager.
pub(crate) const LEASE: Duration = Duration::from_secs(5);

/// Says who it is.
pub(crate) fn hello() -> Hello {
    let text = String::new;
    Hello {
        build: Build { version: text(), revision: text(), profile: text(), goose: text() },
        build_hash: text(),
        plan_hash: text(),
        host: Host { name: text(), cpu: text(), cores: 1, memory: 0, kernel: text(), open_files: 0 },
        trouble: None,
    }
}

/// CPU time of this process so far.
pub(crate) fn cpu() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

/// Raises the limit on open files as far as it goes.
pub(crate) fn open_many() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// Serves one run with so many workers, each loading for so many seconds a cell; prints the CPU time in
/// microseconds that the process took.
pub(crate) fn serve(url: &str, workers: u32, seconds: u64) -> Result<()> {
    open_many();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let all: Vec<_> = (0..workers).map(|n| tokio::spawn(one(url.to_owned(), n, seconds))).collect();
        for worker in all {
            worker.await.context("a worker broke down")??;
        }
        println!("{}", cpu().as_micros());
        Ok(())
    })
}

async fn one(url: String, number: u32, seconds: u64) -> Result<()> {
    let lobby = Lobby::at(&Door::new(&url, None, None)?);
    let offer = lobby.next_run(&After::Nothing).await?;
    let plane = Arc::new(lobby.of_run(&offer.run).await?);
    let terms = Terms { name: format!("w{number:04}"), lease: Some(LEASE), spool: None, manager: None };
    let end = loop {
        match WorkerEnd::join(Arc::clone(&plane), &terms, hello()).await {
            Err(error) if error.is_passing() => tokio::time::sleep(Duration::from_millis(200)).await,
            end => break end?,
        }
    };
    let (_serve, ask) = watch::channel(Ask::Serve);
    let driver = Arc::new(Recorded(seconds));
    let mut worker = Worker { end, driver, run_id: offer.run, settings: Settings::default(), ask };
    match worker.serve().await {
        Served::Ended => {}
        other => return Err(anyhow!("worker {number}: {other:?}")),
    }
    worker.end.leave(Duration::from_secs(5)).await;
    Ok(())
}
