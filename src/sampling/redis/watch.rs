//! The task that watches a Redis: one connection, one look a second while a cell is open.
//!
//! It never fails. A connection that is lost is opened again at the next tick; what was missed is a
//! gap. Every wait has an end, so that nobody who waits for this task waits longer than the few
//! seconds that [`RedisSampler`](super::RedisSampler) promises.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use redis::Value;
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval, timeout},
};
use tokio_rustls::TlsConnector;

use super::{
    address::Address,
    answer::{batch, escaped, number, text},
    info::{Info, stats},
    keys::{BATCHES_A_SECOND, HEAD, KeyBook},
    link::{Asks, Link, Lost, Own},
    told::{AtCell, Reading},
};
use crate::telemetry::redis::{RedisSample, RedisSeries};

/// How often Redis is looked at.
const EVERY: Duration = Duration::from_secs(1);
/// How long a look may wait for its answers before the connection counts as lost.
const LOOK_WITHIN: Duration = Duration::from_secs(5);
/// The same where somebody waits for us.
const SOON: Duration = Duration::from_millis(800);
/// How long connecting may take.
const CONNECT_WITHIN: Duration = Duration::from_millis(700);
/// How long a look that is under way may go on when somebody waits.
const GRACE: Duration = Duration::from_millis(400);
/// How long the scan may take that learns which results are there before a cell.
const SCAN_BEFORE: Duration = Duration::from_millis(1_200);
/// How long the scan may take that finds the last results of a cell.
const SCAN_AFTER: Duration = Duration::from_secs(5);
/// How many keys Redis walks by at a time while a cell runs, and when nothing runs: some 50 µs and
/// 200 µs of its time.
const BATCH: (&str, &str) = ("100", "400");
/// Kombu keeps a list of its own for messages of each of these priorities, beside the one of the
/// queue's name.
const PRIORITIES: [&str; 3] = ["3", "6", "9"];

/// What the watcher is told.
pub(super) enum Order {
    /// A cell is about to begin.
    Open(oneshot::Sender<()>),
    /// It is over; its T0.
    Close(Instant, oneshot::Sender<RedisSeries>),
    /// What is there to be done? The answer is `None` when Redis is not there.
    Backlog(oneshot::Sender<Option<Backlog>>),
}

/// What the target has still to do, as far as its Redis tells.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Lengths of the queues.
    pub(super) queues: BTreeMap<String, u64>,
    /// Messages that workers took and did not begin with.
    pub(super) unacked: u64,
    /// Bytes that others moved in and out since it was started.
    pub(super) moved: u64,
}

/// Everything the task knows.
pub(super) struct Watch {
    address: Address,
    tls: Option<TlsConnector>,
    /// Names of queues, and what stands before every key.
    queues: Vec<String>,
    prefix: String,
    link: Option<Link>,
    own: Own,
    keys: KeyBook,
    /// What it asked before the connection in use was opened.
    calls_before_link: BTreeMap<&'static str, u64>,
    cell: Option<AtCell>,
    /// What was complained about already.
    said: BTreeSet<String>,
}

impl Watch {
    pub(super) fn new(
        address: Address,
        tls: Option<TlsConnector>,
        queues: Vec<String>,
        prefix: String,
        link: Link,
        own: Own,
    ) -> Self {
        Self {
            address,
            tls,
            queues,
            prefix,
            link: Some(link),
            own,
            keys: KeyBook::default(),
            calls_before_link: BTreeMap::new(),
            cell: None,
            said: BTreeSet::new(),
        }
    }

