//! The plane's clock, as this host reads it: from looks at it with the shortest round trip.
//!
//! A look that took `rtt` is right to ± `rtt / 2`, whatever the way back took of it (Cristian,
//! "Probabilistic clock synchronization", Distributed Computing 3, 1989). Between two looks the
//! monotonic clock of this host goes on; a look grows worse as it grows old.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Plane, PlaneError};
use crate::{crew::Offset, micros::Micros, recorder::unix_micros};

/// Looks are kept so long.
const KEPT: Duration = Duration::from_secs(120);
/// By how much two clocks may run apart, in parts of a million: more than NTP corrects.
const DRIFT: f64 = 100e-6;
/// How many looks are taken at the start.
const FIRST: usize = 12;

/// One look.
#[derive(Debug, Clone, Copy)]
struct Look {
    /// Half way between asking and the answer.
    at: Instant,
    /// What the plane said.
    said: Micros,
    /// Half the round trip.
    error: Duration,
}

impl Look {
    /// Its error by now.
    fn error_at(&self, now: Instant) -> Duration {
        let apart = now.saturating_duration_since(self.at).max(self.at.saturating_duration_since(now));
        self.error + apart.mul_f64(DRIFT)
    }

    fn time_of(&self, at: Instant) -> Micros {
        match at.checked_duration_since(self.at) {
            Some(later) => self.said + Micros::from(later),
            None => self.said.saturating_sub((self.at - at).into()),
        }
    }
}

/// What is known of the plane's clock.
#[derive(Debug, Default)]
pub struct Clock {
    looks: Mutex<VecDeque<Look>>,
}

impl Clock {
    /// Looks at it a few times.
    ///
    /// # Errors
    /// When the plane does not answer.
    pub async fn of(plane: &impl Plane) -> Result<Self, PlaneError> {
        let clock = Self::default();
        for _ in 0..FIRST {
            clock.look(plane).await?;
        }
        Ok(clock)
    }

    /// Looks at it once more.
    ///
    /// # Errors
    /// When the plane does not answer; what is known stays.
    pub async fn look(&self, plane: &impl Plane) -> Result<(), PlaneError> {
        let asked = Instant::now();
        let said = plane.time().await?;
        self.take_down(asked, said, Instant::now());
        Ok(())
    }

    fn take_down(&self, asked: Instant, said: Micros, answered: Instant) {
        let error = (answered - asked) / 2;
        let mut looks = self.looks();
        while looks.front().is_some_and(|l| l.at + KEPT < answered) {
            looks.pop_front();
        }
        looks.push_back(Look { at: asked + error, said, error });
    }

    /// The plane's time now, in Unix microseconds.
    pub fn now(&self) -> Micros {
        self.time_of(Instant::now())
    }

    /// The plane's time at a moment of this host.
    pub fn time_of(&self, at: Instant) -> Micros {
        self.best(at).map_or(Micros(unix_micros()), |look| look.time_of(at))
    }

    /// When the plane's clock shows that time, on this host's monotonic clock. `None` when that is
    /// past.
    pub fn instant_of(&self, time: Micros) -> Option<Instant> {
        let now = Instant::now();
        Some(now + Duration::from(time.checked_sub(self.time_of(now))?))
    }

    /// How this host's own clock stands to it.
    pub fn offset(&self) -> Offset {
        let (now, unix) = (Instant::now(), unix_micros());
        let ahead = self.time_of(now).0 as i64 - unix as i64;
        let error = self.best(now).map_or(Duration::MAX, |look| look.error_at(now));
        Offset { ahead, error: error.into() }
    }

    fn best(&self, at: Instant) -> Option<Look> {
        self.looks().iter().min_by_key(|look| look.error_at(at)).copied()
    }

    fn looks(&self) -> MutexGuard<'_, VecDeque<Look>> {
        self.looks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_look_with_the_shortest_way_counts() {
        let clock = Clock::default();
        let began = Instant::now();
        let ms = |n| began + Duration::from_millis(n);
        // The plane is at 1 s when we are at 0; the second look is off by its long way back.
        clock.take_down(ms(0), Micros(1_001_000), ms(2));
        clock.take_down(ms(10), Micros(1_012_000), ms(90));
        tokio::time::advance(Duration::from_millis(100)).await;
        assert_eq!(clock.now(), Micros(1_100_000));
        let error = clock.offset().error;
        assert!(error >= Micros(1_000) && error < Micros(1_100), "{error}");
        assert_eq!(clock.instant_of(Micros(1_500_000)), Some(ms(500)));
        assert_eq!(clock.instant_of(Micros(1_000_000)), None, "it is past");
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_look_gives_way_to_a_worse_new_one() {
        let clock = Clock::default();
        let began = Instant::now();
        clock.take_down(began, Micros(1_000_000), began);
        tokio::time::advance(Duration::from_secs(100)).await;
        let now = Instant::now();
        // The plane's clock has gone 5 ms too fast meanwhile.
        clock.take_down(now - Duration::from_millis(4), Micros(101_003_000), now);
        assert_eq!(clock.now(), Micros(101_005_000));
    }
}
