//! A watched process beside a cell.
//!
//! Two peaks are kept, and they are not the same. The highest [`rss`](ProcessSample::rss) of the
//! samples is what the process and its descendants had at one moment that was looked at; between two
//! looks it may have been more. [`peak_rss`](ProcessSample::peak_rss) adds up what the kernel
//! remembers as the most of each living one (VmHWM): they can never have had more at once, though
//! each may have had its most at another moment, before the cell too. Memory that processes share,
//! such as that of prefork children with their parent, counts once for each of them.

use serde::{Deserialize, Serialize};

use super::{Gap, Line, Unit};
use crate::{micros::Micros, moment::Moment};

/// A process and its descendants, looked at several times a second.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessSeries {
    /// In the order of time. Of a long cell some are left out, the highest of `rss` never.
    pub samples: Vec<ProcessSample>,
    /// Where samples are missing, such as after its end.
    pub gaps: Vec<Gap>,
    /// The most bytes that the process itself, without descendants, ever had (VmHWM), as of the
    /// last look.
    pub own_peak: u64,
    /// How often it was looked at.
    pub looks: u64,
    /// CPU time that the looking took.
    pub cost: Micros,
}

/// One look at a process, its descendants added in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Packed", into = "Packed")]
pub struct ProcessSample {
    /// When.
    pub at: Moment,
    /// CPU time used since its start, by it and its descendants, those that ended included. In
    /// steps of the kernel's clock tick, mostly 10 ms.
    pub cpu: Micros,
    /// Bytes resident, of all that live.
    pub rss: u64,
    /// The most bytes that were ever resident of each that lives (VmHWM), added up.
    pub peak_rss: u64,
    /// How many processes these are.
    pub processes: u32,
}

/// A sample in a record: there are thousands, so the names of its fields are left out.
type Packed = (Moment, Micros, u64, u64, u32);

impl From<Packed> for ProcessSample {
    fn from((at, cpu, rss, peak_rss, processes): Packed) -> Self {
        Self { at, cpu, rss, peak_rss, processes }
    }
}

impl From<ProcessSample> for Packed {
    fn from(s: ProcessSample) -> Self {
        (s.at, s.cpu, s.rss, s.peak_rss, s.processes)
    }
}

/// CPU time used in a window, as tightly as the samples tell it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    /// At least this: between the first sample in the window and the last one.
    pub least: Micros,
    /// As if it were used evenly between two samples.
    pub about: Micros,
    /// At most this: between the last sample before the window and the first one after it.
    pub most: Micros,
}

impl std::ops::AddAssign for Used {
    fn add_assign(&mut self, other: Self) {
        self.least += other.least;
        self.about += other.about;
        self.most += other.most;
    }
}

/// Bytes resident in a window, as tightly as the samples tell it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Resident {
    /// The most that any sample saw, those next to the window included.
    pub peak: u64,
    /// What the kernel's own peaks add up to at the end of it: it cannot have been more.
    pub ceiling: u64,
    /// Samples within the window; with none, what the peak is was seen just outside.
    pub samples: u64,
}

impl ProcessSeries {
    /// Every figure that is worth a chart; `name` tells processes apart.
    pub fn lines(&self, name: &str) -> Vec<Line> {
        /// Steps over which CPU is averaged: shorter ones show the kernel's clock tick.
        const STEP: i64 = 500_000;
        let mut cores = Vec::new();
        let mut from = self.samples.first();
        for s in &self.samples {
            let Some(first) = from else { break };
            let apart = s.at.0 - first.at.0;
            if apart >= STEP {
                if !self.has_gap(first.at, s.at) {
                    cores.push((s.at, s.cpu.saturating_sub(first.cpu).0 as f64 / apart as f64));
                }
                from = Some(s);
            }
        }
        let rss = self.samples.iter().map(|s| (s.at, s.rss as f64)).collect();
        let line = |what: &str, unit, points| Line { name: format!("{name} {what}"), unit, points };
        let all = [line("CPU", Unit::Cores, cores), line("memory", Unit::Bytes, rss)];
        all.into_iter().filter(|line| !line.points.is_empty()).collect()
    }

    /// Whether there is a gap anywhere between two moments.
    pub fn has_gap(&self, from: Moment, to: Moment) -> bool {
        self.gaps.iter().any(|gap| gap.from < to && gap.to > from)
    }

