//! Small multiples: one narrow picture a metric, a row a scenario, all rows on one axis. A dot is
//! a repetition, a ring one that does not count; the bar is the figure of all together and its
//! whisker the confidence interval that has the repetition as its unit.

use crate::{
    bootstrap::Interval,
    estimate::Quantile,
    micros::Micros,
    repetitions::{Metric, OfCell, Repeated},
    report::{
        figure::said,
        matrix_tables::interval,
        svg::{Picture, push_rect, push_ring, scale::Frame, scale::Scale, short},
    },
};

/// Width of one picture.
const WIDTH: f64 = 380.0;
const ROW: f64 = 24.0;
/// Largest over smallest from which on the axis is in decades.
const WIDE: f64 = 20.0;

/// Which figure of a metric is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The median.
    P50,
    /// The 95th percentile.
    P95,
}

impl Which {
    fn name(self) -> &'static str {
        match self {
            Self::P50 => "p50",
            Self::P95 => "p95",
        }
    }

    fn of_cell(self, cell: &OfCell) -> Option<Quantile> {
        match self {
            Self::P50 => cell.p50,
            Self::P95 => cell.p95,
        }
    }

    fn of_all(self, all: &Repeated) -> (Option<Quantile>, Option<Interval>) {
        match self {
            Self::P50 => (all.p50, all.p50_interval),
            Self::P95 => (all.p95, all.p95_interval),
        }
    }
}

/// What a row shows: its label, and the metric where anything was measured.
pub(crate) type Row<'a> = (String, Option<&'a Repeated>);

/// Draws a metric of all scenarios; `None` when none has it.
pub(crate) fn draw(metric: Metric, which: Which, rows: &[Row<'_>]) -> Option<String> {
    let values = || {
        let all = rows.iter().filter_map(|(_, r)| *r);
        all.flat_map(|r| {
            let (q, i) = which.of_all(r);
            let cells = r.cells.iter().filter_map(|c| which.of_cell(c)).map(|q| q.value);
            let ends = i.into_iter().flat_map(|i| [i.low, i.high]).flatten();
            cells.chain(q.map(|q| q.value)).chain(ends).collect::<Vec<_>>()
        })
    };
    let (least, most) = (values().min()?.max(Micros(1)), values().max()?.max(Micros(1)));
    let longest = rows.iter().map(|(label, _)| label.chars().count()).max().unwrap_or(0);
    let frame = Frame {
        left: (longest as f64 * 7.2 + 16.0).clamp(34.0, 130.0),
        right: WIDTH - 22.0,
        top: 4.0,
        bottom: 4.0 + ROW * rows.len() as f64,
    };
    let title = format!("{} {} by scenario", metric.as_str(), which.name());
    let mut p = Picture::new(frame.bottom + 22.0, &title).narrow(WIDTH);
    let x = if most.0 as f64 / least.0 as f64 > WIDE {
        frame.decades_below(&mut p, least, most)
    } else {
        frame.even_below(&mut p, Micros(most.0 + most.0 / 30), 5.5)
    };
    let mut marks = Marks::default();
    for (i, (label, row)) in rows.iter().enumerate() {
        let y = frame.top + ROW * (i as f64 + 0.5);
        p.text("name", (frame.left - 7.0, y + 4.0), "end", label);
        let Some(row) = row else { continue };
        marks.row(&x, &frame, y, which, row);
        let (q, ci) = which.of_all(row);
        let hint = format!(
            "{label} {}: {} {} [{}], {} cells, n={}, by {}",
            metric.as_str(),
            which.name(),
            said(q),
            interval(ci),
            row.counting,
            row.jobs,
            row.source.as_str()
        );
        p.hint((0.0, y - ROW / 2.0), (WIDTH, ROW), &hint);
    }
    marks.draw(&mut p);
    Some(p.finish())
}

/// Everything of one look as one path: eight pictures of a dozen rows are a thousand marks.
#[derive(Default)]
struct Marks {
    dots: String,
    rings: String,
    open: String,
    medians: String,
    whiskers: String,
    unbounded: String,
}

impl Marks {
    fn row(&mut self, x: &Scale, frame: &Frame, y: f64, which: Which, row: &Repeated) {
        let (q, ci) = which.of_all(row);
        if let Some(q) = q {
            let middle = x.at(q.value.0 as f64);
            push_rect(&mut self.medians, middle - 1.2, y - 8.0, 2.4, 16.0);
            // An interval without ends says nothing that is worth a line.
            if let Some(ci) = ci.filter(|ci| ci.low.or(ci.high).is_some()) {
                self.whisker(x, y, (middle, ci), frame);
            }
        }
        for (n, cell) in row.cells.iter().enumerate() {
            let Some(q) = which.of_cell(cell) else { continue };
            // Apart by their turn, so that repetitions that are alike can be counted.
            let at = (x.at(q.value.0 as f64), y + [-4.5, 0.0, 4.5, -2.2, 2.2][n % 5]);
            if !cell.counts {
                push_ring(&mut self.rings, at.0, at.1, 2.6);
            } else if q.at_least {
                self.open.push_str(&format!("M{} {}l5 3l-5 3", short(at.0), short(at.1 - 3.0)));
            } else {
                self.dots.push_str(&format!("M{} {}h.01", short(at.0), short(at.1)));
            }
        }
    }

    fn whisker(&mut self, x: &Scale, y: f64, (middle, ci): (f64, Interval), frame: &Frame) {
        for (end, edge) in [(ci.low, frame.left), (ci.high, frame.right)] {
            let Some(end) = end else {
                let (from, to) = (short(middle), short(edge));
                self.unbounded.push_str(&format!("M{from} {}H{to}", short(y)));
                continue;
            };
            let end = x.at(end.0 as f64);
            let (from, to) = (short(middle), short(end));
            self.whiskers.push_str(&format!("M{from} {}H{to}M{to} {}v8", short(y), short(y - 4.0)));
        }
    }

    fn draw(self, p: &mut Picture) {
        p.path("spread", &self.dots);
        p.path("open", &self.open);
        p.path("ring", &self.rings);
        p.path("unbounded", &self.unbounded);
        p.path("ci", &self.whiskers);
        p.path("median", &self.medians);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::{Paper, sample},
        timeline::Stage,
    };

    #[test]
    fn a_dot_a_repetition_and_a_ring_where_it_does_not_count() {
        let run = sample::matrix(4);
        let paper = Paper::of(&run);
        let metric = Metric::Stage(Stage::EndToEnd);
        let rows: Vec<Row<'_>> = paper.repetitions.iter().map(|r| (r.name.clone(), r.get(metric))).collect();
        let svg = draw(metric, Which::P50, &rows).unwrap();
        let of = |class: &str| {
            let d = svg.split(&format!("<path class=\"{class}\" d=\"")).nth(1).unwrap_or_default();
            d.split('"').next().unwrap_or_default().matches('M').count()
        };
        let cells: usize = rows.iter().filter_map(|(_, r)| *r).map(|r| r.cells.len()).sum();
        let not_counted = rows.iter().filter_map(|(_, r)| *r).flat_map(|r| &r.cells).filter(|c| !c.counts);
        assert_eq!(of("spread") + of("ring") + of("open"), cells);
        assert_eq!(of("ring"), not_counted.count());
        assert!(of("ring") > 1 && of("median") == rows.len(), "{svg}");
        assert_eq!(draw(metric, Which::P50, &[("S1".into(), None)]), None);
    }
}
