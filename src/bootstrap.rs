//! Confidence intervals where the repetition is the unit: jobs of one cell have more in common
//! with each other than with those of another, so a hundred jobs of ten cells are worth less than
//! a hundred jobs.
//!
//! The two-stage bootstrap: cells are drawn with replacement, then from each drawn cell as many of
//! its jobs with replacement (Davison & Hinkley, *Bootstrap Methods and their Application*, 1997,
//! section 3.8), and the interval is that of the percentiles of the quantiles so found (Efron &
//! Tibshirani, *An Introduction to the Bootstrap*, 1993, chapter 13). Percentiles of so few cells
//! lie too close together; they are taken further out, as Student's t asks for (Hesterberg, *What
//! Teachers Should Know About the Bootstrap*, The American Statistician 69, 2015, on expanded
//! percentiles). A resample has no job beyond the largest of the sample, so an end is left open
//! where the sample does not reach: where the chance that all of as many independent jobs as these
//! are worth lie on one side of the truth is more than 2.5 %, and where no more than one cell has
//! anything beyond it.
//! No BCa: its acceleration comes from a jackknife, which fails for quantiles.

use rand::Rng;
use rand_chacha::ChaCha12Rng;
use serde::{Deserialize, Serialize};

use crate::{estimate::Span, histogram::Histogram, micros::Micros};

/// How often the cells are drawn anew.
pub const RESAMPLES: usize = 2_000;
/// With fewer repetitions there is no interval.
pub const LEAST_CELLS: usize = 3;
/// Of more jobs than these only so many are drawn from, evenly chosen among those of each cell in
/// the order of their size: that makes an interval wider, never narrower.
pub const MOST_JOBS: usize = 2_048;
/// Chance that the truth lies beyond an end.
const OUTSIDE: f64 = 0.025;
/// What a table says of its intervals.
pub const METHOD: &str = "95 % confidence interval over repetitions: two-stage percentile bootstrap, cells and then their jobs drawn with replacement 2,000 times, widened for few cells";

/// What the true quantile lies within, with 95 % confidence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// `None` where the repetitions do not bound it.
    pub low: Option<Micros>,
    /// `None` where the repetitions do not bound it, or where it lies among unfinished jobs.
    pub high: Option<Micros>,
}

/// The intervals of some quantiles (0 < q < 1) of what these cells measured; `None` with fewer
/// than [`LEAST_CELLS`] that measured anything. The order of cells and jobs does not matter; the
/// same generator gives the same intervals.
///
/// Unfinished jobs are drawn like all others: at a lower end they count with what is known, at an
/// upper end they are longer than anything.
pub fn intervals<const Q: usize>(
    cells: &[Cluster],
    quantiles: [f64; Q],
    rng: &mut ChaCha12Rng,
) -> Option<[Interval; Q]> {
    let cells = canonical(cells);
    if cells.len() < LEAST_CELLS {
        return None;
    }
    let n = cells.iter().map(|c| c.len()).sum::<usize>();
    let is_censored = cells.iter().copied().flatten().any(|job| job.1);
    let lower = Ranked::of(&cells, |job| job.0);
    let upper = is_censored.then(|| Ranked::of(&cells, |job| if job.1 { u64::MAX } else { job.0 }));
    let starts = cells.iter().scan(0, |next, c| Some(std::mem::replace(next, *next + c.len()))).collect();
    let mut drawn = Drawn { starts, counts: vec![0; n], upper: vec![0; if is_censored { n } else { 0 }] };
    let mut found = [(); Q].map(|()| (Vec::with_capacity(RESAMPLES), Vec::with_capacity(RESAMPLES)));
    let mut words = Vec::new();
    for _ in 0..RESAMPLES {
        let total = drawn.draw(&cells, &lower, upper.as_ref(), &mut words, rng);
        for (q, (low, high)) in quantiles.iter().zip(&mut found) {
            let wanted = ((q * total as f64 - 1e-9).ceil() as u32).clamp(1, total);
            low.push(rank(&drawn.counts, wanted));
            high.push(if is_censored { rank(&drawn.upper, wanted) } else { low[low.len() - 1] });
        }
    }
    let outside = (tail(cells.len()) * RESAMPLES as f64).floor() as usize;
    let upper = upper.as_ref().unwrap_or(&lower);
    let mut worth = quantiles.map(|q| worth(&cells, &lower, q)).into_iter();
    let are_two = |reach: &dyn Fn(&[Job]) -> bool| cells.iter().filter(|c| reach(c)).count() > 1;
    Some(found.map(|(mut low, mut high)| {
        low.sort_unstable();
        high.sort_unstable();
        let low = lower.values[low[outside]];
        let high = upper.values[high[RESAMPLES - 1 - outside]];
        let (q, n) = worth.next().expect("there is one for each quantile");
        let is_low = are_two(&|cell| cell[0].0 <= low) && (1.0 - q).powf(n) <= OUTSIDE;
        let is_high = are_two(&|cell| cell.iter().any(|job| job.1 || job.0 >= high)) && q.powf(n) <= OUTSIDE;
        Interval {
            low: is_low.then_some(Micros(low)),
            high: (is_high && high != u64::MAX).then_some(Micros(high)),
        }
    }))
}

