//! Watches processes of this host: what they and their descendants use, ten times a second.
//!
//! Each has a thread of its own, so that a busy runtime delays no look. The thread lives while a
//! cell is open.

mod tree;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::{
    micros::Micros,
    moment::Moment,
    plan::Cell,
    telemetry::{
        Gap,
        process::{ProcessSample, ProcessSeries},
    },
};
use tree::{Look, Tree};

/// From one look to the next.
const PAUSE: Duration = Duration::from_millis(100);
/// Looks further apart than this are a gap: somebody kept the thread from looking.
const LATE: Duration = Duration::from_secs(1);
/// Samples of a cell that are kept; a long cell has more, and loses those between.
const KEPT: usize = 2_000;

/// A process, and the thread that looks at it.
#[derive(Debug)]
pub struct ProcessSampler {
    name: String,
    tree: Arc<Mutex<Tree>>,
    watching: Option<Watching>,
}

/// A cell that is open.
#[derive(Debug)]
struct Watching {
    opened: Instant,
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Looks>,
}

/// What the thread brings back.
#[derive(Debug, Default)]
struct Looks {
    /// On the thread's clock, from the opening of the cell.
    series: ProcessSeries,
    /// Why there are no more looks, when there are none to the end.
    ended: Option<String>,
}

impl ProcessSampler {
    /// Watches a process from now on, called `name` in figures and messages.
    ///
    /// # Errors
    /// One line when there is no such process, or it may not be looked at.
    pub fn new(name: impl Into<String>, pid: u32) -> Result<Self, String> {
        let name = name.into();
        let tree = Tree::of(pid).map_err(|why| {
            format!("--watch-pid {name}={pid}: {why}; give the number of a process that runs on this host")
        })?;
        Ok(Self { name, tree: Arc::new(Mutex::new(tree)), watching: None })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A cell is about to begin: samples are kept from now on.
    pub fn open(&mut self, _cell: &Cell) {
        self.end();
        let (opened, stop) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let (tree, told) = (Arc::clone(&self.tree), Arc::clone(&stop));
        let thread = thread::Builder::new()
            .name(format!("watch-{}", self.name))
            .spawn(move || watch(&mut tree.lock().unwrap_or_else(PoisonError::into_inner), opened, &told));
        match thread {
            Ok(thread) => self.watching = Some(Watching { opened, stop, thread }),
            Err(e) => tracing::warn!("process {} is not watched: {e}", self.name),
        }
    }

    /// The cell is over: the process's name, and what was seen.
    pub fn close(&mut self, t0: Instant) -> (String, ProcessSeries) {
        let mut series = ProcessSeries::default();
        if let Some((opened, looks)) = self.end() {
            let (from, closed) = (Moment::of(opened, t0), Moment::of(Instant::now(), t0));
            series = looks.series;
            series.thin_out(KEPT);
            series.samples.iter_mut().for_each(|s| s.at.0 += from.0);
            for gap in &mut series.gaps {
                gap.from.0 += from.0;
                gap.to.0 += from.0;
            }
            if let Some(why) = looks.ended {
                tracing::warn!("process {}: {why}", self.name);
                let last = series.samples.last().map_or(from, |s| s.at);
                series.gaps.push(Gap { from: last, to: closed, why });
            }
        }
        (self.name.clone(), series)
    }

    /// Ends the thread, if there is one.
    fn end(&mut self) -> Option<(Instant, Looks)> {
        let Watching { opened, stop, thread } = self.watching.take()?;
        stop.store(true, Ordering::Release);
        thread.thread().unpark();
        let looks = thread.join().unwrap_or_else(|_| Looks {
            ended: Some("springtide's own thread that looked at it broke down".into()),
            ..Looks::default()
        });
        Some((opened, looks))
    }
}

impl Drop for ProcessSampler {
    fn drop(&mut self) {
        self.end();
    }
}

/// The thread: looks until it is told to stop, and once more then.
fn watch(tree: &mut Tree, opened: Instant, stop: &AtomicBool) -> Looks {
    let mut looks = Looks::default();
    let series = &mut looks.series;
    let began = own_cpu();
    let mut next = opened;
    loop {
        let is_last = stop.load(Ordering::Acquire);
        match tree.look() {
            Ok(Some(Look { cpu, rss, peak_rss, own_peak, processes })) => {
                let at = Moment::of(Instant::now(), opened);
                if let Some(from) = series.samples.last().map(|s| s.at).filter(|from| late(*from, at)) {
                    series.gaps.push(Gap { from, to: at, why: "springtide was kept from looking".into() });
                }
                series.samples.push(ProcessSample { at, cpu, rss, peak_rss, processes });
                series.own_peak = own_peak;
                series.looks += 1;
            }
            Ok(None) => {}
            Err(why) => {
                looks.ended = Some(why);
                break;
            }
        }
        if series.samples.len() >= 2 * KEPT {
            series.thin_out(KEPT);
        }
        if is_last {
            break;
        }
        let now = Instant::now();
        next = (next + PAUSE).max(now);
        while Instant::now() < next && !stop.load(Ordering::Acquire) {
            thread::park_timeout(next - Instant::now());
        }
    }
    series.cost = own_cpu().saturating_sub(began);
    looks
}

fn late(last: Moment, at: Moment) -> bool {
    Duration::from_micros((at.0 - last.0).unsigned_abs()) > LATE
}

/// CPU time of this thread.
fn own_cpu() -> Micros {
    let spent = clock_gettime(ClockId::ThreadCPUTime);
    Micros(spent.tv_sec.unsigned_abs() * 1_000_000 + spent.tv_nsec.unsigned_abs() / 1_000)
}
