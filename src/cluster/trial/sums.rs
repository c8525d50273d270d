//! What many workers took down is, bucket by bucket, what one would have: from the recorder through
//! frames, in any order and some of them twice, to the cell that closes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use proptest::{
    collection::vec,
    prelude::{Just, ProptestConfig, Strategy, any, prop_assert_eq, prop_oneof, proptest},
    sample::select,
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use tokio::time::Instant;

use crate::{
    cluster::{
        coordinator::{Action, Closed, Coordinator, Event, Task},
        members::Wanted,
    },
    crew::{Member, Offset},
    micros::Micros,
    plan::{Plan, Settings},
    plane::{Report, Sent, message::trial::hello},
    recorder::{Recorder, Sample},
    scenario::Matrix,
    snapshot::{Frame, FrameBody, Job, JobKey, Phase, TargetView, Totals},
    target::{Endpoint, http::Exchange},
    timeline::{JobOutcome, JobState},
};

/// Something that a worker takes down.
#[derive(Debug, Clone)]
enum Deed {
    /// A request: when it was sent and how long it took, in microseconds.
    Request {
        phase: Phase,
        endpoint: Endpoint,
        sent: u64,
        took: u64,
        bytes: u64,
        fails: bool,
    },
    Submit {
        at: u64,
    },
    Job {
        ended: u64,
        fetched: bool,
    },
    Runs,
    Lag(u64),
    Time(u64),
    Cpu(u64),
    Sockets(u64),
    Listed,
}

fn deed() -> impl Strategy<Value = Deed> {
    let phase = select(vec![Phase::Setup, Phase::Load, Phase::Load, Phase::Settle]);
    // From a microsecond to more than the longest that is kept.
    let took = prop_oneof![0u64..50, 50u64..100_000, 100_000u64..60_000_000, 3_599_000_000u64..3_700_000_000];
    let request =
        (phase, select(Endpoint::ALL.to_vec()), 0u64..40_000_000, took, 0u64..10_000, any::<bool>());
    prop_oneof![
        12 => request.prop_map(|(phase, endpoint, sent, took, bytes, fails)| {
            Deed::Request { phase, endpoint, sent, took, bytes, fails }
        }),
        2 => (0u64..40_000_000).prop_map(|at| Deed::Submit { at }),
        2 => (0u64..40_000_000, any::<bool>()).prop_map(|(ended, fetched)| Deed::Job { ended, fetched }),
        1 => Just(Deed::Runs),
        1 => (0u64..200_000).prop_map(Deed::Lag),
        1 => (0u64..200_000).prop_map(Deed::Time),
        1 => (0u64..200_000).prop_map(Deed::Cpu),
        1 => (0u64..20).prop_map(Deed::Sockets),
        1 => Just(Deed::Listed),
    ]
}

fn take_down(recorder: &Recorder, t0: Instant, number: usize, deed: &Deed) {
    let at = |us: u64| t0 + Duration::from_micros(us);
    match *deed {
        Deed::Request { phase, endpoint, sent, took, bytes, fails } => {
            let (sent, done) = (at(sent), at(sent + took));
            let first_byte = sent + (done - sent) / 2;
            let exchange =
                Exchange { sent, first_byte, done, sent_bytes: bytes / 3, wire_bytes: bytes, connects: 1 };
            let (status, error) = if fails { (Some(500), Some("boom")) } else { (Some(200), None) };
            recorder.request(&Sample { phase, endpoint, exchange, status, body_bytes: bytes, error });
        }
        Deed::Submit { at: us } => recorder.submitting(at(us)),
        Deed::Job { ended, fetched } => {
            let outcome = if fetched { JobOutcome::Fetched } else { JobOutcome::Failed };
            let mut job = Job::new(0, format!("job {number}"), outcome);
            job.timeline.ended = Micros(ended);
            recorder.job(JobKey { user: number as u32, nth: 0 }, job);
        }
        Deed::Runs => recorder.state_changed(None, JobState::Running),
        Deed::Lag(us) => recorder.lag(Micros(us)),
        Deed::Time(us) => recorder.time(Micros(us * 4), Micros(us), Micros(us * 2), Micros(us / 2)),
        Deed::Cpu(us) => recorder.cpu(Micros(us), Micros(us * 2)),
        Deed::Sockets(n) => recorder.sockets(n),
        Deed::Listed => recorder.target(TargetView { accounts_read: 1, ..TargetView::default() }),
    }
}

