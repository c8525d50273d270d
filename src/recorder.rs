//! Takes down what the users of one load thread do; only accumulates, never answers.
//!
//! One recorder a thread, so its lock is never waited for. Once a second the worker takes what is
//! new as a stretch ([`Totals`]).

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::time::{ClockId, clock_gettime};
use tokio::time::Instant;

use crate::{
    histogram::Tally,
    micros::Micros,
    series::Series,
    snapshot::{ErrorKey, ErrorStats, Job, JobKey, Phase, RequestKey, RequestStats, TargetView, Totals},
    target::{Endpoint, http::Exchange},
    timeline::{Clocked, JobOutcome, JobState},
};

const PHASES: [Phase; 3] = [Phase::Setup, Phase::Load, Phase::Settle];

/// One request, done with.
#[derive(Debug)]
pub struct Sample<'a> {
    /// When in the cell.
    pub phase: Phase,
    /// Where to.
    pub endpoint: Endpoint,
    /// When, and what went over the wire.
    pub exchange: Exchange,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Bytes of its body.
    pub body_bytes: u64,
    /// What was wrong with it; `None` for a success.
    pub error: Option<&'a str>,
}

/// Accumulates the measurements of one cell on one thread.
#[derive(Debug, Default)]
pub struct Recorder {
    /// The start of the clock, and the same in Unix microseconds.
    t0: OnceLock<(Instant, u64)>,
    new: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    /// By phase, then endpoint; far cheaper to find than by name.
    requests: [[Requests; Endpoint::ALL.len()]; PHASES.len()],
    /// The second of the last success, and the successes that ended in it.
    second: (u64, Tally),
    totals: Totals,
}

/// The requests of one kind; successes are the many, and counted the fast way.
#[derive(Debug, Default)]
struct Requests {
    ok: Tally,
    first_byte: Tally,
    /// All but the successes' times.
    stats: RequestStats,
}

impl Requests {
    fn finish(self) -> RequestStats {
        RequestStats { ok: self.ok.finish(), first_byte: self.first_byte.finish(), ..self.stats }
    }
}

impl Book {
    /// Counts a success in its second of the series.
    fn succeeded(&mut self, ended: Micros, took: Micros) {
        let number = Series::number(ended);
        if number != self.second.0 {
            self.close_second();
            self.second.0 = number;
        }
        self.second.1.record(took);
    }

    fn close_second(&mut self) {
        let (number, tally) = &mut self.second;
        if tally.count() > 0 {
            let second = self.totals.series.0.entry(*number).or_default();
            second.ok.merge(&std::mem::take(tally).finish());
        }
    }
}

impl Recorder {
    /// Starts the clock: offsets count from here. `unix` is the same moment in Unix microseconds.
    /// Only the first call counts.
    pub fn start(&self, t0: Instant, unix: u64) {
        let _ = self.t0.set((t0, unix));
    }

    /// A moment in Unix microseconds: as far from T0 as its offset is, so by the clock that T0 was
    /// given on; by this host's own before that was known.
    pub fn unix(&self, at: Instant) -> u64 {
        let micros = |d: Duration| Micros::from(d).0;
        match self.t0.get() {
            Some((t0, unix)) if at >= *t0 => unix + micros(at - *t0),
            Some((t0, unix)) => unix.saturating_sub(micros(*t0 - at)),
            None => unix_micros().saturating_sub(micros(at.elapsed())),
        }
    }

    /// The offset of a moment from T0; zero for earlier ones and before the start.
    pub fn offset(&self, at: Instant) -> Micros {
        self.t0.get().map_or(Micros::ZERO, |(t0, _)| at.saturating_duration_since(*t0).into())
    }

    /// A request's times as offsets.
    pub fn clocked(&self, exchange: &Exchange) -> Clocked {
        Clocked { sent: self.offset(exchange.sent), done: self.offset(exchange.done) }
    }

