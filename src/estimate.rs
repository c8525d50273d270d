//! A number and its uncertainty as one value: quantiles of samples that may be intervals or
//! right-censored, with the confidence interval that the order statistics allow.
//!
//! Not a statistics package: only what the reports print.

mod buckets;

use serde::{Deserialize, Serialize};

pub use self::buckets::{Buckets, NotBuckets, Within};
use crate::micros::Micros;

/// One measured duration.
///
/// The true value lies in `[least, most]`; `most` is `None` when all that is known is that it
/// took at least `least` (right-censored).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Span {
    /// Lower bound.
    pub least: Micros,
    /// Upper bound, unless censored.
    pub most: Option<Micros>,
}

impl Span {
    /// A duration known to the microsecond.
    pub fn exact(d: Micros) -> Self {
        Self { least: d, most: Some(d) }
    }

    /// A duration known to be at least this.
    pub fn at_least(d: Micros) -> Self {
        Self { least: d, most: None }
    }

    /// Midpoint of the bounds; the lower bound when censored.
    pub fn midpoint(self) -> Micros {
        Micros(self.most.map_or(self.least.0, |m| self.least.0.midpoint(m.0)))
    }

    /// Half the distance of the bounds; `None` when censored.
    pub fn half_width(self) -> Option<Micros> {
        self.most.map(|m| Micros(m.saturating_sub(self.least).0.div_ceil(2)))
    }
}

/// A quantile as far as the sample tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quantile {
    /// The estimate, or the bound it is known to reach.
    pub value: Micros,
    /// True when the quantile lies among unfinished jobs: read `value` as `>= value`.
    pub at_least: bool,
    /// 95 % confidence interval out of the order statistics; `None` on the side where the sample
    /// is too small to bound it.
    pub low: Option<Micros>,
    /// Upper end of the same.
    pub high: Option<Micros>,
    /// Whether n ≥ 10 / (1 − q), the least sample we call enough for this quantile.
    pub supported: bool,
    /// Where all that is known is a bucket: its bounds, without an upper one beyond the last. The
    /// value is then drawn on a line between them and is not to be shown without them.
    pub bucket: Option<(Micros, Option<Micros>)>,
}

/// Durations being collected; [`finish`](Self::finish) makes them a sample.
#[derive(Debug, Clone, Default)]
pub struct Collecting {
    finished: Vec<u64>,
    censored: Vec<u64>,
    half_widths: Vec<u64>,
}

impl Collecting {
    /// Adds one.
    pub fn add(&mut self, span: Span) {
        match span.half_width() {
            Some(half) => {
                self.finished.push(span.midpoint().0);
                self.half_widths.push(half.0);
            }
            None => self.censored.push(span.least.0),
        }
    }

    /// Adds what another one collected.
    pub fn merge(&mut self, other: Self) {
        self.finished.extend(other.finished);
        self.censored.extend(other.censored);
        self.half_widths.extend(other.half_widths);
    }

    /// Sorts them.
    pub fn finish(self) -> Sample {
        let Self { finished: mut value, censored, mut half_widths } = self;
        let mut bound = Vec::new();
        if !censored.is_empty() {
            bound = [value.as_slice(), &censored].concat();
            bound.sort_unstable();
        }
        value.sort_unstable();
        value.resize(value.len() + censored.len(), u64::MAX);
        let middle = half_widths.len().saturating_sub(1) / 2;
        let half_width =
            (!half_widths.is_empty()).then(|| Micros(*half_widths.select_nth_unstable(middle).1));
        Sample { value, bound, half_width, censored: censored.len(), buckets: None }
    }
}

/// A sample of durations, ready to be asked.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// Midpoints of finished ones, rising; behind them `u64::MAX` for each censored one.
    value: Vec<u64>,
    /// All lower bounds (midpoints for finished ones), rising: the rank-wise lower bound. Left
    /// empty without censored ones, when it would be `value`.
    bound: Vec<u64>,
    half_width: Option<Micros>,
    censored: usize,
    /// In seconds; what is above is then empty.
    buckets: Option<Box<Buckets>>,
}

impl Sample {
    /// Sorts the durations in.
    pub fn new(spans: impl IntoIterator<Item = Span>) -> Self {
        let mut collecting = Collecting::default();
        spans.into_iter().for_each(|span| collecting.add(span));
        collecting.finish()
    }