    /// Serves until nobody can tell it anything any more.
    pub(super) async fn serve(mut self, mut inbox: mpsc::Receiver<Order>) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            let order = tokio::select! {
                biased;
                order = inbox.recv() => order,
                _ = ticks.tick(), if self.cell.is_some() => {
                    let mut look = std::pin::pin!(self.look_and_scan());
                    tokio::select! {
                        biased;
                        () = &mut look => continue,
                        order = inbox.recv() => {
                            let _ = timeout(GRACE, look).await;
                            order
                        }
                    }
                }
            };
            // Whoever asked may have gone meanwhile.
            match order {
                None => return,
                Some(Order::Open(done)) => {
                    self.open().await;
                    ticks.reset();
                    let _ = done.send(());
                }
                Some(Order::Close(t0, done)) => {
                    let _ = done.send(self.close(t0).await);
                }
                Some(Order::Backlog(done)) => {
                    let _ = done.send(self.backlog().await);
                }
            }
        }
    }

    async fn open(&mut self) {
        self.keys.begin_cell();
        self.cell = Some(AtCell::new(&self.own));
        self.look(SOON).await;
        if self.scan(SCAN_BEFORE).await.is_none() {
            self.keys.is_partial();
        }
    }

    async fn close(&mut self, t0: Instant) -> RedisSeries {
        if self.cell.is_none() {
            return RedisSeries::default();
        }
        let closed = Instant::now();
        self.look(SOON).await;
        let is_told_apart = self.keys.is_told_apart();
        self.keys.begin_pass();
        if !is_told_apart || self.scan(SCAN_AFTER).await.is_none() {
            self.keys.is_partial();
        }
        let last = self.read_stats(SOON).await.ok();
        let sizes = self.keys.take_sizes();
        let Some(cell) = self.cell.take() else { return RedisSeries::default() };
        cell.told(t0, closed, last, sizes, &self.own)
    }

    /// Whether there is a connection; opens one when there is none.
    async fn connected(&mut self) -> bool {
        if self.link.is_some() {
            return true;
        }
        self.calls_before_link = self.own.calls.clone();
        match Link::open(&self.address, self.tls.as_ref(), &mut self.own, CONNECT_WITHIN).await {
            Ok(link) => {
                self.link = Some(link);
                true
            }
            Err(error) => {
                self.missed(error.to_string());
                false
            }
        }
    }

    fn missed(&mut self, why: String) {
        if let Some(cell) = &mut self.cell {
            cell.missed(why);
        }
    }

    /// Asks; a connection that fails is given up.
    async fn ask(&mut self, asks: &Asks, within: Duration) -> Result<Vec<Value>, ()> {
        let Some(link) = &mut self.link else { return Err(()) };
        match link.ask(asks, &mut self.own, within).await {
            Ok(answers) => Ok(answers),
            Err(Lost(why)) => {
                self.link = None;
                self.missed(why);
                Err(())
            }
        }
    }

    /// What a second asks for: a sample, and a part of the keys.
    async fn look_and_scan(&mut self) {
        if self.look(LOOK_WITHIN).await {
            let mut batches = 0;
            while batches < BATCHES_A_SECOND {
                batches += 1;
                match self.scan_batch(BATCH.0, LOOK_WITHIN).await {
                    // The next pass is for the next second.
                    Ok(true) => {
                        self.keys.begin_pass();
                        return;
                    }
                    Ok(false) => {}
                    Err(()) => return,
                }
            }
        }
    }

    /// One sample; `false` when there was none to be had.
    async fn look(&mut self, within: Duration) -> bool {
        if !self.connected().await {
            return false;
        }
        let mut asks = Asks::default();
        asks.add("info", &[]);
        self.add_queues(&mut asks);
        asks.add("hlen", &[format!("{}unacked", self.prefix).as_bytes()]);
        let asked = Instant::now();
        let Ok(answers) = self.ask(&asks, within).await else { return false };
        let took = asked.elapsed();
        let text = text(&answers[0]).unwrap_or_default();
        let info = Info::read(&text);
        if !info.is_of_redis() {
            self.complain("INFO", &answers[0]);
            self.missed("INFO was refused".into());
            return false;
        }
        let queues = self.lengths(&answers[1..answers.len() - 1]);
        let unacked = answers.last().and_then(number).unwrap_or(0);
        let result_keys = self.keys.count();
        let sample = RedisSample { queues, unacked, result_keys, took: took.into(), ..info.sample() };
        let before = &self.calls_before_link;
        let Some(cell) = &mut self.cell else { return true };
        if cell.sample(asked + took / 2, info.text("run_id"), sample, &self.own, before) {
            // Without a store of its own it has lost its keys; with one, they may come back.
            self.keys.is_partial();
            self.keys.begin_pass();
        }
        if cell.wants_stats()
            && let Ok(reading) = self.read_stats(within).await
            && let Some(cell) = &mut self.cell
        {
            cell.count_from(reading);
        }
        true
    }

    async fn read_stats(&mut self, within: Duration) -> Result<Reading, ()> {
        let calls = self.own.calls.clone();
        let mut asks = Asks::default();
        asks.add("info", &[b"commandstats"]);
        asks.add("info", &[b"latencystats"]);
        let answers = self.ask(&asks, within).await?;
        let text = |i: usize| answers.get(i).and_then(text).unwrap_or_default();
        Ok(Reading { stats: stats(&text(0), &text(1)), calls })
    }

    fn add_queues(&self, asks: &mut Asks) {
        for name in &self.queues {
            let key = format!("{}{name}", self.prefix);
            asks.add("llen", &[key.as_bytes()]);
            for priority in PRIORITIES {
                asks.add("llen", &[format!("{key}\x06\x16{priority}").as_bytes()]);
            }
        }
    }

    /// Lengths of the queues out of the answers, all priorities of each together. A key that is no
    /// list has none.
    fn lengths(&mut self, answers: &[Value]) -> BTreeMap<String, u64> {
        let mut all = BTreeMap::new();
        for (name, lists) in self.queues.clone().into_iter().zip(answers.chunks(1 + PRIORITIES.len())) {
            match lists.iter().map(number).sum::<Option<u64>>() {
                Some(length) => {
                    all.insert(name, length);
                }
                None => {
                    let odd = lists.iter().find(|v| number(v).is_none()).unwrap_or(&Value::Nil);
                    self.complain(&format!("LLEN {name}"), odd);
                }
            }
        }
        all
    }

    /// Says once what Redis would not do for us.
    fn complain(&mut self, what: &str, answer: &Value) {
        let said = match answer {
            Value::ServerError(e) => format!("{} {}", e.code(), e.details().unwrap_or_default()),
            _ => "an odd answer".into(),
        };
        if self.said.insert(what.to_owned()) {
            tracing::warn!("{}: {what}: {said}", self.address);
        }
    }

    async fn backlog(&mut self) -> Option<Backlog> {
        if !self.connected().await {
            return None;
        }
        let own = |own: &Own| own.sent() + own.received();
        let before = own(&self.own);
        let mut asks = Asks::default();
        asks.add("info", &[]);
        asks.add("hlen", &[format!("{}unacked", self.prefix).as_bytes()]);
        self.add_queues(&mut asks);
        let answers = self.ask(&asks, SOON).await.ok()?;
        let text = text(answers.first()?).unwrap_or_default();
        let sample = Info::read(&text).sample();
        Some(Backlog {
            unacked: answers.get(1).and_then(number).unwrap_or(0),
            queues: self.lengths(&answers[2..]),
            moved: (sample.net_input + sample.net_output).saturating_sub(before),
        })
    }

    /// Goes on with the pass until it is through; `None` when that takes too long.
    async fn scan(&mut self, within: Duration) -> Option<()> {
        let until = Instant::now() + within;
        while Instant::now() < until {
            if self.scan_batch(BATCH.1, SOON).await.ok()? {
                self.keys.begin_pass();
                return Some(());
            }
        }
        None
    }

    /// One batch of keys; `true` when it was the last of its pass.
    async fn scan_batch(&mut self, count: &str, within: Duration) -> Result<bool, ()> {
        let pattern = format!("{}celery-task-meta-*", escaped(&self.prefix));
        let mut asks = Asks::default();
        let cursor = self.keys.cursor().to_string();
        asks.add("scan", &[cursor.as_bytes(), b"MATCH", pattern.as_bytes(), b"COUNT", count.as_bytes()]);
        let answers = self.ask(&asks, within).await?;
        let Some((next, keys)) = answers.into_iter().next().map(batch).transpose().map_err(|odd| {
            self.complain("SCAN", &odd);
            self.keys.is_partial();
        })?
        else {
            return Err(());
        };
        let new = self.keys.batch(next, keys);
        let mut asks = Asks::default();
        for key in &new {
            asks.add("strlen", &[key]);
            asks.add("getrange", &[key, b"0", (HEAD - 1).to_string().as_bytes()]);
        }
        if !asks.is_empty() {
            let answers = self.ask(&asks, within).await?;
            for (key, both) in new.iter().zip(answers.chunks(2)) {
                match (number(&both[0]), &both[1]) {
                    (Some(bytes), Value::BulkString(head)) => self.keys.sized(key, bytes, head),
                    _ => {
                        self.complain("STRLEN and GETRANGE of a stored result", &both[0]);
                        self.keys.is_partial();
                    }
                }
            }
        }
        Ok(self.keys.end_pass())
    }
}
