//! What a probe prints: kept in a file, up to a limit, and read to its end all the same, so that
//! no probe is held up by what it says.

use std::{
    fs::File,
    io::Write,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// Bytes that are kept.
const KEPT: u64 = 4_000_000;
/// What comes after them is read so much at once, with a pause: nobody needs it, and the runtime
/// has other things to do.
const PAUSE: Duration = Duration::from_millis(1);
/// How long the end of the output may be away once the probe is gone.
const LAST: Duration = Duration::from_secs(1);
/// Characters of the last line that are kept for messages.
const LINE: usize = 200;

/// How far it has come.
#[derive(Debug, Default)]
struct So {
    kept: u64,
    all: u64,
    /// The last bytes.
    tail: Vec<u8>,
    /// Why it could not be written.
    failed: Option<String>,
}

/// The task that copies.
pub(super) struct Copying {
    task: Option<JoinHandle<()>>,
    so: Arc<Mutex<So>>,
}

/// What is left of it.
#[derive(Debug, Default)]
pub(super) struct Copied {
    /// What is missing in the file.
    pub(super) note: Option<String>,
    /// The last line that is not empty.
    pub(super) last_line: String,
}

impl Copying {
    /// Copies from now on.
    pub(super) fn start(from: Option<impl AsyncRead + Unpin + Send + 'static>, to: PathBuf) -> Self {
        let so = Arc::new(Mutex::new(So::default()));
        let told = Arc::clone(&so);
        let task = from.map(|from| tokio::spawn(copy(from, to, told)));
        Self { task, so }
    }

    /// Waits for its end, as long as that makes sense.
    pub(super) async fn end(&mut self) -> Copied {
        let mut is_open = false;
        if let Some(mut task) = self.task.take()
            && timeout(LAST, &mut task).await.is_err()
        {
            task.abort();
            is_open = true;
        }
        let so = self.so.lock().unwrap_or_else(PoisonError::into_inner);
        let note = match &so.failed {
            Some(why) => Some(format!("could not be kept: {why}")),
            None if so.all > so.kept => Some(format!("was cut: {} of {} bytes are kept", so.kept, so.all)),
            None if is_open => {
                Some("was still held open by another process, and is kept as far as it came".into())
            }
            None => None,
        };
        let tail = String::from_utf8_lossy(&so.tail);
        let last_line = tail.lines().map(str::trim).rfind(|line| !line.is_empty()).unwrap_or_default();
        let last_line = last_line.chars().filter(|c| !c.is_control()).take(LINE).collect();
        Copied { note, last_line }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

async fn copy(mut from: impl AsyncRead + Unpin, to: PathBuf, so: Arc<Mutex<So>>) {
    let mut file = None;
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = match from.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(n) => &buffer[..n],
        };
        let is_full = {
            let mut so = so.lock().unwrap_or_else(PoisonError::into_inner);
            so.all += read.len() as u64;
            let room = usize::try_from(KEPT - so.kept).unwrap_or(usize::MAX);
            let fits = &read[..read.len().min(room)];
            if so.failed.is_none() && !fits.is_empty() {
                let written = match &mut file {
                    Some(file) => Ok(file),
                    None => File::create(&to).map(|new| file.insert(new)),
                };
                match written.and_then(|file| file.write_all(fits)) {
                    Ok(()) => so.kept += fits.len() as u64,
                    Err(e) => so.failed = Some(e.to_string()),
                }
            }
            so.tail.extend_from_slice(&read[read.len().saturating_sub(4 * LINE)..]);
            let too_long = so.tail.len().saturating_sub(4 * LINE);
            so.tail.drain(..too_long);
            so.kept >= KEPT || so.failed.is_some()
        };
        if is_full {
            sleep(PAUSE).await;
        }
    }
}
