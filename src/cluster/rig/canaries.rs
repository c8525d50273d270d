//! Canaries: requests of our own on the way that the fault lies on. How they fare is the proof.
//!
//! At the tap a canary's number decides its fate, so numbers are chosen that together show every
//! fate the fault has. A Toxiproxy decides by itself: there as many are sent as it takes to see one
//! connection break.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tokio::time::{Instant, sleep_until};

use crate::{
    fault::{Fate, Fault, FaultKind, Ratio, Side},
    injection::Canary,
    micros::Micros,
    plan::Cell,
    post::CANARY_STREAM,
    route::Route,
    tap::canary_at,
};

/// How many show that the way is clear.
const CLEAR: u64 = 5;
/// How long one may take beside the delay that is injected.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many numbers are looked at for one that a drop hits.
const NUMBERS: u64 = 1_000_000;
/// The chance that a drop which is there does not show at a Toxiproxy: one in so many.
const BLIND: f64 = 1e6;

/// The canaries of one cell.
#[derive(Debug, Clone)]
pub(super) struct Canaries {
    way: String,
    fault: Fault,
    seed: u64,
    numbered: bool,
}

impl Canaries {
    /// Through a tap.
    pub(super) fn at_tap(url: &str, cell: &Cell) -> Self {
        Self { way: url.to_owned(), fault: cell.fault.clone(), seed: cell.seed, numbered: true }
    }

    /// Through a Toxiproxy.
    pub(super) fn at_toxiproxy(url: &str, cell: &Cell) -> Self {
        Self { numbered: false, ..Self::at_tap(url, cell) }
    }

    /// Where they are sent.
    pub(super) fn way(&self) -> &str {
        &self.way
    }

    /// Those before the fault is in place.
    pub(super) async fn before(&self) -> Vec<Canary> {
        self.one_by_one(0..CLEAR).await
    }

    /// Those after it was taken away.
    pub(super) async fn after(&self) -> Vec<Canary> {
        self.one_by_one(0..CLEAR).await
    }

    /// When those are due that are sent while the fault is at work: early in its first stretch.
    /// `None` when it has none.
    pub(super) fn due(&self, t0: Instant) -> Option<Instant> {
        let stretches = self.fault.stretches(Micros(u64::MAX / 2));
        let (from, to) = *stretches.first()?;
        let into = Micros((to.0 - from.0) / 4).min(Micros(200_000));
        Some(t0 + Duration::from(from + into))
    }

    /// Those while it is at work.
    pub(super) async fn during(self, t0: Instant) -> Vec<Canary> {
        let Some(due) = self.due(t0) else { return Vec::new() };
        sleep_until(due).await;
        if self.numbered {
            // A rare drop takes some looking.
            let (fault, seed) = (self.fault.clone(), self.seed);
            let numbers =
                tokio::task::spawn_blocking(move || telling(&fault, seed)).await.unwrap_or_default();
            join_all(numbers.into_iter().map(|n| self.send(n))).await
        } else if let FaultKind::Drop { ratio, .. } = self.fault.kind {
            self.until_one_breaks(ratio).await
        } else {
            join_all((0..CLEAR).map(|n| self.send(n))).await
        }
    }

    async fn until_one_breaks(&self, ratio: Ratio) -> Vec<Canary> {
        let pass = 1.0 - ratio.as_f64();
        let most = if pass > 0.0 { (BLIND.ln() / -pass.ln()).ceil() as u64 } else { 1 };
        let mut sent = Vec::new();
        for number in 0..most {
            let canary = self.send(number).await;
            let broke = canary.status.is_none();
            sent.push(canary);
            if broke {
                break;
            }
        }
        sent
    }

    async fn one_by_one(&self, numbers: impl IntoIterator<Item = u64>) -> Vec<Canary> {
        let mut sent = Vec::new();
        for number in numbers {
            sent.push(self.send(number).await);
        }
        sent
    }

    async fn send(&self, number: u64) -> Canary {
        // Over all routes that the fault is on, one after the other.
        let routes = self.fault.routes.len().max(1);
        let turn = usize::try_from(number).unwrap_or(0) % routes;
        let route = self.fault.routes.iter().nth(turn).copied().unwrap_or(Route::Tasks);
        let delay = match self.fault.kind {
            FaultKind::Latency { delay, jitter, .. } => Duration::from(delay) + 10 * Duration::from(jitter),
            _ => Duration::ZERO,
        };
        canary_at(&self.way, route, number, PATIENCE + delay).await
    }
}

/// The smallest numbers that together show every fate of a fault, and some that it spares.
fn telling(fault: &Fault, seed: u64) -> BTreeSet<u64> {
    let fate = |n: u64| fault.fate(seed, CANARY_STREAM | n);
    match fault.kind {
        FaultKind::None => BTreeSet::new(),
        FaultKind::Latency { .. } | FaultKind::Disconnect { .. } => (0..CLEAR).collect(),
        FaultKind::Drop { ratio, side } => {
            let spared = if ratio.as_f64() < 1.0 { 2 } else { 0 };
            // Only what can be found is looked for.
            let hits: &[Fate] = match side {
                Side::Either => &[Fate::DropRequest, Fate::DropAnswer],
                Side::Before => &[Fate::DropRequest],
                Side::After => &[Fate::DropAnswer],
            };
            let first = |want: Fate| (0..NUMBERS).find(|n| fate(*n) == want);
            let hit = hits.iter().copied().filter_map(first);
            hit.chain((0..NUMBERS).filter(|n| fate(*n) == Fate::Pass).take(spared)).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultMode;

    #[test]
    fn the_numbers_show_every_fate_of_a_drop() {
        for seed in 0..20 {
            let fault = &Fault::default_levels(FaultMode::Drop)[0];
            let numbers = telling(fault, seed);
            let fates: Vec<Fate> = numbers.iter().map(|n| fault.fate(seed, CANARY_STREAM | n)).collect();
            for fate in [Fate::DropRequest, Fate::DropAnswer, Fate::Pass] {
                assert!(fates.contains(&fate), "{fate:?} in {fates:?}");
            }
        }
    }

    #[test]
    fn a_drop_that_spares_nothing_needs_one_number() {
        let kind = FaultKind::Drop { ratio: Ratio::percent(100), side: Side::Before };
        assert_eq!(telling(&Fault::whole_cell(kind), 1).len(), 1);
    }
}
