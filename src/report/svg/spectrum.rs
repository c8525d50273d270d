//! The percentile spectrum, as HdrHistogram draws it: quantiles over 1 / (1 − q) on a log scale,
//! so that the tail has as much room as the middle.

use crate::{
    histogram::Histogram,
    micros::Micros,
    report::svg::{Picture, WIDTH, polyline, scale::Frame, scale::Scale},
    summary::ScenarioSummary,
    timeline::Stage,
};

/// Curves that can be told apart.
const CURVES: usize = 8;
/// Points of a curve.
const POINTS: usize = 160;

/// A picture and the names of its curves, in the order of their classes `l0`, `l1`, …
#[derive(Debug)]
pub(crate) struct Spectrum {
    /// The picture.
    pub(crate) svg: String,
    /// What each curve shows, with its n.
    pub(crate) curves: Vec<String>,
    /// Endpoints that are in the table only.
    pub(crate) left_out: usize,
}

/// One line of the picture.
struct Curve {
    name: String,
    n: u64,
    /// 1 / (1 − q) and the quantile there.
    points: Vec<(f64, Micros)>,
}

/// Draws end to end and every endpoint that succeeded at all; `None` when there is nothing.
pub(crate) fn draw(s: &ScenarioSummary) -> Option<Spectrum> {
    let mut curves = Vec::new();
    let e2e = &s.stage(Stage::EndToEnd).sample;
    let jobs = of_jobs(|q| e2e.quantile(q).filter(|q| !q.at_least).map(|q| q.value), e2e.count());
    if !jobs.is_empty() {
        curves.push(Curve { name: "end to end".into(), n: e2e.count() as u64, points: jobs });
    }
    let mut endpoints: Vec<_> = s.requests.iter().filter(|(_, r)| r.ok.count() > 0).collect();
    endpoints.sort_by_key(|(_, r)| std::cmp::Reverse(r.ok.count()));
    let room = CURVES - curves.len();
    let left_out = endpoints.len().saturating_sub(room);
    for (key, r) in endpoints.into_iter().take(room) {
        let name = format!("{} {}", key.method, key.name);
        curves.push(Curve { name, n: r.ok.count(), points: of_requests(&r.ok) });
    }
    let all = || curves.iter().flat_map(|c| &c.points);
    let least = all().map(|p| p.1).min()?;
    let most = all().map(|p| p.1).max()?;
    let rarest = all().map(|p| p.0).fold(10.0, f64::max);

    let frame = Frame { left: 64.0, right: WIDTH - 24.0, top: 8.0, bottom: 268.0 };
    let label = format!("Percentile spectrum of {}", s.name());
    let mut p = Picture::new(frame.bottom + 40.0, &label);
    let y = frame.latency_axis(&mut p, least, most);
    let x = Scale::decades(1.0, rarest, frame.left, frame.right);
    for tick in x.ticks() {
        frame.tick_below(&mut p, x.at(tick), &percentile(tick));
    }
    frame.tick_below(&mut p, x.at(2.0), &percentile(2.0));
    frame.title_below(&mut p, "percentile, spread as 1 / (1 − q)");
    for (i, curve) in curves.iter().enumerate() {
        let line: Vec<_> =
            curve.points.iter().map(|(rarity, v)| Some((x.at(*rarity), y.at(v.0 as f64)))).collect();
        p.path(&format!("l{i}"), &polyline(&line));
    }
    Some(Spectrum {
        svg: p.finish(),
        curves: curves.iter().map(|c| format!("{} (n={})", c.name, c.n)).collect(),
        left_out,
    })
}

/// Up to the largest of n values, which stands at 2·n: halfway up its own n-th.
fn of_jobs(at: impl Fn(f64) -> Option<Micros>, n: usize) -> Vec<(f64, Micros)> {
    let mut points = Vec::new();
    let end = (2.0 * n.max(1) as f64).log10();
    for i in 0..=POINTS {
        let rarity = 10f64.powf(end * i as f64 / POINTS as f64);
        let q = (1.0 - 1.0 / rarity).max(1e-9);
        if n > 0
            && let Some(value) = at(q)
        {
            points.push((rarity, value));
        }
    }
    points
}

fn of_requests(h: &Histogram) -> Vec<(f64, Micros)> {
    // One walk over the buckets: asking for each quantile anew would be a walk each.
    let n = h.count();
    let mut points = Vec::new();
    let (mut seen, mut last) = (0, f64::MIN);
    for (value, count) in h.iter() {
        seen += count;
        let rarity = n as f64 / ((n - seen) as f64 + 0.5);
        let step = (2.0 * n as f64).log10() / POINTS as f64;
        if rarity.log10() - last >= step || seen == n {
            last = rarity.log10();
            points.push((rarity, value.clamp(h.min(), h.max())));
        }
    }
    points
}

/// `90 %` of ten, `99.9 %` of a thousand.
fn percentile(rarity: f64) -> String {
    let q = 100.0 * (1.0 - 1.0 / rarity);
    let rounded = (q * 1e6).round() / 1e6;
    format!("{rounded} %")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn the_axis_names_percentiles() {
        assert_eq!(
            [1.0, 2.0, 10.0, 1e3, 1e6].map(percentile),
            ["0 %", "50 %", "90 %", "99.9 %", "99.9999 %"]
        );
    }

    #[test]
    fn every_endpoint_has_its_curve_and_n() {
        let run = sample::good();
        let paper = Paper::of(&run);
        let spectrum = draw(&paper.scenarios[0]).unwrap();
        assert_eq!(spectrum.curves.len(), 1 + paper.scenarios[0].requests.len());
        assert!(spectrum.curves[0].starts_with("end to end (n=20)"));
    }

    #[test]
    fn a_curve_rises_to_the_largest_value() {
        let mut h = Histogram::default();
        (1..=1_000).for_each(|i| h.record(Micros(i * 10)));
        let points = of_requests(&h);
        assert!(points.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1));
        assert_eq!(points.last().unwrap().1, Micros(10_000));
        assert!(points.len() < 400);
    }
}