    /// Durations of which only the bucket is known, with bounds in seconds.
    pub fn in_buckets(buckets: Buckets) -> Self {
        Self { buckets: Some(Box::new(buckets)), ..Self::default() }
    }

    /// Whether all that is known of each is its bucket.
    pub fn is_in_buckets(&self) -> bool {
        self.buckets.is_some()
    }

    fn bound(&self) -> &[u64] {
        if self.censored == 0 { &self.value } else { &self.bound }
    }

    /// How many durations, censored ones included.
    pub fn count(&self) -> usize {
        self.buckets.as_ref().map_or(self.value.len(), |b| usize::try_from(b.count()).unwrap_or(usize::MAX))
    }

    /// How many of them are censored; of those in buckets, how many lie beyond the last bound.
    pub fn censored(&self) -> usize {
        self.buckets.as_ref().map_or(self.censored, |b| usize::try_from(b.beyond()).unwrap_or(usize::MAX))
    }

    /// Mean of the finished ones, or of all that are in buckets; `None` when there are none.
    pub fn mean(&self) -> Option<Micros> {
        if let Some(buckets) = &self.buckets {
            return buckets.mean().map(buckets::round);
        }
        let n = self.count() - self.censored;
        (n > 0).then(|| {
            Micros((self.value[..n].iter().map(|&v| u128::from(v)).sum::<u128>() / n as u128) as u64)
        })
    }

    /// The smallest, exact or bound; `None` when empty.
    pub fn min(&self) -> Option<Quantile> {
        if let Some(buckets) = &self.buckets {
            return buckets.least_seconds();
        }
        self.at_rank(0, None, None, true)
    }

    /// The largest, or the largest bound when some are censored; `None` when empty.
    pub fn max(&self) -> Option<Quantile> {
        if let Some(buckets) = &self.buckets {
            return buckets.most_seconds();
        }
        self.at_rank(self.count().checked_sub(1)?, None, None, true)
    }

    /// Median half-width of the finished intervals, or that of the median's bucket: how blurred the
    /// sample is.
    pub fn half_width(&self) -> Option<Micros> {
        self.buckets.as_ref().map_or(self.half_width, |b| b.half_width_seconds())
    }

    /// The quantile `q` (0 < q < 1) at rank ⌈q·n⌉; `None` when empty.
    ///
    /// The interval is distribution-free: the ranks l < u with P(l ≤ Bin(n, q) < u) ≥ 95 %
    /// (Hahn & Meeker, *Statistical Intervals*, section 5.2).
    pub fn quantile(&self, q: f64) -> Option<Quantile> {
        if let Some(buckets) = &self.buckets {
            return buckets.seconds(q);
        }
        let n = self.count();
        if n == 0 {
            return None;
        }
        // Less a hair, since 0.999 × 1000 is a little more than 999 in floating point.
        let rank = ((q * n as f64 - 1e-9).ceil() as usize).clamp(1, n) - 1;
        let (low, high) = confidence_ranks(n, q);
        let low = low.map(|r| Micros(self.bound()[r]));
        let high = high.and_then(|r| (self.value[r] != u64::MAX).then_some(Micros(self.value[r])));
        self.at_rank(rank, low, high, is_enough(n as u64, q))
    }

    fn at_rank(
        &self,
        rank: usize,
        low: Option<Micros>,
        high: Option<Micros>,
        supported: bool,
    ) -> Option<Quantile> {
        let (value, bound) = (*self.value.get(rank)?, self.bound()[rank]);
        let at_least = value != bound;
        Some(Quantile { value: Micros(bound), at_least, low, high, supported, bucket: None })
    }
}

/// Whether `n` durations are enough for the quantile `q`: n ≥ 10 / (1 − q).
pub fn is_enough(n: u64, q: f64) -> bool {
    n as f64 >= 10.0 / (1.0 - q) - 1e-9
}

