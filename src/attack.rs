//! Real users: the only file that configures Goose.
//!
//! Goose starts the users and keeps them running, each a task that lives as long as the run and
//! takes part in cell after cell. Sending and measuring are ours (`loadtests`, `recorder`), so
//! Goose's metrics, logs and controllers are off, and its users share one idle HTTP client.
//!
//! Every load thread has a current-thread runtime and a Goose attack of its own. A multi-thread
//! runtime would add a tail of its own to the response times: a task whose answer has arrived
//! waits for a worker that is busy elsewhere.

use std::{
    sync::{Arc, Weak},
    thread,
    time::Duration,
};

use goose as g;
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    driver::{CellRun, Driver, Gate},
    loadtests::{self, Kit, User},
    recorder::{Recorder, thread_cpu},
};

/// How often a load thread checks whether it is served in time.
const PULSE: Duration = Duration::from_millis(50);

/// How long users may take to leave when the attack is over.
const LAST_GRACE: Duration = Duration::from_secs(3);

/// Users on Goose, on one or more load threads.
pub struct Attack {
    lanes: Vec<Lane>,
}

/// Why there is no attack.
#[derive(Debug, thiserror::Error)]
pub enum AttackError {
    /// A thread or runtime could not be started.
    #[error("load thread: {0}")]
    Thread(#[from] std::io::Error),
    /// Goose refused.
    #[error("goose: {0}")]
    Goose(Box<g::GooseError>),
}

impl From<g::GooseError> for AttackError {
    fn from(e: g::GooseError) -> Self {
        Self::Goose(Box::new(e))
    }
}

/// One load thread.
struct Lane {
    orders: watch::Sender<Order>,
    /// Why the thread has ended, once it has.
    ended: watch::Receiver<Option<String>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// What the users of a lane are to do.
#[derive(Clone)]
enum Order {
    /// There is no cell yet.
    Wait,
    /// Take part in this one.
    Take(Part),
    /// There will be no more.
    Leave,
}

/// A cell, as one lane is told of it.
#[derive(Clone)]
struct Part {
    run: Arc<CellRun>,
    recorder: Arc<Recorder>,
    /// Passed by each user that is through with the cell.
    through: Arc<Gate>,
}

impl Attack {
    /// Starts `capacity` users on `threads` load threads. They wait for their first cell.
    ///
    /// # Errors
    /// When a thread, a runtime or Goose cannot be started.
    pub fn launch(capacity: u32, threads: u32, kit: &Arc<Kit>) -> Result<Self, AttackError> {
        let threads = threads.clamp(1, capacity.max(1));
        let lanes =
            (0..threads).map(|lane| Lane::launch(lane, threads, capacity, kit)).collect::<Result<_, _>>()?;
        Ok(Self { lanes })
    }
}

impl Driver for Attack {
    fn threads(&self) -> usize {
        self.lanes.len()
    }

