//! Values that somebody else counted into buckets: all that is known of each is between which two
//! bounds it lies.

use serde::{Deserialize, Serialize};

use super::{Quantile, confidence_ranks, is_enough};
use crate::micros::Micros;

/// How many values fell into each bucket. The unit is that of the bounds, such as seconds or bytes;
/// no value is negative.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Plain", into = "Plain")]
pub struct Buckets {
    /// Upper bounds, which belong to their bucket; finite and rising.
    bounds: Vec<f64>,
    /// One a bound, and at the end those beyond the last bound.
    counts: Vec<u64>,
    /// Sum of the values, where it is known.
    sum: Option<f64>,
}

/// The same as it stands in a file.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Plain {
    le: Vec<f64>,
    n: Vec<u64>,
    sum: Option<f64>,
}

/// Why some numbers are no histogram.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotBuckets {
    /// The last bucket must take whatever the others do not.
    #[error("no bucket le=\"+Inf\"")]
    NoLast,
    /// Twice the same bound, or one that is no number.
    #[error("bounds that do not rise")]
    Bounds,
    /// A bucket holds what the ones before it hold.
    #[error("bucket counts that fall")]
    Falling,
    /// Values are counted one by one.
    #[error("bucket counts that are no whole numbers")]
    NotWhole,
}

/// A value as far as its bucket tells it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Within {
    /// Estimated on a straight line through the bucket; the lower bound where there is no upper one.
    pub value: f64,
    /// It is more than this (or, in the first bucket, not less than zero).
    pub low: f64,
    /// It is not more than this; `None` beyond the last bound.
    pub high: Option<f64>,
}

impl Buckets {
    /// Out of cumulative counts, as Prometheus has them: how many values are not above each bound.
    ///
    /// # Errors
    /// When that is no histogram.
    pub fn of_cumulative(mut points: Vec<(f64, f64)>, sum: Option<f64>) -> Result<Self, NotBuckets> {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        if points.last().is_none_or(|p| p.0 != f64::INFINITY) {
            return Err(NotBuckets::NoLast);
        }
        if points.windows(2).any(|w| w[0].0 >= w[1].0)
            || points[0].0.is_nan()
            || points[0].0 == f64::NEG_INFINITY
        {
            return Err(NotBuckets::Bounds);
        }
        let (mut counts, mut before) = (Vec::with_capacity(points.len()), 0);
        for (_, n) in &points {
            // Above that a float skips whole numbers.
            if !(0.0..9e15).contains(n) || n.fract() != 0.0 {
                return Err(NotBuckets::NotWhole);
            }
            let n = *n as u64;
            counts.push(n.checked_sub(before).ok_or(NotBuckets::Falling)?);
            before = n;
        }
        points.pop();
        let bounds = points.into_iter().map(|p| p.0).collect();
        Ok(Self { bounds, counts, sum: sum.filter(|s| s.is_finite()) })
    }

    /// The same bounds with nothing counted.
    pub fn cleared(&self) -> Self {
        let (bounds, counts) = (self.bounds.clone(), vec![0; self.counts.len()]);
        Self { bounds, counts, sum: self.sum.map(|_| 0.0) }
    }

    /// Upper bounds.
    pub fn bounds(&self) -> &[f64] {
        &self.bounds
    }

    /// How many values.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum, where it is known.
    pub fn sum(&self) -> Option<f64> {
        self.sum
    }

    /// Their mean, which is exact.
    pub fn mean(&self) -> Option<f64> {
        let n = self.count();
        self.sum.filter(|_| n > 0).map(|sum| sum / n as f64)
    }

    /// How many lie beyond the last bound.
    pub fn beyond(&self) -> u64 {
        self.counts.last().copied().unwrap_or(0)
    }

    /// What was counted since `earlier`; `None` when counting began anew in between, or in other
    /// buckets.
    pub fn since(&self, earlier: &Self) -> Option<Self> {
        if self.bounds != earlier.bounds {
            return None;
        }
        // Cumulative counts, as they are what a counter is: none of them ever falls.
        let (mut now, mut then, mut counts, mut before) = (0, 0, Vec::new(), 0);
        for (a, b) in self.counts.iter().zip(&earlier.counts) {
            (now, then) = (now + a, then + b);
            let grown: u64 = u64::checked_sub(now, then)?;
            counts.push(grown.checked_sub(before)?);
            before = grown;
        }
        let sum = self.sum.zip(earlier.sum).map(|(a, b)| a - b);
        // Of values that are not negative the sum never falls; less a hair of floating point.
        if sum.is_some_and(|s| s < -1e-9 * self.sum.unwrap_or(0.0).abs()) {
            return None;
        }
        Some(Self { bounds: self.bounds.clone(), counts, sum: sum.map(|s| s.max(0.0)) })
    }

