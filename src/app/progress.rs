//! What a person sees while a run goes on: one living line per cell on a terminal, plain log lines
//! elsewhere. All of it on stderr.

use std::{io::IsTerminal, path::PathBuf, sync::Arc, time::Duration};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{course::Course, folder};
use crate::{
    cluster::manager::Watcher,
    crew::{self, What},
    estimate::{Sample, Span},
    live::Metrics,
    micros::Micros,
    plan::{Cell, CellKind},
    record::{CellRecord, RunRecord},
    snapshot::{Job, Totals},
    spans,
    timeline::{JobOutcome, Stage},
    verdict::Verdict,
};

/// Watches a run, keeps its record and shows how it goes.
pub(super) struct Watch {
    pub(super) record: RunRecord,
    folder: PathBuf,
    /// Where `latest` stands.
    out: PathBuf,
    /// `None` when stderr is no terminal.
    bar: Option<ProgressBar>,
    last_log: Micros,
    course: Course,
    /// Where the jobs of a cell are left for a tracing backend.
    spans: Option<spans::Sender>,
    /// The page for Prometheus, if there is one.
    pub(super) live: Option<Arc<Metrics>>,
}

impl Watch {
    /// Of a run whose cells `todo` are still to be made.
    pub(super) fn new(
        record: RunRecord,
        todo: Vec<Cell>,
        (out, folder): (PathBuf, PathBuf),
        lines_only: bool,
        spans: Option<spans::Sender>,
    ) -> Self {
        let bar = (!lines_only && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(5));
            if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}") {
                bar.set_style(style);
            }
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self {
            record,
            folder,
            out,
            bar,
            last_log: Micros::ZERO,
            course: Course::new(todo),
            spans,
            live: None,
        }
    }

    /// Ends the living line.
    pub(super) fn finish(self) -> RunRecord {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.record
    }

    fn say(&self, line: String) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => tracing::info!("{line}"),
        }
    }

    fn name(&self, cell: &Cell) -> String {
        match cell.kind {
            CellKind::WarmUp => format!("warm-up of {} tasks", cell.tasks),
            CellKind::Measured => {
                let of = self
                    .record
                    .plan
                    .cells
                    .iter()
                    .filter(|c| c.scenario == cell.scenario)
                    .map(|c| c.repetition)
                    .max();
                let attempt = match cell.attempt {
                    0 | 1 => String::new(),
                    n => format!(", attempt {n}"),
                };
                format!("{} {}/{}{attempt}", cell.scenario, cell.repetition, of.unwrap_or(0))
            }
        }
    }
}

impl Watcher for Watch {
    fn told(&mut self, event: crew::Event) {
        if let (Some(live), Some(who)) = (&self.live, &event.who) {
            match event.what {
                What::Joined { .. } => live.worker(&who.name, true),
                What::Left | What::Lost { .. } => live.worker(&who.name, false),
                _ => {}
            }
        }
        let Some(crew) = &mut self.record.crew else { return };
        let who = event.who.as_ref().map_or("plane".to_owned(), |who| format!("worker {who}"));
        let said = format!("{who}: {}", event.what);
        let is_bad = matches!(event.what, What::Refused { .. } | What::Lost { .. } | What::Cut { .. });
        let is_new = crew.take_down(event);
        match is_bad {
            true => tracing::warn!("{said}"),
            false if is_new => self.say(said),
            false => {}
        }
    }

    fn opened(&mut self, cell: &Cell, workers: usize) {
        if let Some(live) = &self.live {
            live.opened(cell);
        }
        if self.course.is_at_its_start() {
            // From here on it is worth while to go on with it.
            folder::point_latest_at(&self.out, &self.folder);
        }
        self.last_log = Micros::ZERO;
        self.course.opened();
        if let Some(bar) = &self.bar {
            let course = self.course.told(&self.record);
            let on = if workers > 1 { format!(" on {workers} workers") } else { String::new() };
            let name = self.name(cell);
            bar.set_message(format!("{course}{name}: getting ready for {} users{on}", cell.users));
        }
    }

