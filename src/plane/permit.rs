//! The permit to make load: it runs out by itself, on the monotonic clock of this host.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
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
}

impl Permit {
    /// One that never runs out.
    pub fn forever() -> Self {
        Self { base: Instant::now(), until: Arc::new(AtomicU64::new(NEVER)) }
    }

    /// One that has run out, until it is [`extended`](Self::extend).
    pub fn none() -> Self {
        Self { base: Instant::now(), until: Arc::new(AtomicU64::new(0)) }
    }

    /// Lets it run until then, be that later or earlier than before.
    pub fn extend(&self, until: Instant) {
        let after = until.saturating_duration_since(self.base).as_micros();
        self.until.store(u64::try_from(after).unwrap_or(NEVER), Ordering::Release);
    }

    /// Whether load may be made now.
    pub fn holds(&self) -> bool {
        self.until().is_none_or(|until| Instant::now() < until)
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
                Some(until) if Instant::now() >= until => return,
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
    }
}
