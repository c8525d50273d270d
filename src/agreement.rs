//! Polled stages held against what the tap saw, job by job and between the same bounds.
//!
//! A stage of polling goes from one state that the target knows of to another, so the tap's side
//! is an interval too: the target learned of the state after the receipt of the post that told it
//! and before the end of its answer. Where the two intervals have nothing in common, one of them
//! is wrong, or the target's state went its own way.

use crate::{
    estimate::{Quantile, Sample, Span},
    micros::Offset,
    posts::{Moment, Simulation, attribution},
    record::CellRecord,
    timeline::Stage,
};

/// One stage of the jobs that both sides know.
#[derive(Debug)]
pub struct Agreement {
    /// The stage, in the bounds that it has for polling.
    pub stage: Stage,
    /// Jobs whose two intervals overlap.
    pub agree: usize,
    /// What polling says.
    pub polled: Sample,
    /// What the tap says.
    pub tap: Sample,
    /// Of each job, how far the polled interval lies from the tap's, rising; zero where they
    /// overlap.
    gaps: Vec<Offset>,
}

impl Agreement {
    /// The stages that both sides know.
    pub const STAGES: [Stage; 2] = [Stage::Run, Stage::Merge];

    /// Compares the jobs of some cells whose simulation is known; `None` without any.
    pub fn of(cells: &[&CellRecord], stage: Stage) -> Option<Self> {
        let mut pairs: Vec<(Span, Span)> = Vec::new();
        for cell in cells {
            let Some(posts) = &cell.posts else { continue };
            for (key, (_, simulation)) in attribution(&cell.totals, posts).known {
                let polled = cell.totals.jobs.get(&key).and_then(|job| job.timeline.stage(stage));
                let polled = polled.filter(|span| span.most.is_some());
                pairs.extend(polled.zip(bounds(simulation, stage).map(between)));
            }
        }
        let overlap = |(a, b): &&(Span, Span)| {
            let (a_most, b_most) = (a.most.unwrap_or(a.least), b.most.unwrap_or(b.least));
            a.least <= b_most && b.least <= a_most
        };
        let mut gaps: Vec<Offset> = pairs.iter().map(gap).collect();
        gaps.sort_unstable();
        (!pairs.is_empty()).then(|| Self {
            stage,
            agree: pairs.iter().filter(overlap).count(),
            polled: Sample::new(pairs.iter().map(|p| p.0)),
            tap: Sample::new(pairs.iter().map(|p| p.1)),
            gaps,
        })
    }

    /// Jobs compared.
    pub fn count(&self) -> usize {
        self.gaps.len()
    }

    /// Both medians, polled first.
    pub fn medians(&self) -> [Option<Quantile>; 2] {
        [self.polled.quantile(0.5), self.tap.quantile(0.5)]
    }

    /// The middle one of the jobs' gaps, polled less tap.
    pub fn median_gap(&self) -> Option<Offset> {
        self.gaps.get(self.gaps.len().saturating_sub(1) / 2).copied()
    }

    /// The one that is furthest from zero.
    pub fn widest_gap(&self) -> Option<Offset> {
        self.gaps.iter().copied().max_by_key(|d| d.0.unsigned_abs())
    }
}

/// How far the first interval lies above the second, or below it; zero where they overlap. What
/// lies within is the doubt of both and no disagreement.
fn gap((polled, tap): &(Span, Span)) -> Offset {
    let most = |span: &Span| span.most.unwrap_or(span.least);
    if polled.least > most(tap) {
        Offset::of(polled.least, most(tap))
    } else if tap.least > most(polled) {
        Offset::of(most(polled), tap.least)
    } else {
        Offset::of(polled.least, polled.least)
    }
}

/// The moments between which polling sees a stage.
fn bounds(s: &Simulation, stage: Stage) -> Option<(Moment, Moment)> {
    match stage {
        // Without a RUNNING the job was never seen to run, however long it did.
        Stage::Run => s.first_running.zip(s.merging_queued),
        Stage::Merge => s.merging_queued.zip(s.results),
        _ => None,
    }
}

fn between((start, end): (Moment, Moment)) -> Span {
    Span {
        least: end.received.saturating_sub(start.answered),
        most: Some(end.answered.saturating_sub(start.received)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{micros::Micros, report::sample};

    #[test]
    fn the_same_bounds_give_the_same_figures() {
        let run = sample::faults();
        for stage in Agreement::STAGES {
            let cells: Vec<&CellRecord> =
                run.measured().filter(|c| c.cell.scenario.as_str() == "S6").collect();
            let a = Agreement::of(&cells, stage).unwrap();
            let jobs: usize = cells.iter().map(|c| c.totals.jobs.len()).sum();
            assert_eq!((a.count(), a.agree), (jobs, jobs), "{stage}");
            assert!(a.median_gap().unwrap().0 == 0, "{stage}");
        }
    }

    #[test]
    fn a_simulation_that_told_of_no_running_is_not_compared() {
        let at = |us| Some(Moment { received: Micros(us), answered: Micros(us + 5) });
        let s = Simulation { merging_queued: at(100), results: at(400), ..Simulation::default() };
        assert!(bounds(&s, Stage::Run).is_none());
        let span = between(bounds(&s, Stage::Merge).unwrap());
        assert_eq!((span.least, span.most), (Micros(295), Some(Micros(305))));
    }
}
