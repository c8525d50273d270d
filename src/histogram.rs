//! Latency histograms: HdrHistogram's buckets (1 µs to 1 h, 3 significant digits), kept sparse.
//!
//! The layout is that of Gil Tene's HdrHistogram with `lowest = 1 µs` and 3 digits, so a
//! histogram is written as a standard V2-deflate payload and any HDR tool reads it. Kept sparse,
//! because a run holds thousands of them (one a second, an endpoint and a cell) and each has few
//! distinct values. Count, sum, minimum and maximum are exact.

mod payload;

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    iter::Sum,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use hdrhistogram::Histogram as Dense;
use serde::{Deserialize, Serialize};

use crate::micros::Micros;

/// The largest value recorded as itself; longer ones count as this one.
pub const HIGHEST: Micros = Micros(3_600_000_000);
const DIGITS: u8 = 3;

/// How often each duration occurred.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "Packed", into = "Packed")]
pub struct Histogram {
    /// Those that counted anything, in rising order.
    buckets: Vec<Bucket>,
    count: u64,
    sum: u64,
    min: u64,
    max: u64,
}

/// A bucket's number (16 bits) and count (48 bits) in one word, as a long run keeps millions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Bucket(u64);

impl Bucket {
    fn new(index: usize, count: u64) -> Self {
        Self((index as u64) << 48 | count)
    }

    fn index(self) -> usize {
        (self.0 >> 48) as usize
    }

    fn count(self) -> u64 {
        self.0 & ((1 << 48) - 1)
    }

    /// Its lowest and highest value.
    fn bounds(self) -> (u64, u64) {
        bounds(lowest(self.index()))
    }
}

/// A histogram being taken down where every request passes by: it counts fast and answers nothing.
#[derive(Debug, Default)]
pub struct Tally {
    /// By [`index`] of the bucket, as far as it was needed.
    counts: Vec<u32>,
    /// The exact figures.
    exact: Histogram,
}

impl Tally {
    /// Counts one duration, as [`Histogram::record`] does.
    pub fn record(&mut self, value: Micros) {
        let us = value.0.clamp(1, HIGHEST.0);
        let at = index(us);
        if at >= self.counts.len() {
            self.counts.resize(at + 1, 0);
        }
        self.counts[at] += 1;
        self.exact.count_exactly(us);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.exact.count
    }

    /// What was counted.
    pub fn finish(self) -> Histogram {
        let Self { counts, exact } = self;
        let from = index(exact.min);
        let counted = counts.into_iter().enumerate().skip(from).filter(|(_, n)| *n > 0);
        let mut buckets: Vec<_> = counted.map(|(at, n)| Bucket::new(at, n.into())).collect();
        buckets.shrink_to_fit();
        Histogram { buckets, ..exact }
    }
}

/// A histogram as it stands in a file: the standard payload and the exact figures it lacks (µs).
#[derive(Serialize, Deserialize)]
struct Packed {
    n: u64,
    sum: u64,
    min: u64,
    max: u64,
    /// Base64 of the V2-deflate payload; empty when `n` is zero.
    hdr: String,
}

/// Why a stored histogram could not be read.
#[derive(Debug, thiserror::Error)]
#[error("histogram payload is damaged: {0}")]
pub struct Damaged(String);

impl Histogram {
    /// Counts one duration; zero counts as 1 µs, more than an hour as an hour.
    pub fn record(&mut self, value: Micros) {
        let us = value.0.clamp(1, HIGHEST.0);
        let at = index(us);
        match self.buckets.binary_search_by_key(&at, |b| b.index()) {
            Ok(i) => self.buckets[i].0 += 1,
            Err(i) => self.buckets.insert(i, Bucket::new(at, 1)),
        }
        self.count_exactly(us);
    }

    fn count_exactly(&mut self, us: u64) {
        self.min = if self.count == 0 { us } else { self.min.min(us) };
        self.max = self.max.max(us);
        self.sum += us;
        self.count += 1;
    }

    /// Adds everything `other` counted. Associative and commutative.
    pub fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.buckets = added(&self.buckets, &other.buckets);
        self.min = if self.count == 0 { other.min } else { self.min.min(other.min) };
        self.max = self.max.max(other.max);
        self.sum += other.sum;
        self.count += other.count;
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The exact smallest; zero when empty.
    pub fn min(&self) -> Micros {
        Micros(self.min)
    }

    /// The exact largest; zero when empty.
    pub fn max(&self) -> Micros {
        Micros(self.max)
    }

