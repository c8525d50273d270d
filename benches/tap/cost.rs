//! Latency that a proxy adds, and CPU time that it takes.

use std::{fmt::Write, time::Duration};

use anyhow::Result;

use crate::{
    load::{self, Load},
    process::{Server, mib},
};

const RATE: u32 = 500;
const TIME: Duration = Duration::from_secs(4);
/// Each way is taken so often, in turns.
const ROUNDS: u32 = 3;

/// Measures all ways and draws the table.
pub(crate) fn measure() -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let upstream = Server::upstream()?;
    let mut ways = vec![("direct", None), ("tap", Some(Server::tap(upstream.addr)?))];
    let nginx = Server::nginx(upstream.addr)?;
    let has_nginx = nginx.is_some();
    ways.extend(nginx.map(|nginx| ("nginx", Some(nginx))));
    let mut figures: Vec<(Load, Duration)> = ways.iter().map(|_| Default::default()).collect();
    for _ in 0..ROUNDS {
        for ((_, proxy), (sum, cpu)) in ways.iter().zip(&mut figures) {
            let to = proxy.as_ref().map_or(upstream.addr, |p| p.addr);
            // Neither the first connections nor the first allocations count.
            runtime.block_on(load::run(to, RATE, Duration::from_secs(1)));
            let before = proxy.as_ref().map_or(Ok(Duration::ZERO), Server::cpu)?;
            sum.add(runtime.block_on(load::run(to, RATE, TIME)));
            *cpu += proxy.as_ref().map_or(Ok(Duration::ZERO), Server::cpu)? - before;
        }
    }
    let mut page = format!(
        "## What a post pays\n\n{RATE} posts a second of 350 B, a connection each, {ROUNDS} × {} s in turns.\n\n\
         | way | posts | failed | p50 | p99 | added p50 | added p99 | CPU µs/post | resident |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        TIME.as_secs()
    );
    let us = |d: Duration| d.as_secs_f64() * 1e6;
    let direct = [0.5, 0.99].map(|q| us(figures[0].0.quantile(q)));
    for ((name, proxy), (load, cpu)) in ways.iter().zip(&figures) {
        let [p50, p99] = [0.5, 0.99].map(|q| us(load.quantile(q)));
        let (added, of_process) = match proxy {
            None => ("| | ".to_owned(), "| | ".to_owned()),
            Some(proxy) => (
                format!("| {:.0} µs | {:.0} µs ", p50 - direct[0], p99 - direct[1]),
                format!("| {:.1} | {:.1} MiB ", us(*cpu) / load.sent() as f64, mib(proxy.memory()?.0)),
            ),
        };
        let _ = writeln!(
            page,
            "| {name} | {} | {} | {p50:.0} µs | {p99:.0} µs {added}{of_process}|",
            load.sent(),
            load.failed
        );
    }
    if !has_nginx {
        page += "\nnginx is not installed.\n";
    }
    Ok(page)
}
