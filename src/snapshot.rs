//! What was measured in a stretch of a cell, and how stretches add up.
//!
//! A worker sends a [`Frame`] a second with what is new, and at the end one with a digest of it all.
//! Merging is associative and commutative, and an empty stretch changes nothing, so frames may be
//! added in any order and grouping. It is long because what a frame carries is told in one place.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{Hash, Hasher},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    histogram::Histogram,
    micros::Micros,
    scenario::hex,
    series::Series,
    timeline::{JobOutcome, JobState, JobTimeline},
};

/// When in a cell a request was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Before the clock started: accounts and sessions.
    Setup,
    /// Between T0 and the last job's outcome: the measurement.
    Load,
    /// Afterwards: making the target quiet and asking for its own list.
    Settle,
}

impl Phase {
    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Load => "load",
            Self::Settle => "settle",
        }
    }
}

/// Which requests are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RequestKey {
    /// When.
    pub phase: Phase,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub name: String,
}

/// The requests of one key.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RequestStats {
    /// Response times (sending to last byte) of those that succeeded.
    pub ok: Histogram,
    /// Sending to the head of the answer, of those that succeeded.
    pub first_byte: Histogram,
    /// Response times of those that failed, as far as they got.
    pub failed: Histogram,
    /// How many answers had each status.
    pub statuses: BTreeMap<u16, u64>,
    /// Bytes sent, heads included.
    pub sent_bytes: u64,
    /// Bytes received on the wire, heads and framing included.
    pub wire_bytes: u64,
    /// Bytes of the answers' bodies.
    pub body_bytes: u64,
    /// TCP connections opened for them.
    pub connects: u64,
}

impl RequestStats {
    /// All of them, failed ones included.
    pub fn count(&self) -> u64 {
        self.ok.count() + self.failed.count()
    }

    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.ok.merge(&other.ok);
        self.first_byte.merge(&other.first_byte);
        self.failed.merge(&other.failed);
        for (status, n) in &other.statuses {
            *self.statuses.entry(*status).or_default() += n;
        }
        self.sent_bytes += other.sent_bytes;
        self.wire_bytes += other.wire_bytes;
        self.body_bytes += other.body_bytes;
        self.connects += other.connects;
    }
}

/// Which failures are counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ErrorKey {
    /// When in the cell.
    pub phase: Phase,
    /// HTTP method.
    pub method: String,
    /// Path without query.
    pub name: String,
    /// What went wrong, free of ids so that like counts with like.
    pub error: String,
}

/// How often a failure occurred. Times are Unix microseconds of the worker's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ErrorStats {
    /// How often.
    pub count: u64,
    /// First time.
    pub first: u64,
    /// Last time.
    pub last: u64,
}

impl ErrorStats {
    /// Adds those of `other`.
    pub fn merge(&mut self, other: &Self) {
        self.count += other.count;
        self.first = self.first.min(other.first);
        self.last = self.last.max(other.last);
    }
}

/// The results of a job, read whole and checked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Results {
    /// The id by which the target's workers know the job, where the target tells it.
    #[serde(default)]
    pub simulation: Option<u64>,
    /// Bytes on the wire.
    pub wire_bytes: u64,
    /// Bytes of the body.
    pub body_bytes: u64,
    /// Estimators in it.
    pub estimators: u32,
    /// Pages of all estimators.
    pub pages: u32,
    /// Numbers in all pages.
    pub values: u64,
    /// Estimators, and pages of one estimator, that stand there more than once.
    pub duplicates: u32,
    /// SHA-256 over names and dimensions, in hex: equal for jobs of one input.
    pub shape: String,
    /// SHA-256 of the body, in hex.
    pub sha256: String,
}

/// How the tasks of a job stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TaskCounts {
    /// All of them.
    pub all: u32,
    /// COMPLETED.
    pub completed: u32,
    /// FAILED.
    pub failed: u32,
}

/// Which job of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobKey {
    /// Whose.
    pub user: u32,
    /// Its how many-th in this cell, from 0.
    pub nth: u32,
}

/// One job, ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Job {
    /// The worker that ran the user.
    pub worker: u32,
    /// The id the target gave it, when it was accepted.
    pub job_id: Option<String>,
    /// The title it was submitted with, by which the target's own list is reconciled.
    pub title: String,
    /// How it ended.
    pub outcome: JobOutcome,
    /// What was clocked and seen.
    pub timeline: JobTimeline,
    /// Body of the submit in bytes.
    pub submit_bytes: u64,
    /// Its tasks, as the last poll that told of them saw them.
    #[serde(default)]
    pub tasks: Option<TaskCounts>,
    /// What was fetched.
    pub results: Option<Results>,
    /// Changes of state against the order: (from, to).
    pub backwards: Vec<(JobState, JobState)>,
    /// State names that we do not know.
    pub unknown_states: BTreeSet<String>,
    /// What came of our canceling it, when we gave it up.
    pub cancel: Option<Cancel>,
}

