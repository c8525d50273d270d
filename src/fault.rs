//! Faults as data: what goes wrong on purpose between the target's workers and its API, where,
//! when, and which request it hits.
//!
//! Who carries a fault out (`tap`, or a Toxiproxy) is not said here. The decision on the nth
//! request is a function of the fault, the cell's seed and n alone, so that whoever knows the
//! three can tell it beforehand, and the same seed repeats it.

use std::{collections::BTreeSet, fmt, str::FromStr};

use rand::{Rng, RngExt, SeedableRng, distr::Open01};
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::{micros::Micros, route::Route};

/// The kind of a fault, without its figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultMode {
    /// Nothing.
    None,
    /// Worker posts are delayed.
    Latency,
    /// Worker posts are cut off, before or after they reach the target.
    Drop,
    /// Worker posts are refused for a while.
    Disconnect,
}

impl fmt::Display for FaultMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Latency => "latency",
            Self::Drop => "drop",
            Self::Disconnect => "disconnect",
        })
    }
}

/// A share, in millionths: exact where a floating-point number is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ratio(u32);

impl Ratio {
    /// From hundredths.
    pub const fn percent(percent: u32) -> Self {
        Self(percent * 10_000)
    }

    /// As a number from 0 to 1.
    pub fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl FromStr for Ratio {
    type Err = String;

    /// Reads `2%` or `0.02`; more than nothing, and not more than all.
    fn from_str(text: &str) -> Result<Self, String> {
        let value = match text.trim().strip_suffix('%') {
            Some(percent) => percent.trim().parse::<f64>().map(|p| p / 100.0),
            None => text.trim().parse(),
        };
        let millionths = value.ok().map(|v| (v * 1e6).round());
        match millionths {
            Some(m) if (1.0..=1e6).contains(&m) => Ok(Self(m as u32)),
            _ => Err(format!("write a share such as \"2%\" or 0.02, not {text:?}")),
        }
    }
}

impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = format!("{} %", f64::from(self.0) / 1e4);
        f.pad(&percent)
    }
}

/// How delays scatter around their mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Evenly over the delay ± the jitter.
    #[default]
    Uniform,
    /// Normally, with the jitter as standard deviation; never below zero.
    Normal,
    /// The delay, and on top of it an exponential one with the jitter as its mean.
    Exponential,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Uniform => "uniform",
            Self::Normal => "normal",
            Self::Exponential => "exponential",
        })
    }
}

/// Which way of a dropped exchange gets lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// One or the other, as likely, by seed.
    #[default]
    Either,
    /// The request: the target never sees it.
    Before,
    /// The answer: the target has done what was asked, and the worker does not know.
    After,
}

/// What goes wrong, with its figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "lowercase")]
pub enum FaultKind {
    /// Nothing.
    None,
    /// Every request is held before it is forwarded.
    Latency {
        /// For so long in the mean.
        delay: Micros,
        /// How far the delay scatters.
        jitter: Micros,
        /// In which way.
        distribution: Distribution,
    },
    /// Some connections are reset.
    Drop {
        /// How many of the requests.
        ratio: Ratio,
        /// Before or after the request was forwarded.
        side: Side,
    },
    /// For a while nothing gets through: connections are reset before the request is forwarded.
    Disconnect {
        /// How long.
        refuse: Micros,
        /// From the start of one such window to the start of the next; once when absent.
        every: Option<Micros>,
    },
}

/// When in a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Window {
    /// Offset from T0.
    pub from: Micros,
    /// Offset from T0; the end of the cell when absent.
    pub to: Option<Micros>,
}

impl Window {
    /// Whether it is the whole cell.
    pub fn is_whole(self) -> bool {
        self == Self::default()
    }
}

/// One fault: what, where and when.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fault {
    /// What goes wrong.
    #[serde(flatten)]
    pub kind: FaultKind,
    /// Posts to these routes are hit; none of them for the fault that is none.
    pub routes: BTreeSet<Route>,
    /// When.
    pub window: Window,
}

