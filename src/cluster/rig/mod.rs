//! The rig: what stands beside the load of a cell. It reads the tap, has the fault put in place and
//! taken away, sends the canaries that prove it, and has Redis, metrics and processes sampled.
//!
//! One task serves it for the whole run. It is told what to do by [`Order`]s and answers in
//! [`Word`]s; the coordinator decides on both. However the run ends, the last thing the rig does is
//! to take its fault away. It is long because what happens beside a cell is told in one order, from
//! arming to the last post.

mod canaries;
mod harm;
mod reader;

use std::{collections::BTreeSet, time::Duration};

use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, sleep_until},
};

pub use harm::Harm;

use self::{canaries::Canaries, harm::InPlace, reader::Reader};
use crate::{
    injection::{Canary, Injection},
    micros::Micros,
    plan::Cell,
    posts::Book,
    sampling::Samplers,
    tap::Link,
    telemetry::Telemetry,
};

/// How often the tap is read and the lease of the fault renewed.
const TICK: Duration = Duration::from_millis(500);
/// How long the target may take to become idle before a cell.
const IDLE_WITHIN: Duration = Duration::from_secs(60);
/// And longer for each job that was given up: YAPTIDE takes 11 s to look after the tasks of one, one
/// after the other.
const IDLE_PER_JOB: Duration = Duration::from_secs(15);
/// But no longer than this.
const IDLE_AT_MOST: Duration = Duration::from_secs(600);
/// How long workers must be silent before a cell, where jobs were given up.
const SILENT_FOR: Duration = Duration::from_millis(2_500);
/// How long the end of a run may take: a probe that hears nothing takes 16 s to be killed.
const END_WITHIN: Duration = Duration::from_secs(25);

/// What the rig is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Order {
    /// Get ready for a cell: canaries before, the fault in place.
    Arm {
        /// Which.
        cell: Cell,
        /// So many jobs were given up before it: their tasks may go on, whatever the target says of
        /// them.
        given_up: u32,
    },
    /// T0 of the cell on the plane's clock.
    Start {
        /// When.
        at: Micros,
    },
    /// A job of the cell was seen merging.
    Merging,
    /// Every job of the cell has an outcome: take the fault away and read the last posts.
    Disarm,
    /// The cell is given up.
    Abandon,
}

/// What the rig answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// The cell can begin.
    Armed,
    /// The cell is over, and this came of it.
    Disarmed(Box<Evidence>),
    /// It does not work any more.
    Broken {
        /// Why.
        why: String,
        /// What there was until then.
        evidence: Box<Evidence>,
    },
}

/// What the rig saw and did in a cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Evidence {
    /// The workers' posts; `None` without a tap.
    pub posts: Option<Book>,
    /// The fault; `None` where there was to be none.
    pub injection: Option<Injection>,
    /// Redis, metrics, processes, probes.
    pub telemetry: Telemetry,
    /// What the target was still busy with when the cell was to begin; `None` when it was idle.
    pub busy: Option<String>,
}

/// An order, the moment it is for, and its turn.
type Told = (Order, Instant, u64);

/// The run's end of the rig.
#[derive(Debug)]
pub struct Rig {
    orders: mpsc::Sender<Told>,
    words: mpsc::Receiver<(u64, Word)>,
    /// Rises with every cell that is begun or given up: words about an earlier one come too late.
    turn: u64,
    sees_idleness: bool,
    task: JoinHandle<()>,
}

impl Rig {
    /// Sets it up for a run: with a tap to read, with something to do harm, or both.
    pub fn set_up(run: &str, tap: Option<Link>, harm: Option<Harm>, samplers: Samplers) -> Self {
        let (orders, inbox) = mpsc::channel(8);
        let (outbox, words) = mpsc::channel(8);
        let reader = tap.map(Reader::new);
        let sees_idleness = reader.is_some() || samplers.see_idleness();
        let server = Server {
            run: run.to_owned(),
            reader,
            harm,
            samplers,
            has_harmed: false,
            seen: BTreeSet::new(),
            turn: 0,
            inbox,
            outbox,
        };
        Self { orders, words, turn: 0, sees_idleness, task: tokio::spawn(server.serve()) }
    }

