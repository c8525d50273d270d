//! The workers of a run over a plane in the summary.

use jiff::Timestamp;
use serde::Serialize;

use crate::{
    crew::{Event, Member, Offset, What},
    micros::Micros,
    record::RunRecord,
    report::{
        crew::{Row, Workers},
        fold,
    },
};

/// Times are milliseconds.
#[derive(Serialize)]
pub(super) struct OfWorkers<'a> {
    plane: &'a str,
    plane_version: &'a str,
    plane_run_id: &'a str,
    lease: f64,
    expected: u32,
    came: usize,
    lost: u64,
    refused: u64,
    late_frames: u64,
    cut_off: u64,
    each: Vec<OfWorker<'a>>,
    events: Vec<OfEvent<'a>>,
}

/// Over all measured cells, those that were made again too; `null` for one that had no users.
#[derive(Serialize)]
struct OfWorker<'a> {
    name: &'a str,
    epochs: Vec<u64>,
    host: Option<&'a str>,
    cores: Option<u32>,
    version: Option<&'a str>,
    revision: Option<&'a str>,
    joined: Option<Timestamp>,
    cells: u32,
    stood_by: u32,
    users_least: Option<u32>,
    users_most: Option<u32>,
    frames: u64,
    gaps: u64,
    repeated: u64,
    clock_offset: Option<f64>,
    clock_error: Option<f64>,
    /// How far from T0 it may have begun, the error of the offset included.
    start_skew_p50: Option<f64>,
    start_skew_max: Option<f64>,
    cpu_worst: Option<f64>,
    cpu_mean: Option<f64>,
    lag_p99_worst: Option<f64>,
    lost: u32,
}

#[derive(Serialize)]
struct OfEvent<'a> {
    at: Option<Timestamp>,
    worker: Option<&'a str>,
    epoch: Option<u64>,
    cell: Option<u32>,
    place: Option<String>,
    kind: &'static str,
    text: String,
}

impl<'a> OfWorkers<'a> {
    /// `None` for a run in one process.
    pub(super) fn of(run: &'a RunRecord) -> Option<Self> {
        let workers = Workers::of(run)?;
        let crew = workers.crew;
        Some(Self {
            plane: &crew.plane,
            plane_version: &crew.version,
            plane_run_id: &crew.run_id,
            lease: crew.lease.as_ms(),
            expected: crew.expected,
            came: workers.came(),
            lost: workers.lost(),
            refused: workers.refused(),
            late_frames: workers.late_frames(),
            cut_off: workers.cut_off(),
            each: workers.rows.iter().map(|(name, row)| OfWorker::of(name, row)).collect(),
            events: crew.events.iter().map(|event| OfEvent::of(run, event)).collect(),
        })
    }
}

impl<'a> OfWorker<'a> {
    fn of(name: &'a str, row: &Row<'a>) -> Self {
        let ms = |m: Option<Micros>| m.map(Micros::as_ms);
        let worked = row.cells > 0;
        Self {
            name,
            epochs: row.epochs.iter().copied().collect(),
            host: row.from.map(|(host, _)| host.name.as_str()),
            cores: row.from.map(|(host, _)| host.cores),
            version: row.from.map(|(_, build)| build.version.as_str()),
            revision: row.from.map(|(_, build)| build.revision.as_str()),
            joined: row.joined.and_then(timestamp),
            cells: row.cells,
            stood_by: row.stood_by,
            users_least: row.users.map(|(least, _)| least),
            users_most: row.users.map(|(_, most)| most),
            frames: row.frames,
            gaps: row.gaps,
            repeated: row.repeated,
            clock_offset: row.offset.map(|Offset { ahead, .. }| ahead as f64 / 1e3),
            clock_error: ms(row.offset.map(|o| o.error)),
            start_skew_p50: ms(row.median_skew()),
            start_skew_max: ms(row.skews.last().copied()),
            cpu_worst: worked.then_some(row.worst_cpu),
            cpu_mean: worked.then(|| row.health.cpu_share()),
            lag_p99_worst: worked.then(|| row.worst_lag.as_ms()),
            lost: row.lost,
        }
    }
}

impl<'a> OfEvent<'a> {
    fn of(run: &RunRecord, event: &'a Event) -> Self {
        Self {
            at: timestamp(event.at),
            worker: event.who.as_ref().map(|Member { name, .. }| name.as_str()),
            epoch: event.who.as_ref().map(|who| who.epoch),
            cell: event.cell,
            place: event.cell.map(|cell| fold::place(run, cell)),
            kind: kind(&event.what),
            text: event.what.to_string(),
        }
    }
}

fn timestamp(unix_us: u64) -> Option<Timestamp> {
    Timestamp::from_microsecond(i64::try_from(unix_us).ok()?).ok()
}

/// As in the run record.
fn kind(what: &What) -> &'static str {
    match what {
        What::Joined { .. } => "joined",
        What::Refused { .. } => "refused",
        What::Left => "left",
        What::Lost { .. } => "lost",
        What::LateFrames { .. } => "late_frames",
        What::Cut { .. } => "cut",
        What::Back => "back",
        What::Short { .. } => "short",
    }
}
