//! A worker's end of the plane: it keeps the lease, the clock and the permit, reads commands, and
//! brings reports out.
//!
//! Load may be made as long as the worker's lease and the manager's both last, by this host's
//! monotonic clock and what the plane last said of them. When one of them runs out, whatever the
//! reason, the worker is lost to the run; it may join again with another epoch.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join3;
use tokio::{
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, MissedTickBehavior},
};

use super::{
    Command, Entry, Hello, Log, MANAGER, Place, Plane, PlaneError, Report, clock::Clock, outbox::Outbox,
    permit::Permit,
};
use crate::crew::{Member, Offset};

/// How often a lease is renewed in its time.
const RENEWALS: u32 = 5;
/// How long a read waits for an entry.
const READ: Duration = Duration::from_secs(2);
/// Pause after a read that failed.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// How a worker joins.
#[derive(Debug, Clone)]
pub struct Terms {
    /// The name it goes by.
    pub name: String,
    /// How long leases last; `None` where they never run out.
    pub lease: Option<Duration>,
    /// Where reports wait that the plane does not take; each life has a file there.
    pub spool: Option<PathBuf>,
    /// The epoch of the manager that invited it: under another one the run is lost, as that one may have
    /// laid down something else. `None` where it is whoever is there.
    pub manager: Option<u64>,
}

/// What a worker hears.
#[derive(Debug, Clone, PartialEq)]
pub enum Word {
    /// From the manager.
    Command(Command),
    /// The run is lost to this worker, and its permit has run out. There is no other word after it.
    Lost(String),
}

/// A worker's end.
#[derive(Debug)]
pub struct WorkerEnd<P> {
    plane: Arc<P>,
    member: Member,
    clock: Arc<Clock>,
    permit: Permit,
    /// `None` once it is closed.
    outbox: Option<Outbox>,
    words: mpsc::Receiver<Word>,
    tasks: Vec<JoinHandle<()>>,
}

impl<P: Plane> WorkerEnd<P> {
    /// Joins the run and says hello. The lease of a life before, which was not given back, is waited
    /// for.
    ///
    /// # Errors
    /// When the plane is away, or somebody else goes by that name.
    pub async fn join(plane: Arc<P>, terms: &Terms, hello: Hello) -> Result<Self, PlaneError> {
        let place = plane.end_of(&Log::Commands).await?;
        let ttl = terms.lease.unwrap_or(Duration::MAX);
        let (member, asked) = take(&*plane, &terms.name, ttl).await?;
        let permit = match terms.lease {
            None => Permit::forever(),
            Some(ttl) => {
                let permit = Permit::none();
                permit.extend(asked + ttl);
                permit
            }
        };
        let clock = Arc::new(Clock::of(&*plane).await?);
        plane.append(&Log::Roll, &Entry::Member(member.clone()), None).await?;
        let spool =
            terms.spool.as_ref().map(|dir| dir.join(format!("{}.{}.spool", member.name, member.epoch)));
        let outbox = Outbox::open(Arc::clone(&plane), member.clone(), spool.as_deref());
        outbox.put(Report::Hello(Box::new(hello)));
        let (sender, words) = mpsc::channel(64);
        let mut tasks = vec![tokio::spawn(read(Arc::clone(&plane), place, sender.clone()))];
        if let Some(ttl) = terms.lease {
            let keeper = Keeper {
                plane: Arc::clone(&plane),
                member: member.clone(),
                ttl,
                clock: Arc::clone(&clock),
                permit: permit.clone(),
                invited_by: terms.manager,
            };
            tasks.push(tokio::spawn(keeper.keep(sender)));
        }
        Ok(Self { plane, member, clock, permit, outbox: Some(outbox), words, tasks })
    }

    /// Who it is in this life.
    pub fn member(&self) -> &Member {
        &self.member
    }

    /// The plane's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How this host's clock stands to it.
    pub fn offset(&self) -> Offset {
        self.clock.offset()
    }

    /// The permit to make load.
    pub fn permit(&self) -> &Permit {
        &self.permit
    }

    /// Says something to the manager, now or as soon as the plane takes it.
    pub fn report(&self, report: Report) {
        if let Some(outbox) = &self.outbox {
            outbox.put(report);
        }
    }

