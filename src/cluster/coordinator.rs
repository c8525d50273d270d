//! What to do next: a pure function of what has happened, without sockets, clocks or waits. The file is
//! long because the machine is one: every transition can be read beside the others.
//!
//! | state | waits for | deadline | then |
//! |---|---|---|---|
//! | `Gathering` | the workers expected, later at least one | as long as workers are waited for | the next cell, or the run ends: too few workers |
//! | `Resting` | the cool-down | it is one | the next cell, or done |
//! | `Arming` | the rig: the target idle, canaries before, the fault in place | 90 s, more after jobs that were given up | `Preparing`; or `Running`, where jobs may have been left over: users cancel those first, and the target must be idle after that |
//! | `Preparing` | Ready of every worker of the cell | 60 s + 0.5 s a user, and an account to look after | `Running` |
//! | `Running` | Through of every worker | the longest the cell can take, and a minute | `Disarming` |
//! | `Disarming` | the rig: the fault taken away, the last posts read | 120 s | `Settling` |
//! | `Settling` | the final frame of every worker and all before it | 120 s, 5 s once all final frames are there | the cell is closed, `Resting` |
//! | `Aborting` | GaveUp or a final frame of every worker that is left | 45 s | done, or the next cell |
//!
//! A cell belongs to the workers that were there when it was prepared, by name and epoch; nobody joins
//! it later, and what others say of it counts for nothing. A worker that is lost closes it as INVALID:
//! the others stop, and the next cell goes to those that are left. The same holds when the manager is
//! cut off from the plane, after which workers join anew. A cell that turns out INVALID may be queued
//! again behind the others ([`Coordinator::again`]).
//!
//! A missed deadline closes the cell as it is, with the reason, and ends the run. A rig that breaks
//! closes the cell, too; the run goes on with the next if the rig can be armed for it. Without a rig
//! there is neither `Arming` nor `Disarming`.
//!
//! Everything a worker says may come twice, late or in another order: what it has said already
//! changes nothing, and where it shows that it has not heard a command, the command is said again.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    members::{Members, Wanted},
    received::Received,
    rig::{self, Evidence, Order, Word},
};
use crate::{
    crew::{self, Member, Offset, Part, What},
    micros::Micros,
    plan::{Cell, Settings, Share},
    plane::{Command, Report, Sent},
    snapshot::{Job, Totals},
    timeline::JobOutcome,
};

/// How long frames may be late when all final ones are there.
const LATE: Micros = Micros(5_000_000);
/// How long those are waited for who were there before the manager was cut off: a cell on one of them,
/// because it was the quickest, would not be like the others.
const BACK: Micros = Micros(10_000_000);

/// How long users wait at the start after jobs were given up, where nobody sees whether the target still
/// works on them.
const REST: Micros = Micros(5_000_000);

/// What happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Time went by.
    Tick,
    /// A worker said something.
    Sent(Arc<Sent>),
    /// These workers held a lease at one look.
    Holders(BTreeSet<Member>),
    /// The plane, or the manager's lease on it, is lost: every worker stops by itself.
    Cut(String),
    /// It is there again; workers join anew.
    Back,
    /// The plane will never work again for this run, such as when another manager has it.
    Over(String),
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
    /// Something befell a worker or the plane.
    Told(crew::Event),
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
    /// T0 on the plane's clock, in Unix microseconds; 0 when it did not come to that.
    pub t0_unix: u64,
    /// Who took part.
    pub workers: Vec<Part>,
    /// What is missing; `None` when every frame of every worker arrived.
    pub missing: Option<String>,
    /// What the rig saw and did.
    pub evidence: Evidence,
    /// How many jobs had been given up before it, where nobody saw whether the target still worked on
    /// them.
    pub unwatched: u32,
}

/// What a coordinator is to carry out, and with whom.
#[derive(Debug, Clone)]
pub struct Task {
    /// The cells, in order.
    pub cells: Vec<Cell>,
    /// How users behave in them.
    pub settings: Settings,
    /// The workers it takes.
    pub wanted: Wanted,
    /// How far ahead T0 is set.
    pub lead: Micros,
    /// Whether a rig stands beside the cells.
    pub rigged: bool,
    /// Whether it sees when the target is idle.
    pub watched: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Gathering,
    Resting,
    Arming,
    Preparing,
    Running,
    Disarming,
    Settling,
    Aborting,
    Done,
}

/// A worker's part in the cell.
#[derive(Debug)]
struct Taking {
    member: Member,
    users: u32,
    offset: Offset,
    start_late: Option<Micros>,
    received: Received,
    /// Has said what this state waits for.
    heard: bool,
    /// Has said all there is to say.
    ended: bool,
    /// Why it did not stay.
    lost: Option<String>,
}

/// Carries a plan's cells through one after another.
#[derive(Debug)]
pub struct Coordinator {
    cells: Vec<Cell>,
    settings: Settings,
    lead: Micros,
    rigged: bool,
    watched: bool,
    members: Members,
    next: usize,
    state: State,
    deadline: Micros,
    /// Who carries out the cell: the place in the list is the number of the share.
    parts: Vec<Taking>,
    t0: Micros,
    evidence: Evidence,
    /// The cell that is being aborted is closed, and the next one may fare better.
    goes_on: bool,
    /// How many jobs were given up in the cell before.
    given_up: u32,
    /// Those, in a cell that began without anybody seeing what became of them.
    unwatched: u32,
    /// Jobs of a cell that did not come to its end may go on at the target.
    tidy: bool,
    /// In this cell they are looked after before the rig is armed.
    tidies_first: bool,
    /// Nobody can be told anything.
    is_cut: bool,
    /// Until when those are waited for who were there before it was cut off.
    back_by: Micros,
    why: Option<String>,
}