    async fn drive(&self, run: Arc<CellRun>) {
        let through = Arc::new(Gate::new(run.hands()));
        for (lane, recorder) in self.lanes.iter().zip(&run.recorders) {
            let (run, recorder) = (Arc::clone(&run), Arc::clone(recorder));
            lane.orders.send_replace(Order::Take(Part { run, recorder, through: Arc::clone(&through) }));
        }
        let broken = self.lanes.iter().map(|lane| {
            let mut ended = lane.ended.clone();
            Box::pin(async move { ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone()) })
        });
        tokio::select! {
            () = through.full() => {}
            (why, ..) = futures_util::future::select_all(broken) => {
                run.fail(why.unwrap_or_else(|| "a load thread broke down".into()));
            }
        }
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        for lane in &self.lanes {
            lane.orders.send_replace(Order::Leave);
        }
        let deadline = std::time::Instant::now() + LAST_GRACE;
        for lane in &mut self.lanes {
            let Some(thread) = lane.thread.take() else { continue };
            // Users that hang are left to the end of the process; to wait for them would be to
            // hang with them.
            while !thread.is_finished() && std::time::Instant::now() < deadline {
                thread::sleep(Duration::from_millis(10));
            }
            if thread.is_finished() {
                // A load thread that panicked has said so; there is nothing to add here.
                let _ = thread.join();
            }
        }
    }
}

impl Lane {
    /// Starts the users `lane`, `lane + lanes`, `lane + 2·lanes`, … below `capacity`.
    fn launch(lane: u32, lanes: u32, capacity: u32, kit: &Arc<Kit>) -> Result<Self, AttackError> {
        let users = (capacity - lane).div_ceil(lanes);
        let orders = watch::Sender::new(Order::Wait);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let attack = prepare(users, kit.origin.url(), {
            let (orders, kit) = (orders.clone(), Arc::clone(kit));
            move |index| {
                let user = User::new(index * lanes + lane, Arc::clone(&kit));
                live(user, subscribe(&orders))
            }
        })?;
        let (end, ended) = watch::channel(None);
        let pulse = pulse(subscribe(&orders), Arc::downgrade(kit));
        let thread = thread::Builder::new().name(format!("load-{lane}")).spawn(move || {
            runtime.block_on(async {
                let pulse = tokio::spawn(pulse);
                let why = match attack.execute().await {
                    Ok(_) => "goose ended the users".to_owned(),
                    Err(e) => format!("goose: {e:?}"),
                };
                end.send_replace(Some(why));
                // It may wait for a cell that nobody begins any more.
                pulse.abort();
            });
        })?;
        Ok(Self { orders, ended, thread: Some(thread) })
    }
}

/// Configures Goose for `users` users of one transaction, run once, which is their whole life.
fn prepare<F, L>(users: u32, host: &str, life: F) -> Result<g::GooseAttack, g::GooseError>
where
    F: Fn(u32) -> L + Send + Sync + 'static,
    L: Future<Output = ()> + Send + 'static,
{
    let mut config = g::config::GooseConfiguration::default();
    config.host = Some(host.to_owned());
    config.users = Some(users as usize);
    config.increase_rate = Some("100000".into());
    config.iterations = Some(1);
    config.quiet = 2;
    config.no_metrics = true;
    config.no_transaction_metrics = true;
    config.no_scenario_metrics = true;
    config.no_print_metrics = true;
    config.no_error_summary = true;
    config.no_telnet = true;
    let life: g::goose::TransactionFunction = Arc::new(move |user: &mut g::goose::GooseUser| {
        let life = life(u32::try_from(user.weighted_users_index).unwrap_or(u32::MAX));
        Box::pin(async move {
            life.await;
            Ok(())
        })
    });
    let scenario =
        g::goose::Scenario::new("springtide").register_transaction(g::goose::Transaction::new(life));
    g::GooseAttack::initialize_with_config(config)?
        .register_scenario(scenario)
        .set_client_builder_without_cookies(g::client::GooseClientBuilder::new().without_cookies())
}

/// A user's life: cell after cell until there are no more.
async fn live(mut user: User, mut orders: watch::Receiver<Order>) {
    while let Some(part) = next(&mut orders).await {
        if user.slot() >= part.run.hands() {
            continue;
        }
        // Said even if the part is cut short by a panic, so that nobody waits for it for ever.
        let through = Through { gate: part.through, run: Arc::clone(&part.run) };
        loadtests::take_part(&mut user, &part.run, &part.recorder).await;
        drop(through);
    }
}

struct Through {
    gate: Arc<Gate>,
    run: Arc<CellRun>,
}

impl Drop for Through {
    fn drop(&mut self) {
        if thread::panicking() {
            self.run.fail("a user broke down; this is a defect of springtide".into());
        }
        self.gate.arrive();
    }
}

/// The next cell; `None` when there will be no more.
async fn next(orders: &mut watch::Receiver<Order>) -> Option<Part> {
    loop {
        orders.changed().await.ok()?;
        match orders.borrow_and_update().clone() {
            Order::Take(part) => return Some(part),
            Order::Leave => return None,
            Order::Wait => {}
        }
    }
}

/// A receiver to which the order that stands is news: Goose may start a user late.
fn subscribe(orders: &watch::Sender<Order>) -> watch::Receiver<Order> {
    let mut receiver = orders.subscribe();
    receiver.mark_changed();
    receiver
}

/// Watches over its load thread while a cell's clock runs: whether a timer is served in time, how
/// much CPU the thread takes, how many sockets are open.
async fn pulse(mut orders: watch::Receiver<Order>, kit: Weak<Kit>) {
    while let Some(Part { run, recorder, .. }) = next(&mut orders).await {
        tokio::select! {
            () = run.stop.cancelled() => continue,
            _ = run.start.opened() => {}
        }
        let mut ticks = tokio::time::interval(PULSE);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let (mut cpu, mut wall) = (thread_cpu(), Instant::now());
        loop {
            let due = tokio::select! {
                biased;
                _ = run.settle.opened() => break,
                () = run.stop.cancelled() => break,
                due = ticks.tick() => due,
            };
            recorder.lag(due.elapsed().into());
            let (cpu_now, wall_now) = (thread_cpu(), Instant::now());
            recorder.cpu(cpu_now.saturating_sub(cpu).into(), (wall_now - wall).into());
            (cpu, wall) = (cpu_now, wall_now);
            if let Some(kit) = kit.upgrade() {
                recorder.sockets(kit.sockets.take_peak());
            }
        }
    }
}

/// How many load threads serve that many users best: one, until there are so many that a core is
/// not enough for them.
pub fn threads_for(users: u32, cores: u32) -> u32 {
    (users / 1_000 + 1).min(cores.max(1))
}