    /// The next word. It can be waited for beside other things, and given up, without losing any.
    pub async fn next(&mut self) -> Word {
        match self.words.recv().await {
            Some(word) => word,
            // Unreachable before `Lost`: the reader holds a sender until it has said that.
            None => std::future::pending().await,
        }
    }

    /// Leaves the run: brings out what is still to be said, for no longer than that, and gives the
    /// lease back. What was not taken is put by in the spool, if there is one; returns how many reports
    /// are neither sent nor put by.
    pub async fn leave(mut self, within: Duration) -> usize {
        for task in &self.tasks {
            task.abort();
        }
        let lost = match self.outbox.take() {
            Some(outbox) if outbox.drained(within).await > 0 => outbox.put_by(),
            _ => 0,
        };
        // A lease that cannot be given back runs out.
        let _ = self.plane.release(&self.member).await;
        lost
    }
}

impl<P> Drop for WorkerEnd<P> {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Takes a lease, and says when it was asked for at the earliest. One that is held is waited for as
/// long as nobody renews it.
///
/// # Errors
/// When the plane is away, or it is renewed.
pub(super) async fn take(
    plane: &impl Plane,
    name: &str,
    ttl: Duration,
) -> Result<(Member, Instant), PlaneError> {
    let mut seen: Option<(u64, Duration)> = None;
    loop {
        let asked = Instant::now();
        let epoch = match plane.take(name, ttl).await {
            Err(PlaneError::Held { epoch, .. }) => epoch,
            other => return other.map(|member| (member, asked)),
        };
        let Some(held) = plane.holders(&[name]).await?.into_iter().next().flatten() else { continue };
        let is_renewed = seen.is_some_and(|(before, left)| before != held.epoch || held.left > left);
        if is_renewed || held.left > ttl.saturating_mul(10) {
            return Err(PlaneError::Held { name: name.to_owned(), epoch });
        }
        seen = Some((held.epoch, held.left));
        tokio::time::sleep(held.left.min(ttl / RENEWALS) + Duration::from_millis(10)).await;
    }
}

async fn read<P: Plane>(plane: Arc<P>, place: Place, words: mpsc::Sender<Word>) {
    let mut places = BTreeMap::from([(Log::Commands, place)]);
    loop {
        match plane.read(&mut places, READ).await {
            Ok(entries) => {
                for entry in entries {
                    let Entry::Command(command) = entry else { continue };
                    if words.send(Word::Command(command)).await.is_err() {
                        return;
                    }
                }
            }
            Err(error) if error.is_passing() => tokio::time::sleep(AFTER_FAILURE).await,
            Err(error) => {
                let _ = words.send(Word::Lost(error.to_string())).await;
                return;
            }
        }
    }
}

/// Renews the lease and watches the manager's.
struct Keeper<P> {
    plane: Arc<P>,
    member: Member,
    ttl: Duration,
    clock: Arc<Clock>,
    permit: Permit,
    invited_by: Option<u64>,
}

/// The manager's lease as it was last seen.
#[derive(Debug, Clone, Copy)]
struct Manager {
    epoch: Option<u64>,
    until: Option<Instant>,
}

impl<P: Plane> Keeper<P> {
    async fn keep(self, words: mpsc::Sender<Word>) {
        let why = Mutex::new("its lease ran out".to_owned());
        let lost = tokio::select! {
            lost = self.renew(&why) => lost,
            // Whatever a renewal waits for: this does not.
            () = self.permit.runs_out() => why.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        };
        self.permit.extend(Instant::now());
        let _ = words.send(Word::Lost(lost)).await;
    }

