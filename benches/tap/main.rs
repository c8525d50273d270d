//! What the tap costs, measured on this machine: `cargo bench --bench tap`.
//!
//! Small posts as YAPTIDE's workers send them, a connection each, straight to a trivial upstream,
//! through the tap and, where it is installed, through nginx; then a minute at a high rate whose
//! reader goes away in the middle; then a body of 1 GiB. All processes share the machine, so what
//! counts are the differences within one run. `cargo bench --bench tap -- cost`, `loss` and `big`
//! measure only that.

mod big;
mod cost;
mod load;
mod loss;
mod process;
mod upstream;

use std::env;

use anyhow::{Result, bail};

fn main() -> Result<()> {
    let args: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).filter(|a| *a != "--bench").collect();
    let parts: &[fn() -> Result<String>] = match words[..] {
        ["upstream"] => return upstream::serve(),
        [] if args.is_empty() => bail!("these are benchmarks: run them with cargo bench"),
        [] => &[cost::measure, loss::measure, big::measure],
        ["cost"] => &[cost::measure],
        ["loss"] => &[loss::measure],
        ["big"] => &[big::measure],
        _ => bail!("cargo bench --bench tap -- [cost|loss|big], not {words:?}"),
    };
    println!("# springtide tap");
    for part in parts {
        println!("\n{}", part()?);
    }
    Ok(())
}
