//! The part of the page on one scenario: pictures, then the tables behind them.

use crate::{
    record::CellRecord,
    report::{
        Paper,
        html::figure,
        matrix_tables, milestones, scenario_tables,
        svg::{
            gantt,
            over_time::{self, Coarse, Which},
            spectrum, stage_class, waterfall,
        },
        table::{badge, escape},
        tables, tap_tables, target_tables,
    },
    series::Series,
    summary::ScenarioSummary,
    timeline::Stage,
};

/// Jobs drawn on the whole page, and of one cell: the page stays small whatever the run was.
pub(super) const GANTT_ROWS: usize = 3_000;
const GANTT_ROWS_OF_CELL: usize = 200;

/// The body of a scenario's section. `rows_left` is what the page may still draw of jobs.
pub(super) fn body(paper: &Paper<'_>, s: &ScenarioSummary, rows_left: &mut usize) -> String {
    let run = paper.run;
    let mut out = intro(s);
    out.push_str("<h3>Stages</h3>\n");
    out.push_str(&stages(paper, s));
    out.push_str(&scenario_tables::stages(s).html());
    if s.cells > 1 {
        let its = paper.repeated().find(|(part, _)| std::ptr::eq(*part, s));
        out.extend(its.map(|(_, r)| matrix_tables::over_repetitions(paper, r).html()));
    }
    out.extend(tap_tables::agreement(run, s).map(|t| t.html()));
    out.extend(target_tables::metrics(s).map(|t| t.html()));
    out.extend(target_tables::agreement(s).map(|t| t.html()));
    out.extend(target_tables::endpoints(run, s).map(|t| t.html()));
    out.push_str(&scenario_tables::outcomes(s).html());
    out.push_str("<h3>Jobs of a cell</h3>\n");
    out.push_str(&gantts(paper, s, rows_left));
    out.push_str("<h3>Response times over time</h3>\n");
    out.push_str(&over_time(paper, s));
    out.push_str("<h3>Percentile spectrum</h3>\n");
    out.push_str(&percentiles(s));
    out.push_str("<h3>Requests</h3>\n");
    out.push_str(&scenario_tables::requests(s).html());
    out.push_str(&scenario_tables::errors(s).html());
    out.extend(tap_tables::posts(run, s).map(|t| t.html()));
    out.push_str("<h3>Ledger</h3>\n");
    out.push_str(&scenario_tables::ledger(run, s).html());
    out.push_str("<h3>Generator and requests outside the clock</h3>\n");
    out.push_str(&scenario_tables::health(run, s).html());
    out.push_str(&scenario_tables::outside(s).html());
    out
}

fn intro(s: &ScenarioSummary) -> String {
    let mut out = format!(
        "<p>{} {} concurrent jobs × {} tasks, fault {}; {} cells, {} of them INVALID; {} jobs.</p>\n",
        badge(s.verdict),
        s.scenario.concurrent_jobs,
        s.scenario.tasks,
        escape(&s.fault()),
        s.cells,
        s.invalid,
        s.submitted
    );
    if s.untrusted {
        let note = tables::untrusted_note(&s.name());
        out.push_str(&format!("<p class=\"warn\">{}</p>\n", escape(&note)));
    }
    out
}

fn none(what: &str) -> String {
    format!("<p class=\"note\">{what}</p>\n")
}

fn stages(paper: &Paper<'_>, s: &ScenarioSummary) -> String {
    let cells = s.counting(paper.run);
    match waterfall::draw(s, &milestones::of(&cells)) {
        None => none("No job had a stage: nothing to draw."),
        Some(svg) => figure(
            "Waterfall of the stages",
            "Each bar goes from the median begin to the median end of the stage since the submit, as the client saw it. Whiskers: the 95 % confidence interval of that median, or the median half-width that polling leaves, whichever is wider. → goes on in unfinished jobs.",
            "",
            &svg,
        ),
    }
}

