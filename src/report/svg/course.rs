//! The course of a run: every figure that was sampled beside the cells, one row below the other on
//! one axis of wall time, and below them the cells themselves with the windows of their faults.

use std::collections::BTreeMap;

use crate::{
    micros::Micros,
    record::{CellRecord, RunRecord},
    report::{
        figure,
        svg::{Picture, WIDTH, push_rect, scale::Frame, scale::Scale, short},
    },
    telemetry::{Line, Unit},
    verdict::Verdict,
};

/// Rows that can be told apart; more figures are in the tables only.
const ROWS: usize = 24;
/// Stretches of the axis; a row has the smallest and the largest value of each.
const STRETCHES: f64 = 300.0;
const ROW: f64 = 62.0;
const LANE: f64 = 14.0;

/// A drawn run.
#[derive(Debug)]
pub(crate) struct Course {
    /// The picture.
    pub(crate) svg: String,
    /// Figures in it.
    pub(crate) rows: usize,
    /// Figures that are not.
    pub(crate) left_out: usize,
}

/// A cell with what was sampled beside it.
pub(crate) type Beside<'a> = (&'a CellRecord, &'a [Line]);

/// One figure over the whole run: stretches without a gap, each of points since the first cell.
struct Row {
    unit: Unit,
    stretches: Vec<Vec<(f64, f64)>>,
}

/// Draws a run; `None` when nothing was sampled. The cells come in the order they ran.
pub(crate) fn draw(run: &RunRecord, cells: &[Beside<'_>]) -> Option<Course> {
    // What is sampled begins before a cell's T0 and goes on after its last job.
    let reach = |(cell, lines): &Beside<'_>| {
        let points = lines.iter().flat_map(|l| [l.points.first(), l.points.last()]).flatten();
        let own = [0, i64::try_from(cell.duration.0).unwrap_or(i64::MAX)];
        let all = || points.clone().map(|p| p.0.0).chain(own);
        let at = |moment: Option<i64>| cell.t0_unix.saturating_add_signed(moment.unwrap_or(0));
        (at(all().min()), at(all().max()))
    };
    let begin = cells.iter().map(|c| reach(c).0).min()?;
    let end = cells.iter().map(|c| reach(c).1).max()?;
    let mut rows: BTreeMap<&str, Row> = BTreeMap::new();
    // In the order in which they were first told, not by name.
    let mut names: Vec<&str> = Vec::new();
    for (cell, lines) in cells {
        let since = (cell.t0_unix - begin) as f64;
        for line in lines.iter().filter(|l| !l.points.is_empty()) {
            let row = rows.entry(&line.name).or_insert_with(|| {
                names.push(&line.name);
                Row { unit: line.unit, stretches: Vec::new() }
            });
            row.stretches.extend(stretches(line, since));
        }
    }
    if names.is_empty() {
        return None;
    }
    let shown = &names[..names.len().min(ROWS)];
    let scenarios: Vec<&str> = run.plan.scenarios.iter().map(|s| s.id.as_str()).collect();
    let top = 6.0;
    let lanes = top + ROW * shown.len() as f64;
    let frame =
        Frame { left: 74.0, right: WIDTH - 14.0, top, bottom: lanes + LANE * scenarios.len() as f64 + 4.0 };
    let label = format!("{} figures over the run, and its cells", shown.len());
    let mut p = Picture::new(frame.bottom + 40.0, &label);
    let x = frame.time_axis(&mut p, Micros(end - begin), "time since the first cell began");
    faults_behind(&mut p, &x, (top, lanes), begin, cells);
    for (i, name) in shown.iter().enumerate() {
        let at =
            Frame { top: top + ROW * i as f64 + 18.0, bottom: top + ROW * (i + 1) as f64 - 4.0, ..frame };
        row(&mut p, &x, &at, name, &rows[name]);
    }
    for (i, id) in scenarios.iter().enumerate() {
        lane(&mut p, &x, &frame, lanes + 4.0 + LANE * i as f64, id, begin, cells);
    }
    Some(Course { svg: p.finish(), rows: shown.len(), left_out: names.len() - shown.len() })
}