    /// Whether there is a gap in a cell that lasted so long.
    pub fn has_gap_before(&self, duration: Micros) -> bool {
        self.has_gap(Moment(0), Moment(i64::try_from(duration.0).unwrap_or(i64::MAX)))
    }

    /// The last sample not after a moment, and the first one not before it.
    fn around(&self, at: Moment) -> (Option<&ProcessSample>, Option<&ProcessSample>) {
        let after = self.samples.partition_point(|s| s.at <= at);
        let before = self.samples.partition_point(|s| s.at < at);
        (after.checked_sub(1).map(|i| &self.samples[i]), self.samples.get(before))
    }

    /// CPU time used up to a moment, at least, about and at most; `None` outside the samples.
    fn cpu_at(&self, at: Moment) -> Option<Used> {
        let (Some(a), Some(b)) = self.around(at) else { return None };
        let share = match b.at.0 - a.at.0 {
            0 => 0.0,
            apart => (at.0 - a.at.0) as f64 / apart as f64,
        };
        let about = a.cpu.0 as f64 + share * b.cpu.saturating_sub(a.cpu).0 as f64;
        Some(Used { least: a.cpu, about: Micros(about.round() as u64), most: b.cpu })
    }

    /// CPU time used between two moments; `None` when the samples do not reach around both, or
    /// have a gap there.
    pub fn cpu_between(&self, from: Moment, to: Moment) -> Option<Used> {
        let (start, end) = (self.cpu_at(from)?, self.cpu_at(to.max(from))?);
        (!self.has_gap(from, to)).then(|| Used {
            least: end.least.saturating_sub(start.most),
            about: end.about.saturating_sub(start.about),
            most: end.most.saturating_sub(start.least),
        })
    }

    /// Memory between two moments; `None` as [`cpu_between`](Self::cpu_between).
    pub fn memory_between(&self, from: Moment, to: Moment) -> Option<Resident> {
        let (Some(before), _) = self.around(from) else { return None };
        let (_, Some(after)) = self.around(to) else { return None };
        if self.has_gap(from, to) {
            return None;
        }
        let around = self.samples.iter().filter(|s| s.at >= before.at && s.at <= after.at);
        Some(Resident {
            peak: around.clone().map(|s| s.rss).max()?,
            ceiling: around.clone().map(|s| s.peak_rss).max()?,
            samples: around.filter(|s| s.at >= from && s.at <= to).count() as u64,
        })
    }

    /// Bytes resident at the end of the cell less those at T0, of the samples next to them;
    /// `None` without samples on both sides.
    pub fn growth(&self) -> Option<i64> {
        let (before, first) = self.around(Moment(0));
        let (first, last) = (before.or(first)?, self.samples.last()?);
        let bytes = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        (last.at > first.at).then(|| bytes(last.rss) - bytes(first.rss))
    }

    /// The longest pause between two samples, gaps left out: what is shorter may not show.
    pub fn resolution(&self) -> Option<Micros> {
        let pairs = self.samples.windows(2).filter(|w| !self.has_gap(w[0].at, w[1].at));
        pairs.map(|w| Micros((w[1].at.0 - w[0].at.0).unsigned_abs())).max()
    }

