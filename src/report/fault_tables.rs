//! The tables on faults and on the tap, for HTML, Markdown and the terminal alike.

use crate::{
    agreement::Agreement,
    estimate::Quantile,
    injection::{Canary, Proof},
    micros::{Micros, Offset},
    posts::RoutePosts,
    record::{CellRecord, RunRecord},
    report::{
        Paper,
        figure::{NONE, of_requests, or_none, said},
        resilience::injector,
        table::{Cell, Table, code, num},
    },
    resilience::{self, Figures, Resilience, Tested},
    summary::ScenarioSummary,
    verdict::Verdict,
};

/// What of posts and jobs stands in a row.
const FIGURES: [&str; 17] = [
    "jobs",
    "fetched",
    "stuck",
    "stuck in",
    "failed",
    "partial",
    "written twice",
    "wrong end",
    "posts",
    "faulted",
    "errors",
    "repeated",
    "retried",
    "lost",
    "answers lost",
    "replayed",
    "recovery",
];

fn figures(f: &Figures) -> Vec<Cell> {
    let some = |n: Option<u64>| num(n.map_or_else(|| NONE.into(), |n| n.to_string()));
    let posts = |count: fn(&RoutePosts) -> u64| some(f.posts.as_ref().map(count));
    let states = f.stuck_states();
    vec![
        num(f.jobs),
        num(f.fetched),
        num(f.stuck_jobs()),
        if states.is_empty() { NONE.into() } else { states.into() },
        num(f.failed),
        num(f.partial),
        some(f.duplicate_writes),
        num(f.wrong),
        posts(|p| p.attempted),
        posts(|p| p.fates.harmed()),
        posts(|p| p.errors),
        posts(|p| p.repeated),
        posts(|p| p.retried),
        posts(|p| p.lost),
        posts(|p| p.answers_lost),
        posts(|p| p.replayed),
        num(said(f.recovery_p50())),
    ]
}

/// Each level of a fault and its twin, a row each.
pub(crate) fn totals(r: &Resilience<'_>) -> Table {
    let columns: Vec<&'static str> = ["cells", "fault", "count"].into_iter().chain(FIGURES).collect();
    let mut t = Table::new(format!("{}: with and without the fault", r.scenario.id), &columns);
    for part in r.all() {
        let counted = part.cells.iter().filter(|(c, _)| c.verdict != Verdict::Invalid).count();
        let count = if counted == 0 { part.cells.len() } else { counted };
        let mut row = vec![
            part.cells[0].0.cell.scenario.to_string().into(),
            part.fault.to_string().into(),
            num(format!("{count} of {}", part.cells.len())),
        ];
        row.extend(figures(&part.total));
        t.row(row);
    }
    if r.twin.is_none() {
        t.note("This run has no scenario of as many users and tasks without a fault: there is nothing to hold these figures against.");
    }
    t.note("Count: cells that are not INVALID, of all; the row is their sum. Stuck: jobs that had not ended when they were given up. Partial: COMPLETED though not all tasks were. Written twice: simulations with more than one accepted post of results that was no replay. Wrong end: the client, the target's list and the tap do not agree that the job was completed.");
    t.note("Posts of the target's workers, seen by the tap (– without one): faulted by the fault; answered with an error by the target; repeated with the same body; of these retried after a failure; lost: never taken in, however often tried; answer lost: taken in without the worker learning of it. Recovery: median time from the end of the fault to the end of the first results taken in after it; – where the fault lasted as long as its cell.");
    t
}

/// The same narrow enough for a terminal.
pub(crate) fn narrow(r: &Resilience<'_>) -> Table {
    let left_out = ["count", "stuck in", "failed", "repeated", "replayed", "errors"];
    left_out.into_iter().fold(totals(r), Table::without)
}

/// Each cell.
pub(crate) fn cells(r: &Resilience<'_>) -> Table {
    let columns: Vec<&'static str> = ["cell", "fault", "verdict"].into_iter().chain(FIGURES).collect();
    let mut t = Table::new(format!("{}: resilience, cell by cell", r.scenario.id), &columns);
    for (cell, f) in r.all().flat_map(|part| &part.cells) {
        let mut row = vec![place(cell).into(), cell.cell.fault.to_string().into(), cell.verdict.into()];
        row.extend(figures(f));
        t.row(row);
    }
    t
}