    /// The exact sum.
    pub fn sum(&self) -> Micros {
        Micros(self.sum)
    }

    /// The exact mean; zero when empty.
    pub fn mean(&self) -> Micros {
        Micros(self.sum.checked_div(self.count).unwrap_or(0))
    }

    /// The value that the share `q` (0 to 1) of all counts does not exceed, within 0.1 %;
    /// zero when empty. It is the rank ⌈q·n⌉, the upper end of its bucket as HdrHistogram has it,
    /// and never outside [min, max].
    pub fn quantile(&self, q: f64) -> Micros {
        let rank = ((q.clamp(0.0, 1.0) * self.count as f64 - 1e-9).ceil() as u64).max(1);
        let mut seen = 0;
        for bucket in &self.buckets {
            seen += bucket.count();
            if seen >= rank {
                return Micros(bucket.bounds().1.clamp(self.min, self.max));
            }
        }
        Micros(self.max)
    }

    /// How many counts lie in buckets up to and including the one of `value`.
    pub fn count_up_to(&self, value: Micros) -> u64 {
        let last = index(value.0.clamp(1, HIGHEST.0));
        self.buckets.iter().take_while(|b| b.index() <= last).map(|b| b.count()).sum()
    }

    /// `(upper end of bucket, count)` in rising order.
    pub fn iter(&self) -> impl Iterator<Item = (Micros, u64)> + '_ {
        self.buckets.iter().map(|b| (Micros(b.bounds().1), b.count()))
    }

    /// The same histogram in the reference implementation, for its serializers.
    pub fn to_dense(&self) -> Dense<u64> {
        let mut dense = Dense::new_with_bounds(1, HIGHEST.0, DIGITS)
            .expect("1 µs to 1 h with 3 digits is a valid layout");
        for bucket in &self.buckets {
            dense.saturating_record_n(bucket.bounds().0, bucket.count());
        }
        dense
    }
}

/// Adds many up at once: the same as merging one after the other, in a fraction of the time.
impl<'a> Sum<&'a Histogram> for Histogram {
    fn sum<I: Iterator<Item = &'a Self>>(all: I) -> Self {
        let mut total = Self::default();
        let mut buckets: Vec<Bucket> = Vec::new();
        for h in all.filter(|h| h.count > 0) {
            total.min = if total.count == 0 { h.min } else { total.min.min(h.min) };
            total.max = total.max.max(h.max);
            total.sum += h.sum;
            total.count += h.count;
            buckets.extend(&h.buckets);
        }
        // Rising runs, one a histogram: the stable sort finds and merges them.
        buckets.sort_by_key(|b| b.index());
        buckets.dedup_by(|next, kept| {
            let is_same = next.index() == kept.index();
            if is_same {
                *kept = Bucket(kept.0 + next.count());
            }
            is_same
        });
        buckets.shrink_to_fit();
        total.buckets = buckets;
        total
    }
}

/// The lowest and highest value that fall into the bucket of `us`, as HdrHistogram draws them for
/// 3 digits: 2048 buckets of 1 µs, then 1024 for each doubling.
fn bounds(us: u64) -> (u64, u64) {
    let shift = shift(us);
    let low = us >> shift << shift;
    (low, low + (1 << shift) - 1)
}

/// The buckets of two histograms together.
fn added(a: &[Bucket], b: &[Bucket]) -> Vec<Bucket> {
    let mut sum = Vec::with_capacity(a.len() + b.len());
    let (mut a, mut b) = (a.iter().copied().peekable(), b.iter().copied().peekable());
    while let (Some(x), Some(y)) = (a.peek(), b.peek()) {
        sum.extend(match x.index().cmp(&y.index()) {
            Less => a.next(),
            Greater => b.next(),
            Equal => a.next().zip(b.next()).map(|(x, y)| Bucket(x.0 + y.count())),
        });
    }
    sum.extend(a.chain(b));
    sum.shrink_to_fit();
    sum
}

/// How many binary digits of `us` its bucket does not tell apart.
fn shift(us: u64) -> u32 {
    (64 - (us | 2047).leading_zeros()) - 11
}

/// The number of the bucket of `us`, from 0.
fn index(us: u64) -> usize {
    let shift = shift(us);
    (shift as usize) * 1024 + (us >> shift) as usize
}

/// The lowest value of the bucket of that number.
fn lowest(index: usize) -> u64 {
    let shift = (index / 1024).saturating_sub(1);
    ((index - shift * 1024) as u64) << shift
}

