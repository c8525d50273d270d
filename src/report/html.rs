//! `report.html`: everything on one page that needs neither network nor scripts.

use askama::Template;

use crate::{
    micros::Micros,
    payload::PayloadKind,
    relation::Subject,
    report::{
        Paper,
        crew::Workers,
        crew_tables, criteria,
        domains::Domain,
        environment, fault_tables, html_matrix, html_scenario, matrix_tables, relations,
        svg::scatter,
        table::{Table, escape},
        tables::{self, STAND_IN, STAND_IN_MEANS},
    },
    summary::ScenarioSummary,
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
    /// The sections that are not among the ways.
    contents: Vec<Way>,
    /// Empty for a run of one or two scenarios.
    ways: Vec<Way>,
    css: &'static str,
}

/// An entry of the list that stays in sight.
struct Way {
    id: String,
    title: String,
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
    let (sections, ways) = (sections(paper), ways(paper));
    let is_apart = |s: &&Section| !ways.iter().any(|w| w.id == s.id);
    let contents =
        sections.iter().filter(is_apart).map(|s| Way { id: s.id.clone(), title: s.title.clone() }).collect();
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
        contents,
        sections,
        ways,
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
    format!("{reason}. Started {:.0}.{took}", run.started)
}

fn sections(paper: &Paper<'_>) -> Vec<Section> {
    let is_matrix = criteria::is_matrix(paper.run);
    let overview = overview(paper, is_matrix);
    let mut validity = Section::new("validity", "Validity", &[tables::checklist(paper)]);
    if let Some(why) = &paper.run.stopped {
        let warning = format!("<p class=\"warn\">Stopped before its plan was done: {}</p>", escape(why));
        validity.body.insert_str(0, &warning);
    }
    let mut findings = Section::new("findings", "Findings", &[tables::findings(paper)]);
    findings.body.extend(matrix_tables::thresholds(paper).map(|t| t.html()));
    let plan = Section::new("plan", "Plan, target and host", &[environment::facts(paper)]);
    // Of many scenarios the whole comes first, of one what its figures are worth.
    let mut all = Vec::new();
    if is_matrix {
        let mut tables: Vec<Table> = matrix_tables::exit_criteria(paper).into_iter().collect();
        tables.push(matrix_tables::decision(paper));
        all.extend([overview, Section::new("criteria", "Exit criteria", &tables), validity, findings, plan]);
    } else {
        all.extend([validity, findings, plan, overview]);
    }
    let workers = crew_tables::all(paper.run);
    if !workers.is_empty() {
        let at = all.iter().position(|s| s.id == "plan").map_or(all.len(), |plan| plan + 1);
        let mut section = Section::new("workers", "Workers", &workers);
        let said = Workers::of(paper.run).map(|w| w.said()).unwrap_or_default();
        section.body.insert_str(0, &format!("<p>{}.</p>\n", escape(&said)));
        all.insert(at, section);
    }
    let resilience = fault_tables::all(paper);
    if !resilience.is_empty() {
        // Behind the matrix: what a fault did is what its scenarios were run for.
        all.push(Section::new("resilience", "Resilience", &resilience));
    }
    let mut rows_left = html_scenario::GANTT_ROWS;
    for s in &paper.scenarios {
        for (i, part) in s.parts().iter().enumerate() {
            all.push(Section {
                id: scenario_id(s, i),
                title: format!("Scenario {}", part.name()),
                body: html_scenario::body(paper, part, &mut rows_left),
            });
        }
    }
    if paper.scenarios.is_empty() {
        all.push(Section {
            id: "scenario-none".into(),
            title: "Figures".into(),
            body: "<p class=\"warn\">No cell was finished: there are no figures.</p>".into(),
        });
    }
    all.push(Section { id: "telemetry".into(), title: "Telemetry".into(), body: html_matrix::course(paper) });
    all.extend(Domain::ALL.iter().map(|d| domain(d, paper)));
    all.push(payloads(paper));
    all.push(Section::new("observer", "Observer cost", &[tables::observer(paper)]));
    all
}

/// The anchor of a scenario, or of a level of its fault.
fn scenario_id(s: &ScenarioSummary, part: usize) -> String {
    let level = if s.levels.is_empty() { String::new() } else { format!("-level-{}", part + 1) };
    format!("scenario-{}{level}", s.scenario.id)
}