/// The quantile, and as how many independent jobs these tell it: their number by Kish's design
/// effect, how much more the share of jobs below it varies between cells than it would if jobs had
/// nothing in common (*Survey Sampling*, 1965, section 8.2).
fn worth(cells: &[&[Job]], all: &Ranked, q: f64) -> (f64, f64) {
    let n = all.values.len() as f64;
    let value = all.values[((q * n - 1e-9).ceil() as usize).clamp(1, all.values.len()) - 1];
    let below = |jobs: &[Job]| jobs.iter().filter(|job| job.0 <= value).count() as f64;
    let share = all.values.partition_point(|v| *v <= value) as f64 / n;
    let apart = |jobs: &&[Job]| (below(jobs) - share * jobs.len() as f64).powi(2);
    let a = cells.len() as f64;
    let varies = a / (a - 1.0) * cells.iter().map(apart).sum::<f64>() / (n * n);
    let would = share * (1.0 - share) / n;
    let effect = if would > 0.0 { (varies / would).max(1.0) } else { 1.0 };
    (q, n / effect)
}

/// At most about [`MOST_JOBS`] jobs of `n` are drawn from: every so many-th of each cell.
pub fn thinning(n: usize) -> usize {
    n.div_ceil(MOST_JOBS).max(1)
}

/// A job: how long it took, or at least took, and whether it is unfinished.
type Job = (u64, bool);

/// The jobs of a cell that are drawn from, in the order of their size.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cluster(Vec<Job>);

impl Cluster {
    /// Every `step`-th job of a cell, as [`thinning`] has it for all jobs of all cells.
    pub fn of(jobs: &[Span], step: usize) -> Self {
        let mut jobs: Vec<Job> = jobs.iter().map(|s| (s.midpoint().0, s.most.is_none())).collect();
        jobs.sort_unstable();
        let first = (step / 2).min(jobs.len().saturating_sub(1));
        Self(jobs.into_iter().skip(first).step_by(step).collect())
    }

    /// The same of finished jobs that are in order already, in microseconds.
    pub fn of_sorted(jobs: &[u64], step: usize) -> Self {
        let first = (step / 2).min(jobs.len().saturating_sub(1));
        Self(jobs.iter().skip(first).step_by(step).map(|us| (*us, false)).collect())
    }

    /// The same of durations that are counted and not kept.
    pub fn of_histogram(counted: &Histogram, step: usize) -> Self {
        let step = step as u64;
        let mut next = (step / 2).min(counted.count().saturating_sub(1));
        let (mut seen, mut jobs) = (0, Vec::new());
        for (value, count) in counted.iter() {
            seen += count;
            while next < seen {
                jobs.push((value.0, false));
                next += step;
            }
        }
        Self(jobs)
    }
}

/// Cells that measured anything, in an order that depends on nothing but them.
fn canonical(cells: &[Cluster]) -> Vec<&[Job]> {
    let mut all: Vec<&[Job]> = cells.iter().map(|c| c.0.as_slice()).filter(|c| !c.is_empty()).collect();
    all.sort_unstable();
    all
}

/// All jobs in the order of their size, and where each stands.
struct Ranked {
    values: Vec<u64>,
    /// Cell after cell.
    ranks: Vec<u32>,
}

impl Ranked {
    fn of(cells: &[&[Job]], size: fn(&Job) -> u64) -> Self {
        let mut order: Vec<(u64, usize)> = cells.iter().copied().flatten().map(size).zip(0..).collect();
        order.sort_unstable();
        let mut ranks = vec![0; order.len()];
        for ((_, job), rank) in order.iter().zip(0..) {
            ranks[*job] = rank;
        }
        Self { values: order.into_iter().map(|(value, _)| value).collect(), ranks }
    }
}

/// How often the job of each rank was drawn.
struct Drawn {
    /// Where each cell's jobs begin among all.
    starts: Vec<usize>,
    counts: Vec<u32>,
    /// The same in the order of their upper bounds; empty without unfinished jobs.
    upper: Vec<u32>,
}

