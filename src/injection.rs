//! A fault in one cell: what was ordered, what was done, and the proof that it showed while it
//! should and only then.

use serde::{Deserialize, Serialize};

use crate::{
    fault::{Fate, Fault, FaultKind},
    micros::Micros,
    post::{CANARY_STREAM, Fates},
};

/// Who does the harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Injector {
    /// The tap, request by request.
    Tap,
    /// A Toxiproxy, connection by connection.
    Toxiproxy,
}

/// A canary: a request of ours on the way of the workers' posts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Canary {
    /// Its number, which decides its fate at the tap.
    pub number: u64,
    /// From sending it to its end.
    pub took: Micros,
    /// Status of the answer; `None` when the connection broke without one.
    pub status: Option<u16>,
}

/// The canaries of a cell, and what is wrong with them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Before the fault was in place.
    pub before: Vec<Canary>,
    /// While it was at work.
    pub during: Vec<Canary>,
    /// After it was taken away.
    pub after: Vec<Canary>,
    /// Why the fault is not proven, one sentence each with the figures; empty when it is.
    pub flaws: Vec<String>,
}

/// The fault of one cell. Moments are offsets from T0 on the clock of whoever did the harm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Injection {
    /// What was ordered.
    pub fault: Fault,
    /// Who did it.
    pub by: Injector,
    /// Moment of T0 on the tap's clock, on which the posts are; `None` with a Toxiproxy alone.
    pub t0: Option<Micros>,
    /// When it was taken away, after T0.
    pub cleared: Micros,
    /// What was decided, by the tap's own count.
    pub fates: Option<Fates>,
    /// That it showed.
    pub proof: Proof,
    /// What the injector cannot do as ordered, one sentence each.
    pub deviations: Vec<String>,
}

impl Injection {
    /// Holds the canaries against what the fault should have done to them, and notes what is wrong.
    pub fn judge(&mut self, seed: u64) {
        let mut flaws = Vec::new();
        for (when, canaries) in [("before", &self.proof.before), ("after", &self.proof.after)] {
            if canaries.is_empty() {
                flaws.push(format!("no canary was sent {when} the fault"));
            }
            let dead = canaries.iter().filter(|c| c.status.is_none()).count();
            if dead > 0 {
                flaws.push(format!("{dead} of {} canaries {when} the fault got no answer", canaries.len()));
            }
        }
        if self.proof.during.is_empty() {
            flaws.push(
                "no canary was sent during the fault: its window may lie after the end of the cell".into(),
            );
        }
        match self.by {
            Injector::Tap => self.judge_numbered(seed, &mut flaws),
            Injector::Toxiproxy => self.judge_unnumbered(&mut flaws),
        }
        if let FaultKind::Latency { delay, .. } = self.fault.kind
            && let (Some(before), Some(after)) = (quickest(&self.proof.before), quickest(&self.proof.after))
            && after >= before + Micros(delay.0 / 2)
        {
            flaws.push(format!(
                "the delay was still there afterwards: the quickest canary took {after}, before the fault {before}"
            ));
        }
        self.proof.flaws = flaws;
    }

    /// At the tap each canary's number tells its fate.
    fn judge_numbered(&self, seed: u64, flaws: &mut Vec<String>) {
        let mut spared_all = true;
        for canary in &self.proof.during {
            let Canary { number, took, status } = canary;
            let fate = self.fault.fate(seed, CANARY_STREAM | number);
            spared_all &= fate == Fate::Pass;
            let (wanted, is_so) = match fate {
                Fate::Pass => ("pass".to_owned(), status.is_some()),
                Fate::Delay(delay) => (format!("be held for {delay}"), status.is_some() && *took >= delay),
                Fate::DropRequest | Fate::DropAnswer => ("be cut off".to_owned(), status.is_none()),
                Fate::Refuse => ("be refused".to_owned(), status.is_none()),
            };
            if !is_so {
                let got = status.map_or("no answer".into(), |s| format!("status {s}"));
                flaws.push(format!("canary {number} was to {wanted}, and got {got} after {took}"));
            }
        }
        if spared_all && !self.proof.during.is_empty() {
            flaws.push("the fault is so rare that no canary could show it".into());
        }
    }

