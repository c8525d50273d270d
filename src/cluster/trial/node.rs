//! A worker, as `worker` and `plane::worker_end` are. It is long because what a worker does is told in
//! one place, each step beside the one before.

use std::collections::{BTreeSet, VecDeque};

use super::{
    plane::TTL,
    world::{Happening, World, commanded, ms, s},
};
use crate::{
    crew::{Member, Offset},
    micros::Micros,
    plan::{Cell, Share},
    plane::{Command, Hello, MANAGER, Report, Sent, message::trial::hello},
    snapshot::{Frame, FrameBody, Job, JobKey, Totals},
    timeline::JobOutcome,
};

/// How late users may be let go where others were let go in time.
const LATE: Micros = Micros(20_000);

/// Something that happens to a worker.
#[derive(Debug)]
pub(super) enum Stir {
    Join,
    /// The oldest word goes out, if the plane takes it.
    Out,
    Renew,
    /// The answer to a renewal: whether it is held, and who has the manager's lease for how long.
    Renewed {
        asked: Micros,
        answer: Option<(bool, Option<(u64, Micros)>)>,
    },
    RunsOut,
    Command(Command),
    Asked {
        drains: bool,
    },
    Frame(u32),
    Again(u32),
    Sessions(u32),
    User(u32, u32),
    JobEnds(u32, u32),
    /// All users of the cell came to their end.
    Driven(u32),
}

/// A worker's process and the host it runs on.
pub(super) struct Node {
    fits: bool,
    /// By how much its reading of the plane's clock is wrong.
    off: i64,
    pub(super) is_dead: bool,
    pub(super) stopped_until: Micros,
    pub(super) cut_until: Micros,
    pub(super) deaf_until: Micros,
    pub(super) no_session: bool,
    pub(super) slow: Micros,
    /// Of the process and its joining: what was meant for another life does not reach this one.
    pub(super) life_number: u64,
    life: Option<Life>,
    last: Option<Member>,
    goes: Option<Goes>,
}

/// Why it takes no more part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goes {
    Drains,
    Stops,
    Refused,
    Ended,
}

struct Life {
    member: Member,
    permit: Micros,
    own: Micros,
    manager: (Option<u64>, Option<Micros>),
    outbox: VecDeque<Report>,
    is_sending: bool,
    work: Option<Work>,
    done: BTreeSet<u32>,
}

struct Work {
    share: Share,
    of: usize,
    began: Began,
    said_ready: bool,
    said_merging: bool,
    said_through: bool,
    settling: bool,
    stopped: bool,
    /// It is stopped because the run is lost to it.
    lost: bool,
    failure: Option<String>,
    in_flight: BTreeSet<u32>,
    ended: u32,
    seq: u64,
    new: Totals,
    sum: Totals,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Began {
    NotYet,
    Yes(Micros),
    Missed,
}

impl Node {
    pub(super) fn new(fits: bool, off: i64) -> Self {
        Self {
            fits,
            off,
            is_dead: true,
            stopped_until: Micros::ZERO,
            cut_until: Micros::ZERO,
            deaf_until: Micros::ZERO,
            no_session: false,
            slow: Micros::ZERO,
            life_number: 0,
            life: None,
            last: None,
            goes: None,
        }
    }

    pub(super) fn begin(&mut self) {
        self.kill();
        self.is_dead = false;
        self.goes = None;
    }

    pub(super) fn kill(&mut self) {
        self.last = self.member().cloned().or(self.last.take());
        self.life_number += 1;
        self.life = None;
        self.is_dead = true;
        self.stopped_until = Micros::ZERO;
    }

    pub(super) fn member(&self) -> Option<&Member> {
        self.life.as_ref().map(|l| &l.member)
    }

    pub(super) fn last_member(&self) -> Option<&Member> {
        self.last.as_ref()
    }

    /// Its share, if it may submit at this moment or after it was stopped, as far as it knows.
    pub(super) fn may_load(&self, now: Micros) -> Option<&Share> {
        let life = self.life.as_ref().filter(|l| now < l.permit)?;
        let work = life.work.as_ref()?;
        let goes_on = !work.stopped && work.ended < work.share.users;
        (matches!(work.began, Began::Yes(_)) && goes_on).then_some(&work.share)
    }

