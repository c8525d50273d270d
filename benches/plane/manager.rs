//! The manager under measurement: it carries a cell out, then aborts the next one after ten seconds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde::{Deserialize, Serialize};
use springtide::{
    cluster::{
        manager::{Watcher, manage},
        members::Wanted,
    },
    crew::{self, Member},
    micros::Micros,
    plan::Cell,
    plane::{
        Entry, Held, Log, Place, Plane, PlaneError,
        clock::Clock,
        manager_end::ManagerEnd,
        redis_streams::{Door, Lobby, RedisStreams},
    },
    record::CellRecord,
    snapshot::Totals,
    verdict::{Rule, Verdict},
};
use tokio::{sync::watch, time::Instant};

use crate::{
    fleet::{LEASE, cpu, open_many},
    load::plan,
};

/// When the second cell is aborted.
const ABORT_AFTER: Micros = Micros(10_000_000);

/// What came of it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Workers of the first cell, their frames, and how many are missing.
    pub(crate) workers: u64,
    pub(crate) frames: u64,
    pub(crate) gaps: u64,
    /// Whether every frame of the first cell arrived and they add up; else why not.
    pub(crate) missing: Option<String>,
    /// From an append to when it was merged, as Redis' clock tells, in milliseconds: p50, p99, most.
    pub(crate) lag: [f64; 3],
    /// Of one core, while the first cell ran.
    pub(crate) cpu: f64,
    /// The most memory, in bytes.
    pub(crate) memory: u64,
    /// From the abort to the last worker's word that it has stopped, in milliseconds.
    pub(crate) stopped: Option<f64>,
}

/// A plane that notes how old entries are when the next read begins: by then those before are merged.
struct Timed {
    inner: RedisStreams,
    clock: Clock,
    /// Redis' time of the last entry of each log of the read before, in milliseconds.
    last: Mutex<Vec<u64>>,
    lags: Arc<Mutex<Vec<f64>>>,
}

impl Plane for Timed {
    async fn append(&self, log: &Log, entry: &Entry, fence: Option<&Member>) -> Result<(), PlaneError> {
        self.inner.append(log, entry, fence).await
    }

    async fn read(
        &self,
        places: &mut BTreeMap<Log, Place>,
        wait: Duration,
    ) -> Result<Vec<Entry>, PlaneError> {
        let now = self.clock.now().0 as f64 / 1e3;
        let last = std::mem::take(&mut *self.last.lock().unwrap_or_else(PoisonError::into_inner));
        let lags = last.into_iter().map(|ms| now - ms as f64);
        self.lags.lock().unwrap_or_else(PoisonError::into_inner).extend(lags);
        let before = places.clone();
        let entries = self.inner.read(places, wait).await?;
        let moved = places.iter().filter(|(log, place)| before.get(log) != Some(place));
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = moved.map(|(_, p)| p.0).collect();
        Ok(entries)
    }

    async fn end_of(&self, log: &Log) -> Result<Place, PlaneError> {
        self.inner.end_of(log).await
    }

    async fn trim(&self, places: &BTreeMap<Log, Place>, fence: &Member) -> Result<(), PlaneError> {
        self.inner.trim(places, fence).await
    }

    async fn take(&self, name: &str, ttl: Duration) -> Result<Member, PlaneError> {
        self.inner.take(name, ttl).await
    }

    async fn renew(&self, lease: &Member, ttl: Duration) -> Result<(), PlaneError> {
        self.inner.renew(lease, ttl).await
    }

    async fn release(&self, lease: &Member) -> Result<(), PlaneError> {
        self.inner.release(lease).await
    }

    async fn holders(&self, names: &[&str]) -> Result<Vec<Option<Held>>, PlaneError> {
        self.inner.holders(names).await
    }

    async fn time(&self) -> Result<Micros, PlaneError> {
        self.inner.time().await
    }

    async fn announce(&self) -> Result<(), PlaneError> {
        self.inner.announce().await
    }

    async fn close(&self) -> Result<(), PlaneError> {
        self.inner.close().await
    }
}

