//! The stages of one simulation, out of the moments that its posts tell.

use super::Simulation;
use crate::{
    estimate::Span,
    micros::Micros,
    timeline::{Between, Stage},
};

/// Tasks ended, MERGING_QUEUED, MERGING_RUNNING, results: what a healthy simulation passes.
const MARKS: usize = 4;

/// When a simulation passed what bounds its stages. A moment whose own post got lost lies between
/// those of its neighbours.
#[derive(Debug, Clone, Copy)]
pub struct Life {
    began: Option<Micros>,
    marks: [Option<Between>; MARKS],
    /// Receipt of the results, and what storing them took.
    persist: Option<(Micros, Option<Micros>)>,
    /// All tasks ended and none of them well: there is nothing to hand over.
    is_over: bool,
}

impl Life {
    /// Out of what was told; `tasks` is how many tasks it has, where that is known.
    pub fn of(s: &Simulation, tasks: Option<u32>) -> Self {
        let exactly = |m: Micros| Between { after: m, before: m };
        let began = s.first_running.map(|m| m.received).or(s.first_post);
        // The merge is over when its results are posted, whatever becomes of that post.
        let posted = s.results_received.or(s.results.map(|m| m.received));
        let later = [s.merging_queued, s.merging_running].map(|m| m.map(|m| m.received));
        let later = [later[0], later[1], posted];
        // Without a number, those that were spoken of have to do; but then more may be to come
        // until the hand-over.
        let handed_over = later.iter().any(Option::is_some);
        let all_ended = match tasks {
            Some(all) => s.ended() >= all,
            None => handed_over && s.ended() >= s.tasks,
        };
        let told_last = s.last_ended.map(|m| m.received);
        let known = [told_last.filter(|_| all_ended), later[0], later[1], later[2]];
        let mut marks = [None; MARKS];
        let mut before = told_last.or(began).unwrap_or_default();
        for (i, mark) in marks.iter_mut().enumerate() {
            let next = || known[i + 1..].iter().flatten().next();
            *mark = match known[i] {
                Some(at) => Some(exactly(at)),
                None => next().map(|&at| Between { after: before.min(at), before: at }),
            };
            before = known[i].unwrap_or(before);
        }
        let is_over = !handed_over && tasks.is_some_and(|all| s.failed >= all);
        let persist = posted.map(|at| (s.results.map_or(at, |m| m.received), s.persist()));
        Self { began, marks, persist, is_over }
    }

    /// How long a stage took; one that it did not leave took at least until `until`. `None` for a
    /// stage that it did not enter, and for one that the tap cannot tell.
    pub fn stage(&self, stage: Stage, until: Micros) -> Option<Span> {
        let [ended, queued, merging, results] = self.marks;
        let began = self.began.map(|at| Between { after: at, before: at });
        let (start, end) = match stage {
            Stage::Run => (began?, ended),
            Stage::HandOverQueued if self.is_over => return None,
            Stage::HandOverQueued => (ended?, queued),
            Stage::HandOverRunning => (queued?, merging),
            Stage::Merge => (queued?, results),
            Stage::Persist => {
                let (received, took) = self.persist?;
                return Some(took.map_or(Span::at_least(until.saturating_sub(received)), Span::exact));
            }
            Stage::Submit | Stage::Queue | Stage::Fetch | Stage::EndToEnd => return None,
        };
        Some(match end {
            Some(end) => Span {
                least: end.after.saturating_sub(start.before),
                most: Some(end.before.saturating_sub(start.after)),
            },
            None => Span::at_least(until.saturating_sub(start.before)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::posts::Moment;

    fn at(us: u64) -> Option<Moment> {
        Some(Moment { received: Micros(us), answered: Micros(us + 10) })
    }

    fn simulation() -> Simulation {
        Simulation {
            first_post: Some(Micros(50)),
            first_running: at(100),
            tasks: 2,
            completed: 2,
            last_ended: at(500),
            merging_queued: at(600),
            merging_running: at(650),
            results: at(900),
            ..Simulation::default()
        }
    }

    fn spans(s: &Simulation) -> Vec<Option<(u64, Option<u64>)>> {
        let life = Life::of(s, Some(2));
        let span = |stage| life.stage(stage, Micros(2_000)).map(|s| (s.least.0, s.most.map(|m| m.0)));
        Stage::TAP.into_iter().map(span).collect()
    }

    fn exact(us: u64) -> Option<(u64, Option<u64>)> {
        Some((us, Some(us)))
    }

    #[test]
    fn stages_go_from_receipt_to_receipt() {
        assert_eq!(spans(&simulation()), [400, 100, 50, 300, 10].map(exact));
        let never_running = Simulation { first_running: None, ..simulation() };
        assert_eq!(spans(&never_running)[0], exact(450));
    }

    #[test]
    fn a_lost_post_leaves_an_interval() {
        let no_queued = Simulation { merging_queued: None, ..simulation() };
        let interval = |a, b| Some((a, Some(b)));
        assert_eq!(
            spans(&no_queued),
            [exact(400), interval(0, 150), interval(0, 150), interval(250, 400), exact(10)]
        );
        let no_end = Simulation { completed: 1, ..simulation() };
        assert_eq!(spans(&no_end)[..2], [interval(400, 500), interval(0, 100)]);
    }

    #[test]
    fn what_did_not_end_took_at_least_until_the_last_look() {
        let stuck = Simulation {
            completed: 1,
            merging_queued: None,
            merging_running: None,
            results: None,
            ..simulation()
        };
        assert_eq!(spans(&stuck), [Some((1_900, None)), None, None, None, None]);
        let failed = Simulation { completed: 0, failed: 2, ..stuck };
        assert_eq!(spans(&failed)[..2], [exact(400), None]);
    }
}
