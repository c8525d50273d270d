//! When jobs of a cell merged, on the cell's own clock.

use crate::{
    micros::Micros,
    moment::Moment,
    posts::attribution,
    record::CellRecord,
    state::JobState,
    telemetry::process::{ProcessSeries, Resident, Used},
};

/// Who tells when a merge was, the more exact one first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clock {
    /// The posts that a tap saw, its clock held against ours.
    Tap,
    /// Polling: somewhere between two polls.
    Poll,
}

impl Clock {
    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tap => "tap",
            Self::Poll => "poll",
        }
    }
}

/// One merge: from MERGING_QUEUED to the post of the results (tap) or COMPLETED (poll). Its ends
/// lie between two moments each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// It began after the first and before the second.
    pub start: (Moment, Moment),
    /// It ended after the first and before the second.
    pub end: (Moment, Moment),
}

/// Every merge of a cell that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows {
    /// Who tells.
    pub clock: Clock,
    /// In no order; they may overlap.
    pub all: Vec<Window>,
}

/// A stretch of time.
type Stretch = (Moment, Moment);

impl Windows {
    /// By the tap where its clock is known and it saw as many merges as polling did, and by
    /// polling where not.
    pub fn of(cell: &CellRecord) -> Self {
        let polled = polled(cell);
        match tapped(cell) {
            Some(all) if all.len() >= polled.len() && !all.is_empty() => Self { clock: Clock::Tap, all },
            _ => Self { clock: Clock::Poll, all: polled },
        }
    }

    /// CPU time that a process used in them; `None` when it was not looked at all that time.
    pub fn cpu(&self, series: &ProcessSeries) -> Option<Used> {
        let of = |which: fn(&Window) -> Stretch| {
            let mut sum = Used::default();
            for (from, to) in united(self.all.iter().map(which)) {
                sum += series.cpu_between(from, to)?;
            }
            Some(sum)
        };
        let (inner, middle, outer) = (of(inner)?, of(middle)?, of(outer)?);
        let about = middle.about.clamp(inner.least, outer.most);
        Some(Used { least: inner.least, about, most: outer.most })
    }

    /// Memory of a process in them; `None` when it was not looked at all that time.
    pub fn memory(&self, series: &ProcessSeries) -> Option<Resident> {
        let mut all: Option<Resident> = None;
        for (from, to) in united(self.all.iter().map(outer)) {
            let one = series.memory_between(from, to)?;
            let so_far = all.unwrap_or_default();
            all = Some(Resident {
                peak: one.peak.max(so_far.peak),
                ceiling: one.ceiling.max(so_far.ceiling),
                samples: one.samples + so_far.samples,
            });
        }
        all
    }
}

/// All of the time in which it may have gone on.
fn outer(w: &Window) -> Stretch {
    (w.start.0, w.end.1)
}

/// The time in which it surely went on, if there is any.
fn inner(w: &Window) -> Stretch {
    (w.start.1, w.end.0)
}

fn middle(w: &Window) -> Stretch {
    let of = |(a, b): Stretch| Moment(a.0.midpoint(b.0));
    (of(w.start), of(w.end))
}

/// Stretches without overlap, in the order of time; those that end before they begin are none.
fn united(stretches: impl Iterator<Item = Stretch>) -> Vec<Stretch> {
    let mut all: Vec<Stretch> = stretches.filter(|(from, to)| from < to).collect();
    all.sort_unstable();
    let mut united: Vec<Stretch> = Vec::new();
    for (from, to) in all {
        match united.last_mut() {
            Some(last) if from <= last.1 => last.1 = last.1.max(to),
            _ => united.push((from, to)),
        }
    }
    united
}

fn signed(m: Micros) -> i64 {
    i64::try_from(m.0).unwrap_or(i64::MAX)
}

