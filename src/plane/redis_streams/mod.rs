//! The plane of many hosts: Redis Streams, on a Redis that is not the target's.
//!
//! A run has these keys: `springtide:<run>:cmd`, `:roll` and `:res:<worker>` are streams,
//! `:lease:<name>` an epoch with a time to live, `:epoch` the last epoch that was given out, and
//! `:manifest` says that the run is open and what it is. Outside any run, `springtide:lobby` is a
//! stream of the runs that managers opened ([`lobby`]).
//!
//! It needs Redis 6.2 or newer, alone (no cluster), that throws nothing away (`noeviction`):
//! [`checks`] looks at that before a run.

pub mod checks;
mod codec;
pub mod door;
mod link;
pub mod lobby;
mod scripts;
mod told;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use redis::Cmd;

pub use self::{
    checks::{Facts, check},
    door::Door,
    lobby::{After, Lobby, Offer},
};
use self::{codec::Keys, link::Link};
use super::{Entry, Held, Log, Place, Plane, PlaneError};
use crate::{crew::Member, micros::Micros};

/// About how many commands are kept. No worker is that far behind.
const COMMANDS: usize = 10_000;
/// How many entries one read brings at most, of all logs and of one.
const ENTRIES: (usize, usize) = (4_000, 500);
/// How many leases one script looks at.
const LEASES: usize = 1_000;
/// How long the logs of a closed run stay, so that a worker that is slow still hears of its end.
const AFTERGLOW: Duration = Duration::from_secs(600);
/// The longest time a lease is asked for; far beyond any, and far below what Redis takes.
const LONGEST: Duration = Duration::from_secs(366 * 24 * 3600);

/// One run on a Redis.
#[derive(Debug)]
pub struct RedisStreams {
    link: Arc<Link>,
    keys: Keys,
    /// A manager's: what stands as soon as it has the lease.
    manifest: Mutex<Option<String>>,
    /// The highest epoch that was seen in this run.
    epochs: Arc<AtomicU64>,
    /// Up to where logs were trimmed by this end.
    trimmed: Mutex<BTreeMap<Log, Place>>,
}

impl RedisStreams {
    fn new(link: Arc<Link>, run: &str, manifest: Option<String>, epochs: Arc<AtomicU64>) -> Self {
        let trimmed = Mutex::default();
        Self { link, keys: Keys::of(run), manifest: Mutex::new(manifest), epochs, trimmed }
    }

    /// The run it is the plane of.
    pub fn run(&self) -> &str {
        self.keys.run()
    }

    fn saw(&self, epoch: u64) {
        self.epochs.fetch_max(epoch, Ordering::Relaxed);
    }

