//! The manager, as `manager` and `plane::manager_end` are, and its rig. It is long because it follows
//! three files at once.

use std::collections::{BTreeSet, VecDeque};

use super::{
    Spec,
    plane::{Leases, TTL},
    world::{Happening, World, ms, s},
};
use crate::{
    cluster::{
        coordinator::{Action, Coordinator, Event, Task},
        members::Wanted,
        rig::{Evidence, Order, Word},
    },
    crew::Member,
    micros::Micros,
    plan::{Cell, CellKind, Settings},
    plane::{Command, MANAGER},
};

/// Something that happens to the manager.
#[derive(Debug)]
pub(super) enum Rouse {
    Tick,
    News(Event),
    Stop(String),
    /// It tries to go on with what it could not do.
    Go,
    Renew,
    /// The answer to a renewal that was asked for then: whether it is held, unless there was none, and
    /// who else holds one.
    Renewed {
        asked: Micros,
        held: Option<bool>,
        holders: BTreeSet<Member>,
    },
    RunsOut,
    Take,
    /// The rig has done what it was at.
    Rig(u64),
}

/// The manager.
pub(super) struct Boss {
    pub(super) coordinator: Coordinator,
    lease: Member,
    permit: Micros,
    /// Nothing before then; `Take` looks for it.
    inbox: VecDeque<Event>,
    words: VecDeque<(u64, Word)>,
    actions: VecDeque<Action>,
    /// The coordinator was told that it is cut off, and not yet that it is back.
    knows: bool,
    /// How long the command in front is tried.
    tries_until: Option<Micros>,
    is_cut: bool,
    /// When the lease was given back before its time.
    let_go: Option<Micros>,
    pub(super) halted_until: Micros,
    pub(super) apart_until: Micros,
    pub(super) usurper: bool,
    pub(super) rig: RigModel,
    cell: u32,
}

#[derive(Debug, Default)]
pub(super) struct RigModel {
    orders: VecDeque<(Order, u64)>,
    /// Rises with every cell that is begun or given up.
    told: u64,
    /// Of the cell it is at.
    about: u64,
    at: At,
    turn: u64,
    pub(super) breaks: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Nothing,
    /// Waits until the target is idle; any order ends that.
    Idle,
    /// Sends canaries; orders wait.
    Canaries,
    Armed,
    Disarming,
}

impl Boss {
    pub(super) fn new(spec: &Spec, cells: &[Cell], settings: &Settings, leases: &mut Leases) -> Self {
        let task = Task {
            cells: cells.to_vec(),
            settings: settings.clone(),
            wanted: Wanted { build_hash: Some("b".into()), ..Wanted::any(spec.expected) },
            lead: s(2),
            rigged: spec.rigged,
            watched: spec.rigged,
        };
        let lease = leases.take(MANAGER, Micros::ZERO).expect("nobody was there before");
        Self {
            coordinator: Coordinator::new(task, Micros::ZERO),
            lease,
            permit: TTL,
            inbox: VecDeque::new(),
            words: VecDeque::new(),
            actions: VecDeque::new(),
            knows: false,
            tries_until: None,
            is_cut: false,
            let_go: None,
            halted_until: Micros::ZERO,
            apart_until: Micros::ZERO,
            usurper: false,
            rig: RigModel::default(),
            cell: 0,
        }
    }
}

impl World {
    pub(super) fn boss_reaches(&self) -> bool {
        self.is_there() && self.now >= self.boss.apart_until
    }

    pub(super) fn wake_boss(&mut self) {
        self.rouse(Micros::ZERO, Rouse::Tick);
        self.rouse(Micros::ZERO, Rouse::Renew);
        self.rouse(TTL, Rouse::RunsOut);
    }

    fn rouse(&mut self, after: Micros, rouse: Rouse) {
        self.after(after, Happening::Boss(rouse));
    }

    pub(super) fn on_rouse(&mut self, rouse: Rouse) {
        if self.ended.is_some() {
            return;
        }
        match rouse {
            Rouse::Tick => {
                self.rouse(ms(500), Rouse::Tick);
                // Ticks that are late are left out.
                if self.boss.actions.is_empty() {
                    self.take_in(Event::Tick);
                }
            }
            Rouse::News(event) => self.take_in(event),
            Rouse::Stop(why) => self.take_in(Event::Stop(why)),
            Rouse::Go => self.go_on(),
            Rouse::Renew => self.renew(),
            Rouse::Renewed { asked, held, holders } => self.renewed(asked, held, holders),
            Rouse::RunsOut => {
                if !self.boss.is_cut && self.now >= self.boss.permit {
                    self.cut("the manager's lease ran out".into());
                }
            }
            Rouse::Take => self.take_again(),
            Rouse::Rig(turn) => self.rig_done(turn),
        }
    }

