//! `report.html`: everything on one page that needs neither network nor scripts.

use askama::Template;

use crate::{
    micros::Micros,
    payload::PayloadKind,
    report::{
        Paper, fault_tables, html_scenario, merge_tables,
        svg::scatter,
        table::{Table, escape},
        tables::{self, STAND_IN, STAND_IN_MEANS},
    },
    verdict::{Exit, Verdict},
};

const CSS: &str = include_str!("../../templates/report.css");

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    label: &'a str,
    run_id: &'a str,
    version: &'a str,
    verdict: Verdict,
    verdict_class: &'static str,
    lead: String,
    stand_in: bool,
    stand_in_says: &'static str,
    stand_in_means: &'static str,
    sections: Vec<Section>,
    css: &'static str,
}

/// A part of the page with a heading of its own.
struct Section {
    id: String,
    title: String,
    /// HTML that is escaped already.
    body: String,
}

impl Section {
    fn new(id: &str, title: &str, tables: &[Table]) -> Self {
        Self { id: id.into(), title: title.into(), body: tables.iter().map(Table::html).collect() }
    }
}

/// The whole page.
pub(super) fn page(paper: &Paper<'_>) -> String {
    let run = paper.run;
    let verdict = paper.verdict();
    let page = Page {
        label: &run.label,
        run_id: &run.run_id,
        version: &run.build.version,
        verdict,
        verdict_class: match verdict {
            Verdict::Pass => "pass",
            Verdict::Fail => "fail",
            Verdict::Invalid => "invalid",
        },
        lead: lead(paper),
        stand_in: run.target.stand_in,
        stand_in_says: STAND_IN,
        stand_in_means: STAND_IN_MEANS,
        sections: sections(paper),
        css: CSS,
    };
    page.render().expect("writing to memory does not fail")
}

/// The result line's own words.
fn lead(paper: &Paper<'_>) -> String {
    let run = paper.run;
    let line = super::terminal::result_line(paper, Exit::of(run.all_checks()));
    let reason = line
        .strip_prefix(&format!("RESULT: {} ", paper.verdict()))
        .and_then(|rest| rest.rsplit_once(" (exit "))
        .map_or("", |(reason, _)| reason);
    let took = run.finished.map_or_else(String::new, |end| {
        let us = end.duration_since(run.started).as_micros();
        format!(" It took {}.", Micros(u64::try_from(us).unwrap_or(0)))
    });
    format!("{reason}. Started {}.{took}", run.started)
}

fn sections(paper: &Paper<'_>) -> Vec<Section> {
    let mut all = vec![
        Section::new("validity", "Validity", &[tables::checklist(paper)]),
        Section::new("findings", "Findings", &[tables::findings(paper)]),
        Section::new("plan", "Plan, target and host", &[tables::facts(paper)]),
        Section::new("scenarios", "Scenarios", &[tables::matrix(paper)]),
    ];
    if let Some(why) = &paper.run.stopped {
        let warning = format!("<p class=\"warn\">Stopped before its plan was done: {}</p>", escape(why));
        all[0].body.insert_str(0, &warning);
    }
    let mut rows_left = html_scenario::GANTT_ROWS;
    for s in &paper.scenarios {
        for (i, part) in s.parts().iter().enumerate() {
            let level = if s.levels.is_empty() { String::new() } else { format!("-level-{}", i + 1) };
            all.push(Section {
                id: format!("scenario-{}{level}", s.scenario.id),
                title: format!("Scenario {}", part.name()),
                body: html_scenario::body(paper, part, &mut rows_left),
            });
        }
    }
    let resilience = fault_tables::all(paper);
    if !resilience.is_empty() {
        // Behind the matrix: what a fault did is what its scenarios were run for.
        all.insert(4, Section::new("resilience", "Resilience", &resilience));
    }
    let merge = merge_tables::all(paper);
    all.extend((!merge.is_empty()).then(|| Section::new("merge", "Merge", &merge)));
    if paper.scenarios.is_empty() {
        all.push(Section {
            id: "scenario-none".into(),
            title: "Figures".into(),
            body: "<p class=\"warn\">No cell was finished: there are no figures.</p>".into(),
        });
    }
    all.push(payloads(paper));
    all.push(Section::new("observer", "Observer cost", &[tables::observer(paper)]));
    all
}

fn payloads(paper: &Paper<'_>) -> Section {
    let mut section = Section::new("payloads", "Payloads", &[tables::payloads(paper)]);
    for kind in PayloadKind::ALL {
        let Some(scatter) = scatter::draw(paper, kind) else {
            continue;
        };
        let of: u64 =
            paper.parts().flat_map(|s| &s.payloads).filter(|p| p.kind == kind).map(|p| p.count()).sum();
        let title = format!("Size against latency: {}", kind.as_str());
        let text = format!("{} of {of} payloads are drawn; latency on a log scale.", scatter.drawn);
        section.body.push_str(&figure(&title, &text, "", &scatter.svg));
    }
    section
}

/// A picture with its words, in a box of its own that scrolls when the page is narrower.
pub(super) fn figure(title: &str, text: &str, legend: &str, svg: &str) -> String {
    format!(
        "<figure><figcaption><b>{}</b> {}{legend}</figcaption><div class=\"chart\" role=\"region\" aria-label=\"{}\" tabindex=\"0\">{svg}</div></figure>\n",
        escape(title),
        escape(text),
        escape(title)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{fault::FaultMode, report::sample};

    #[test]
    fn it_needs_no_network_and_no_script() {
        let html = page(&Paper::of(&sample::mixed()));
        for needle in ["src=", "<link", "@import", "url(", "<script", "<iframe"] {
            assert!(!html.contains(needle), "{needle}");
        }
        // An address may be shown, never followed.
        assert!(!html.contains("href=\"http"));
        assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"));
    }

    #[test]
    fn nothing_from_outside_becomes_markup() {
        let html = page(&Paper::of(&sample::nasty()));
        assert!(!html.contains("<script"), "a job id made it into the markup");
        assert!(html.matches("&lt;script&gt;").count() + html.matches("&#60;script&#62;").count() > 5);
    }

    #[test]
    fn runs_without_figures_have_every_section() {
        for run in [
            sample::empty(),
            sample::invalid_only(),
            sample::failed_only(),
            sample::mixed(),
            sample::faults(),
        ] {
            let html = page(&Paper::of(&run));
            for id in ["validity", "findings", "plan", "scenarios", "payloads", "observer"] {
                assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
            }
            for s in &Paper::of(&run).scenarios {
                let level = if s.levels.is_empty() { "" } else { "-level-2" };
                assert!(html.contains(&format!("<section id=\"scenario-{}{level}\"", s.scenario.id)));
            }
            let has_faults = run.plan.scenarios.iter().any(|s| s.fault != FaultMode::None);
            assert_eq!(html.contains("<section id=\"resilience\""), has_faults);
        }
    }

    #[test]
    fn figures_of_invalid_cells_are_marked() {
        let html = page(&Paper::of(&sample::invalid_only()));
        assert!(html.contains("must not be used"));
    }

    #[test]
    fn every_tag_is_closed() {
        let html = [sample::mixed(), sample::faults()].map(|run| page(&Paper::of(&run))).concat();
        for tag in [
            "section", "table", "figure", "svg", "details", "div", "tr", "td", "th", "ul", "li", "text",
            "title",
        ] {
            let open = html.matches(&format!("<{tag} ")).count() + html.matches(&format!("<{tag}>")).count();
            assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