    /// Takes down a request.
    pub fn request(&self, s: &Sample<'_>) {
        let took = Micros::from(s.exchange.done - s.exchange.sent);
        let ended = self.offset(s.exchange.done);
        let mut book = self.book();
        let Requests { ok, first_byte, stats } = &mut book.requests[s.phase as usize][s.endpoint as usize];
        if let Some(status) = s.status {
            *stats.statuses.entry(status).or_default() += 1;
        }
        stats.sent_bytes += s.exchange.sent_bytes;
        stats.wire_bytes += s.exchange.wire_bytes;
        stats.body_bytes += s.body_bytes;
        stats.connects += u64::from(s.exchange.connects);
        match s.error {
            None => {
                ok.record(took);
                first_byte.record((s.exchange.first_byte - s.exchange.sent).into());
            }
            Some(_) => stats.failed.record(took),
        }
        if s.phase == Phase::Load {
            let second = book.totals.series.at(ended);
            second.body_bytes += s.body_bytes;
            match s.error {
                None => book.succeeded(ended, took),
                Some(_) => second.failed.record(took),
            }
        }
        if let Some(error) = s.error {
            let key = ErrorKey {
                phase: s.phase,
                method: s.endpoint.method().to_string(),
                name: s.endpoint.path().to_owned(),
                error: error.to_owned(),
            };
            // Not this host's clock: those of two hosts may be seconds apart.
            let at = self.unix(s.exchange.done);
            let one = ErrorStats { count: 1, first: at, last: at };
            book.totals.errors.entry(key).and_modify(|all| all.merge(&one)).or_insert(one);
        }
    }

    /// Takes down that a submit is being sent: from now on the ledger expects an outcome.
    pub fn submitting(&self, at: Instant) {
        let at = self.offset(at);
        let mut book = self.book();
        book.totals.progress.submitted += 1;
        book.totals.series.at(at).jobs_change += 1;
    }

    /// Takes down a change of a job's state, for the live counts.
    pub fn state_changed(&self, from: Option<JobState>, to: JobState) {
        let runs = |s| i64::from(s == JobState::Running);
        self.book().totals.progress.running += runs(to) - from.map_or(0, runs);
    }

    /// Takes down how a job ended.
    pub fn job(&self, key: JobKey, job: Job) {
        let mut book = self.book();
        let progress = &mut book.totals.progress;
        if job.outcome == JobOutcome::Fetched {
            progress.done += 1;
        } else {
            progress.failed += 1;
            progress.running -= i64::from(job.timeline.state() == Some(JobState::Running));
        }
        book.totals.series.at(job.timeline.ended).jobs_change -= 1;
        book.totals.jobs.insert(key, job);
    }

    /// Takes down how late a planned wait ended.
    pub fn lag(&self, late: Micros) {
        self.book().totals.health.lag.record(late);
    }

    /// Takes down where a user's time in a stretch of the cell went.
    pub fn time(&self, user: Micros, in_flight: Micros, waiting: Micros, checking: Micros) {
        let health = &mut self.book().totals.health;
        health.user_time += user;
        health.in_flight += in_flight;
        health.waiting += waiting;
        health.checking += checking;
    }

    /// Takes down the thread's CPU time and the time it could have used.
    pub fn cpu(&self, used: Micros, capacity: Micros) {
        let health = &mut self.book().totals.health;
        health.cpu += used;
        health.capacity += capacity;
    }

    /// Takes down the number of open sockets.
    pub fn sockets(&self, peak: u64) {
        let health = &mut self.book().totals.health;
        health.sockets = health.sockets.max(peak);
    }

    /// Takes down what the target's own list says.
    pub fn target(&self, view: TargetView) {
        let part = Totals { target: view, ..Totals::default() };
        self.book().totals.merge(part);
    }

