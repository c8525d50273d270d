//! The clock, what is to happen on it, the ways between the plane and everybody, and the look at the
//! whole after every step. It is long because all that must never be stands here.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    sync::Arc,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::{
    Fault, Spec,
    boss::{Boss, Rouse},
    node::{Node, Stir},
    plane::Leases,
};
use crate::{
    cluster::coordinator::{Closed, Event},
    crew::Member,
    micros::Micros,
    plan::{Cell, Plan, Settings, Share},
    plane::{Command, Report, Sent},
    scenario::Matrix,
    snapshot::Totals,
};

/// No run may last longer.
const FOR_EVER: Micros = Micros(4 * 3_600_000_000);
/// So long after the run nobody loads any more.
const AFTERWARDS: Micros = Micros(60_000_000);

pub(super) const fn ms(n: u64) -> Micros {
    Micros(n * 1_000)
}

pub(super) const fn s(n: u64) -> Micros {
    Micros(n * 1_000_000)
}

/// Something that is to happen.
#[derive(Debug)]
pub(super) enum Happening {
    /// To a worker's process, in that life of it.
    Node(usize, u64, Stir),
    /// To the manager.
    Boss(Rouse),
    /// A worker renews its lease at the plane.
    Renewal { node: usize, life: u64, asked: Micros },
    /// A worker's word is there to be read by the manager.
    Heard(Arc<Sent>),
    /// A command is there to be read by a worker.
    Told { node: usize, life: u64, command: Command },
    /// Something breaks.
    Breaks(Fault),
    /// A process of that worker begins.
    Begins(usize),
}

struct Due {
    at: Micros,
    /// Things of one moment happen in the order they were set down.
    turn: u64,
    what: Happening,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Due {}
impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.turn).cmp(&(other.at, other.turn))
    }
}

/// A run and all around it.
pub(super) struct World {
    pub(super) spec: Spec,
    pub(super) now: Micros,
    queue: BinaryHeap<Reverse<Due>>,
    turn: u64,
    pub(super) chance: ChaCha8Rng,
    pub(super) leases: Leases,
    pub(super) nodes: Vec<Node>,
    pub(super) boss: Boss,
    /// Nobody reaches the plane before then.
    away_until: Micros,
    /// It takes no entries before then.
    full_until: Micros,
    /// What was said since then, and is not read yet, is forgotten.
    forgotten: (Micros, Micros),
    /// When the last word of each worker arrives, and the last command at each.
    last: BTreeMap<String, Micros>,
    last_told: Vec<Micros>,
    /// What each worker recorded in each cell it came to the end of.
    pub(super) truth: BTreeMap<(u32, Member), Totals>,
    /// Who started that user of that cell.
    started: BTreeMap<(u32, u32), Member>,
    cells: Vec<Cell>,
    opened: BTreeSet<u32>,
    pub(super) closed: Vec<Closed>,
    /// When the run ended, and why.
    pub(super) ended: Option<(Micros, Option<String>)>,
    /// What must not be.
    wrong: Option<String>,
    story: Option<Vec<String>>,
}

impl World {
    pub(super) fn new(spec: &Spec, told: bool) -> Self {
        let mut scenario = Matrix::runbook().get("S6").unwrap().clone();
        scenario.repetitions = spec.repetitions;
        scenario.concurrent_jobs = spec.users;
        let cells = Plan::cells(spec.seed, &[scenario], true);
        let settings = Settings {
            job_timeout: s(20),
            patience: s(1),
            requeue: spec.requeue,
            cool_down: s(spec.seed % 3),
            ..Settings::default()
        };
        let mut leases = Leases::default();
        let boss = Boss::new(spec, &cells, &settings, &mut leases);
        let mut world = Self {
            spec: spec.clone(),
            now: Micros::ZERO,
            queue: BinaryHeap::new(),
            turn: 0,
            chance: ChaCha8Rng::seed_from_u64(spec.seed),
            leases,
            nodes: Vec::new(),
            boss,
            away_until: Micros::ZERO,
            full_until: Micros::ZERO,
            forgotten: (Micros::ZERO, Micros::ZERO),
            last: BTreeMap::new(),
            last_told: vec![Micros::ZERO; spec.workers.len()],
            truth: BTreeMap::new(),
            started: BTreeMap::new(),
            cells,
            opened: BTreeSet::new(),
            closed: Vec::new(),
            ended: None,
            wrong: None,
            story: told.then(Vec::new),
        };
        for (number, (comes, fits)) in spec.workers.iter().enumerate() {
            let off = world.up_to(ms(12)).0 as i64 - 6_000;
            world.nodes.push(Node::new(*fits, off));
            world.at(s(*comes), Happening::Begins(number));
        }
        for (at, fault) in &spec.faults {
            // Not all at full seconds.
            let later = world.up_to(ms(1_000));
            world.at(s(*at) + later, Happening::Breaks(*fault));
        }
        world.wake_boss();
        world
    }

