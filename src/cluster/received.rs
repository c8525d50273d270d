//! The frames of one worker in one cell: each counted once, and what is missing told.

use std::collections::BTreeSet;

use crate::{
    crew::Member,
    snapshot::{Fingerprint, Frame, FrameBody, Totals},
};

/// What came of a worker so far.
#[derive(Debug, Default)]
pub(super) struct Received {
    seqs: BTreeSet<u64>,
    sum: Totals,
    /// Number of the final frame, and what it says of the sum.
    last: Option<(u64, Fingerprint)>,
    repeated: u64,
}

impl Received {
    /// Takes a frame in, unless it is there already.
    pub(super) fn take_in(&mut self, frame: Frame) {
        if !self.seqs.insert(frame.seq) {
            self.repeated += 1;
            return;
        }
        match frame.body {
            FrameBody::Delta(delta) => self.sum.merge(*delta),
            FrameBody::Final(sum) => self.last = Some((frame.seq, sum)),
        }
    }

    /// The sum of the deltas.
    pub(super) fn sum(&self) -> &Totals {
        &self.sum
    }

    pub(super) fn into_sum(self) -> Totals {
        self.sum
    }

    /// Whether the final frame is there.
    pub(super) fn is_final(&self) -> bool {
        self.last.is_some()
    }

    /// Whether every frame is.
    pub(super) fn is_whole(&self) -> bool {
        self.is_final() && self.gaps() == 0
    }

    /// Frames, each counted once.
    pub(super) fn frames(&self) -> u64 {
        self.seqs.len() as u64
    }

    /// Frames that came again.
    pub(super) fn repeated(&self) -> u64 {
        self.repeated
    }

    /// Frames before the last one that did not come. Those that were sent after it are not known of
    /// without the final one.
    pub(super) fn gaps(&self) -> u64 {
        let last = self.last.as_ref().map(|(seq, _)| *seq).or(self.seqs.last().copied());
        last.unwrap_or(0).saturating_sub(self.frames())
    }

    /// What is wrong with them, when there are to be no more.
    pub(super) fn trouble(&self, member: &Member) -> Option<String> {
        let Some((seq, sum)) = &self.last else {
            return Some(format!("worker {member} sent no final frame"));
        };
        let lost = self.gaps();
        if lost > 0 {
            return Some(format!("{lost} of {seq} frames of worker {member} are missing"));
        }
        if self.seqs.last() != Some(seq) {
            return Some(format!("worker {member} sent frames after its final one"));
        }
        (self.sum.fingerprint() != *sum)
            .then(|| format!("the deltas of worker {member} do not add up to its totals"))
    }
}
