//! The ids by which a tracing backend knows a job and its requests, as W3C Trace Context has them
//! (<https://www.w3.org/TR/trace-context/>, version 00).
//!
//! A job's trace id comes from its title, which no other job of any run has, so that whoever knows
//! the title knows the trace. The ids of its spans are numbers, shuffled: within a trace none is
//! given twice. Nothing here is sent; that is `target`, and `spans` for those who collect.

use sha2::{Digest, Sha256};

/// Length of a `traceparent` header.
const LENGTH: usize = 55;

/// The odd constant of SplitMix64 (Steele, Lea and Flood 2014): 2⁶⁴ over the golden ratio.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A number that no span has, to stand in for the one that would come out as zero.
const SPARE: u64 = 1 << 63;

/// The id of a trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TraceId(pub [u8; 16]);

/// The id of a span in its trace; never zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SpanId(pub [u8; 8]);

/// The trace of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    id: TraceId,
    seed: u64,
    /// Number of the last request's span. The job itself is 0, stages count down from the end.
    last: u64,
}

impl Trace {
    /// The trace of the job with that title.
    pub fn of(title: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(title).into();
        let mut id = [0; 16];
        id.copy_from_slice(&hash[..16]);
        if id == [0; 16] {
            id[15] = 1;
        }
        let mut seed = [0; 8];
        seed.copy_from_slice(&hash[16..24]);
        Self { id: TraceId(id), seed: u64::from_be_bytes(seed), last: 0 }
    }

    /// The same trace, taken up at the end of a cell by a worker that knows the job by its title
    /// only: its requests get numbers of their own. One user's requests never reach so far.
    pub fn taken_up_by(mut self, worker: u32) -> Self {
        self.last = (u64::from(worker) + 1) << 32;
        self
    }

    /// Its id.
    pub fn id(&self) -> TraceId {
        self.id
    }

    /// The span of the whole job, below which all others hang.
    pub fn job(&self) -> SpanId {
        self.span(0)
    }

    /// The span of its how many-th stage.
    pub fn stage(&self, nth: u8) -> SpanId {
        self.span(u64::MAX - u64::from(nth))
    }

    /// A span for its next request.
    pub fn request(&mut self) -> SpanId {
        self.last += 1;
        self.span(self.last)
    }

    /// Distinct for distinct numbers, since every step can be undone.
    fn span(&self, number: u64) -> SpanId {
        let shuffled = |n: u64| {
            let z = self.seed.wrapping_add(n.wrapping_mul(GOLDEN));
            let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        };
        SpanId(match shuffled(number) {
            0 => shuffled(SPARE).to_be_bytes(),
            id => id.to_be_bytes(),
        })
    }
}

/// The value of a `traceparent` header. `recorded` says whether we export the span: the sampled
/// flag is a promise that somebody may find it.
pub fn traceparent(trace: TraceId, span: SpanId, recorded: bool) -> [u8; LENGTH] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    let hex = |to: &mut [u8], bytes: &[u8]| {
        for (pair, byte) in to.chunks_exact_mut(2).zip(bytes) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 0xf)];
        }
    };
    hex(&mut text[3..35], &trace.0);
    hex(&mut text[36..52], &span.0);
    text[LENGTH - 1] = if recorded { b'1' } else { b'0' };
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::{prop_assert, prop_assert_ne, proptest};

    use super::*;

    #[test]
    fn the_header_is_the_one_of_the_specification() {
        // Section 3.2.4 of the recommendation has this example.
        let trace = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736_u128.to_be_bytes();
        let span = 0x00f0_67aa_0ba9_02b7_u64.to_be_bytes();
        let said = traceparent(TraceId(trace), SpanId(span), true);
        assert_eq!(&said, b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
        assert_eq!(traceparent(TraceId(trace), SpanId(span), false)[53..], *b"00");
    }

    #[test]
    fn no_span_of_a_trace_has_the_id_of_another() {
        let mut trace = Trace::of("springtide r c001 u0000 j0000");
        let mut ids = BTreeSet::from([trace.job()]);
        ids.extend((0..10).map(|nth| trace.stage(nth)));
        ids.extend((0..5_000).map(|_| trace.request()));
        for worker in 0..3 {
            let mut later = trace.clone().taken_up_by(worker);
            ids.extend((0..1_000).map(|_| later.request()));
        }
        assert_eq!(ids.len(), 1 + 10 + 5_000 + 3_000);
    }

    #[test]
    fn a_title_has_one_trace() {
        let title = "springtide r c001 u0000 j0000";
        assert_eq!(Trace::of(title), Trace::of(title));
        assert_ne!(Trace::of(title).id(), Trace::of("springtide r c002 u0000 j0000").id());
    }

    proptest! {
        #[test]
        fn no_id_is_zero(seed: u64, number: u64) {
            let trace = Trace { seed, ..Trace::of("t") };
            prop_assert_ne!(trace.span(number).0, [0; 8]);
            // The number that would come out as zero, found by going backwards.
            let zero = Trace { seed: number.wrapping_mul(GOLDEN).wrapping_neg(), ..Trace::of("t") };
            prop_assert!(zero.span(number).0 != [0; 8] && zero.span(number) == zero.span(SPARE));
        }
    }
}