impl Job {
    /// A job of which nothing is known yet but how it will be counted.
    pub fn new(worker: u32, title: String, outcome: JobOutcome) -> Self {
        Self {
            worker,
            job_id: None,
            title,
            outcome,
            timeline: JobTimeline::default(),
            submit_bytes: 0,
            tasks: None,
            results: None,
            backwards: Vec::new(),
            unknown_states: BTreeSet::new(),
            cancel: None,
        }
    }
}

/// The target's answer to a cancel.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cancel {
    /// It was not terminal before and is canceled now.
    Done,
    /// It was in that state, which cannot be canceled.
    TooLate(String),
    /// It was refused, or there was no answer: why.
    Refused(String),
}

/// A job as the target's own list has it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Listed {
    /// Its title.
    pub title: String,
    /// Whether the target says when it ended.
    pub end_time: Option<String>,
}

/// The target's own account of our jobs, asked for when the cell is over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TargetView {
    /// Its jobs with a title of this cell, by job id.
    pub listed: BTreeMap<String, Listed>,
    /// Accounts whose list was read.
    pub accounts_read: u32,
    /// Why a list could not be read.
    pub errors: BTreeSet<String>,
    /// Jobs that were not terminal when we stopped waiting: id → state.
    pub unfinished: BTreeMap<String, String>,
}

/// How well the generator itself did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Health {
    /// How late planned waits ended.
    pub lag: Histogram,
    /// CPU time of the load threads.
    pub cpu: Micros,
    /// Time during which they could have used a core each.
    pub capacity: Micros,
    /// Most sockets open at once on one worker.
    pub sockets: u64,
    /// Sum over users of the time from their start to their end in this cell.
    pub user_time: Micros,
    /// Of it, time with a request in flight.
    pub in_flight: Micros,
    /// Of it, time waiting on purpose, up to the moment the wait really ended.
    pub waiting: Micros,
    /// Of it, time checking results.
    pub checking: Micros,
}

impl Health {
    /// Adds another stretch.
    pub fn merge(&mut self, other: &Self) {
        self.lag.merge(&other.lag);
        self.cpu += other.cpu;
        self.capacity += other.capacity;
        self.sockets = self.sockets.max(other.sockets);
        self.user_time += other.user_time;
        self.in_flight += other.in_flight;
        self.waiting += other.waiting;
        self.checking += other.checking;
    }

    /// Share of the load threads' cores that was used, 0 to 1; 0 when unknown.
    pub fn cpu_share(&self) -> f64 {
        ratio(self.cpu, self.capacity)
    }

    /// Little's law over users (users = throughput × (response time + waits)): the share of their
    /// time that neither a request, nor a wait, nor the check of results accounts for, 0 to 1. It
    /// is the generator's own work between requests.
    pub fn unaccounted(&self) -> f64 {
        ratio(self.user_time.saturating_sub(self.in_flight + self.waiting + self.checking), self.user_time)
    }
}

fn ratio(part: Micros, whole: Micros) -> f64 {
    if whole == Micros::ZERO { 0.0 } else { part.0 as f64 / whole.0 as f64 }
}

/// Live counts for the progress line. Changes, so that they add up over workers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Progress {
    /// Jobs submitted.
    pub submitted: u64,
    /// Jobs seen to start running, less those that left that state.
    pub running: i64,
    /// Jobs fetched.
    pub done: u64,
    /// Jobs that ended otherwise.
    pub failed: u64,
}

/// Everything measured in a stretch of a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Totals {
    /// Requests by kind.
    #[serde(with = "pairs")]
    pub requests: BTreeMap<RequestKey, RequestStats>,
    /// Failures by kind.
    #[serde(with = "pairs")]
    pub errors: BTreeMap<ErrorKey, ErrorStats>,
    /// Load-phase requests second by second.
    pub series: Series,
    /// Jobs that ended.
    #[serde(with = "pairs")]
    pub jobs: BTreeMap<JobKey, Job>,
    /// Live counts.
    pub progress: Progress,
    /// The generator.
    pub health: Health,
    /// The target's own list.
    pub target: TargetView,
}

impl Totals {
    /// Adds another stretch. Jobs are a set: one that is already there stays.
    pub fn merge(&mut self, other: Self) {
        for (key, stats) in other.requests {
            self.requests.entry(key).or_default().merge(&stats);
        }
        for (key, e) in other.errors {
            self.errors.entry(key).and_modify(|ours| ours.merge(&e)).or_insert(e);
        }
        self.series.merge(&other.series);
        for (key, job) in other.jobs {
            self.jobs.entry(key).or_insert(job);
        }
        self.progress.submitted += other.progress.submitted;
        self.progress.running += other.progress.running;
        self.progress.done += other.progress.done;
        self.progress.failed += other.progress.failed;
        self.health.merge(&other.health);
        self.target.listed.extend(other.target.listed);
        self.target.accounts_read += other.target.accounts_read;
        self.target.errors.extend(other.target.errors);
        self.target.unfinished.extend(other.target.unfinished);
    }

