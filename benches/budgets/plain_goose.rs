//! A load test as Goose's users write it: one transaction, one request, Goose's own metrics, on
//! the multi-thread runtime that `#[tokio::main]` gives.

use anyhow::{Context, Result};
use goose::{
    GooseAttack,
    config::GooseConfiguration,
    goose::{GooseUser, Scenario, Transaction, TransactionResult},
};
use springtide::micros::Micros;

use crate::clients::Report;

async fn hello(user: &mut GooseUser) -> TransactionResult {
    let _goose = user.get("/").await?;
    Ok(())
}

pub(crate) fn run(url: &str, users: &str, seconds: &str) -> Result<()> {
    let mut config = GooseConfiguration::default();
    config.host = Some(url.to_owned());
    config.users = Some(users.parse()?);
    config.increase_rate = Some("2000".into());
    config.run_time = Some(seconds.to_owned());
    config.quiet = 2;
    config.no_print_metrics = true;
    config.no_telnet = true;
    let attack = GooseAttack::initialize_with_config(config)?.register_scenario(
        Scenario::new("hello")
            .register_transaction(Transaction::new(std::sync::Arc::new(|user| Box::pin(hello(user))))),
    );
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let metrics = runtime.block_on(attack.execute())?;
    let stats = metrics.requests.values().next().context("no requests")?;
    let times = &stats.raw_data;
    let quantile = |q: f64| {
        let mut left = (times.counter as f64 * q).ceil() as usize;
        let found = times.times_us.iter().find(|(_, n)| {
            let found = left <= **n;
            left = left.saturating_sub(**n);
            found
        });
        Micros(found.map_or(0, |(us, _)| *us))
    };
    let report = Report {
        requests: times.counter as u64,
        failed: stats.fail_count as u64,
        mean: Micros(times.total_time_us / (times.counter as u64).max(1)),
        p50: quantile(0.5),
        p99: quantile(0.99),
        lag_p99: None,
        missing: None,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}
