//! How latency goes with the size of payloads, in words and as a table.

use crate::{
    bootstrap::LEAST_CELLS,
    micros::Micros,
    relation::{Line, Relation},
    report::{
        Paper,
        figure::{NONE, bytes},
        table::{Table, code, name, num},
    },
};

/// Microseconds a byte as time per 100 kB, which is what payloads are counted in.
fn slope(us_per_byte: f64) -> String {
    let us = us_per_byte * 1e5;
    let sign = if us < 0.0 { "−" } else { "" };
    format!("{sign}{}", Micros(us.abs().round() as u64))
}

fn interval(line: &Line) -> String {
    match line.interval {
        Some((low, high)) => format!("{} … {}", slope(low), slope(high)),
        None => format!("needs {LEAST_CELLS} repetitions"),
    }
}

/// What the interval of the slope says.
fn meaning(line: &Line) -> &'static str {
    match line.interval {
        None => "a description without an interval",
        Some((low, _)) if low > 0.0 => "latency grows with size",
        Some((_, high)) if high < 0.0 => "latency falls with size",
        Some(_) => "no relation shown: the interval holds zero",
    }
}

/// A relation as a sentence; `None` where the sizes are alike.
pub(crate) fn sentence(r: &Relation) -> Option<String> {
    let line = r.line?;
    let sure = match line.interval {
        Some(_) => format!(" [{}]", interval(&line)),
        None => String::new(),
    };
    Some(format!(
        "{} {}{sure} per 100 kB, R² {:.2}, n={}",
        r.subject.as_str(),
        slope(line.slope),
        line.r2,
        r.n
    ))
}

/// Every kind of payload with its line.
pub(crate) fn table(paper: &Paper<'_>) -> Table {
    let mut t = Table::new(
        "Latency by size of the payload, all scenarios without a fault",
        &["payload", "n", "cells", "sizes", "per 100 kB", "95 % CI", "at no bytes", "R²", "meaning"],
    );
    for r in &paper.relations {
        let sizes = format!("{} … {}", bytes(r.least), bytes(r.most));
        let mut row = vec![code(r.subject.as_str()), num(r.n), num(r.cells), num(sizes)];
        row.extend(match &r.line {
            Some(line) => {
                let intercept = line.intercept / 1e5;
                [
                    num(slope(line.slope)),
                    num(interval(line)),
                    num(slope(intercept)),
                    num(format!("{:.2}", line.r2)),
                    meaning(line).into(),
                ]
            }
            None => {
                let why = "sizes are alike: nothing can be told";
                [num(NONE), num(NONE), num(NONE), num(NONE), name(why)]
            }
        });
        t.row(row);
    }
    t.note("Least squares over all payloads of sound cells. Interval: whole cells drawn with replacement 2,000 times, percentiles of the slopes. Sizes within 5 % of the largest, or 1 kB, count as alike. Load goes in with neither: scenarios that differ in load and size alike share one line.");
    t
}
