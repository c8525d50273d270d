//! What the workers themselves count: posts sent, sent again, given up, and what died of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::route::Route;

/// The counts so far.
#[derive(Debug, Clone, Default)]
pub(in crate::standin) struct Counts {
    /// Posts sent, repeats included.
    pub(in crate::standin) attempts: BTreeMap<Route, u64>,
    /// Posts sent again.
    pub(in crate::standin) retries: BTreeMap<Route, u64>,
    /// Posts that got no usable answer and were not sent again.
    pub(in crate::standin) given_up: BTreeMap<Route, u64>,
    /// By simulation, the route of the post that killed a task or the merge; the first one.
    pub(in crate::standin) deaths: BTreeMap<u64, Route>,
}

/// The counts of all workers.
#[derive(Debug, Default)]
pub(in crate::standin) struct Tally(Mutex<Counts>);

impl Tally {
    /// A post is about to be sent, for the first time or again.
    pub(super) fn attempt(&self, route: Route, again: bool) {
        let mut counts = self.counts();
        *counts.attempts.entry(route).or_default() += 1;
        if again {
            *counts.retries.entry(route).or_default() += 1;
        }
    }

    /// A post was given up.
    pub(super) fn give_up(&self, route: Route) {
        *self.counts().given_up.entry(route).or_default() += 1;
    }

    /// A task or the merge of that simulation died of a post.
    pub(super) fn died(&self, simulation: u64, route: Route) {
        self.counts().deaths.entry(simulation).or_insert(route);
    }

    /// A copy.
    pub(in crate::standin) fn so_far(&self) -> Counts {
        self.counts().clone()
    }

    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