/// Ranks (from 0) whose order statistics enclose the quantile with 95 % confidence, each side
/// with at most 2.5 % outside; `None` where no rank does.
fn confidence_ranks(n: usize, q: f64) -> (Option<usize>, Option<usize>) {
    if n > 10_000 {
        // Normal approximation: the ranks are thousands wide, half a rank is nothing.
        let (mean, sd) = (n as f64 * q, (n as f64 * q * (1.0 - q)).sqrt());
        let low = (mean - 1.96 * sd).floor();
        let high = (mean + 1.96 * sd).ceil();
        return ((low >= 1.0).then(|| low as usize - 1), ((high as usize) < n).then_some(high as usize));
    }
    // X = how many observations lie below the true quantile ~ Bin(n, q). The l-th smallest
    // (from 1) is above it when X < l: take the largest l with P(X < l) ≤ 2.5 %; the u-th is
    // below it when X ≥ u: take the smallest u with P(X ≥ u) ≤ 2.5 %.
    let mut below = 0.0; // P(X < k)
    let (mut low, mut high) = (None, None);
    let (log_q, log_p) = (q.ln(), (1.0 - q).ln());
    let mut log_choose = 0.0;
    for k in 0..=n {
        if below <= 0.025 && k > 0 {
            low = Some(k - 1);
        }
        if 1.0 - below <= 0.025 && high.is_none() && k > 0 {
            high = Some(k - 1);
        }
        below += (log_choose + k as f64 * log_q + (n - k) as f64 * log_p).exp();
        log_choose += ((n - k) as f64 / (k + 1) as f64).ln();
    }
    (low, high)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, prop_assert, proptest};

    use super::*;

    fn exact(values: &[u64]) -> Sample {
        Sample::new(values.iter().map(|&v| Span::exact(Micros(v))))
    }

    #[test]
    fn ranks_are_those_of_the_tables() {
        // Hahn & Meeker table: median, n = 10 → 2nd and 9th; n = 20 → 6th and 15th.
        assert_eq!(confidence_ranks(10, 0.5), (Some(1), Some(8)));
        assert_eq!(confidence_ranks(20, 0.5), (Some(5), Some(14)));
        // p95 of 20 has no upper bound: P(X ≥ 20) = 0.95^20 = 36 %.
        assert_eq!(confidence_ranks(20, 0.95).1, None);
        assert_eq!(confidence_ranks(5, 0.5), (None, None));
    }

    #[test]
    fn a_quantile_says_when_the_sample_is_too_small() {
        let hundred: Vec<u64> = (1..=100).collect();
        let sample = exact(&hundred);
        let p50 = sample.quantile(0.5).unwrap();
        assert_eq!((p50.value, p50.supported, p50.at_least), (Micros(50), true, false));
        assert!(!sample.quantile(0.95).unwrap().supported, "p95 wants 200");
        let two_hundred: Vec<u64> = (1..=200).collect();
        assert!(exact(&two_hundred).quantile(0.95).unwrap().supported);
    }

    #[test]
    fn unfinished_jobs_stay_in_the_count() {
        let spans = [10, 20, 30].map(|v| Span::exact(Micros(v))).into_iter();
        let sample = Sample::new(spans.chain([Span::at_least(Micros(25))]));
        assert_eq!((sample.count(), sample.censored()), (4, 1));
        // The third of {10, 20, ≥25, 30} is 30 only if the censored one took longer: at least 25.
        let p75 = sample.quantile(0.75).unwrap();
        assert_eq!((p75.value, p75.at_least), (Micros(25), true));
        let p50 = sample.quantile(0.5).unwrap();
        assert_eq!((p50.value, p50.at_least), (Micros(20), false));
        assert!(sample.max().unwrap().at_least);
    }

    #[test]
    fn intervals_are_reported_by_midpoint_and_half_width() {
        let sample = Sample::new([Span { least: Micros(10), most: Some(Micros(20)) }]);
        assert_eq!(sample.quantile(0.5).unwrap().value, Micros(15));
        assert_eq!(sample.half_width(), Some(Micros(5)));
    }

    proptest! {
        #[test]
        fn quantiles_rise(values in prop::collection::vec((0u64..1_000, any::<bool>()), 1..80)) {
            let sample = Sample::new(values.iter().map(|&(v, done)| Span {
                least: Micros(v),
                most: done.then_some(Micros(v)),
            }));
            let mut last = Micros::ZERO;
            for i in 1..100 {
                let now = sample.quantile(f64::from(i) / 100.0).unwrap();
                prop_assert!(now.value >= last);
                if let Some(low) = now.low { prop_assert!(low <= now.value); }
                if let (Some(high), false) = (now.high, now.at_least) { prop_assert!(high >= now.value); }
                last = now.value;
            }
        }
    }
}