    /// A digest of everything in it: two with the same one hold the same.
    pub fn fingerprint(&self) -> Fingerprint {
        let mut digest = Digest::default();
        self.hash(&mut digest);
        Fingerprint(hex(&digest.0.finalize()))
    }

    /// Requests of one phase.
    pub fn phase(&self, phase: Phase) -> impl Iterator<Item = (&RequestKey, &RequestStats)> {
        self.requests.iter().filter(move |(k, _)| k.phase == phase)
    }
}

/// SHA-256 over [`Totals`], in hex. Their parts are hashed as Rust lays them out, so that only equal
/// builds agree on it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

#[derive(Default)]
struct Digest(Sha256);

impl Hasher for Digest {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        unreachable!("a digest has more bits than that")
    }
}

/// One numbered message of measurements from a worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Frame {
    /// The cell it measures.
    pub cell: u32,
    /// The worker that measured.
    pub worker: u32,
    /// The epoch in which that worker had its lease.
    pub epoch: u64,
    /// 1, 2, 3, … without gaps.
    pub seq: u64,
    /// What is new since the frame before, or the end.
    pub body: FrameBody,
}

impl Frame {
    /// Whether there is none after it.
    pub fn is_final(&self) -> bool {
        matches!(self.body, FrameBody::Final(_))
    }
}

/// The two kinds of frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameBody {
    /// What is new.
    Delta(Box<Totals>),
    /// What all deltas together must be; its `seq` is the last. The totals themselves would be as large
    /// as all frames before, sent by all workers in the moment in which a cell ends.
    Final(Fingerprint),
}

/// Maps with structured keys as lists of pairs, since JSON keys are text.
mod pairs {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<K: Serialize, V: Serialize, S: Serializer>(
        map: &BTreeMap<K, V>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(map)
    }

    pub(super) fn deserialize<'de, K, V, D>(from: D) -> Result<BTreeMap<K, V>, D::Error>
    where
        K: Deserialize<'de> + Ord,
        V: Deserialize<'de>,
        D: Deserializer<'de>,
    {
        Ok(Vec::<(K, V)>::deserialize(from)?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{
        collection::vec,
        prelude::{Strategy, any, prop_assert_eq, proptest},
    };

    use super::*;

    /// A stretch made of random events, each with a key of its own where keys must not clash.
    fn stretch() -> impl Strategy<Value = Totals> {
        let request = (0u8..3, 1u64..1_000_000, any::<bool>());
        (vec(request, 0..12), vec((0u32..50, 0u32..3), 0..6)).prop_map(|(requests, jobs)| {
            let mut t = Totals::default();
            for (kind, us, ok) in requests {
                let key = RequestKey { phase: Phase::Load, method: "GET".into(), name: format!("/{kind}") };
                let stats = t.requests.entry(key).or_default();
                let histogram = if ok { &mut stats.ok } else { &mut stats.failed };
                histogram.record(Micros(us));
                t.series.at(Micros(us * 7)).ok.record(Micros(us));
                t.health.lag.record(Micros(us / 100));
                t.health.user_time += Micros(us);
                t.health.sockets = t.health.sockets.max(us % 17);
                if !ok {
                    let key = ErrorKey {
                        phase: Phase::Load,
                        method: "GET".into(),
                        name: "/".into(),
                        error: format!("e{kind}"),
                    };
                    t.merge(Totals {
                        errors: [(key, ErrorStats { count: 1, first: us, last: us })].into(),
                        ..Totals::default()
                    });
                }
            }
            for (user, nth) in jobs {
                let job = Job {
                    job_id: Some(format!("{user}-{nth}")),
                    submit_bytes: u64::from(user),
                    ..Job::new(0, format!("t{user}-{nth}"), JobOutcome::Fetched)
                };
                t.progress.submitted += 1;
                t.jobs.insert(JobKey { user, nth }, job);
            }
            t
        })
    }

    fn sum(parts: impl IntoIterator<Item = Totals>) -> Totals {
        parts.into_iter().fold(Totals::default(), |mut all, t| {
            all.merge(t);
            all
        })
    }

    proptest! {
        #[test]
        fn stretches_add_up_in_any_order_and_grouping(a in stretch(), b in stretch(), c in stretch()) {
            let all = sum([a.clone(), b.clone(), c.clone()]);
            prop_assert_eq!(&sum([c.clone(), a.clone(), b.clone()]), &all);
            prop_assert_eq!(&sum([a.clone(), sum([b, c])]), &all);
            prop_assert_eq!(&sum([a.clone(), Totals::default()]), &a);
        }

        #[test]
        fn a_frame_survives_the_wire(t in stretch(), seq: u64) {
            let frame = Frame { cell: 1, worker: 2, epoch: 3, seq, body: FrameBody::Delta(Box::new(t)) };
            let text = serde_json::to_vec(&frame).unwrap();
            prop_assert_eq!(serde_json::from_slice::<Frame>(&text).unwrap(), frame);
        }
    }
}
