//! A thousand workers and one manager.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use springtide::{
    crew::Member,
    plane::{Report, Sent},
    snapshot::{Frame, FrameBody},
};

use crate::{
    load::a_stretch,
    manager::Outcome,
    process::{Redis, Role},
};

/// Workers, and seconds of load. `SPRINGTIDE_BENCH_WORKERS` and `SPRINGTIDE_BENCH_SECONDS` make it smaller.
fn scale() -> (u64, u64) {
    let set = |name: &str, usual| std::env::var(name).ok().and_then(|v| v.parse().ok()).unwrap_or(usual);
    (set("SPRINGTIDE_BENCH_WORKERS", 1_000), set("SPRINGTIDE_BENCH_SECONDS", 60))
}

/// Bytes of a frame on the plane, and how many histograms are in it.
fn frame() -> Result<(usize, usize)> {
    let delta = a_stretch();
    let per_request = delta.requests.values().map(|r| [&r.ok, &r.first_byte, &r.failed]);
    let of_requests = per_request.flatten().filter(|h| h.count() > 0).count();
    let of_series: usize =
        delta.series.0.values().map(|s| [&s.ok, &s.failed].iter().filter(|h| h.count() > 0).count()).sum();
    let body = FrameBody::Delta(Box::new(delta));
    let report = Report::Frame(Frame { cell: 0, worker: 0, epoch: 1, seq: 1, body });
    let sent = Arc::new(Sent { from: Member { name: "w0000".into(), epoch: 1 }, report });
    Ok((serde_json::to_vec(&*sent)?.len(), of_requests + of_series))
}

/// Measures it.
pub(crate) fn measure() -> Result<String> {
    let (workers, seconds) = scale();
    let redis = Redis::start()?;
    let (n, s) = (workers.to_string(), seconds.to_string());
    let manager = Role::of(&["manager", &redis.url, &n, &s])?;
    let fleet = Role::of(&["fleet", &redis.url, &n, &s])?;
    let o: Outcome = serde_json::from_str(&manager.says(Duration::from_secs(seconds + 240))?)?;
    let used: f64 = fleet.says(Duration::from_secs(60))?.parse()?;
    let (bytes, histograms) = frame()?;
    let of = |ok: bool| if ok { "yes" } else { "NO" };
    Ok(format!(
        "## {workers} workers, a frame a second each, for {seconds} s\n\n\
         | figure | measured | wanted | kept |\n|---|---|---|---|\n\
         | workers of the cell | {} | {workers} | {} |\n\
         | frames, of which missing | {}, {} | none missing | {} |\n\
         | merge lag p50, p99, most | {:.0} ms, {:.0} ms, {:.0} ms | p99 < 1000 ms | {} |\n\
         | CPU of the manager, held on one core | {:.0} % of it | < 100 % | {} |\n\
         | memory of the manager | {:.0} MB | < 500 MB | {} |\n\
         | bytes of a frame with {histograms} histograms | {bytes} | | |\n\
         | from the abort to the last worker stopped | {} | | |\n\
         | CPU of all workers together, whole run | {:.1} s | | |\n",
        o.workers,
        of(o.workers == workers),
        o.frames,
        o.missing.clone().unwrap_or_else(|| o.gaps.to_string()),
        of(o.gaps == 0 && o.missing.is_none()),
        o.lag[0],
        o.lag[1],
        o.lag[2],
        of(o.lag[1] < 1_000.0),
        o.cpu * 100.0,
        of(o.cpu < 1.0),
        o.memory as f64 / 1e6,
        of(o.memory < 500_000_000),
        o.stopped.map_or("it was not aborted".into(), |ms| format!("{ms:.0} ms")),
        used / 1e6,
    ))
}
