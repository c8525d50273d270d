//! The fault that stands in the tap, if one does: whose it is, what it decides, when it ends.
//!
//! Everything here is a function of the moment that is handed in; nobody waits here.

use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    fault::{Fate, Fault, FaultKind},
    micros::Micros,
    post::{CANARY_STREAM, Fates, FaultOrder, FaultStatus},
    route::Route,
};

/// Why an order is not taken, or cannot be spoken to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum OrderError {
    #[error(
        "the fault of cell {cell} of run {run:?} stands until its lease ends in {left}; wait for that run's end"
    )]
    Taken { run: String, cell: u32, left: Micros },
    #[error("the fault of that cell no longer stands: its lease ended or it was taken away")]
    Gone,
    #[error("{0}")]
    Malformed(&'static str),
}

/// The longest that anything can be put off: what is longer is a mistake of units.
const LONGEST: Micros = Micros(3_600_000_000);

/// Leases within these bounds are taken.
const LEASES: std::ops::RangeInclusive<Micros> = Micros(1_000)..=LONGEST;

/// At most one order, and what was decided under it.
#[derive(Debug, Default)]
pub(super) struct Slot {
    standing: Option<Standing>,
    fates: Fates,
    expired: bool,
}

#[derive(Debug)]
struct Standing {
    order: FaultOrder,
    t0: Option<Micros>,
    /// It ends by itself then.
    deadline: Micros,
    /// The number of the next request that it decides about.
    next: u64,
    /// Wakes the posts that are held under it: however it ends, it is dropped then.
    _end: DropGuard,
    is_over: CancellationToken,
}

impl Standing {
    fn is_active(&self, now: Micros) -> bool {
        let since = self.t0.filter(|t0| *t0 <= now).map(|t0| now.saturating_sub(t0));
        self.order.fault.is_active(since)
    }
}

impl Slot {
    /// Takes an order in, instead of an earlier one of the same run.
    pub(super) fn set(&mut self, order: FaultOrder, now: Micros) -> Result<(), OrderError> {
        check(&order).map_err(OrderError::Malformed)?;
        self.refuse_others(&order.run, now)?;
        let deadline = now + order.lease;
        let is_over = CancellationToken::new();
        let end = is_over.clone().drop_guard();
        self.standing = Some(Standing { order, t0: None, deadline, next: 0, _end: end, is_over });
        self.fates = Fates::default();
        self.expired = false;
        Ok(())
    }

    /// Tells the order of that cell its T0, and renews it.
    pub(super) fn start(&mut self, run: &str, cell: u32, t0: Micros, now: Micros) -> Result<(), OrderError> {
        if t0.saturating_sub(now) > LONGEST {
            return Err(OrderError::Malformed("T0 must be at most 1 h away"));
        }
        let standing = self.of_cell(run, cell, now)?;
        standing.t0 = Some(t0);
        Ok(())
    }

    /// Renews the lease of that cell's order.
    pub(super) fn renew(&mut self, run: &str, cell: u32, now: Micros) -> Result<(), OrderError> {
        self.of_cell(run, cell, now).map(|_| ())
    }

    /// Takes the order of that run away, if there is one.
    pub(super) fn clear(&mut self, run: &str, now: Micros) -> Result<(), OrderError> {
        self.refuse_others(run, now)?;
        self.standing = None;
        Ok(())
    }

    /// What becomes of a request that came now.
    pub(super) fn decide(&mut self, route: Route, canary: Option<u64>, now: Micros) -> Fate {
        let active =
            |s: &&mut Standing| now < s.deadline && s.order.fault.routes.contains(&route) && s.is_active(now);
        let Some(standing) = self.standing.as_mut().filter(active) else {
            return Fate::Pass;
        };
        let FaultOrder { fault, seed, .. } = &standing.order;
        if let Some(number) = canary {
            return fault.fate(*seed, CANARY_STREAM | number);
        }
        let fate = fault.fate(*seed, standing.next);
        standing.next += 1;
        self.fates.count(fate);
        fate
    }

    /// Cancelled when the order that stands now ends, whatever ends it: what is held under it goes
    /// on then. `None` when there is none.
    pub(super) fn end_of_order(&self) -> Option<CancellationToken> {
        self.standing.as_ref().map(|s| s.is_over.clone())
    }

    /// Ends an order whose lease is over, and hands it out to be told of.
    pub(super) fn expire(&mut self, now: Micros) -> Option<FaultOrder> {
        let over = self.standing.take_if(|s| s.deadline <= now)?;
        self.expired = true;
        Some(over.order)
    }

