//! CPU time per request and fairness: every client loops over a small GET for the same server.

use std::{
    fmt::Write,
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use crate::{
    clients::{Report, Tool},
    process::{Client, Server},
};

const USERS: [u32; 2] = [100, 1_000];
/// Each client runs this often, in turns, and its best run counts: other processes only ever make
/// it worse.
const ROUNDS: u32 = 3;
/// How long a client runs, and when, and for how long it is watched once its users are at it.
const SECONDS: u64 = 4;
const SETTLE: Duration = Duration::from_millis(500);
const WINDOW: Duration = Duration::from_millis(2_000);
const PATIENCE: Duration = Duration::from_secs(20);

/// One run of one client.
struct Run {
    tool: Tool,
    users: u32,
    /// Requests, and CPU time for each in µs, of the window.
    requests: u64,
    cpu: f64,
    /// Requests a second in the window.
    rate: f64,
    report: Report,
}

impl Run {
    /// Users ÷ (throughput × mean latency), which a closed loop makes 1.
    fn little(&self) -> f64 {
        f64::from(self.users) / (self.rate * self.report.mean.as_secs())
    }
}

/// Measures all clients and draws the table.
pub(crate) fn measure() -> Result<String> {
    let mut best: Vec<Run> = Vec::new();
    let (tools, missing): (Vec<Tool>, Vec<Tool>) = Tool::ALL.into_iter().partition(|t| t.is_installed());
    for round in 1..=ROUNDS {
        for users in USERS {
            for &tool in &tools {
                let run = run(tool, users)?;
                eprintln!("round {round}: {} with {users} users: {:.2} µs", tool.name(), run.cpu);
                match best.iter_mut().find(|b| (b.tool, b.users) == (tool, users)) {
                    Some(b) if b.cpu <= run.cpu => {}
                    Some(b) => *b = run,
                    None => best.push(run),
                }
            }
        }
    }
    Ok(draw(&best, &missing))
}

fn run(tool: Tool, users: u32) -> Result<Run> {
    let server = Server::start()?;
    let mut client = Client::start(&tool.command(&server.url, users, SECONDS)?)?;
    client.wait_for(&server, u64::from(users) * 10, PATIENCE)?;
    thread::sleep(SETTLE);
    let (began, served, cpu) = (Instant::now(), server.served()?, client.cpu()?);
    thread::sleep(WINDOW);
    let (took, served, cpu) = (began.elapsed(), server.served()? - served, client.cpu()? - cpu);
    let report = tool.read(&client.output(PATIENCE)?)?;
    Ok(Run {
        tool,
        users,
        requests: served,
        cpu: cpu.as_secs_f64() * 1e6 / served as f64,
        rate: served as f64 / took.as_secs_f64(),
        report,
    })
}

fn draw(runs: &[Run], missing: &[Tool]) -> String {
    let mut page = format!(
        "## CPU per request and fairness\n\n\
         Small GET, closed loop, keep-alive; CPU is user + system time of the client process over \
         {} s; best of {ROUNDS} runs in turns. Little: users ÷ (throughput × mean latency), 1 in a \
         closed loop; lag: how late planned waits ended, at the 99th percentile.\n\n\
         | client | users | requests | CPU µs/request | × wrk | × plain Goose | requests/s | mean | p50 | p99 | Little | lag p99 | failed |\n\
         |---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|\n",
        WINDOW.as_secs()
    );
    let times = |run: &Run, other: Tool| {
        let other = runs.iter().find(|r| (r.tool, r.users) == (other, run.users));
        other.map_or("–".into(), |o| format!("{:.2}", run.cpu / o.cpu))
    };
    for users in USERS {
        for run in runs.iter().filter(|r| r.users == users) {
            let Report { mean, p50, p99, failed, lag_p99, .. } = &run.report;
            let _ = writeln!(
                page,
                "| {} | {users} | {} | {:.2} | {} | {} | {:.0} | {mean} | {p50} | {p99} | {:.3} | {} | {failed} |",
                run.tool.name(),
                run.requests,
                run.cpu,
                times(run, Tool::Wrk),
                times(run, Tool::PlainGoose),
                run.rate,
                run.little(),
                lag_p99.map_or("–".into(), |l| l.to_string()),
            );
        }
    }
    for tool in missing {
        let _ = writeln!(page, "\n{} is not installed.", tool.name());
    }
    for run in runs.iter().filter(|r| r.tool == Tool::Springtide) {
        let missing = run.report.missing.unwrap_or(f64::NAN);
        let _ = writeln!(
            page,
            "\nspringtide, {} users: {:.2} % of the users' time is outside of requests.",
            run.users,
            missing * 100.0
        );
    }
    let wrk = |users| {
        let of = |tool| runs.iter().find(|r| (r.tool, r.users) == (tool, users)).map(|r| r.cpu);
        Some((of(Tool::Springtide)?, of(Tool::PlainGoose)?, of(Tool::Wrk)))
    };
    for users in USERS {
        if let Some((ours, goose, wrk)) = wrk(users) {
            let must = if ours < goose { "met" } else { "MISSED" };
            let aim = match wrk {
                Some(wrk) if ours <= 1.25 * wrk => "met",
                Some(_) => "missed",
                None => "not measured",
            };
            let _ = writeln!(page, "\n{users} users: below plain Goose: {must}; aim of 1.25 × wrk: {aim}.");
        }
    }
    page
}