    /// Its share, if it submits now.
    pub(super) fn loads(&self, now: Micros) -> Option<&Share> {
        let share = self.may_load(now).filter(|_| !self.is_dead && now >= self.stopped_until)?;
        let work = self.life.as_ref()?.work.as_ref()?;
        matches!(work.began, Began::Yes(at) if at <= now).then_some(share)
    }
}

impl World {
    fn life(&mut self, node: usize) -> Option<&mut Life> {
        self.nodes[node].life.as_mut()
    }

    fn work(&mut self, node: usize) -> Option<&mut Work> {
        self.life(node)?.work.as_mut()
    }

    /// Its work in that cell.
    fn work_in(&mut self, node: usize, cell: u32) -> Option<&mut Work> {
        self.work(node).filter(|w| w.share.cell.index == cell)
    }

    pub(super) fn on_stir(&mut self, node: usize, stir: Stir) {
        match stir {
            Stir::Join => self.join(node),
            Stir::Out => self.out(node),
            Stir::Renew => {
                let (asked, life) = (self.now, self.nodes[node].life_number);
                let way = self.way();
                self.after(way, Happening::Renewal { node, life, asked });
            }
            Stir::Renewed { asked, answer } => self.renewed_of(node, asked, answer),
            Stir::RunsOut => {
                let now = self.now;
                if self.life(node).is_some_and(|l| l.permit <= now) {
                    self.lost(node, "its lease ran out");
                }
            }
            Stir::Command(command) => self.obey(node, command),
            Stir::Asked { drains } => self.asked(node, drains),
            Stir::Frame(cell) => {
                if self.work_in(node, cell).is_some() {
                    self.send_frame(node);
                    self.stir(node, s(1), Stir::Frame(cell));
                }
            }
            Stir::Again(cell) => self.again(node, cell),
            Stir::Sessions(cell) => self.sessions(node, cell),
            Stir::User(cell, user) => self.user(node, cell, user),
            Stir::JobEnds(cell, user) => self.job_ends(node, cell, user),
            Stir::Driven(cell) => self.driven(node, cell),
        }
    }

    fn join(&mut self, node: usize) {
        if self.ended.is_some() {
            return;
        }
        // It waits in the lobby until a run is open.
        let is_open = self.leases.holder(MANAGER, self.now).is_some();
        if !self.node_reaches(node) || !self.takes() || !is_open {
            return self.stir(node, ms(500), Stir::Join);
        }
        let name = format!("w{node:02}");
        let Some(member) = self.leases.take(&name, self.now) else {
            return self.stir(node, ms(500), Stir::Join);
        };
        self.tell(|| format!("{member} joins"));
        let until = self.now + TTL;
        let it = &mut self.nodes[node];
        it.last = Some(member.clone());
        it.life = Some(Life {
            member,
            permit: until,
            own: until,
            manager: (None, None),
            outbox: VecDeque::new(),
            is_sending: false,
            work: None,
            done: BTreeSet::new(),
        });
        let build_hash = if it.fits { "b" } else { "another" }.to_owned();
        self.report(node, Report::Hello(Box::new(Hello { build_hash, ..hello() })));
        self.stir(node, TTL, Stir::RunsOut);
        self.stir(node, Micros::ZERO, Stir::Renew);
    }

    fn report(&mut self, node: usize, report: Report) {
        let Some(life) = self.life(node) else { return };
        life.outbox.push_back(report);
        if !std::mem::replace(&mut life.is_sending, true) {
            self.stir(node, Micros::ZERO, Stir::Out);
        }
    }

    fn out(&mut self, node: usize) {
        if !self.node_reaches(node) || !self.takes() {
            return self.stir(node, ms(700), Stir::Out);
        }
        let Some(life) = self.life(node) else { return };
        let Some(report) = life.outbox.pop_front() else {
            life.is_sending = false;
            return;
        };
        let from = life.member.clone();
        self.send(Sent { from, report });
        self.stir(node, ms(1), Stir::Out);
    }

