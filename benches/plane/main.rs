//! What the plane costs, measured on this machine: `cargo bench --bench plane`, or `make bench-plane`.
//!
//! A real redis-server, a manager in a process of its own that is held on one core, and a thousand
//! workers in a third process, each with its own connections, lease, clock and outbox, and a frame of
//! twenty histograms a second. Then an abort in the middle of a cell, and one worker alone, over Redis
//! and in memory. All share the machine, so what counts are the differences within one run.
//! `cargo bench --bench plane -- many` and `one` measure only that.

mod fleet;
mod load;
mod manager;
mod many;
mod one;
mod process;

use std::env;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "--bench").collect();
    let parts: &[fn() -> Result<String>] = match words[..] {
        ["manager", url, workers, seconds] => return manager::serve(url, workers.parse()?, seconds.parse()?),
        ["fleet", url, workers, seconds] => return fleet::serve(url, workers.parse()?, seconds.parse()?),
        ["alone", seconds] => return one::alone(seconds.parse()?),
        [] if args.is_empty() => bail!("these are benchmarks: run them with cargo bench"),
        [] => &[many::measure, one::measure],
        ["many"] => &[many::measure],
        ["one"] => &[one::measure],
        _ => bail!("cargo bench --bench plane -- [many|one], not {words:?}"),
    };
    println!("# the plane");
    for part in parts {
        println!("\n{}", part()?);
    }
    Ok(())
}
