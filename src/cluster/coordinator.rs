//! What to do next: a pure function of what has happened, without sockets, clocks or waits.
//!
//! | state | waits for | deadline | then |
//! |---|---|---|---|
//! | `Resting` | the cool-down | it is one | `Preparing` the next cell, or done |
//! | `Arming` | the rig: the target idle, canaries before, the fault in place | 90 s, more after jobs that were given up | `Preparing` |
//! | `Preparing` | Ready of every worker | 60 s + 0.5 s a user | `Running` |
//! | `Running` | Through of every worker | the longest the cell can take, and a minute | `Disarming` |
//! | `Disarming` | the rig: the fault taken away, the last posts read | 120 s | `Settling` |
//! | `Settling` | the final frame of every worker | 120 s | the cell is closed, `Resting` |
//! | `Aborting` | GaveUp or a final frame of every worker | 45 s | done, or `Arming` the next cell |
//!
//! A cell that turns out INVALID may be queued again behind the others ([`Coordinator::again`]).
//!
//! A missed deadline closes the cell as it is, with the reason, and ends the run. A rig that breaks
//! closes the cell, too; the run goes on with the next if the rig can be armed for it. Without a rig
//! there is neither `Arming` nor `Disarming`.
//!
//! The file is long because the machine is one: every transition can be read beside the others.

use std::collections::{BTreeMap, BTreeSet};

use super::rig::{self, Evidence, Order, Word};
use crate::{
    micros::Micros,
    plan::{Cell, Settings},
    plane::{Command, Report},
    snapshot::{FrameBody, Job, Totals},
    timeline::JobOutcome,
};

/// How far ahead of now a cell's T0 is set.
const LEAD: Micros = Micros(50_000);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time went by.
    Tick,
    /// A worker said something.
    Report(Box<Report>),
    /// The rig said something.
    Rig(Word),
    /// Somebody wants the run to end.
    Stop(String),
}

/// What to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Tell the workers.
    Send(Command),
    /// Tell the rig.
    Rig(Order),
    /// A cell begins.
    Opened(Cell),
    /// The users of the cell start at T0 on the plane's clock.
    Started(Micros),
    /// A cell ended.
    Close(Box<Closed>),
    /// The run is over; the reason when it ends before its plan.
    Finish(Option<String>),
}

/// A cell that ended, with everything its workers sent.
#[derive(Debug, Clone, PartialEq)]
pub struct Closed {
    /// The cell.
    pub cell: Cell,
    /// The sum of all deltas.
    pub totals: Totals,
    /// T0 in Unix microseconds, of the first worker's clock.
    pub t0_unix: u64,
    /// Frames of each worker.
    pub workers: BTreeMap<u32, u64>,
    /// What is missing; `None` when every frame of every worker arrived.
    pub missing: Option<String>,
    /// What the rig saw and did.
    pub evidence: Evidence,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Resting,
    Arming,
    Preparing,
    Running,
    Disarming,
    Settling,
    Aborting,
    Done,
}

/// The frames of one worker in one cell.
#[derive(Debug, Default)]
struct Received {
    seqs: BTreeSet<u64>,
    sum: Totals,
    last: Option<(u64, Totals)>,
}

/// Carries a plan's cells through one after another.
#[derive(Debug)]
pub struct Coordinator {
    cells: Vec<Cell>,
    settings: Settings,
    workers: u32,
    rigged: bool,
    next: usize,
    state: State,
    deadline: Micros,
    heard: BTreeSet<u32>,
    received: BTreeMap<u32, Received>,
    t0_unix: u64,
    evidence: Evidence,
    /// The cell that is being aborted is closed, and the next one may fare better.
    goes_on: bool,
    /// How many jobs were given up in the cell before.
    given_up: u32,
    why: Option<String>,
}

impl Coordinator {
    /// A run of these cells on that many workers, which are there already, with or without a rig.
    pub fn new(cells: Vec<Cell>, settings: Settings, workers: u32, rigged: bool) -> Self {
        Self {
            cells,
            settings,
            workers,
            rigged,
            next: 0,
            state: State::Resting,
            deadline: Micros::ZERO,
            heard: BTreeSet::new(),
            received: BTreeMap::new(),
            t0_unix: 0,
            evidence: Evidence::default(),
            goes_on: false,
            given_up: 0,
            why: None,
        }
    }