/// What becomes of one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fate", content = "us", rename_all = "snake_case")]
pub enum Fate {
    /// It passes unharmed.
    Pass,
    /// It is held for so long, then passes.
    Delay(Micros),
    /// It is read, and the connection reset; the target never sees it.
    DropRequest,
    /// The target answers it, and the connection is reset.
    DropAnswer,
    /// As `DropRequest`, in a window in which nothing passes.
    Refuse,
}

impl Fate {
    /// Whether a fault hit it.
    pub fn is_harmed(self) -> bool {
        self != Self::Pass
    }
}

impl Fault {
    /// No fault.
    pub fn none() -> Self {
        Self { kind: FaultKind::None, routes: BTreeSet::new(), window: Window::default() }
    }

    /// A fault of the default routes, for the whole cell.
    pub fn whole_cell(kind: FaultKind) -> Self {
        Self { kind, routes: Route::FAULTY.into(), window: Window::default() }
    }

    /// Its kind without the figures.
    pub fn mode(&self) -> FaultMode {
        match self.kind {
            FaultKind::None => FaultMode::None,
            FaultKind::Latency { .. } => FaultMode::Latency,
            FaultKind::Drop { .. } => FaultMode::Drop,
            FaultKind::Disconnect { .. } => FaultMode::Disconnect,
        }
    }

    /// Whether there is none.
    pub fn is_none(&self) -> bool {
        self.kind == FaultKind::None
    }

    /// The levels of a mode of which the matrix gives no figures: the runbook's.
    pub fn default_levels(mode: FaultMode) -> Vec<Self> {
        let latency = |ms: u64| FaultKind::Latency {
            delay: Micros(ms * 1_000),
            jitter: Micros(ms * 1_000 / 25),
            distribution: Distribution::Uniform,
        };
        let drop = |percent| FaultKind::Drop { ratio: Ratio::percent(percent), side: Side::Either };
        match mode {
            FaultMode::None => vec![Self::none()],
            FaultMode::Latency => vec![Self::whole_cell(latency(250)), Self::whole_cell(latency(1_000))],
            FaultMode::Drop => vec![Self::whole_cell(drop(2)), Self::whole_cell(drop(5))],
            FaultMode::Disconnect => {
                let kind = FaultKind::Disconnect { refuse: Micros(2_000_000), every: None };
                let window = Window { from: Micros(1_000_000), to: None };
                vec![Self { window, ..Self::whole_cell(kind) }]
            }
        }
    }

    /// Whether it is at work `since` after T0; `None` is before T0, when only a fault of the whole
    /// cell is.
    pub fn is_active(&self, since: Option<Micros>) -> bool {
        let Some(since) = since else {
            return self.window.is_whole()
                && !matches!(self.kind, FaultKind::None | FaultKind::Disconnect { .. });
        };
        let Window { from, to } = self.window;
        if since < from || to.is_some_and(|to| since >= to) {
            return false;
        }
        match self.kind {
            FaultKind::None => false,
            FaultKind::Latency { .. } | FaultKind::Drop { .. } => true,
            FaultKind::Disconnect { refuse, every } => {
                let into = since.saturating_sub(from);
                let into = every.filter(|e| *e > Micros::ZERO).map_or(into, |e| Micros(into.0 % e.0));
                into < refuse
            }
        }
    }

    /// The stretches `[from, to)` after T0 in which it is at work, when the cell (or the fault's
    /// hold on it) ends at `end`. At most a thousand.
    pub fn stretches(&self, end: Micros) -> Vec<(Micros, Micros)> {
        let Window { from, to } = self.window;
        let end = to.map_or(end, |to| to.min(end));
        let mut all = Vec::new();
        match self.kind {
            FaultKind::None => {}
            FaultKind::Latency { .. } | FaultKind::Drop { .. } => all.push((from, end)),
            FaultKind::Disconnect { refuse, every } => {
                let mut start = from;
                while start < end && all.len() < 1_000 {
                    all.push((start, (start + refuse).min(end)));
                    match every {
                        Some(every) if every > Micros::ZERO => start += every,
                        _ => break,
                    }
                }
            }
        }
        all.retain(|(from, to)| from < to);
        all
    }

