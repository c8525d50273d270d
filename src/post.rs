//! One post of the target's own workers, as the tap saw it, and the words in which tap and run
//! speak with each other.
//!
//! All moments are on the tap's own monotonic clock, in microseconds since it started. They are
//! never compared with moments of another clock; durations are exact.

use serde::{Deserialize, Serialize};

use crate::{
    fault::{Fate, Fault},
    micros::Micros,
    route::Route,
    state::JobState,
};

/// The header that marks a canary; its value is the canary's number.
///
/// A canary goes the way of a worker's post and meets the fate that its number has, but is not
/// counted among the posts.
pub const CANARY: &str = "x-springtide-canary";

/// The fates of canaries are drawn apart from those of posts: number n has that of
/// `CANARY_STREAM | n`.
pub const CANARY_STREAM: u64 = 1 << 63;

/// The header by which a backend says that it had the answer to a repeated post already, and did
/// nothing again.
pub const REPLAYED: &str = "idempotency-replayed";

/// The first half of a body's SHA-256: tells bodies apart, and the body cannot be had from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BodyHash(pub [u8; 16]);

impl From<BodyHash> for String {
    fn from(hash: BodyHash) -> Self {
        crate::scenario::hex(&hash.0)
    }
}

impl TryFrom<String> for BodyHash {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let byte = |i: usize| text.get(2 * i..2 * i + 2).and_then(|two| u8::from_str_radix(two, 16).ok());
        let mut bytes = [0; 16];
        for (i, place) in bytes.iter_mut().enumerate() {
            *place = byte(i).ok_or_else(|| format!("{text:?} is not 32 hexadecimal digits"))?;
        }
        if text.len() == 32 { Ok(Self(bytes)) } else { Err(format!("{text:?} is not 32 hexadecimal digits")) }
    }
}

/// How an exchange ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// The target's answer was passed on whole.
    Answered,
    /// A fault cut it off: the request was never forwarded, or the answer not passed on.
    Faulted,
    /// The worker hung up before its request was whole.
    RequestCut,
    /// The target could not be reached, or gave no answer while the worker was there.
    NoAnswer,
    /// The answer began, and the target or the worker hung up before its end.
    AnswerCut,
}

/// One post.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// 1, 2, 3, … in the order in which exchanges ended.
    pub seq: u64,
    /// Where to.
    pub route: Route,
    /// Its number, if it is a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<u64>,
    /// The simulation it speaks of; `None` when the body is no JSON object that names one.
    pub simulation: Option<u64>,
    /// The index of the task it speaks of.
    pub task: Option<u64>,
    /// The state it sets, of a task or of a job; `None` for none and for an unknown name.
    pub state: Option<JobState>,
    /// Bytes of the body, as far as it came.
    pub bytes: u64,
    /// What was in it; `None` when it did not come whole.
    pub hash: Option<BodyHash>,
    /// Its head was read.
    pub received: Micros,
    /// Its head was sent on.
    pub forwarded: Option<Micros>,
    /// The head of the target's answer was read.
    pub first_byte: Option<Micros>,
    /// The last byte of the target's answer was read.
    pub last_byte: Option<Micros>,
    /// The exchange was over, one way or another.
    pub ended: Micros,
    /// Status of the target's answer, passed on or not.
    pub status: Option<u16>,
    /// Bytes of the answer's body, as far as it came.
    pub answer_bytes: u64,
    /// Whether the target says that it had answered this before ([`REPLAYED`]).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub replayed: bool,
    /// What was decided about it.
    pub fate: Fate,
    /// How it ended.
    pub ending: Ending,
}

impl Post {
    /// Whether the target took it in: a 2xx answer, whether the worker learned of it or not.
    pub fn is_accepted(&self) -> bool {
        self.status.is_some_and(|s| (200..300).contains(&s))
    }

    /// Whether the worker got a 2xx answer.
    pub fn is_told(&self) -> bool {
        self.is_accepted() && self.ending == Ending::Answered
    }