    /// Whether it waits before a cell until the target is idle: by its Redis or its workers' posts.
    pub fn sees_idleness(&self) -> bool {
        self.sees_idleness
    }

    /// Passes an order on; `now` is the plane's clock, on which its moments are.
    pub async fn tell(&mut self, order: Order, now: Micros) {
        if matches!(order, Order::Arm { .. } | Order::Abandon) {
            self.turn += 1;
        }
        let ahead = match order {
            Order::Start { at } => at.saturating_sub(now),
            _ => Micros::ZERO,
        };
        // A rig that is gone has said why.
        let _ = self.orders.send((order, Instant::now() + Duration::from(ahead), self.turn)).await;
    }

    /// The next word about the cell it was told of last; never, once it has said everything.
    pub async fn next_word(&mut self) -> Word {
        loop {
            match self.words.recv().await {
                Some((turn, word)) if turn == self.turn => return word,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }

    /// Ends it, its fault taken away.
    pub async fn end(self) {
        drop(self.orders);
        drop(self.words);
        if tokio::time::timeout(END_WITHIN, self.task).await.is_err() {
            tracing::warn!("the fault may still be in place: the tap or Toxiproxy did not answer in time");
        }
    }
}

/// The task.
struct Server {
    run: String,
    reader: Option<Reader>,
    harm: Option<Harm>,
    samplers: Samplers,
    /// Whether there ever was a fault of ours to take away.
    has_harmed: bool,
    /// Simulations of the cells so far.
    seen: BTreeSet<u64>,
    /// Of the cell it is at.
    turn: u64,
    inbox: mpsc::Receiver<Told>,
    outbox: mpsc::Sender<(u64, Word)>,
}

/// A cell that the rig stands beside.
struct AtCell {
    book: Book,
    in_place: Option<InPlace>,
    before: Vec<Canary>,
    during: Option<JoinHandle<Vec<Canary>>>,
    /// Those of `during`, once they are back.
    sent: Vec<Canary>,
    t0: Option<Instant>,
    /// What the target was still busy with before.
    busy: Option<String>,
}

/// How long the target may take to become idle when so many jobs were given up before.
pub(super) fn idle_within(given_up: u32) -> Duration {
    (IDLE_WITHIN + IDLE_PER_JOB.saturating_mul(given_up)).min(IDLE_AT_MOST)
}

/// Waits until the target is idle, as far as its Redis tells and, where jobs were given up, the posts
/// of its workers: a task that runs posts every two seconds. The inner error says what went on.
async fn idle(
    samplers: &mut Samplers,
    reader: Option<&mut Reader>,
    given_up: u32,
) -> Result<Result<(), String>, String> {
    let within = idle_within(given_up);
    let until = Instant::now() + within;
    if let (Some(reader), 1..) = (reader, given_up) {
        let mut silent = Instant::now();
        reader.skip().await?;
        while silent.elapsed() < SILENT_FOR {
            if Instant::now() >= until {
                let seconds = within.as_secs();
                return Ok(Err(format!("tasks of jobs that were given up still post after {seconds} s")));
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            if reader.skip().await? > 0 {
                silent = Instant::now();
            }
        }
    }
    Ok(samplers.idle(until.saturating_duration_since(Instant::now())).await)
}

/// Why a cell came to its end for the rig.
enum Ended {
    Disarmed(Box<Evidence>),
    Abandoned,
}

impl Server {
    async fn serve(mut self) {
        while let Some((order, _, turn)) = self.inbox.recv().await {
            let Order::Arm { cell, given_up } = order else { continue };
            self.turn = turn;
            let mut at = None;
            let outcome = self.cell(&cell, given_up, &mut at).await;
            let word = match outcome {
                Ok(Ended::Disarmed(evidence)) => Word::Disarmed(evidence),
                Ok(Ended::Abandoned) => {
                    if let Some(during) = at.and_then(|at| at.during) {
                        during.abort();
                    }
                    self.samplers.abandon().await;
                    self.take_away().await;
                    continue;
                }
                Err(why) => {
                    self.take_away().await;
                    let t0 = at.as_ref().and_then(|at| at.t0).unwrap_or_else(Instant::now);
                    let mut evidence = at.map(|at| self.cut_short(at, &why)).unwrap_or_default();
                    evidence.telemetry = self.samplers.close(t0).await;
                    Word::Broken { why, evidence: Box::new(evidence) }
                }
            };
            // Nobody listens any more when the run is over.
            let _ = self.outbox.send((self.turn, word)).await;
        }
        self.take_away().await;
    }

    /// Takes the fault away, whatever came before.
    async fn take_away(&mut self) {
        if !self.has_harmed {
            return;
        }
        if let Some(harm) = &mut self.harm
            && let Err(why) = harm.clear(&self.run).await
        {
            tracing::error!("{why}");
        }
    }

    /// What there was of a cell until the rig broke.
    fn cut_short(&mut self, at: AtCell, why: &str) -> Evidence {
        if let Some(during) = &at.during {
            during.abort();
        }
        let (mut book, busy) = (at.book, at.busy);
        book.trouble(why.to_owned());
        self.seen = book.seen();
        Evidence { posts: self.looked(book, at.t0), busy, ..Evidence::default() }
    }

    /// Stands beside one cell. `at` is filled as soon as there is something to lose.
    async fn cell(&mut self, cell: &Cell, given_up: u32, at: &mut Option<AtCell>) -> Result<Ended, String> {
        let busy = tokio::select! {
            idle = idle(&mut self.samplers, self.reader.as_mut(), given_up) => idle?.err(),
            // The only word there can be now is that nobody waits for the cell any more.
            _ = self.inbox.recv() => return Ok(Ended::Abandoned),
        };
        if let Some(reader) = &mut self.reader {
            // What came between the cells is nobody's.
            reader.skip().await?;
        }
        let here = at.insert(AtCell {
            book: Book::new(self.seen.clone()),
            in_place: None,
            before: Vec::new(),
            during: None,
            sent: Vec::new(),
            t0: None,
            busy,
        });
        self.samplers.open(cell).await;
        let canaries = match &mut self.harm {
            Some(harm) if !cell.fault.is_none() => {
                harm.is_absent().await?;
                let canaries = harm.canaries(cell);
                here.before = canaries.before().await;
                if let Some(dead) = here.before.iter().find(|c| c.status.is_none()) {
                    return Err(format!(
                        "canary {} got no answer at {} before there was any fault",
                        dead.number,
                        canaries.way()
                    ));
                }
                self.has_harmed = true;
                here.in_place = Some(harm.put_in_place(&self.run, cell).await?);
                Some(canaries)
            }
            Some(harm) => {
                harm.is_absent().await?;
                None
            }
            None => None,
        };
        if self.outbox.send((self.turn, Word::Armed)).await.is_err() {
            return Ok(Ended::Abandoned);
        }
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let switch = match (&here.in_place, here.t0) {
                (Some(in_place), Some(t0)) => in_place.next_switch(t0),
                _ => None,
            };
            tokio::select! {
                biased;
                order = self.inbox.recv() => match order {
                    Some((Order::Start { .. }, t0, _)) => {
                        here.t0 = Some(t0);
                        self.samplers.started(t0);
                        if let (Some(harm), Some(in_place), Some(canaries)) =
                            (&mut self.harm, &mut here.in_place, &canaries)
                        {
                            harm.start(&self.run, in_place, t0).await?;
                            here.during = Some(tokio::spawn(canaries.clone().during(t0)));
                        }
                    }
                    Some((Order::Merging, ..)) => self.samplers.merging(),
                    Some((Order::Disarm, ..)) => break,
                    Some((Order::Arm { .. }, ..)) => return Err("told to arm in the middle of a cell".into()),
                    Some((Order::Abandon, ..)) | None => return Ok(Ended::Abandoned),
                },
                () = sleep_until(switch.unwrap_or_else(Instant::now)), if switch.is_some() => {
                    if let (Some(harm), Some(in_place)) = (&mut self.harm, &mut here.in_place) {
                        harm.switch(in_place).await?;
                    }
                }
                _ = ticks.tick() => {
                    if let Some(reader) = &mut self.reader {
                        reader.read(&mut here.book).await?;
                        if reader.saw_merging {
                            self.samplers.merging();
                        }
                    }
                    if let (Some(harm), Some(_)) = (&mut self.harm, &here.in_place) {
                        harm.renew(&self.run, cell).await?;
                    }
                }
            }
        }
        if let (Some(canaries), Some(t0)) = (&canaries, here.t0)
            && !self.canaries_are_back(cell, canaries, here, t0).await?
        {
            return Ok(Ended::Abandoned);
        }
        self.close(cell, canaries, at).await.map(|evidence| Ended::Disarmed(Box::new(evidence)))
    }

    /// Waits for the canaries of a cell that is over, and keeps the fault in place meanwhile.
    /// `false` when the cell is given up before.
    async fn canaries_are_back(
        &mut self,
        cell: &Cell,
        canaries: &Canaries,
        here: &mut AtCell,
        t0: Instant,
    ) -> Result<bool, String> {
        let Some(mut during) = here.during.take() else { return Ok(true) };
        if canaries.due(t0).is_none_or(|due| due > Instant::now() + TICK) {
            // The cell was over before the fault began; nobody knows when that would be.
            during.abort();
            return Ok(true);
        }
        loop {
            tokio::select! {
                biased;
                order = self.inbox.recv() => {
                    if matches!(order, None | Some((Order::Abandon, ..))) {
                        during.abort();
                        return Ok(false);
                    }
                }
                sent = &mut during => {
                    here.sent = sent.unwrap_or_default();
                    return Ok(true);
                }
                () = tokio::time::sleep(TICK) => {
                    if let Some(harm) = &mut self.harm {
                        harm.renew(&self.run, cell).await?;
                    }
                }
            }
        }
    }

    /// The end of a cell: the fault away, the last canaries, the last posts.
    async fn close(
        &mut self,
        cell: &Cell,
        canaries: Option<Canaries>,
        at: &mut Option<AtCell>,
    ) -> Result<Evidence, String> {
        let Some(here) = at else { return Ok(Evidence::default()) };
        let mut injection = None;
        if cell.fault.is_none()
            && let Some(harm) = &mut self.harm
        {
            harm.is_absent().await?;
        }
        if let (Some(harm), Some(in_place), Some(canaries), Some(t0)) =
            (&mut self.harm, here.in_place.take(), canaries, here.t0)
        {
            let mut done = harm.lift(&self.run, in_place, t0).await?;
            done.proof.before = std::mem::take(&mut here.before);
            done.proof.during = std::mem::take(&mut here.sent);
            done.proof.after = canaries.after().await;
            done.judge(cell.seed);
            injection = Some(done);
        }
        if let Some(reader) = &mut self.reader {
            reader.drain(&mut here.book, cell).await?;
        }
        let Some(here) = at.take() else { return Ok(Evidence::default()) };
        self.seen = here.book.seen();
        let telemetry = self.samplers.close(here.t0.unwrap_or_else(Instant::now)).await;
        Ok(Evidence { posts: self.looked(here.book, here.t0), injection, telemetry, busy: here.busy })
    }

    /// The book of a cell that is over; `None` when there was no tap to fill it.
    fn looked(&self, mut book: Book, t0: Option<Instant>) -> Option<Book> {
        let reader = self.reader.as_ref()?;
        if let Some(t0) = t0.and_then(|t0| reader.on_its_clock(t0)) {
            book.began(t0);
        }
        book.looked_until(reader.now);
        Some(book)
    }
}