    /// When to look for an end of the lease.
    pub(super) fn deadline(&self) -> Option<Micros> {
        self.standing.as_ref().map(|s| s.deadline)
    }

    /// What can be said of it.
    pub(super) fn status(&self, boot: String, now: Micros) -> FaultStatus {
        let standing = self.standing.as_ref().filter(|s| now < s.deadline);
        FaultStatus {
            boot,
            now,
            order: standing.map(|s| s.order.clone()),
            t0: standing.and_then(|s| s.t0),
            active: standing.is_some_and(|s| s.is_active(now)),
            fates: self.fates,
            expired: self.expired || (self.standing.is_some() && standing.is_none()),
        }
    }

    fn refuse_others(&self, run: &str, now: Micros) -> Result<(), OrderError> {
        match &self.standing {
            Some(Standing { order, deadline, .. }) if order.run != run && now < *deadline => {
                let left = deadline.saturating_sub(now);
                Err(OrderError::Taken { run: order.run.clone(), cell: order.cell, left })
            }
            _ => Ok(()),
        }
    }

    /// The order of that cell, renewed.
    fn of_cell(&mut self, run: &str, cell: u32, now: Micros) -> Result<&mut Standing, OrderError> {
        self.refuse_others(run, now)?;
        let is_it = |s: &&mut Standing| now < s.deadline && s.order.run == run && s.order.cell == cell;
        let standing = self.standing.as_mut().filter(is_it).ok_or(OrderError::Gone)?;
        standing.deadline = now + standing.order.lease;
        Ok(standing)
    }
}

