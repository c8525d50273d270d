//! A fault in one cell: what was ordered, what was done, and the proof that it showed while it
//! should and only then.

use serde::{Deserialize, Serialize};

use crate::{fault::Fault, micros::Micros, post::Fates};

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
    /// The stretches after T0 in which it was at work.
    pub fn stretches(&self) -> Vec<(Micros, Micros)> {
        self.fault.stretches(self.cleared)
    }
}