fn place(cell: &CellRecord) -> String {
    format!("{} #{}", cell.cell.scenario, cell.cell.repetition)
}

/// What was ordered, what was done, and the canaries that prove it.
pub(crate) fn proof(r: &Resilience<'_>) -> Table {
    let mut t = Table::new(
        format!("{}: was the fault there, and only then?", r.scenario.id),
        &[
            "cell",
            "fault",
            "by",
            "proof",
            "canaries before",
            "during",
            "after",
            "passed",
            "delayed",
            "held p50",
            "requests dropped",
            "answers dropped",
            "refused",
            "by its own count",
        ],
    );
    for (cell, f) in r.levels.iter().flat_map(|part| &part.cells) {
        let some = |n: Option<u64>| num(n.map_or_else(|| NONE.into(), |n| n.to_string()));
        let fates = f.posts.as_ref().map(|p| p.fates);
        let injection = cell.injection.as_ref();
        let seen =
            |of: fn(&Proof) -> &[Canary]| injection.map_or_else(|| NONE.into(), |i| canaries(of(&i.proof)));
        t.row(vec![
            place(cell).into(),
            cell.cell.fault.to_string().into(),
            injection.map_or(NONE, |i| injector(i.by)).into(),
            resilience::proof(cell).unwrap_or_else(|| "nothing was injected".into()).into(),
            num(seen(|p| &p.before)),
            num(seen(|p| &p.during)),
            num(seen(|p| &p.after)),
            some(fates.map(|f| f.passed)),
            some(fates.map(|f| f.delayed)),
            num(time(f.held_p50())),
            some(fates.map(|f| f.requests_dropped)),
            some(fates.map(|f| f.answers_dropped)),
            some(fates.map(|f| f.refused)),
            some(f.decided.map(|d| d.harmed())),
        ]);
    }
    t.note("Canaries: requests of ours on the way of the workers' posts, answered of sent, and the median of how long they took. By its own count: what the injector says it harmed; late posts of earlier cells are in it.");
    t
}

fn canaries(some: &[Canary]) -> String {
    match resilience::canaries(some) {
        (_, 0, _) => "none".into(),
        (answered, sent, p50) => format!("{answered} of {sent}, {}", time(p50)),
    }
}

fn time(m: Option<Micros>) -> String {
    m.map_or_else(|| NONE.into(), |m| m.to_string())
}

/// What a delay did to the persisting of results; `None` where none was ordered or no tap was there.
pub(crate) fn delays(r: &Resilience<'_>) -> Option<Table> {
    let is_delay = |part: &Tested<'_>| part.ordered_delay().is_some() && part.total.persisted() > 0;
    if !r.levels.iter().any(is_delay) {
        return None;
    }
    let mut t = Table::new(
        format!("{}: the delay that was ordered, and what became of persist", r.scenario.id),
        &[
            "fault",
            "n",
            "delay ordered",
            "held p50",
            "persist p50",
            "twin's persist p50",
            "difference",
            "target took p50",
            "persist less that",
        ],
    );
    let twin = r.twin.as_ref().and_then(|t| t.total.persist_p50());
    for part in r.levels.iter().filter(|part| is_delay(part)) {
        let (persist, served) = (part.total.persist_p50(), part.total.served_p50());
        let apart = |a: Option<Quantile>, b: Option<Micros>| {
            num(a.zip(b).map_or_else(|| NONE.into(), |(a, b)| Offset::of(a.value, b).to_string()))
        };
        t.row(vec![
            part.fault.to_string().into(),
            num(part.total.persisted()),
            num(time(part.ordered_delay())),
            num(time(part.total.held_p50())),
            num(said(persist)),
            num(said(twin)),
            apart(persist, twin.map(|q| q.value)),
            num(time(served)),
            apart(persist, served),
        ]);
    }
    t.note("Persist is what a worker waits for its post of results, so the delay is in it once. Target took: from sending the post on to the last byte of the answer, in the same cells. Both differences should be the delay; where the first is more, the target itself was slower than in the twin's cells.");
    Some(t)
}

