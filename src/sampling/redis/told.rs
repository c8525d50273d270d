//! What was seen of Redis in one cell, and what it is in the end: the series with its gaps, the
//! cost of commands without our own. No sockets here.

use std::collections::BTreeMap;

use tokio::time::Instant;

use super::{info::Stat, link::Own};
use crate::{
    micros::Micros,
    moment::Moment,
    telemetry::{
        Gap,
        redis::{APART, CommandCost, RedisSample, RedisSeries, ResultSizes, SamplingCost},
    },
};

/// What commands had cost at some moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Reading {
    pub(super) stats: BTreeMap<String, Stat>,
    /// Our own calls before the question was sent.
    pub(super) calls: BTreeMap<&'static str, u64>,
}

/// Everything seen since a cell was opened.
pub(super) struct AtCell {
    opened: Instant,
    samples: Vec<(Instant, RedisSample)>,
    /// What went wrong, each with the number of samples that there were before.
    missed: Vec<(usize, String)>,
    run_id: String,
    /// What commands are counted from.
    base: Option<Reading>,
    cuts: Vec<String>,
    commands_before: u64,
    sent_before: u64,
    received_before: u64,
}

/// Why the counters do not cover the cell.
const RESTARTED: &str = "Redis was restarted";
const RESET: &str = "somebody set the counters of Redis back";
const NOT_AT_FIRST: &str = "Redis was not there when the cell was opened";
const NOT_AT_LAST: &str = "Redis was not there when the cell was closed";

impl AtCell {
    pub(super) fn new(own: &Own) -> Self {
        Self {
            opened: Instant::now(),
            samples: Vec::new(),
            missed: Vec::new(),
            run_id: String::new(),
            base: None,
            cuts: Vec::new(),
            commands_before: own.calls.values().sum(),
            sent_before: own.sent(),
            received_before: own.received(),
        }
    }

    /// Something went wrong now.
    pub(super) fn missed(&mut self, why: String) {
        self.missed.push((self.samples.len(), why));
    }

    /// Takes a sample in. `before` is what we had asked when the connection in use was opened.
    /// `true` when Redis is another one than at the sample before.
    pub(super) fn sample(
        &mut self,
        at: Instant,
        run_id: &str,
        mut sample: RedisSample,
        own: &Own,
        before: &BTreeMap<&'static str, u64>,
    ) -> bool {
        sample.own_input = own.sent() - self.sent_before;
        sample.own_output = own.received() - self.received_before;
        sample.own_commands = own.calls.values().sum::<u64>() - self.commands_before;
        if let Some((_, last)) = self.samples.last() {
            sample.is_anew = run_id != self.run_id;
            let is_less = sample.net_input < last.net_input || sample.commands < last.commands;
            if sample.is_anew {
                self.missed("it was restarted".into());
                self.cut(RESTARTED);
                self.base = Some(Reading { stats: BTreeMap::new(), calls: before.clone() });
            } else if is_less {
                self.cut(RESET);
                self.base = Some(Reading { stats: BTreeMap::new(), calls: own.calls.clone() });
            }
        }
        self.run_id = run_id.to_owned();
        let is_anew = sample.is_anew;
        self.samples.push((at, sample));
        is_anew
    }

    fn cut(&mut self, why: &str) {
        if !self.cuts.iter().any(|c| c == why) {
            self.cuts.push(why.to_owned());
        }
    }

    /// Whether it is not known yet what commands are to be counted from.
    pub(super) fn wants_stats(&self) -> bool {
        self.base.is_none()
    }

    /// Commands are counted from here.
    pub(super) fn count_from(&mut self, reading: Reading) {
        if !self.missed.is_empty() {
            self.cut(NOT_AT_FIRST);
        }
        self.base = Some(reading);
    }

