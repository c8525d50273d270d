//! springtide's budgets, measured side by side on this machine: `cargo bench`.
//!
//! CPU time per request against wrk and a plain Goose load test, Little's law, and memory. A server
//! and one client at a time run as processes of their own, the server on core 1, the client on core
//! 0. What counts are the ratios within one run. The tables are printed and kept in `reports/`.
//!
//! `cargo bench -- cpu` and `cargo bench -- memory` measure only that.

mod clients;
mod cpu;
mod machine;
mod memory;
mod ours;
mod plain_goose;
mod process;
mod server;

use std::{env, fs, path::Path};

use anyhow::{Context, Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "--bench").collect();
    match words[..] {
        ["serve"] => server::serve(),
        ["hello", url, users, seconds] => ours::hello(url, users.parse()?, seconds.parse()?),
        ["poll", url, users, seconds] => ours::poll(url, users.parse()?, seconds.parse()?),
        ["plain-goose", url, users, seconds] => plain_goose::run(url, users, seconds),
        [] if args.is_empty() => bail!("these are benchmarks: run them with cargo bench"),
        [] => report(&[cpu::measure, memory::of_users, memory::over_a_run]),
        ["cpu"] => report(&[cpu::measure]),
        ["memory"] => report(&[memory::of_users, memory::over_a_run]),
        _ => bail!("cargo bench -- [cpu|memory], not {words:?}"),
    }
}

/// Measures, prints, and writes `reports/bench-<date>.md`.
fn report(parts: &[fn() -> Result<String>]) -> Result<()> {
    process::allow_sockets()?;
    let mut page = format!("# springtide benchmarks\n\n{}", machine::facts());
    print!("{page}");
    let mut failed = 0;
    for part in parts {
        let text = part().unwrap_or_else(|e| {
            failed += 1;
            format!("NOT MEASURED: {e:#}\n")
        });
        print!("\n{text}");
        page += &format!("\n{text}");
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("reports");
    fs::create_dir_all(&folder)?;
    let file = folder.join(format!("bench-{}.md", jiff::Zoned::now().strftime("%Y-%m-%dT%H%M%S")));
    fs::write(&file, page).with_context(|| format!("cannot write {}", file.display()))?;
    println!("\nKept in {}", file.display());
    anyhow::ensure!(failed == 0, "{failed} of {} parts could not be measured", parts.len());
    Ok(())
}