/// Posts by route.
pub(crate) fn posts(run: &RunRecord, s: &ScenarioSummary) -> Option<Table> {
    let (mut nameless, mut late, mut unread, mut troubles) = (0, 0, 0, Vec::new());
    for posts in s.counting(run).iter().filter_map(|c| c.posts.as_ref()) {
        (nameless, late, unread) = (nameless + posts.nameless, late + posts.late.total(), unread + posts.unread);
        troubles.extend(posts.troubles.iter().cloned());
    }
    if !s.is_tapped() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: posts of the target's workers, seen by the tap", s.name()),
        &[
            "route",
            "posts",
            "bodies",
            "statuses",
            "errors",
            "faulted",
            "repeated",
            "retried",
            "lost",
            "answers lost",
            "cut",
            "worker waited p50",
            "waited p95",
            "waited max",
            "target took p50",
            "took p95",
            "took max",
        ],
    );
    for (route, r) in &s.posts(run) {
        let statuses: Vec<String> = r.statuses.iter().map(|(s, n)| format!("{s}: {n}")).collect();
        let mut row = vec![code(route.path()), num(r.attempted), num(r.bodies), statuses.join(", ").into()];
        row.extend([
            num(r.errors),
            num(r.fates.harmed()),
            num(r.repeated),
            num(r.retried),
            num(r.lost),
            num(r.answers_lost),
            num(r.cut),
        ]);
        for h in [&r.took, &r.served] {
            row.extend([num(of_requests(h, 0.5)), num(of_requests(h, 0.95)), num(or_none(h, |h| h.max()))]);
        }
        t.row(row);
    }
    t.note(format!("Bodies: different ones. Cut: never came whole. Waited: from the receipt of a post to the end of its answer. Took: from sending it on to the last byte of the answer; what was refused or never sent on is not in it. {nameless} posts name no simulation; {late} came late, of simulations of earlier cells, and are not counted; {unread} were lost before they were read."));
    troubles.into_iter().for_each(|why| t.note(why));
    Some(t)
}

/// Polled stages against the tap's, where both are there.
pub(crate) fn agreement(run: &RunRecord, s: &ScenarioSummary) -> Option<Table> {
    let cells = s.counting(run);
    let both: Vec<Agreement> =
        Agreement::STAGES.into_iter().filter_map(|stage| Agreement::of(&cells, stage)).collect();
    if both.is_empty() {
        return None;
    }
    let mut t = Table::new(
        format!("{}: polled stages against the tap, job by job on the same bounds", s.name()),
        &["stage", "jobs", "agree", "p50 polled", "p50 tap", "median difference", "largest difference"],
    );
    for a in both {
        let [polled, tap] = a.medians().map(said);
        let apart = |d: Option<Offset>| num(d.map_or_else(|| NONE.into(), |d| d.to_string()));
        t.row(vec![
            a.stage.to_string().into(),
            num(a.count()),
            num(a.agree),
            num(polled),
            num(tap),
            apart(a.median_difference()),
            apart(a.largest_difference()),
        ]);
    }
    t.note("Here both go from state to state, as the target knew them: run from RUNNING to MERGING_QUEUED, merge from MERGING_QUEUED to COMPLETED. The stages above have other bounds at the tap. Agree: jobs whose two intervals overlap. Difference: polled less tap, of midpoints. Only jobs whose simulation is known and that were polled through the stage.");
    Some(t)
}

/// Every table on the resilience of a run, one scenario after the other.
pub(crate) fn all(paper: &Paper<'_>) -> Vec<Table> {
    let each = Resilience::of_run(paper.run);
    let tables = |r: &Resilience<'_>| {
        let mut tables = vec![totals(r)];
        tables.extend(delays(r));
        tables.extend([proof(r), cells(r)]);
        tables
    };
    each.iter().flat_map(tables).collect()
}
