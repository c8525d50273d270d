//! Where workers wait for a run: managers announce theirs in one stream, workers take up the one that
//! was announced last and is alive.

use std::{
    sync::{Arc, Mutex, PoisonError, atomic::AtomicU64},
    time::Duration,
};

use redis::Value;

use super::{
    RedisStreams,
    codec::{self, Keys, LOBBY},
    door::Door,
    link::Link,
};
use crate::plane::{MANAGER, Place, PlaneError};

/// About how many announcements are kept.
const KEPT: usize = 1_000;
/// How many of them a worker looks at, the last ones.
const LOOKED_AT: usize = 32;
/// How long a worker waits for the next announcement before it looks at those before it again.
const WAIT: Duration = Duration::from_secs(5);
/// Pause while the plane is away.
const AFTER_FAILURE: Duration = Duration::from_millis(500);

/// A plane's Redis, outside any run.
#[derive(Debug)]
pub struct Lobby {
    link: Arc<Link>,
    /// The run that was opened last here, and the highest epoch seen in it.
    last: Mutex<(String, Arc<AtomicU64>)>,
}

/// A run that a worker may join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Its id.
    pub run: String,
    /// What its manager said of it.
    pub manifest: String,
    /// Which announcement it was.
    announced: Place,
    /// With what epoch its manager was there, whose manifest it is.
    pub manager: u64,
}

/// What a worker that looks for a run did before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum After {
    /// Nothing here.
    #[default]
    Nothing,
    /// It was lost to that run, but the run may go on: it can be joined again.
    Lost(Offer),
    /// That run is over for it: only a new announcement, or a new manager, makes it a run to join.
    Over(Offer),
}

impl Lobby {
    /// Connects to nothing yet.
    pub fn at(door: &Door) -> Self {
        Self { link: Arc::new(Link::new(door.clone())), last: Mutex::default() }
    }

    /// The plane of a new run, for its manager. The manifest stands as soon as the manager has its
    /// lease, and as long as the run is open.
    ///
    /// # Errors
    /// When the plane is away, or has an open run of that id.
    pub async fn open_run(&self, run: &str, manifest: &str) -> Result<RedisStreams, PlaneError> {
        if self.manifest(run).await?.is_some() {
            return Err(PlaneError::Refused(format!(
                "at {} has an open run {run} already: resume it",
                self.link.door()
            )));
        }
        Ok(self.plane(run, Some(manifest)))
    }

    /// The plane of a run that had a manager before, or is new: the lease decides whether that one is
    /// still there.
    pub fn take_over(&self, run: &str, manifest: &str) -> RedisStreams {
        self.plane(run, Some(manifest))
    }

    /// The plane of an open run, for a worker.
    ///
    /// # Errors
    /// When the plane is away, or the run is over.
    pub async fn of_run(&self, run: &str) -> Result<RedisStreams, PlaneError> {
        match self.manifest(run).await? {
            Some(_) => Ok(self.plane(run, None)),
            None => Err(PlaneError::Gone),
        }
    }

    /// Waits for a run to join: the one that was announced last, among those whose manager is there.
    /// As long as the plane is away it is tried again. May be given up at any moment.
    ///
    /// # Errors
    /// When the plane refuses us.
    pub async fn next_run(&self, after: &After) -> Result<Offer, PlaneError> {
        let (mut seen, mut is_away) = (Place::default(), false);
        loop {
            let looked = match self.look(after, &mut seen).await {
                Ok(Some(offer)) => return Ok(offer),
                Ok(None) => self.wait(seen).await,
                Err(error) => Err(error),
            };
            match looked {
                Ok(()) => is_away = false,
                Err(error) if error.is_passing() => {
                    if !std::mem::replace(&mut is_away, true) {
                        tracing::warn!("{error}; waiting for it");
                    }
                    tokio::time::sleep(AFTER_FAILURE).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The best run now. `seen` becomes the place behind the last announcement.
    async fn look(&self, after: &After, seen: &mut Place) -> Result<Option<Offer>, PlaneError> {
        let mut command = redis::cmd("XREVRANGE");
        command.arg(LOBBY).arg("+").arg("-").arg("COUNT").arg(LOOKED_AT);
        let entries: Vec<Value> = self.link.call(&format!("read {LOBBY}"), &command).await?;
        let mut runs: Vec<(Place, String)> = Vec::new();
        for (place, run) in entries.iter().filter_map(|entry| codec::one(entry, "run")) {
            *seen = (*seen).max(place);
            let run = String::from_utf8_lossy(run).into_owned();
            if !runs.iter().any(|(_, known)| *known == run) {
                runs.push((place, run));
            }
        }
        for (announced, run) in runs {
            let keys = Keys::of(&run);
            let mut command = redis::cmd("MGET");
            command.arg(keys.manifest()).arg(keys.lease(MANAGER));
            let what = format!("look at {}", keys.manifest());
            let (manifest, manager): (Option<String>, Option<u64>) = self.link.call(&what, &command).await?;
            let (Some(manifest), Some(manager)) = (manifest, manager) else { continue };
            let offer = Offer { run, manifest, announced, manager };
            if after.allows(&offer) {
                return Ok(Some(offer));
            }
        }
        Ok(None)
    }

    /// Waits for an announcement behind that place, for a while.
    async fn wait(&self, place: Place) -> Result<(), PlaneError> {
        let mut command = redis::cmd("XREAD");
        command.arg("COUNT").arg(1).arg("BLOCK").arg(WAIT.as_millis() as u64);
        command.arg("STREAMS").arg(LOBBY).arg(place.to_string());
        self.link.read(&format!("read {LOBBY}"), &command, WAIT).await.map(drop)
    }

    async fn manifest(&self, run: &str) -> Result<Option<String>, PlaneError> {
        let key = Keys::of(run).manifest();
        self.link.call(&format!("look at {key}"), redis::cmd("GET").arg(&key)).await
    }

    fn plane(&self, run: &str, manifest: Option<&str>) -> RedisStreams {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if last.0 != run {
            *last = (run.to_owned(), Arc::default());
        }
        RedisStreams::new(Arc::clone(&self.link), run, manifest.map(str::to_owned), Arc::clone(&last.1))
    }
}

impl After {
    fn allows(&self, offer: &Offer) -> bool {
        match self {
            Self::Over(left) if left.run == offer.run => {
                offer.announced > left.announced || offer.manager != left.manager
            }
            _ => true,
        }
    }
}

/// Announces a run.
pub(super) async fn announce(link: &Link, run: &str) -> Result<(), PlaneError> {
    let mut command = redis::cmd("XADD");
    command.arg(LOBBY).arg("MAXLEN").arg("~").arg(KEPT).arg("*").arg("run").arg(run);
    let _: String = link.call(&format!("append to {LOBBY}"), &command).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_is_over_is_not_joined_again_unless_it_is_there_anew() {
        let offer = |run: &str, announced, manager| Offer {
            run: run.into(),
            manifest: String::new(),
            announced: Place(announced, 0),
            manager,
        };
        let left = offer("a", 5, 1);
        for (after, next, allowed) in [
            (After::Nothing, &left, true),
            (After::Lost(left.clone()), &left, true),
            (After::Over(left.clone()), &left, false),
            (After::Over(left.clone()), &offer("a", 6, 2), true),
            (After::Over(left.clone()), &offer("a", 5, 2), true),
            (After::Over(left.clone()), &offer("b", 4, 1), true),
        ] {
            assert_eq!(after.allows(next), allowed, "{after:?} {next:?}");
        }
    }
}