    /// Adds what another one counted. Where their bounds differ, those that both have are kept:
    /// wider buckets, and nothing guessed.
    pub fn merge(&mut self, other: &Self) {
        if self.counts.is_empty() {
            *self = other.clone();
            return;
        }
        if other.counts.is_empty() {
            return;
        }
        if self.bounds != other.bounds {
            let both: Vec<f64> = self.bounds.iter().copied().filter(|b| other.bounds.contains(b)).collect();
            let (ours, theirs) = (self.at(&both), other.at(&both));
            let sum = self.sum.zip(other.sum).map(|(a, b)| a + b);
            let counts = ours.iter().zip(theirs).map(|(a, b)| a + b).collect();
            *self = Self { bounds: both, counts, sum };
            return;
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(a, b)| *a += b);
        self.sum = self.sum.zip(other.sum).map(|(a, b)| a + b);
    }

    /// The counts between fewer bounds.
    fn at(&self, bounds: &[f64]) -> Vec<u64> {
        let mut counts = vec![0; bounds.len() + 1];
        for (i, n) in self.counts.iter().enumerate() {
            let place = self.bounds.get(i).map_or(bounds.len(), |b| bounds.partition_point(|x| x < b));
            counts[place] += n;
        }
        counts
    }

    /// The quantile `q` (0 to 1), as Prometheus' `histogram_quantile` has it, with the bounds of its
    /// bucket; `None` when empty.
    pub fn quantile(&self, q: f64) -> Option<Within> {
        self.at_rank(q.clamp(0.0, 1.0) * self.count() as f64)
    }

    /// The value that `rank` of all values (from 0, in fractions) do not exceed.
    fn at_rank(&self, rank: f64) -> Option<Within> {
        let mut before = 0;
        for (i, &n) in self.counts.iter().enumerate() {
            if n > 0 && (before + n) as f64 >= rank - 1e-9 {
                let bound = |i: usize| self.bounds.get(i).copied();
                let below = i.checked_sub(1).and_then(bound);
                let Some(high) = bound(i) else {
                    let low = below.unwrap_or(0.0).max(0.0);
                    return Some(Within { value: low, low, high: None });
                };
                let low = below.unwrap_or(0.0).min(high).max(0.0_f64.min(high));
                let share = ((rank - before as f64) / n as f64).clamp(0.0, 1.0);
                return Some(Within { value: low + (high - low) * share, low, high: Some(high) });
            }
            before += n;
        }
        None
    }

    /// A quantile of seconds.
    pub(super) fn seconds(&self, q: f64) -> Option<Quantile> {
        let n = self.count();
        let ranks = confidence_ranks(usize::try_from(n).ok()?, q);
        let edge = |rank: Option<usize>| rank.and_then(|r| self.at_rank(r as f64 + 1.0));
        let (low, high) = (edge(ranks.0).map(|w| floor(w.low)), edge(ranks.1).and_then(|w| w.high.map(ceil)));
        Some(of_seconds(self.quantile(q)?, low, high, is_enough(n, q)))
    }

    /// The smallest of seconds: somewhere in the first bucket that holds any.
    pub(super) fn least_seconds(&self) -> Option<Quantile> {
        Some(of_seconds(self.at_rank(0.0)?, None, None, true))
    }

    /// The largest of seconds: not more than the upper bound of the last bucket that holds any.
    pub(super) fn most_seconds(&self) -> Option<Quantile> {
        Some(of_seconds(self.at_rank(self.count() as f64)?, None, None, true))
    }

    /// Half the width of the median's bucket.
    pub(super) fn half_width_seconds(&self) -> Option<Micros> {
        let median = self.quantile(0.5)?;
        Some(Micros(ceil(median.high?).saturating_sub(floor(median.low)).0.div_ceil(2)))
    }
}

fn of_seconds(at: Within, low: Option<Micros>, high: Option<Micros>, supported: bool) -> Quantile {
    Quantile {
        value: round(at.value),
        at_least: at.high.is_none(),
        low,
        high,
        supported,
        bucket: Some((floor(at.low), at.high.map(ceil))),
    }
}

pub(super) fn round(seconds: f64) -> Micros {
    Micros((seconds * 1e6).round().max(0.0) as u64)
}

/// Decimal seconds have no exact float: a millionth of a microsecond is no reason to round away.
fn floor(seconds: f64) -> Micros {
    Micros((seconds * 1e6 + 1e-4).floor().max(0.0) as u64)
}

fn ceil(seconds: f64) -> Micros {
    Micros((seconds * 1e6 - 1e-4).ceil().max(0.0) as u64)
}

impl From<Buckets> for Plain {
    fn from(b: Buckets) -> Self {
        Self { le: b.bounds, n: b.counts, sum: b.sum }
    }
}

impl TryFrom<Plain> for Buckets {
    type Error = NotBuckets;

