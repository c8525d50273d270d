//! The manager's end of the plane: it keeps the manager's lease, reads what workers say, sees who
//! still holds a lease, and brings commands out behind the fence.
//!
//! A manager that lost the plane or its lease is cut off: its workers have stopped, or will by their
//! own clocks. It takes the lease again as soon as it can, unless another manager has it by then.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Command, Entry, Log, MANAGER, Plane, PlaneError, Sent, clock::Clock, permit::Permit, worker_end::take,
};
use crate::{crew::Member, micros::Micros};

/// How often the lease is renewed and the others' are looked at, in the time of one.
const RENEWALS: u32 = 10;
/// How long a read waits for an entry.
const READ: Duration = Duration::from_secs(1);
/// Pause between reads of many logs, so that a read brings many entries: a plane looks through all logs
/// each time.
const PACE: Duration = Duration::from_millis(25);
/// From so many logs on.
const MANY: usize = 16;
/// Pause after something failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);
/// How far ahead T0 is set where workers are somewhere else, and where they are in this process.
const LEADS: (Micros, Micros) = (Micros(2_000_000), Micros(50_000));

/// What the manager hears.
#[derive(Debug, Clone, PartialEq)]
pub enum News {
    /// From a worker.
    Sent(Arc<Sent>),
    /// Those who hold a lease now, of all that ever joined, as they were at one look.
    Holders(BTreeSet<Member>),
    /// The plane or the lease on it is lost; workers stop.
    Cut(String),
    /// It is there again, with a new lease.
    Back,
    /// It will never work again, such as when another manager has the run. Nothing comes after it.
    Over(String),
}

/// The manager's end.
#[derive(Debug)]
pub struct ManagerEnd<P> {
    held: Arc<Lease<P>>,
    clock: Arc<Clock>,
    lead: Micros,
    news: mpsc::Receiver<News>,
    tasks: Vec<JoinHandle<()>>,
}

/// The lease as it is held now.
#[derive(Debug)]
struct Lease<P> {
    plane: Arc<P>,
    member: Mutex<Member>,
    permit: Permit,
    /// When it was given back before its time.
    let_go: Mutex<Option<Instant>>,
}