    /// From the receipt of its head to the end of the exchange: what the worker waited.
    pub fn took(&self) -> Micros {
        self.ended.saturating_sub(self.received)
    }

    /// From sending it on to the last byte of the answer: what the target took.
    pub fn served(&self) -> Option<Micros> {
        Some(self.last_byte?.saturating_sub(self.forwarded?))
    }
}

/// What a tap says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TapHello {
    /// springtide's version.
    pub version: String,
    /// Drawn when it started: another one means that it was started anew.
    pub boot: String,
    /// Where it sends everything on to.
    pub upstream: String,
    /// The most posts it keeps for readers.
    pub buffer: u64,
    /// The number that the next post will have.
    pub next: u64,
}

/// Posts since a number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Batch {
    /// Of which start of the tap.
    pub boot: String,
    /// The tap's clock.
    pub now: Micros,
    /// How many of the posts asked for are no longer kept.
    pub lost: u64,
    /// The posts, in order; a bounded number of them.
    pub posts: Vec<Post>,
    /// What to ask for next.
    pub next: u64,
    /// Whether there are more already.
    pub more: bool,
    /// Posts that are under way.
    pub in_flight: u64,
    /// When the heads of the posts that are under way were read, oldest first, at most 1,000;
    /// canaries are not among them. Tells posts of now from one that nobody ever finishes.
    pub under_way: Vec<Micros>,
}

/// A fault that a run wants in place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultOrder {
    /// Which run; another one cannot touch the fault while its lease lasts.
    pub run: String,
    /// Which cell of it.
    pub cell: u32,
    /// Of the decisions.
    pub seed: u64,
    /// What goes wrong.
    pub fault: Fault,
    /// The fault ends by itself when it is not renewed for so long.
    pub lease: Micros,
}

/// How many requests met which fate while a fault was at work; canaries are not among them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fates {
    /// Passed unharmed.
    pub passed: u64,
    /// Held.
    pub delayed: u64,
    /// Request lost.
    pub requests_dropped: u64,
    /// Answer lost.
    pub answers_dropped: u64,
    /// Refused.
    pub refused: u64,
}

impl Fates {
    /// Counts one.
    pub fn count(&mut self, fate: Fate) {
        *match fate {
            Fate::Pass => &mut self.passed,
            Fate::Delay(_) => &mut self.delayed,
            Fate::DropRequest => &mut self.requests_dropped,
            Fate::DropAnswer => &mut self.answers_dropped,
            Fate::Refuse => &mut self.refused,
        } += 1;
    }

    /// Adds others.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.delayed += other.delayed;
        self.requests_dropped += other.requests_dropped;
        self.answers_dropped += other.answers_dropped;
        self.refused += other.refused;
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        self.passed + self.harmed()
    }

    /// Those that a fault hit.
    pub fn harmed(&self) -> u64 {
        self.delayed + self.requests_dropped + self.answers_dropped + self.refused
    }
}

/// The fault in a tap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultStatus {
    /// Of which start of the tap.
    pub boot: String,
    /// The tap's clock.
    pub now: Micros,
    /// The order that stands; `None` when there is no fault.
    pub order: Option<FaultOrder>,
    /// T0 of the cell on the tap's clock, once it was told.
    pub t0: Option<Micros>,
    /// Whether the fault is at work at this moment.
    pub active: bool,
    /// What was decided under the order that stands, or under the last one.
    pub fates: Fates,
    /// The last order ended because its lease did.
    pub expired: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_reads_back() {
        let hash = BodyHash([0xab; 16]);
        let text = serde_json::to_string(&hash).unwrap();
        assert_eq!(serde_json::from_str::<BodyHash>(&text).unwrap(), hash);
        for bad in ["", "ab", &"zz".repeat(16), &"ab".repeat(17)] {
            assert!(BodyHash::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
