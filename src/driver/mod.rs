//! The seam between the engine and the users: what a worker asks of whatever makes the load.
//!
//! `attack` drives real users on Goose; the scripted driver of the tests plays a script in
//! virtual time.

pub mod scripted;

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    micros::Micros,
    plan::{Settings, Share},
    plane::permit::Permit,
    recorder::Recorder,
    snapshot::JobKey,
};

/// A place where all users of a share meet, and where they go on together when it is opened.
#[derive(Debug)]
pub struct Gate {
    expected: u32,
    arrived: AtomicU32,
    full: watch::Sender<bool>,
    open: watch::Sender<Option<Instant>>,
}

impl Gate {
    /// A closed gate for that many users.
    pub fn new(expected: u32) -> Self {
        Self {
            expected,
            arrived: AtomicU32::new(0),
            full: watch::Sender::new(expected == 0),
            open: watch::Sender::new(None),
        }
    }

    /// Says that one more user stands before the gate.
    pub fn arrive(&self) {
        if self.arrived.fetch_add(1, Ordering::Relaxed) + 1 >= self.expected {
            self.full.send_replace(true);
        }
    }

    /// Waits until all users have arrived.
    pub async fn full(&self) {
        // The sender lives in self, so this cannot fail.
        let _ = self.full.subscribe().wait_for(|full| *full).await;
    }

    /// Lets everybody through at that moment.
    pub fn open(&self, at: Instant) {
        self.open.send_replace(Some(at));
    }

    /// Waits for the gate to be opened and returns the moment it was opened for, which may still
    /// be to come.
    pub async fn opened(&self) -> Instant {
        let mut open = self.open.subscribe();
        match open.wait_for(Option::is_some).await.map(|at| *at) {
            Ok(Some(at)) => at,
            // Unreachable: the sender lives in self and the condition asks for Some.
            _ => Instant::now(),
        }
    }
}

/// What the users of a share do over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// Submit a job, poll it, fetch its results.
    #[default]
    Jobs,
    /// Ask whether anybody is there: the cheapest request, to measure springtide by.
    Hello,
}

/// One share of one cell, as its users see it.
#[derive(Debug)]
pub struct CellRun {
    /// What to do.
    pub flow: Flow,
    /// How much of it.
    pub share: Share,
    /// How.
    pub settings: Settings,
    /// Job titles begin with this: `springtide <run> c<cell>`.
    pub tag: String,
    /// All sessions are open; T0 follows.
    pub start: Gate,
    /// All jobs have an outcome, on every worker; the target is to be made quiet and asked.
    pub settle: Gate,
    /// Opened when the first job is seen merging.
    pub merging: Gate,
    /// Give up: finish or cancel what is in flight and come to an end.
    pub stop: CancellationToken,
    /// Without it nothing more is submitted.
    pub permit: Permit,
    /// Jobs of an earlier cell may go on at the target: they are looked after before T0.
    pub tidy: bool,
    /// One recorder for each load thread.
    pub recorders: Vec<Arc<Recorder>>,
    failed: Mutex<Option<String>>,
    /// How long after its time the first user was let go, in microseconds.
    late: AtomicU64,
}

impl CellRun {
    /// A share to be driven by `threads` load threads.
    pub fn new(
        share: Share,
        settings: Settings,
        run_id: &str,
        stop: CancellationToken,
        threads: usize,
    ) -> Self {
        let users = share.users;
        Self {
            tag: format!("springtide {run_id} c{:03}", share.cell.index),
            flow: Flow::default(),
            settings: settings.within(&share.cell),
            share,
            start: Gate::new(users),
            settle: Gate::new(users),
            merging: Gate::new(1),
            stop,
            permit: Permit::forever(),
            tidy: false,
            recorders: (0..threads.max(1)).map(|_| Arc::default()).collect(),
            failed: Mutex::new(None),
            late: AtomicU64::new(u64::MAX),
        }
    }

    /// A user was let go, so long after its time.
    pub fn let_go(&self, late: Duration) {
        self.late.fetch_min(late.as_micros().try_into().unwrap_or(u64::MAX - 1), Ordering::Relaxed);
    }

    /// How long after its time the first user was let go; `None` before that.
    pub fn start_late(&self) -> Option<Micros> {
        Some(self.late.load(Ordering::Relaxed)).filter(|late| *late != u64::MAX).map(Micros)
    }

    /// Whether another job may be submitted. A permit that has run out ends the share: whoever gave
    /// it counts on that.
    pub fn may_submit(&self) -> bool {
        if !self.permit.holds() {
            self.stop.cancel();
        }
        !self.stop.is_cancelled()
    }

    /// How many users take part: those of the share. When there is something to look after, the first
    /// of a worker that stands by does, too: nobody else may have its account.
    pub fn hands(&self) -> u32 {
        if self.tidy && self.flow == Flow::Jobs { self.share.users.max(1) } else { self.share.users }
    }

    /// The title of a job, unique in all runs.
    pub fn title(&self, key: JobKey) -> String {
        format!("{} u{:04} j{:04}", self.tag, key.user, key.nth)
    }

    /// Gives the share up because it cannot be carried out, such as for want of a session. The
    /// first reason is kept.
    pub fn fail(&self, why: String) {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        self.stop.cancel();
    }

    /// Why it was given up.
    pub fn failure(&self) -> Option<String> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Makes load.
pub trait Driver: Send + Sync + 'static {
    /// How many load threads, and so recorders, it has.
    fn threads(&self) -> usize;

    /// Carries out one share: brings the users to `start`, runs them from T0 on, brings them to
    /// `settle`, makes the target quiet and reads its list. Returns when all that is recorded.
    fn drive(&self, run: Arc<CellRun>) -> impl Future<Output = ()> + Send;
}