impl<P> Lease<P> {
    fn member(&self) -> MutexGuard<'_, Member> {
        self.member.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Plane> ManagerEnd<P> {
    /// Takes the run and announces it. `lease` is how long leases last, `None` where they never run
    /// out.
    ///
    /// # Errors
    /// When the plane is away, or another manager has the run and renews its lease.
    pub async fn open(plane: Arc<P>, lease: Option<Duration>) -> Result<Self, PlaneError> {
        // Whoever joins from the moment we have the lease on is to be read of.
        let roll = plane.end_of(&Log::Roll).await?;
        let ttl = lease.unwrap_or(Duration::MAX);
        let (member, asked) = take(&*plane, MANAGER, ttl).await?;
        let permit = Permit::forever();
        if let Some(ttl) = lease {
            permit.extend(asked + ttl);
        }
        let clock = Arc::new(Clock::of(&*plane).await?);
        plane.announce().await?;
        let held = Arc::new(Lease { plane, member: Mutex::new(member), permit, let_go: Mutex::default() });
        let (sender, news) = mpsc::channel(256);
        let names = Arc::new(Mutex::new(BTreeSet::new()));
        let places = BTreeMap::from([(Log::Roll, roll)]);
        let look = Arc::new(Look::default());
        let mut tasks = vec![tokio::spawn(read(
            Arc::clone(&held),
            places,
            Arc::clone(&names),
            Arc::clone(&look),
            sender.clone(),
        ))];
        if let Some(ttl) = lease {
            let keeper =
                Keeper { held: Arc::clone(&held), ttl, clock: Arc::clone(&clock), names, look, news: sender };
            tasks.push(tokio::spawn(keeper.keep()));
        }
        let lead = if lease.is_some() { LEADS.0 } else { LEADS.1 };
        Ok(Self { held, clock, lead, news, tasks })
    }

    /// The plane's time, in Unix microseconds.
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// How far ahead T0 is to be set, so that every worker hears of it in time.
    pub fn lead(&self) -> Micros {
        self.lead
    }

    /// Says something to all workers, as soon as the plane takes it.
    ///
    /// # Errors
    /// When it does not while the lease lasts, or the lease is lost.
    pub async fn command(&self, command: Command) -> Result<(), PlaneError> {
        let entry = Entry::Command(command);
        let until = Instant::now() + self.patience();
        loop {
            let member = self.held.member().clone();
            match self.held.plane.append(&Log::Commands, &entry, Some(&member)).await {
                Err(error) if error.is_passing() && Instant::now() < until => {
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                other => return other,
            }
        }
    }

    /// How long it is worth while to try again: as long as the lease lasts, and no longer than that of
    /// a worker that hears nothing.
    fn patience(&self) -> Duration {
        self.held
            .permit
            .until()
            .map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Lets the workers go: they stop as if the manager were gone.
    pub async fn let_go(&self) {
        *self.held.let_go.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        let member = self.held.member().clone();
        let _ = self.held.plane.release(&member).await;
    }

    /// The next news. It can be waited for beside other things, and given up, without losing any.
    pub async fn next(&mut self) -> News {
        match self.news.recv().await {
            Some(news) => news,
            None => std::future::pending().await,
        }
    }

    /// Ends the run on the plane.
    pub async fn close(self) {
        for task in &self.tasks {
            task.abort();
        }
        // What cannot be taken away runs out.
        let member = self.held.member().clone();
        if self.held.plane.renew(&member, Duration::from_secs(1)).await.is_ok() {
            let _ = self.held.plane.close().await;
        }
        let _ = self.held.plane.release(&member).await;
    }
}

impl<P> Drop for ManagerEnd<P> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// The last look at the leases, until it is told. A worker that leaves says so before it gives its lease
/// back: so a look is told when everything that was said before it has been.
#[derive(Debug, Default)]
struct Look {
    holders: Mutex<Option<BTreeSet<Member>>>,
    /// Somebody is gone, which is not to wait for the next entry.
    urgent: Notify,
}

impl Look {
    fn holders(&self) -> MutexGuard<'_, Option<BTreeSet<Member>>> {
        self.holders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn read<P: Plane>(
    held: Arc<Lease<P>>,
    mut places: BTreeMap<Log, super::Place>,
    names: Arc<Mutex<BTreeSet<String>>>,
    look: Arc<Look>,
    news: mpsc::Sender<News>,
) {
    let plane = &held.plane;
    let mut told = BTreeSet::new();
    loop {
        let looked = look.holders().clone();
        let wait = if looked.is_some() { Duration::ZERO } else { READ };
        let read = tokio::select! {
            read = plane.read(&mut places, wait) => read,
            () = look.urgent.notified(), if looked.is_none() => continue,
        };
        let entries = match read {
            Ok(entries) => entries,
            Err(error) => {
                if !error.is_passing() {
                    let why = format!("what workers say cannot be read: {error}");
                    let _ = news.send(News::Over(why)).await;
                    return;
                }
                // The keeper tells, if it lasts.
                tracing::debug!("{error}");
                tokio::time::sleep(AFTER_FAILURE).await;
                continue;
            }
        };
        // Of those who are gone there is nothing left to read: others may go on for ever.
        let says_more =
            |member: &Member| entries.iter().any(|e| matches!(e, Entry::Sent(sent) if sent.from == *member));
        let looked = looked.filter(|holders| !told.difference(holders).any(says_more));
        let has_entries = !entries.is_empty();
        // Those are in our hands now. What cannot be trimmed is trimmed the next time. A process that was
        // stopped may read what another manager has not read yet: the fence keeps it from trimming that.
        if has_entries {
            let read: BTreeMap<_, _> =
                places.iter().filter(|(log, _)| **log != Log::Roll).map(|(l, p)| (l.clone(), *p)).collect();
            let member = held.member().clone();
            let _ = plane.trim(&read, &member).await;
        }
        for entry in entries {
            match entry {
                Entry::Member(member) => {
                    places.entry(Log::Reports(member.name.clone())).or_default();
                    names.lock().unwrap_or_else(PoisonError::into_inner).insert(member.name);
                }
                Entry::Sent(sent) => {
                    if news.send(News::Sent(sent)).await.is_err() {
                        return;
                    }
                }
                Entry::Command(_) => {}
            }
        }
        if let Some(holders) = looked {
            look.holders().take_if(|last| *last == holders);
            told.clone_from(&holders);
            if news.send(News::Holders(holders)).await.is_err() {
                return;
            }
        }
        if has_entries && places.len() > MANY {
            tokio::time::sleep(PACE).await;
        }
    }
}

/// Renews the lease and looks after those of the workers.
struct Keeper<P> {
    held: Arc<Lease<P>>,
    ttl: Duration,
    clock: Arc<Clock>,
    names: Arc<Mutex<BTreeSet<String>>>,
    look: Arc<Look>,
    news: mpsc::Sender<News>,
}

impl<P: Plane> Keeper<P> {
    async fn keep(self) {
        loop {
            let mut why = "the manager's lease ran out".to_owned();
            let cut = tokio::select! {
                cut = self.renew(&mut why) => Some(cut),
                () = self.held.permit.runs_out() => None,
            };
            self.held.permit.extend(Instant::now());
            if self.news.send(News::Cut(cut.unwrap_or(why))).await.is_err() {
                return;
            }
            let news = match self.take_again().await {
                Ok(()) => News::Back,
                Err(PlaneError::Held { epoch, .. }) => {
                    News::Over(format!("another manager goes on with the run (epoch {epoch})"))
                }
                Err(error) => News::Over(format!("the run cannot go on: {error}")),
            };
            let is_over = matches!(news, News::Over(_));
            if self.news.send(news).await.is_err() || is_over {
                return;
            }
        }
    }

    /// Renews until the lease is lost; says why.
    async fn renew(&self, why: &mut String) -> String {
        let mut ticks = tokio::time::interval(self.ttl / RENEWALS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = BTreeSet::new();
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            let member = self.held.member().clone();
            let renewed = self.held.plane.renew(&member, self.ttl).await;
            if !self.held.permit.holds() {
                // The process was stopped: what it took for its own may be another's by now.
                return std::mem::take(why);
            }
            match renewed {
                Ok(()) => self.held.permit.extend(asked + self.ttl),
                Err(error) if error.is_passing() => {
                    *why = format!("{error}, and the manager's lease ran out");
                    continue;
                }
                Err(error) => return error.to_string(),
            }
            // Worse looks than the best change nothing; failures show in the renewal.
            let _ = self.clock.look(&*self.held.plane).await;
            if let Some(holders) = self.look().await {
                let is_gone = !holders.is_superset(&before);
                before.clone_from(&holders);
                *self.look.holders() = Some(holders);
                if is_gone {
                    self.look.urgent.notify_one();
                }
            }
        }
    }

    async fn look(&self) -> Option<BTreeSet<Member>> {
        let names: Vec<String> =
            self.names.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect();
        if names.is_empty() {
            return None;
        }
        let asked: Vec<&str> = names.iter().map(String::as_str).collect();
        let holders = self.held.plane.holders(&asked).await.ok()?;
        let held = names.into_iter().zip(holders);
        Some(held.filter_map(|(name, held)| held.map(|h| Member { name, epoch: h.epoch })).collect())
    }

    /// Takes the lease again, once the plane is there.
    async fn take_again(&self) -> Result<(), PlaneError> {
        let plane = &*self.held.plane;
        let let_go = self.held.let_go.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(at) = let_go {
            // A worker that does not reach the plane counts on the lease that it saw last.
            tokio::time::sleep_until(at + self.ttl).await;
        }
        loop {
            let taken = match take(plane, MANAGER, self.ttl).await {
                Ok((member, asked)) => {
                    *self.held.member() = member;
                    self.held.permit.give(asked + self.ttl);
                    plane.announce().await
                }
                Err(error) => Err(error),
            };
            match taken {
                Err(error) if error.is_passing() => tokio::time::sleep(AFTER_FAILURE).await,
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::{Report, in_process::InProcess};

    /// A worker that is gone is missed though another one has always something to say.
    #[tokio::test(start_paused = true)]
    async fn the_talk_of_others_hides_no_loss() {
        let ttl = Duration::from_secs(5);
        let plane = Arc::new(InProcess::new());
        let mut end = ManagerEnd::open(Arc::clone(&plane), Some(ttl)).await.unwrap();
        let mut members = Vec::new();
        for name in ["a", "b"] {
            let member = plane.take(name, ttl).await.unwrap();
            plane.append(&Log::Roll, &Entry::Member(member.clone()), None).await.unwrap();
            members.push(member);
        }
        while end.next().await != News::Holders(members.iter().cloned().collect()) {}
        let talks = tokio::spawn({
            let (plane, from) = (Arc::clone(&plane), members[1].clone());
            async move {
                loop {
                    let sent = Sent { from: from.clone(), report: Report::Merging { cell: 0 } };
                    let log = Log::Reports(from.name.clone());
                    plane.append(&log, &Entry::Sent(Arc::new(sent)), None).await.unwrap();
                    tokio::time::sleep(Duration::from_micros(100)).await;
                }
            }
        });
        plane.release(&members[0]).await.unwrap();
        let missed = async { while end.next().await != News::Holders([members[1].clone()].into()) {} };
        tokio::time::timeout(Duration::from_secs(3), missed).await.unwrap();
        talks.abort();
    }

    /// However much there is to read, and however long that takes.
    #[tokio::test(start_paused = true)]
    async fn who_left_is_heard_to_the_end_before_it_is_missed() {
        const REPORTS: u32 = 1_000;
        let ttl = Duration::from_secs(5);
        let plane = Arc::new(InProcess::new());
        let mut end = ManagerEnd::open(Arc::clone(&plane), Some(ttl)).await.unwrap();
        let worker = plane.take("a", ttl).await.unwrap();
        plane.append(&Log::Roll, &Entry::Member(worker.clone()), None).await.unwrap();
        while end.next().await != News::Holders(BTreeSet::from([worker.clone()])) {}
        for cell in 0..REPORTS {
            let sent = Sent { from: worker.clone(), report: Report::Merging { cell } };
            let log = Log::Reports(worker.name.clone());
            plane.append(&log, &Entry::Sent(Arc::new(sent)), None).await.unwrap();
        }
        plane.release(&worker).await.unwrap();
        let mut heard = 0;
        loop {
            match end.next().await {
                News::Sent(_) => heard += 1,
                News::Holders(holders) if !holders.contains(&worker) => break,
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(heard, REPORTS);
    }
}