/// The points of a line, apart where samples are missing: where the next one is far later than
/// they usually are.
fn stretches(line: &Line, since: f64) -> Vec<Vec<(f64, f64)>> {
    let points: Vec<(f64, f64)> = line.points.iter().map(|(m, v)| (since + m.0 as f64, *v)).collect();
    let mut steps: Vec<f64> = points.windows(2).map(|p| p[1].0 - p[0].0).collect();
    steps.sort_by(f64::total_cmp);
    let far = steps.get(steps.len() / 2).map_or(f64::MAX, |usual| usual * 2.5);
    points.chunk_by(|a, b| b.0 - a.0 <= far).map(<[_]>::to_vec).collect()
}

/// Of each stretch of the axis the smallest and the largest value, in the order of time.
fn thinned(points: &[(f64, f64)], width: f64) -> Vec<(f64, f64)> {
    let mut kept = Vec::new();
    for bucket in points.chunk_by(|a, b| (a.0 / width).floor() == (b.0 / width).floor()) {
        let by_value = |a: &&(f64, f64), b: &&(f64, f64)| a.1.total_cmp(&b.1);
        let (Some(least), Some(most)) = (bucket.iter().min_by(by_value), bucket.iter().max_by(by_value))
        else {
            continue;
        };
        let (first, second) = if least.0 <= most.0 { (least, most) } else { (most, least) };
        kept.push(*first);
        if first.0 < second.0 {
            kept.push(*second);
        }
    }
    kept
}

fn row(p: &mut Picture, x: &Scale, frame: &Frame, name: &str, row: &Row) {
    let values = || row.stretches.iter().flatten().map(|p| p.1).filter(|v| v.is_finite());
    let most = values().fold(0.0, f64::max);
    let least = values().fold(f64::MAX, f64::min).min(most);
    let y = Scale::linear(most, frame.bottom, frame.top);
    frame.tick_left(p, frame.bottom, "0");
    frame.tick_left(p, frame.top, &say(row.unit, most));
    p.text("label", (frame.left, frame.top - 6.0), "start", name);
    let width = (x.last() / STRETCHES).max(1.0);
    let mut d = String::new();
    for stretch in &row.stretches {
        let points = thinned(stretch, width);
        for (i, (t, v)) in points.iter().enumerate() {
            let pen = if i == 0 { 'M' } else { 'L' };
            d.push_str(&format!("{pen}{} {}", short(x.at(*t)), short(y.at(*v))));
        }
        if points.len() == 1 {
            d.push_str("h.01");
        }
    }
    p.path("course", &d);
    let hint = format!("{name}: {} to {}", say(row.unit, least), say(row.unit, most));
    p.hint((0.0, frame.top - 16.0), (WIDTH, ROW), &hint);
}

fn say(unit: Unit, value: f64) -> String {
    let round = |v: f64| (v * 100.0).round() / 100.0;
    match unit {
        Unit::Bytes => figure::bytes(value as u64),
        Unit::BytesPerSecond => format!("{}/s", figure::bytes(value as u64)),
        Unit::PerSecond => format!("{}/s", round(value)),
        Unit::Count => round(value).to_string(),
        Unit::Cores => format!("{} cores", round(value)),
        Unit::Seconds => Micros((value * 1e6) as u64).to_string(),
    }
}

/// When a cell's fault was there, since the first cell: stretches of its own clock.
fn faulted<'a>(begin: u64, cell: &'a CellRecord) -> impl Iterator<Item = (f64, f64)> + 'a {
    let stretches = cell.injection.iter().flat_map(|i| i.stretches());
    let t0 = (cell.t0_unix - begin) as f64;
    stretches.map(move |(from, to)| (t0 + from.0 as f64, t0 + to.min(cell.duration).0 as f64))
}

