//! What a worker has to say, sent in order and never dropped: what the plane does not take is kept,
//! in memory first and then in a file, until it does.

use std::{
    collections::VecDeque,
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, watch},
    task::JoinHandle,
};

use super::{Entry, Log, Plane, PlaneError, Report, Sent};
use crate::crew::Member;

/// How many reports wait in memory before the file takes the next ones.
const IN_MEMORY: usize = 16;
/// Pause before the first new try, and the longest one.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// The way out of a worker. Dropping it ends the sending; what is in the file stays there.
#[derive(Debug)]
pub struct Outbox {
    from: Member,
    queue: Arc<Queue>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    grown: Notify,
    /// How many are still to be sent.
    left: watch::Sender<usize>,
}

#[derive(Debug)]
struct State {
    /// The oldest, being sent, in front.
    memory: VecDeque<Arc<Sent>>,
    spool: Option<Spool>,
}

/// A file of reports, one a line, that are younger than those in memory.
#[derive(Debug)]
struct Spool {
    path: PathBuf,
    /// What is in it; `None` while there is nothing.
    open: Option<(File, BufReader<File>)>,
    lines: usize,
}

impl Spool {
    fn put(&mut self, sent: &Sent) -> io::Result<()> {
        let (file, _) = match &mut self.open {
            Some(open) => open,
            None => {
                if let Some(folder) = self.path.parent() {
                    fs::create_dir_all(folder)?;
                }
                let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
                file.set_len(0)?;
                self.open.insert((file, BufReader::new(File::open(&self.path)?)))
            }
        };
        let mut line = serde_json::to_vec(sent).expect("a report is plain data");
        line.push(b'\n');
        let before = file.metadata()?.len();
        if let Err(error) = file.write_all(&line) {
            // Half a line would make all behind it unreadable.
            file.set_len(before)?;
            return Err(error);
        }
        self.lines += 1;
        Ok(())
    }

    fn take(&mut self) -> Option<Arc<Sent>> {
        let (_, reader) = self.open.as_mut().filter(|_| self.lines > 0)?;
        let mut line = String::new();
        let read = match reader.read_line(&mut line) {
            Ok(1..) => serde_json::from_str(&line).map_err(|e| e.to_string()),
            Ok(0) => Err("it ends too soon".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        self.lines = self.lines.saturating_sub(1);
        if self.lines == 0 || read.is_err() {
            self.open = None;
            let lost = std::mem::take(&mut self.lines);
            let _ = fs::remove_file(&self.path);
            if let Err(why) = &read {
                // The frames in it are missed by the manager, who counts them.
                tracing::error!("{}: {why}; {lost} reports in it are lost", self.path.display());
            }
        }
        read.ok().map(Arc::new)
    }
}

impl State {
    fn left(&self) -> usize {
        self.memory.len() + self.spool.as_ref().map_or(0, |s| s.lines)
    }

    fn put(&mut self, sent: Sent) {
        if let Some(spool) = &mut self.spool
            && (spool.lines > 0 || self.memory.len() >= IN_MEMORY)
        {
            match spool.put(&sent) {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!("{}: {error}; reports are kept in memory", spool.path.display());
                }
            }
        }
        self.memory.push_back(Arc::new(sent));
    }

    /// The oldest one.
    fn first(&mut self) -> Option<Arc<Sent>> {
        if self.memory.is_empty()
            && let Some(from_file) = self.spool.as_mut().and_then(Spool::take)
        {
            self.memory.push_back(from_file);
        }
        self.memory.front().cloned()
    }
}

impl Queue {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn first(&self) -> Arc<Sent> {
        loop {
            let grown = self.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            if let Some(sent) = self.state().first() {
                return sent;
            }
            grown.await;
        }
    }

    fn sent(&self) {
        let mut state = self.state();
        state.memory.pop_front();
        self.left.send_replace(state.left());
    }

    fn forget(&self) {
        let mut state = self.state();
        state.memory.clear();
        if let Some(spool) = &mut state.spool {
            spool.open = None;
            spool.lines = 0;
            let _ = fs::remove_file(&spool.path);
        }
        self.left.send_replace(0);
    }
}

impl Outbox {
    /// Opens the way out for a worker; what the plane does not take goes into the file `spool`, if one
    /// is named.
    pub fn open<P: Plane>(plane: Arc<P>, from: Member, spool: Option<&Path>) -> Self {
        let spool = spool.map(|path| Spool { path: path.to_owned(), open: None, lines: 0 });
        let queue = Arc::new(Queue {
            state: Mutex::new(State { memory: VecDeque::new(), spool }),
            grown: Notify::new(),
            left: watch::Sender::new(0),
        });
        let task = tokio::spawn(send(plane, Log::Reports(from.name.clone()), Arc::clone(&queue)));
        Self { from, queue, task }
    }

    /// Says something; does not wait for it to be sent.
    pub fn put(&self, report: Report) {
        let mut state = self.queue.state();
        state.put(Sent { from: self.from.clone(), report });
        self.queue.left.send_replace(state.left());
        drop(state);
        self.queue.grown.notify_waiters();
    }

