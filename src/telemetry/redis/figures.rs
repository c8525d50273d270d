//! What a cell cost its Redis, in single figures.

use super::{RedisSample, RedisSeries};
use crate::{micros::Micros, moment::Moment};

/// What a cell cost its Redis. Our own sampling is left out wherever it can be told apart.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Figures {
    /// How many samples they are drawn from.
    pub samples: usize,
    /// Stretches without.
    pub gaps: usize,
    /// Whether its counters do not cover the whole cell: differences are then lower bounds.
    pub is_cut: bool,
    /// From the first sample to the last.
    pub span: Micros,
    /// Bytes of data at the first sample.
    pub memory_start: u64,
    /// The most bytes of data, also between samples where Redis knows of it itself.
    pub memory_peak: u64,
    /// Growth of the data in bytes a second from T0 on, by least squares; needs three samples.
    pub memory_slope: Option<f64>,
    /// Bytes that others sent to it.
    pub net_input: u64,
    /// Bytes that it sent to others.
    pub net_output: u64,
    /// Commands of others.
    pub commands: u64,
    /// CPU time of the whole process; what our own commands took in it is left out.
    pub cpu: Micros,
    /// The most messages waiting, all queues together.
    pub queue_peak: u64,
    /// The most messages handed out and not acknowledged.
    pub unacked_peak: u64,
    /// The most clients waiting in a blocking command.
    pub blocked_peak: u64,
    /// Keys evicted in the cell.
    pub evicted: u64,
}

impl Figures {
    /// The figures of a cell; `None` without a sample.
    pub fn of(series: &RedisSeries) -> Option<Self> {
        let (first, last) = (series.samples.first()?, series.samples.last()?);
        let most = |of: fn(&RedisSample) -> u64| series.samples.iter().map(of).max().unwrap_or(0);
        let used: Vec<(f64, f64)> = series
            .samples
            .iter()
            .filter(|s| s.at >= Moment(0))
            .map(|s| (s.at.as_secs(), s.used_memory as f64))
            .collect();
        Some(Self {
            samples: series.samples.len(),
            gaps: series.gaps.len(),
            is_cut: !series.cuts.is_empty(),
            span: Micros(u64::try_from(last.at.0 - first.at.0).unwrap_or(0)),
            memory_start: first.used_memory,
            memory_peak: memory_peak(series),
            memory_slope: slope(&used),
            net_input: grown(series, |s| s.net_input, |s| s.own_input),
            net_output: grown(series, |s| s.net_output, |s| s.own_output),
            commands: grown(series, |s| s.commands, |s| s.own_commands),
            cpu: Micros(grown(series, |s| s.cpu.0, |_| 0)).saturating_sub(series.cost.busy),
            queue_peak: most(|s| s.queues.values().sum()),
            unacked_peak: most(|s| s.unacked),
            blocked_peak: most(|s| s.blocked_clients),
            evicted: grown(series, |s| s.evicted_keys, |_| 0),
        })
    }

    /// How far the data rose above where they stood when the cell was opened.
    pub fn memory_rise(&self) -> u64 {
        self.memory_peak.saturating_sub(self.memory_start)
    }

    /// Commands of others a second, on average.
    pub fn ops(&self) -> Option<f64> {
        (self.span > Micros::ZERO).then(|| self.commands as f64 / self.span.as_secs())
    }
}

/// What a counter grew by over the cell, less our own part. Where it began anew, what it counted
/// since then is added: what was counted after the sample before that is lost.
fn grown(series: &RedisSeries, of: fn(&RedisSample) -> u64, own: fn(&RedisSample) -> u64) -> u64 {
    series
        .samples
        .windows(2)
        .map(|pair| {
            let all = match of(&pair[1]).checked_sub(of(&pair[0])) {
                Some(more) if !pair[1].is_anew => more,
                _ => of(&pair[1]),
            };
            all.saturating_sub(own(&pair[1]).saturating_sub(own(&pair[0])))
        })
        .fold(0, u64::saturating_add)
}