    /// The cell is over: what was seen, on the clock of its T0.
    pub(super) fn told(
        mut self,
        t0: Instant,
        closed: Instant,
        last: Option<Reading>,
        results: ResultSizes,
        own: &Own,
    ) -> RedisSeries {
        let gaps = self.gaps(t0, closed);
        let mut cost = SamplingCost {
            commands: own.calls.values().sum::<u64>() - self.commands_before,
            sent: own.sent() - self.sent_before,
            received: own.received() - self.received_before,
            busy: Micros::ZERO,
        };
        let mut commands = BTreeMap::new();
        match (self.base.take(), last) {
            (None, _) => self.cut(NOT_AT_FIRST),
            (_, None) => self.cut(NOT_AT_LAST),
            (Some(mut base), Some(last)) => {
                if base.stats.iter().any(|(name, b)| last.stats.get(name).is_none_or(|l| l.calls < b.calls)) {
                    self.cut(RESET);
                    base.stats.clear();
                }
                commands = costs(&base, &last, &mut cost);
            }
        }
        let at = |at| Moment::of(at, t0);
        let samples = self.samples.into_iter().map(|(when, s)| RedisSample { at: at(when), ..s }).collect();
        RedisSeries { samples, gaps, commands, results, cost, cuts: self.cuts }
    }

    /// The stretches without samples: where something went wrong, and where two of them are too far
    /// apart.
    fn gaps(&self, t0: Instant, closed: Instant) -> Vec<Gap> {
        let mut gaps = Vec::new();
        for after in 0..=self.samples.len() {
            let from = after.checked_sub(1).map_or(self.opened, |i| self.samples[i].0);
            let next = self.samples.get(after);
            let to = next.map_or_else(|| closed.max(from), |(at, _)| *at);
            let mut why: Vec<&str> =
                self.missed.iter().filter(|(n, _)| *n == after).map(|(_, why)| why.as_str()).collect();
            let apart = Micros::from(to.saturating_duration_since(from));
            let slow;
            if why.is_empty() && apart > APART {
                slow = match next {
                    Some((_, s)) if s.took > Micros(500_000) => format!("its answer took {}", s.took),
                    _ => "it was not asked in time".into(),
                };
                why.push(&slow);
            }
            // The first says how it began; of the attempts that failed in between none says more.
            let Some((first, rest)) = why.split_first() else { continue };
            let mut said = (*first).to_owned();
            if let Some(last) = rest.last().filter(|last| *last != first && next.is_some()) {
                said = format!("{said}; {last}");
            }
            gaps.push(Gap { from: Moment::of(from, t0), to: Moment::of(to, t0), why: said });
        }
        gaps
    }
}

