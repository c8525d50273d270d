//! What befell the workers, as findings: of a cell that lost some, and of a run over a plane.

use super::{EXAMPLES, Finding, Kind, Notes};
use crate::{
    crew::{Crew, Event, Part, What},
    micros::Micros,
};

/// Notes who did not stay to the end of a cell. Of many, the first few are named.
pub(super) fn of_parts(workers: &[Part], found: &mut Notes) {
    let lost: Vec<(&Part, &str)> = workers.iter().filter_map(|p| Some((p, p.lost.as_deref()?))).collect();
    let mut names: Vec<&str> = lost.iter().take(EXAMPLES).map(|(p, _)| p.name.as_str()).collect();
    let more = format!("{} more", lost.len().saturating_sub(EXAMPLES));
    if lost.len() > EXAMPLES {
        names.push(&more);
    }
    let examples = lost.iter().take(EXAMPLES).map(|(p, why)| format!("{}: {why}", p.member())).collect();
    found.put(Kind::WorkerLost { worker: names.join(", ") }, lost.len() as u64, examples);
}

/// What befell the workers of a run and its plane. `place` names a cell by its index. A cell that was
/// made again counts no more; what was the matter with it is told here.
pub fn of_crew(crew: &Crew, place: impl Fn(u32) -> String) -> Vec<Finding> {
    let mut found = Notes::default();
    let mut add = |kind: Kind, count: u64, example: String| {
        let (sum, examples) = found.0.entry(kind).or_default();
        *sum += count;
        if examples.len() < EXAMPLES {
            examples.push(example);
        }
    };
    for (nth, event) in crew.events.iter().enumerate() {
        let who = event.who.as_ref().map_or_else(|| "the manager".to_owned(), ToString::to_string);
        let at = event.cell.map_or_else(String::new, |cell| format!(" in {}", place(cell)));
        match &event.what {
            What::Lost { why } => add(Kind::WorkersLost, 1, format!("{who}{at}: {why}")),
            What::Refused { why } => add(Kind::WorkersRefused, 1, format!("{who}: {why}")),
            What::LateFrames { frames } => add(Kind::LateFrames, *frames, format!("{frames} of {who}{at}")),
            What::Cut { why } => {
                let lasted = match lasted(event, &crew.events[nth..]) {
                    Some(time) => format!("back after {time}"),
                    None => "not back".to_owned(),
                };
                add(Kind::CutOff, 1, format!("{}{at}: {why}; {lasted}", crew.plane));
            }
            What::Joined { .. } | What::Left | What::Back | What::Short { .. } => {}
        }
    }
    found.findings()
}

/// How long the plane was away.
fn lasted(cut: &Event, later: &[Event]) -> Option<Micros> {
    let back = later.iter().find(|e| matches!(e.what, What::Back))?;
    Some(Micros(back.at.saturating_sub(cut.at)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crew::Member;

    #[test]
    fn a_cell_names_whom_it_lost_and_of_many_the_first() {
        let part = |n: u64, lost: Option<&str>| Part {
            name: format!("w{n}"),
            epoch: n,
            lost: lost.map(str::to_owned),
            ..Part::default()
        };
        let found = |workers: &[Part]| {
            let mut notes = Notes::default();
            of_parts(workers, &mut notes);
            notes.findings()
        };
        assert_eq!(found(&[part(1, None)]), []);
        let one = found(&[part(1, None), part(2, Some("its lease ran out"))]);
        assert_eq!((one[0].count, one[0].kind.clone()), (1, Kind::WorkerLost { worker: "w2".into() }));
        assert_eq!(one[0].examples, ["w2 (epoch 2): its lease ran out"]);
        let all: Vec<Part> = (0..1_000).map(|n| part(n, Some("gone"))).collect();
        let many = found(&all);
        assert_eq!((many.len(), many[0].count, many[0].examples.len()), (1, 1_000, 3));
        assert_eq!(many[0].kind, Kind::WorkerLost { worker: "w0, w1, w2, 997 more".into() });
    }

    #[test]
    fn what_befell_a_run_is_told_with_whom_and_where() {
        let event = |at, who: Option<u64>, cell, what| {
            let who = who.map(|n| Member { name: format!("w{n}"), epoch: n });
            Event { at, who, cell, what }
        };
        let events = vec![
            event(1, Some(7), None, What::Refused { why: "another plan".into() }),
            event(2, Some(2), Some(4), What::Lost { why: "its lease ran out".into() }),
            event(3, Some(2), Some(4), What::LateFrames { frames: 6 }),
            event(5, None, None, What::Cut { why: "it is away".into() }),
            event(3_000_005, None, None, What::Back),
            event(4_000_000, None, None, What::Cut { why: "again".into() }),
            event(5_000_000, Some(2), None, What::Left),
        ];
        let crew = Crew { plane: "redis://plane".into(), events, ..Crew::default() };
        let found = of_crew(&crew, |cell| format!("S6 #{cell}"));
        let said: Vec<(&Kind, u64, &str)> =
            found.iter().map(|f| (&f.kind, f.count, f.examples[0].as_str())).collect();
        assert_eq!(
            said,
            [
                (&Kind::WorkersLost, 1, "w2 (epoch 2) in S6 #4: its lease ran out"),
                (&Kind::WorkersRefused, 1, "w7 (epoch 7): another plan"),
                (&Kind::LateFrames, 6, "6 of w2 (epoch 2) in S6 #4"),
                (&Kind::CutOff, 2, "redis://plane: it is away; back after 3.00 s"),
            ]
        );
        assert_eq!(found[3].examples[1], "redis://plane: again; not back");
        assert!(found.iter().all(|f| f.kind.is_about_us() && f.kind.is_about_workers()));
    }
}