    /// Plays it to its end; says why it ended, or what is wrong with it.
    pub(super) fn play(&mut self) -> Result<Option<String>, String> {
        while let Some(Reverse(due)) = self.queue.pop() {
            if self.ended.as_ref().is_some_and(|(at, _)| due.at > *at + AFTERWARDS) {
                break;
            }
            self.now = due.at;
            if self.now > FOR_EVER {
                return Err("the run never ends".into());
            }
            self.happen(due.what);
            self.look();
            if let Some(wrong) = self.wrong.take() {
                return Err(wrong);
            }
        }
        let Some((at, why)) = self.ended.clone() else { return Err("nothing happens any more".into()) };
        self.now = at + AFTERWARDS;
        self.judge_all(why.as_deref());
        self.wrong.take().map_or(Ok(why), Err)
    }

    /// Everything that happened, from the beginning.
    pub(super) fn story(&self) -> String {
        self.story.as_ref().map(|lines| lines.join("\n")).unwrap_or_default()
    }

    pub(super) fn tell(&mut self, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            story.push(format!("{:9.3} s  {}", self.now.as_secs(), line()));
        }
    }

    pub(super) fn is_wrong(&mut self, what: String) {
        self.tell(|| format!("WRONG: {what}"));
        self.wrong.get_or_insert(what);
    }

    pub(super) fn at(&mut self, at: Micros, what: Happening) {
        self.turn += 1;
        self.queue.push(Reverse(Due { at: at.max(self.now), turn: self.turn, what }));
    }

    pub(super) fn after(&mut self, time: Micros, what: Happening) {
        self.at(self.now + time, what);
    }

    /// To a worker, as long as it lives.
    pub(super) fn stir(&mut self, node: usize, after: Micros, stir: Stir) {
        let life = self.nodes[node].life_number;
        self.after(after, Happening::Node(node, life, stir));
    }

    pub(super) fn up_to(&mut self, most: Micros) -> Micros {
        Micros(self.chance.random_range(0..=most.0))
    }

    pub(super) fn percent(&mut self, percent: u32) -> bool {
        percent > 0 && self.chance.random_range(0..100) < percent
    }

    /// The way of one word.
    pub(super) fn way(&mut self) -> Micros {
        let most = ms(self.spec.net.delay.min(300));
        ms(1) + self.up_to(most)
    }

    pub(super) fn is_there(&self) -> bool {
        self.now >= self.away_until
    }

    pub(super) fn takes(&self) -> bool {
        self.is_there() && self.now >= self.full_until
    }

    pub(super) fn node_reaches(&self, node: usize) -> bool {
        self.is_there() && self.now >= self.nodes[node].cut_until
    }

    fn happen(&mut self, what: Happening) {
        match what {
            Happening::Begins(number) => {
                self.nodes[number].begin();
                self.stir(number, Micros::ZERO, Stir::Join);
            }
            Happening::Node(node, life, stir) => {
                let it = &self.nodes[node];
                if it.life_number != life || it.is_dead {
                } else if self.now < it.stopped_until {
                    self.at(it.stopped_until, Happening::Node(node, life, stir));
                } else {
                    self.on_stir(node, stir);
                }
            }
            Happening::Boss(rouse) => {
                if self.now < self.boss.halted_until {
                    self.at(self.boss.halted_until, Happening::Boss(rouse));
                } else {
                    self.on_rouse(rouse);
                }
            }
            Happening::Renewal { node, life, asked } => self.renew_of(node, life, asked),
            Happening::Heard(sent) => {
                if !self.boss_reaches() {
                    self.after(ms(300), Happening::Heard(sent));
                } else if !self.is_forgotten() {
                    self.tell(|| format!("the manager hears {}", said(&sent)));
                    self.at(self.now, Happening::Boss(Rouse::News(Event::Sent(sent))));
                }
            }
            Happening::Told { node, life, command } => {
                if !self.node_reaches(node) || self.now < self.nodes[node].deaf_until {
                    self.after(ms(300), Happening::Told { node, life, command });
                } else if !self.is_forgotten() {
                    self.at(self.now, Happening::Node(node, life, Stir::Command(command)));
                }
            }
            Happening::Breaks(fault) => self.breaks(fault),
        }
    }

    /// Whether what is read now was said when it was to be forgotten.
    fn is_forgotten(&self) -> bool {
        self.forgotten.0 <= self.now && self.now < self.forgotten.1
    }

    fn breaks(&mut self, fault: Fault) {
        self.tell(|| format!("BREAKS: {fault:?}"));
        let now = self.now;
        match fault {
            Fault::Kill { worker, back } => {
                self.nodes[worker].kill();
                if let Some(back) = back {
                    self.after(s(back), Happening::Begins(worker));
                }
            }
            Fault::Stop { worker, lasts } => self.nodes[worker].stopped_until = now + s(lasts),
            Fault::Cut { worker, lasts } => self.nodes[worker].cut_until = now + s(lasts),
            Fault::Deaf { worker, lasts } => self.nodes[worker].deaf_until = now + s(lasts),
            Fault::Leave { worker, drains } => self.stir(worker, Micros::ZERO, Stir::Asked { drains }),
            Fault::NoSession { worker } => self.nodes[worker].no_session = true,
            Fault::Slow { worker, lasts } => self.nodes[worker].slow = s(lasts),
            Fault::Away { lasts } => self.away_until = self.away_until.max(now + s(lasts)),
            Fault::Full { lasts } => self.full_until = now + s(lasts),
            Fault::Forgets => self.forgotten = (now, now + s(1)),
            Fault::Gone => self.away_until = FOR_EVER + FOR_EVER,
            Fault::Halt { lasts } => self.boss.halted_until = now + s(lasts),
            Fault::Apart { lasts } => self.boss.apart_until = now + s(lasts),
            Fault::Usurper => self.boss.usurper = true,
            Fault::Broken => self.boss.rig.breaks = true,
            Fault::Interrupt => self.at(now, Happening::Boss(Rouse::Stop("SIGINT".into()))),
        }
    }

    /// A worker's word goes its way to the manager.
    pub(super) fn send(&mut self, sent: Sent) {
        let ((lost, _), (twice, _)) = (self.spec.net.lost, self.spec.net.twice);
        let sent = Arc::new(sent);
        if self.percent(lost) {
            self.tell(|| format!("LOST: {}", said(&sent)));
            return;
        }
        let times = if self.percent(twice) { 2 } else { 1 };
        for _ in 0..times {
            let mut at = self.now + self.delay();
            if !self.spec.net.shuffled {
                let last = self.last.entry(sent.from.name.clone()).or_default();
                at = at.max(*last);
                *last = at;
            }
            self.at(at, Happening::Heard(Arc::clone(&sent)));
        }
    }

    /// A command goes its ways to those who read.
    pub(super) fn command(&mut self, command: &Command) {
        let ((_, lost), (_, twice)) = (self.spec.net.lost, self.spec.net.twice);
        self.tell(|| format!("the manager says {}", commanded(command)));
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life_number;
            if self.nodes[node].member().is_none() {
                continue;
            }
            if self.percent(lost) {
                self.tell(|| format!("LOST to w{node}: {}", commanded(command)));
                continue;
            }
            let times = if self.percent(twice) { 2 } else { 1 };
            for time in 0..times {
                let mut at = self.now + self.delay();
                if time == 1 && self.spec.net.shuffled {
                    // Long after all is over.
                    at += self.up_to(s(60));
                }
                if !self.spec.net.shuffled {
                    at = at.max(self.last_told[node]);
                    self.last_told[node] = at;
                }
                self.at(at, Happening::Told { node, life, command: command.clone() });
            }
        }
    }

    fn delay(&mut self) -> Micros {
        let most = ms(self.spec.net.delay);
        ms(1) + self.up_to(most)
    }

    pub(super) fn starts(&mut self, cell: u32, user: u32, member: &Member) {
        if let Some(before) = self.started.insert((cell, user), member.clone()) {
            self.is_wrong(format!("user {user} of cell {cell} was started by {before} and by {member}"));
        }
    }

    /// Looks at who loads now.
    fn look(&mut self) {
        let mut at: Option<&Share> = None;
        let mut users = 0;
        let mut wrong = None;
        for share in self.nodes.iter().filter_map(|n| n.loads(self.now)) {
            users += share.users;
            if let Some(other) = at.filter(|o| o.cell.index != share.cell.index) {
                wrong = Some(format!("cells {} and {} load at once", other.cell.index, share.cell.index));
            }
            if users > share.cell.users {
                wrong = Some(format!("{users} users load in cell {}", share.cell.index));
            }
            at = Some(share);
        }
        if let Some(wrong) = wrong {
            self.is_wrong(wrong);
        }
    }

    /// T0 of the cell is set: nobody can be at another any more.
    pub(super) fn t0_is_set(&mut self, cell: u32) {
        let others =
            self.nodes.iter().filter_map(|n| n.may_load(self.now)).find(|share| share.cell.index != cell);
        if let Some(share) = others {
            let other = share.cell.index;
            self.is_wrong(format!("T0 of cell {cell} is set when cell {other} may still load"));
        }
    }

    pub(super) fn prepares(&mut self, cell: &Cell, members: &[Member]) {
        let names: BTreeSet<&str> = members.iter().map(|m| m.name.as_str()).collect();
        let mut next = 0;
        let mut overlaps = members.is_empty() || names.len() != members.len();
        for worker in 0..members.len() as u32 {
            let share = Share::of(cell, worker, members.len() as u32);
            overlaps |= share.first_user != next;
            next += share.users;
        }
        if overlaps || next != cell.users {
            self.is_wrong(format!("the shares of {members:?} are not cell {}", cell.index));
        }
    }

    pub(super) fn opens(&mut self, cell: &Cell) {
        self.tell(|| {
            format!("cell {} opens: repetition {}, attempt {}", cell.index, cell.repetition, cell.attempt)
        });
        self.opened.insert(cell.index);
        if self.closed.iter().any(|c| c.cell.index == cell.index) {
            self.is_wrong(format!("cell {} is opened again after it was closed", cell.index));
        }
    }

    pub(super) fn closes(&mut self, closed: Closed) {
        let Closed { cell, missing, .. } = &closed;
        self.tell(|| format!("cell {} closes: {missing:?}", cell.index));
        let mut wrong = None;
        for before in &self.closed {
            let is_same = (&before.cell.scenario, before.cell.repetition, before.cell.kind)
                == (&cell.scenario, cell.repetition, cell.kind);
            if before.cell.index == cell.index {
                wrong = Some(format!("cell {} is closed twice", cell.index));
            } else if is_same && before.missing.is_none() {
                wrong = Some(format!("repetition {} counts and is made again", cell.repetition));
            } else if is_same && before.cell.attempt >= cell.attempt {
                wrong = Some(format!("attempt {} comes after {}", cell.attempt, before.cell.attempt));
            }
        }
        if !self.opened.contains(&cell.index) {
            wrong = Some(format!("cell {} was never opened", cell.index));
        }
        if missing.is_none() {
            let mut all = Totals::default();
            for part in &closed.workers {
                let member = Member { name: part.name.clone(), epoch: part.epoch };
                match self.truth.get(&(cell.index, member.clone())) {
                    Some(totals) => all.merge(totals.clone()),
                    None => wrong = Some(format!("{member} did not come to the end of cell {}", cell.index)),
                }
            }
            if all != closed.totals {
                wrong = Some(format!("cell {} closes with other sums than were recorded", cell.index));
            }
            let submitted = closed.totals.progress.submitted;
            if submitted != u64::from(cell.users) {
                wrong = Some(format!("{submitted} jobs in cell {} of {} users", cell.index, cell.users));
            }
        }
        if let Some(wrong) = wrong {
            self.is_wrong(wrong);
        }
        self.closed.push(closed);
    }

    /// At the very end: nobody loads, and a plan that is done is whole.
    fn judge_all(&mut self, why: Option<&str>) {
        if let Some(share) = self.nodes.iter().find_map(|n| n.loads(self.now)) {
            let cell = share.cell.index;
            self.is_wrong(format!("somebody loads in cell {cell} long after the run"));
        }
        if why.is_some() {
            return;
        }
        let requeue = self.spec.requeue;
        let is_done = |cell: &Cell| {
            let same = |c: &&Closed| (c.cell.kind, c.cell.repetition) == (cell.kind, cell.repetition);
            let tries: Vec<&Closed> = self.closed.iter().filter(same).collect();
            let is_warm_up = cell.repetition == 0;
            let is_whole = tries.iter().any(|c| c.missing.is_none());
            !tries.is_empty() && (is_whole || is_warm_up || tries.len() as u32 == requeue + 1)
        };
        if let Some(open) = self.cells.iter().find(|c| !is_done(c)).cloned() {
            self.is_wrong(format!("the run is done without repetition {}", open.repetition));
        }
    }
}

/// A word in a few words.
pub(super) fn said(sent: &Sent) -> String {
    let what = match &sent.report {
        Report::Hello(_) => "Hello".to_owned(),
        Report::Frame(f) => {
            format!(
                "frame {}{} of cell {}",
                f.seq,
                if f.is_final() { ", the final one," } else { "" },
                f.cell
            )
        }
        other => format!("{other:?}"),
    };
    format!("{}: {what}", sent.from)
}

pub(super) fn commanded(command: &Command) -> String {
    match command {
        Command::Prepare { cell, members, tidy } => {
            let members: Vec<String> = members.iter().map(ToString::to_string).collect();
            format!("Prepare cell {} for {}, tidy {tidy}", cell.index, members.join(", "))
        }
        other => format!("{other:?}"),
    }
}
