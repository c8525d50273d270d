//! The parts of the page on all scenarios together: the overview in small multiples, and what was
//! sampled beside the cells over the whole run.

use crate::{
    record::CellRecord,
    repetitions::Metric,
    report::{
        Paper,
        html::figure,
        matrix_tables::short_names,
        svg::{
            course,
            multiples::{self, Row, Which},
        },
        table::escape,
    },
    telemetry::Line,
    timeline::Stage,
};

/// What is shown of every scenario.
const SHOWN: [(Metric, Which, &str); 8] = [
    (Metric::Stage(Stage::EndToEnd), Which::P50, "End to end"),
    (Metric::Stage(Stage::Run), Which::P50, "Run"),
    (Metric::Stage(Stage::Merge), Which::P50, "Merge"),
    (Metric::Stage(Stage::Persist), Which::P50, "Persist"),
    (Metric::Stage(Stage::Submit), Which::P50, "Submit"),
    (Metric::Stage(Stage::Queue), Which::P50, "Queue"),
    (Metric::Stage(Stage::Fetch), Which::P50, "Fetch"),
    (Metric::Requests, Which::P95, "Requests"),
];

/// Every metric that was measured, a picture each, with the scenarios as rows.
pub(super) fn multiples(paper: &Paper<'_>) -> String {
    let labels = short_names(&paper.parts().collect::<Vec<_>>());
    let mut pictures = String::new();
    for (metric, which, title) in SHOWN {
        let rows: Vec<Row<'_>> =
            labels.iter().cloned().zip(paper.repetitions.iter().map(|r| r.get(metric))).collect();
        let Some(svg) = multiples::draw(metric, which, &rows) else { continue };
        let sub = match which {
            Which::P50 => "median of each repetition",
            Which::P95 => "p95 of each repetition",
        };
        pictures.push_str(&format!("<figure><figcaption><b>{title}</b> {sub}</figcaption>{svg}</figure>\n"));
    }
    if pictures.is_empty() {
        return String::new();
    }
    let key = |key: &str, name: &str| {
        format!("<li><svg viewBox=\"0 0 34 12\" aria-hidden=\"true\">{key}</svg>{name}</li>")
    };
    let legend = [
        key("<path class=\"spread\" d=\"M10 6h.01M24 6h.01\"/>", "a repetition"),
        key("<path class=\"open\" d=\"M14 3l5 3l-5 3\"/>", "at least so long"),
        key("<path class=\"ring\" d=\"M14 6a3 3 0 1 0 6 0a3 3 0 1 0-6 0z\"/>", "INVALID, in no figure"),
        key("<path class=\"median\" d=\"M16 0h2.4v12h-2.4z\"/>", "all together"),
        key("<path class=\"ci\" d=\"M4 6h26M4 2v8M30 2v8\"/>", "95 % confidence interval"),
        key("<path class=\"unbounded\" d=\"M2 6h30\"/>", "not bounded on that side"),
    ];
    format!("<ul class=\"legend\">{}</ul>\n<div class=\"multiples\">\n{pictures}</div>\n", legend.concat())
}

/// What was sampled beside the cells, on one axis.
pub(super) fn course(paper: &Paper<'_>) -> String {
    let cells: Vec<(&CellRecord, &[Line])> =
        paper.lines.iter().map(|(cell, lines)| (*cell, lines.as_slice())).collect();
    let Some(course) = course::draw(paper.run, &cells) else {
        let text = "Nothing was sampled beside the cells. --redis-url adds the target's Redis, --metrics-url an exposition endpoint, --watch-pid NAME=PID a process on this machine.";
        return format!("<p class=\"note\">{}</p>\n", escape(text));
    };
    let left_out = match course.left_out {
        0 => String::new(),
        n => format!(" {n} more are not drawn."),
    };
    let text = format!(
        "{} figures; a gap is a gap in the samples or the time between two cells.{left_out} Below, a lane a scenario: a band is a cell, hatched while its fault was there, hollow where it is INVALID. Thinned out to the least and the most of each stretch; the axes begin at zero.",
        course.rows
    );
    figure("Beside the cells", &text, "", &course.svg)
}