impl Drawn {
    /// Draws as many cells as there are, and jobs from each; returns how many jobs these are.
    fn draw(
        &mut self,
        cells: &[&[Job]],
        lower: &Ranked,
        upper: Option<&Ranked>,
        words: &mut Vec<u8>,
        rng: &mut ChaCha12Rng,
    ) -> u32 {
        self.counts.fill(0);
        self.upper.fill(0);
        let mut total = 0;
        for _ in 0..cells.len() {
            let chosen = below(cells.len(), rng.next_u32());
            let jobs = cells[chosen].len();
            let start = self.starts[chosen];
            words.resize(jobs * 4, 0);
            rng.fill_bytes(words);
            let (all, _) = words.as_chunks::<4>();
            for word in all {
                let job = start + below(jobs, u32::from_le_bytes(*word));
                self.counts[lower.ranks[job] as usize] += 1;
                if let Some(upper) = upper {
                    self.upper[upper.ranks[job] as usize] += 1;
                }
            }
            total += jobs as u32;
        }
        total
    }
}

/// A number below `n` out of a random word; of at most 2^16 numbers none is favoured by more than
/// 2^-16.
fn below(n: usize, word: u32) -> usize {
    ((u64::from(word) * n as u64) >> 32) as usize
}

/// The rank of the `wanted`-th smallest of those drawn, from 1.
fn rank(counts: &[u32], wanted: u32) -> usize {
    let mut seen = 0;
    for (rank, count) in counts.iter().enumerate() {
        seen += count;
        if seen >= wanted {
            return rank;
        }
    }
    counts.len() - 1
}