/// What each command cost between two readings; our own part goes to `cost`.
fn costs(base: &Reading, last: &Reading, cost: &mut SamplingCost) -> BTreeMap<String, CommandCost> {
    let mut all = BTreeMap::new();
    for (name, stat) in &last.stats {
        let before = base.stats.get(name).copied().unwrap_or_default();
        let calls = stat.calls.saturating_sub(before.calls);
        let busy = stat.busy.saturating_sub(before.busy);
        let of = |r: &Reading| r.calls.get(name.as_str()).copied().unwrap_or(0);
        let ours = of(last).saturating_sub(of(base)).min(calls);
        if calls == 0 {
            continue;
        }
        // One call of a command costs much like another of it.
        let busy_ours = Micros((u128::from(busy.0) * u128::from(ours) / u128::from(calls)) as u64);
        cost.busy += busy_ours;
        if calls > ours {
            let theirs =
                CommandCost { calls: calls - ours, busy: busy.saturating_sub(busy_ours), p99: stat.p99 };
            all.insert(name.clone(), theirs);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn stat(calls: u64, busy: u64) -> Stat {
        Stat { calls, busy: Micros(busy), p99: None }
    }

    fn reading(stats: &[(&str, Stat)], calls: &[(&'static str, u64)]) -> Reading {
        Reading {
            stats: stats.iter().map(|(n, s)| ((*n).to_owned(), *s)).collect(),
            calls: calls.iter().copied().collect(),
        }
    }

    /// A cell with samples at these seconds since its opening; the counters are 100 a second.
    fn cell(seconds: &[f64]) -> AtCell {
        let own = Own::default();
        let mut cell = AtCell::new(&own);
        for s in seconds {
            let n = (s * 100.0) as u64;
            let sample = RedisSample { net_input: n, commands: n, ..RedisSample::default() };
            cell.sample(cell.opened + Duration::from_secs_f64(*s), "r1", sample, &own, &BTreeMap::new());
        }
        cell
    }

    fn gaps(cell: &AtCell, closed: f64) -> Vec<(f64, f64, String)> {
        let all = cell.gaps(cell.opened, cell.opened + Duration::from_secs_f64(closed));
        all.into_iter().map(|g| (g.from.as_secs(), g.to.as_secs(), g.why)).collect()
    }

    #[test]
    fn a_series_of_a_sample_a_second_has_no_gap() {
        assert_eq!(gaps(&cell(&[0.01, 1.01, 2.02, 3.4]), 3.4), []);
    }

    #[test]
    fn a_hole_is_a_gap_with_its_reason() {
        let slow = gaps(&cell(&[0.0, 1.0, 4.0]), 4.0);
        assert_eq!(slow, [(1.0, 4.0, "it was not asked in time".into())]);
        let mut lost = cell(&[0.0, 1.0]);
        lost.missed("connection closed".into());
        lost.missed("refused".into());
        lost.missed("refused".into());
        assert_eq!(gaps(&lost, 5.0), [(1.0, 5.0, "connection closed".into())]);
        let mut never = cell(&[]);
        never.missed("refused".into());
        assert_eq!(gaps(&never, 2.0), [(0.0, 2.0, "refused".into())]);
    }

    #[test]
    fn a_restart_is_one_gap_and_counts_from_zero() {
        let mut c = cell(&[0.0, 1.0, 2.0]);
        c.missed("connection closed".into());
        c.base = Some(reading(&[("lpush", stat(50, 500))], &[("info", 3)]));
        let own = Own::default();
        let sample = RedisSample { net_input: 7, ..RedisSample::default() };
        let before = [("info", 9)].into();
        assert!(c.sample(c.opened + Duration::from_secs(3), "r2", sample, &own, &before));
        assert_eq!(gaps(&c, 3.0), [(2.0, 3.0, "connection closed; it was restarted".into())]);
        let (t0, closed) = (c.opened, c.opened + Duration::from_secs(3));
        let last = reading(&[("lpush", stat(4, 40)), ("info", stat(5, 50))], &[("info", 13)]);
        let series = c.told(t0, closed, Some(last), ResultSizes::default(), &own);
        assert_eq!(series.cuts, [RESTARTED]);
        assert_eq!(series.commands["lpush"], CommandCost { calls: 4, busy: Micros(40), p99: None });
        assert_eq!(series.commands["info"].calls, 1, "five less four of ours since");
        assert!(series.samples[3].is_anew && !series.samples[2].is_anew);
    }

    #[test]
    fn our_own_commands_are_left_out_and_paid_for() {
        let base = reading(&[("info", stat(10, 1_000)), ("get", stat(5, 50))], &[("info", 10)]);
        let last = reading(
            &[("info", stat(20, 2_000)), ("get", stat(8, 80)), ("llen", stat(4, 4)), ("ping", stat(1, 1))],
            &[("info", 18), ("llen", 4)],
        );
        let mut cost = SamplingCost::default();
        let all = costs(&base, &last, &mut cost);
        assert_eq!(all["info"], CommandCost { calls: 2, busy: Micros(200), p99: None });
        assert_eq!(all["get"], CommandCost { calls: 3, busy: Micros(30), p99: None });
        assert!(!all.contains_key("llen") && all.contains_key("ping"));
        assert_eq!(cost.busy, Micros(804));
    }

    #[test]
    fn counters_that_were_set_back_never_underflow() {
        let mut c = cell(&[0.0, 1.0]);
        c.base = Some(reading(&[("get", stat(100, 1_000))], &[]));
        let last = reading(&[("get", stat(3, 30))], &[]);
        let (t0, closed) = (c.opened, c.opened + Duration::from_secs(1));
        let series = c.told(t0, closed, Some(last), ResultSizes::default(), &Own::default());
        assert_eq!(
            (series.cuts.as_slice(), series.commands["get"].calls),
            ([RESET.to_owned()].as_slice(), 3)
        );
        let series = cell(&[]).told(t0, closed, None, ResultSizes::default(), &Own::default());
        assert_eq!(series.cuts, [NOT_AT_FIRST]);
    }
}
