//! What all connections of a tap have in common: its clock, its log, its fault.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use tokio::sync::Notify;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{log::Log, order::Slot, upstream::Upstream};
use crate::{fault::Fate, micros::Micros, post::FaultStatus, route::Route};

/// A tap's own state.
#[derive(Debug)]
pub(super) struct Shared {
    /// Drawn at the start.
    pub(super) boot: String,
    pub(super) upstream: Upstream,
    pub(super) log: Log,
    /// The most posts that are kept.
    pub(super) buffer: usize,
    /// SHA-256 of the token that the control API asks for.
    pub(super) token: Option<[u8; 32]>,
    /// Everything that runs.
    pub(super) tasks: TaskTracker,
    pub(super) stop: CancellationToken,
    started: Instant,
    slot: Mutex<Slot>,
    /// The fault's deadline may be another one.
    moved: Notify,
    /// The target did not answer, and that was said.
    is_told: AtomicBool,
}

/// What was decided about a request.
#[derive(Debug)]
pub(super) struct Decision {
    /// When.
    pub(super) received: Micros,
    pub(super) fate: Fate,
    /// Who is held goes on when this is cancelled, were it too early: the order has ended.
    pub(super) held_until: Option<CancellationToken>,
}

impl Shared {
    pub(super) fn new(upstream: Upstream, buffer: usize, token: Option<[u8; 32]>) -> Self {
        Self {
            boot: format!("{:016x}", rand::random::<u64>()),
            upstream,
            log: Log::new(buffer),
            buffer,
            token,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            started: Instant::now(),
            slot: Mutex::new(Slot::default()),
            moved: Notify::new(),
            is_told: AtomicBool::new(false),
        }
    }

    /// The tap's clock.
    pub(super) fn now(&self) -> Micros {
        self.started.elapsed().into()
    }

    /// What becomes of a request whose head was read now.
    pub(super) fn decide(&self, route: Route, canary: Option<u64>) -> Decision {
        // Under the lock, so that the order of moments is that of decisions.
        self.with_slot(|slot, received| {
            let fate = slot.decide(route, canary, received);
            let is_held = matches!(fate, Fate::Delay(_));
            Decision { received, fate, held_until: if is_held { slot.end_of_order() } else { None } }
        })
    }

    /// Changes the fault, and says how it stands then.
    pub(super) fn order<E>(
        &self,
        change: impl FnOnce(&mut Slot, Micros) -> Result<(), E>,
    ) -> Result<FaultStatus, E> {
        let status = self.with_slot(|slot, now| {
            change(slot, now)?;
            Ok(slot.status(self.boot.clone(), now))
        });
        self.moved.notify_one();
        status
    }

    fn with_slot<T>(&self, act: impl FnOnce(&mut Slot, Micros) -> T) -> T {
        let mut slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.now();
        if let Some(over) = slot.expire(now) {
            tracing::warn!(
                "the fault of cell {} of run {:?} was not renewed within {} and has ended: {}",
                over.cell,
                over.run,
                over.lease,
                over.fault
            );
        }
        act(&mut slot, now)
    }

    /// Ends orders whose lease is over, for as long as it is polled.
    pub(super) async fn watch_lease(&self) {
        loop {
            let moved = self.moved.notified();
            match self.with_slot(|slot, now| slot.deadline().map(|d| d.saturating_sub(now))) {
                // Timers are good to a millisecond.
                Some(left) => tokio::select! {
                    () = moved => {}
                    () = tokio::time::sleep(left.into()) => {}
                },
                None => moved.await,
            }
        }
    }

    /// Says that the target does not answer, once until it does again.
    pub(super) fn target_failed(&self, why: &str) {
        if self.is_told.swap(true, Ordering::Relaxed) {
            tracing::debug!("{why}");
        } else {
            tracing::warn!("{why}; not said again until it answers");
        }
    }

    /// It does.
    pub(super) fn target_answered(&self) {
        if self.is_told.load(Ordering::Relaxed) {
            self.is_told.store(false, Ordering::Relaxed);
        }
    }
}