/// The largest sample, or what Redis itself saw between two of them.
fn memory_peak(series: &RedisSeries) -> u64 {
    let sampled = series.samples.iter().map(|s| s.used_memory).max().unwrap_or(0);
    // Its own mark is since its start: it speaks of the cell only when it rose within it.
    let rose = series
        .samples
        .windows(2)
        .filter(|pair| !pair[1].is_anew && pair[1].used_memory_peak > pair[0].used_memory_peak);
    rose.map(|pair| pair[1].used_memory_peak).fold(sampled, u64::max)
}

/// Slope of the line through some points by least squares; `None` with fewer than three or without
/// spread.
pub fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let n = points.len() as f64;
    let (mx, my) = (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n);
    let xx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
    let xy: f64 = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum();
    (points.len() > 2 && xx > 0.0).then(|| xy / xx)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    fn sample(second: i64, n: u64) -> RedisSample {
        RedisSample {
            at: Moment(second * 1_000_000),
            used_memory: n,
            used_memory_peak: n,
            net_input: n,
            own_input: n / 10,
            commands: n,
            ..RedisSample::default()
        }
    }

    #[test]
    fn differences_leave_our_own_out_and_survive_a_restart() {
        let anew = RedisSample { is_anew: true, own_input: 60, ..sample(3, 50) };
        let samples = vec![
            sample(-1, 100),
            sample(0, 300),
            sample(1, 500),
            anew,
            RedisSample { own_input: 60, ..sample(4, 150) },
        ];
        let series = RedisSeries { samples, cuts: vec!["restarted".into()], ..RedisSeries::default() };
        let f = Figures::of(&series).unwrap();
        // 100 → 500, then 0 → 150; of it 50 were ours.
        assert_eq!((f.net_input, f.commands, f.is_cut), (550 - 50, 550, true));
        assert_eq!(f.span, Micros(5_000_000));
        assert_eq!((f.memory_start, f.memory_peak, f.memory_rise()), (100, 500, 400));
        assert_eq!(f.ops(), Some(110.0));
        assert_eq!(Figures::of(&RedisSeries::default()), None);
    }

    #[test]
    fn a_peak_between_two_samples_is_seen_when_it_is_the_highest_ever() {
        let peaked = RedisSample { used_memory: 120, used_memory_peak: 900, ..sample(1, 0) };
        let flat = RedisSample { used_memory: 100, used_memory_peak: 800, ..sample(0, 0) };
        let of =
            |samples| Figures::of(&RedisSeries { samples, ..RedisSeries::default() }).unwrap().memory_peak;
        assert_eq!(of(vec![flat.clone(), peaked.clone()]), 900);
        let older = RedisSample { used_memory_peak: 900, ..flat };
        assert_eq!(of(vec![older, peaked]), 120, "a peak of before says nothing of the cell");
    }

    proptest! {
        #[test]
        fn the_slope_of_a_line_is_its_own(a in -1e6..1e6f64, b in -1e6..1e6f64, xs in prop::collection::btree_set(0u32..10_000, 3..50)) {
            let points: Vec<(f64, f64)> = xs.iter().map(|&x| (f64::from(x), a + b * f64::from(x))).collect();
            prop_assert!((slope(&points).unwrap() - b).abs() <= 1e-6 * (1.0 + a.abs() + b.abs()));
        }

        #[test]
        fn nothing_is_ever_negative_or_overflows(counters in prop::collection::vec(0u64..u64::MAX / 64, 0..40)) {
            let samples: Vec<RedisSample> =
                counters.iter().enumerate().map(|(i, &n)| sample(i as i64, n)).collect();
            let series = RedisSeries { samples, ..RedisSeries::default() };
            let _ = Figures::of(&series);
            for line in series.lines() {
                prop_assert!(line.points.iter().all(|(_, y)| *y >= 0.0));
            }
        }
    }
}