fn gantts(paper: &Paper<'_>, s: &ScenarioSummary, rows_left: &mut usize) -> String {
    let cells: Vec<&CellRecord> = s.all_cells(paper.run);
    let mut out = String::new();
    let mut left_out = 0;
    for (i, cell) in cells.iter().enumerate() {
        let rows = GANTT_ROWS_OF_CELL.min(*rows_left);
        // A cell of which only a few jobs could be drawn is better left out.
        let wanted = cell.totals.jobs.len().min(GANTT_ROWS_OF_CELL);
        if rows < wanted {
            left_out += 1;
            continue;
        }
        let Some(gantt) = gantt::draw(cell, rows) else {
            continue;
        };
        *rows_left -= gantt.drawn;
        let text = format!(
            "{} jobs{}. Faint: where polling does not tell which of two stages it was. ✓ fetched, ✗ anything else.",
            gantt.drawn,
            match gantt.of - gantt.drawn {
                0 => String::new(),
                n => format!(", evenly chosen; {n} more are left out"),
            }
        );
        let title = format!("Jobs of {} #{}", s.name(), cell.cell.repetition);
        let picture = figure(&title, &text, &stage_legend(), &gantt.svg);
        let open = if i == 0 { " open" } else { "" };
        out.push_str(&format!(
            "<details{open}><summary>Cell #{} {} {} jobs in {}</summary>{picture}</details>\n",
            cell.cell.repetition,
            badge(cell.verdict),
            gantt.of,
            cell.duration
        ));
    }
    if left_out > 0 {
        out.push_str(&none(&format!("The jobs of {left_out} more cells are not drawn, to keep the page small; they are in the jobs file.")));
    }
    if out.is_empty() {
        return none("No job: nothing to draw.");
    }
    out
}

fn stage_legend() -> String {
    let items: String = Stage::CLIENT
        .into_iter()
        .filter(|s| *s != Stage::EndToEnd)
        .map(|stage| {
            let key = format!("<path class=\"{} bar\" d=\"M0 1h34v10h-34z\"/>", stage_class(stage));
            legend_item(&key, stage.as_str())
        })
        .collect();
    format!("<ul class=\"legend\">{items}</ul>")
}

fn line_legend<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let items: String = names
        .into_iter()
        .enumerate()
        .map(|(i, name)| legend_item(&format!("<path class=\"l{i}\" d=\"M1 6h32\"/>"), name))
        .collect();
    format!("<ul class=\"legend\">{items}</ul>")
}

fn legend_item(key: &str, name: &str) -> String {
    format!("<li><svg viewBox=\"0 0 34 12\" aria-hidden=\"true\">{key}</svg>{}</li>", escape(name))
}

fn over_time(paper: &Paper<'_>, s: &ScenarioSummary) -> String {
    let cells = s.counting(paper.run);
    let all: Vec<&Series> = cells.iter().map(|c| &c.totals.series).collect();
    let series = Coarse::of(&all);
    let name = s.name();
    let id = name.as_str();
    let legend = line_legend(["p50", "p95", "max"]);
    let point = match series.width {
        1 => "second".to_owned(),
        n => format!("{n} seconds"),
    };
    let mut out = String::new();
    for (which, title, nothing, n) in [
        (Which::Ok, "Requests that succeeded", "No request succeeded.", s.all.ok.count()),
        (Which::Failed, "Requests that failed", "No request failed.", s.all.failed.count()),
    ] {
        out.push_str(&match over_time::latency(id, &series, which) {
            None => none(nothing),
            Some(svg) => {
                let text = format!("n={n}, all cells laid over each other at their T0, one point a {point}.");
                figure(title, &text, &legend, &svg)
            }
        });
    }
    if let Some(svg) = over_time::in_flight(id, &series) {
        out.push_str(&figure("Jobs in flight", "All cells together.", "", &svg));
    }
    out
}

fn percentiles(s: &ScenarioSummary) -> String {
    let Some(spectrum) = spectrum::draw(s) else {
        return none("No request succeeded and no job was fetched: nothing to draw.");
    };
    let mut text = "Requests that succeeded, by endpoint, and jobs from end to end; a curve ends where unfinished jobs begin.".to_owned();
    if spectrum.left_out > 0 {
        text.push_str(&format!(" {} rarer endpoints are in the table only.", spectrum.left_out));
    }
    let legend = line_legend(spectrum.curves.iter().map(String::as_str));
    figure("HDR percentile spectrum", &text, &legend, &spectrum.svg)
}
