//! The posts to one route, added up.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    fault::Fate,
    histogram::Histogram,
    micros::Micros,
    post::{Ending, Fates, Post},
};

/// The posts to one route. A body is a set of posts with one hash: a post and its repetitions.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoutePosts {
    /// Those that began.
    pub attempted: u64,
    /// Those that never came whole, so that nobody can tell whether they were repeated.
    pub cut: u64,
    /// Distinct bodies among those that came whole.
    pub bodies: u64,
    /// What a fault did to them; `passed` is the rest, in a cell without a fault all of them.
    pub fates: Fates,
    /// How they ended.
    pub endings: BTreeMap<Ending, u64>,
    /// Statuses of the target's answers, passed on or not.
    pub statuses: BTreeMap<u16, u64>,
    /// Those that the target answered with a status other than 2xx.
    pub errors: u64,
    /// Posts beyond the first of each body.
    pub repeated: u64,
    /// Of them, those whose predecessor's worker had not been told of a 2xx answer.
    pub retried: u64,
    /// Bodies that the target never accepted.
    pub lost: u64,
    /// Bodies that the target accepted without the worker ever learning of it.
    pub answers_lost: u64,
    /// Posts of which the target said that it had answered them before.
    pub replayed: u64,
    /// Of answered ones: what the worker waited, from the receipt of the head to the answer's end.
    pub took: Histogram,
    /// What the target took, from sending the head on to the last byte of its answer.
    pub served: Histogram,
    /// Of delayed ones: how long they really were held.
    pub held: Histogram,
    /// Size and duration of those that were accepted or answered, in the order of their receipt.
    pub payloads: Vec<Carried>,
}

/// The size of a body and how long its post took; two numbers in files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Carried(
    /// Bytes.
    pub u64,
    /// What the worker waited.
    pub Micros,
);

impl Carried {
    pub(super) fn of(post: &Post) -> Option<Self> {
        let arrived = post.is_accepted() || post.ending == Ending::Answered;
        arrived.then(|| Self(post.bytes, post.took()))
    }
}

impl RoutePosts {
    /// Counts what one post tells on its own.
    pub(super) fn count(&mut self, post: &Post) {
        self.attempted += 1;
        self.cut += u64::from(post.hash.is_none());
        self.fates.count(post.fate);
        *self.endings.entry(post.ending).or_default() += 1;
        if let Some(status) = post.status {
            *self.statuses.entry(status).or_default() += 1;
            self.errors += u64::from(!post.is_accepted());
        }
        self.replayed += u64::from(post.replayed);
        if post.ending == Ending::Answered {
            self.took.record(post.took());
        }
        if let Some(served) = post.served() {
            self.served.record(served);
        }
        if let (Fate::Delay(_), Some(forwarded)) = (post.fate, post.forwarded) {
            self.held.record(forwarded.saturating_sub(post.received));
        }
    }

    /// Adds those of `other`: another route's, or the same route's in another cell. Single payloads
    /// stay where they are.
    pub fn merge(&mut self, other: &Self) {
        let f = &other.fates;
        self.attempted += other.attempted;
        self.cut += other.cut;
        self.bodies += other.bodies;
        self.fates.passed += f.passed;
        self.fates.delayed += f.delayed;
        self.fates.requests_dropped += f.requests_dropped;
        self.fates.answers_dropped += f.answers_dropped;
        self.fates.refused += f.refused;
        for (ending, n) in &other.endings {
            *self.endings.entry(*ending).or_default() += n;
        }
        for (status, n) in &other.statuses {
            *self.statuses.entry(*status).or_default() += n;
        }
        self.errors += other.errors;
        self.repeated += other.repeated;
        self.retried += other.retried;
        self.lost += other.lost;
        self.answers_lost += other.answers_lost;
        self.replayed += other.replayed;
        self.took.merge(&other.took);
        self.served.merge(&other.served);
        self.held.merge(&other.held);
    }
}