    /// The measurements of the running cell so far.
    pub fn so_far(&self) -> impl Iterator<Item = &Totals> {
        self.received.values().map(|r| &r.sum)
    }

    /// Jobs of an interrupted cell may still go on at the target, nobody knows how many.
    pub fn beware(&mut self) {
        self.given_up = self.cells.iter().map(|c| c.users).max().unwrap_or(1);
    }

    /// Queues a cell that was closed once more, behind all others.
    pub fn again(&mut self, cell: &Cell) {
        let index = self.cells.iter().map(|c| c.index).max().unwrap_or(0).max(cell.index) + 1;
        self.cells.push(Cell { index, attempt: cell.attempt + 1, ..cell.clone() });
    }

    /// Takes in an event and says what to do about it.
    pub fn on(&mut self, event: Event, now: Micros) -> Vec<Action> {
        match event {
            Event::Tick => self.on_tick(now),
            Event::Report(report) => self.on_report(*report, now),
            Event::Rig(word) => self.on_rig(word, now),
            Event::Stop(why) => self.on_stop(why, now),
        }
    }

    fn on_tick(&mut self, now: Micros) -> Vec<Action> {
        if now < self.deadline || self.state == State::Done {
            return Vec::new();
        }
        match self.state {
            State::Resting => self.open(now),
            State::Aborting => self.finish(),
            State::Arming => self.broken("the tap or Toxiproxy was not ready in time".into(), now),
            State::Disarming => self.broken("the fault could not be taken away in time".into(), now),
            State::Preparing => self.abort("not every user had a session in time".into(), now),
            State::Running | State::Settling => {
                let is_silent = |w: &u32| match self.state {
                    State::Settling => self.received.get(w).is_none_or(|r| r.last.is_none()),
                    _ => !self.heard.contains(w),
                };
                let silent = (0..self.workers).filter(is_silent).count();
                let why = format!("{silent} of {} workers gave no sign of life in time", self.workers);
                self.close_and_abort(why, now)
            }
            State::Done => Vec::new(),
        }
    }

    fn on_report(&mut self, report: Report, now: Micros) -> Vec<Action> {
        let current = self.cells.get(self.next).map(|c| c.index);
        match report {
            Report::Ready { worker, cell } if self.state == State::Preparing && Some(cell) == current => {
                if !self.heard_all(worker) {
                    return Vec::new();
                }
                let at = now + LEAD;
                self.enter(State::Running, at + self.longest());
                let mut actions = vec![Action::Send(Command::Start { cell, at }), Action::Started(at)];
                actions.extend(self.rigged.then_some(Action::Rig(Order::Start { at })));
                actions
            }
            Report::Through { worker, cell, t0_unix }
                if self.state == State::Running && Some(cell) == current =>
            {
                if worker == 0 || self.t0_unix == 0 {
                    self.t0_unix = t0_unix;
                }
                if !self.heard_all(worker) {
                    return Vec::new();
                }
                if self.rigged {
                    self.enter(State::Disarming, now + Micros(120_000_000));
                    return vec![Action::Rig(Order::Disarm)];
                }
                self.settle(now)
            }
            Report::Merging { cell, .. } if self.state == State::Running && Some(cell) == current => {
                self.rigged.then_some(Action::Rig(Order::Merging)).into_iter().collect()
            }
            Report::Frame(frame) if Some(frame.cell) == current => {
                let received = self.received.entry(frame.worker).or_default();
                if !received.seqs.insert(frame.seq) {
                    return Vec::new();
                }
                match frame.body {
                    FrameBody::Delta(delta) => received.sum.merge(*delta),
                    FrameBody::Final(totals) => received.last = Some((frame.seq, *totals)),
                }
                let ended = self.received.values().filter(|r| r.last.is_some()).count();
                if self.state == State::Settling && ended == self.workers as usize {
                    let closed = self.close(None);
                    let why = target_gone(&closed);
                    let mut actions = vec![closed];
                    self.next += 1;
                    match why {
                        Some(why) => {
                            self.why = Some(why);
                            actions.extend(self.finish());
                        }
                        None => {
                            // Whether there is a next one is known when this one has been judged.
                            let is_last = self.next == self.cells.len();
                            let rest = if is_last { Micros::ZERO } else { self.settings.cool_down };
                            self.enter(State::Resting, now + rest);
                            if !is_last {
                                actions.extend(self.on_tick(now));
                            }
                        }
                    }
                    return actions;
                }
                if self.state == State::Aborting && self.received[&frame.worker].last.is_some() {
                    return self.gave_up(frame.worker, now);
                }
                Vec::new()
            }
            Report::GaveUp { worker, cell, why } if Some(cell) == current => match (self.state, why) {
                (State::Aborting, _) => self.gave_up(worker, now),
                (State::Done, _) => Vec::new(),
                (_, why) => {
                    let mut actions =
                        self.abort(why.unwrap_or_else(|| format!("worker {worker} stopped")), now);
                    actions.extend(self.gave_up(worker, now));
                    actions
                }
            },
            // Late word of a cell that is over.
            _ => Vec::new(),
        }
    }