impl From<Histogram> for Packed {
    fn from(h: Histogram) -> Self {
        let hdr = if h.count == 0 { String::new() } else { STANDARD.encode(payload::write(&h.buckets)) };
        Self { n: h.count, sum: h.sum, min: h.min, max: h.max, hdr }
    }
}

impl TryFrom<Packed> for Histogram {
    type Error = Damaged;

    fn try_from(packed: Packed) -> Result<Self, Damaged> {
        if packed.n == 0 {
            return Ok(Self::default());
        }
        if packed.n >= 1 << 48 {
            return Err(Damaged(format!("{} values are more than a run can hold", packed.n)));
        }
        let payload = STANDARD.decode(&packed.hdr).map_err(|e| Damaged(e.to_string()))?;
        let buckets = payload::read(&payload).map_err(Damaged)?;
        let counted = buckets.iter().fold(0_u64, |sum, b| sum.saturating_add(b.count()));
        if counted != packed.n {
            return Err(Damaged(format!("{counted} values where {} were said", packed.n)));
        }
        let Packed { n, sum, min, max, .. } = packed;
        Ok(Self { buckets, count: n, sum, min, max })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn of(values: &[u64]) -> Histogram {
        let mut h = Histogram::default();
        values.iter().for_each(|&v| h.record(Micros(v)));
        h
    }

    proptest! {
        #[test]
        fn buckets_are_those_of_the_reference(us in 1u64..=HIGHEST.0) {
            let dense = Histogram::default().to_dense();
            prop_assert_eq!(bounds(us), (dense.lowest_equivalent(us), dense.highest_equivalent(us)));
        }

        #[test]
        fn a_tally_counts_as_a_histogram_does(values in prop::collection::vec(0u64..5_000_000_000, 0..60)) {
            let mut tally = Tally::default();
            values.iter().for_each(|&v| tally.record(Micros(v)));
            prop_assert_eq!(tally.finish(), of(&values));
        }

        #[test]
        fn buckets_are_numbered_without_gaps(us in 1u64..HIGHEST.0) {
            prop_assert_eq!(lowest(index(us)), bounds(us).0);
            prop_assert_eq!(index(bounds(us).1 + 1), index(us) + 1);
        }

        #[test]
        fn a_file_gives_back_what_was_written(values in prop::collection::vec(0u64..5_000_000_000, 0..60)) {
            let h = of(&values);
            let text = serde_json::to_string(&h).unwrap();
            prop_assert_eq!(serde_json::from_str::<Histogram>(&text).unwrap(), h);
        }

        #[test]
        fn merging_is_counting_together_in_any_grouping(
            a in prop::collection::vec(1u64..10_000_000, 0..40),
            b in prop::collection::vec(1u64..10_000_000, 0..40),
            c in prop::collection::vec(1u64..10_000_000, 0..40),
        ) {
            let all: Vec<u64> = a.iter().chain(&b).chain(&c).copied().collect();
            let mut left = of(&a);
            left.merge(&of(&b));
            left.merge(&of(&c));
            let mut right = of(&c);
            right.merge(&of(&b));
            let mut right2 = of(&a);
            right2.merge(&right);
            prop_assert_eq!(&left, &of(&all));
            prop_assert_eq!([of(&a), of(&b), of(&c)].iter().sum::<Histogram>(), left.clone());
            prop_assert_eq!(&right2, &left);
        }

        #[test]
        fn quantiles_rise_and_stay_within_a_thousandth(mut values in prop::collection::vec(1u64..3_000_000_000, 1..200)) {
            let h = of(&values);
            values.sort_unstable();
            let mut last = Micros::ZERO;
            for i in 0..=100 {
                let q = f64::from(i) / 100.0;
                let got = h.quantile(q);
                let rank = ((q * values.len() as f64 - 1e-9).ceil() as usize).max(1);
                let exact = values[rank - 1];
                prop_assert!(got >= last);
                prop_assert!(got.0.abs_diff(exact) as f64 <= exact as f64 / 1000.0 + 1.0);
                last = got;
            }
        }
    }

    #[test]
    fn an_empty_one_answers_zero() {
        let h = Histogram::default();
        assert_eq!((h.count(), h.mean(), h.quantile(0.5)), (0, Micros::ZERO, Micros::ZERO));
    }

    #[test]
    fn a_damaged_payload_is_refused() {
        let mut text = serde_json::to_string(&of(&[5, 6])).unwrap();
        text = text.replace("\"n\":2", "\"n\":3");
        assert!(serde_json::from_str::<Histogram>(&text).is_err());
    }
}
