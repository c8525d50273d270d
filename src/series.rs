//! What happened in each second of a cell.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{histogram::Histogram, micros::Micros};

/// One second, from T0 + n to T0 + n + 1; a request belongs to the second it ended in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Second {
    /// Response times of requests that succeeded.
    #[serde(skip_serializing_if = "nothing")]
    #[serde(default)]
    pub ok: Histogram,
    /// Response times of requests that failed.
    #[serde(skip_serializing_if = "nothing")]
    #[serde(default)]
    pub failed: Histogram,
    /// Bytes of the answers' bodies.
    #[serde(default)]
    pub body_bytes: u64,
    /// Jobs submitted less jobs ended, in this second.
    #[serde(default)]
    pub jobs_change: i64,
}

impl Second {
    /// Adds another worker's, or another cell's, share of the second.
    pub fn merge(&mut self, other: &Self) {
        self.ok.merge(&other.ok);
        self.failed.merge(&other.failed);
        self.body_bytes += other.body_bytes;
        self.jobs_change += other.jobs_change;
    }
}

fn nothing(h: &Histogram) -> bool {
    h.count() == 0
}

/// The seconds of a cell by their number; empty ones are left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Series(pub BTreeMap<u64, Second>);

impl Series {
    /// The second that holds this moment.
    pub fn at(&mut self, moment: Micros) -> &mut Second {
        self.0.entry(Self::number(moment)).or_default()
    }

    /// The number of the second that holds this moment.
    pub fn number(moment: Micros) -> u64 {
        moment.0 / 1_000_000
    }

    /// Adds another series second by second. Associative and commutative.
    pub fn merge(&mut self, other: &Self) {
        for (n, theirs) in &other.0 {
            self.0.entry(*n).or_default().merge(theirs);
        }
    }
}