    /// At the plane.
    pub(super) fn renew_of(&mut self, node: usize, life: u64, asked: Micros) {
        let it = &self.nodes[node];
        if it.life_number != life {
            return;
        }
        let Some(member) = it.member().cloned() else { return };
        if !self.node_reaches(node) {
            return self.stir(node, ms(400), Stir::Renewed { asked, answer: None });
        }
        let held = self.leases.renew(&member, self.now);
        let manager = self.leases.holder(MANAGER, self.now);
        // Renewed it is, but the answer may be lost.
        let is_lost = self.spec.net.lost.0 > 0 && self.percent(5);
        let answer = (!is_lost).then_some((held, manager));
        let way = self.way();
        self.stir(node, way, Stir::Renewed { asked, answer });
    }

    fn renewed_of(&mut self, node: usize, asked: Micros, answer: Option<(bool, Option<(u64, Micros)>)>) {
        let now = self.now;
        let Some(life) = self.life(node) else { return };
        if life.permit <= now {
            return self.lost(node, "its lease ran out");
        }
        if let Some((held, manager)) = answer {
            if !held {
                return self.lost(node, "its lease is lost");
            }
            life.own = asked + TTL;
            match manager {
                Some((epoch, _)) if life.manager.0.is_some_and(|before| before != epoch) => {
                    return self.lost(node, "another manager has taken over");
                }
                Some((epoch, left)) => life.manager = (Some(epoch), Some(asked + left)),
                None => return self.lost(node, "the manager is gone"),
            }
        }
        life.permit = life.manager.1.map_or(life.own, |manager| manager.min(life.own));
        let until = life.permit;
        let number = self.nodes[node].life_number;
        self.at(until, Happening::Node(node, number, Stir::RunsOut));
        self.stir(node, s(1), Stir::Renew);
    }

    fn lost(&mut self, node: usize, why: &str) {
        let now = self.now;
        let Some(life) = self.life(node) else { return };
        let member = life.member.clone();
        // Only once: what it is at comes to its end by itself.
        if life.work.as_ref().is_some_and(|w| w.lost) {
            return;
        }
        life.permit = now;
        self.tell(|| format!("{member} is lost to the run: {why}"));
        match self.work(node) {
            Some(work) => {
                work.lost = true;
                self.stop_work(node);
            }
            None => self.end_life(node),
        }
    }

    /// It takes no more part in this life; what it has still to say is said some time.
    fn end_life(&mut self, node: usize) {
        let Some(life) = self.nodes[node].life.take() else { return };
        let member = life.member;
        self.nodes[node].life_number += 1;
        for report in life.outbox {
            self.send(Sent { from: member.clone(), report });
        }
        if self.node_reaches(node) {
            self.leases.release(&member, self.now);
        }
        let goes = self.nodes[node].goes;
        self.tell(|| format!("{member} ends this life: {goes:?}"));
        match goes {
            None => {
                let pause = ms(100) + self.up_to(s(3));
                self.stir(node, pause, Stir::Join);
            }
            Some(_) => self.nodes[node].is_dead = true,
        }
    }

    fn asked(&mut self, node: usize, drains: bool) {
        self.nodes[node].goes = Some(if drains { Goes::Drains } else { Goes::Stops });
        let is_lost = self.work(node).map(|w| w.lost);
        match is_lost {
            Some(true) => {}
            Some(false) if drains => self.report(node, Report::Draining),
            Some(false) => {
                self.report(node, Report::Leaving);
                self.stop_work(node);
            }
            None if self.nodes[node].life.is_some() => {
                self.report(node, Report::Leaving);
                self.end_life(node);
            }
            None => self.nodes[node].is_dead = true,
        }
    }

