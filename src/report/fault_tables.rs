//! The tables on what a fault did, for HTML, Markdown and the terminal alike.

use crate::{
    estimate::Quantile,
    injection::{Canary, Proof},
    micros::{Micros, Offset},
    posts::RoutePosts,
    record::CellRecord,
    report::{
        Paper,
        figure::{NONE, said},
        resilience::injector,
        table::{Cell, Table, name, num},
    },
    resilience::{self, Figures, Resilience, Tested},
    verdict::Verdict,
};

/// What became of jobs.
const JOBS: [&str; 9] =
    ["jobs", "fetched", "stuck", "stuck in", "failed", "partial", "written twice", "wrong end", "recovery"];

/// What became of posts.
const POSTS: [&str; 12] = [
    "posts",
    "faulted",
    "requests dropped",
    "answers dropped",
    "delayed",
    "refused",
    "lost",
    "answers lost",
    "retried",
    "repeated",
    "replayed",
    "errors",
];

fn some(n: Option<u64>) -> Cell {
    num(n.map_or_else(|| NONE.into(), |n| n.to_string()))
}

fn of_jobs(f: &Figures) -> Vec<Cell> {
    let states = f.stuck_states();
    vec![
        num(f.jobs),
        num(f.fetched),
        num(f.stuck_jobs()),
        name(if states.is_empty() { NONE } else { &states }),
        num(f.failed),
        num(f.partial),
        some(f.duplicate_writes),
        num(f.wrong),
        num(said(f.recovery_p50())),
    ]
}

fn of_posts(f: &Figures) -> Vec<Cell> {
    let counts: [fn(&RoutePosts) -> u64; 12] = [
        |p| p.attempted,
        |p| p.fates.harmed(),
        |p| p.fates.requests_dropped,
        |p| p.fates.answers_dropped,
        |p| p.fates.delayed,
        |p| p.fates.refused,
        |p| p.lost,
        |p| p.answers_lost,
        |p| p.retried,
        |p| p.repeated,
        |p| p.replayed,
        |p| p.errors,
    ];
    counts.into_iter().map(|count| some(f.posts.as_ref().map(count))).collect()
}

/// Each level of a fault and its twin, a row each.
fn totals(r: &Resilience<'_>, what: &str, columns: &[&'static str], of: fn(&Figures) -> Vec<Cell>) -> Table {
    let columns: Vec<&'static str> =
        ["scenario", "fault", "cells"].into_iter().chain(columns.iter().copied()).collect();
    let mut t = Table::new(format!("{}: {what}, with and without the fault", r.scenario.id), &columns);
    for part in r.all() {
        let sound = part.cells.iter().filter(|(c, _)| c.verdict != Verdict::Invalid).count();
        let counted = match sound {
            0 => format!("0 of {0}, {0} INVALID", part.cells.len()),
            _ => format!("{sound} of {}", part.cells.len()),
        };
        let mut row = vec![part.cells[0].0.cell.scenario.to_string().into(), name(part.fault), num(counted)];
        row.extend(of(&part.total));
        t.row(row);
    }
    t
}

/// What became of jobs, with and without the fault.
pub(crate) fn jobs(r: &Resilience<'_>) -> Table {
    let mut t = totals(r, "jobs", &JOBS, of_jobs);
    if r.twin.is_none() {
        t.note("This run has no scenario of as many users and tasks without a fault: there is nothing to hold these figures against.");
    }
    t.note("A row is the sum of its cells; INVALID ones are left out unless there are no others. Stuck: had not ended when it was given up. Partial: COMPLETED though not all of its tasks were. Written twice: simulations with more than one accepted post of results that was no replay. Wrong end: the client, the target's list and the tap do not agree on whether it was completed. Recovery: median time from the end of the fault to the end of the first results taken in after it, >= where none came though jobs were left; – where the fault lasted as long as its cell.");
    t
}

/// What became of posts, with and without the fault.
pub(crate) fn posts(r: &Resilience<'_>) -> Table {
    let mut t = totals(r, "posts of the target's workers", &POSTS, of_posts);
    t.note("Seen by the tap; – without one. Faulted: delayed, dropped or refused. Lost: bodies never taken in, however often tried. Answers lost: bodies taken in without the worker learning of it. Repeated: posts beyond the first with one body; retried: of these, those after one that the worker was not told had worked; replayed: of which the target says that it did nothing again. Errors: answered by the target with a status other than 2xx.");
    t
}

/// Each cell: what became of its jobs and of its posts.
fn cells(r: &Resilience<'_>) -> [Table; 2] {
    let table = |what: &str, columns: &[&'static str], of: fn(&Figures) -> Vec<Cell>| {
        let columns: Vec<&'static str> =
            ["cell", "fault", "verdict"].into_iter().chain(columns.iter().copied()).collect();
        let mut t = Table::new(format!("{}: {what}, cell by cell", r.scenario.id), &columns);
        for (cell, f) in r.all().flat_map(|part| &part.cells) {
            let mut row = vec![place(cell).into(), name(&cell.cell.fault), cell.verdict.into()];
            row.extend(of(f));
            t.row(row);
        }
        t
    };
    [table("jobs", &JOBS, of_jobs), table("posts of the target's workers", &POSTS, of_posts)]
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
            "faulted",
            "own count",
            "held p50",
        ],
    );
    for (cell, f) in r.levels.iter().flat_map(|part| &part.cells) {
        let injection = cell.injection.as_ref();
        let seen =
            |of: fn(&Proof) -> &[Canary]| injection.map_or_else(|| NONE.into(), |i| canaries(of(&i.proof)));
        t.row(vec![
            place(cell).into(),
            name(&cell.cell.fault),
            injection.map_or(NONE, |i| injector(i.by)).into(),
            resilience::proof(cell).unwrap_or_else(|| "nothing was injected".into()).into(),
            num(seen(|p| &p.before)),
            num(seen(|p| &p.during)),
            num(seen(|p| &p.after)),
            some(f.posts.as_ref().map(|p| p.fates.harmed())),
            some(f.decided.map(|d| d.harmed())),
            num(time(f.held_p50())),
        ]);
    }
    t.note("Canaries: requests of ours on the way of the workers' posts, answered of sent, and the median of how long they took. Faulted: posts that the tap saw. Own count: what the injector says it harmed; late posts of earlier cells are in it.");
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
            name(part.fault),
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

/// Every table on the resilience of a run, one scenario after the other.
pub(crate) fn all(paper: &Paper<'_>) -> Vec<Table> {
    let each = Resilience::of_run(paper.run);
    let tables = |r: &Resilience<'_>| {
        let mut tables = vec![jobs(r), posts(r)];
        tables.extend(delays(r));
        tables.push(proof(r));
        tables.extend(cells(r));
        tables
    };
    each.iter().flat_map(tables).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn cells_that_do_not_count_are_not_said_to() {
        let mut run = sample::faults();
        run.cells
            .iter_mut()
            .filter(|c| c.cell.scenario.as_str() == "S8")
            .for_each(|c| c.verdict = Verdict::Invalid);
        let all = Resilience::of_run(&run);
        let text = jobs(all.last().unwrap()).text();
        assert_eq!(text.matches("0 of 2, 2 INVALID").count(), 2, "{text}");
        assert!(text.contains("4 of 4"), "{text}");
    }
}
