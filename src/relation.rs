//! How the latency of an endpoint goes with the size of what it carries: a straight line by least
//! squares, with the confidence interval of its slope where the repetition is the unit.
//!
//! Sound cells without a fault only: a delay that was injected is no price of a size. Load goes
//! with neither, so the scenarios of one line may differ in it; the line is a description of this
//! matrix and no law.

use rand::RngExt;

use crate::{
    bootstrap::{LEAST_CELLS, RESAMPLES},
    payload::{Payload, PayloadKind},
    plan,
    record::{CellRecord, RunRecord},
    verdict::Verdict,
};

/// Sizes that differ by less than this part of the largest are alike.
pub const LEAST_SPREAD: f64 = 0.05;
/// And so are those that differ by less than this many bytes.
pub const LEAST_BYTES: u64 = 1_000;

/// Whose sizes and latencies are held against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// Payloads of one kind, which go to one endpoint.
    Kind(PayloadKind),
    /// All posts of the target's workers, whatever their endpoint: one input makes payloads of one
    /// size at each, but the endpoints' sizes differ by three orders of magnitude. What else differs
    /// between the endpoints is in the line, too.
    Posts,
}

impl Subject {
    /// Every subject.
    pub fn all() -> impl Iterator<Item = Self> {
        PayloadKind::ALL.into_iter().map(Self::Kind).chain([Self::Posts])
    }

    /// The name in files.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kind(kind) => kind.as_str(),
            Self::Posts => "posts_of_all_routes",
        }
    }

    /// Its payloads in a cell.
    pub fn payloads(self, cell: &CellRecord) -> Vec<Payload> {
        let posts = |kind: PayloadKind| cell.posts.iter().flat_map(move |posts| kind.of_posts(posts));
        match self {
            Self::Kind(kind) => {
                let of_jobs = cell.totals.jobs.values().filter_map(|job| kind.of(job));
                of_jobs.chain(posts(kind)).collect()
            }
            Self::Posts => PayloadKind::ALL.into_iter().flat_map(posts).collect(),
        }
    }
}

/// Size and latency of one kind of payload.
#[derive(Debug, Clone, PartialEq)]
pub struct Relation {
    /// Which payload.
    pub subject: Subject,
    /// How many payloads.
    pub n: u64,
    /// Of how many cells.
    pub cells: usize,
    /// The smallest, in bytes.
    pub least: u64,
    /// The largest.
    pub most: u64,
    /// The line; `None` where the sizes are alike, so that there is nothing to be told.
    pub line: Option<Line>,
}

/// latency = `intercept` + `slope` × size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Line {
    /// Microseconds a byte.
    pub slope: f64,
    /// Its 95 % confidence interval out of cells drawn with replacement; `None` with too few cells.
    pub interval: Option<(f64, f64)>,
    /// Microseconds at no bytes at all.
    pub intercept: f64,
    /// The share of the latencies' variance that the sizes explain, 0 to 1.
    pub r2: f64,
}

impl Line {
    /// The latency in microseconds at a size in bytes.
    pub fn at(&self, size: f64) -> f64 {
        self.intercept + self.slope * size
    }
}

/// Whether a cell is among those that are looked at.
pub fn is_looked_at(cell: &CellRecord) -> bool {
    cell.verdict != Verdict::Invalid && cell.cell.fault.is_none()
}

impl Relation {
    /// Every kind of payload that occurred.
    pub fn of_run(run: &RunRecord) -> Vec<Self> {
        Subject::all().filter_map(|subject| Self::of(run, subject)).collect()
    }

    fn of(run: &RunRecord, subject: Subject) -> Option<Self> {
        let cells: Vec<Sums> = {
            let each = run.measured().filter(|c| is_looked_at(c)).map(|c| Sums::of(&subject.payloads(c)));
            each.filter(|s| s.n > 0.0).collect()
        };
        let all = Sums::sum(cells.iter());
        let (least, most) = (all.least, all.most);
        (all.n > 0.0).then(|| {
            let is_alike = most - least < LEAST_BYTES || ((most - least) as f64) < LEAST_SPREAD * most as f64;
            let line = if is_alike { None } else { all.line() };
            let rng = || plan::rng(run.plan.seed, &format!("relation/{}", subject.as_str()));
            let line = line.map(|line| Line { interval: interval(&cells, rng()), ..line });
            Self { subject, n: all.n as u64, cells: cells.len(), least, most, line }
        })
    }

    /// By how much the sizes differ, as a part of the largest.
    pub fn spread(&self) -> f64 {
        (self.most - self.least) as f64 / (self.most as f64).max(1.0)
    }
}

/// What a line needs to know of some payloads. Means and squares about them, as sums of squares
/// of large sizes would lose their digits.
#[derive(Debug, Clone, Copy)]
struct Sums {
    n: f64,
    x: f64,
    y: f64,
    xx: f64,
    yy: f64,
    xy: f64,
    least: u64,
    most: u64,
}

impl Sums {
    const NONE: Self = Self { n: 0.0, x: 0.0, y: 0.0, xx: 0.0, yy: 0.0, xy: 0.0, least: u64::MAX, most: 0 };