    /// Puts what is not sent into the file, to be sent another time. Returns how much cannot be kept.
    pub fn put_by(self) -> usize {
        self.task.abort();
        let mut state = self.queue.state();
        let State { memory, spool } = &mut *state;
        let Some(spool) = spool else { return memory.len() };
        while let Some(sent) = memory.front() {
            if let Err(error) = spool.put(sent) {
                tracing::warn!("{}: {error}", spool.path.display());
                break;
            }
            memory.pop_front();
        }
        memory.len()
    }

    /// Waits until all is sent, no longer than that. Returns how much is not.
    pub async fn drained(&self, within: Duration) -> usize {
        let mut left = self.queue.left.subscribe();
        // The sender lives in self: only the time can run out.
        let _ = tokio::time::timeout(within, left.wait_for(|left| *left == 0)).await;
        self.queue.state().left()
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn send<P: Plane>(plane: Arc<P>, log: Log, queue: Arc<Queue>) {
    let mut pause = PAUSES.0;
    loop {
        let first = queue.first().await;
        match plane.append(&log, &Entry::Sent(first), None).await {
            Ok(()) => {
                queue.sent();
                pause = PAUSES.0;
            }
            Err(PlaneError::Away(why)) => {
                // Once, and not with every try.
                match pause == PAUSES.0 {
                    true => tracing::warn!("the plane {why}; reports wait"),
                    false => tracing::debug!("the plane {why}; reports wait"),
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            Err(error) => {
                tracing::warn!("reports are dropped: {error}");
                queue.forget();
            }
        }
    }
}

/// Sends what a worker put by, and takes the file away.
///
/// # Errors
/// When the plane does not take it; what it did not take stays.
pub async fn send_later(plane: &impl Plane, file: &Path) -> Result<usize, PlaneError> {
    let text = fs::read_to_string(file).unwrap_or_default();
    let mut sent = 0;
    for line in text.lines() {
        // A line that was cut off by a crash says nothing.
        let Ok(report) = serde_json::from_str::<Sent>(line) else { continue };
        plane.append(&Log::Reports(report.from.name.clone()), &Entry::Sent(Arc::new(report)), None).await?;
        sent += 1;
    }
    let _ = fs::remove_file(file);
    Ok(sent)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::plane::{Place, in_process::InProcess, trial::Fitful};

    fn said(entries: Vec<Entry>) -> Vec<u32> {
        let number = |entry| match entry {
            Entry::Sent(sent) => match &sent.report {
                Report::Merging { cell } => *cell,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        entries.into_iter().map(number).collect()
    }

    async fn read(plane: &impl Plane) -> Vec<u32> {
        let mut places = BTreeMap::from([(Log::Reports("w".into()), Place::default())]);
        said(plane.read(&mut places, Duration::ZERO).await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_plane_does_not_take_waits_in_a_file_and_is_sent_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("spool/w.spool");
        let plane = Arc::new(Fitful::new(InProcess::new()));
        let outbox = Outbox::open(plane.clone(), Member { name: "w".into(), epoch: 1 }, Some(&spool));
        outbox.put(Report::Merging { cell: 0 });
        assert_eq!(outbox.drained(Duration::from_secs(1)).await, 0);
        assert!(!spool.exists(), "no file where none is needed");
        plane.is_away(true);
        for cell in 1..50 {
            outbox.put(Report::Merging { cell });
        }
        assert_eq!(outbox.drained(Duration::from_secs(60)).await, 49);
        assert_eq!(fs::read_to_string(&spool).unwrap().lines().count(), 49 - IN_MEMORY);
        plane.is_away(false);
        outbox.put(Report::Merging { cell: 50 });
        assert_eq!(outbox.drained(Duration::from_secs(60)).await, 0);
        assert_eq!(read(&*plane).await, (0..=50).collect::<Vec<_>>());
        assert!(!spool.exists(), "an empty file is not left behind");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_left_at_the_end_is_put_by_and_sent_another_time() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("w.spool");
        let plane = Arc::new(Fitful::new(InProcess::new()));
        plane.is_away(true);
        let outbox = Outbox::open(plane.clone(), Member { name: "w".into(), epoch: 1 }, Some(&spool));
        (0..20).for_each(|cell| outbox.put(Report::Merging { cell }));
        assert_eq!(outbox.drained(Duration::from_secs(1)).await, 20);
        assert_eq!(outbox.put_by(), 0);
        assert!(send_later(&*plane, &spool).await.is_err());
        plane.is_away(false);
        assert_eq!(send_later(&*plane, &spool).await, Ok(20));
        let mut there = read(&*plane).await;
        there.sort_unstable();
        assert_eq!(there, (0..20).collect::<Vec<_>>());
        assert!(!spool.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_place_for_the_file_reports_wait_in_memory() {
        let folder = tempfile::tempdir().unwrap();
        let occupied = folder.path().join("file");
        fs::write(&occupied, "x").unwrap();
        let plane = Arc::new(Fitful::new(InProcess::new()));
        plane.is_away(true);
        let spool = occupied.join("w.spool");
        let outbox = Outbox::open(plane.clone(), Member { name: "w".into(), epoch: 1 }, Some(&spool));
        for cell in 0..50 {
            outbox.put(Report::Merging { cell });
        }
        plane.is_away(false);
        assert_eq!(outbox.drained(Duration::from_secs(60)).await, 0);
        assert_eq!(read(&*plane).await, (0..50).collect::<Vec<_>>());
    }
}