/// The share of resamples beyond each end: 2.5 % of very many cells, and of n of them what the
/// normal distribution has beyond √(n / (n − 1)) times the 97.5 % quantile of Student's t with
/// n − 1 degrees of freedom.
fn tail(cells: usize) -> f64 {
    const FEW: [f64; 8] = [6.8e-8, 1.19e-4, 9.5e-4, 2.43e-3, 4.11e-3, 5.74e-3, 7.22e-3, 8.55e-3];
    match cells {
        0..LEAST_CELLS => 0.0,
        n if n - LEAST_CELLS < FEW.len() => FEW[n - LEAST_CELLS],
        // Within a tenth of it; nearly a line over 1/n.
        n => 0.025 - (0.025 - 8.55e-3) * 10.0 / n as f64,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, proptest};
    use rand::{RngExt, SeedableRng};

    use super::*;

    fn rng(seed: u64) -> ChaCha12Rng {
        ChaCha12Rng::seed_from_u64(seed)
    }

    /// About normal: the sum of twelve.
    fn normal(rng: &mut ChaCha12Rng) -> f64 {
        (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0
    }

    /// `jobs` of each of `cells`; `common` is the share of the variance that the jobs of a cell share.
    fn clustered(cells: usize, jobs: usize, common: f64, rng: &mut ChaCha12Rng) -> Vec<Vec<Span>> {
        let cell = |rng: &mut ChaCha12Rng| {
            let shared = normal(rng) * common.sqrt();
            let job = |_| {
                let z = shared + normal(rng) * (1.0 - common).sqrt();
                Span::exact(Micros((1e6 * (0.3 * z).exp()) as u64))
            };
            (0..jobs).map(job).collect()
        };
        (0..cells).map(|_| cell(rng)).collect()
    }

    /// How often the truth was missed below and above, and how often both ends were there.
    fn missed(cells: usize, jobs: usize, common: f64, q: f64, times: u32) -> [u32; 3] {
        let mut rng = rng(7);
        // The quantiles of the standard normal distribution at 50 % and 95 %.
        let z = if q < 0.9 { 0.0 } else { 1.644_85f64 };
        let truth = Micros((1e6 * (0.3 * z).exp()) as u64);
        let mut found = [0; 3];
        for _ in 0..times {
            let data = clusters(&clustered(cells, jobs, common, &mut rng));
            let [found_at] = intervals(&data, [q], &mut rng).unwrap();
            found[0] += u32::from(found_at.low.is_some_and(|low| low > truth));
            found[1] += u32::from(found_at.high.is_some_and(|high| high < truth));
            found[2] += u32::from(found_at.low.is_some() && found_at.high.is_some());
        }
        found
    }

    /// Ten cells of eight jobs that have a third of their variance in common; five of a hundred
    /// would be what it says, `coverage` measures it with more.
    #[test]
    fn it_covers_the_truth_about_as_often_as_it_says() {
        let [below, above, bounded] = missed(10, 8, 0.3, 0.5, 60);
        assert!(below + above <= 7, "{below} below, {above} above");
        assert_eq!(bounded, 60);
    }

    /// `cargo test --release coverage -- --ignored --nocapture`.
    #[test]
    #[ignore = "measures"]
    fn coverage() {
        for cells in [3, 4, 5, 10, 20] {
            for jobs in [1, 5, 10] {
                for q in [0.5, 0.95] {
                    let of = |common| missed(cells, jobs, common, q, 400);
                    println!("{cells} x {jobs}, {q}: {:?}", [0.0, 0.3, 0.9].map(of));
                }
            }
        }
    }

    #[test]
    #[ignore = "measures"]
    fn fast() {
        let mut rng = rng(1);
        let data = clusters(&clustered(80, 10, 0.3, &mut rng));
        let began = Instant::now();
        for _ in 0..9 {
            intervals(&data, [0.5, 0.95], &mut rng).unwrap();
        }
        println!("80 cells of 10 jobs, 9 stages: {:?}", began.elapsed());
        let data = clustered(100, 10_000, 0.3, &mut rng);
        let began = Instant::now();
        let data = clusters(&data);
        intervals(&data, [0.5, 0.95], &mut rng).unwrap();
        println!("a million jobs, 1 stage: {:?}", began.elapsed());
    }

    fn clusters(cells: &[Vec<Span>]) -> Vec<Cluster> {
        let step = thinning(cells.iter().map(Vec::len).sum());
        cells.iter().map(|jobs| Cluster::of(jobs, step)).collect()
    }

    #[test]
    fn a_million_jobs_are_thinned_alike_whether_kept_or_counted() {
        let jobs: Vec<Span> = (1..=50_000).map(|us| Span::exact(Micros(us % 1_000))).collect();
        let mut counted = Histogram::default();
        jobs.iter().for_each(|job| counted.record(job.least));
        let step = thinning(20 * jobs.len());
        let mut sorted: Vec<u64> = jobs.iter().map(|job| job.least.0).collect();
        sorted.sort_unstable();
        assert_eq!(Cluster::of(&jobs, step), Cluster::of_sorted(&sorted, step));
        assert_eq!(Cluster::of(&jobs, step), Cluster::of_histogram(&counted, step));
        assert_eq!(Cluster::of(&jobs, step).0.len() * 20, 2_040);
    }

    #[test]
    fn fewer_than_three_repetitions_have_no_interval() {
        let mut rng = rng(1);
        let mut data = clustered(2, 50, 0.3, &mut rng);
        data.push(Vec::new());
        assert_eq!(intervals(&clusters(&data), [0.5], &mut rng), None, "an empty cell is none");
        assert!(intervals(&clusters(&clustered(4, 50, 0.3, &mut rng)), [0.5], &mut rng).is_some());
    }

    #[test]
    fn an_end_among_unfinished_jobs_is_open() {
        let cell = |from: u64| -> Vec<Span> {
            let finished = (0..10).map(|i| Span::exact(Micros(from + i)));
            finished.chain((0..8).map(|i| Span::at_least(Micros(from + 5 + i)))).collect()
        };
        let data: Vec<Vec<Span>> = (0..10).map(|c| cell(1_000 + c)).collect();
        let [p50, p95] = intervals(&clusters(&data), [0.5, 0.95], &mut rng(3)).unwrap();
        assert!(p50.low.is_some() && p95.low.is_some());
        assert_eq!(p95.high, None);
    }

    #[test]
    fn alike_jobs_leave_no_doubt() {
        let data = vec![vec![Span::exact(Micros(500)); 10]; 10];
        let [p50] = intervals(&clusters(&data), [0.5], &mut rng(3)).unwrap();
        assert_eq!((p50.low, p50.high), (Some(Micros(500)), Some(Micros(500))));
    }

    fn cells() -> impl Strategy<Value = (Vec<Vec<Span>>, Vec<Vec<Span>>)> {
        let job = (0u64..500, any::<bool>())
            .prop_map(|(v, is_finished)| Span { least: Micros(v), most: is_finished.then_some(Micros(v)) });
        let all = prop::collection::vec(prop::collection::vec(job, 0..12), 0..9);
        all.prop_flat_map(|all| {
            let shuffled: Vec<_> = all.iter().map(|c| Just(c.clone()).prop_shuffle()).collect();
            (Just(all), shuffled.prop_shuffle())
        })
    }

    proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        #[test]
        fn the_order_does_not_matter_and_the_seed_does((data, shuffled) in cells(), seed: u64) {
            let one = intervals(&clusters(&data), [0.5, 0.95], &mut rng(seed));
            prop_assert_eq!(one, intervals(&clusters(&shuffled), [0.5, 0.95], &mut rng(seed)));
            prop_assert_eq!(one.is_some(), data.iter().filter(|c| !c.is_empty()).count() >= LEAST_CELLS);
        }
    }
}
