//! A plane where leases run out as they do over many hosts, answers take time, and what is said may
//! be lost, come twice or in another order: as chance will have it, the same for the same seed.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use crate::{
    crew::Member,
    micros::Micros,
    plane::{Entry, Held, Log, MANAGER, Place, Plane, PlaneError, in_process::InProcess},
};

/// How bad it is, in percent of what workers and the manager say.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Storm {
    pub(crate) seed: u64,
    /// It is not taken down, and nobody is told so.
    pub(crate) lost: u32,
    /// It is taken down twice.
    pub(crate) twice: u32,
    /// It is taken down behind what comes next.
    pub(crate) late: u32,
    /// It is taken down or not, and the answer is lost.
    pub(crate) vague: u32,
}

/// The way to one plane; copies lead to the same.
#[derive(Debug, Clone)]
pub(crate) struct Stormy {
    logs: Arc<InProcess>,
    state: Arc<Mutex<State>>,
    storm: Storm,
}

#[derive(Debug)]
struct State {
    chance: ChaCha8Rng,
    leases: BTreeMap<String, (u64, Instant)>,
    epochs: u64,
    /// What waits for the next entry of its log.
    late: BTreeMap<Log, Entry>,
}

impl State {
    fn holder(&self, name: &str) -> Option<(u64, Instant)> {
        self.leases.get(name).filter(|(_, until)| Instant::now() < *until).copied()
    }

    fn holds(&self, lease: &Member) -> bool {
        self.holder(&lease.name).is_some_and(|(epoch, _)| epoch == lease.epoch)
    }

    fn percent(&mut self, percent: u32) -> bool {
        self.chance.random_range(0..100) < percent
    }
}

impl Stormy {
    pub(crate) fn new(storm: Storm) -> Self {
        let chance = ChaCha8Rng::seed_from_u64(storm.seed);
        let state = State { chance, leases: BTreeMap::new(), epochs: 0, late: BTreeMap::new() };
        Self { logs: Arc::new(InProcess::new()), state: Arc::new(Mutex::new(state)), storm }
    }

    /// Who has the manager's lease.
    pub(crate) fn manager(&self) -> Option<u64> {
        self.state().holder(MANAGER).map(|(epoch, _)| epoch)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn way(&self) {
        let way = self.state().chance.random_range(50..8_000);
        sleep(Duration::from_micros(way)).await;
    }

    /// What comes of an entry: those to be taken down now, and whether its sender hears of it.
    fn fate(&self, log: &Log, entry: &Entry) -> (Vec<Entry>, bool) {
        let Storm { lost, twice, late, vague, .. } = self.storm;
        let mut state = self.state();
        let mut now = Vec::new();
        let is_told = !state.percent(vague);
        // Who came is known by its lease as well; without that log nobody would be asked.
        if *log == Log::Roll {
            return (vec![entry.clone()], is_told);
        }
        let waited = state.late.remove(log);
        if state.percent(late) {
            state.late.insert(log.clone(), entry.clone());
        } else if !state.percent(lost) {
            let times = if state.percent(twice) { 2 } else { 1 };
            now = vec![entry.clone(); times];
        }
        now.extend(waited);
        (now, is_told)
    }
}

impl Plane for Stormy {
    async fn append(&self, log: &Log, entry: &Entry, fence: Option<&Member>) -> Result<(), PlaneError> {
        self.way().await;
        if let Some(lease) = fence
            && !self.state().holds(lease)
        {
            return Err(PlaneError::Fenced(lease.clone()));
        }
        let (entries, is_told) = self.fate(log, entry);
        for entry in entries {
            self.logs.append(log, &entry, None).await?;
        }
        if is_told { Ok(()) } else { Err(PlaneError::Away("gave no answer".into())) }
    }

    async fn read(
        &self,
        places: &mut BTreeMap<Log, Place>,
        wait: Duration,
    ) -> Result<Vec<Entry>, PlaneError> {
        self.way().await;
        self.logs.read(places, wait).await
    }

    async fn end_of(&self, log: &Log) -> Result<Place, PlaneError> {
        self.way().await;
        self.logs.end_of(log).await
    }

    async fn trim(&self, places: &BTreeMap<Log, Place>, fence: &Member) -> Result<(), PlaneError> {
        if !self.state().holds(fence) {
            return Err(PlaneError::Fenced(fence.clone()));
        }
        // The logs know nothing of these leases.
        let inner = self.logs.take("trim", Duration::ZERO).await?;
        let trimmed = self.logs.trim(places, &inner).await;
        self.logs.release(&inner).await?;
        trimmed
    }

    async fn take(&self, name: &str, ttl: Duration) -> Result<Member, PlaneError> {
        self.way().await;
        let mut state = self.state();
        if let Some((epoch, _)) = state.holder(name) {
            return Err(PlaneError::Held { name: name.to_owned(), epoch });
        }
        state.epochs += 1;
        let epoch = state.epochs;
        state.leases.insert(name.to_owned(), (epoch, Instant::now() + ttl));
        Ok(Member { name: name.to_owned(), epoch })
    }

    async fn renew(&self, lease: &Member, ttl: Duration) -> Result<(), PlaneError> {
        self.way().await;
        {
            let mut state = self.state();
            if !state.holds(lease) {
                return Err(PlaneError::Fenced(lease.clone()));
            }
            state.leases.insert(lease.name.clone(), (lease.epoch, Instant::now() + ttl));
        }
        self.way().await;
        let is_vague = self.state().percent(self.storm.vague);
        if is_vague { Err(PlaneError::Away("gave no answer".into())) } else { Ok(()) }
    }

    async fn release(&self, lease: &Member) -> Result<(), PlaneError> {
        let mut state = self.state();
        if state.holds(lease) {
            state.leases.remove(&lease.name);
        }
        Ok(())
    }

    async fn holders(&self, names: &[&str]) -> Result<Vec<Option<Held>>, PlaneError> {
        self.way().await;
        let held: Vec<_> = {
            let state = self.state();
            let left = |until: Instant| until.saturating_duration_since(Instant::now());
            let held =
                |name: &&str| state.holder(name).map(|(epoch, until)| Held { epoch, left: left(until) });
            names.iter().map(held).collect()
        };
        self.way().await;
        Ok(held)
    }

    async fn time(&self) -> Result<Micros, PlaneError> {
        self.way().await;
        self.logs.time().await
    }

    async fn announce(&self) -> Result<(), PlaneError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), PlaneError> {
        Ok(())
    }
}
