//! The plane of a local run: both logs in memory.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};

use tokio::{sync::Notify, time::Instant};

use super::{Command, Plane, PlaneError, Report};
use crate::micros::Micros;

/// Manager and workers in one process.
#[derive(Debug)]
pub struct InProcess {
    began: Instant,
    commands: Log<Command>,
    reports: Log<Report>,
}

impl InProcess {
    /// Empty logs; the clock starts at zero.
    pub fn new() -> Self {
        Self { began: Instant::now(), commands: Log::default(), reports: Log::default() }
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new()
    }
}

impl Plane for InProcess {
    fn now(&self) -> Micros {
        self.began.elapsed().into()
    }

    async fn command(&self, command: Command) -> Result<(), PlaneError> {
        self.commands.append(command);
        Ok(())
    }

    async fn next_command(&self, index: u64) -> Result<Command, PlaneError> {
        Ok(self.commands.read(index, false).await)
    }

    async fn report(&self, report: Report) -> Result<(), PlaneError> {
        self.reports.append(report);
        Ok(())
    }

    async fn next_report(&self, index: u64) -> Result<Report, PlaneError> {
        // The manager is the only reader, and frames are large: what is read is dropped.
        Ok(self.reports.read(index, true).await)
    }
}

#[derive(Debug)]
struct Log<T> {
    /// Entries and the number of the first one.
    entries: Mutex<(u64, VecDeque<T>)>,
    grown: Notify,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self { entries: Mutex::default(), grown: Notify::new() }
    }
}

impl<T: Clone> Log<T> {
    fn append(&self, entry: T) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).1.push_back(entry);
        self.grown.notify_waiters();
    }

    async fn read(&self, index: u64, forget: bool) -> T {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            if let Some(entry) = self.get(index, forget) {
                return entry;
            }
            grown.await;
        }
    }

    fn get(&self, index: u64, forget: bool) -> Option<T> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if forget {
            while entries.0 < index && entries.1.pop_front().is_some() {
                entries.0 += 1;
            }
        }
        let at = usize::try_from(index.checked_sub(entries.0)?).ok()?;
        entries.1.get(at).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn every_reader_sees_every_command_in_order() {
        let plane = std::sync::Arc::new(InProcess::new());
        let reader = |plane: std::sync::Arc<InProcess>| async move {
            let mut seen = Vec::new();
            for index in 0..3 {
                seen.push(plane.next_command(index).await.unwrap());
            }
            seen
        };
        let (a, b) = (tokio::spawn(reader(plane.clone())), tokio::spawn(reader(plane.clone())));
        let sent = [Command::Settle { cell: 1 }, Command::Abort { cell: 2 }, Command::End];
        for command in sent.clone() {
            tokio::task::yield_now().await;
            plane.command(command).await.unwrap();
        }
        assert_eq!(a.await.unwrap(), sent);
        assert_eq!(b.await.unwrap(), sent);
    }
}
