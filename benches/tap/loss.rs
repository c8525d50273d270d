//! A minute at a high rate, with a reader that goes away in the middle of it.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use springtide::tap::Link;

use crate::{
    load,
    process::{Server, mib},
};

const RATE: u32 = 2_000;
const TIME: Duration = Duration::from_secs(60);
/// When the reader goes, and when it comes back.
const AWAY: std::ops::Range<Duration> = Duration::from_secs(25)..Duration::from_secs(35);
const READS: Duration = Duration::from_secs(1);

/// Measures and draws the table.
pub(crate) fn measure() -> Result<String> {
    let (upstream, runtime) = (Server::upstream()?, tokio::runtime::Runtime::new()?);
    let tap = Server::tap(upstream.addr)?;
    let link = Link::new(&format!("http://{}", tap.addr), None)?;
    let (load, read, lost) = runtime.block_on(async {
        let loading = tokio::spawn(load::run(tap.addr, RATE, TIME));
        let boot = link.hello().await?.boot;
        let (began, mut from, mut read, mut lost) = (Instant::now(), 1, 0, 0);
        loop {
            let is_over = loading.is_finished();
            let batch = link.posts(&boot, from).await?;
            (from, read, lost) = (batch.next, read + batch.posts.len() as u64, lost + batch.lost);
            if is_over && !batch.more && batch.in_flight == 0 {
                return anyhow::Ok((loading.await?, read, lost));
            }
            if !batch.more {
                let pause = if AWAY.contains(&began.elapsed()) { AWAY.end - AWAY.start } else { READS };
                tokio::time::sleep(pause).await;
            }
        }
    })?;
    let answered = load.took.len() as u64;
    ensure!(read + lost >= answered, "{read} posts read and {lost} lost of {answered} answered");
    let (now, most) = tap.memory()?;
    Ok(format!(
        "## What is lost\n\n{RATE} posts a second for {} s, a connection each; the reader is away for {} s.\n\n\
         | sent | a second | answered | read | lost | p50 | p99 | resident | at most |\n|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n\
         | {} | {:.0} | {answered} | {read} | {}: {} | {:.0} µs | {:.0} µs | {:.1} MiB | {:.1} MiB |\n",
        TIME.as_secs(),
        (AWAY.end - AWAY.start).as_secs(),
        load.sent(),
        load.sent() as f64 / load.elapsed.as_secs_f64(),
        lost,
        if lost == 0 && read >= answered { "met" } else { "MISSED" },
        load.quantile(0.5).as_secs_f64() * 1e6,
        load.quantile(0.99).as_secs_f64() * 1e6,
        mib(now),
        mib(most)
    ))
}