/// What is wrong with an order that nobody can have meant.
fn check(order: &FaultOrder) -> Result<(), &'static str> {
    let Fault { kind, routes, window } = &order.fault;
    if order.run.is_empty() {
        return Err("an order needs the name of a run");
    }
    if !LEASES.contains(&order.lease) {
        return Err("a lease lasts from 1 ms to 1 h");
    }
    if !order.fault.is_none() && routes.is_empty() {
        return Err("a fault needs routes, or it hits nothing");
    }
    if window.to.is_some_and(|to| to <= window.from) {
        return Err("a window ends after it begins");
    }
    match kind {
        FaultKind::Latency { delay, jitter, .. } if *delay.max(jitter) > LONGEST => {
            Err("a delay and its jitter are at most 1 h")
        }
        FaultKind::Drop { ratio, .. } if ratio.as_f64() <= 0.0 || ratio.as_f64() > 1.0 => {
            Err("a ratio is more than 0 and at most 100 %")
        }
        FaultKind::None
        | FaultKind::Latency { .. }
        | FaultKind::Drop { .. }
        | FaultKind::Disconnect { .. } => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::{Distribution, Ratio, Side, Window};

    fn order(run: &str, fault: Fault) -> FaultOrder {
        FaultOrder { run: run.into(), cell: 3, seed: 7, fault, lease: Micros(1_000_000) }
    }

    fn dropping() -> Fault {
        Fault::whole_cell(FaultKind::Drop { ratio: Ratio::percent(50), side: Side::Either })
    }

    fn within(from: u64, to: u64) -> Fault {
        Fault { window: Window { from: Micros(from), to: Some(Micros(to)) }, ..dropping() }
    }

    #[test]
    fn decisions_are_those_of_the_fault_in_order_and_canaries_stand_apart() {
        let mut slot = Slot::default();
        slot.set(order("a", dropping()), Micros(0)).unwrap();
        for n in 0..200 {
            let canary = slot.decide(Route::Results, Some(n), Micros(5));
            assert_eq!(canary, dropping().fate(7, (1 << 63) | n));
            assert_eq!(slot.decide(Route::Tasks, None, Micros(5)), dropping().fate(7, n));
        }
        let fates = slot.status("b".into(), Micros(5)).fates;
        assert_eq!(fates.passed + fates.requests_dropped + fates.answers_dropped, 200);
        assert_eq!(slot.decide(Route::Jobs, None, Micros(5)), Fate::Pass, "not a route of the fault");
        assert_eq!(slot.status("b".into(), Micros(5)).fates, fates);
    }

    #[test]
    fn a_window_is_counted_from_t0() {
        let mut slot = Slot::default();
        slot.set(order("a", within(100, 200)), Micros(0)).unwrap();
        slot.start("a", 3, Micros(1_000), Micros(10)).unwrap();
        let active: Vec<bool> = [500, 1_099, 1_100, 1_199, 1_200]
            .into_iter()
            .map(|now| {
                let before = slot.fates;
                slot.decide(Route::Tasks, None, Micros(now));
                slot.fates != before
            })
            .collect();
        assert_eq!(active, [false, false, true, true, false]);
    }

    #[test]
    fn an_order_ends_with_its_lease() {
        let mut slot = Slot::default();
        slot.set(order("a", dropping()), Micros(0)).unwrap();
        slot.renew("a", 3, Micros(900_000)).unwrap();
        assert_eq!(slot.expire(Micros(1_899_999)), None);
        assert!(slot.status("b".into(), Micros(1_899_999)).active);
        // Nobody has looked yet, and it is over all the same.
        let status = slot.status("b".into(), Micros(1_900_000));
        assert!(status.expired && !status.active && status.order.is_none());
        assert_eq!(slot.decide(Route::Tasks, None, Micros(1_900_000)), Fate::Pass);
        assert_eq!(slot.renew("a", 3, Micros(1_900_000)), Err(OrderError::Gone));
        assert!(slot.expire(Micros(1_900_000)).is_some());
        assert!(slot.status("b".into(), Micros(1_900_001)).expired);
        slot.set(order("b", dropping()), Micros(2_000_000)).unwrap();
        assert!(!slot.status("b".into(), Micros(2_000_000)).expired);
    }

    #[test]
    fn another_run_waits_and_the_same_one_replaces() {
        let mut slot = Slot::default();
        slot.set(order("a", dropping()), Micros(0)).unwrap();
        slot.decide(Route::Tasks, None, Micros(1));
        assert!(matches!(slot.set(order("b", dropping()), Micros(2)), Err(OrderError::Taken { .. })));
        assert!(matches!(slot.clear("b", Micros(2)), Err(OrderError::Taken { .. })));
        assert!(matches!(slot.renew("b", 3, Micros(2)), Err(OrderError::Taken { .. })));
        slot.set(order("a", within(1, 2)), Micros(2)).unwrap();
        assert_eq!(slot.status("b".into(), Micros(2)).fates, Fates::default());
        assert_eq!(slot.start("a", 4, Micros(3), Micros(3)), Err(OrderError::Gone));
        slot.clear("a", Micros(3)).unwrap();
        slot.clear("a", Micros(3)).unwrap();
        slot.set(order("b", dropping()), Micros(4)).unwrap();
    }

    #[test]
    fn an_order_that_nobody_can_have_meant_is_refused() {
        let hour = Micros(3_600_000_000);
        let latency = |delay, jitter| {
            let distribution = Distribution::Uniform;
            Fault::whole_cell(FaultKind::Latency { delay, jitter, distribution })
        };
        let share = |percent| {
            Fault::whole_cell(FaultKind::Drop { ratio: Ratio::percent(percent), side: Side::Before })
        };
        let nowhere = Fault { routes: [].into(), ..dropping() };
        let of = |fault| order("a", fault);
        for (bad, says) in [
            (order("", dropping()), "name of a run"),
            (FaultOrder { lease: Micros(0), ..of(dropping()) }, "lease"),
            (FaultOrder { lease: Micros(u64::MAX), ..of(dropping()) }, "lease"),
            (of(nowhere), "routes"),
            (of(share(0)), "ratio"),
            (of(share(101)), "ratio"),
            (of(within(5, 5)), "window"),
            (of(within(5, 4)), "window"),
            (of(latency(hour + Micros(1), Micros(0))), "delay"),
            (of(latency(Micros(0), hour + Micros(1))), "delay"),
        ] {
            let error = Slot::default().set(bad, Micros(0)).unwrap_err();
            assert!(matches!(error, OrderError::Malformed(_)) && error.to_string().contains(says), "{error}");
        }
        for fair in [share(1), share(100), within(4, 5), latency(hour, hour), Fault::none()] {
            assert_eq!(Slot::default().set(of(fair), Micros(0)), Ok(()));
        }
    }

    #[test]
    fn a_start_beyond_the_hour_is_refused() {
        let mut slot = Slot::default();
        slot.set(order("a", dropping()), Micros(0)).unwrap();
        slot.start("a", 3, Micros(5) + LONGEST, Micros(5)).unwrap();
        let late = slot.start("a", 3, Micros(6) + LONGEST, Micros(5));
        assert!(matches!(late, Err(OrderError::Malformed(_))), "{late:?}");
    }
}