impl Coordinator {
    /// At the start: no worker is there yet.
    pub fn new(task: Task, now: Micros) -> Self {
        let Task { cells, settings, wanted, lead, rigged, watched } = task;
        let deadline = now + wanted.max_wait;
        Self {
            cells,
            settings,
            lead,
            rigged,
            watched,
            members: Members::new(wanted),
            next: 0,
            state: State::Gathering,
            deadline,
            parts: Vec::new(),
            t0: Micros::ZERO,
            evidence: Evidence::default(),
            goes_on: false,
            given_up: 0,
            unwatched: 0,
            tidy: false,
            tidies_first: false,
            is_cut: false,
            back_by: Micros::ZERO,
            why: None,
        }
    }

    /// The measurements of the running cell so far, one stretch a worker.
    pub fn so_far(&self) -> impl Iterator<Item = &Totals> {
        self.parts.iter().map(|p| p.received.sum())
    }

    /// Who is there: the workers that the next cell would go to.
    pub fn present(&self) -> impl Iterator<Item = &Member> {
        self.members.present()
    }

    /// Jobs of an interrupted cell may still go on at the target, nobody knows how many.
    pub fn beware(&mut self) {
        self.tidy = true;
        self.given_up = self.cells.iter().map(|c| c.users).max().unwrap_or(1);
    }

    /// Queues a cell that was closed, and in which users were let go or not, once more behind all others.
    pub fn again(&mut self, cell: &Cell, has_begun: bool) {
        let index = self.cells.iter().map(|c| c.index).max().unwrap_or(0).max(cell.index) + 1;
        self.cells.push(cell.again(index, has_begun));
    }

    /// Takes in an event and says what to do about it.
    pub fn on(&mut self, event: Event, now: Micros) -> Vec<Action> {
        if self.state == State::Done {
            return Vec::new();
        }
        match event {
            Event::Tick => self.on_tick(now),
            Event::Sent(sent) => self.on_sent(sent, now),
            Event::Holders(holders) => self.on_holders(&holders, now),
            Event::Cut(why) => self.on_cut(why, now),
            Event::Back => {
                self.is_cut = false;
                self.back_by = now + BACK;
                vec![self.told(None, What::Back, now)]
            }
            Event::Over(why) => {
                self.state = State::Done;
                let told = self.told(None, What::Cut { why: why.clone() }, now);
                vec![told, Action::Finish(Some(why))]
            }
            Event::Rig(word) => self.on_rig(word, now),
            Event::Stop(why) => self.on_stop(why, now),
        }
    }

    fn on_tick(&mut self, now: Micros) -> Vec<Action> {
        if now < self.deadline {
            return Vec::new();
        }
        match self.state {
            State::Gathering => {
                let why = self.members.shortage();
                let mut actions = vec![self.told(None, What::Short { why: why.clone() }, now)];
                self.why = Some(why);
                actions.extend(self.finish());
                actions
            }
            State::Resting => self.open(now),
            State::Aborting => self.gave_up(now),
            State::Arming => self.broken("the tap or Toxiproxy was not ready in time".into(), now),
            State::Disarming => self.broken("the fault could not be taken away in time".into(), now),
            State::Preparing => self.abort("not every user had a session in time".into(), now),
            State::Settling if self.parts.iter().all(|p| p.received.is_final()) => self.settled(now),
            State::Running | State::Settling => {
                let is_silent = |p: &&Taking| match self.state {
                    State::Settling => !p.received.is_final(),
                    _ => !p.heard,
                };
                let silent: Vec<&str> =
                    self.parts.iter().filter(is_silent).map(|p| p.member.name.as_str()).collect();
                let (n, of) = (silent.len(), self.parts.len());
                let why = format!("{n} of {of} workers gave no sign of life in time: {}", silent.join(", "));
                self.close_and_abort(why, now)
            }
            State::Done => Vec::new(),
        }
    }

    fn on_sent(&mut self, sent: Arc<Sent>, now: Micros) -> Vec<Action> {
        let Sent { from, report } = Arc::unwrap_or_clone(sent);
        let current = self.current();
        // Who is not counted on any more may say what it wants.
        let part = self.parts.iter().position(|p| p.member == from && p.lost.is_none());
        match (report, part) {
            (Report::Hello(hello), _) => self.on_hello(from, *hello, now),
            (Report::Draining, _) => {
                self.members.drain(&from);
                Vec::new()
            }
            (Report::Leaving, _) => self.on_gone(&from, None, now),
            (Report::Frame(frame), part) => {
                let is_ours = current == Some(frame.cell) && frame.epoch == from.epoch;
                match part.filter(|&p| is_ours && frame.worker as usize == p) {
                    Some(part) if self.is_open() => self.on_frame(part, frame, now),
                    // It had come to its end before it heard that the cell is given up.
                    Some(part) if self.state == State::Aborting && frame.is_final() => {
                        self.part_gave_up(part, now)
                    }
                    _ => self.on_late_frame(from, now),
                }
            }
            (Report::Ready { cell, offset }, Some(part)) if current == Some(cell) => {
                self.on_ready(part, offset, now)
            }
            (Report::Through { cell, start_late }, Some(part)) if current == Some(cell) => {
                self.on_through(part, start_late, now)
            }
            (Report::Merging { cell }, Some(_)) if current == Some(cell) => {
                let tell = self.rigged && self.state == State::Running;
                tell.then_some(Action::Rig(Order::Merging)).into_iter().collect()
            }
            (Report::Missed { cell, why }, Some(part)) if current == Some(cell) => match self.state {
                State::Aborting => self.part_gave_up(part, now),
                State::Preparing | State::Running => {
                    self.goes_on = true;
                    let why = format!("worker {from}: {why}");
                    let mut actions = self.close_and_abort(why, now);
                    actions.extend(self.part_gave_up(part, now));
                    actions
                }
                _ => Vec::new(),
            },
            (Report::GaveUp { cell, why }, Some(part)) if current == Some(cell) => match self.state {
                State::Aborting => self.part_gave_up(part, now),
                _ => {
                    let mut actions = match why {
                        Some(why) => self.abort(why, now),
                        // Nobody asked it to, and it has no reason that would hold for another cell.
                        None => {
                            self.goes_on = true;
                            self.close_and_abort(format!("worker {from} stopped"), now)
                        }
                    };
                    actions.extend(self.part_gave_up(part, now));
                    actions
                }
            },
            // It is still at a cell that is over: it has not heard so.
            (Report::Ready { cell, .. } | Report::Through { cell, .. }, _)
                if current != Some(cell) && self.members.knows(&from) =>
            {
                vec![Action::Send(Command::Abort { cell })]
            }
            // Late word of a cell that is over.
            _ => Vec::new(),
        }
    }

