//! The stages of a scenario's jobs, one below the other, each from its median begin to its median
//! end.

use crate::{
    estimate::{Quantile, Sample},
    micros::Micros,
    report::{
        figure::{interval, said},
        milestones::Milestones,
        svg::{Picture, WIDTH, push_rect, scale::Frame, stage_class},
    },
    summary::ScenarioSummary,
};

const ROW: f64 = 44.0;

/// Draws it; `None` when no job came far enough to have a stage.
pub(crate) fn draw(s: &ScenarioSummary, milestones: &[Milestones]) -> Option<String> {
    let entered: Vec<&Milestones> = milestones.iter().filter(|m| m.begin.count() > 0).collect();
    let most = entered.iter().filter_map(|m| reach(&m.end)).max()?;
    let frame = Frame { left: 92.0, right: WIDTH - 24.0, top: 8.0, bottom: 8.0 + ROW * entered.len() as f64 };
    let label = format!("Waterfall of the stages of {}", s.name());
    let mut p = Picture::new(frame.bottom + 40.0, &label);
    let x = frame.time_axis(&mut p, most, "time since the submit was sent");
    for (i, m) in entered.into_iter().enumerate() {
        let top = frame.top + ROW * i as f64;
        let stage = s.stage(m.stage);
        let p50 = stage.quantile(0.5);
        let ci = interval(p50);
        let blur = stage.sample.half_width().filter(|h| *h > Micros::ZERO);
        let figures = format!(
            "p50 {} [{ci}]{}, n={}{}",
            said(p50),
            blur.map_or_else(String::new, |h| format!(", ± {h}")),
            stage.sample.count(),
            match stage.sample.censored() {
                0 => String::new(),
                n => format!(", {n} unfinished"),
            },
        );
        let (Some(begin), Some(end)) = (m.begin.quantile(0.5), m.end.quantile(0.5)) else {
            continue;
        };
        p.text("name", (frame.left - 8.0, top + 20.0), "end", m.stage.as_str());
        let (from, to) = (x.at(begin.value.0 as f64), x.at(end.value.0 as f64));
        let mut bar = String::new();
        push_rect(&mut bar, from, top + 8.0, (to - from).max(1.5), 14.0);
        let class = format!("{} bar", stage_class(m.stage));
        p.path(&class, &bar);
        for (moment, sample, down) in [(begin, &m.begin, 11.0), (end, &m.end, 19.0)] {
            whisker(&mut p, &x, moment, sample, top + down);
        }
        if end.at_least {
            p.text("name", (to + 3.0, top + 20.0), "start", "→");
        }
        p.text("label", (frame.left + 4.0, top + 36.0), "start", &figures);
        p.hint((frame.left, top), (frame.right - frame.left, ROW), &format!("{}: {figures}", m.stage));
    }
    Some(p.finish())
}

/// How far right a moment's doubts go.
fn reach(end: &Sample) -> Option<Micros> {
    let q = end.quantile(0.5)?;
    Some(span(q, end).1)
}

/// The moment give or take its confidence interval or the median half-width of one observation,
/// whichever is wider.
fn span(q: Quantile, sample: &Sample) -> (Micros, Micros) {
    let half = sample.half_width().unwrap_or_default();
    let low = q.value.saturating_sub(half);
    let high = q.value + half;
    (q.low.map_or(low, |l| l.min(low)), q.high.map_or(high, |h| h.max(high)))
}

fn whisker(p: &mut Picture, x: &super::scale::Scale, q: Quantile, sample: &Sample, y: f64) {
    let (low, high) = span(q, sample);
    let (a, b) = (x.at(low.0 as f64), x.at(high.0 as f64));
    if b - a < 1.0 {
        return;
    }
    p.line("whisker", (a, y), (b, y));
    for end in [a, b] {
        p.line("whisker", (end, y - 3.0), (end, y + 3.0));
    }
}