/// The list that stays in sight: the scenarios, and what is before and behind them.
fn ways(paper: &Paper<'_>) -> Vec<Way> {
    if !criteria::is_matrix(paper.run) {
        return Vec::new();
    }
    let way = |id: &str, title: &str| Way { id: id.into(), title: title.into() };
    let mut all = vec![way("scenarios", "Overview"), way("criteria", "Criteria")];
    let names = matrix_tables::short_names(&paper.parts().collect::<Vec<_>>());
    let ids = paper.scenarios.iter().flat_map(|s| (0..s.parts().len()).map(|i| scenario_id(s, i)));
    all.extend(ids.zip(names).map(|(id, title)| Way { id, title }));
    all.extend([way("telemetry", "Telemetry"), way("payloads", "Payloads")]);
    all
}

/// All scenarios in one table, and of a matrix in pictures before it.
fn overview(paper: &Paper<'_>, is_matrix: bool) -> Section {
    let title = if is_matrix { "Overview" } else { "Scenarios" };
    let tables: Vec<Table> =
        std::iter::once(tables::matrix(paper)).chain(matrix_tables::remade(paper)).collect();
    let mut section = Section::new("scenarios", title, &tables);
    if is_matrix {
        section.body.insert_str(0, &html_matrix::multiples(paper));
    }
    section
}

/// What was sampled beside the load, or which flag would have sampled it.
fn domain(domain: &Domain, paper: &Paper<'_>) -> Section {
    let mut section = Section::new(domain.id, domain.title, &(domain.tables)(paper));
    section.body.push_str(&(domain.pictures)(paper));
    if section.body.is_empty() {
        section.body = format!("<p class=\"note\">{}</p>\n", escape(&domain.missing()));
    }
    section
}

fn payloads(paper: &Paper<'_>) -> Section {
    let mut section = Section::new("payloads", "Payloads", &[relations::table(paper)]);
    for subject in Subject::all() {
        let Some(scatter) = scatter::draw(paper, subject) else {
            continue;
        };
        let is_its = |kind| match subject {
            Subject::Kind(its) => kind == its,
            Subject::Posts => matches!(kind, PayloadKind::Post(_)),
        };
        let sizes = paper.parts().flat_map(|s| &s.payloads).filter(|p| is_its(p.kind));
        let of: u64 = sizes.map(|p| p.count()).sum();
        let title = format!("Size against latency: {}", subject.as_str());
        let mut text = format!("{} of {of} payloads are drawn; latency on a log scale.", scatter.drawn);
        let relation = paper.relations.iter().find(|r| r.subject == subject);
        if let Some(sentence) = relation.and_then(relations::sentence) {
            text.push_str(&format!(" Line: least squares of sound cells without a fault, {sentence}."));
        }
        section.body.push_str(&figure(&title, &text, "", &scatter.svg));
    }
    section.body.push_str(&tables::payloads(paper).html());
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
            sample::matrix(2),
            sample::crew(),
        ] {
            let html = page(&Paper::of(&run));
            for id in ["validity", "findings", "plan", "scenarios", "telemetry", "payloads", "observer"] {
                assert!(html.contains(&format!("<section id=\"{id}\"")), "{id}");
            }
            for s in &Paper::of(&run).scenarios {
                let level = if s.levels.is_empty() { "" } else { "-level-2" };
                assert!(html.contains(&format!("<section id=\"scenario-{}{level}\"", s.scenario.id)));
            }
            let has_faults = run.plan.scenarios.iter().any(|s| s.fault != FaultMode::None);
            assert_eq!(html.contains("<section id=\"resilience\""), has_faults);
            assert_eq!(html.contains("<section id=\"workers\""), run.crew.is_some());
        }
    }

    #[test]
    fn every_way_leads_somewhere() {
        for (run, has_ways) in [
            (sample::matrix(2), true),
            (sample::faults(), true),
            (sample::good(), false),
            (sample::crew(), false),
        ] {
            let html = page(&Paper::of(&run));
            assert_eq!(html.contains("<nav class=\"ways\""), has_ways);
            let ids: Vec<&str> =
                html.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()).collect();
            for id in &ids {
                assert_eq!(html.matches(&format!(" id=\"{id}\"")).count(), 1, "{id}");
            }
            for section in html.split("<section id=\"").skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(ids.contains(&section), "{section}");
            }
        }
    }

    #[test]
    fn figures_of_invalid_cells_are_marked() {
        let html = page(&Paper::of(&sample::invalid_only()));
        assert!(html.contains("must not be used"));
    }

    #[test]
    fn every_tag_is_closed() {
        let html = [sample::mixed(), sample::faults(), sample::matrix(2), sample::crew()]
            .map(|run| page(&Paper::of(&run)))
            .concat();
        for tag in [
            "section", "table", "figure", "svg", "details", "div", "tr", "td", "th", "ul", "li", "text",
            "title",
        ] {
            let open = html.matches(&format!("<{tag} ")).count() + html.matches(&format!("<{tag}>")).count();
            assert_eq!(open, html.matches(&format!("</{tag}>")).count(), "{tag}");
        }
    }
}