fn polled(cell: &CellRecord) -> Vec<Window> {
    let jobs = cell.totals.jobs.values();
    let window = |job: &crate::snapshot::Job| {
        let start = job.timeline.reached(JobState::MergingQueued)?;
        let end = job.timeline.reached(JobState::Completed)?;
        let moment = |m: Micros| Moment(signed(m));
        Some(Window {
            start: (moment(start.after), moment(start.before)),
            end: (moment(end.after), moment(end.before)),
        })
    };
    jobs.filter_map(window).collect()
}

/// `None` when nothing is known of the tap's clock.
fn tapped(cell: &CellRecord) -> Option<Vec<Window>> {
    let posts = cell.posts.as_ref()?;
    let t0 = posts.t0?;
    let ours = |at: Micros| {
        let since = |t0: Micros| Moment(signed(at) - signed(t0));
        (since(t0.before), since(t0.after))
    };
    let attribution = attribution(&cell.totals, posts);
    let window = |s: &crate::posts::Simulation| {
        let posted = s.results_received.or(s.results.map(|m| m.received))?;
        Some(Window { start: ours(s.merging_queued?.received), end: ours(posted) })
    };
    Some(attribution.ours().filter_map(|(_, s)| window(s)).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;
    use crate::telemetry::process::ProcessSample;

    fn window(start: (i64, i64), end: (i64, i64)) -> Window {
        let both = |(a, b): (i64, i64)| (Moment(a * 1_000), Moment(b * 1_000));
        Window { start: both(start), end: both(end) }
    }

    /// One core busy from 1 s to 2 s, looked at each 100 ms for 4 s.
    fn busy() -> ProcessSeries {
        let samples = (0..=40i64).map(|i| ProcessSample {
            at: Moment(i * 100_000),
            cpu: Micros(((i - 10).clamp(0, 10) * 100_000) as u64),
            rss: if (10..20).contains(&i) { 50 } else { 10 },
            peak_rss: 60,
            processes: 1,
        });
        ProcessSeries { samples: samples.collect(), ..ProcessSeries::default() }
    }

    fn of(all: Vec<Window>) -> Windows {
        Windows { clock: Clock::Tap, all }
    }

    #[test]
    fn merges_that_overlap_count_once() {
        let windows =
            of(vec![window((1_000, 1_000), (1_800, 1_800)), window((1_500, 1_500), (2_000, 2_000))]);
        let used = windows.cpu(&busy()).unwrap();
        assert_eq!([used.least, used.about, used.most], [Micros(1_000_000); 3]);
        let memory = windows.memory(&busy()).unwrap();
        assert_eq!((memory.peak, memory.ceiling, memory.samples), (50, 60, 11));
    }

    #[test]
    fn a_merge_between_polls_has_bounds() {
        let windows = of(vec![window((700, 1_200), (1_900, 2_400))]);
        let used = windows.cpu(&busy()).unwrap();
        assert_eq!([used.least, used.about, used.most].map(|m| m.0), [700_000, 1_000_000, 1_000_000]);
        let skipped = of(vec![window((700, 1_200), (700, 1_200))]);
        let used = skipped.cpu(&busy()).unwrap();
        assert_eq!([used.least, used.about, used.most].map(|m| m.0), [0, 0, 200_000]);
        assert!(of(vec![window((700, 1_200), (1_900, 4_100))]).cpu(&busy()).is_none());
    }

    proptest! {
        #[test]
        fn what_is_united_covers_the_same(of in prop::collection::vec((0i64..100, 0i64..30), 0..20)) {
            let all: Vec<Stretch> = of.iter().map(|&(a, len)| (Moment(a), Moment(a + len))).collect();
            let united = united(all.iter().copied());
            let is_in = |all: &[Stretch], at: i64| all.iter().any(|(a, b)| a.0 <= at && at < b.0);
            for at in 0..130 {
                prop_assert_eq!(is_in(&all, at), is_in(&united, at));
            }
            prop_assert!(united.windows(2).all(|w| w[0].1 < w[1].0));
        }
    }
}
