//! One post under way: what is known of it so far, and the [`Post`] it becomes when it ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use super::{
    scan::{Found, Scan},
    shared::Shared,
};
use crate::{
    fault::Fate,
    micros::Micros,
    post::{BodyHash, Ending, Post},
    route::Route,
    state::JobState,
};

/// An exchange. It is over, however it ended, when the last who has a hand in it lets go.
#[derive(Debug)]
pub(super) struct Exchange {
    shared: Arc<Shared>,
    draft: Mutex<Draft>,
}

#[derive(Debug)]
struct Draft {
    route: Route,
    canary: Option<u64>,
    fate: Fate,
    received: Micros,
    forwarded: Option<Micros>,
    request: Request,
    answer: Option<Answer>,
    is_faulted: bool,
}

/// A request's body, as far as it came.
#[derive(Debug, Default)]
struct Request {
    bytes: u64,
    /// What was in it, if it came whole.
    whole: Option<(BodyHash, Found)>,
    is_cut: bool,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    is_replay: bool,
    first_byte: Micros,
    last_byte: Option<Micros>,
    bytes: u64,
    /// It was passed on to its end.
    is_told: bool,
}

impl Exchange {
    /// A post whose head was read now, and what was decided about it.
    pub(super) fn begin(
        shared: &Arc<Shared>,
        route: Route,
        canary: Option<u64>,
        fate: Fate,
        received: Micros,
    ) -> Arc<Self> {
        shared.log.begin(received, canary.is_some());
        let draft = Draft {
            route,
            canary,
            fate,
            received,
            forwarded: None,
            request: Request::default(),
            answer: None,
            is_faulted: false,
        };
        Arc::new(Self { shared: Arc::clone(shared), draft: Mutex::new(draft) })
    }

    /// Its head goes out to the target.
    pub(super) fn forwarded(&self) {
        self.draft().forwarded = Some(self.shared.now());
    }

    /// The head of the target's answer is there.
    pub(super) fn answered(&self, status: u16, is_replay: bool) {
        let first_byte = self.shared.now();
        let answer = Answer { status, is_replay, first_byte, last_byte: None, bytes: 0, is_told: false };
        self.draft().answer = Some(answer);
    }

    /// No more of the answer comes; `is_whole` if that is its end.
    pub(super) fn answer_read(&self, bytes: u64, is_whole: bool) {
        let now = self.shared.now();
        if let Some(answer) = &mut self.draft().answer {
            answer.bytes = bytes;
            answer.last_byte = is_whole.then_some(now);
        }
    }

    /// The answer was passed on to its end.
    pub(super) fn told(&self) {
        if let Some(answer) = &mut self.draft().answer {
            answer.is_told = true;
        }
    }

    /// A fault cuts it off.
    pub(super) fn faulted(&self) {
        self.draft().is_faulted = true;
    }

    fn draft(&self) -> MutexGuard<'_, Draft> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Draft {
    fn ending(&self) -> Ending {
        match &self.answer {
            _ if self.is_faulted => Ending::Faulted,
            Some(answer) if answer.is_told => Ending::Answered,
            Some(_) => Ending::AnswerCut,
            None if self.request.is_cut => Ending::RequestCut,
            None => Ending::NoAnswer,
        }
    }

    fn post(&self, ended: Micros) -> Post {
        let (hash, found) = self.request.whole.unzip();
        let found = found.unwrap_or_default();
        let answer = self.answer.as_ref();
        Post {
            // Given by the log.
            seq: 0,
            route: self.route,
            canary: self.canary,
            simulation: found.simulation,
            task: found.task,
            state: self.state(found),
            bytes: self.request.bytes,
            hash,
            received: self.received,
            forwarded: self.forwarded,
            first_byte: answer.map(|a| a.first_byte),
            last_byte: answer.and_then(|a| a.last_byte),
            ended,
            status: answer.map(|a| a.status),
            answer_bytes: answer.map_or(0, |a| a.bytes),
            replayed: answer.is_some_and(|a| a.is_replay),
            fate: self.fate,
            ending: self.ending(),
        }
    }

    /// The state that the target reads on this route.
    fn state(&self, found: Found) -> Option<JobState> {
        match self.route {
            Route::Tasks => found.task_state,
            Route::Jobs => found.job_state,
            Route::Results | Route::Logfiles => None,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let draft = self.draft.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.shared.log.end(draft.post(self.shared.now()));
    }
}

/// Reads along while the body of a request passes.
#[derive(Debug)]
pub(super) struct Reader {
    exchange: Arc<Exchange>,
    bytes: u64,
    hash: Sha256,
    scan: Scan,
}

impl Reader {
    /// For the body of this exchange's request.
    pub(super) fn new(exchange: Arc<Exchange>) -> Self {
        Self { exchange, bytes: 0, hash: Sha256::new(), scan: Scan::new() }
    }

    /// A piece passes.
    pub(super) fn feed(&mut self, piece: &[u8]) {
        self.bytes += piece.len() as u64;
        self.hash.update(piece);
        self.scan.feed(piece);
    }

    /// That was all of it.
    pub(super) fn whole(self) {
        let mut hash = [0; 16];
        hash.copy_from_slice(&self.hash.finalize()[..16]);
        let request = &mut self.exchange.draft().request;
        request.bytes = self.bytes;
        request.whole = Some((BodyHash(hash), self.scan.finish()));
    }

    /// There will be no more of it; `by_worker` if it hung up.
    pub(super) fn cut(self, by_worker: bool) {
        let request = &mut self.exchange.draft().request;
        request.bytes = self.bytes;
        request.is_cut = by_worker;
    }
}
