//! Pictures as SVG text, for a page without scripts. They are coloured by the page's CSS
//! variables, so light, dark and print need no second drawing.
//!
//! A picture may leave points out; the numbers it is labelled with are the summary's.

pub(crate) mod course;
pub(crate) mod gantt;
pub(crate) mod multiples;
pub(crate) mod over_time;
pub(crate) mod scale;
pub(crate) mod scatter;
pub(crate) mod spectrum;
pub(crate) mod waterfall;

use std::fmt::Write as _;

use crate::{report::table::escape, timeline::Stage};

/// Width of every picture in its own units; the page scales it.
pub(crate) const WIDTH: f64 = 760.0;

/// An SVG being drawn.
#[derive(Debug)]
pub(crate) struct Picture {
    body: String,
    width: f64,
    height: f64,
    label: String,
}

impl Picture {
    /// An empty one; `label` is read out where the picture cannot be seen.
    pub(crate) fn new(height: f64, label: &str) -> Self {
        Self { body: String::new(), width: WIDTH, height, label: label.to_owned() }
    }

    /// The same of another width, for pictures that stand beside each other.
    pub(crate) fn narrow(self, width: f64) -> Self {
        Self { width, ..self }
    }

    /// A straight line.
    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let (x1, y1, x2, y2) = (short(from.0), short(from.1), short(to.0), short(to.1));
        let _ =
            write!(self.body, "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\"/>");
    }

    /// A filled or stroked path, as `d` has it; nothing when it is empty.
    pub(crate) fn path(&mut self, class: &str, d: &str) {
        if !d.is_empty() {
            let _ = write!(self.body, "<path class=\"{class}\" d=\"{d}\"/>");
        }
    }

    /// Words; `anchor` is `start`, `middle` or `end`.
    pub(crate) fn text(&mut self, class: &str, at: (f64, f64), anchor: &str, text: &str) {
        let (x, y) = (short(at.0), short(at.1));
        let _ = write!(
            self.body,
            "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{}</text>",
            escape(text)
        );
    }

    /// An invisible box that shows a text when pointed at.
    pub(crate) fn hint(&mut self, at: (f64, f64), size: (f64, f64), text: &str) {
        let (x, y, w, h) = (short(at.0), short(at.1), short(size.0), short(size.1));
        let _ = write!(
            self.body,
            "<rect class=\"hint\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\"><title>{}</title></rect>",
            escape(text)
        );
    }

    /// The whole picture.
    pub(crate) fn finish(self) -> String {
        let label = escape(&self.label);
        format!(
            "<svg viewBox=\"0 0 {w} {h}\" role=\"img\" aria-label=\"{label}\">{body}</svg>",
            w = short(self.width),
            h = short(self.height),
            body = self.body
        )
    }
}

/// A number with one decimal, and without where it is whole: pictures are most of the page.
pub(crate) fn short(v: f64) -> String {
    let tenths = (v * 10.0).round() as i64;
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{}", tenths as f64 / 10.0) }
}

/// A rectangle as part of a path.
pub(crate) fn push_rect(d: &mut String, x: f64, y: f64, w: f64, h: f64) {
    let (x, y, w, h) = (short(x), short(y), short(w), short(h));
    let _ = write!(d, "M{x} {y}h{w}v{h}h-{w}z");
}

/// A ring as part of a path.
pub(crate) fn push_ring(d: &mut String, x: f64, y: f64, r: f64) {
    let (left, y, r, wide) = (short(x - r), short(y), short(r), short(2.0 * r));
    let _ = write!(d, "M{left} {y}a{r} {r} 0 1 0 {wide} 0a{r} {r} 0 1 0-{wide} 0z");
}

/// The points as a line that goes on as far as points follow each other; one without neighbours
/// is a short dash.
pub(crate) fn polyline(points: &[Option<(f64, f64)>]) -> String {
    let mut d = String::new();
    for run in points.split(Option::is_none) {
        if let [Some((x, y))] = run {
            let _ = write!(d, "M{} {}h5", short(x - 2.5), short(*y));
            continue;
        }
        for (i, (x, y)) in run.iter().flatten().enumerate() {
            let pen = if i == 0 { 'M' } else { 'L' };
            let _ = write!(d, "{pen}{} {}", short(*x), short(*y));
        }
    }
    d
}

/// The class that colours a stage.
pub(crate) fn stage_class(stage: Stage) -> &'static str {
    match stage {
        Stage::Submit => "st0",
        Stage::Queue => "st1",
        Stage::Run => "st2",
        Stage::Merge | Stage::HandOverQueued | Stage::HandOverRunning | Stage::Persist => "st3",
        Stage::Fetch => "st4",
        Stage::EndToEnd => "st5",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        assert_eq!([0.0, 12.04, 3.96, -0.5].map(short), ["0", "12", "4", "-0.5"]);
    }

    #[test]
    fn a_gap_lifts_the_pen() {
        let d = polyline(&[Some((0.0, 0.0)), Some((1.0, 1.0)), None, Some((3.0, 3.0))]);
        assert_eq!(d, "M0 0L1 1M0.5 3h5");
    }

    #[test]
    fn words_are_escaped() {
        let mut p = Picture::new(10.0, "<b>");
        p.hint((0.0, 0.0), (1.0, 1.0), "<i>");
        let svg = p.finish();
        assert!(svg.contains("&lt;b&gt;") && svg.contains("&lt;i&gt;") && !svg.contains("<b>"));
    }
}
