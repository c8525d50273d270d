//! The permit to make load: it runs out by itself, on the monotonic clock of this host, and whoever saw
//! it run out has seen its end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep_until};

/// Microseconds after the base that never come.
const NEVER: u64 = u64::MAX;

/// Until when load may be made. Copies are one permit.
///
/// A process that was stopped finds it run out when it goes on, before anybody could tell it so: users
/// look at it before every submit.
#[derive(Debug, Clone)]
pub struct Permit {
    base: Instant,
    until: Arc<AtomicU64>,
    /// Somebody found that it had run out.
    is_over: Arc<AtomicBool>,
}

impl Permit {
    /// One that never runs out.
    pub fn forever() -> Self {
        Self { base: Instant::now(), until: Arc::new(AtomicU64::new(NEVER)), is_over: Arc::default() }
    }

    /// One that was not given yet, until it is [`extended`](Self::extend) for the first time.
    pub fn none() -> Self {
        Self { base: Instant::now(), until: Arc::new(AtomicU64::new(0)), is_over: Arc::default() }
    }

    /// Lets it run until then, be that later or earlier than before. One that was found to have run out
    /// stays so: somebody has stopped on that account.
    pub fn extend(&self, until: Instant) {
        let after = until.saturating_duration_since(self.base).as_micros();
        self.until.store(u64::try_from(after).unwrap_or(NEVER), Ordering::Release);
    }

    /// Gives it anew, whatever became of it: for whoever has started from the beginning.
    pub fn give(&self, until: Instant) {
        self.is_over.store(false, Ordering::Release);
        self.extend(until);
    }

    /// Whether load may be made now.
    pub fn holds(&self) -> bool {
        let holds = !self.is_over.load(Ordering::Acquire) && self.until().is_none_or(|t| Instant::now() < t);
        if !holds && self.until.load(Ordering::Acquire) > 0 {
            self.is_over.store(true, Ordering::Release);
        }
        holds
    }

    /// Until when it holds; `None` for ever.
    pub fn until(&self) -> Option<Instant> {
        match self.until.load(Ordering::Acquire) {
            NEVER => None,
            after => Some(self.base + Duration::from_micros(after)),
        }
    }

    /// Waits until it has run out.
    pub async fn runs_out(&self) {
        loop {
            match self.until() {
                None => std::future::pending().await,
                Some(_) if !self.holds() => return,
                // It may be seen to have run out a little before this wakes up.
                Some(until) => sleep_until(until).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_runs_out_unless_it_is_extended() {
        let permit = Permit::none();
        assert!(!permit.holds());
        let began = Instant::now();
        permit.extend(began + Duration::from_secs(5));
        assert!(permit.holds());
        let waits = tokio::spawn({
            let permit = permit.clone();
            async move { permit.runs_out().await }
        });
        tokio::time::sleep(Duration::from_secs(3)).await;
        permit.extend(began + Duration::from_secs(8));
        tokio::time::sleep(Duration::from_secs(4)).await;
        assert!(permit.holds() && !waits.is_finished());
        waits.await.unwrap();
        assert_eq!(began.elapsed().as_secs(), 8);
        permit.extend(Instant::now() + Duration::from_secs(60));
        assert!(!permit.holds(), "its end was seen");
    }

    #[tokio::test(start_paused = true)]
    async fn an_end_that_was_seen_for_a_moment_is_one() {
        let permit = Permit::none();
        permit.extend(Instant::now() + Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!permit.clone().holds());
        permit.extend(Instant::now() + Duration::from_secs(60));
        assert!(!permit.holds());
        permit.runs_out().await;
    }
}