    fn on_rig(&mut self, word: Word, now: Micros) -> Vec<Action> {
        match (word, self.state) {
            (Word::Armed, State::Arming) => self.prepare(now),
            (Word::Disarmed(evidence), State::Disarming) => {
                self.evidence = *evidence;
                self.settle(now)
            }
            (Word::Broken { why, evidence }, state) if state != State::Aborting && state != State::Done => {
                self.evidence = *evidence;
                self.broken(why, now)
            }
            // Late word about a cell that was given up.
            _ => Vec::new(),
        }
    }

    fn on_stop(&mut self, why: String, now: Micros) -> Vec<Action> {
        match self.state {
            State::Aborting | State::Done => {
                if std::mem::take(&mut self.goes_on) {
                    self.why = Some(why);
                }
                Vec::new()
            }
            State::Resting | State::Arming => {
                self.why = Some(why);
                self.finish()
            }
            _ => self.abort(why, now),
        }
    }

    fn open(&mut self, now: Micros) -> Vec<Action> {
        let Some(cell) = self.cells.get(self.next).cloned() else {
            return self.finish();
        };
        self.received.clear();
        self.t0_unix = 0;
        self.evidence = Evidence::default();
        let mut actions = vec![Action::Opened(cell.clone())];
        if self.rigged {
            let idle = Micros::from(rig::idle_within(self.given_up));
            self.enter(State::Arming, now + idle + Micros(30_000_000));
            let given_up = std::mem::take(&mut self.given_up);
            actions.push(Action::Rig(Order::Arm { cell, given_up }));
        } else {
            actions.extend(self.prepare(now));
        }
        actions
    }

    fn prepare(&mut self, now: Micros) -> Vec<Action> {
        let cell = self.cells[self.next].clone();
        self.enter(State::Preparing, now + Micros(60_000_000 + 500_000 * u64::from(cell.users)));
        vec![Action::Send(Command::Prepare { cell, workers: self.workers })]
    }

    fn settle(&mut self, now: Micros) -> Vec<Action> {
        self.enter(State::Settling, now + Micros(120_000_000));
        vec![Action::Send(Command::Settle { cell: self.cells[self.next].index })]
    }

    /// The rig is lost, and with it the cell. Whether it is there for the next one shows when it is
    /// armed.
    fn broken(&mut self, why: String, now: Micros) -> Vec<Action> {
        match self.state {
            // No worker has heard of the cell yet.
            State::Resting | State::Arming => {
                self.why = Some(why);
                self.finish()
            }
            _ => {
                self.goes_on = true;
                self.close_and_abort(why, now)
            }
        }
    }

    /// Closes the running cell with what there is of it, and stops its load.
    fn close_and_abort(&mut self, why: String, now: Micros) -> Vec<Action> {
        let mut actions = vec![self.close(Some(why.clone()))];
        actions.extend(self.abort(why, now));
        actions
    }

