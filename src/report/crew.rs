//! What the workers of a run did and what befell them, added up: what every format tells of them.
//! Warm-ups are left out here; cells that were made again are not.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    crew::{Crew, Event, Offset, What},
    micros::Micros,
    plan::CellKind,
    record::{Build, CellRecord, Host, RunRecord},
    snapshot::Health,
};

/// One worker by its name, over all its lives.
#[derive(Debug, Default)]
pub(crate) struct Row<'a> {
    /// Its epochs: one for each time it was taken in.
    pub(crate) epochs: BTreeSet<u64>,
    /// Where it came from the last time, and with what.
    pub(crate) from: Option<(&'a Host, &'a Build)>,
    /// When it was first taken in, in Unix microseconds.
    pub(crate) joined: Option<u64>,
    /// Cells it had users in.
    pub(crate) cells: u32,
    /// Cells it stood by in.
    pub(crate) stood_by: u32,
    /// Fewest and most users it had in a cell, where it had any.
    pub(crate) users: Option<(u32, u32)>,
    /// Frames that arrived.
    pub(crate) frames: u64,
    /// Frames that did not.
    pub(crate) gaps: u64,
    /// Frames that arrived again.
    pub(crate) repeated: u64,
    /// How its clock stood in the cell where that was least sure.
    pub(crate) offset: Option<Offset>,
    /// How late it began, with the error of the offset, cell by cell; rising.
    pub(crate) skews: Vec<Micros>,
    /// The largest share of its cores it used in a cell.
    pub(crate) worst_cpu: f64,
    /// The latest p99 of a cell.
    pub(crate) worst_lag: Micros,
    /// All cells together.
    pub(crate) health: Health,
    /// How often it was lost.
    pub(crate) lost: u32,
}

impl Row<'_> {
    fn add(&mut self, cell: &CellRecord, part: &crate::crew::Part) {
        self.epochs.insert(part.epoch);
        self.frames += part.frames;
        self.gaps += part.gaps;
        self.repeated += part.repeated;
        debug_assert_eq!(cell.cell.kind, CellKind::Measured);
        if part.users == 0 {
            self.stood_by += 1;
            return;
        }
        self.cells += 1;
        let (least, most) = self.users.unwrap_or((part.users, part.users));
        self.users = Some((least.min(part.users), most.max(part.users)));
        if self.offset.is_none_or(|o| o.error <= part.offset.error) {
            self.offset = Some(part.offset);
        }
        self.skews.extend(part.start_late.map(|late| late + part.offset.error));
        self.worst_cpu = self.worst_cpu.max(part.health.cpu_share());
        self.worst_lag = self.worst_lag.max(part.health.lag.quantile(0.99));
        self.health.merge(&part.health);
    }

    /// The middle one of its starts; the lower of two.
    pub(crate) fn median_skew(&self) -> Option<Micros> {
        self.skews.get(self.skews.len().saturating_sub(1) / 2).copied()
    }
}

/// The workers of a run over a plane.
#[derive(Debug)]
pub(crate) struct Workers<'a> {
    /// The plane, and what befell them.
    pub(crate) crew: &'a Crew,
    /// Those that took part or were taken in, by name.
    pub(crate) rows: BTreeMap<&'a str, Row<'a>>,
}

impl<'a> Workers<'a> {
    /// Those of a run; `None` for a run in one process.
    pub(crate) fn of(run: &'a RunRecord) -> Option<Self> {
        let crew = run.crew.as_ref()?;
        let mut rows: BTreeMap<&str, Row<'_>> = BTreeMap::new();
        for event in &crew.events {
            let Some(who) = &event.who else { continue };
            match &event.what {
                What::Joined { host, build } => {
                    let row = rows.entry(&who.name).or_default();
                    row.epochs.insert(who.epoch);
                    row.from = Some((host, build));
                    row.joined.get_or_insert(event.at);
                }
                What::Lost { .. } => rows.entry(&who.name).or_default().lost += 1,
                _ => {}
            }
        }
        for cell in run.cells.iter().filter(|c| c.cell.kind == CellKind::Measured) {
            for part in &cell.workers {
                rows.entry(&part.name).or_default().add(cell, part);
            }
        }
        rows.values_mut().for_each(|row| row.skews.sort_unstable());
        Some(Self { crew, rows })
    }

    /// How many were taken in, by name.
    pub(crate) fn came(&self) -> usize {
        self.rows.values().filter(|row| row.joined.is_some()).count()
    }

    fn count(&self, which: fn(&What) -> u64) -> u64 {
        self.crew.events.iter().map(|e| which(&e.what)).sum()
    }

    /// How often one was lost.
    pub(crate) fn lost(&self) -> u64 {
        self.count(|what| u64::from(matches!(what, What::Lost { .. })))
    }

    /// How often one was sent away.
    pub(crate) fn refused(&self) -> u64 {
        self.count(|what| u64::from(matches!(what, What::Refused { .. })))
    }

    /// How often the manager was cut off.
    pub(crate) fn cut_off(&self) -> u64 {
        self.count(|what| u64::from(matches!(what, What::Cut { .. })))
    }

    /// Frames of those that were not counted on any more.
    pub(crate) fn late_frames(&self) -> u64 {
        self.count(|what| if let What::LateFrames { frames } = what { *frames } else { 0 })
    }

    /// Events that are not in the ordinary course of a run.
    pub(crate) fn troubles(&self) -> impl Iterator<Item = &'a Event> {
        self.crew.events.iter().filter(|e| !matches!(e.what, What::Joined { .. } | What::Left))
    }

    /// All in half a line: `3 expected, 3 came, 1 lost`.
    pub(crate) fn said(&self) -> String {
        let mut said = format!("{} expected, {} came", self.crew.expected, self.came());
        for (n, what) in [(self.lost(), "lost"), (self.refused(), "sent away")] {
            if n > 0 {
                said.push_str(&format!(", {n} {what}"));
            }
        }
        let times = |n: u64| if n == 1 { "once".to_owned() } else { format!("{n} times") };
        if self.late_frames() > 0 {
            said.push_str(&format!(", {} late frames kept apart", self.late_frames()));
        }
        if self.cut_off() > 0 {
            said.push_str(&format!(", cut off from the plane {}", times(self.cut_off())));
        }
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn workers_are_added_up_by_name() {
        let run = sample::crew();
        let workers = Workers::of(&run).unwrap();
        assert_eq!(workers.rows.keys().copied().collect::<Vec<_>>(), ["load-a", "load-b", "load-c"]);
        let cells = run.cells.iter().filter(|c| c.cell.kind == CellKind::Measured).count() as u32;
        let b = &workers.rows["load-b"];
        assert_eq!((b.epochs.len(), b.lost, b.cells + b.stood_by < cells), (2, 1, true));
        let a = &workers.rows["load-a"];
        assert_eq!((a.cells, a.users, a.lost), (cells, Some((3, 5)), 0));
        assert_eq!(
            workers.said(),
            "3 expected, 3 came, 1 lost, 1 sent away, 6 late frames kept apart, cut off from the plane once"
        );
        assert!(a.median_skew() <= a.skews.last().copied());
        assert!(Workers::of(&sample::good()).is_none());
    }
}
