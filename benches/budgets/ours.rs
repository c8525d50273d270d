//! springtide as the client: its attack, its connections, its recorder, on one load thread.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use springtide::{
    attack::Attack,
    driver::{CellRun, Driver, Flow},
    fault::Fault,
    loadtests::{Kit, input::Input, session::Accounts, user::LOGINS_AT_ONCE},
    micros::Micros,
    plan::{Cell, CellKind, Settings, Share},
    recorder::unix_micros,
    scenario::ScenarioId,
    snapshot::{Phase, Totals},
    target::{Origin, Sockets},
};
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::clients::Report;

/// Users that ask `GET /` in a closed loop.
pub(crate) fn hello(url: &str, users: u32, seconds: u64) -> Result<()> {
    let settings = Settings { run_time: Some(Micros(seconds * 1_000_000)), ..Settings::default() };
    let totals = drive(url, users, settings, Flow::Hello)?;
    let stats = totals.requests.iter().find(|(key, _)| key.phase == Phase::Load).map(|(_, s)| s);
    let stats = stats.cloned().unwrap_or_default();
    let health = &totals.health;
    let accounted = health.in_flight + health.waiting + health.checking;
    let report = Report {
        requests: stats.count(),
        failed: stats.failed.count(),
        mean: stats.ok.mean(),
        p50: stats.ok.quantile(0.5),
        p99: stats.ok.quantile(0.99),
        lag_p99: Some(health.lag.quantile(0.99)),
        missing: Some(1.0 - accounted.as_secs() / health.user_time.as_secs()),
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Users with a session that submit a job and poll it, which goes on for longer than they do.
pub(crate) fn poll(url: &str, users: u32, seconds: u64) -> Result<()> {
    let settings = Settings { job_timeout: Micros(seconds * 1_000_000), ..Settings::default() };
    drive(url, users, settings, Flow::Jobs).map(drop)
}

/// One cell, with the worker's frames but without a manager.
fn drive(url: &str, users: u32, settings: Settings, flow: Flow) -> Result<Totals> {
    let kit = Arc::new(Kit {
        origin: Arc::new(Origin::new(url, None)?),
        sockets: Arc::new(Sockets::default()),
        input: Input::built_in(),
        accounts: Accounts::Registered { prefix: "bench".into(), key: "bench".into() },
        logins: Semaphore::new(LOGINS_AT_ONCE),
        refresh_after: Duration::from_secs(480),
        timeout: Duration::from_secs(30),
        title: "springtide bench".into(),
        most_users: users,
        spans: None,
    });
    let attack = Attack::launch(users, 1, &kit)?;
    let cell = Cell {
        index: 0,
        kind: CellKind::Measured,
        scenario: ScenarioId::try_from("hello".to_owned()).map_err(anyhow::Error::msg)?,
        repetition: 1,
        attempt: 1,
        unbegun: 0,
        users,
        tasks: 1,
        fault: Fault::none(),
        job_timeout: None,
        seed: 1,
    };
    let share = Share { cell, worker: 0, first_user: 0, users };
    let mut run = CellRun::new(share, settings, "bench", CancellationToken::new(), attack.threads());
    run.flow = flow;
    let run = Arc::new(run);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut totals = Totals::default();
        let drive = attack.drive(Arc::clone(&run));
        tokio::pin!(drive);
        let mut frames = tokio::time::interval(Duration::from_secs(1));
        let (mut started, mut settled) = (false, false);
        loop {
            tokio::select! {
                () = &mut drive => break,
                () = run.start.full(), if !started => {
                    started = true;
                    let t0 = Instant::now();
                    run.recorders.iter().for_each(|r| r.start(t0, unix_micros()));
                    run.start.open(t0);
                }
                () = run.settle.full(), if !settled => {
                    settled = true;
                    run.settle.open(Instant::now());
                }
                _ = frames.tick() => run.recorders.iter().for_each(|r| totals.merge(r.take())),
            }
        }
        run.recorders.iter().for_each(|r| totals.merge(r.take()));
        if let Some(why) = run.failure() {
            anyhow::bail!(why);
        }
        Ok(totals)
    })
}