/// The windows of faults behind all rows.
fn faults_behind(p: &mut Picture, x: &Scale, (top, bottom): (f64, f64), begin: u64, cells: &[Beside<'_>]) {
    let mut d = String::new();
    for (from, to) in cells.iter().flat_map(|(c, _)| faulted(begin, c)) {
        push_rect(&mut d, x.at(from), top, (x.at(to) - x.at(from)).max(0.5), bottom - top);
    }
    p.path("faulted", &d);
}

/// The cells of a scenario as bands, hatched while their fault was there; hollow where they do not
/// count.
fn lane(p: &mut Picture, x: &Scale, frame: &Frame, top: f64, id: &str, begin: u64, cells: &[Beside<'_>]) {
    p.text("tick", (frame.left - 6.0, top + LANE - 3.0), "end", id);
    let (mut bands, mut hollow, mut hatch) = (String::new(), String::new(), String::new());
    let high = LANE - 4.0;
    for (cell, _) in cells.iter().filter(|(c, _)| c.cell.scenario.as_str() == id) {
        let t0 = (cell.t0_unix - begin) as f64;
        let (from, to) = (x.at(t0), x.at(t0 + cell.duration.0 as f64));
        let d = if cell.verdict == Verdict::Invalid { &mut hollow } else { &mut bands };
        push_rect(d, from, top, (to - from).max(1.0), high);
        for (from, to) in faulted(begin, cell) {
            let (mut at, to) = (x.at(from), x.at(to));
            while at < to {
                hatch.push_str(&format!("M{} {}l2-{}", short(at), short(top + high), short(high)));
                at += 4.0;
            }
        }
        let attempt =
            if cell.cell.attempt > 1 { format!(", attempt {}", cell.cell.attempt) } else { String::new() };
        let hint = format!(
            "{id} #{}{attempt}: {}, {}, fault {}",
            cell.cell.repetition, cell.verdict, cell.duration, cell.cell.fault
        );
        p.hint((from, top), ((to - from).max(1.0), high), &hint);
    }
    p.path("band", &bands);
    p.path("ring", &hollow);
    p.path("hatch", &hatch);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{moment::Moment, report::sample};

    fn line(points: &[(i64, f64)]) -> Line {
        let points = points.iter().map(|(s, v)| (Moment(s * 1_000_000), *v)).collect();
        Line { name: "redis used_memory".into(), unit: Unit::Bytes, points }
    }

    #[test]
    fn a_missing_sample_lifts_the_pen() {
        let line = line(&[(0, 1.0), (1, 1.0), (2, 1.0), (6, 1.0), (7, 1.0)]);
        let lengths: Vec<usize> = stretches(&line, 0.0).iter().map(Vec::len).collect();
        assert_eq!(lengths, [3, 2]);
    }

    #[test]
    fn thinning_keeps_the_extremes() {
        let points: Vec<(f64, f64)> = (0..100_000u32)
            .map(|i| (f64::from(i), if i == 77_777 { 9e9 } else { f64::from(i % 7) }))
            .collect();
        let kept = thinned(&points, 100_000.0 / STRETCHES);
        assert!(kept.len() <= 602 && kept.iter().any(|p| p.1 == 9e9));
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
    }

    #[test]
    fn a_run_without_lines_has_no_picture() {
        let run = sample::good();
        let cells: Vec<Beside<'_>> = run.measured().map(|c| (c, &[][..])).collect();
        assert!(draw(&run, &cells).is_none());
    }

    #[test]
    fn every_cell_is_a_band_and_faults_are_hatched() {
        let run = sample::faults();
        let lines = [line(&[(0, 5.0), (1, 7.0)])];
        let cells: Vec<Beside<'_>> = run.measured().map(|c| (c, &lines[..])).collect();
        let course = draw(&run, &cells).unwrap();
        assert_eq!((course.rows, course.left_out), (1, 0));
        let cells = run.measured().count();
        assert_eq!(course.svg.matches(": PASS, ").count() + course.svg.matches(": INVALID, ").count(), cells);
        assert!(course.svg.contains("class=\"hatch\"") && course.svg.contains("7 B"));
    }
}
