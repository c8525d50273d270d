//! The plane of a local run: logs in memory, leases that last as long as the process.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};

use super::{Entry, Held, Log, Place, Plane, PlaneError};
use crate::{crew::Member, micros::Micros, recorder::unix_micros};

/// Manager and workers in one process. An entry is moved, not written down, and forgotten when the
/// reader of its log says so.
#[derive(Debug)]
pub struct InProcess {
    began: (Instant, u64),
    state: Mutex<State>,
    grown: Notify,
}

#[derive(Debug, Default)]
struct State {
    logs: BTreeMap<Log, Kept>,
    leases: BTreeMap<String, u64>,
    epochs: u64,
}

impl State {
    fn fence(&self, lease: &Member) -> Result<(), PlaneError> {
        let is_held = self.leases.get(&lease.name) == Some(&lease.epoch);
        is_held.then_some(()).ok_or_else(|| PlaneError::Fenced(lease.clone()))
    }
}

/// The entries of a log that are not forgotten, and the number of the first of them, from 1.
#[derive(Debug, Default)]
struct Kept {
    first: u64,
    entries: VecDeque<Entry>,
}

impl InProcess {
    /// Empty logs, nobody there.
    pub fn new() -> Self {
        Self { began: (Instant::now(), unix_micros()), state: Mutex::default(), grown: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_now(&self, places: &mut BTreeMap<Log, Place>) -> Vec<Entry> {
        let state = self.state();
        let mut read = Vec::new();
        for (log, place) in places {
            let Some(kept) = state.logs.get(log) else { continue };
            let from = (place.0 + 1).saturating_sub(kept.first) as usize;
            read.extend(kept.entries.iter().skip(from).cloned());
            place.0 = place.0.max((kept.first + kept.entries.len() as u64).saturating_sub(1));
        }
        read
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl Plane for InProcess {
    async fn append(&self, log: &Log, entry: &Entry, fence: Option<&Member>) -> Result<(), PlaneError> {
        let mut state = self.state();
        fence.map_or(Ok(()), |lease| state.fence(lease))?;
        let kept = state.logs.entry(log.clone()).or_insert_with(|| Kept { first: 1, ..Kept::default() });
        kept.entries.push_back(entry.clone());
        drop(state);
        self.grown.notify_waiters();
        Ok(())
    }

    async fn read(
        &self,
        places: &mut BTreeMap<Log, Place>,
        wait: Duration,
    ) -> Result<Vec<Entry>, PlaneError> {
        let until = Instant::now() + wait;
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            let read = self.read_now(places);
            if !read.is_empty() || timeout_at(until, grown).await.is_err() {
                return Ok(read);
            }
        }
    }

    async fn end_of(&self, log: &Log) -> Result<Place, PlaneError> {
        let state = self.state();
        let end = state.logs.get(log).map_or(0, |kept| kept.first + kept.entries.len() as u64 - 1);
        Ok(Place(end, 0))
    }

    async fn trim(&self, places: &BTreeMap<Log, Place>, fence: &Member) -> Result<(), PlaneError> {
        let mut state = self.state();
        state.fence(fence)?;
        for (log, place) in places {
            let Some(kept) = state.logs.get_mut(log) else { continue };
            while kept.first <= place.0 && kept.entries.pop_front().is_some() {
                kept.first += 1;
            }
        }
        Ok(())
    }

    async fn take(&self, name: &str, _ttl: Duration) -> Result<Member, PlaneError> {
        let mut state = self.state();
        if let Some(&epoch) = state.leases.get(name) {
            return Err(PlaneError::Held { name: name.to_owned(), epoch });
        }
        state.epochs += 1;
        let epoch = state.epochs;
        state.leases.insert(name.to_owned(), epoch);
        Ok(Member { name: name.to_owned(), epoch })
    }

    async fn renew(&self, lease: &Member, _ttl: Duration) -> Result<(), PlaneError> {
        self.state().fence(lease)
    }

    async fn release(&self, lease: &Member) -> Result<(), PlaneError> {
        let mut state = self.state();
        if state.leases.get(&lease.name) == Some(&lease.epoch) {
            state.leases.remove(&lease.name);
        }
        Ok(())
    }

    async fn holders(&self, names: &[&str]) -> Result<Vec<Option<Held>>, PlaneError> {
        let state = self.state();
        let held = |name: &&str| state.leases.get(*name).map(|&epoch| Held { epoch, left: Duration::MAX });
        Ok(names.iter().map(held).collect())
    }

    async fn time(&self) -> Result<Micros, PlaneError> {
        let (began, unix) = self.began;
        Ok(Micros(unix) + Micros::from(began.elapsed()))
    }

    async fn announce(&self) -> Result<(), PlaneError> {
        Ok(())
    }

    async fn close(&self) -> Result<(), PlaneError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::plane::Command;

    #[tokio::test(start_paused = true)]
    async fn every_reader_sees_every_entry_in_order_once() {
        let plane = Arc::new(InProcess::new());
        let reader = |plane: Arc<InProcess>| async move {
            let (mut places, mut seen) = (BTreeMap::from([(Log::Commands, Place::default())]), Vec::new());
            while seen.len() < 3 {
                seen.extend(plane.read(&mut places, Duration::from_secs(1)).await.unwrap());
            }
            seen
        };
        let (a, b) = (tokio::spawn(reader(plane.clone())), tokio::spawn(reader(plane.clone())));
        let sent =
            [Command::Settle { cell: 1 }, Command::Abort { cell: 2 }, Command::End].map(Entry::Command);
        for entry in &sent {
            tokio::task::yield_now().await;
            plane.append(&Log::Commands, entry, None).await.unwrap();
        }
        assert_eq!(a.await.unwrap(), sent);
        assert_eq!(b.await.unwrap(), sent);
        let end = plane.end_of(&Log::Commands).await.unwrap();
        let reader = plane.take("r", Duration::ZERO).await.unwrap();
        plane.trim(&[(Log::Commands, Place(2, 0))].into(), &reader).await.unwrap();
        let mut places = BTreeMap::from([(Log::Commands, Place::default())]);
        assert_eq!(plane.read(&mut places, Duration::ZERO).await.unwrap(), sent[2..], "two are forgotten");
        assert_eq!(places[&Log::Commands], end);
    }

    #[tokio::test]
    async fn a_lease_has_one_holder_and_fences_off_the_one_before() {
        let plane = InProcess::new();
        let first = plane.take("a", Duration::ZERO).await.unwrap();
        assert!(matches!(plane.take("a", Duration::ZERO).await, Err(PlaneError::Held { epoch: 1, .. })));
        plane.release(&first).await.unwrap();
        let second = plane.take("a", Duration::ZERO).await.unwrap();
        assert!(second.epoch > first.epoch);
        let entry = Entry::Command(Command::End);
        let refused = plane.append(&Log::Commands, &entry, Some(&first)).await;
        assert_eq!(refused, Err(PlaneError::Fenced(first.clone())));
        plane.append(&Log::Commands, &entry, Some(&second)).await.unwrap();
        assert_eq!(plane.renew(&first, Duration::ZERO).await, Err(PlaneError::Fenced(first)));
    }
}