    /// Leaves out samples until there are at most `most` (and no fewer than 4): of neighbours, that with the highest `rss` and the
    /// last one are kept, so neither a peak nor the CPU time at the end gets lost.
    pub fn thin_out(&mut self, most: usize) {
        let most = most.max(4);
        while self.samples.len() > most {
            let first = self.samples.first().copied();
            let mut kept: Vec<ProcessSample> = Vec::with_capacity(self.samples.len() / 2 + 2);
            kept.extend(first);
            for four in self.samples[1..].chunks(4) {
                let highest = four.iter().enumerate().max_by_key(|(_, s)| s.rss).map_or(0, |(i, _)| i);
                let last = four.len() - 1;
                kept.extend((highest != last).then(|| four[highest]));
                kept.push(four[last]);
            }
            self.samples = kept;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, proptest};

    use super::*;

    /// One sample each 100 ms; `cpu` in ms, `rss` in bytes.
    fn series(of: &[(u64, u64)]) -> ProcessSeries {
        let samples = of.iter().enumerate().map(|(i, &(cpu, rss))| ProcessSample {
            at: Moment(i as i64 * 100_000),
            cpu: Micros(cpu * 1_000),
            rss,
            peak_rss: rss + 5,
            processes: 2,
        });
        ProcessSeries { samples: samples.collect(), ..ProcessSeries::default() }
    }

    #[test]
    fn a_window_between_samples_is_told_with_its_bounds() {
        let s = series(&[(0, 1), (100, 1), (100, 9), (150, 3), (150, 2)]);
        let used = s.cpu_between(Moment(50_000), Moment(250_000)).unwrap();
        assert_eq!((used.least, used.about, used.most), (Micros(0), Micros(75_000), Micros(150_000)));
        let exact = s.cpu_between(Moment(100_000), Moment(300_000)).unwrap();
        assert_eq!([exact.least, exact.about, exact.most], [Micros(50_000); 3]);
        let memory = s.memory_between(Moment(210_000), Moment(290_000)).unwrap();
        assert_eq!((memory.peak, memory.ceiling, memory.samples), (9, 14, 0));
        assert!(s.cpu_between(Moment(-1), Moment(100_000)).is_none(), "before the first sample");
        assert!(s.memory_between(Moment(0), Moment(400_001)).is_none(), "behind the last sample");
    }

    #[test]
    fn nothing_is_told_across_a_gap() {
        let mut s = series(&[(0, 1), (100, 1), (200, 1)]);
        s.gaps.push(Gap { from: Moment(100_000), to: Moment(200_000), why: "it ended".into() });
        assert!(s.cpu_between(Moment(50_000), Moment(150_000)).is_none());
        assert!(s.memory_between(Moment(50_000), Moment(150_000)).is_none());
        assert!(s.cpu_between(Moment(0), Moment(100_000)).is_some());
        assert_eq!(s.resolution(), Some(Micros(100_000)));
    }

    #[test]
    fn growth_is_from_t0_to_the_end() {
        let mut s = series(&[(0, 10), (0, 30), (0, 7)]);
        s.samples[0].at = Moment(-20_000);
        assert_eq!(s.growth(), Some(-3));
        assert_eq!(series(&[(0, 1)]).growth(), None);
        assert_eq!(ProcessSeries::default().growth(), None);
    }

    #[test]
    fn lines_have_cores_and_bytes() {
        let s = series(&[(0, 1), (100, 2), (200, 3), (300, 4), (400, 5), (500, 6)]);
        let lines = s.lines("celery");
        assert_eq!(
            (lines[0].name.as_str(), lines[0].points.clone()),
            ("celery CPU", vec![(Moment(500_000), 1.0)])
        );
        assert_eq!((lines[1].unit, lines[1].points.len()), (Unit::Bytes, 6));
        assert!(ProcessSeries::default().lines("x").is_empty());
    }

    #[test]
    fn a_record_holds_samples_without_names() {
        let s = series(&[(3, 4)]);
        let text = serde_json::to_string(&s).unwrap();
        assert!(text.contains("[[0,3000,4,9,2]]"), "{text}");
        assert_eq!(serde_json::from_str::<ProcessSeries>(&text).unwrap(), s);
    }

    proptest! {
        #[test]
        fn thinning_keeps_the_extremes(rss in prop::collection::vec(0u64..100, 0..300), most in 0usize..40) {
            let of: Vec<(u64, u64)> = rss.iter().enumerate().map(|(i, &r)| (i as u64, r)).collect();
            let (whole, mut thin) = (series(&of), series(&of));
            thin.thin_out(most);
            prop_assert!(thin.samples.len() <= most.max(4));
            let peak = |s: &ProcessSeries| s.samples.iter().map(|s| s.rss).max();
            prop_assert!(peak(&whole) == peak(&thin));
            prop_assert!(whole.samples.first() == thin.samples.first());
            prop_assert!(whole.samples.last() == thin.samples.last());
            prop_assert!(thin.samples.is_sorted_by_key(|s| s.at));
        }

        #[test]
        fn the_bounds_hold_what_lies_between(cpu in prop::collection::vec(0u64..50, 3..30), a in 0i64..1_000_000, b in 0i64..1_000_000) {
            let mut sum = 0;
            let of: Vec<(u64, u64)> = cpu.iter().map(|c| { sum += c; (sum, 1) }).collect();
            if let Some(used) = series(&of).cpu_between(Moment(a.min(b)), Moment(a.max(b))) {
                prop_assert!(used.least <= used.about && used.about <= used.most, "{used:?}");
            }
        }
    }
}
