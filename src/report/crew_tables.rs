//! The tables on the workers of a run over a plane, for HTML, Markdown and the terminal alike. There
//! may be a thousand workers: every table is cut to what can be read, and says what it leaves out.

use crate::{
    crew::{Event, Offset, What},
    micros::Micros,
    record::RunRecord,
    report::{
        crew::{Row, Workers},
        figure::{NONE, percent},
        fold,
        scenario_tables::moment,
        table::{Cell, Table, code, name, num},
    },
};

/// Workers shown of a run: those with losses or gaps first, then those that worked hardest.
const WORKERS: usize = 50;
/// Events shown.
const EVENTS: usize = 100;
/// Events shown where only a summary is wanted.
const FEW: usize = 12;

/// Every table of the panel; none for a run in one process.
pub(crate) fn all(run: &RunRecord) -> Vec<Table> {
    let Some(workers) = Workers::of(run) else { return Vec::new() };
    let mut who = identities(&workers);
    let mut how = figures(&workers);
    let left_out = workers.rows.len().saturating_sub(WORKERS);
    if left_out > 0 {
        let note = format!(
            "{left_out} more workers are not shown; those with losses or gaps come first, then those that used most of their CPU. All are in timings/workers.csv."
        );
        who.note(note.as_str());
        how.note(note);
    }
    vec![who, how, timeline(run, &workers)]
}

/// What went wrong with workers or plane; `None` when nothing did.
pub(crate) fn troubles(run: &RunRecord, workers: &Workers<'_>) -> Option<Table> {
    let all: Vec<&Event> = workers.troubles().collect();
    let mut t = events(run, "What befell the workers and the plane", all.iter().take(FEW).copied());
    if all.len() > FEW {
        t.note(format!("{} more are in report.html and in run.json.", all.len() - FEW));
    }
    (!t.is_empty()).then_some(t)
}

