//! Size against latency of what jobs and the target's workers send and fetch, all scenarios in one picture.

use crate::{
    micros::Micros,
    payload::Payload,
    relation::Subject,
    report::{
        Paper, figure,
        svg::{Picture, WIDTH, polyline, scale::Frame, scale::Scale, short},
    },
    summary::ScenarioSummary,
};

/// Points of one kind in one picture.
const POINTS: usize = 800;

/// One kind's picture.
#[derive(Debug)]
pub(crate) struct Scatter {
    /// The picture.
    pub(crate) svg: String,
    /// Payloads in it.
    pub(crate) drawn: usize,
}

/// Draws the payloads of one kind; `None` when there was none.
pub(crate) fn draw(paper: &Paper<'_>, subject: Subject) -> Option<Scatter> {
    let parts = paper.scenarios.iter().flat_map(ScenarioSummary::parts);
    let cells: Vec<_> = parts.flat_map(|s| s.counting(paper.run)).collect();
    let each = (POINTS / cells.len().max(1)).max(1);
    let step = cells.len().div_ceil(POINTS).max(1);
    let payloads: Vec<Payload> = cells
        .iter()
        .step_by(step)
        .flat_map(|c| {
            let thinned = |n: usize| n.div_ceil(each).max(1);
            let payloads = subject.payloads(c);
            let step = thinned(payloads.len());
            payloads.into_iter().step_by(step)
        })
        .collect();
    let least = payloads.iter().map(|p| p.latency).min()?;
    let most = payloads.iter().map(|p| p.latency).max()?;
    let largest = payloads.iter().map(|p| p.decoded).max()?;
    let frame = Frame { left: 64.0, right: WIDTH - 24.0, top: 8.0, bottom: 168.0 };
    let label = format!("Size against latency of {} payloads", subject.as_str());
    let mut p = Picture::new(frame.bottom + 40.0, &label);
    let y = frame.latency_axis(&mut p, least.max(Micros(1)), most);
    let x = Scale::linear(largest as f64, frame.left, frame.right);
    for tick in x.ticks() {
        frame.tick_below(&mut p, x.at(tick), &figure::bytes(tick as u64));
    }
    frame.title_below(&mut p, "size of the body");
    let mut dots = String::new();
    for payload in &payloads {
        let (a, b) = (x.at(payload.decoded as f64), y.at(payload.latency.0 as f64));
        dots.push_str(&format!("M{} {}h.01", short(a), short(b)));
    }
    p.path("dots", &dots);
    let relation = paper.relations.iter().find(|r| r.subject == subject);
    if let Some((r, line)) = relation.and_then(|r| Some((r, r.line?))) {
        // Straight in itself, and bent by the log scale; only as far as it was fitted.
        let size = |i: u32| r.least as f64 + (r.most - r.least) as f64 * f64::from(i) / 40.0;
        let at = |size: f64| (line.at(size) > 0.0).then(|| (x.at(size), y.at(line.at(size))));
        p.path("fit", &polyline(&(0..=40).map(|i| at(size(i))).collect::<Vec<_>>()));
    }
    Some(Scatter { svg: p.finish(), drawn: payloads.len() })
}