    /// What this end says stands, as long as it has not opened the run.
    fn manifest(&self) -> Option<String> {
        self.manifest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn script(text: &str, keys: &[String]) -> Cmd {
    let mut command = redis::cmd("EVAL");
    command.arg(text).arg(0).arg(keys);
    command
}

fn ms(ttl: Duration) -> u64 {
    ttl.min(LONGEST).as_millis().max(1) as u64
}

impl Plane for RedisStreams {
    async fn append(&self, log: &Log, entry: &Entry, fence: Option<&Member>) -> Result<(), PlaneError> {
        let key = self.keys.log(log);
        let what = format!("append to {key}");
        let lease = fence.map_or(String::new(), |lease| self.keys.lease(&lease.name));
        let most = if *log == Log::Commands { COMMANDS } else { 0 };
        let mut command = script(scripts::APPEND, &[self.keys.manifest(), key, lease]);
        command.arg(fence.map_or(0, |lease| lease.epoch)).arg(most).arg(codec::encode(entry));
        match (self.link.call(&what, &command).await?, fence) {
            (1, _) => Ok(()),
            (0, Some(lease)) => Err(PlaneError::Fenced(lease.clone())),
            (_, _) => Err(PlaneError::Gone),
        }
    }

    async fn read(
        &self,
        places: &mut BTreeMap<Log, Place>,
        wait: Duration,
    ) -> Result<Vec<Entry>, PlaneError> {
        if places.is_empty() {
            tokio::time::sleep(wait).await;
            return Ok(Vec::new());
        }
        let keys: BTreeMap<String, &Log> = places.keys().map(|log| (self.keys.log(log), log)).collect();
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg((ENTRIES.0 / keys.len()).clamp(1, ENTRIES.1));
        if !wait.is_zero() {
            // Zero would be for ever.
            command.arg("BLOCK").arg(ms(wait));
        }
        command.arg("STREAMS");
        keys.keys().for_each(|key| {
            command.arg(key);
        });
        keys.values().for_each(|log| {
            command.arg(places[*log].to_string());
        });
        let what = match keys.len() {
            1 => format!("read {}", keys.keys().next().map_or("", String::as_str)),
            n => format!("read {n} logs of {}", self.keys.run()),
        };
        let reply = self.link.read(&what, &command, wait).await?;
        let read = codec::read(&reply, &keys);
        let (entries, new) =
            read.map_err(|why| PlaneError::Refused(format!("at {} {why}", self.link.door())))?;
        places.extend(new);
        for entry in &entries {
            if let Entry::Member(member) = entry {
                self.saw(member.epoch);
            }
        }
        Ok(entries)
    }

    async fn end_of(&self, log: &Log) -> Result<Place, PlaneError> {
        let key = self.keys.log(log);
        let what = format!("look at {key}");
        let id: Vec<u8> = self.link.call(&what, &script(scripts::END_OF, &[key])).await?;
        codec::place(&id).ok_or_else(|| PlaneError::Refused(format!("at {} has odd ids", self.link.door())))
    }

    async fn trim(&self, places: &BTreeMap<Log, Place>, fence: &Member) -> Result<(), PlaneError> {
        let new: BTreeMap<Log, Place> = {
            let trimmed = self.trimmed.lock().unwrap_or_else(PoisonError::into_inner);
            let is_new = |log: &Log, place: &Place| trimmed.get(log).copied().unwrap_or_default() < *place;
            places.iter().filter(|(l, p)| is_new(l, p)).map(|(l, p)| (l.clone(), *p)).collect()
        };
        if new.is_empty() {
            return Ok(());
        }
        let mut command = script(scripts::TRIM, &[self.keys.lease(&fence.name)]);
        command.arg(fence.epoch);
        for (log, Place(ms, seq)) in &new {
            // The first that stays.
            let first = seq.checked_add(1).map_or_else(|| Place(ms + 1, 0), |seq| Place(*ms, seq));
            command.arg(self.keys.log(log)).arg(first.to_string());
        }
        let what = format!("trim {} logs of {}", new.len(), self.keys.run());
        if self.link.call::<i64>(&what, &command).await? == 0 {
            return Err(PlaneError::Fenced(fence.clone()));
        }
        self.trimmed.lock().unwrap_or_else(PoisonError::into_inner).extend(new);
        Ok(())
    }

    async fn take(&self, name: &str, ttl: Duration) -> Result<Member, PlaneError> {
        let keys = [
            self.keys.manifest(),
            self.keys.lease(name),
            self.keys.epoch(),
            self.keys.log(&Log::Commands),
            self.keys.log(&Log::Roll),
        ];
        let what = format!("take {}", keys[1]);
        let manifest = self.manifest();
        let mut command = script(scripts::TAKE, &keys);
        command.arg(ms(ttl)).arg(self.epochs.load(Ordering::Relaxed)).arg(manifest.unwrap_or_default());
        let (taken, epoch): (i64, u64) = self.link.call(&what, &command).await?;
        self.saw(epoch);
        match taken {
            1 => {
                // From now on it stands or the run is closed: this end never opens it again.
                self.manifest.lock().unwrap_or_else(PoisonError::into_inner).take();
                Ok(Member { name: name.to_owned(), epoch })
            }
            0 => Err(PlaneError::Held { name: name.to_owned(), epoch }),
            _ => Err(PlaneError::Gone),
        }
    }

    async fn renew(&self, lease: &Member, ttl: Duration) -> Result<(), PlaneError> {
        let key = self.keys.lease(&lease.name);
        let what = format!("renew {key}");
        let mut command = script(scripts::RENEW, &[key]);
        command.arg(lease.epoch).arg(ms(ttl));
        match self.link.call(&what, &command).await? {
            1 => Ok(()),
            _ => Err(PlaneError::Fenced(lease.clone())),
        }
    }

    async fn release(&self, lease: &Member) -> Result<(), PlaneError> {
        let key = self.keys.lease(&lease.name);
        let what = format!("release {key}");
        let mut command = script(scripts::RELEASE, &[key]);
        command.arg(lease.epoch);
        let _: i64 = self.link.call(&what, &command).await?;
        Ok(())
    }

    async fn holders(&self, names: &[&str]) -> Result<Vec<Option<Held>>, PlaneError> {
        let mut all = Vec::with_capacity(names.len());
        for names in names.chunks(LEASES) {
            let keys: Vec<String> = names.iter().map(|name| self.keys.lease(name)).collect();
            let what = match &keys[..] {
                [key] => format!("look at {key}"),
                keys => format!("look at {} leases of {}", keys.len(), self.keys.run()),
            };
            let held: Vec<i64> = self.link.call(&what, &script(scripts::HOLDERS, &keys)).await?;
            for pair in held.chunks_exact(2) {
                let [epoch, left] = [pair[0], pair[1]];
                let left = u64::try_from(left).map_or(Duration::MAX, Duration::from_millis);
                let epoch = u64::try_from(epoch).unwrap_or_default();
                self.saw(epoch);
                all.push((epoch > 0).then_some(Held { epoch, left }));
            }
        }
        Ok(all)
    }

    async fn time(&self) -> Result<Micros, PlaneError> {
        let (seconds, micros): (u64, u64) = self.link.call("TIME", &redis::cmd("TIME")).await?;
        Ok(Micros(seconds * 1_000_000 + micros))
    }

    async fn announce(&self) -> Result<(), PlaneError> {
        lobby::announce(&self.link, self.keys.run()).await
    }

    async fn close(&self) -> Result<(), PlaneError> {
        let logs = [Log::Commands, Log::Roll].map(|log| self.keys.log(&log));
        let [commands, roll] = logs;
        let keys = [self.keys.manifest(), self.keys.epoch(), commands, roll];
        let mut command = script(scripts::CLOSE, &keys);
        command.arg(AFTERGLOW.as_secs()).arg(self.keys.reports());
        let _: i64 = self.link.call(&format!("close {}", self.keys.run()), &command).await?;
        Ok(())
    }
}