    fn of(payloads: &[Payload]) -> Self {
        let one = |p: &Payload| Self {
            n: 1.0,
            x: p.decoded as f64,
            y: p.latency.0 as f64,
            least: p.decoded,
            most: p.decoded,
            ..Self::NONE
        };
        payloads.iter().map(one).fold(Self::NONE, Self::and)
    }

    fn sum<'a>(some: impl Iterator<Item = &'a Self>) -> Self {
        some.copied().fold(Self::NONE, Self::and)
    }

    /// Both together (Chan, Golub & LeVeque, *Updating Formulae and a Pairwise Algorithm for
    /// Computing Sample Variances*, 1979).
    fn and(self, other: Self) -> Self {
        let n = self.n + other.n;
        if n == 0.0 {
            return self;
        }
        let (dx, dy) = (other.x - self.x, other.y - self.y);
        let weight = self.n * other.n / n;
        Self {
            n,
            x: self.x + dx * other.n / n,
            y: self.y + dy * other.n / n,
            xx: self.xx + other.xx + dx * dx * weight,
            yy: self.yy + other.yy + dy * dy * weight,
            xy: self.xy + other.xy + dx * dy * weight,
            least: self.least.min(other.least),
            most: self.most.max(other.most),
        }
    }

    fn line(&self) -> Option<Line> {
        (self.n > 2.0 && self.xx > 0.0).then(|| {
            let slope = self.xy / self.xx;
            let r2 = if self.yy > 0.0 { self.xy * self.xy / (self.xx * self.yy) } else { 0.0 };
            Line { slope, interval: None, intercept: self.y - slope * self.x, r2 }
        })
    }
}

/// The slopes of cells drawn with replacement, less the outer 2.5 % on either side. Whole cells:
/// payloads of one cell are not drawn one by one, as their sizes may all be alike.
fn interval(cells: &[Sums], mut rng: rand_chacha::ChaCha12Rng) -> Option<(f64, f64)> {
    if cells.len() < LEAST_CELLS {
        return None;
    }
    let mut slopes: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn = (0..cells.len()).map(|_| &cells[rng.random_range(0..cells.len())]);
            Sums::sum(drawn.collect::<Vec<_>>().into_iter()).line().map(|line| line.slope)
        })
        .collect();
    // Where most draws hold sizes that are all alike, too few cells carry the line.
    if slopes.len() < RESAMPLES * 9 / 10 {
        return None;
    }
    slopes.sort_unstable_by(f64::total_cmp);
    let outside = slopes.len() / 40;
    Some((slopes[outside], slopes[slopes.len() - 1 - outside]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{micros::Micros, report::sample};

    fn payload(decoded: u64, latency: u64) -> Payload {
        Payload { wire: decoded, decoded, latency: Micros(latency) }
    }

    #[test]
    fn a_line_is_found_however_large_the_sizes_are() {
        let on_it = |i: u64| payload(1_000_000_000 + i * 1_000, 5_000 + i * 250);
        let halves = [(0..40).map(on_it).collect::<Vec<_>>(), (40..100).map(on_it).collect()];
        let line = Sums::sum(halves.map(|h| Sums::of(&h)).iter()).line().unwrap();
        assert!((line.slope - 0.25).abs() < 1e-9 && (line.r2 - 1.0).abs() < 1e-9, "{line:?}");
        assert!((line.at(1_000_000_000.0) - 5_000.0).abs() < 1e-3);
    }

    #[test]
    fn sizes_that_are_alike_tell_nothing() {
        let all = Relation::of_run(&sample::good());
        let kinds: Vec<&str> = all.iter().map(|r| r.subject.as_str()).collect();
        assert_eq!(kinds, ["submit", "results"]);
        assert!(all.iter().all(|r| r.line.is_none() && r.spread() < 0.01), "{all:?}");
    }

    #[test]
    fn the_posts_of_all_routes_together_differ_in_size() {
        let all = Relation::of_run(&sample::matrix(3));
        let posts = all.iter().find(|r| r.subject == Subject::Posts).unwrap();
        let each = all.iter().filter(|r| matches!(r.subject, Subject::Kind(PayloadKind::Post(_))));
        assert_eq!(posts.n, each.map(|r| r.n).sum::<u64>());
        assert!(posts.spread() > 0.9 && posts.line.unwrap().interval.is_some(), "{posts:?}");
    }

    #[test]
    fn the_slope_lies_in_its_interval() {
        let cell = |c: u64| {
            let sizes = (0..10).map(|j| (c % 4 + 1) * 100_000 + j * 10);
            let all: Vec<Payload> =
                sizes.map(|s| payload(s, 2_000 + s / 50 + (s * 7_919 + c) % 400)).collect();
            Sums::of(&all)
        };
        let cells: Vec<Sums> = (0..20).map(cell).collect();
        let (low, high) = interval(&cells, plan::rng(1, "x")).unwrap();
        assert!(low < 0.02 && 0.02 < high && high - low < 0.002, "{low} … {high}");
        assert_eq!(interval(&cells[..2], plan::rng(1, "x")), None);
    }
}