    /// The keeper's part.
    fn renew(&mut self) {
        if self.boss.is_cut {
            return;
        }
        let asked = self.now;
        if !self.boss_reaches() {
            let holders = BTreeSet::new();
            self.rouse(ms(400), Rouse::Renewed { asked, held: None, holders });
            return;
        }
        let held = Some(self.leases.renew(&self.boss.lease, self.now));
        let members = self.nodes.iter().filter_map(|n| n.member().or(n.last_member()));
        let mut holders = BTreeSet::new();
        for name in members.map(|m| m.name.clone()).collect::<BTreeSet<_>>() {
            if let Some((epoch, _)) = self.leases.holder(&name, self.now) {
                holders.insert(Member { name, epoch });
            }
        }
        let way = self.way();
        self.rouse(way, Rouse::Renewed { asked, held, holders });
    }

    fn renewed(&mut self, asked: Micros, held: Option<bool>, holders: BTreeSet<Member>) {
        if self.boss.is_cut {
            return;
        }
        if self.now >= self.boss.permit {
            return self.cut("the manager's lease ran out".into());
        }
        match held {
            Some(true) => {
                self.boss.permit = asked + TTL;
                self.at(asked + TTL, Happening::Boss(Rouse::RunsOut));
                if !holders.is_empty() {
                    self.take_in(Event::Holders(holders));
                }
            }
            Some(false) => return self.cut("the manager's lease is lost".into()),
            None => {}
        }
        self.rouse(ms(500), Rouse::Renew);
    }

    fn cut(&mut self, why: String) {
        self.tell(|| format!("the manager is cut off: {why}"));
        self.boss.is_cut = true;
        self.boss.permit = self.now;
        self.rouse(Micros::ZERO, Rouse::Take);
        self.take_in(Event::Cut(why));
    }

    fn take_again(&mut self) {
        if let Some(at) = self.boss.let_go.take() {
            return self.at(at + TTL, Happening::Boss(Rouse::Take));
        }
        if !self.boss_reaches() {
            return self.rouse(ms(200), Rouse::Take);
        }
        if self.boss.usurper {
            return self.take_in(Event::Over("the lease of manager is held by another".into()));
        }
        let Some(lease) = self.leases.take(MANAGER, self.now) else {
            return self.rouse(ms(500), Rouse::Take);
        };
        self.tell(|| format!("the manager is back: {lease}"));
        self.boss.lease = lease;
        self.boss.permit = self.now + TTL;
        self.boss.is_cut = false;
        self.rouse(TTL, Rouse::RunsOut);
        self.rouse(Micros::ZERO, Rouse::Renew);
        self.take_in(Event::Back);
    }