    fn try_from(p: Plain) -> Result<Self, NotBuckets> {
        let rises = p.le.windows(2).all(|w| w[0] < w[1]) && p.le.iter().all(|b| b.is_finite());
        if !rises || !(p.n.len() == p.le.len() + 1 || p.n.is_empty() && p.le.is_empty()) {
            return Err(NotBuckets::Bounds);
        }
        Ok(Self { bounds: p.le, counts: p.n, sum: p.sum })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::{super::Sample, *};

    fn of(values: &[u32], bounds: &[f64]) -> Buckets {
        let up_to = |b: f64| values.iter().filter(|v| f64::from(**v) <= b).count() as f64;
        let points = bounds.iter().copied().chain([f64::INFINITY]).map(|b| (b, up_to(b))).collect();
        Buckets::of_cumulative(points, Some(values.iter().map(|v| f64::from(*v)).sum())).unwrap()
    }

    const BOUNDS: [f64; 4] = [10.0, 20.0, 50.0, 100.0];

    proptest! {
        #[test]
        fn the_truth_lies_in_the_bucket(mut values in prop::collection::vec(0u32..150, 1..200), q in 0.01f64..0.99) {
            let buckets = of(&values, &BOUNDS);
            values.sort_unstable();
            let rank = ((q * values.len() as f64 - 1e-9).ceil() as usize).max(1) - 1;
            let exact = f64::from(values[rank]);
            let at = buckets.quantile(q).unwrap();
            prop_assert!(at.low <= exact && at.high.is_none_or(|h| exact <= h), "{exact} not in {at:?}");
            prop_assert!(at.low <= at.value && at.high.is_none_or(|h| at.value <= h));
        }

        #[test]
        fn growth_and_what_was_before_are_what_is_now(
            before in prop::collection::vec(0u32..150, 0..50),
            more in prop::collection::vec(0u32..150, 0..50),
        ) {
            let (then, grown) = (of(&before, &BOUNDS), of(&more, &BOUNDS));
            let mut now = then.clone();
            now.merge(&grown);
            prop_assert_eq!(now.since(&then), Some(grown));
            prop_assert_eq!(then.since(&now).is_none(), !more.is_empty());
            let text = serde_json::to_string(&now).unwrap();
            prop_assert_eq!(serde_json::from_str::<Buckets>(&text).unwrap(), now);
        }

        #[test]
        fn other_bounds_are_narrowed_to_those_of_both(
            a in prop::collection::vec(0u32..150, 0..50),
            b in prop::collection::vec(0u32..150, 0..50),
        ) {
            let mut both = of(&a, &BOUNDS);
            both.merge(&of(&b, &[5.0, 20.0, 100.0]));
            prop_assert_eq!(both, of(&[a, b].concat(), &[20.0, 100.0]));
        }
    }

    #[test]
    fn a_line_through_the_bucket_is_what_prometheus_draws() {
        // histogram_quantile(0.5, …) of 10 values up to 1 and 10 more up to 2.
        let b = Buckets::of_cumulative(vec![(1.0, 10.0), (2.0, 20.0), (f64::INFINITY, 20.0)], None).unwrap();
        let at = |q| b.quantile(q).unwrap().value;
        assert_eq!([at(0.25), at(0.5), at(0.75), at(1.0)], [0.5, 1.0, 1.5, 2.0]);
        assert_eq!(b.mean(), None);
    }

    #[test]
    fn beyond_the_last_bound_there_is_only_at_least() {
        let b = of(&[5, 200, 300], &BOUNDS);
        assert_eq!(b.quantile(0.9), Some(Within { value: 100.0, low: 100.0, high: None }));
        let q = Sample::in_buckets(b).quantile(0.9).unwrap();
        assert_eq!(
            (q.at_least, q.value, q.bucket),
            (true, Micros(100_000_000), Some((Micros(100_000_000), None)))
        );
    }

    #[test]
    fn a_sample_in_buckets_answers_as_any_other() {
        let values: Vec<u32> = (1..=40).collect();
        let s = Sample::in_buckets(of(&values, &BOUNDS));
        assert_eq!((s.count(), s.censored(), s.mean()), (40, 0, Some(Micros(20_500_000))));
        let p50 = s.quantile(0.5).unwrap();
        assert_eq!(
            (p50.value, p50.bucket),
            (Micros(20_000_000), Some((Micros(10_000_000), Some(Micros(20_000_000)))))
        );
        // The 14th and 27th of 40 lie in the second and the third bucket.
        assert_eq!((p50.low, p50.high), (Some(Micros(10_000_000)), Some(Micros(50_000_000))));
        assert_eq!(s.max().unwrap().value, Micros(50_000_000));
        assert_eq!(s.half_width(), Some(Micros(5_000_000)));
    }

    #[test]
    fn what_is_no_histogram_is_refused() {
        let all = |points: &[(f64, f64)]| Buckets::of_cumulative(points.to_vec(), None).unwrap_err();
        let inf = f64::INFINITY;
        assert_eq!(all(&[(1.0, 2.0)]), NotBuckets::NoLast);
        assert_eq!(all(&[(1.0, 2.0), (1.0, 2.0), (inf, 2.0)]), NotBuckets::Bounds);
        assert_eq!(all(&[(1.0, 3.0), (inf, 2.0)]), NotBuckets::Falling);
        assert_eq!(all(&[(1.0, 0.5), (inf, 2.0)]), NotBuckets::NotWhole);
        assert_eq!(all(&[(1.0, f64::NAN), (inf, 2.0)]), NotBuckets::NotWhole);
        assert!(serde_json::from_str::<Buckets>("{\"le\":[1.0],\"n\":[1],\"sum\":null}").is_err());
    }
}
