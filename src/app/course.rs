//! How far a run has got: which cell of how many, how long the rest will take, what was found so far.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::{
    micros::Micros,
    plan::{Cell, CellKind},
    record::RunRecord,
    scenario::ScenarioId,
    verdict::Verdict,
};

/// The cells of a run as they go by.
pub(super) struct Course {
    /// What is still to be made, the running cell first.
    todo: Vec<Cell>,
    /// Cells that were closed in this process.
    closed: usize,
    /// When the running cell was opened.
    opened: Option<Instant>,
    /// Cells of each kind and scenario, and how long they took, all around them included.
    took: BTreeMap<(bool, ScenarioId), (u32, Duration)>,
}

impl Course {
    /// A run that is to make these cells.
    pub(super) fn new(todo: Vec<Cell>) -> Self {
        Self { todo, closed: 0, opened: None, took: BTreeMap::new() }
    }

    /// No cell has begun yet.
    pub(super) fn is_at_its_start(&self) -> bool {
        self.closed == 0 && self.opened.is_none()
    }

    /// A cell begins.
    pub(super) fn opened(&mut self) {
        self.opened = Some(Instant::now());
    }

    /// A cell ended, and may have to be made `again`.
    pub(super) fn closed(&mut self, cell: &Cell, again: bool) {
        self.closed += 1;
        let is_it = |c: &Cell| kind(c) == kind(cell) && c.repetition == cell.repetition;
        if let Some(at) = self.todo.iter().position(is_it) {
            self.todo.remove(at);
        }
        if again {
            self.todo.push(cell.clone());
        }
        if let Some(opened) = self.opened.take() {
            let (n, sum) = self.took.entry(kind(cell)).or_default();
            *n += 1;
            *sum += opened.elapsed();
        }
    }

    /// How long the rest will take; `None` before the first cell has ended.
    pub(super) fn left(&self) -> Option<Micros> {
        let (n, sum) =
            self.took.values().fold((0, Duration::ZERO), |(n, sum), (m, took)| (n + m, sum + *took));
        let usual = sum.checked_div(n)?;
        let of = |cell: &Cell| {
            self.took.get(&kind(cell)).and_then(|(n, sum)| sum.checked_div(*n)).unwrap_or(usual)
        };
        let rest: Duration = self.todo.iter().map(of).sum();
        let running = self.opened.map(|at| at.elapsed()).unwrap_or_default();
        Some(rest.saturating_sub(running.min(self.todo.first().map(of).unwrap_or_default())).into())
    }

    /// `[12/84, about 4 min left, 10 PASS 1 INVALID] `: the running cell, or the last one.
    pub(super) fn told(&self, record: &RunRecord) -> String {
        let of = self.closed + self.todo.len();
        let left = match self.left() {
            Some(left) if !self.todo.is_empty() => format!(", about {} left", roughly(left)),
            _ => String::new(),
        };
        let verdicts: String = [Verdict::Pass, Verdict::Fail, Verdict::Invalid]
            .into_iter()
            .map(|v| (v, record.measured().filter(|c| c.verdict == v).count()))
            .filter(|(_, n)| *n > 0)
            .map(|(v, n)| format!(" {n} {v}"))
            .collect();
        let verdicts = if verdicts.is_empty() { verdicts } else { format!(",{verdicts}") };
        let now = self.closed + usize::from(self.opened.is_some());
        format!("[{now}/{of}{left}{verdicts}] ")
    }
}

/// `40 s`, `12 min`, `3 h 10 min`: nobody knows it better.
fn roughly(left: Micros) -> String {
    match left.as_secs().ceil() as u64 {
        seconds @ 0..100 => format!("{seconds} s"),
        seconds @ 100..6_000 => format!("{} min", seconds.div_ceil(60)),
        seconds => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

fn kind(cell: &Cell) -> (bool, ScenarioId) {
    (cell.kind == CellKind::WarmUp, cell.scenario.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Plan, scenario::Matrix};

    #[test]
    fn a_cell_that_is_made_again_goes_to_the_end() {
        let cells = Plan::cells(1, &Matrix::runbook().scenarios[..1], false);
        let mut course = Course::new(cells.clone());
        assert_eq!(course.left(), None, "nothing is known yet");
        for (i, cell) in cells.iter().enumerate() {
            course.opened();
            course.closed(cell, i == 0);
            assert_eq!(course.todo.len(), cells.len() - i);
        }
        course.opened();
        course.closed(&Cell { attempt: 2, ..cells[0].clone() }, false);
        assert!(course.todo.is_empty());
    }

    #[test]
    fn what_is_left_is_told_roughly() {
        for (seconds, said) in [(0.2, "1 s"), (99.0, "99 s"), (100.0, "2 min"), (11_400.0, "3 h 10 min")] {
            assert_eq!(roughly(Micros::from_ms(seconds * 1e3)), said);
        }
    }
}