    fn on_hello(&mut self, from: Member, hello: crate::plane::Hello, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        if let Some(before) = self.members.other_life(&from) {
            let why = format!("it came back with epoch {}", from.epoch);
            actions.extend(self.on_gone(&before, Some(why), now));
        }
        if self.members.knows(&from) {
            return actions;
        }
        match self.members.take_in(from.clone(), &hello, now) {
            Ok(()) => {
                let what = What::Joined { host: hello.host, build: hello.build };
                actions.push(self.told(Some(from), what, now));
                actions.extend(self.maybe_open(now));
            }
            Err(why) => {
                actions.push(self.told(Some(from.clone()), What::Refused { why: why.clone() }, now));
                actions.push(Action::Send(Command::Refuse { member: from, why }));
            }
        }
        actions
    }

    fn on_holders(&mut self, holders: &BTreeSet<Member>, now: Micros) -> Vec<Action> {
        let mut actions = Vec::new();
        let missing = self.members.missing_from(holders, now);
        // All of them first: the next cell goes to none of them.
        for lost in &missing {
            self.members.remove(lost);
        }
        for lost in &missing {
            actions.extend(self.is_gone(lost, Some("its lease ran out".into()), now));
        }
        // Those who came while nobody could be told wait for this.
        actions.extend(self.maybe_open(now));
        actions
    }

    /// Whether no cell is to be opened yet, after the manager was cut off.
    fn is_waiting(&self, now: Micros) -> bool {
        self.is_cut || (!self.members.are_back() && now < self.back_by)
    }

    /// Begins with the next cell if it was workers that it waited for.
    fn maybe_open(&mut self, now: Micros) -> Vec<Action> {
        let is_time = self.state == State::Gathering && !self.is_waiting(now) && self.members.are_enough();
        if is_time { self.open(now) } else { Vec::new() }
    }

    /// A worker is there no more: it said so, or for that reason.
    fn on_gone(&mut self, member: &Member, why: Option<String>, now: Micros) -> Vec<Action> {
        if self.members.remove(member) { self.is_gone(member, why, now) } else { Vec::new() }
    }

    /// What comes of it that it is counted on no more.
    fn is_gone(&mut self, member: &Member, why: Option<String>, now: Micros) -> Vec<Action> {
        let what = match &why {
            Some(why) => What::Lost { why: why.clone() },
            None => What::Left,
        };
        let mut actions = vec![self.told(Some(member.clone()), what, now)];
        let Some(part) = self.parts.iter().position(|p| p.member == *member && p.lost.is_none()) else {
            return actions;
        };
        let why = why.unwrap_or_else(|| "it left".into());
        match self.state {
            // It has said all there was to say.
            State::Settling if self.parts[part].received.is_whole() => {}
            State::Arming | State::Preparing | State::Running | State::Disarming | State::Settling => {
                self.parts[part].lost = Some(why.clone());
                self.goes_on = true;
                actions.extend(self.close_and_abort(format!("worker {member} is lost: {why}"), now));
            }
            State::Aborting => {
                self.parts[part].lost = Some(why);
                actions.extend(self.all_gave_up(now));
            }
            State::Gathering | State::Resting | State::Done => {}
        }
        actions
    }

    fn on_cut(&mut self, why: String, now: Micros) -> Vec<Action> {
        let mut actions = vec![self.told(None, What::Cut { why: why.clone() }, now)];
        self.is_cut = true;
        self.members.clear();
        if self.state == State::Aborting {
            if !std::mem::take(&mut self.goes_on) {
                actions.extend(self.finish());
                return actions;
            }
            self.why = None;
            self.next += 1;
        } else if self.is_open() {
            for part in &mut self.parts {
                part.lost = Some("the manager was cut off".into());
            }
            actions.push(self.close(Some(format!("the manager was cut off: {why}"))));
            self.next += 1;
        }
        self.beware();
        self.parts.clear();
        actions.extend(self.rigged.then_some(Action::Rig(Order::Abandon)));
        actions.extend(self.gather(now));
        actions
    }

    fn on_ready(&mut self, part: usize, offset: Offset, now: Micros) -> Vec<Action> {
        let cell = self.cells[self.next].index;
        match self.state {
            State::Preparing => {
                self.parts[part].offset = offset;
                self.parts[part].heard = true;
                match (self.all_heard(), self.tidies_first) {
                    (false, _) => Vec::new(),
                    (true, true) => self.arm(now),
                    (true, false) => self.start(now),
                }
            }
            // It has not heard of the start.
            State::Running => vec![Action::Send(Command::Start { cell, at: self.t0 })],
            State::Aborting => vec![Action::Send(Command::Abort { cell })],
            _ => Vec::new(),
        }
    }