/// Notes what is measured.
struct Notes {
    outcome: Outcome,
    lags: Arc<Mutex<Vec<f64>>>,
    /// When users of the running cell were let go: clock and CPU time.
    began: Option<(Instant, Duration)>,
    closed: bool,
    stop: watch::Sender<Option<String>>,
    aborted: Option<Instant>,
}

impl Watcher for Notes {
    fn opened(&mut self, _: &Cell, workers: usize) {
        self.outcome.workers = workers as u64;
        self.began = None;
    }

    fn progress(&mut self, _: &Cell, _: &[&Totals], elapsed: Option<Micros>) {
        let Some(elapsed) = elapsed else { return };
        if self.began.is_none() {
            self.began = Some((Instant::now(), cpu()));
            self.lags.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        if self.closed && self.aborted.is_none() && elapsed > ABORT_AFTER {
            self.aborted = Some(Instant::now());
            self.stop.send_replace(Some("abort".into()));
        }
    }

    fn closed(&mut self, record: CellRecord) -> Result<(), String> {
        let (began, used) = self.began.ok_or("it never began")?;
        let o = &mut self.outcome;
        o.cpu = (cpu() - used).as_secs_f64() / began.elapsed().as_secs_f64();
        o.frames = record.workers.iter().map(|p| p.frames).sum();
        o.gaps = record.workers.iter().map(|p| p.gaps).sum();
        let frames = record.checks.iter().find(|c| c.rule == Rule::FramesComplete);
        o.missing = frames.filter(|c| c.verdict != Verdict::Pass).map(|c| c.evidence.clone());
        let mut lags = std::mem::take(&mut *self.lags.lock().unwrap_or_else(PoisonError::into_inner));
        lags.sort_by(f64::total_cmp);
        let at = |q: f64| lags.get((q * lags.len() as f64) as usize).or(lags.last()).copied().unwrap_or(0.0);
        o.lag = [at(0.5), at(0.99), at(1.0)];
        self.closed = true;
        Ok(())
    }

    fn told(&mut self, event: crew::Event) {
        if !matches!(event.what, crew::What::Joined { .. }) {
            eprintln!("{:?}: {}", event.who, event.what);
        }
    }
}

/// Carries out the first cell and aborts the second; prints the [`Outcome`] as JSON.
pub(crate) fn serve(url: &str, workers: u32, seconds: u64) -> Result<()> {
    open_many();
    let mut one = CpuSet::new();
    one.set(0);
    sched_setaffinity(None, &one).context("cannot stay on one core")?;
    // As the program has it: one thread for the plane, one for the rest.
    let beside = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let door = Door::new(url, None, None)?;
    let lags = Arc::new(Mutex::new(Vec::new()));
    let timed = Arc::clone(&lags);
    let end = beside.block_on(beside.spawn(async move {
        let inner = Lobby::at(&door).open_run("bench", "{}").await?;
        let clock = Clock::of(&inner).await?;
        let timed = Timed { inner, clock, last: Mutex::default(), lags: timed };
        ManagerEnd::open(Arc::new(timed), Some(LEASE)).await
    }))??;
    let (stop, stopping) = watch::channel(None);
    let mut notes =
        Notes { outcome: Outcome::default(), lags, began: None, closed: false, stop, aborted: None };
    let plan = plan(workers);
    let wanted = Wanted { max_wait: Micros(120_000_000), ..Wanted::any(workers) };
    let todo = (plan.cells.clone(), false);
    runtime.block_on(manage(end, &plan, todo, wanted, &mut notes, None, stopping));
    let mut outcome = notes.outcome;
    outcome.stopped = notes.aborted.map(|at| at.elapsed().as_secs_f64() * 1e3);
    let status = procfs::process::Process::myself()?.status()?;
    outcome.memory = status.vmhwm.context("no VmHWM")? * 1024;
    let _ = seconds;
    println!("{}", serde_json::to_string(&outcome)?);
    beside.shutdown_background();
    Ok(())
}
