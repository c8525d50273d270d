//! Memory: what a polling user takes, and whether a longer run takes more.

use std::{fmt::Write, thread, time::Duration};

use anyhow::Result;

use crate::{
    clients::Tool,
    process::{Client, Server, own},
};

/// What a user may take.
const LIMIT: f64 = 64.0 * 1024.0;
/// How much more ten times the requests may take.
const GROWTH: f64 = 0.05;
const PATIENCE: Duration = Duration::from_secs(90);

/// Measures polling users and draws the table.
pub(crate) fn of_users() -> Result<String> {
    let mut page = "## Memory of polling users\n\n\
         Every user has a session and a connection of its own and polls its job every 500 ms. \
         Resident memory of the client process; a user's part is what it grew by against ten users.\n\n\
         | users | resident | a user | limit |\n|---:|---:|---:|---|\n"
        .to_owned();
    let few = 10;
    let base = polling(few)?;
    let _ = writeln!(page, "| {few} | {:.1} MiB | | |", mib(base));
    for users in [1_000, 10_000] {
        let resident = polling(users)?;
        let each = (resident.saturating_sub(base)) as f64 / f64::from(users - few);
        let met = if each <= LIMIT { "met" } else { "MISSED" };
        let _ = writeln!(
            page,
            "| {users} | {:.1} MiB | {:.1} KiB | 64 KiB: {met} |",
            mib(resident),
            each / 1024.0
        );
    }
    Ok(page)
}

/// Measures a long run and draws the table.
pub(crate) fn over_a_run() -> Result<String> {
    let (early, late) = growth()?;
    let growth = late as f64 / early as f64 - 1.0;
    let met = if growth <= GROWTH { "met" } else { "MISSED" };
    Ok(format!(
        "## Memory over a run\n\n100 users in a closed loop.\n\n\
         | requests | resident | growth | limit |\n|---:|---:|---:|---|\n\
         | 100,000 | {:.2} MiB | | |\n\
         | 1,000,000 | {:.2} MiB | {:+.1} % | 5 %: {met} |\n",
        mib(early),
        mib(late),
        growth * 100.0
    ))
}

/// Resident memory when every user has polled a few times.
fn polling(users: u32) -> Result<u64> {
    let server = Server::start()?;
    let mut client = Client::start(&own(&["poll", &server.url, &users.to_string(), "60"])?)?;
    // Register, log in, submit, and five polls.
    client.wait_for(&server, u64::from(users) * 8, PATIENCE)?;
    thread::sleep(Duration::from_millis(500));
    let resident = client.resident();
    eprintln!("{users} polling users measured");
    resident
}

/// Resident memory after 10⁵ and after 10⁶ requests.
fn growth() -> Result<(u64, u64)> {
    let server = Server::start()?;
    let mut client = Client::start(&Tool::Springtide.command(&server.url, 100, 240)?)?;
    client.wait_for(&server, 100_000, PATIENCE)?;
    let early = client.resident()?;
    client.wait_for(&server, 1_000_000, PATIENCE)?;
    Ok((early, client.resident()?))
}

fn mib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}