    /// Lets the users go, who all stand at the start.
    fn start(&mut self, now: Micros) -> Vec<Action> {
        self.unwatched = if self.watched { 0 } else { self.given_up };
        let rest = if self.unwatched > 0 { REST } else { Micros::ZERO };
        let (cell, at) = (self.cells[self.next].index, now + self.lead + rest);
        self.t0 = at;
        self.given_up = 0;
        self.enter(State::Running, at + self.longest());
        let mut actions = vec![Action::Send(Command::Start { cell, at }), Action::Started(at)];
        actions.extend(self.rigged.then_some(Action::Rig(Order::Start { at })));
        actions
    }

    fn on_through(&mut self, part: usize, start_late: Option<Micros>, now: Micros) -> Vec<Action> {
        let cell = self.cells[self.next].index;
        match self.state {
            State::Running => {
                self.parts[part].start_late = start_late;
                self.parts[part].heard = true;
                if !self.all_heard() {
                    return Vec::new();
                }
                if self.rigged {
                    self.enter(State::Disarming, now + Micros(120_000_000));
                    return vec![Action::Rig(Order::Disarm)];
                }
                self.settle(now)
            }
            State::Settling => vec![Action::Send(Command::Settle { cell })],
            State::Aborting => vec![Action::Send(Command::Abort { cell })],
            _ => Vec::new(),
        }
    }

    fn on_frame(&mut self, part: usize, frame: crate::snapshot::Frame, now: Micros) -> Vec<Action> {
        let taking = &mut self.parts[part];
        taking.ended |= frame.is_final();
        taking.received.take_in(frame);
        match self.state {
            State::Aborting if taking.received.is_final() => self.part_gave_up(part, now),
            State::Settling => self.maybe_settled(now),
            _ => Vec::new(),
        }
    }

    fn on_late_frame(&mut self, from: Member, now: Micros) -> Vec<Action> {
        // Those of an aborted cell are of those we count on, and expected.
        if self.members.knows(&from) {
            return Vec::new();
        }
        vec![self.told(Some(from), What::LateFrames { frames: 1 }, now)]
    }

    /// Closes the cell when nothing of it is missing; when only some frames are, they get a little time.
    fn maybe_settled(&mut self, now: Micros) -> Vec<Action> {
        if self.parts.iter().all(|p| p.received.is_whole()) {
            return self.settled(now);
        }
        if self.parts.iter().all(|p| p.received.is_final()) {
            self.deadline = self.deadline.min(now + LATE);
        }
        Vec::new()
    }

    fn settled(&mut self, now: Micros) -> Vec<Action> {
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
        actions
    }

