//! What a fault did to posts and jobs, cell by cell, beside the same figures without a fault.
//!
//! Facts only. That the fault really showed is the proof's business, and whether the run passes is
//! `verdict`'s.

mod figures;

pub use figures::Figures;

use crate::{
    fault::{Distribution, Fault, FaultKind},
    injection::Canary,
    micros::Micros,
    record::{CellRecord, RunRecord},
    route::Route,
    scenario::Scenario,
    summary,
};

/// A scenario with a fault.
#[derive(Debug)]
pub struct Resilience<'a> {
    /// Its row.
    pub scenario: &'a Scenario,
    /// Each level of its fault that was measured.
    pub levels: Vec<Tested<'a>>,
    /// The scenario of as many users and tasks without a fault, where this run has one.
    pub twin: Option<Tested<'a>>,
}

/// Cells with one fault, or with none.
#[derive(Debug)]
pub struct Tested<'a> {
    /// The scenario, with the level where it has several.
    pub name: String,
    /// The fault.
    pub fault: &'a Fault,
    /// All cells that count together.
    pub total: Figures,
    /// Each finished cell, INVALID ones included.
    pub cells: Vec<(&'a CellRecord, Figures)>,
}

impl<'a> Resilience<'a> {
    /// Every scenario with a fault that has a finished cell.
    pub fn of_run(run: &'a RunRecord) -> Vec<Self> {
        run.plan.scenarios.iter().filter_map(|s| Self::of(run, s)).collect()
    }

    /// One of them; `None` for a scenario without a fault or without a finished cell.
    pub fn of(run: &'a RunRecord, scenario: &'a Scenario) -> Option<Self> {
        let levels =
            if scenario.levels.iter().all(Fault::is_none) { Vec::new() } else { tested(run, scenario) };
        let twin = run.plan.scenarios.iter().find(|s| s.is_twin_of(scenario));
        let twin = twin.and_then(|twin| tested(run, twin).pop());
        (!levels.is_empty()).then_some(Self { scenario, levels, twin })
    }

    /// The levels, then the twin.
    pub fn all(&self) -> impl Iterator<Item = &Tested<'a>> {
        self.levels.iter().chain(&self.twin)
    }
}

/// The levels of a scenario that were measured.
fn tested<'a>(run: &'a RunRecord, scenario: &'a Scenario) -> Vec<Tested<'a>> {
    let each = summary::levels(scenario).into_iter().map(|fault| {
        let all = summary::cells_of(run, scenario, Some(fault));
        let counting = summary::sound(&all);
        Tested {
            name: summary::part_name(scenario, Some(fault)),
            fault,
            total: Figures::of(&counting),
            cells: all.into_iter().map(|cell| (cell, Figures::of(&[cell]))).collect(),
        }
    });
    each.filter(|t| !t.cells.is_empty()).collect()
}

impl Tested<'_> {
    /// The delay that posts of results were ordered to have, in the mean; `None` for another
    /// fault, and for one that does not hit them all.
    pub fn ordered_delay(&self) -> Option<Micros> {
        if !self.fault.window.is_whole() || !self.fault.routes.contains(&Route::Results) {
            return None;
        }
        match self.fault.kind {
            FaultKind::Latency { delay, jitter, distribution: Distribution::Exponential } => {
                Some(delay + jitter)
            }
            FaultKind::Latency { delay, .. } => Some(delay),
            _ => None,
        }
    }
}

/// How many canaries got an answer, of how many, and the median of how long they all took.
pub fn canaries(some: &[Canary]) -> (usize, usize, Option<Micros>) {
    let mut took: Vec<Micros> = some.iter().map(|c| c.took).collect();
    took.sort_unstable();
    let answered = some.iter().filter(|c| c.status.is_some()).count();
    (answered, some.len(), took.get(took.len().saturating_sub(1) / 2).copied())
}

/// What the canaries of a cell prove: `shown`, or why the fault is not proven; `None` where none
/// was to be injected.
pub fn proof(cell: &CellRecord) -> Option<String> {
    let flaws = &cell.injection.as_ref()?.proof.flaws;
    Some(if flaws.is_empty() { "shown".into() } else { format!("not proven: {}", flaws.join("; ")) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report::sample, verdict::Verdict};

    #[test]
    fn every_level_stands_beside_its_twin() {
        let run = sample::faults();
        let all = Resilience::of_run(&run);
        let names: Vec<Vec<&str>> = all.iter().map(|r| r.all().map(|t| t.name.as_str()).collect()).collect();
        assert_eq!(
            names,
            [
                ["S7 latency +250 ms ± 10.0 ms", "S7 latency +1.00 s ± 40.0 ms", "S6"],
                ["S8 drop 2 %", "S8 drop 5 %", "S6"]
            ]
        );
        for t in all.iter().flat_map(Resilience::all) {
            let sound = t.cells.iter().filter(|(c, _)| c.verdict != Verdict::Invalid);
            assert_eq!(t.total.jobs, sound.map(|(_, f)| f.jobs).sum::<u64>(), "{}", t.name);
        }
        assert!(Resilience::of(&run, &run.plan.scenarios[0]).is_none(), "S6 has no fault");
    }

    #[test]
    fn canaries_are_counted_whether_they_came_back_or_not() {
        let canary = |took, status| Canary { number: 0, took: Micros(took), status };
        let some = [canary(30, None), canary(10, Some(404)), canary(20, Some(404))];
        assert_eq!(canaries(&some), (2, 3, Some(Micros(20))));
        assert_eq!(canaries(&[]), (0, 0, None));
    }
}