    /// Renews until the lease is lost; says why.
    async fn renew(&self, why: &Mutex<String>) -> String {
        let mut ticks = tokio::time::interval(self.ttl / RENEWALS);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut manager = Manager { epoch: self.invited_by, until: None };
        let mut own = self.permit.until();
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            // A look that fails changes nothing; the renewal beside it says why.
            let (renewed, holders, _) = join3(
                self.plane.renew(&self.member, self.ttl),
                self.plane.holders(&[MANAGER]),
                self.clock.look(&*self.plane),
            )
            .await;
            if !self.permit.holds() {
                // The process was stopped, or the answer took too long: a new lease must be taken.
                return why.lock().unwrap_or_else(PoisonError::into_inner).clone();
            }
            let mut said = "its lease ran out".to_owned();
            match renewed {
                Ok(()) => own = Some(asked + self.ttl),
                Err(error) if error.is_passing() => said = format!("{error}, and its lease ran out"),
                Err(error) => return error.to_string(),
            }
            match holders.as_deref() {
                Ok([Some(held)]) if manager.epoch.is_some_and(|before| before != held.epoch) => {
                    return "another manager has taken over".into();
                }
                Ok([Some(held)]) => {
                    let until = asked.checked_add(held.left);
                    manager = Manager { epoch: Some(held.epoch), until };
                }
                Ok(_) => return "the manager is gone".into(),
                Err(_) => {}
            }
            if manager.until.is_some_and(|manager| own.is_some_and(|own| manager < own)) {
                said = "the manager's lease ran out".into();
            }
            *why.lock().unwrap_or_else(PoisonError::into_inner) = said;
            if let Some(until) = own.into_iter().chain(manager.until).min() {
                self.permit.extend(until);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plane::{in_process::InProcess, trial::Fitful};

    const TTL: Duration = Duration::from_secs(5);

    fn hello() -> Hello {
        crate::plane::message::trial::hello()
    }

    async fn joined() -> (Arc<Fitful<InProcess>>, Member, WorkerEnd<Fitful<InProcess>>) {
        let plane = Arc::new(Fitful::new(InProcess::new()));
        let manager = plane.take(MANAGER, TTL).await.unwrap();
        let terms = Terms { name: "a".into(), lease: Some(TTL), spool: None, manager: None };
        let end = WorkerEnd::join(plane.clone(), &terms, hello()).await.unwrap();
        (plane, manager, end)
    }

    #[tokio::test(start_paused = true)]
    async fn a_plane_that_is_away_for_a_lease_ends_the_permit_on_time() {
        let (plane, _, mut end) = joined().await;
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(end.permit().holds());
        plane.is_away(true);
        let gone = Instant::now();
        let Word::Lost(why) = end.next().await else { panic!() };
        assert!(why.contains("is away"), "{why}");
        assert!(!end.permit().holds());
        assert!(gone.elapsed() <= TTL, "{:?}", gone.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_plane_that_is_back_in_time_is_nothing() {
        let (plane, _, mut end) = joined().await;
        plane.is_away(true);
        tokio::time::sleep(Duration::from_secs(3)).await;
        plane.is_away(false);
        tokio::time::sleep(Duration::from_secs(20)).await;
        assert!(end.permit().holds());
        plane.append(&Log::Commands, &Entry::Command(Command::End), None).await.unwrap();
        assert_eq!(end.next().await, Word::Command(Command::End));
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_manager_there_is_no_permit() {
        let (plane, manager, mut end) = joined().await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        plane.release(&manager).await.unwrap();
        assert_eq!(end.next().await, Word::Lost("the manager is gone".into()));
        assert!(!end.permit().holds());
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_invited_by_the_manager_before_is_lost_to_the_run() {
        let plane = Arc::new(InProcess::new());
        let first = plane.take(MANAGER, TTL).await.unwrap();
        plane.release(&first).await.unwrap();
        let second = plane.take(MANAGER, TTL).await.unwrap();
        for (invited_by, is_lost) in [(first.epoch, true), (second.epoch, false)] {
            let terms = Terms { name: "a".into(), lease: Some(TTL), spool: None, manager: Some(invited_by) };
            let mut end = WorkerEnd::join(plane.clone(), &terms, hello()).await.unwrap();
            let word = tokio::time::timeout(TTL / 10, end.next()).await.ok();
            assert_eq!(word, is_lost.then(|| Word::Lost("another manager has taken over".into())));
            assert_eq!(end.permit().holds(), !is_lost);
            end.leave(Duration::ZERO).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn another_one_by_its_name_fences_it_off() {
        let (plane, _, mut end) = joined().await;
        plane.release(end.member()).await.unwrap();
        let other = plane.take("a", TTL).await.unwrap();
        assert!(other.epoch > end.member().epoch);
        assert_eq!(end.next().await, Word::Lost(format!("the lease of {} is lost", end.member())));
    }
}
