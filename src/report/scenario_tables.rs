//! The tables on one scenario, for HTML and Markdown alike.

use std::collections::BTreeMap;

use crate::{
    micros::Micros,
    record::RunRecord,
    report::{
        figure::{NONE, TOO_SMALL_MEANS, bytes, interval, of_requests, or_none, percent, said},
        table::{Cell, Table, code, num},
    },
    snapshot::{Health, Phase, RequestKey, RequestStats},
    summary::{ScenarioSummary, Source},
    timeline::JobOutcome,
};

/// Every stage with its uncertainty.
pub(crate) fn stages(s: &ScenarioSummary) -> Table {
    let mut t = Table::new(
        format!("{}: stages of a job", s.name()),
        &[
            "stage",
            "source",
            "n",
            "unfinished",
            "p50",
            "p50 95 % CI",
            "± half width",
            "p95",
            "p95 95 % CI",
            "max",
            "min",
            "p90",
            "p99",
            "mean",
        ],
    );
    for stage in &s.stages {
        let sample = &stage.sample;
        let some = |m: Option<Micros>| num(m.map_or_else(|| NONE.into(), |m| m.to_string()));
        let (p50, p95) = (stage.quantile(0.5), stage.quantile(0.95));
        t.row(vec![
            stage.stage.to_string().into(),
            stage.source.as_str().into(),
            num(sample.count()),
            num(sample.censored()),
            num(said(p50)),
            num(interval(p50)),
            some(sample.half_width()),
            num(said(p95)),
            num(interval(p95)),
            num(said(sample.max())),
            num(said(sample.min())),
            num(said(stage.quantile(0.9))),
            num(said(stage.quantile(0.99))),
            some(stage.mean()),
        ]);
    }
    t.note("CI: out of the order statistics, as if jobs had nothing in common; with several cells, the table over repetitions says what they have.");
    t.note("Source client: clocked exactly. Source poll: known to lie between two polls; figures are midpoints, ± half width is the median uncertainty of one job. No mean where jobs are unfinished.");
    if s.is_tapped() {
        t.note("Source tap: from the receipt of one post of the target's workers to that of another. To the tap, run ends with the last task's last word and merge with the receipt of the results; polled stages have other bounds: run goes on to MERGING_QUEUED, and merge contains persist.");
    }
    if s.of_source(Source::Metrics).next().is_some() {
        t.note("Source metrics: the target's own histograms. Of a duration only its bucket is known, so every figure stands with its bucket; under unfinished are those beyond the last one. They count whatever the target did while the cells ran.");
    }
    t.note(TOO_SMALL_MEANS);
    t
}

/// Jobs by outcome.
pub(crate) fn outcomes(s: &ScenarioSummary) -> Table {
    let columns: Vec<&'static str> = ["outcome", "submitted"].into_iter().chain(JobOutcome::KINDS).collect();
    let mut t = Table::new(format!("{}: outcomes of jobs", s.name()), &columns);
    let mut row = vec!["jobs".into(), num(s.submitted)];
    row.extend(JobOutcome::KINDS.map(|k| num(s.outcomes.get(k).copied().unwrap_or(0))));
    t.row(row);
    t
}

/// Load-phase requests by endpoint.
pub(crate) fn requests(s: &ScenarioSummary) -> Table {
    let title = format!("{}: requests under load", s.name());
    let mut t = endpoints(title, &s.requests);
    if s.requests.len() > 1 {
        t.row(endpoint("all".into(), NONE.into(), &s.all));
    }
    t.note("Response times of requests that succeeded, from sending to last byte, within 0.1 %; failed ones in columns of their own. Bytes on the wire, heads included.");
    t.note(TOO_SMALL_MEANS);
    t
}

/// Requests outside the clock.
pub(crate) fn outside(s: &ScenarioSummary) -> Table {
    let title = format!("{}: requests outside the clock", s.name());
    let of = |phase: Phase, name: &str| {
        let requests: BTreeMap<RequestKey, RequestStats> =
            s.outside.iter().filter(|(k, _)| k.phase == phase).map(|(k, r)| (k.clone(), r.clone())).collect();
        endpoints(title.clone(), &requests).with_first("phase", name.into())
    };
    let mut t = of(Phase::Setup, "setup").and(of(Phase::Settle, "settle"));
    t.note("Setup: accounts and sessions before T0. Settle: making the target quiet and reading its list. Neither is in any figure above.");
    t
}

fn endpoints(title: String, requests: &BTreeMap<RequestKey, RequestStats>) -> Table {
    let mut t = Table::new(
        title,
        &[
            "method",
            "name",
            "count",
            "failures",
            "statuses",
            "first byte p50",
            "p50",
            "p90",
            "p95",
            "p99",
            "max",
            "mean",
            "failed p50",
            "failed max",
            "sent",
            "received",
            "bodies",
            "connections",
        ],
    );
    for (key, r) in requests {
        t.row(endpoint(key.method.as_str().into(), code(&key.name), r));
    }
    t
}