    /// What is new since the last call.
    pub fn take(&self) -> Totals {
        let mut book = std::mem::take(&mut *self.book());
        book.close_second();
        let Book { requests, mut totals, .. } = book;
        let mut named = BTreeMap::new();
        for (phase, row) in PHASES.into_iter().zip(requests) {
            for (endpoint, stats) in Endpoint::ALL.into_iter().zip(row.map(Requests::finish)) {
                if stats.count() > 0 {
                    let key = RequestKey {
                        phase,
                        method: endpoint.method().to_string(),
                        name: endpoint.path().to_owned(),
                    };
                    named.insert(key, stats);
                }
            }
        }
        totals.requests = named;
        totals
    }

    fn book(&self) -> MutexGuard<'_, Book> {
        // Every change is complete before the lock is released, a panic elsewhere or not.
        self.new.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now, in microseconds since 1970 by the system's clock.
pub fn unix_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64)
}

/// CPU time this thread has used.
pub fn thread_cpu() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), u32::try_from(time.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(recorder: &Recorder, sent_ms: u64, took_ms: u64) -> Exchange {
        let t0 = recorder.t0.get().unwrap().0;
        let sent = t0 + Duration::from_millis(sent_ms);
        let done = sent + Duration::from_millis(took_ms);
        Exchange { sent, first_byte: sent, done, sent_bytes: 10, wire_bytes: 20, connects: 1 }
    }

    #[test]
    fn a_request_is_counted_once_where_it_belongs() {
        let recorder = Recorder::default();
        recorder.start(Instant::now(), 0);
        for (phase, error) in [(Phase::Setup, None), (Phase::Load, None), (Phase::Load, Some("boom"))] {
            recorder.request(&Sample {
                phase,
                endpoint: Endpoint::Poll,
                exchange: exchange(&recorder, 1_500, 20),
                status: Some(200),
                body_bytes: 5,
                error,
            });
        }
        let totals = recorder.take();
        let load: Vec<_> = totals.phase(Phase::Load).collect();
        assert_eq!(load.len(), 1);
        assert_eq!((load[0].1.ok.count(), load[0].1.failed.count()), (1, 1));
        assert_eq!(load[0].1.ok.max(), Micros(20_000));
        let second = &totals.series.0[&1];
        assert_eq!((second.ok.count(), second.failed.count()), (1, 1));
        assert_eq!(totals.errors.values().next().unwrap().count, 1);
        assert_eq!(recorder.take(), Totals::default(), "taken is taken");
    }

    #[test]
    fn an_error_is_dated_by_the_clock_that_t0_was_given_on() {
        let recorder = Recorder::default();
        let failed = |phase, at: Instant| {
            let exchange =
                Exchange { sent: at, first_byte: at, done: at, sent_bytes: 0, wire_bytes: 0, connects: 0 };
            let (endpoint, error) = (Endpoint::Poll, Some("boom"));
            recorder.request(&Sample { phase, endpoint, exchange, status: None, body_bytes: 0, error });
        };
        let dated = || {
            let errors = recorder.take().errors;
            errors.into_iter().map(|(key, e)| (key.phase, e.first, e.last)).collect::<Vec<_>>()
        };
        let began = Instant::now();
        failed(Phase::Setup, began);
        let setup = dated();
        assert!(unix_micros().abs_diff(setup[0].1) < 60_000_000, "{setup:?}");
        // The plane's clock is an hour ahead of ours; a moment before T0 is on it, too.
        let t0 = began + Duration::from_secs(5);
        recorder.start(t0, 3_600_000_000);
        failed(Phase::Load, t0 + Duration::from_secs(2));
        failed(Phase::Load, t0 + Duration::from_secs(1));
        assert_eq!(dated(), [(Phase::Load, 3_601_000_000, 3_602_000_000)]);
        assert_eq!(recorder.unix(t0 - Duration::from_secs(1)), 3_599_000_000);
    }

    #[test]
    fn cpu_time_goes_on() {
        let before = thread_cpu();
        let mut x = 1u64;
        while thread_cpu() == before {
            x = std::hint::black_box(x.wrapping_mul(31));
        }
        assert!(thread_cpu() - before < Duration::from_secs(10));
    }
}
