//! What a tap would have seen of a made-up cell, and the fault in it.

use crate::{
    fault::{Fate, Fault, FaultKind},
    injection::{Canary, Injection, Injector, Proof},
    micros::Micros,
    plan::Cell,
    post::{BodyHash, Ending, Fates, Post},
    posts::{Book, CellPosts},
    route::Route,
    snapshot::Totals,
    state::JobState,
};

/// T0 on the tap's clock.
const T0: Micros = Micros(50_000_000);
/// What the target takes for results and for other posts.
pub(super) const SERVED: u64 = 180_000;
const SERVED_QUICKLY: u64 = 6_000;

/// When a simulation's life really went on, since T0.
pub(super) struct Truth {
    pub(super) running: u64,
    pub(super) queued: u64,
    pub(super) merging: u64,
    /// Receipt of the results.
    pub(super) results: u64,
}

/// A tap on one cell.
pub(super) struct Tap {
    fault: Fault,
    posts: Vec<Post>,
}

/// How long each post is held.
pub(super) fn delay(fault: &Fault) -> u64 {
    if let FaultKind::Latency { delay, .. } = fault.kind { delay.0 } else { 0 }
}

impl Tap {
    pub(super) fn on(cell: &Cell) -> Self {
        Self { fault: cell.fault.clone(), posts: Vec::new() }
    }

    /// All posts of a simulation. One that hangs lost the last word of its first task; of some
    /// others the answer to the results is lost.
    pub(super) fn simulation(&mut self, id: u64, tasks: u32, truth: &Truth, hangs: bool) {
        let tasks = u64::from(tasks);
        for task in 0..tasks {
            let begins = truth.running + task * 300_000;
            let ends = truth.queued - 90_000 - (tasks - 1 - task) * 40_000;
            let said = |state| Some(state);
            self.post(id, Route::Tasks, Some(task), None, begins - 20_000, 275, Fate::Pass);
            self.post(id, Route::Tasks, Some(task), said(JobState::Running), begins, 319, Fate::Pass);
            let fate = if hangs && task == 0 { Fate::DropRequest } else { Fate::Pass };
            self.post(id, Route::Tasks, Some(task), said(JobState::Completed), ends, 351, fate);
        }
        if hangs {
            return;
        }
        let state = |s| Some(s);
        self.post(id, Route::Jobs, None, state(JobState::MergingQueued), truth.queued, 217, Fate::Pass);
        self.post(id, Route::Jobs, None, state(JobState::MergingRunning), truth.merging, 218, Fate::Pass);
        let is_drop = matches!(self.fault.kind, FaultKind::Drop { .. });
        let fate = if is_drop && id.is_multiple_of(7) { Fate::DropAnswer } else { Fate::Pass };
        self.post(id, Route::Results, None, None, truth.results, 1_130_000 + id % 900, fate);
    }

    #[expect(clippy::too_many_arguments, reason = "a post is that much")]
    fn post(
        &mut self,
        id: u64,
        route: Route,
        task: Option<u64>,
        state: Option<JobState>,
        at: u64,
        bytes: u64,
        fate: Fate,
    ) {
        let held = if self.fault.routes.contains(&route) { delay(&self.fault) } else { 0 };
        let fate = if held > 0 { Fate::Delay(Micros(held)) } else { fate };
        let is_lost = fate == Fate::DropRequest;
        let served = if route == Route::Results { SERVED } else { SERVED_QUICKLY };
        let received = T0 + Micros(at);
        let forwarded = received + Micros(held + 400);
        let last_byte = forwarded + Micros(served);
        let some = |m| (!is_lost).then_some(m);
        let mut hash = [0; 16];
        let number = self.posts.len() as u64;
        hash[..8].copy_from_slice(&id.to_be_bytes());
        hash[8..].copy_from_slice(&number.to_be_bytes());
        self.posts.push(Post {
            seq: 0,
            route,
            canary: None,
            simulation: Some(id),
            task,
            state,
            bytes,
            hash: Some(BodyHash(hash)),
            received,
            forwarded: some(forwarded),
            first_byte: some(last_byte),
            last_byte: some(last_byte),
            ended: if is_lost { received + Micros(900) } else { last_byte + Micros(200) },
            status: (!is_lost).then_some(202),
            answer_bytes: if is_lost { 0 } else { 27 },
            replayed: false,
            fate,
            ending: match fate {
                Fate::Pass | Fate::Delay(_) => Ending::Answered,
                Fate::DropRequest | Fate::DropAnswer | Fate::Refuse => Ending::Faulted,
            },
        });
    }

    /// What is recorded of the cell, which ended at `duration`.
    pub(super) fn close(
        mut self,
        cell: &Cell,
        duration: Micros,
        totals: &Totals,
    ) -> (CellPosts, Option<Injection>) {
        self.posts.sort_by_key(|p| p.ended);
        let (mut book, mut fates) = (Book::default(), Fates::default());
        for (post, seq) in self.posts.iter_mut().zip(1..) {
            post.seq = seq;
            book.add(post);
            fates.count(post.fate);
        }
        let injection = (!cell.fault.is_none()).then(|| Injection {
            fault: cell.fault.clone(),
            by: Injector::Tap,
            t0: Some(T0),
            cleared: duration + Micros(40_000),
            fates: Some(fates),
            proof: proof(cell),
            deviations: Vec::new(),
        });
        book.looked_until(T0 + duration);
        (book.close(totals), injection)
    }
}

/// The canaries; those of one cell do not show the fault.
fn proof(cell: &Cell) -> Proof {
    let canary = |number: u64, held: u64, status| {
        let took = Micros(2_000 + number * 150 + held);
        Canary { number, took, status }
    };
    let answered = Some(404);
    let unshown = cell.scenario.as_str() == "S7" && cell.repetition == 4;
    let held = if unshown { 0 } else { delay(&cell.fault) };
    let is_drop = matches!(cell.fault.kind, FaultKind::Drop { .. });
    let during = (0..5).map(|n| canary(n, held, answered.filter(|_| !is_drop || n % 3 > 0))).collect();
    Proof {
        before: (0..3).map(|n| canary(n, 0, answered)).collect(),
        during,
        after: (0..3).map(|n| canary(n, 0, answered)).collect(),
        flaws: if unshown { vec!["5 canaries took 2.30 ms and not 1.00 s".into()] } else { Vec::new() },
    }
}