fn member(worker: usize) -> Member {
    Member { name: format!("w{worker:02}"), epoch: worker as u64 + 2 }
}

/// A worker's recorders, and the frames it sent so far.
struct Hand {
    recorders: [Recorder; 2],
    sum: Totals,
    frames: Vec<Frame>,
}

impl Hand {
    fn new(t0: Instant) -> Self {
        let recorders = [Recorder::default(), Recorder::default()];
        recorders.iter().for_each(|r| r.start(t0, 0));
        Self { recorders, sum: Totals::default(), frames: Vec::new() }
    }

    fn send(&mut self, worker: usize, body: FrameBody) {
        let seq = self.frames.len() as u64 + 1;
        let frame = Frame { cell: 0, worker: worker as u32, epoch: member(worker).epoch, seq, body };
        self.frames.push(frame);
    }

    fn cut(&mut self, worker: usize) {
        let mut new = Totals::default();
        self.recorders.iter().for_each(|r| new.merge(r.take()));
        if new != Totals::default() {
            self.sum.merge(new.clone());
            self.send(worker, FrameBody::Delta(Box::new(new)));
        }
    }

    fn end(&mut self, worker: usize) {
        self.cut(worker);
        self.send(worker, FrameBody::Final(self.sum.fingerprint()));
    }
}

/// Has a cell closed over these frames, some of which come before all are through.
fn closed(workers: usize, frames: Vec<(usize, Frame)>, early: usize) -> Closed {
    let scenario = Matrix::runbook().get("S6").unwrap().clone();
    let task = Task {
        cells: Plan::cells(1, &[scenario], false),
        settings: Settings::default(),
        wanted: Wanted::any(workers as u32),
        lead: Micros(50_000),
        rigged: false,
        watched: false,
    };
    let mut coordinator = Coordinator::new(task, Micros::ZERO);
    let mut said = |worker: usize, report: Report| {
        let sent = Arc::new(Sent { from: member(worker), report });
        coordinator.on(Event::Sent(sent), Micros(1))
    };
    for worker in 0..workers {
        said(worker, Report::Hello(Box::new(hello())));
    }
    for worker in 0..workers {
        said(worker, Report::Ready { cell: 0, offset: Offset::default() });
    }
    let mut actions = Vec::new();
    let mut frames = frames.into_iter();
    for (worker, frame) in frames.by_ref().take(early) {
        actions.extend(said(worker, Report::Frame(frame)));
    }
    for worker in 0..workers {
        actions.extend(said(worker, Report::Through { cell: 0, start_late: None }));
    }
    for (worker, frame) in frames {
        actions.extend(said(worker, Report::Frame(frame)));
    }
    let close = actions.into_iter().find_map(|action| match action {
        Action::Close(closed) => Some(*closed),
        _ => None,
    });
    close.expect("every frame is there")
}

/// The same without the moments of failures, which are those of the host's clock.
fn timeless(totals: Totals) -> (Totals, BTreeMap<String, u64>) {
    let failures = totals.errors.iter().map(|(key, e)| (format!("{key:?}"), e.count)).collect();
    (Totals { errors: BTreeMap::new(), ..totals }, failures)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(super::cases(48)) })]

    #[test]
    fn what_many_workers_took_down_is_what_one_would_have(
        workers in 1usize..7,
        deeds in vec(deed(), 0..150),
        early in 0usize..60,
        seed: u64,
    ) {
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let t0 = Instant::now();
        let one = Recorder::default();
        one.start(t0, 0);
        let mut hands: Vec<Hand> = (0..workers).map(|_| Hand::new(t0)).collect();
        for (number, deed) in deeds.iter().enumerate() {
            let worker = chance.random_range(0..workers);
            let recorder = &hands[worker].recorders[chance.random_range(0..2)];
            take_down(recorder, t0, number, deed);
            take_down(&one, t0, number, deed);
            if chance.random_range(0..6) == 0 {
                hands[worker].cut(worker);
            }
        }
        let mut frames = Vec::new();
        for (worker, hand) in hands.iter_mut().enumerate() {
            hand.end(worker);
            frames.extend(hand.frames.iter().map(|frame| (worker, frame.clone())));
        }
        let again: Vec<_> = frames.iter().filter(|_| chance.random_range(0..5) == 0).cloned().collect();
        frames.extend(again);
        frames.shuffle(&mut chance);
        let closed = closed(workers, frames, early);
        prop_assert_eq!(closed.missing, None);
        prop_assert_eq!(timeless(closed.totals), timeless(one.take()));
    }
}
