//! Response times second by second since T0: p50, p95 and the largest, succeeded and failed
//! requests in charts of their own, and below them the jobs in flight.

use std::collections::BTreeMap;

use crate::{
    histogram::Histogram,
    micros::Micros,
    report::svg::{Picture, WIDTH, polyline, scale::Frame, scale::Scale},
    series::{Second, Series},
};

/// Points of a line; seconds are added up until there are no more than these.
const POINTS: u64 = 360;

/// Which requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// Those that succeeded.
    Ok,
    /// Those that failed.
    Failed,
}

impl Which {
    fn of(self, point: &Point) -> &Histogram {
        match self {
            Self::Ok => &point.ok,
            Self::Failed => &point.failed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ok => "requests that succeeded",
            Self::Failed => "requests that failed",
        }
    }
}

/// A series with so few points that it can be drawn: histograms of neighbouring seconds are
/// added up, so that each point still is a true quantile of its stretch.
#[derive(Debug)]
pub(crate) struct Coarse {
    /// Seconds of one point.
    pub(crate) width: u64,
    /// Where the time axis ends.
    pub(crate) most: Micros,
    points: Vec<Point>,
}

/// One stretch; empty ones are left out.
#[derive(Debug)]
struct Point {
    /// Its number from T0 on.
    n: u64,
    ok: Histogram,
    failed: Histogram,
    jobs_change: i64,
}

impl Coarse {
    /// Lays the series over each other and adds neighbours up.
    pub(crate) fn of(all: &[&Series]) -> Self {
        let last = all.iter().filter_map(|s| s.0.keys().next_back()).max().copied().unwrap_or(0);
        let width = (last + 1).div_ceil(POINTS).max(1);
        let mut stretches: BTreeMap<u64, Vec<&Second>> = BTreeMap::new();
        for (n, second) in all.iter().flat_map(|s| &s.0) {
            stretches.entry(n / width).or_default().push(second);
        }
        let points = stretches
            .into_iter()
            .map(|(n, seconds)| Point {
                n,
                ok: seconds.iter().map(|s| &s.ok).sum(),
                failed: seconds.iter().map(|s| &s.failed).sum(),
                jobs_change: seconds.iter().map(|s| s.jobs_change).sum(),
            })
            .collect();
        Self { width, most: Micros((last / width + 1) * width * 1_000_000), points }
    }

    /// Every point with the middle of its stretch, in order; `None` between points that do not
    /// follow each other.
    fn walk(&self, which: Which) -> Vec<Option<(Micros, &Histogram)>> {
        let mut all = Vec::new();
        let mut next = None;
        for point in &self.points {
            let (n, h) = (point.n, which.of(point));
            if h.count() == 0 {
                continue;
            }
            if next.is_some_and(|next| next != n) {
                all.push(None);
            }
            next = Some(n + 1);
            let middle = (2 * n + 1) * self.width * 500_000;
            all.push(Some((Micros(middle), h)));
        }
        all
    }
}

const FRAME: Frame = Frame { left: 64.0, right: WIDTH - 24.0, top: 8.0, bottom: 208.0 };

/// Draws the quantiles of one kind of request; `None` when there was none.
pub(crate) fn latency(id: &str, series: &Coarse, which: Which) -> Option<String> {
    let walk = series.walk(which);
    let points = || walk.iter().flatten();
    let least = points().map(|(_, h)| h.quantile(0.5)).min()?;
    let most = points().map(|(_, h)| h.max()).max()?;
    let label = format!("{id}: response times over time, {}", which.name());
    let mut p = Picture::new(FRAME.bottom + 40.0, &label);
    let y = FRAME.latency_axis(&mut p, least, most);
    let x = FRAME.time_axis(&mut p, series.most, "time since T0 of each cell");
    let line = |of: &dyn Fn(&Histogram) -> Micros| {
        let at = |(t, h): (Micros, &Histogram)| (x.at(t.0 as f64), y.at(of(h).0 as f64));
        polyline(&walk.iter().map(|point| point.map(at)).collect::<Vec<_>>())
    };
    p.path("l2", &line(&|h| h.max()));
    p.path("l1", &line(&|h| h.quantile(0.95)));
    p.path("l0", &line(&|h| h.quantile(0.5)));
    let width = (FRAME.right - FRAME.left) * series.width as f64 * 1e6 / series.most.0 as f64;
    for (t, h) in points() {
        let hint = format!(
            "{}: n={}, p50 {}, p95 {}, max {}",
            Micros(t.0 - series.width * 500_000),
            h.count(),
            h.quantile(0.5),
            h.quantile(0.95),
            h.max()
        );
        let left = x.at(t.0 as f64) - width / 2.0;
        p.hint((left, FRAME.top), (width, FRAME.bottom - FRAME.top), &hint);
    }
    Some(p.finish())
}

/// Draws the jobs in flight, all cells together; `None` when there was no job.
pub(crate) fn in_flight(id: &str, series: &Coarse) -> Option<String> {
    let frame = Frame { bottom: 88.0, ..FRAME };
    let mut now = 0i64;
    let mut steps = vec![(0u64, 0i64)];
    for point in &series.points {
        now += point.jobs_change;
        steps.push(((point.n + 1) * series.width * 1_000_000, now));
    }
    let most = steps.iter().map(|s| s.1).max().filter(|m| *m > 0)?;
    let mut p = Picture::new(frame.bottom + 40.0, &format!("{id}: jobs in flight over time"));
    let y = Scale::linear(most as f64, frame.bottom, frame.top);
    for tick in [0, most] {
        frame.tick_left(&mut p, y.at(tick as f64), &tick.to_string());
    }
    let x = frame.time_axis(&mut p, series.most, "time since T0 of each cell");
    let line: Vec<_> = steps.iter().map(|(t, n)| Some((x.at(*t as f64), y.at(*n as f64)))).collect();
    p.path("l0", &polyline(&line));
    Some(p.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_series_is_added_up_not_sampled() {
        let mut series = Series::default();
        for n in 0..10_000u64 {
            series.at(Micros(n * 1_000_000)).ok.record(Micros(1_000 + n));
        }
        let coarse = Coarse::of(&[&series]);
        assert!(coarse.points.len() as u64 <= POINTS);
        let count: u64 = coarse.walk(Which::Ok).iter().flatten().map(|(_, h)| h.count()).sum();
        assert_eq!(count, 10_000);
        assert_eq!(latency("S1", &coarse, Which::Failed), None);
    }
}
