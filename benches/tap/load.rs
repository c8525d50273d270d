//! Posts at a fixed rate, each over a connection of its own, whatever becomes of those before.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

/// What a load measured.
#[derive(Debug, Default)]
pub(crate) struct Load {
    /// From before the connection to its end, sorted.
    pub(crate) took: Vec<Duration>,
    pub(crate) failed: u64,
    pub(crate) elapsed: Duration,
}

impl Load {
    pub(crate) fn quantile(&self, q: f64) -> Duration {
        let last = self.took.len().saturating_sub(1);
        self.took.get((last as f64 * q).round() as usize).copied().unwrap_or_default()
    }

    pub(crate) fn sent(&self) -> u64 {
        self.took.len() as u64 + self.failed
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.took.extend(other.took);
        self.took.sort_unstable();
        self.failed += other.failed;
        self.elapsed += other.elapsed;
    }
}

/// Sends posts of 350 B for so long.
pub(crate) async fn run(to: SocketAddr, a_second: u32, time: Duration) -> Load {
    let (began, mut load, mut posts) = (Instant::now(), Load::default(), JoinSet::new());
    let mut tick = interval(Duration::from_secs(1) / a_second);
    tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let total = time.as_secs() * u64::from(a_second);
    for n in 0..total {
        tick.tick().await;
        posts.spawn(post(to, n));
        while let Some(done) = posts.try_join_next() {
            load.take(done.ok().flatten());
        }
    }
    while let Some(done) = posts.join_next().await {
        load.take(done.ok().flatten());
    }
    load.took.sort_unstable();
    load.elapsed = began.elapsed();
    load
}

impl Load {
    fn take(&mut self, took: Option<Duration>) {
        match took {
            Some(took) => self.took.push(took),
            None => self.failed += 1,
        }
    }
}

async fn post(to: SocketAddr, n: u64) -> Option<Duration> {
    let body = format!(
        "{{\"simulation_id\":{n},\"task_id\":0,\"update_key\":\"{:x<190}\",\"update_dict\":{{\"task_state\":\"COMPLETED\",\"end_time\":\"2026-11-22 22:00:00.123456\"}}}}",
        ""
    );
    let head = format!(
        "POST /tasks HTTP/1.1\r\nHost: {to}\r\nUser-Agent: python-requests/2.32\r\nAccept-Encoding: gzip, deflate\r\nAccept: */*\r\nConnection: close\r\nContent-Length: {}\r\nContent-Type: application/json\r\n\r\n",
        body.len()
    );
    let began = Instant::now();
    let mut stream = TcpStream::connect(to).await.ok()?;
    stream.set_nodelay(true).ok()?;
    // Two writes, as Python's http.client does.
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()?;
    let mut answer = Vec::with_capacity(256);
    stream.read_to_end(&mut answer).await.ok()?;
    answer.starts_with(b"HTTP/1.1 202 ").then(|| began.elapsed())
}