    fn obey(&mut self, node: usize, command: Command) {
        let Some(life) = self.life(node) else { return };
        let member = life.member.clone();
        let ours = life.work.as_ref().map(|w| w.share.cell.index);
        self.tell(|| format!("{member} hears {}", commanded(&command)));
        match command {
            Command::Prepare { cell, members, .. } if ours.is_none() => {
                if let Some(us) = members.iter().position(|m| *m == member)
                    && self.life(node).is_some_and(|life| life.done.insert(cell.index))
                {
                    self.prepare(node, &cell, us as u32, members.len());
                }
            }
            Command::Refuse { member: refused, .. } if refused == member && ours.is_none() => {
                self.nodes[node].goes = Some(Goes::Refused);
                self.end_life(node);
            }
            Command::Start { cell, at } if ours == Some(cell) => self.start(node, at),
            Command::Settle { cell } if ours == Some(cell) => {
                if let Some(work) = self.work(node) {
                    work.settling = true;
                }
                self.maybe_settles(node);
            }
            Command::Abort { cell } if ours == Some(cell) => self.stop_work(node),
            Command::End => {
                self.nodes[node].goes.get_or_insert(Goes::Ended);
                match ours {
                    Some(_) => self.stop_work(node),
                    None => self.end_life(node),
                }
            }
            _ => {}
        }
    }

    fn prepare(&mut self, node: usize, cell: &Cell, us: u32, of: usize) {
        let share = Share::of(cell, us, of as u32);
        let mut new = Totals::default();
        new.health.cpu = Micros(u64::from(share.users) + 1);
        let Some(life) = self.life(node) else { return };
        life.work = Some(Work {
            share,
            of,
            began: Began::NotYet,
            said_ready: false,
            said_merging: false,
            said_through: false,
            settling: false,
            stopped: false,
            lost: false,
            failure: None,
            in_flight: BTreeSet::new(),
            ended: 0,
            seq: 0,
            new,
            sum: Totals::default(),
        });
        let takes = ms(50) + self.up_to(s(4));
        self.stir(node, takes, Stir::Sessions(cell.index));
        self.stir(node, s(1), Stir::Frame(cell.index));
        self.stir(node, s(5), Stir::Again(cell.index));
    }

    fn sessions(&mut self, node: usize, cell: u32) {
        let fails = self.nodes[node].no_session;
        let Some(work) = self.work_in(node, cell).filter(|w| !w.stopped) else { return };
        if fails {
            work.failure = Some("no session".into());
            self.stop_work(node);
        } else {
            work.said_ready = true;
            self.report(node, Report::Ready { cell, offset: Offset::default() });
        }
    }

    fn again(&mut self, node: usize, cell: u32) {
        let Some(work) = self.work_in(node, cell) else { return };
        let report = match work {
            Work { said_ready: true, began: Began::NotYet, .. } => {
                Some(Report::Ready { cell, offset: Offset::default() })
            }
            Work { said_through: true, settling: false, .. } => {
                Some(Report::Through { cell, start_late: None })
            }
            _ => None,
        };
        report.into_iter().for_each(|report| self.report(node, report));
        self.stir(node, s(5), Stir::Again(cell));
    }

    fn start(&mut self, node: usize, t0: Micros) {
        let (now, off) = (self.now, self.nodes[node].off);
        let here = Micros(now.0.saturating_add_signed(off));
        let Some(work) = self.work(node).filter(|w| w.began == Began::NotYet) else { return };
        if here.saturating_sub(t0) > LATE && work.of > 1 {
            work.began = Began::Missed;
            return self.stop_work(node);
        }
        let at = now + t0.saturating_sub(here);
        work.began = Began::Yes(at);
        let share = work.share.clone();
        for user in 0..share.users {
            let (life, later) = (self.nodes[node].life_number, self.up_to(s(2)));
            let stir = Stir::User(share.cell.index, share.first_user + user);
            self.at(at + later, Happening::Node(node, life, stir));
        }
        self.maybe_through(node);
    }

    fn user(&mut self, node: usize, cell: u32, user: u32) {
        let now = self.now;
        let Some(life) = self.life(node) else { return };
        let (may, member) = (now < life.permit, life.member.clone());
        let Some(work) = self.work_in(node, cell).filter(|w| !w.stopped) else { return };
        if !may {
            return self.stop_work(node);
        }
        work.new.progress.submitted += 1;
        work.in_flight.insert(user);
        self.starts(cell, user, &member);
        let most = if self.percent(50) { s(3) } else { s(18) };
        let takes = ms(500) + self.up_to(most);
        self.stir(node, takes, Stir::JobEnds(cell, user));
    }

