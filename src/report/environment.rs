//! The table on where a run took place: plan, target, program and machine.

use crate::{
    micros::Micros,
    plan::{Accounts, Plan},
    record::{Build, Host},
    report::{
        Paper,
        crew::Workers,
        figure,
        figure::NONE,
        table::{Cell, Table, code},
    },
};

/// Cells whose order is told; that of more is in the record.
const ORDER: usize = 400;

/// Target, plan, program and machine.
pub(crate) fn facts(paper: &Paper<'_>) -> Table {
    let run = paper.run;
    let (plan, settings) = (&run.plan, &run.plan.settings);
    let mut t = Table::new("Plan, target, versions and host", &["what", "value"]);
    let mut fact = |what: &str, value: Cell| t.row(vec![what.into(), value]);
    fact("run", code(&run.run_id));
    fact("started", run.started.to_string().into());
    fact("last cell ended", run.finished.map_or_else(|| "not yet".into(), |f| f.to_string()).into());
    if let Some(why) = &run.stopped {
        fact("stopped", why.as_str().into());
    }
    fact("command", code(&run.command));
    let kind = if run.target.stand_in { "built-in stand-in, " } else { "" };
    fact("target", format!("{kind}{}", run.target.url).into());
    fact("target says", code(&run.target.hello));
    fact("target's server", run.target.server.as_deref().unwrap_or(NONE).into());
    fact("target keeps connections", if run.target.keep_alive { "yes" } else { "no" }.into());
    if let Some(retries) = &run.target.retries {
        fact("its workers", format!("retries {retries}").into());
    }
    if let Some(tap) = &run.rigging.tap {
        let kind = if tap.built_in { "built-in, " } else { "" };
        let text = format!("{kind}{} in front of {}, springtide {}", tap.url, tap.upstream, tap.version);
        fact("tap", text.into());
    }
    if let Some(toxiproxy) = &run.rigging.toxiproxy {
        fact("Toxiproxy", format!("{} at {}, {}", toxiproxy.proxy, toxiproxy.url, toxiproxy.listen).into());
    }
    match (&run.redis, run.measured().any(|c| c.telemetry.redis.is_some())) {
        (Some(redis), _) => {
            let limit = match redis.maxmemory {
                0 => "no memory limit".to_owned(),
                n => format!("at most {}", figure::bytes(n)),
            };
            let text = format!(
                "{} at {}, {limit}, {}, run id {}",
                redis.version, redis.url, redis.policy, redis.run_id
            );
            fact("target's Redis", text.into());
        }
        (None, true) => fact("target's Redis", "looked at, version not known".into()),
        (None, false) => fact("target's Redis", "not looked at".into()),
    }
    if let Some(workers) = Workers::of(run) {
        let plane = workers.crew;
        let text = format!(
            "{}, Redis {}, run id {}, lease {}",
            plane.plane, plane.version, plane.run_id, plane.lease
        );
        fact("plane", text.into());
        fact("workers", workers.said().into());
    }
    for (name, revision) in &run.revisions {
        fact(&format!("revision of {name}"), code(revision));
    }
    if let Some(note) = &run.note {
        fact("note", note.as_str().into());
    }
    fact("seed", code(plan.seed.to_string()));
    fact("plan hash", code(plan.hash()));
    fact("order of the cells", order(plan).into());
    fact("matrix", format!("{}, SHA-256 {}", plan.matrix_name, plan.matrix_sha256).into());
    let overrides = if plan.overrides.is_empty() { "none".to_owned() } else { plan.overrides.join("; ") };
    fact("overrides", overrides.into());
    let input = &plan.input;
    fact("input", format!("{}, {} bytes, SHA-256 {}", input.name, input.bytes, input.sha256).into());
    fact(
        "accounts",
        match plan.accounts {
            Accounts::Shared => "one, shared by all users",
            Accounts::Registered => "one registered per user",
        }
        .into(),
    );
    let pause = |m: Micros| {
        if m == Micros::ZERO { "none".into() } else { m.to_string() }
    };
    fact(
        "users",
        format!(
            "poll interval {} ±10 %, job timeout {}, patience {}, {}, {}, cool-down {}",
            settings.poll_interval,
            job_timeouts(plan),
            settings.patience,
            settings.run_time.map_or_else(
                || format!("{} job(s) per user", settings.jobs_per_user),
                |t| format!("job after job for {t}")
            ),
            settings.spawn_rate.map_or_else(|| "all start at T0".into(), |r| format!("{r} start per second")),
            pause(settings.cool_down),
        )
        .into(),
    );
    let cells = format!("{} of {} measured", run.measured().count(), plan.measured().count());
    fact("cells", cells.into());
    fact("springtide", program(&run.build).into());
    let whose = if run.crew.is_some() { "manager's host" } else { "generator's host" };
    fact(whose, machine(&run.host).into());
    for again in &run.resumed {
        let mut text = format!("{}, after {} cells", again.at, again.cells);
        if again.build != run.build {
            text.push_str(&format!("; springtide {}", program(&again.build)));
        }
        if again.host != run.host {
            text.push_str(&format!("; {}", machine(&again.host)));
        }
        fact("resumed", text.into());
    }
    t
}

/// When jobs are given up, which may differ from cell to cell.
fn job_timeouts(plan: &Plan) -> String {
    let of = |c: &crate::plan::Cell| plan.settings.clone().within(c).job_timeout;
    let all = || plan.cells.iter().map(of);
    match (all().min(), all().max()) {
        (Some(least), Some(most)) if least != most => format!("{least} to {most} by scenario"),
        _ => plan.settings.job_timeout.to_string(),
    }
}

fn program(build: &Build) -> String {
    format!("{} ({}, {}), Goose {}", build.version, build.revision, build.profile, build.goose)
}

fn machine(host: &Host) -> String {
    format!(
        "{}: {}, {} cores, {} memory, {}, {} open files",
        host.name,
        host.cpu,
        host.cores,
        figure::bytes(host.memory),
        host.kernel,
        host.open_files
    )
}

/// The scenarios in the order they were to run, repetition by repetition: `1: S3 S1; 2: S1 S3`.
fn order(plan: &Plan) -> String {
    let mut said = String::new();
    let mut block = 0;
    for cell in plan.measured().take(ORDER) {
        if cell.repetition != block {
            block = cell.repetition;
            let gap = if said.is_empty() { "" } else { "; " };
            said.push_str(&format!("{gap}{block}:"));
        }
        said.push_str(&format!(" {}", cell.scenario));
    }
    if plan.measured().count() > ORDER {
        said.push_str(" … the others are in run.json");
    }
    said
}