    /// Gives up the running cell; its measurements are dropped.
    fn abort(&mut self, why: String, now: Micros) -> Vec<Action> {
        self.why = Some(why);
        self.enter(State::Aborting, now + Micros(45_000_000));
        let cell = self.cells.get(self.next).map_or(0, |c| c.index);
        let mut actions = vec![Action::Send(Command::Abort { cell })];
        actions.extend(self.rigged.then_some(Action::Rig(Order::Abandon)));
        actions
    }

    fn gave_up(&mut self, worker: u32, now: Micros) -> Vec<Action> {
        if !self.heard_all(worker) {
            return Vec::new();
        }
        if !std::mem::take(&mut self.goes_on) {
            return self.finish();
        }
        self.why = None;
        self.next += 1;
        self.open(now)
    }

    fn finish(&mut self) -> Vec<Action> {
        self.state = State::Done;
        vec![Action::Send(Command::End), Action::Finish(self.why.take())]
    }

    fn close(&mut self, missing: Option<String>) -> Action {
        let mut totals = Totals::default();
        let mut workers = BTreeMap::new();
        let mut gaps = missing;
        for (worker, received) in std::mem::take(&mut self.received) {
            workers.insert(worker, received.seqs.len() as u64);
            if gaps.is_none() {
                gaps = gap(worker, &received);
            }
            totals.merge(received.sum);
        }
        let is_left = |job: &Job| job.cancel.is_some() || matches!(job.outcome, JobOutcome::TimedOut { .. });
        self.given_up = totals.jobs.values().filter(|j| is_left(j)).count() as u32;
        if gaps.is_some() {
            self.beware();
        }
        let cell = self.cells[self.next].clone();
        let (t0_unix, evidence) = (self.t0_unix, std::mem::take(&mut self.evidence));
        Action::Close(Box::new(Closed { cell, totals, t0_unix, workers, missing: gaps, evidence }))
    }

    fn enter(&mut self, state: State, deadline: Micros) {
        self.state = state;
        self.deadline = deadline;
        self.heard.clear();
    }

    fn heard_all(&mut self, worker: u32) -> bool {
        self.heard.insert(worker);
        self.heard.len() == self.workers as usize
    }

    /// The longest that users can be at work: their last job may begin at the end of the run time.
    fn longest(&self) -> Micros {
        let cell = &self.cells[self.next];
        let s = self.settings.clone().within(cell);
        // Beside the polling: requests that each take our patience, and pauses between tries.
        let around = Micros(s.patience.0.saturating_mul(8) + s.poll_interval.0.saturating_mul(4));
        let job = s.job_timeout + around;
        let jobs = match s.run_time {
            Some(run_time) => run_time + job,
            None => Micros(job.0.saturating_mul(u64::from(s.jobs_per_user))),
        };
        let spawning = s.spawn_rate.map_or(0.0, |rate| f64::from(cell.users) / rate);
        jobs + Micros((spawning * 1e6) as u64) + Micros(60_000_000)
    }
}

/// What is wrong with the frames of a worker that sent its final one.
fn gap(worker: u32, received: &Received) -> Option<String> {
    let Some((last, totals)) = &received.last else {
        return Some(format!("worker {worker} sent no final frame"));
    };
    let lost = *last - received.seqs.len() as u64;
    if lost > 0 {
        return Some(format!("{lost} of {last} frames of worker {worker} are missing"));
    }
    (received.sum != *totals).then(|| format!("the deltas of worker {worker} do not add up to its totals"))
}