    fn on_rig(&mut self, word: Word, now: Micros) -> Vec<Action> {
        match (word, self.state) {
            (Word::Armed, State::Arming) if self.members.are_none() && self.parts.is_empty() => {
                let mut actions = vec![Action::Rig(Order::Abandon)];
                actions.extend(self.gather(now));
                actions
            }
            (Word::Armed, State::Arming) if self.parts.is_empty() => self.prepare(now),
            (Word::Armed, State::Arming) => self.start(now),
            (Word::Disarmed(evidence), State::Disarming) => {
                self.evidence = *evidence;
                self.settle(now)
            }
            (Word::Broken { why, evidence }, state)
                if !matches!(state, State::Aborting | State::Gathering) =>
            {
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
            State::Gathering | State::Resting | State::Arming => {
                self.why = Some(why);
                self.finish()
            }
            _ => self.abort(why, now),
        }
    }

    /// Waits for workers.
    fn gather(&mut self, now: Micros) -> Vec<Action> {
        if self.next == self.cells.len() {
            // Whether there is a next one is known when the last one has been judged.
            self.enter(State::Resting, now);
            return Vec::new();
        }
        self.parts.clear();
        self.enter(State::Gathering, now + self.members.max_wait());
        Vec::new()
    }

    fn open(&mut self, now: Micros) -> Vec<Action> {
        let Some(cell) = self.cells.get(self.next).cloned() else {
            return self.finish();
        };
        if self.is_waiting(now) || self.members.are_none() {
            return self.gather(now);
        }
        self.members.make_do();
        self.members.begin();
        self.parts.clear();
        self.t0 = Micros::ZERO;
        self.evidence = Evidence::default();
        self.unwatched = 0;
        // What is left over is cancelled before the target is waited for: that is work for it, too.
        self.tidies_first = self.rigged && self.tidy;
        let mut actions = vec![Action::Opened(cell)];
        actions.extend(match self.rigged && !self.tidy {
            true => self.arm(now),
            false => self.prepare(now),
        });
        actions
    }

    fn arm(&mut self, now: Micros) -> Vec<Action> {
        let idle = Micros::from(rig::idle_within(self.given_up));
        self.enter(State::Arming, now + idle + Micros(30_000_000));
        let cell = self.cells[self.next].clone();
        vec![Action::Rig(Order::Arm { cell, given_up: self.given_up })]
    }

    fn prepare(&mut self, now: Micros) -> Vec<Action> {
        let cell = self.cells[self.next].clone();
        let members: Vec<Member> = self.members.present().cloned().collect();
        let workers = members.len() as u32;
        let taking = |(number, member): (usize, &Member)| Taking {
            member: member.clone(),
            users: Share::of(&cell, number as u32, workers).users,
            offset: Offset::default(),
            start_late: None,
            received: Received::default(),
            heard: false,
            ended: false,
            lost: None,
        };
        self.parts = members.iter().enumerate().map(taking).collect();
        // Each account that may have something left over is looked at, by whomever.
        let all = self.cells.iter().map(|c| c.users).max().filter(|_| self.tidy).unwrap_or(0);
        let users = u64::from(cell.users) + u64::from(all);
        self.enter(State::Preparing, now + Micros(60_000_000 + 500_000 * users));
        vec![Action::Send(Command::Prepare { cell, members, tidy: self.tidy })]
    }

    fn settle(&mut self, now: Micros) -> Vec<Action> {
        self.enter(State::Settling, now + Micros(120_000_000));
        let mut actions = vec![Action::Send(Command::Settle { cell: self.cells[self.next].index })];
        // A final frame may have overtaken what was said before it.
        actions.extend(self.maybe_settled(now));
        actions
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
        self.tidy = true;
        self.enter(State::Aborting, now + Micros(45_000_000));
        let cell = self.current().unwrap_or(0);
        let mut actions = vec![Action::Send(Command::Abort { cell })];
        actions.extend(self.rigged.then_some(Action::Rig(Order::Abandon)));
        actions.extend(self.all_gave_up(now));
        actions
    }

    fn part_gave_up(&mut self, part: usize, now: Micros) -> Vec<Action> {
        self.parts[part].heard = true;
        self.all_gave_up(now)
    }

    /// Goes on once nobody is left to wait for.
    fn all_gave_up(&mut self, now: Micros) -> Vec<Action> {
        let is_done = |p: &Taking| p.heard || p.ended || p.lost.is_some();
        if self.parts.iter().all(is_done) { self.gave_up(now) } else { Vec::new() }
    }

    fn gave_up(&mut self, now: Micros) -> Vec<Action> {
        if !std::mem::take(&mut self.goes_on) {
            return self.finish();
        }
        self.why = None;
        self.next += 1;
        self.parts.clear();
        // The cell is judged first, and may have to be made again.
        self.enter(State::Resting, now);
        if self.next < self.cells.len() { self.open(now) } else { Vec::new() }
    }

    fn finish(&mut self) -> Vec<Action> {
        self.state = State::Done;
        vec![Action::Send(Command::End), Action::Finish(self.why.take())]
    }

    fn close(&mut self, missing: Option<String>) -> Action {
        let mut totals = Totals::default();
        let mut workers = Vec::new();
        let mut missing = missing;
        for taking in &mut self.parts {
            let received = std::mem::take(&mut taking.received);
            if missing.is_none() {
                missing = received.trouble(&taking.member);
            }
            workers.push(Part {
                name: taking.member.name.clone(),
                epoch: taking.member.epoch,
                users: taking.users,
                frames: received.frames(),
                gaps: received.gaps(),
                repeated: received.repeated(),
                offset: taking.offset,
                start_late: taking.start_late,
                health: received.sum().health.clone(),
                lost: taking.lost.clone(),
            });
            totals.merge(received.into_sum());
        }
        let is_left = |job: &Job| job.cancel.is_some() || matches!(job.outcome, JobOutcome::TimedOut { .. });
        self.given_up = totals.jobs.values().filter(|j| is_left(j)).count() as u32;
        if missing.is_some() {
            self.beware();
        } else {
            // What was left over may go on.
            self.tidy = !(totals.target.errors.is_empty() && totals.target.unfinished.is_empty());
        }
        let cell = self.cells[self.next].clone();
        let evidence = std::mem::take(&mut self.evidence);
        let (t0_unix, unwatched) = (self.t0.0, self.unwatched);
        Action::Close(Box::new(Closed { cell, totals, t0_unix, workers, missing, evidence, unwatched }))
    }

    fn told(&self, who: Option<Member>, what: What, now: Micros) -> Action {
        let cell = self.is_open().then(|| self.current()).flatten();
        Action::Told(crew::Event { at: now.0, who, cell, what })
    }

    /// Whether a cell is under way that is not closed yet.
    fn is_open(&self) -> bool {
        use State::{Disarming, Preparing, Running, Settling};
        matches!(self.state, Preparing | Running | Disarming | Settling)
            || (self.state == State::Arming && !self.parts.is_empty())
            || (self.state == State::Aborting && !self.goes_on)
    }

    fn current(&self) -> Option<u32> {
        self.cells.get(self.next).map(|c| c.index)
    }

    fn enter(&mut self, state: State, deadline: Micros) {
        self.state = state;
        self.deadline = deadline;
        for part in &mut self.parts {
            part.heard = false;
        }
    }

    fn all_heard(&self) -> bool {
        self.parts.iter().all(|p| p.heard)
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
    use crate::{
        plan::Plan,
        plane::Hello,
        plane::message::trial::hello,
        posts::Book,
        scenario::Matrix,
        snapshot::{Frame, FrameBody},
    };

    fn coordinator(workers: u32) -> Coordinator {
        with_rig(workers, false)
    }

    fn with_rig(workers: u32, rigged: bool) -> Coordinator {
        let mut scenario = Matrix::runbook().get("S6").unwrap().clone();
        scenario.repetitions = 2;
        let task = Task {
            cells: Plan::cells(1, &[scenario], false),
            settings: Settings::default(),
            wanted: Wanted::any(workers),
            lead: LEAD,
            rigged,
            watched: rigged,
        };
        Coordinator::new(task, Micros::ZERO)
    }

    const LEAD: Micros = Micros(50_000);

    fn member(worker: u32) -> Member {
        Member { name: format!("w{worker:02}"), epoch: u64::from(worker) + 2 }
    }

    fn said(worker: u32, report: Report) -> Event {
        Event::Sent(Arc::new(Sent { from: member(worker), report }))
    }

    /// Lets so many workers join; what comes of the last one.
    fn joined(c: &mut Coordinator, workers: u32) -> Vec<Action> {
        (0..workers).map(|w| c.on(said(w, Report::Hello(Box::new(hello()))), Micros::ZERO)).last().unwrap()
    }

    fn broken(why: &str) -> Event {
        let mut posts = Book::default();
        posts.trouble(why.into());
        let evidence = Box::new(Evidence { posts: Some(posts), ..Evidence::default() });
        Event::Rig(Word::Broken { why: why.into(), evidence })
    }

    fn ready(worker: u32, cell: u32) -> Event {
        said(worker, Report::Ready { cell, offset: Offset::default() })
    }

    fn through(worker: u32, cell: u32) -> Event {
        said(worker, Report::Through { cell, start_late: None })
    }

    fn frame(worker: u32, cell: u32, seq: u64, body: FrameBody) -> Event {
        said(worker, Report::Frame(Frame { cell, worker, epoch: member(worker).epoch, seq, body }))
    }

    fn gave_up(worker: u32, cell: u32) -> Event {
        said(worker, Report::GaveUp { cell, why: None })
    }

    fn holders(workers: impl IntoIterator<Item = u32>) -> Event {
        Event::Holders(workers.into_iter().map(member).collect())
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
        let opened = joined(&mut c, 2);
        assert!(matches!(&opened[2], Action::Send(Command::Prepare { members, .. }) if members.len() == 2));
        assert!(c.on(ready(0, 0), Micros(1)).is_empty(), "both must be ready");
        assert!(c.on(ready(0, 0), Micros(1)).is_empty(), "one worker twice is not two");
        let started = c.on(ready(1, 0), Micros(1));
        assert_eq!(started[0], Action::Send(Command::Start { cell: 0, at: Micros(1) + LEAD }));
        c.on(through(1, 0), Micros(5));
        assert_eq!(c.on(through(0, 0), Micros(5)), [Action::Send(Command::Settle { cell: 0 })]);
        for w in 0..2 {
            c.on(frame(w, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(6));
        }
        c.on(frame(0, 0, 2, FrameBody::Final(delta(5).fingerprint())), Micros(7));
        let actions = c.on(frame(1, 0, 2, FrameBody::Final(delta(5).fingerprint())), Micros(8));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!((closed.totals.progress.submitted, closed.missing.as_deref()), (10, None));
        assert!(matches!(&actions[1], Action::Opened(cell) if cell.index == 1));
    }

    #[test]
    fn who_drains_finishes_its_cell_and_gets_no_other() {
        let mut c = coordinator(2);
        joined(&mut c, 2);
        assert!(c.on(said(1, Report::Draining), Micros(1)).is_empty());
        to_settling(&mut c, 2, 0);
        c.on(frame(1, 0, 1, FrameBody::Final(Totals::default().fingerprint())), Micros(3));
        let actions = c.on(frame(0, 0, 1, FrameBody::Final(Totals::default().fingerprint())), Micros(3));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!((closed.workers.len(), closed.missing.as_deref()), (2, None));
        let Action::Send(Command::Prepare { members, .. }) = &actions[2] else { panic!("{actions:?}") };
        assert_eq!(members[..], [member(0)]);
        let left = c.on(said(1, Report::Leaving), Micros(4));
        assert!(matches!(&left[..], [Action::Told(event)] if event.what == What::Left), "{left:?}");
    }

    #[test]
    fn the_rig_is_armed_before_the_users_and_disarmed_before_the_cell_settles() {
        let mut c = with_rig(1, true);
        let opened = joined(&mut c, 1);
        assert!(matches!(&opened[2], Action::Rig(Order::Arm { cell, .. }) if cell.index == 0), "{opened:?}");
        let armed = c.on(Event::Rig(Word::Armed), Micros(1));
        assert!(matches!(&armed[..], [Action::Send(Command::Prepare { .. })]));
        let started = c.on(ready(0, 0), Micros(2));
        assert_eq!(started[2], Action::Rig(Order::Start { at: Micros(2) + LEAD }));
        assert_eq!(c.on(through(0, 0), Micros(5)), [Action::Rig(Order::Disarm)]);
        let evidence = Evidence { posts: Some(Book::default()), ..Evidence::default() };
        let settles = c.on(Event::Rig(Word::Disarmed(Box::new(evidence.clone()))), Micros(6));
        assert_eq!(settles, [Action::Send(Command::Settle { cell: 0 })]);
        let actions = c.on(frame(0, 0, 1, FrameBody::Final(Totals::default().fingerprint())), Micros(7));
        assert!(matches!(&actions[0], Action::Close(closed) if closed.evidence == evidence));
    }

    #[test]
    fn a_rig_that_breaks_closes_the_cell_and_the_next_one_is_tried() {
        let mut c = with_rig(1, true);
        joined(&mut c, 1);
        c.on(Event::Rig(Word::Armed), Micros(1));
        c.on(ready(0, 0), Micros(2));
        let actions = c.on(broken("the tap is gone"), Micros(3));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(closed.missing.as_deref(), Some("the tap is gone"));
        let posts = closed.evidence.posts.clone().unwrap().close(&Totals::default());
        assert_eq!(posts.troubles, ["the tap is gone"]);
        assert_eq!(actions[1..], [Action::Send(Command::Abort { cell: 0 }), Action::Rig(Order::Abandon)]);
        assert!(c.on(broken("again"), Micros(4)).is_empty());
        let next = c.on(gave_up(0, 0), Micros(5));
        // What may be left over is looked after first, then the target must be idle.
        assert!(matches!(&next[1], Action::Send(Command::Prepare { tidy: true, .. })), "{next:?}");
        let next = c.on(ready(0, 1), Micros(5));
        assert!(
            matches!(&next[..], [Action::Rig(Order::Arm { cell, given_up: 10 })] if cell.index == 1),
            "{next:?}"
        );
        assert_eq!(c.on(Event::Rig(Word::Armed), Micros(5)).len(), 3, "workers, rig and record are told");
        let mut c = {
            let mut c = with_rig(1, true);
            c.beware();
            joined(&mut c, 1);
            c.on(ready(0, 0), Micros(5));
            c
        };
        let ended = c.on(broken("still gone"), Micros(6));
        assert_eq!(ended[1], Action::Finish(Some("still gone".into())));
    }

    #[test]
    fn a_rig_that_cannot_be_armed_ends_the_run_at_once() {
        let mut c = with_rig(1, true);
        joined(&mut c, 1);
        let actions = c.on(broken("no tap"), Micros(1));
        assert_eq!(actions[1], Action::Finish(Some("no tap".into())));
    }

    #[test]
    fn a_lost_frame_is_noticed_and_a_double_one_counts_once() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        to_settling(&mut c, 1, 0);
        for _ in 0..2 {
            c.on(frame(0, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(3));
        }
        assert!(c.on(frame(0, 0, 3, FrameBody::Final(delta(9).fingerprint())), Micros(4)).is_empty());
        let actions = c.on(Event::Tick, Micros(4) + LATE);
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!(closed.totals.progress.submitted, 5);
        assert_eq!(closed.missing.as_deref(), Some("1 of 3 frames of worker w00 (epoch 2) are missing"));
    }

    #[test]
    fn deltas_that_are_not_the_totals_are_noticed() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        to_settling(&mut c, 1, 0);
        c.on(frame(0, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(3));
        let actions = c.on(frame(0, 0, 2, FrameBody::Final(delta(6).fingerprint())), Micros(4));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert!(closed.missing.as_deref().unwrap().contains("do not add up"));
    }

    #[test]
    fn every_state_has_a_deadline() {
        let life =
            [Event::Rig(Word::Armed), ready(0, 0), through(0, 0), Event::Rig(Word::Disarmed(Box::default()))];
        for steps in 0..=life.len() {
            let mut c = with_rig(1, true);
            joined(&mut c, 1);
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
    fn frames_and_words_in_another_order_make_no_difference() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        c.on(ready(0, 0), Micros(1));
        // The final frame overtakes the delta before it and the word that the load is through.
        assert!(c.on(frame(0, 0, 2, FrameBody::Final(delta(5).fingerprint())), Micros(2)).is_empty());
        assert_eq!(c.on(through(0, 0), Micros(3)), [Action::Send(Command::Settle { cell: 0 })]);
        let actions = c.on(frame(0, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(4));
        let Action::Close(closed) = &actions[0] else { panic!("{actions:?}") };
        assert_eq!((closed.missing.as_deref(), closed.workers[0].frames), (None, 2));
    }

    #[test]
    fn a_worker_that_has_not_heard_is_told_again() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        let start = c.on(ready(0, 0), Micros(1))[0].clone();
        assert_eq!(c.on(ready(0, 0), Micros(9)), [start]);
        let settle = c.on(through(0, 0), Micros(10));
        assert_eq!(c.on(through(0, 0), Micros(11)), settle);
    }

    #[test]
    fn a_lost_worker_makes_the_cell_invalid_and_the_next_goes_to_those_that_are_left() {
        let mut c = coordinator(3);
        joined(&mut c, 3);
        c.on(holders(0..3), Micros(1));
        (0..3).for_each(|w| drop(c.on(ready(w, 0), Micros(1))));
        let actions = c.on(holders([0, 2]), Micros(2));
        assert!(matches!(&actions[0], Action::Told(e) if e.who == Some(member(1)) && e.cell == Some(0)));
        let Action::Close(closed) = &actions[1] else { panic!("{actions:?}") };
        assert_eq!(closed.missing.as_deref(), Some("worker w01 (epoch 3) is lost: its lease ran out"));
        assert_eq!(closed.workers[1].lost.as_deref(), Some("its lease ran out"));
        assert_eq!(actions[2], Action::Send(Command::Abort { cell: 0 }));
        c.again(&closed.cell, true);
        let late = c.on(frame(1, 0, 1, FrameBody::Delta(Box::new(delta(5)))), Micros(3));
        assert!(
            matches!(&late[..], [Action::Told(e)] if e.what == What::LateFrames { frames: 1 }),
            "{late:?}"
        );
        assert!(c.on(gave_up(0, 0), Micros(3)).is_empty(), "the other one is still at it");
        let actions = c.on(gave_up(2, 0), Micros(4));
        let Some(Action::Send(Command::Prepare { cell, members, tidy: true })) = actions.last() else {
            panic!("{actions:?}")
        };
        assert_eq!((cell.index, members), (1, &vec![member(0), member(2)]));
    }

    #[test]
    fn several_who_are_lost_at_once_cost_one_cell() {
        let mut c = coordinator(2);
        joined(&mut c, 2);
        // One that came later, and goes with the others.
        c.on(said(2, Report::Hello(Box::new(hello()))), Micros(1));
        c.on(holders(0..3), Micros(1));
        let actions = c.on(holders([]), Micros(2));
        let closed = actions.iter().filter(|a| matches!(a, Action::Close(_))).count();
        let opened = actions.iter().filter(|a| matches!(a, Action::Opened(_))).count();
        assert_eq!((closed, opened), (1, 0), "{actions:?}");
        assert_eq!(c.state, State::Gathering);
    }

    #[test]
    fn after_jobs_that_nobody_sees_end_users_rest_and_the_cell_says_so() {
        for watched in [false, true] {
            let mut c = coordinator(2);
            c.watched = watched;
            c.beware();
            joined(&mut c, 2);
            (0..2).for_each(|w| drop(c.on(ready(w, 0), Micros(1))));
            let (t0, rest) = (c.t0, if watched { Micros::ZERO } else { REST });
            assert_eq!(t0, Micros(1) + LEAD + rest);
            let Action::Close(closed) = c.close(None) else { panic!() };
            assert_eq!(closed.unwatched > 0, !watched);
        }
    }

    #[test]
    fn who_has_ended_is_not_waited_for_when_the_cell_is_given_up() {
        for is_first in [true, false] {
            let mut c = coordinator(2);
            joined(&mut c, 2);
            c.on(holders(0..2), Micros(1));
            to_settling(&mut c, 2, 0);
            let last = frame(0, 0, 1, FrameBody::Final(Totals::default().fingerprint()));
            let next = if is_first {
                c.on(last, Micros(3));
                c.on(holders([0]), Micros(4))
            } else {
                c.on(holders([0]), Micros(3));
                c.on(last, Micros(4))
            };
            let Some(Action::Send(Command::Prepare { members, .. })) = next.last() else {
                panic!("{next:?}")
            };
            assert_eq!(members[..], [member(0)]);
        }
    }

    #[test]
    fn who_is_still_at_a_cell_that_is_over_is_told_so() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        to_settling(&mut c, 1, 0);
        c.on(frame(0, 0, 1, FrameBody::Final(Totals::default().fingerprint())), Micros(3));
        assert_eq!(c.on(ready(0, 0), Micros(4)), [Action::Send(Command::Abort { cell: 0 })]);
        assert_eq!(c.on(through(0, 0), Micros(4)), [Action::Send(Command::Abort { cell: 0 })]);
        assert!(c.on(ready(5, 0), Micros(4)).is_empty(), "it is not one of ours");
    }

    #[test]
    fn the_last_worker_to_be_lost_leaves_the_run_waiting_for_another() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        c.on(holders([0]), Micros(1));
        c.on(ready(0, 0), Micros(1));
        let actions = c.on(holders([]), Micros(2));
        let Action::Close(closed) = &actions[1] else { panic!("{actions:?}") };
        c.again(&closed.cell.clone(), true);
        assert!(c.on(Event::Tick, Micros(3)).is_empty());
        assert_eq!(c.state, State::Gathering);
        let mut other = c;
        let actions = other.on(said(7, Report::Hello(Box::new(hello()))), Micros(4));
        assert!(matches!(actions.last(), Some(Action::Send(Command::Prepare { .. }))), "{actions:?}");
    }

    #[test]
    fn too_few_workers_end_the_run_with_their_names() {
        let mut c = coordinator(2);
        joined(&mut c, 1);
        let refused = Hello { trouble: Some("no password".into()), ..hello() };
        c.on(said(5, Report::Hello(Box::new(refused))), Micros(1));
        let actions = c.on(Event::Tick, Micros(60_000_000));
        let Some(Action::Finish(Some(why))) = actions.last() else { panic!("{actions:?}") };
        assert_eq!(
            why,
            "1 of 2 workers came within 1m 00s: w00 on host; 1 is missing; refused: w05 (no password)"
        );
    }

    #[test]
    fn after_a_cut_those_who_were_there_are_waited_for_but_not_for_ever() {
        for all_come in [true, false] {
            let mut c = coordinator(2);
            joined(&mut c, 2);
            (0..2).for_each(|w| drop(c.on(ready(w, 0), Micros(1))));
            let actions = c.on(Event::Cut("the plane is away".into()), Micros(2));
            let Action::Close(closed) = &actions[1] else { panic!("{actions:?}") };
            c.again(&closed.cell.clone(), true);
            c.on(Event::Back, Micros(3));
            let comes = |c: &mut Coordinator, worker: u32, now: Micros| {
                let from = Member { epoch: 9, ..member(worker) };
                let report = Report::Hello(Box::new(hello()));
                c.on(Event::Sent(Arc::new(Sent { from, report })), now)
            };
            let opens = |actions: &[Action]| {
                actions.iter().any(|a| matches!(a, Action::Send(Command::Prepare { .. })))
            };
            assert!(!opens(&comes(&mut c, 0, Micros(4))), "not on the quickest alone");
            let holders: BTreeSet<Member> = [Member { epoch: 9, ..member(0) }].into();
            if all_come {
                assert!(opens(&comes(&mut c, 1, Micros(5))));
            } else {
                assert!(!opens(&c.on(Event::Holders(holders.clone()), Micros(6))));
                assert!(opens(&c.on(Event::Holders(holders), Micros(3) + BACK)));
            }
        }
    }

    #[test]
    fn a_manager_that_is_cut_off_closes_the_cell_and_waits_for_workers_anew() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        c.on(ready(0, 0), Micros(1));
        let actions = c.on(Event::Cut("the plane is away".into()), Micros(2));
        let Action::Close(closed) = &actions[1] else { panic!("{actions:?}") };
        assert!(closed.missing.as_deref().unwrap().contains("cut off"));
        assert_eq!(c.state, State::Gathering);
        let again = Member { epoch: 9, ..member(0) };
        let hello = Report::Hello(Box::new(hello()));
        let joined = c.on(Event::Sent(Arc::new(Sent { from: again.clone(), report: hello })), Micros(3));
        assert!(matches!(&joined[..], [Action::Told(_)]), "nobody can be told of a cell: {joined:?}");
        c.on(Event::Back, Micros(4));
        let actions = c.on(Event::Holders([again.clone()].into()), Micros(5));
        let Some(Action::Send(Command::Prepare { members, .. })) = actions.last() else {
            panic!("{actions:?}")
        };
        assert_eq!(members, &[again]);
    }

    #[test]
    fn a_stop_aborts_the_cell_and_ends_the_run() {
        let mut c = coordinator(1);
        joined(&mut c, 1);
        c.on(ready(0, 0), Micros(1));
        assert_eq!(c.on(Event::Stop("SIGINT".into()), Micros(2)), [Action::Send(Command::Abort { cell: 0 })]);
        let actions = c.on(gave_up(0, 0), Micros(3));
        assert_eq!(actions[1], Action::Finish(Some("SIGINT".into())));
    }
}