/// The workers there is room for, by name.
fn shown<'w, 'a>(workers: &'w Workers<'a>) -> Vec<(&'a str, &'w Row<'a>)> {
    let mut all: Vec<(&str, &Row<'_>)> = workers.rows.iter().map(|(name, row)| (*name, row)).collect();
    if all.len() > WORKERS {
        let trouble = |row: &Row<'_>| (row.lost > 0 || row.gaps > 0, (row.worst_cpu * 1e6) as u64);
        all.sort_by_key(|(_, row)| std::cmp::Reverse(trouble(row)));
        all.truncate(WORKERS);
        all.sort_by_key(|(name, _)| *name);
    }
    all
}

fn identities(workers: &Workers<'_>) -> Table {
    let mut t = Table::new(
        "Workers: who they were",
        &["worker", "host", "build", "cores", "joined", "epochs", "cells", "stood by", "users", "lost"],
    );
    for (worker, row) in shown(workers) {
        let epochs: Vec<String> = row.epochs.iter().map(u64::to_string).collect();
        let epochs = match epochs.as_slice() {
            [first, .., last] if epochs.len() > 6 => format!("{first} … {last} ({})", epochs.len()),
            some => some.join(", "),
        };
        t.row(vec![
            code(worker),
            row.from.map_or_else(|| NONE.into(), |(host, _)| name(&host.name)),
            row.from.map_or_else(|| NONE.into(), |(_, b)| name(format!("{} {}", b.version, b.revision))),
            num(row.from.map_or_else(|| NONE.into(), |(host, _)| host.cores.to_string())),
            name(row.joined.map_or_else(|| NONE.into(), moment)),
            name(epochs),
            num(row.cells),
            num(row.stood_by),
            num(row.users.map_or_else(|| NONE.into(), range)),
            match row.lost {
                0 => num(0),
                n => Cell::Number(format!("{n}×")),
            },
        ]);
    }
    t.note("Epochs: one for each time a worker was taken in. Cells: those it had users in, with the fewest and the most users it had; in those it stood by in, there were fewer users than workers. Cells that were made again are counted too, warm-ups are not.");
    t
}

fn range((least, most): (u32, u32)) -> String {
    if least == most { least.to_string() } else { format!("{least} … {most}") }
}

fn figures(workers: &Workers<'_>) -> Table {
    let mut t = Table::new(
        "Workers: how they did",
        &[
            "worker",
            "frames",
            "gaps",
            "repeated",
            "clock offset",
            "start skew p50",
            "max",
            "CPU worst cell",
            "CPU mean",
            "lag p99 worst cell",
            "sockets",
        ],
    );
    for (worker, row) in shown(workers) {
        let time = |m: Option<Micros>| num(m.map_or_else(|| NONE.into(), |m| m.to_string()));
        let worked = row.cells > 0;
        let only = |said: String| num(if worked { said } else { NONE.into() });
        t.row(vec![
            code(worker),
            num(row.frames),
            num(row.gaps),
            num(row.repeated),
            num(row.offset.map_or_else(|| NONE.into(), offset)),
            time(row.median_skew()),
            time(row.skews.last().copied()),
            only(percent(row.worst_cpu)),
            only(percent(row.health.cpu_share())),
            only(row.worst_lag.to_string()),
            num(row.health.sockets),
        ]);
    }
    t.note("Gaps: frames that did not arrive. Offset: the plane's clock less the worker's, in the cell where it was least sure. Start skew: how far from T0 it may have let its users go in a cell, the error of the offset included. Lag: how late planned waits ended.");
    t
}

/// `−5.00 s ± 310 µs`.
fn offset(offset: Offset) -> String {
    let sign = match offset.ahead {
        ..0 => "−",
        0 => "",
        1.. => "+",
    };
    format!("{sign}{} ± {}", Micros(offset.ahead.unsigned_abs()), offset.error)
}

fn timeline(run: &RunRecord, workers: &Workers<'_>) -> Table {
    let title = "What befell them, on the plane's clock";
    let all = &workers.crew.events;
    if all.len() <= EVENTS {
        return events(run, title, all);
    }
    let troubles: Vec<&Event> = workers.troubles().collect();
    let mut t = events(run, title, troubles.iter().take(EVENTS).copied());
    let ordinary = all.len() - troubles.len();
    let more = match troubles.len().saturating_sub(EVENTS) {
        0 => String::new(),
        n => format!(", and {n} later events"),
    };
    t.note(format!("Not shown: {ordinary} times a worker joined or left{more}. All are in run.json."));
    t
}

fn events<'a>(run: &RunRecord, title: &str, events: impl IntoIterator<Item = &'a Event>) -> Table {
    let mut t = Table::new(title, &["time", "worker", "cell", "what"]);
    for event in events {
        let who = match (&event.who, &event.what) {
            (Some(who), _) => name(who),
            (None, What::Cut { .. } | What::Back) => name("manager"),
            (None, _) => name(NONE),
        };
        t.row(vec![
            name(moment(event.at)),
            who,
            name(event.cell.map_or_else(|| NONE.into(), |cell| fold::place(run, cell))),
            event.what.to_string().into(),
        ]);
    }
    t
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        crew::{Member, Part},
        report::{Paper, html, sample},
    };

    #[test]
    fn the_tables_read_so() {
        let text: String = all(&sample::crew()).iter().map(Table::markdown).collect();
        insta::assert_snapshot!(text);
    }

    /// Leaves the pages where `SPRINGTIDE_TEST_REPORT` says, for eyes.
    fn leave(name: &str, run: &RunRecord) -> usize {
        let page = html::page(&Paper::of(run));
        if let Some(folder) = std::env::var_os("SPRINGTIDE_TEST_REPORT") {
            std::fs::write(std::path::Path::new(&folder).join(name), &page).unwrap();
        }
        page.len()
    }

    #[test]
    fn a_thousand_workers_are_cut_to_those_that_matter() {
        let mut run = sample::crew();
        let joined = run.crew.as_ref().unwrap().events[0].clone();
        let part = run.cells.last().unwrap().workers[0].clone();
        for n in 0..1_000 {
            let name = format!("w{n:04}");
            let who = Some(Member { name: name.clone(), epoch: 100 + n });
            run.crew.as_mut().unwrap().events.push(Event { who, ..joined.clone() });
            let gaps = u64::from(n == 987);
            run.cells.last_mut().unwrap().workers.push(Part { name, epoch: 100 + n, gaps, ..part.clone() });
        }
        let few = leave("workers.html", &sample::crew());
        let many = leave("thousand-workers.html", &run);
        assert!(many < few + 50_000, "{few} and {many} bytes");
        let tables = all(&run);
        let html: String = tables.iter().map(Table::html).collect();
        assert!(html.len() < 60_000, "{} bytes", html.len());
        assert!(html.contains("953 more workers are not shown"), "50 of 1,003");
        assert!(html.contains("w0987") && html.contains("load-b"), "with a gap, and lost");
        assert!(html.contains("1006 times a worker joined or left. All are in run.json."));
    }

    #[test]
    fn an_offset_has_its_sign() {
        let said = [-5_000_000, 0, 1_500].map(|ahead| offset(Offset { ahead, error: Micros(310) }));
        assert_eq!(said, ["−5.00 s ± 310 µs", "0 µs ± 310 µs", "+1.50 ms ± 310 µs"]);
    }
}