/// Why there is no sense in another cell: the target does not answer any more.
fn target_gone(closed: &Action) -> Option<String> {
    let Action::Close(closed) = closed else {
        return None;
    };
    let target = &closed.totals.target;
    let error = target.errors.first()?;
    (closed.totals.progress.done == 0 && target.accounts_read == 0)
        .then(|| format!("the target does not answer any more: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{plan::Plan, posts::Book, scenario::Matrix, snapshot::Frame};

    fn coordinator(workers: u32) -> Coordinator {
        with_rig(workers, false)
    }

    fn with_rig(workers: u32, rigged: bool) -> Coordinator {
        let mut scenario = Matrix::runbook().get("S6").unwrap().clone();
        scenario.repetitions = 2;
        Coordinator::new(Plan::cells(1, &[scenario], false), Settings::default(), workers, rigged)
    }

    fn broken(why: &str) -> Event {
        let mut posts = Book::default();
        posts.trouble(why.into());
        let evidence = Box::new(Evidence { posts: Some(posts), ..Evidence::default() });
        Event::Rig(Word::Broken { why: why.into(), evidence })
    }

    fn ready(worker: u32, cell: u32) -> Event {
        Event::Report(Box::new(Report::Ready { worker, cell }))
    }

    fn through(worker: u32, cell: u32) -> Event {
        Event::Report(Box::new(Report::Through { worker, cell, t0_unix: 9 }))
    }

    fn frame(worker: u32, cell: u32, seq: u64, body: FrameBody) -> Event {
        Event::Report(Box::new(Report::Frame(Frame { cell, worker, epoch: 1, seq, body })))
    }

    fn delta(submitted: u64) -> Totals {
        let mut t = Totals::default();
        t.progress.submitted = submitted;
        t.progress.done = submitted;
        t
    }

    /// Brings a cell to where only final frames are missing.
    fn to_settling(c: &mut Coordinator, workers: u32, cell: u32) {
        for w in 0..workers {
            c.on(ready(w, cell), Micros(1));
        }
        for w in 0..workers {
            c.on(through(w, cell), Micros(2));
        }
        assert_eq!(c.state, State::Settling);
    }

    #[test]
    fn a_plan_is_carried_out_cell_by_cell() {
        let mut c = coordinator(2);
        let opened = c.on(Event::Tick, Micros::ZERO);
        assert!(matches!(&opened[1], Action::Send(Command::Prepare { workers: 2, .. })));
        assert!(c.on(ready(0, 0), Micros(1)).is_empty(), "both must be ready");
        assert!(c.on(ready(0, 0), Micros(1)).is_empty(), "one worker twice is not two");
        let started = c.on(ready(1, 0), Micros(1));
        assert_eq!(started[0], Action::Send(Command::Start { cell: 0, at: Micros(1) + LEAD }));
        c.on(through(1, 0), Micros(5));
        assert_eq!(c.on(through(0, 0), Micros(5)), [Action::Send(Command::Settle { cell: 0 })]);
        for w in 0..2 {
            c.on(frame(w, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(6));
        }
        c.on(frame(0, 0, 2, FrameBody::Final(Box::new(delta(5)))), Micros(7));
        let actions = c.on(frame(1, 0, 2, FrameBody::Final(Box::new(delta(5)))), Micros(8));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!((closed.totals.progress.submitted, closed.missing.as_deref()), (10, None));
        assert!(matches!(&actions[1], Action::Opened(cell) if cell.index == 1));
    }

    #[test]
    fn the_rig_is_armed_before_the_users_and_disarmed_before_the_cell_settles() {
        let mut c = with_rig(1, true);
        let opened = c.on(Event::Tick, Micros::ZERO);
        assert!(matches!(&opened[1], Action::Rig(Order::Arm { cell, .. }) if cell.index == 0), "{opened:?}");
        let armed = c.on(Event::Rig(Word::Armed), Micros(1));
        assert!(matches!(&armed[..], [Action::Send(Command::Prepare { .. })]));
        let started = c.on(ready(0, 0), Micros(2));
        assert_eq!(started[2], Action::Rig(Order::Start { at: Micros(2) + LEAD }));
        assert_eq!(c.on(through(0, 0), Micros(5)), [Action::Rig(Order::Disarm)]);
        let evidence = Evidence { posts: Some(Book::default()), ..Evidence::default() };
        let settles = c.on(Event::Rig(Word::Disarmed(Box::new(evidence.clone()))), Micros(6));
        assert_eq!(settles, [Action::Send(Command::Settle { cell: 0 })]);
        let actions = c.on(frame(0, 0, 1, FrameBody::Final(Box::default())), Micros(7));
        assert!(matches!(&actions[0], Action::Close(closed) if closed.evidence == evidence));
    }

    #[test]
    fn a_rig_that_breaks_closes_the_cell_and_the_next_one_is_tried() {
        let mut c = with_rig(1, true);
        c.on(Event::Tick, Micros::ZERO);
        c.on(Event::Rig(Word::Armed), Micros(1));
        c.on(ready(0, 0), Micros(2));
        let actions = c.on(broken("the tap is gone"), Micros(3));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(closed.missing.as_deref(), Some("the tap is gone"));
        let posts = closed.evidence.posts.clone().unwrap().close(&Totals::default());
        assert_eq!(posts.troubles, ["the tap is gone"]);
        assert_eq!(actions[1..], [Action::Send(Command::Abort { cell: 0 }), Action::Rig(Order::Abandon)]);
        assert!(c.on(broken("again"), Micros(4)).is_empty());
        let gave_up = Event::Report(Box::new(Report::GaveUp { worker: 0, cell: 0, why: None }));
        let next = c.on(gave_up, Micros(5));
        assert!(
            matches!(&next[1], Action::Rig(Order::Arm { cell, given_up: 10 }) if cell.index == 1),
            "{next:?}"
        );
        let ended = c.on(broken("still gone"), Micros(6));
        assert_eq!(ended[1], Action::Finish(Some("still gone".into())));
    }

    #[test]
    fn a_rig_that_cannot_be_armed_ends_the_run_at_once() {
        let mut c = with_rig(1, true);
        c.on(Event::Tick, Micros::ZERO);
        let actions = c.on(broken("no tap"), Micros(1));
        assert_eq!(actions[1], Action::Finish(Some("no tap".into())));
    }

    #[test]
    fn a_lost_frame_is_noticed_and_a_double_one_counts_once() {
        let mut c = coordinator(1);
        c.on(Event::Tick, Micros::ZERO);
        to_settling(&mut c, 1, 0);
        for _ in 0..2 {
            c.on(frame(0, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(3));
        }
        let actions = c.on(frame(0, 0, 3, FrameBody::Final(Box::new(delta(9)))), Micros(4));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(closed.totals.progress.submitted, 5);
        assert_eq!(closed.missing.as_deref(), Some("1 of 3 frames of worker 0 are missing"));
    }

    #[test]
    fn deltas_that_are_not_the_totals_are_noticed() {
        let mut c = coordinator(1);
        c.on(Event::Tick, Micros::ZERO);
        to_settling(&mut c, 1, 0);
        c.on(frame(0, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(3));
        let actions = c.on(frame(0, 0, 2, FrameBody::Final(Box::new(delta(6)))), Micros(4));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert!(closed.missing.as_deref().unwrap().contains("do not add up"));
    }

    #[test]
    fn every_state_has_a_deadline() {
        let life =
            [Event::Rig(Word::Armed), ready(0, 0), through(0, 0), Event::Rig(Word::Disarmed(Box::default()))];
        for steps in 0..=life.len() {
            let mut c = with_rig(1, true);
            c.on(Event::Tick, Micros::ZERO);
            for event in &life[..steps] {
                c.on(event.clone(), Micros(1));
            }
            let mut now = Micros(10);
            let mut finished = false;
            for _ in 0..5 {
                now += Micros(10_000_000_000);
                finished |= c.on(Event::Tick, now).iter().any(|a| matches!(a, Action::Finish(Some(_))));
            }
            assert!(finished, "after {steps} steps");
        }
    }

    #[test]
    fn a_stop_aborts_the_cell_and_ends_the_run() {
        let mut c = coordinator(1);
        c.on(Event::Tick, Micros::ZERO);
        c.on(ready(0, 0), Micros(1));
        assert_eq!(c.on(Event::Stop("SIGINT".into()), Micros(2)), [Action::Send(Command::Abort { cell: 0 })]);
        let gave_up = Event::Report(Box::new(Report::GaveUp { worker: 0, cell: 0, why: None }));
        let actions = c.on(gave_up, Micros(3));
        assert_eq!(actions[1], Action::Finish(Some("SIGINT".into())));
    }
}