    /// What becomes of the `nth` request that comes its way while it is at work, from 0.
    pub fn fate(&self, seed: u64, nth: u64) -> Fate {
        // One stream of the generator for each request: the nth needs none of those before it.
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        rng.set_stream(nth);
        match self.kind {
            FaultKind::None => Fate::Pass,
            FaultKind::Latency { delay, jitter, distribution } => {
                Fate::Delay(delayed(delay, jitter, distribution, &mut rng))
            }
            FaultKind::Drop { ratio, side } => {
                let hit = rng.random_range(0..1_000_000) < ratio.0;
                let lose_request = rng.random::<bool>();
                match side {
                    _ if !hit => Fate::Pass,
                    Side::Before => Fate::DropRequest,
                    Side::After => Fate::DropAnswer,
                    Side::Either if lose_request => Fate::DropRequest,
                    Side::Either => Fate::DropAnswer,
                }
            }
            FaultKind::Disconnect { .. } => Fate::Refuse,
        }
    }
}

fn delayed(delay: Micros, jitter: Micros, distribution: Distribution, rng: &mut impl Rng) -> Micros {
    if jitter == Micros::ZERO {
        return delay;
    }
    let (mean, spread) = (delay.0 as f64, jitter.0 as f64);
    let us = match distribution {
        Distribution::Uniform => mean + spread * (2.0 * rng.random::<f64>() - 1.0),
        Distribution::Normal => {
            // Box and Muller, Ann. Math. Statist. 29 (1958) 610: one of the two they yield.
            let (u, v): (f64, f64) = (rng.sample(Open01), rng.sample(Open01));
            mean + spread * (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
        }
        Distribution::Exponential => mean - spread * rng.sample::<f64, _>(Open01).ln(),
    };
    Micros(us.round().max(0.0) as u64)
}

/// For people: `none`, `latency +250 ms ± 10.0 ms`, `drop 2 %`, `disconnect 2.00 s every 10.00 s`.
impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = match self.kind {
            FaultKind::None => "none".into(),
            FaultKind::Latency { delay, jitter: Micros::ZERO, .. } => format!("latency +{delay}"),
            FaultKind::Latency { delay, jitter, distribution: Distribution::Uniform } => {
                format!("latency +{delay} ± {jitter}")
            }
            FaultKind::Latency { delay, jitter, distribution } => {
                format!("latency +{delay} ± {jitter} {distribution}")
            }
            FaultKind::Drop { ratio, side: Side::Either } => format!("drop {ratio}"),
            FaultKind::Drop { ratio, side: Side::Before } => format!("drop {ratio} of requests"),
            FaultKind::Drop { ratio, side: Side::After } => format!("drop {ratio} of answers"),
            FaultKind::Disconnect { refuse, every: None } => format!("disconnect {refuse}"),
            FaultKind::Disconnect { refuse, every: Some(every) } => {
                format!("disconnect {refuse} every {every}")
            }
        };
        if !self.is_none() {
            let Window { from, to } = self.window;
            match to {
                Some(to) => text += &format!(" from {from} to {to}"),
                None if from > Micros::ZERO => text += &format!(" from {from}"),
                None => {}
            }
            if !self.routes.iter().eq(&Route::FAULTY) {
                let routes: Vec<&str> = self.routes.iter().map(|r| r.path()).collect();
                text += &format!(" on {}", routes.join(" "));
            }
        }
        f.pad(&text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn latency(distribution: Distribution) -> Fault {
        let (delay, jitter) = (Micros(250_000), Micros(20_000));
        Fault::whole_cell(FaultKind::Latency { delay, jitter, distribution })
    }

    fn drop(percent: u32, side: Side) -> Fault {
        Fault::whole_cell(FaultKind::Drop { ratio: Ratio::percent(percent), side })
    }

    #[test]
    fn the_seed_decides_and_nothing_else() {
        let fault = drop(5, Side::Either);
        let fates = |seed| (0..500).map(|n| fault.fate(seed, n)).collect::<Vec<_>>();
        assert_eq!(fates(7), fates(7));
        assert_ne!(fates(7), fates(8));
        assert_eq!(fates(7)[321], fault.fate(7, 321), "in any order");
    }

    #[test]
    fn as_many_are_dropped_as_asked_for_and_both_ways() {
        let fates: Vec<Fate> = (0..100_000).map(|n| drop(5, Side::Either).fate(3, n)).collect();
        let count = |f| fates.iter().filter(|x| **x == f).count() as f64;
        // Five standard deviations of a binomial share.
        for fate in [Fate::DropRequest, Fate::DropAnswer] {
            assert!((count(fate) / 1e5 - 0.025).abs() < 0.0025, "{fate:?}");
        }
        assert!((0..1_000).all(|n| drop(100, Side::After).fate(3, n) == Fate::DropAnswer));
    }

    #[test]
    fn delays_scatter_as_asked_for() {
        for (distribution, mean, deviation) in [
            (Distribution::Uniform, 250e3, 20e3 / 3f64.sqrt()),
            (Distribution::Normal, 250e3, 20e3),
            (Distribution::Exponential, 270e3, 20e3),
        ] {
            let us: Vec<f64> = (0..20_000)
                .map(|n| match latency(distribution).fate(1, n) {
                    Fate::Delay(d) => d.0 as f64,
                    other => panic!("{other:?}"),
                })
                .collect();
            let m = us.iter().sum::<f64>() / us.len() as f64;
            let s = (us.iter().map(|x| (x - m).powi(2)).sum::<f64>() / us.len() as f64).sqrt();
            assert!(
                (m - mean).abs() < 1_000.0 && (s / deviation - 1.0).abs() < 0.05,
                "{distribution} {m} {s}"
            );
        }
    }

    #[test]
    fn a_disconnect_repeats_within_its_window() {
        let kind = FaultKind::Disconnect { refuse: Micros(10), every: Some(Micros(50)) };
        let window = Window { from: Micros(100), to: Some(Micros(205)) };
        let fault = Fault { window, ..Fault::whole_cell(kind) };
        let all = [(100, 110), (150, 160), (200, 205)].map(|(a, b)| (Micros(a), Micros(b)));
        assert_eq!(fault.stretches(Micros(1_000)), all);
        assert!(!fault.is_active(None));
    }

    #[test]
    fn it_reads_as_a_person_would_say_it() {
        let said: Vec<String> = [FaultMode::None, FaultMode::Latency, FaultMode::Drop, FaultMode::Disconnect]
            .into_iter()
            .flat_map(Fault::default_levels)
            .map(|f| f.to_string())
            .collect();
        assert_eq!(
            said,
            [
                "none",
                "latency +250 ms ± 10.0 ms",
                "latency +1.00 s ± 40.0 ms",
                "drop 2 %",
                "drop 5 %",
                "disconnect 2.00 s from 1.00 s"
            ]
        );
    }

    #[test]
    fn shares_are_read() {
        assert_eq!("2%".parse(), Ok(Ratio::percent(2)));
        assert_eq!("0.05".parse(), Ok(Ratio::percent(5)));
        assert!(["0", "0%", "101%", "-1", "x", "nan", ""].iter().all(|t| t.parse::<Ratio>().is_err()));
    }

    proptest! {
        #[test]
        fn it_is_active_exactly_in_its_stretches(
            from in 0u64..100, to in 0u64..300, refuse in 1u64..40, every in 40u64..90, at in 0u64..400
        ) {
            let kind = FaultKind::Disconnect { refuse: Micros(refuse), every: Some(Micros(every)) };
            let window = Window { from: Micros(from), to: Some(Micros(to)) };
            let fault = Fault { window, ..Fault::whole_cell(kind) };
            let at = Micros(at);
            let inside = fault.stretches(Micros(1_000)).iter().any(|(a, b)| (*a..*b).contains(&at));
            prop_assert_eq!(fault.is_active(Some(at)), inside);
        }

        #[test]
        fn it_survives_the_wire(percent in 1u32..=100, from in 0u64..9) {
            let window = Window { from: Micros(from), to: None };
            let fault = Fault { window, ..drop(percent, Side::Before) };
            let text = serde_json::to_string(&fault).unwrap();
            prop_assert!(text.contains("\"mode\":\"drop\""));
            prop_assert_eq!(serde_json::from_str::<Fault>(&text).unwrap(), fault);
        }
    }
}
