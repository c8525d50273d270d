//! Reads the tap's log, batch after batch, so that no post is missed and none is counted twice.

use std::time::Duration;

use tokio::time::Instant;

use crate::{
    fault::FaultKind,
    micros::Micros,
    plan::Cell,
    post::Batch,
    posts::Book,
    state::JobState,
    tap::{Link, LinkError},
    timeline::Between,
};

/// A tap that does not answer for so long is lost.
const PATIENCE: Duration = Duration::from_secs(3);
/// Workers wait for the tap as we do: when it is silent for so long, it measured itself.
const SILENCE: Duration = Duration::from_secs(1);
/// How long posts that are under way at the end of a cell are waited for, beside the fault's delay.
const LAST_POSTS: Duration = Duration::from_secs(10);

/// Where in the log of which tap we are.
pub(super) struct Reader {
    link: Link,
    /// The tap's boot, once known.
    boot: Option<String>,
    next: u64,
    /// When the tap last answered.
    answered: Instant,
    /// The tap's clock then.
    pub(super) now: Micros,
    /// The tap's clock when the cell began.
    began: Micros,
    /// Whether a job was seen merging in this cell.
    pub(super) saw_merging: bool,
    /// Of this cell, the quickest answer: when it was asked for and when it came, and the tap's
    /// clock in between.
    quickest: Option<(Instant, Instant, Micros)>,
}

impl Reader {
    pub(super) fn new(link: Link) -> Self {
        Self {
            link,
            boot: None,
            next: 0,
            answered: Instant::now(),
            now: Micros::ZERO,
            began: Micros::ZERO,
            saw_merging: false,
            quickest: None,
        }
    }

    /// Goes on to the end of the log without looking. Returns how many posts that were.
    pub(super) async fn skip(&mut self) -> Result<u64, String> {
        let hello = self.link.hello().await.map_err(|e| e.to_string())?;
        let before = if self.boot.as_ref() == Some(&hello.boot) { self.next } else { hello.next };
        // What is under way now began before this cell.
        let batch = self.link.posts(&hello.boot, hello.next).await.map_err(|e| e.to_string())?;
        self.boot = Some(hello.boot);
        self.next = batch.next;
        (self.began, self.now) = (batch.now, batch.now);
        self.answered = Instant::now();
        self.saw_merging = false;
        self.quickest = None;
        Ok(batch.next.saturating_sub(before))
    }

    /// A moment of ours on the tap's clock, by the quickest answer of this cell. The two clocks run
    /// apart by less than a millisecond in the time of a cell.
    pub(super) fn on_its_clock(&self, ours: Instant) -> Option<Between> {
        let (asked, answered, now) = self.quickest?;
        let shifted = |from: Instant| match ours.checked_duration_since(from) {
            Some(later) => now + later.into(),
            None => now.saturating_sub((from - ours).into()),
        };
        Some(Between { after: shifted(answered), before: shifted(asked) })
    }

    /// Reads what is there. A tap that is silent for a moment is asked again at the next call.
    pub(super) async fn read(&mut self, book: &mut Book) -> Result<(), String> {
        while self.batch(book).await?.is_some_and(|batch| batch.more) {}
        Ok(())
    }

    /// Reads until nothing is under way any more.
    pub(super) async fn drain(&mut self, book: &mut Book, cell: &Cell) -> Result<(), String> {
        let delay = match cell.fault.kind {
            FaultKind::Latency { delay, jitter, .. } => Duration::from(delay + jitter) * 2,
            _ => Duration::ZERO,
        };
        let deadline = Instant::now() + LAST_POSTS + delay;
        loop {
            match self.batch(book).await? {
                Some(batch) if batch.more => continue,
                Some(batch) => {
                    let ours = batch.under_way.iter().filter(|at| **at >= self.began).count();
                    if ours == 0 {
                        return Ok(());
                    }
                    if Instant::now() >= deadline {
                        book.trouble(format!("{ours} posts were still under way"));
                        return Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn batch(&mut self, book: &mut Book) -> Result<Option<Batch>, String> {
        let boot = self.boot.as_deref().unwrap_or_default();
        let asked = Instant::now();
        match self.link.posts(boot, self.next).await {
            Ok(mut batch) => {
                if asked.elapsed() > SILENCE {
                    book.trouble(format!("it did not answer for {}", Micros::from(asked.elapsed())));
                }
                self.answered = Instant::now();
                let is_quicker = |(from, to, _): (Instant, Instant, Micros)| asked.elapsed() < to - from;
                if self.quickest.is_none_or(is_quicker) {
                    self.quickest = Some((asked, self.answered, batch.now));
                }
                self.next = batch.next;
                self.now = batch.now;
                if batch.lost > 0 {
                    book.unread(batch.lost);
                }
                self.saw_merging |= batch.posts.iter().any(|p| p.state.is_some_and(JobState::is_merging));
                batch.posts.drain(..).for_each(|post| book.add(&post));
                Ok(Some(batch))
            }
            Err(e @ LinkError::Unreachable { .. }) if self.answered.elapsed() < PATIENCE => {
                tracing::debug!("{e}");
                Ok(None)
            }
            Err(e) => Err(e.to_string()),
        }
    }
}