    fn job_ends(&mut self, node: usize, cell: u32, user: u32) {
        let Some(work) = self.work_in(node, cell) else { return };
        if !work.in_flight.remove(&user) {
            return;
        }
        work.ended += 1;
        work.new.progress.done += 1;
        let job = Job::new(work.share.worker, format!("{cell} {user}"), JobOutcome::Fetched);
        work.new.jobs.insert(JobKey { user, nth: 0 }, job);
        if !std::mem::replace(&mut work.said_merging, true) {
            self.report(node, Report::Merging { cell });
        }
        self.maybe_through(node);
    }

    fn maybe_through(&mut self, node: usize) {
        let Some(work) = self.work(node) else { return };
        let is_through = work.ended == work.share.users && matches!(work.began, Began::Yes(_));
        if !is_through || work.said_through || work.stopped {
            return;
        }
        work.said_through = true;
        let cell = work.share.cell.index;
        self.send_frame(node);
        self.report(node, Report::Through { cell, start_late: None });
        self.maybe_settles(node);
    }

    fn maybe_settles(&mut self, node: usize) {
        let Some(work) = self.work(node).filter(|w| w.settling && w.said_through && !w.stopped) else {
            return;
        };
        let cell = work.share.cell.index;
        work.new.target.accounts_read += work.share.users;
        let takes = self.up_to(s(2));
        self.stir(node, takes, Stir::Driven(cell));
    }

    fn stop_work(&mut self, node: usize) {
        let slow = self.nodes[node].slow;
        let Some(work) = self.work(node).filter(|w| !w.stopped) else { return };
        work.stopped = true;
        let cell = work.share.cell.index;
        for user in std::mem::take(&mut work.in_flight) {
            work.new.progress.failed += 1;
            let job = Job::new(work.share.worker, format!("{cell} {user}"), JobOutcome::Canceled);
            work.new.jobs.insert(JobKey { user, nth: 0 }, job);
        }
        let takes = slow + self.up_to(s(2));
        self.stir(node, takes, Stir::Driven(cell));
    }

    fn driven(&mut self, node: usize, cell: u32) {
        if self.work_in(node, cell).is_none() {
            return;
        }
        self.send_frame(node);
        let goes = self.nodes[node].goes;
        let Some(life) = self.life(node) else { return };
        let Some(mut work) = life.work.take() else { return };
        let member = life.member.clone();
        let is_gone = work.lost || goes == Some(Goes::Stops);
        if !work.stopped {
            work.seq += 1;
            let (seq, epoch, worker) = (work.seq, member.epoch, work.share.worker);
            let body = FrameBody::Final(work.sum.fingerprint());
            self.report(node, Report::Frame(Frame { cell, worker, epoch, seq, body }));
            self.truth.insert((cell, member), work.sum);
        } else if work.began == Began::Missed {
            self.report(node, Report::Missed { cell, why: "the start came too late".into() });
        } else if !is_gone {
            self.report(node, Report::GaveUp { cell, why: work.failure });
        }
        if goes == Some(Goes::Drains) && !work.lost {
            self.report(node, Report::Leaving);
        }
        if is_gone || goes.is_some() {
            self.end_life(node);
        }
    }

    fn send_frame(&mut self, node: usize) {
        let Some(life) = self.life(node) else { return };
        let epoch = life.member.epoch;
        let Some(work) = &mut life.work else { return };
        let new = std::mem::take(&mut work.new);
        if new == Totals::default() {
            return;
        }
        work.sum.merge(new.clone());
        work.seq += 1;
        let (cell, worker, seq) = (work.share.cell.index, work.share.worker, work.seq);
        let body = FrameBody::Delta(Box::new(new));
        self.report(node, Report::Frame(Frame { cell, worker, epoch, seq, body }));
    }
}