fn endpoint(method: Cell, name: Cell, r: &RequestStats) -> Vec<Cell> {
    let statuses: Vec<String> = r.statuses.iter().map(|(s, n)| format!("{s}: {n}")).collect();
    vec![
        method,
        name,
        num(r.count()),
        num(r.failed.count()),
        statuses.join(", ").into(),
        num(of_requests(&r.first_byte, 0.5)),
        num(of_requests(&r.ok, 0.5)),
        num(of_requests(&r.ok, 0.9)),
        num(of_requests(&r.ok, 0.95)),
        num(of_requests(&r.ok, 0.99)),
        num(or_none(&r.ok, |h| h.max())),
        num(or_none(&r.ok, |h| h.mean())),
        num(of_requests(&r.failed, 0.5)),
        num(or_none(&r.failed, |h| h.max())),
        num(bytes(r.sent_bytes)),
        num(bytes(r.wire_bytes)),
        num(bytes(r.body_bytes)),
        num(r.connects),
    ]
}

/// Failures by kind.
pub(crate) fn errors(s: &ScenarioSummary) -> Table {
    let mut t = Table::new(
        format!("{}: errors", s.name()),
        &["phase", "method", "name", "error", "count", "first seen", "last seen"],
    );
    for (key, e) in &s.errors {
        t.row(vec![
            key.phase.as_str().into(),
            key.method.as_str().into(),
            code(&key.name),
            code(&key.error),
            num(e.count),
            moment(e.first).into(),
            moment(e.last).into(),
        ]);
    }
    t
}

/// Unix microseconds as a time of day to the millisecond.
pub(crate) fn moment(unix: u64) -> String {
    i64::try_from(unix / 1000)
        .ok()
        .and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok())
        .map_or_else(|| NONE.into(), |t| format!("{t:.3}"))
}

/// The books, cell by cell.
pub(crate) fn ledger(run: &RunRecord, s: &ScenarioSummary) -> Table {
    let mut t = Table::new(
        format!("{}: ledger, cell by cell", s.name()),
        &[
            "cell",
            "verdict",
            "residual",
            "submitted",
            "fetched",
            "failed",
            "canceled",
            "timed out",
            "rejected",
            "lost",
            "broken",
            "in target's list",
            "ghosts",
            "duplicates",
            "vanished",
        ],
    );
    for c in s.all_cells(run) {
        let l = &c.ledger;
        let mut row = vec![
            format!("#{}", c.cell.repetition).into(),
            c.verdict.into(),
            num(l.residual()),
            num(l.submitted),
        ];
        row.extend(JobOutcome::KINDS.map(|k| num(l.count(k))));
        row.push(if l.reconciled { num(l.listed) } else { num("unread") });
        row.extend([num(l.ghosts.len()), num(l.duplicates.len()), num(l.vanished.len())]);
        t.row(row);
    }
    t.note("Residual: submits without an outcome, ghosts, duplicates and vanished jobs. Anything but zero makes the cell INVALID.");
    t
}

/// How well the generator did, cell by cell.
pub(crate) fn health(run: &RunRecord, s: &ScenarioSummary) -> Table {
    let mut t = Table::new(
        format!("{}: generator health, cell by cell", s.name()),
        &[
            "cell",
            "waits",
            "lag p50",
            "lag p99",
            "lag max",
            "CPU",
            "sockets",
            "users' time",
            "in requests",
            "waiting",
            "checking",
            "unaccounted",
        ],
    );
    let row = |name: String, h: &Health| {
        vec![
            name.into(),
            num(h.lag.count()),
            num(of_requests(&h.lag, 0.5)),
            num(of_requests(&h.lag, 0.99)),
            num(or_none(&h.lag, |l| l.max())),
            num(percent(h.cpu_share())),
            num(h.sockets),
            num(h.user_time),
            num(h.in_flight),
            num(h.waiting),
            num(h.checking),
            num(percent(h.unaccounted())),
        ]
    };
    for c in s.all_cells(run) {
        t.row(row(format!("#{}", c.cell.repetition), &c.totals.health));
    }
    if s.cells > 1 {
        t.row(row("all that count".into(), &s.health));
    }
    t.note("Lag: how late planned waits ended. Unaccounted: Little's law, the share of the users' time that neither requests nor waits nor checking results explain; the generator's own work.");
    if run.crew.is_some() {
        t.note("All workers of a cell together; each is in timings/workers.csv, and the worst of them in the validity checklist.");
    }
    t
}