    /// At a Toxiproxy a canary shows the fault or does not.
    fn judge_unnumbered(&self, flaws: &mut Vec<String>) {
        let during = &self.proof.during;
        let cut = during.iter().filter(|c| c.status.is_none()).count();
        let n = during.len();
        match self.fault.kind {
            FaultKind::None => {}
            FaultKind::Latency { delay, jitter, .. } => {
                let least = delay.saturating_sub(jitter);
                let quick = during.iter().filter(|c| c.took < least || c.status.is_none()).count();
                if quick > 0 {
                    flaws.push(format!("{quick} of {n} canaries got an answer before {least}, or none"));
                }
            }
            FaultKind::Drop { .. } if cut == 0 => {
                flaws.push(format!("none of {n} canaries was cut off"));
            }
            FaultKind::Drop { .. } => {}
            FaultKind::Disconnect { .. } if cut < n => {
                flaws.push(format!("{} of {n} canaries got through", n - cut));
            }
            FaultKind::Disconnect { .. } => {}
        }
    }

    /// The stretches after T0 in which it was at work.
    pub fn stretches(&self) -> Vec<(Micros, Micros)> {
        self.fault.stretches(self.cleared)
    }
}

fn quickest(canaries: &[Canary]) -> Option<Micros> {
    canaries.iter().map(|c| c.took).min()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fault::FaultMode;

    fn canary(number: u64, took_ms: u64, status: Option<u16>) -> Canary {
        Canary { number, took: Micros(took_ms * 1_000), status }
    }

    /// A fault whose canaries fared as they should.
    fn proven(mode: FaultMode) -> Injection {
        let fault = Fault::default_levels(mode).remove(0);
        let during = (0..200).map(|n| match fault.fate(7, CANARY_STREAM | n) {
            Fate::Pass => canary(n, 2, Some(400)),
            Fate::Delay(d) => Canary { number: n, took: d + Micros(900), status: Some(400) },
            Fate::DropRequest | Fate::DropAnswer | Fate::Refuse => canary(n, 2, None),
        });
        let clear = || (0..5).map(|n| canary(n, 2, Some(400))).collect();
        let proof = Proof { before: clear(), during: during.collect(), after: clear(), flaws: Vec::new() };
        Injection {
            fault,
            by: Injector::Tap,
            t0: Some(Micros::ZERO),
            cleared: Micros(1),
            fates: None,
            proof,
            deviations: Vec::new(),
        }
    }

    fn flaws(mut injection: Injection) -> Vec<String> {
        injection.judge(7);
        injection.proof.flaws
    }

    const MODES: [FaultMode; 3] = [FaultMode::Latency, FaultMode::Drop, FaultMode::Disconnect];

    #[test]
    fn a_fault_that_showed_is_proven() {
        for mode in MODES {
            assert_eq!(flaws(proven(mode)), Vec::<String>::new(), "{mode}");
            let toxic = Injection { by: Injector::Toxiproxy, ..proven(mode) };
            assert_eq!(flaws(toxic), Vec::<String>::new(), "{mode}");
        }
    }

    #[test]
    fn a_fault_that_did_not_show_is_not_proven() {
        for (mode, by) in MODES.into_iter().flat_map(|m| [(m, Injector::Tap), (m, Injector::Toxiproxy)]) {
            let mut none = Injection { by, ..proven(mode) };
            none.proof.during = (0..200).map(|n| canary(n, 2, Some(400))).collect();
            assert!(!flaws(none.clone()).is_empty(), "{mode} {by:?}");
            none.proof.during.clear();
            assert!(!flaws(none).is_empty(), "{mode} {by:?}");
        }
    }

    #[test]
    fn a_fault_that_stays_is_not_proven() {
        for mode in MODES {
            let mut stays = proven(mode);
            stays.proof.after = stays.proof.during.clone();
            assert!(flaws(stays).iter().any(|f| f.contains("after")), "{mode}");
        }
    }
}
