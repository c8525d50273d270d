//! A level of a fault as it is written in a matrix file.

use serde::{Deserialize, Deserializer, de};

use crate::{
    fault::{Distribution, Fault, FaultKind, FaultMode, Ratio, Side, Window},
    micros::{self, Micros},
    route::Route,
};

/// Delays and windows are within these bounds.
const LEAST: Micros = Micros(1_000);
const MOST: Micros = Micros(3_600_000_000);

/// Every key that a level of any mode may have.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct LevelRow {
    delay: Option<Span>,
    jitter: Option<Span>,
    distribution: Option<Distribution>,
    ratio: Option<Share>,
    side: Option<Side>,
    refuse: Option<Span>,
    every: Option<Span>,
    routes: Option<Vec<Route>>,
    from: Option<Span>,
    to: Option<Span>,
}

/// A time with its unit.
#[derive(Debug, Clone, Copy)]
struct Span(Micros);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        let problem = || de::Error::custom("write a time with its unit, such as \"250ms\" or \"1s\"");
        micros::parse(&text).map(Self).ok_or_else(problem)
    }
}

/// `"2%"` or `0.02`.
#[derive(Debug, Clone, Copy)]
struct Share(Ratio);

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = match toml::Value::deserialize(from)? {
            toml::Value::String(text) => text,
            other => other.to_string(),
        };
        text.parse().map(Self).map_err(de::Error::custom)
    }
}

impl LevelRow {
    /// The fault that it describes, when its keys are those of the mode.
    pub(super) fn fault(self, mode: FaultMode) -> Result<Fault, String> {
        let given = [
            ("delay", self.delay.is_some(), FaultMode::Latency),
            ("jitter", self.jitter.is_some(), FaultMode::Latency),
            ("distribution", self.distribution.is_some(), FaultMode::Latency),
            ("ratio", self.ratio.is_some(), FaultMode::Drop),
            ("side", self.side.is_some(), FaultMode::Drop),
            ("refuse", self.refuse.is_some(), FaultMode::Disconnect),
            ("every", self.every.is_some(), FaultMode::Disconnect),
        ];
        if let Some((key, ..)) = given.into_iter().find(|(_, is_given, of)| *is_given && *of != mode) {
            return Err(format!("{key} is not for {mode}"));
        }
        let needed = |name: &str, span: Option<Span>| {
            let Span(span) = span.ok_or_else(|| format!("{name} is needed for {mode}"))?;
            if (LEAST..=MOST).contains(&span) { Ok(span) } else { Err(format!("{name} must be 1ms to 1h")) }
        };
        let kind = match mode {
            FaultMode::None => FaultKind::None,
            FaultMode::Latency => {
                let delay = needed("delay", self.delay)?;
                let jitter = self.jitter.map_or(Micros::ZERO, |Span(span)| span);
                if jitter > delay {
                    return Err("jitter must not exceed the delay".into());
                }
                FaultKind::Latency { delay, jitter, distribution: self.distribution.unwrap_or_default() }
            }
            FaultMode::Drop => {
                let Share(ratio) = self.ratio.ok_or_else(|| format!("ratio is needed for {mode}"))?;
                FaultKind::Drop { ratio, side: self.side.unwrap_or_default() }
            }
            FaultMode::Disconnect => {
                let refuse = needed("refuse", self.refuse)?;
                let every = self.every.map(|Span(span)| span);
                if every.is_some_and(|every| every <= refuse) {
                    return Err("every must be longer than refuse".into());
                }
                FaultKind::Disconnect { refuse, every }
            }
        };
        let window =
            Window { from: self.from.map_or(Micros::ZERO, |Span(s)| s), to: self.to.map(|Span(s)| s) };
        if window.to.is_some_and(|to| to <= window.from) {
            return Err("to must be later than from".into());
        }
        let routes = self.routes.unwrap_or_else(|| Route::FAULTY.into());
        if routes.is_empty() {
            return Err("routes must name at least one of /tasks, /jobs, /results, /logfiles".into());
        }
        Ok(Fault { kind, routes: routes.into_iter().collect(), window })
    }
}