    /// The loop of `manage`.
    fn take_in(&mut self, event: Event) {
        self.boss.inbox.push_back(event);
        if self.boss.actions.is_empty() {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        loop {
            while !self.boss.actions.is_empty() {
                if self.ended.is_some() || !self.act() {
                    return;
                }
            }
            let event = match self.boss.words.pop_front() {
                Some((about, _)) if about != self.boss.rig.told => continue,
                Some((_, word)) => Event::Rig(word),
                None => match self.boss.inbox.pop_front() {
                    Some(event) => event,
                    None => return,
                },
            };
            self.decide(event);
        }
    }

    fn decide(&mut self, event: Event) {
        match event {
            Event::Cut(_) => self.boss.knows = true,
            Event::Back => self.boss.knows = false,
            _ => {}
        }
        let actions = self.boss.coordinator.on(event, self.now);
        if self.boss.knows && actions.iter().any(|a| matches!(a, Action::Opened(_))) {
            self.is_wrong("a cell is opened when nobody can be told of it".into());
        }
        self.boss.actions.extend(actions);
    }

    /// Carries out the action in front; `false` when that takes longer.
    fn act(&mut self) -> bool {
        let now = self.now;
        if let Some(Action::Send(command)) = self.boss.actions.front() {
            let command = command.clone();
            let holds = self.leases.holds(&self.boss.lease, now);
            let reaches = self.boss_reaches() && self.takes();
            let until = *self.boss.tries_until.get_or_insert(self.boss.permit);
            if !reaches && now < until {
                self.rouse(ms(200), Rouse::Go);
                return false;
            }
            self.boss.tries_until = None;
            self.boss.actions.pop_front();
            if reaches && holds {
                if let Command::Prepare { cell, members, .. } = &command {
                    self.prepares(cell, members);
                }
                self.command(&command);
            } else if command != Command::End {
                self.tell(|| format!("the manager cannot say {}", super::world::commanded(&command)));
                self.boss.let_go = Some(now);
                if self.boss_reaches() {
                    self.leases.release(&self.boss.lease, now);
                }
                self.boss.actions.retain(|a| !matches!(a, Action::Send(_)));
                self.decide(Event::Cut("nothing can be said".into()));
            }
            return true;
        }
        match self.boss.actions.pop_front() {
            Some(Action::Rig(order)) => {
                let rig = &mut self.boss.rig;
                rig.told += u64::from(matches!(order, Order::Arm { .. } | Order::Abandon));
                rig.orders.push_back((order, rig.told));
                self.run_rig();
            }
            Some(Action::Opened(cell)) => {
                self.boss.cell = cell.index;
                self.opens(&cell);
            }
            Some(Action::Started(at)) => {
                let cell = self.boss.cell;
                self.tell(|| format!("T0 of cell {cell} is {at}"));
                self.t0_is_set(cell);
                if self.spec.rigged && (self.boss.rig.at != At::Armed || !self.boss.rig.orders.is_empty()) {
                    self.is_wrong(format!("cell {cell} starts, and the rig is at {:?}", self.boss.rig.at));
                }
            }
            Some(Action::Close(closed)) => {
                let cell = &closed.cell;
                let is_invalid = closed.missing.is_some();
                if cell.kind == CellKind::Measured && is_invalid && cell.attempt <= self.spec.requeue {
                    self.boss.coordinator.again(cell, true);
                }
                self.closes(*closed);
            }
            Some(Action::Told(event)) => self.tell(|| {
                let who = event.who.map_or(String::new(), |who| who.to_string());
                format!("told: {who} {}", event.what)
            }),
            Some(Action::Finish(why)) => {
                self.tell(|| format!("the run ends: {why:?}"));
                self.ended = Some((now, why));
                if self.boss_reaches() {
                    self.leases.release(&self.boss.lease, now);
                }
            }
            Some(Action::Send(_)) | None => {}
        }
        true
    }

    fn run_rig(&mut self) {
        loop {
            let rig = &mut self.boss.rig;
            match rig.at {
                At::Nothing => match rig.orders.pop_front() {
                    Some((Order::Arm { .. }, about)) => {
                        rig.about = about;
                        self.rig_is_at(At::Idle);
                    }
                    Some(_) => {}
                    None => return,
                },
                At::Idle => match rig.orders.pop_front() {
                    Some(_) => self.boss.rig.at = At::Nothing,
                    None => return,
                },
                At::Armed => match rig.orders.pop_front().map(|(order, _)| order) {
                    Some(Order::Disarm) => self.rig_is_at(At::Disarming),
                    Some(Order::Abandon) => rig.at = At::Nothing,
                    Some(Order::Arm { .. }) => {
                        self.is_wrong("the rig is told to arm in the middle of a cell".into());
                        return;
                    }
                    Some(Order::Start { .. } | Order::Merging) => {}
                    None => return,
                },
                At::Canaries | At::Disarming => return,
            }
        }
    }

    fn rig_is_at(&mut self, at: At) {
        self.tell(|| format!("the rig is at {at:?}"));
        self.boss.rig.at = at;
        self.boss.rig.turn += 1;
        let turn = self.boss.rig.turn;
        let time = self.up_to(s(8));
        self.rouse(time, Rouse::Rig(turn));
    }

    fn rig_done(&mut self, turn: u64) {
        if self.boss.rig.turn != turn || self.boss.rig.at == At::Nothing {
            return;
        }
        let breaks = std::mem::take(&mut self.boss.rig.breaks);
        let word = match self.boss.rig.at {
            At::Idle if !breaks => return self.rig_is_at(At::Canaries),
            At::Canaries if !breaks => {
                self.boss.rig.at = At::Armed;
                Word::Armed
            }
            At::Disarming if !breaks => {
                self.boss.rig.at = At::Nothing;
                Word::Disarmed(Box::default())
            }
            At::Armed | At::Nothing => return,
            At::Idle | At::Canaries | At::Disarming => {
                self.boss.rig.at = At::Nothing;
                Word::Broken { why: "the rig broke".into(), evidence: Box::new(Evidence::default()) }
            }
        };
        self.tell(|| format!("the rig says {word:?}"));
        let about = self.boss.rig.about;
        self.boss.words.push_back((about, word));
        if self.boss.actions.is_empty() {
            self.go_on();
        }
        self.run_rig();
    }
}
