//! springtide's own live figures, as Prometheus reads them: `/metrics` while a run goes on.
//!
//! Fed by the manager from what workers have sent, so a user's request pays nothing for it. Counters
//! only rise over a run: a cell that is given up, or INVALID and made again, stays counted. Warm-ups
//! are not counted at all.
//! They are for watching; evidence is the run's record.

mod figures;
mod page;
mod serve;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

pub use serve::{Door, LiveError, Server};

use self::{
    figures::Figures,
    page::{Kind, Page},
};
use crate::{
    fault::{Fault, FaultMode},
    micros::Micros,
    plan::{Cell, CellKind},
    record::CellRecord,
    snapshot::Totals,
    telemetry::scrape::text::Format,
};

/// How often the running cell is added up; workers tell of it once a second.
const EVERY: Duration = Duration::from_millis(900);

/// The figures of a run.
#[derive(Debug)]
pub struct Metrics {
    state: Mutex<State>,
    every: Duration,
}

#[derive(Debug, Default)]
struct State {
    info: Vec<(&'static str, String)>,
    /// Whether each worker is there.
    workers: BTreeMap<String, bool>,
    /// Cells that are over, by scenario.
    closed: BTreeMap<String, Figures>,
    running: Option<Running>,
    /// What faults there are in which scenario.
    modes: BTreeSet<(String, FaultMode)>,
}

/// The cell that goes on.
#[derive(Debug)]
struct Running {
    scenario: String,
    figures: Figures,
    fault: Fault,
    elapsed: Option<Micros>,
    added_up: Option<Instant>,
}

impl Metrics {
    /// Of a run that is told from others by `info` (label and value).
    pub fn new(info: Vec<(&'static str, String)>) -> Self {
        let workers = BTreeMap::new();
        Self { state: Mutex::new(State { info, workers, ..State::default() }), every: EVERY }
    }

    /// A worker is there, or is not any more.
    pub fn worker(&self, name: &str, is_up: bool) {
        self.state().workers.insert(name.to_owned(), is_up);
    }

    /// A cell begins.
    pub fn opened(&self, cell: &Cell) {
        let mut state = self.state();
        state.give_up();
        if cell.kind == CellKind::WarmUp {
            return;
        }
        let scenario = cell.scenario.to_string();
        state.modes.insert((scenario.clone(), cell.fault.mode()));
        state.closed.entry(scenario.clone()).or_default();
        let (figures, fault) = (Figures::default(), cell.fault.clone());
        state.running = Some(Running { scenario, figures, fault, elapsed: None, added_up: None });
    }

    /// It goes on; `so_far` holds one stretch for each worker, `elapsed` counts from T0.
    pub fn progress(&self, so_far: &[&Totals], elapsed: Option<Micros>) {
        let every = self.every;
        let due = {
            let mut state = self.state();
            let Some(running) = &mut state.running else { return };
            running.elapsed = elapsed;
            running.added_up.is_none_or(|at| at.elapsed() >= every)
        };
        if due {
            // Not under the lock: whoever reads the page does not wait for it.
            let figures = Figures::of(so_far);
            if let Some(running) = &mut self.state().running {
                (running.figures, running.added_up) = (figures, Some(Instant::now()));
            }
        }
    }

    /// It ended.
    pub fn closed(&self, record: &CellRecord) {
        if record.cell.kind == CellKind::WarmUp {
            return;
        }
        let mut figures = Figures::of(&[&record.totals]);
        figures.in_flight = 0;
        if let Some(posts) = &record.posts {
            figures.add_posts(posts);
        }
        let mut state = self.state();
        let seen = state.running.take();
        // What was shown stays shown, should the record have less.
        if let Some(seen) = seen.filter(|seen| seen.figures.size() > figures.size()) {
            figures = Figures { in_flight: 0, ..seen.figures };
        }
        state.closed.entry(record.cell.scenario.to_string()).or_default().merge(&figures);
    }

    /// The page.
    pub fn render(&self, format: Format) -> String {
        let state = self.state();
        let mut page = Page::new(format);
        state.page(&mut page);
        page.finish()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Plain numbers, whole after every line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Keeps what was counted of a cell that will have no record.
    fn give_up(&mut self) {
        if let Some(Running { scenario, mut figures, .. }) = self.running.take() {
            figures.in_flight = 0;
            self.closed.entry(scenario).or_default().merge(&figures);
        }
    }

    /// All cells by scenario, the running one among them.
    fn all(&self) -> BTreeMap<&str, Figures> {
        let mut all: BTreeMap<&str, Figures> =
            self.closed.iter().map(|(scenario, f)| (scenario.as_str(), f.clone())).collect();
        if let Some(running) = &self.running {
            all.entry(&running.scenario).or_default().merge(&running.figures);
        }
        all
    }

    fn page(&self, page: &mut Page) {
        let all = self.all();
        page.family(
            "springtide_http_request_duration_seconds",
            Kind::Histogram,
            "Response times of requests under load, from sending to the last byte of the answer.",
        );
        for (scenario, f) in &all {
            for ((method, endpoint, outcome), h) in &f.requests {
                let labels: [(&str, &str); 4] = [
                    ("scenario", scenario),
                    ("method", method),
                    ("endpoint", endpoint),
                    ("outcome", outcome),
                ];
                page.durations(&labels, h);
            }
        }
        page.family(
            "springtide_job_stage_duration_seconds",
            Kind::Histogram,
            "Stages of a job as its client sees them; queue, run and merge are midpoints between two polls.",
        );
        for (scenario, f) in &all {
            for (stage, h) in &f.stages {
                page.durations(&[("scenario", scenario), ("stage", stage)], h);
            }
        }
        page.family(
            "springtide_job_duration_seconds",
            Kind::Histogram,
            "Sending the submit to the last byte of the results, or to the moment the client let go of the job.",
        );
        for (scenario, f) in &all {
            for (outcome, h) in &f.durations {
                page.durations(&[("scenario", scenario), ("outcome", outcome)], h);
            }
        }
        page.family("springtide_jobs_total", Kind::Counter, "Jobs that ended.");
        for (scenario, f) in &all {
            for (outcome, n) in f.outcomes() {
                page.number(&[("scenario", scenario), ("outcome", outcome)], n as f64);
            }
        }
        page.family("springtide_jobs_in_flight", Kind::Gauge, "Jobs that were submitted and have not ended.");
        for (scenario, f) in &all {
            page.number(&[("scenario", scenario)], f.in_flight as f64);
        }
        page.family("springtide_polls_total", Kind::Counter, "Questions after the state of a job.");
        for (scenario, f) in &all {
            page.number(&[("scenario", scenario)], f.polls as f64);
        }
        page.family(
            "springtide_payload_bytes",
            Kind::Histogram,
            "Bodies sent and fetched; those of the target's workers (post_*) when their cell is over.",
        );
        for (scenario, f) in &all {
            for (kind, sizes) in &f.payloads {
                page.sizes(&[("scenario", scenario), ("kind", kind)], sizes);
            }
        }
        page.family(
            "springtide_fault_active",
            Kind::Gauge,
            "1 while the fault of the running cell is at work.",
        );
        for (scenario, mode) in self.modes.iter().filter(|(_, mode)| *mode != FaultMode::None) {
            let is_it = |r: &&Running| r.scenario == *scenario && r.fault.mode() == *mode;
            let is_active = self.running.as_ref().filter(is_it).is_some_and(|r| r.fault.is_active(r.elapsed));
            let mode = mode.to_string();
            page.number(&[("scenario", scenario), ("mode", &mode)], f64::from(u8::from(is_active)));
        }
        page.family("springtide_worker_up", Kind::Gauge, "1 while a worker is there.");
        for (worker, is_up) in &self.workers {
            page.number(&[("worker", worker)], f64::from(u8::from(*is_up)));
        }
        page.family("springtide_run_info", Kind::Info, "The run.");
        let info: Vec<(&str, &str)> = self.info.iter().map(|(n, v)| (*n, v.as_str())).collect();
        page.number(&info, 1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        report::sample,
        telemetry::scrape::text::{Family, Part, read},
    };

    fn metrics() -> Metrics {
        let metrics = Metrics::new(vec![("run_id", "r\"1\"\n".into())]);
        metrics.worker("a", true);
        metrics.worker("b", true);
        Metrics { every: Duration::ZERO, ..metrics }
    }

    /// Every counter and count of the page, by its whole name.
    fn counts(metrics: &Metrics) -> BTreeMap<String, f64> {
        let text = metrics.render(Format::Classic);
        let all: Vec<Family<'_>> = read(&text, Format::Classic).unwrap();
        let mut counts = BTreeMap::new();
        for f in &all {
            for s in &f.samples {
                let counts_up = matches!(s.part, Part::Bucket | Part::Count) || f.name.ends_with("_total");
                if counts_up {
                    counts.insert(format!("{}{:?}{:?}", f.name, s.part, s.labels), s.value);
                }
            }
        }
        counts
    }

    #[test]
    fn counters_never_fall_whatever_becomes_of_a_cell() {
        let run = sample::faults();
        let metrics = metrics();
        let mut before = counts(&metrics);
        let mut check = |metrics: &Metrics| {
            let now = counts(metrics);
            for (name, value) in &before {
                assert!(now.get(name).is_some_and(|n| n >= value), "{name} fell below {value}");
            }
            before = now;
        };
        for (i, record) in run.cells.iter().enumerate() {
            metrics.opened(&record.cell);
            check(&metrics);
            metrics.progress(&[&record.totals], Some(Micros(5_000_000)));
            check(&metrics);
            // Every third cell is given up.
            if i % 3 != 2 {
                metrics.closed(record);
                check(&metrics);
            }
        }
        let jobs = |m: &Metrics| {
            counts(m).iter().filter(|(n, _)| n.contains("jobs_total")).map(|(_, v)| v).sum::<f64>()
        };
        let all: usize = run.cells.iter().map(|c| c.totals.jobs.len()).sum();
        assert_eq!(jobs(&metrics), all as f64, "given up or not, what was seen counts");
    }

    #[test]
    fn the_figures_are_those_of_the_record() {
        let run = sample::faults();
        let metrics = metrics();
        for record in &run.cells {
            metrics.opened(&record.cell);
            metrics.closed(record);
        }
        let text = metrics.render(Format::OpenMetrics);
        let all = read(&text, Format::OpenMetrics).unwrap();
        let sum = |family: &str, part: Part, with: &[(&str, &str)]| -> f64 {
            let family =
                all.iter().find(|f| f.name == family).unwrap_or_else(|| panic!("{family} in {text}"));
            let fits = |s: &&crate::telemetry::scrape::text::Sample<'_>| {
                s.part == part && with.iter().all(|(n, v)| s.label(n) == Some(*v))
            };
            family.samples.iter().filter(fits).map(|s| s.value).sum()
        };
        let cells: Vec<&CellRecord> = run.cells.iter().filter(|c| c.cell.scenario.as_str() == "S8").collect();
        let fetched: u64 = cells.iter().map(|c| c.ledger.count("fetched")).sum();
        let in_s8 = ("scenario", "S8");
        assert_eq!(sum("springtide_jobs", Part::Total, &[in_s8, ("outcome", "fetched")]), fetched as f64);
        assert_eq!(
            sum("springtide_job_duration_seconds", Part::Count, &[in_s8, ("outcome", "fetched")]),
            fetched as f64
        );
        let posts: u64 = cells
            .iter()
            .filter_map(|c| c.posts.as_ref())
            .flat_map(|p| p.routes.values())
            .map(|r| r.payloads.len() as u64)
            .sum();
        let of_posts: f64 = ["post_tasks", "post_jobs", "post_results"]
            .map(|kind| sum("springtide_payload_bytes", Part::Count, &[in_s8, ("kind", kind)]))
            .iter()
            .sum();
        assert_eq!(of_posts, posts as f64);
        assert_eq!(sum("springtide_worker_up", Part::Itself, &[]), 2.0);
        assert_eq!(sum("springtide_run", Part::Info, &[("run_id", "r\"1\"\n")]), 1.0);
        assert_eq!(sum("springtide_jobs_in_flight", Part::Itself, &[]), 0.0);
    }

    #[test]
    fn a_fault_is_shown_while_it_is_at_work() {
        let run = sample::faults();
        let cell = &run.cells.iter().find(|c| c.cell.scenario.as_str() == "S7").unwrap().cell;
        let metrics = metrics();
        let active = || {
            metrics
                .render(Format::Classic)
                .contains("springtide_fault_active{scenario=\"S7\",mode=\"latency\"} 1")
        };
        metrics.opened(cell);
        metrics.progress(&[], Some(Micros(2_000_000)));
        assert!(active());
        let quiet = run.cells.iter().find(|c| c.cell.fault.is_none()).unwrap();
        metrics.opened(&quiet.cell);
        metrics.progress(&[], Some(Micros(2_000_000)));
        assert!(!active());
    }

    #[test]
    fn warm_ups_are_not_counted() {
        let mut record = sample::good().cells.remove(0);
        record.cell.kind = CellKind::WarmUp;
        let metrics = metrics();
        metrics.opened(&record.cell);
        metrics.progress(&[&record.totals], None);
        metrics.closed(&record);
        assert!(counts(&metrics).is_empty());
    }
}