    fn progress(&mut self, cell: &Cell, so_far: &[&Totals], elapsed: Option<Micros>) {
        if let Some(live) = &self.live {
            live.progress(so_far, elapsed);
        }
        let Some(elapsed) = elapsed else { return };
        // A line every ten seconds is enough for a log.
        if self.bar.is_none() && elapsed < self.last_log + Micros(10_000_000) {
            return;
        }
        self.last_log = elapsed;
        let course = self.course.told(&self.record);
        let line = format!("{course}{}: {}", self.name(cell), live(so_far, elapsed));
        match &self.bar {
            Some(bar) => bar.set_message(line),
            None => tracing::info!("{line}"),
        }
    }

    fn closed(&mut self, record: CellRecord) -> Result<(), String> {
        if let Some(spans) = &self.spans {
            spans.cell_closed(&record);
        }
        if let Some(live) = &self.live {
            live.closed(&record);
        }
        let ledger = &record.ledger;
        let spans = record.totals.jobs.values().filter_map(end_to_end);
        let p50 = median(spans).map_or(String::new(), |m| format!(", p50 {m}"));
        let (fetched, open) = (ledger.count("fetched"), ledger.submitted.saturating_sub(ledger.ended()));
        let mut counts =
            format!("{} submitted, {fetched} fetched, {} not", ledger.submitted, ledger.ended() - fetched);
        if open > 0 {
            counts += &format!(", {open} without an outcome");
        }
        let again = record.may_be_made_again(self.record.plan.settings.requeue);
        self.course.closed(&record.cell, again);
        let name = self.name(&record.cell);
        let line = match record.cell.kind {
            CellKind::WarmUp => format!("{name}: {counts} (discarded)"),
            CellKind::Measured => {
                let verdict = record.verdict;
                // A cell that was given up has none.
                let took = Some(record.duration).filter(|d| *d > Micros::ZERO);
                let took = took.map_or(String::new(), |d| format!(", {d}"));
                let broken = record.checks.iter().find(|c| c.verdict == verdict && verdict != Verdict::Pass);
                let why = broken.map_or(String::new(), |c| format!(" ({}: {})", c.rule, c.evidence));
                let then = if again { ", to be made again at the end" } else { "" };
                format!("{name}: {counts}{took}{p50}: {verdict}{why}{then}")
            }
        };
        let in_vain = record.cell.kind == CellKind::WarmUp && ledger.count("fetched") == 0;
        self.record.finished = Some(jiff::Timestamp::now());
        self.record.cells.push(record);
        self.say(format!("{}{line}", self.course.told(&self.record)));
        if in_vain {
            tracing::warn!("the warm-up was not fetched: the target may not be sound");
        }
        self.record.save(&self.folder).map_err(|e| format!("cannot keep the run's record: {e}"))
    }
}

/// How long a job took, as the reports have it: a refused submit made no job.
fn end_to_end(job: &Job) -> Option<Span> {
    let refused = matches!(job.outcome, JobOutcome::Rejected { .. });
    job.timeline.stage(Stage::EndToEnd).filter(|_| !refused)
}

/// The live counts of a cell.
fn live(so_far: &[&Totals], elapsed: Micros) -> String {
    let sum = |f: fn(&Totals) -> i64| so_far.iter().map(|t| f(t)).sum::<i64>();
    let submitted = sum(|t| t.progress.submitted as i64);
    let running = sum(|t| t.progress.running);
    let done = sum(|t| t.progress.done as i64);
    let failed = sum(|t| t.progress.failed as i64);
    let spans = so_far.iter().flat_map(|t| t.jobs.values()).filter_map(end_to_end);
    let p50 = median(spans).unwrap_or_else(|| "-".into());
    let elapsed = Micros(elapsed.0 / 100_000 * 100_000);
    format!(
        "{submitted} submitted, {running} running, {done} done, {failed} failed, {elapsed} elapsed, p50 so far {p50}"
    )
}

/// The median, with `>=` in front when it lies among unfinished jobs.
fn median(spans: impl Iterator<Item = Span>) -> Option<String> {
    let q = Sample::new(spans).quantile(0.5)?;
    Some(format!("{}{}", if q.at_least { ">= " } else { "" }, q.value))
}
