//! Reports: everything people and other tools read of a run, drawn from its record alone.
//!
//! One file a format. What they print comes from [`summary`](crate::summary) and
//! [`estimate`](crate::estimate), so a figure is the same in every format; nothing here measures
//! or judges. To add a format: a variant of [`Format`], a file, and what the compiler then asks for.

mod crew;
mod crew_tables;
mod criteria;
mod domains;
mod environment;
mod fault_tables;
mod figure;
mod fold;
mod hlog;
mod html;
mod html_matrix;
mod html_scenario;
mod jobs;
pub mod json;
mod locust;
mod markdown;
mod matrix_tables;
mod merge_tables;
mod milestones;
mod payloads;
mod redis;
mod redis_tables;
mod relations;
mod resilience;
#[cfg(test)]
pub(crate) mod sample;
mod saturation_tables;
mod scenario_tables;
mod sheet;
mod stages;
mod svg;
mod table;
mod tables;
mod tap_tables;
mod target_tables;
pub mod terminal;
#[cfg(test)]
mod trial;
mod workers;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::{
    fault::FaultMode,
    moment::Moment,
    record::{CellRecord, RecordError, RunRecord, write_whole},
    relation::Relation,
    repetitions::Repetitions,
    summary::ScenarioSummary,
    telemetry::{Line, Unit},
    timeline::Stage,
    verdict::Verdict,
};

/// A run with its figures added up: what every format draws from.
#[derive(Debug)]
pub struct Paper<'a> {
    /// The record.
    pub run: &'a RunRecord,
    /// Scenarios that have a finished cell, in the order of the plan.
    pub scenarios: Vec<ScenarioSummary>,
    /// Each part of [`parts`](Self::parts) over its repetitions, in the same order.
    pub repetitions: Vec<Repetitions>,
    /// How latency goes with the size of each kind of payload.
    pub relations: Vec<Relation>,
    /// The cells in the order they ran, replaced ones too, with what was sampled beside each.
    pub lines: Vec<(&'a CellRecord, Vec<Line>)>,
}

impl<'a> Paper<'a> {
    /// Adds a run's figures up.
    pub fn of(run: &'a RunRecord) -> Self {
        let scenarios = ScenarioSummary::of_run(run);
        // A large run takes a while: what is independent is added up side by side.
        let (repetitions, relations) = thread::scope(|scope| {
            let relations = scope.spawn(|| Relation::of_run(run));
            let repetitions = Repetitions::of_run(run, &scenarios);
            (repetitions, relations.join().expect("arithmetic does not panic"))
        });
        let mut cells: Vec<&CellRecord> = run.measured().chain(run.replaced()).collect();
        cells.sort_by_key(|c| c.t0_unix);
        let lines = cells.into_iter().map(|c| (c, lines(c))).collect();
        Self { run, repetitions, relations, lines, scenarios }
    }

    /// Scenarios, and of those with several levels of a fault each level: what has figures.
    pub fn parts(&self) -> impl Iterator<Item = &ScenarioSummary> + Clone {
        self.scenarios.iter().flat_map(ScenarioSummary::parts)
    }

    /// The same, each with its repetitions.
    pub fn repeated(&self) -> impl Iterator<Item = (&ScenarioSummary, &Repetitions)> + Clone {
        self.parts().zip(&self.repetitions)
    }

    /// The run's verdict; one that was never judged cannot be trusted.
    pub fn verdict(&self) -> Verdict {
        self.run.verdict.unwrap_or(Verdict::Invalid)
    }
}

/// What was sampled beside a cell and, where anything was, how long its jobs took: each at its end.
fn lines(cell: &CellRecord) -> Vec<Line> {
    let mut lines = cell.telemetry.lines();
    if lines.is_empty() {
        return lines;
    }
    for (name, stage) in [("jobs: end to end", Stage::EndToEnd), ("jobs: merge as polled", Stage::Merge)] {
        let jobs = cell.totals.jobs.values().filter_map(|job| {
            let took = job.timeline.stage(stage).filter(|span| span.most.is_some())?.midpoint();
            Some((Moment(i64::try_from(job.timeline.ended.0).ok()?), took.as_secs()))
        });
        let mut points: Vec<(Moment, f64)> = jobs.collect();
        points.sort_by_key(|(at, _)| *at);
        lines.push(Line { name: name.into(), unit: Unit::Seconds, points });
    }
    lines
}

/// The files of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `timings/<ID>_jobs.csv`: one row a job.
    Jobs,
    /// `payloads/<ID>_payloads.csv`: one row a payload.
    Payloads,
    /// `report.html`: everything, with pictures.
    Html,
    /// `summary.md`: the runbook's summary.
    Markdown,
    /// `timings/<ID>_stages.csv`: one row a stage.
    Stages,
    /// `timings/<ID>_stats.csv`, as Locust writes it.
    LocustStats,
    /// `timings/<ID>_stats_history.csv`, as Locust writes it.
    LocustHistory,
    /// `timings/<ID>_failures.csv`, as Locust writes it.
    LocustFailures,
    /// `timings/<ID>_exceptions.csv`, as Locust writes it.
    LocustExceptions,
    /// `timings/<ID>.hlog`: HdrHistogram interval log.
    IntervalLog,
    /// `resilience/<ID>_resilience.csv`: one row a cell, for scenarios with a fault.
    Resilience,
    /// `redis/<ID>_redis.csv`: one row a second, for scenarios whose Redis was sampled.
    Redis,
    /// `timings/workers.csv`: one row a cell and worker, for runs over a plane.
    Workers,
}

impl Format {
    /// Every format, those that take longest first.
    pub const ALL: [Self; 13] = [
        Self::Jobs,
        Self::Payloads,
        Self::Html,
        Self::Markdown,
        Self::Stages,
        Self::LocustStats,
        Self::LocustHistory,
        Self::LocustFailures,
        Self::LocustExceptions,
        Self::IntervalLog,
        Self::Resilience,
        Self::Redis,
        Self::Workers,
    ];

    /// Whether there is one of it a scenario, or one a run.
    pub fn is_per_scenario(self) -> bool {
        !matches!(self, Self::Html | Self::Markdown | Self::Workers)
    }

    /// Whether a scenario of a run has it: there is no resilience without a fault.
    pub fn is_of(self, run: &RunRecord, s: &ScenarioSummary) -> bool {
        match self {
            Self::Resilience => s.scenario.fault != FaultMode::None,
            Self::Redis => redis::is_of(run, s),
            _ => true,
        }
    }

    /// Whether a run has it, of those there is one a run of.
    fn is_of_run(self, run: &RunRecord) -> bool {
        self != Self::Workers || run.crew.is_some()
    }

    /// Where it stands in the run's folder; `id` matters only where there is one a scenario.
    pub fn path(self, id: &str) -> PathBuf {
        PathBuf::from(match self {
            Self::Html => "report.html".into(),
            Self::Markdown => "summary.md".into(),
            Self::Workers => "timings/workers.csv".into(),
            Self::Jobs => format!("timings/{id}_jobs.csv"),
            Self::Stages => format!("timings/{id}_stages.csv"),
            Self::LocustStats => format!("timings/{id}_stats.csv"),
            Self::LocustHistory => format!("timings/{id}_stats_history.csv"),
            Self::LocustFailures => format!("timings/{id}_failures.csv"),
            Self::LocustExceptions => format!("timings/{id}_exceptions.csv"),
            Self::IntervalLog => format!("timings/{id}.hlog"),
            Self::Payloads => format!("payloads/{id}_payloads.csv"),
            Self::Resilience => format!("resilience/{id}_resilience.csv"),
            Self::Redis => format!("redis/{id}_redis.csv"),
        })
    }
}

/// One file to be drawn.
enum File<'a> {
    OfRun(Format),
    OfScenario(Format, &'a ScenarioSummary),
}

impl File<'_> {
    fn path(&self) -> PathBuf {
        match self {
            Self::OfRun(format) => format.path(""),
            Self::OfScenario(format, s) => format.path(s.scenario.id.as_str()),
        }
    }

    fn draw(&self, paper: &Paper<'_>) -> Vec<u8> {
        let run = paper.run;
        match self {
            Self::OfRun(Format::Markdown) => markdown::summary(paper).into_bytes(),
            Self::OfRun(Format::Workers) => workers::csv(run),
            Self::OfRun(_) => html::page(paper).into_bytes(),
            Self::OfScenario(format, s) => match format {
                Format::Jobs => jobs::csv(run, s),
                Format::Payloads => payloads::csv(run, s),
                Format::Stages => stages::csv(paper, s),
                Format::LocustStats => locust::stats(s),
                Format::LocustHistory => locust::history(run, s),
                Format::LocustFailures => locust::failures(s),
                Format::LocustExceptions => locust::exceptions(),
                Format::IntervalLog => hlog::log(run, s),
                Format::Resilience => resilience::csv(run, s),
                Format::Redis => redis::csv(run, s),
                Format::Html | Format::Markdown | Format::Workers => Vec::new(),
            },
        }
    }
}

fn drawings<'a>(paper: &'a Paper<'_>) -> Vec<File<'a>> {
    let mut all = Vec::new();
    for format in Format::ALL {
        if format.is_per_scenario() {
            let its = paper.scenarios.iter().filter(|s| format.is_of(paper.run, s));
            all.extend(its.map(|s| File::OfScenario(format, s)));
        } else if format.is_of_run(paper.run) {
            all.push(File::OfRun(format));
        }
    }
    all
}

/// Adds a run's figures up and draws every file of its report; see [`Paper::write_all`].
///
/// # Errors
/// As [`Paper::write_all`].
pub fn write_all(run: &RunRecord, folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
    Paper::of(run).write_all(folder)
}

impl Paper<'_> {
    /// The files [`write_all`](Self::write_all) writes, relative to the run's folder, sorted.
    pub fn files(&self) -> Vec<PathBuf> {
        let mut paths: Vec<PathBuf> = drawings(self).iter().map(File::path).collect();
        paths.sort();
        paths
    }

    /// Draws every file of a report into the run's folder and returns their paths, sorted. Each
    /// file is there whole or not at all; files of an earlier drawing are replaced.
    ///
    /// # Errors
    /// When the folder cannot be written to: the first thing the system refused.
    pub fn write_all(&self, folder: &Path) -> Result<Vec<PathBuf>, RecordError> {
        let drawings = drawings(self);
        for drawing in &drawings {
            let path = folder.join(drawing.path());
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent)
                .map_err(|source| RecordError::Io { path: parent.to_owned(), source })?;
        }
        let (next, failed) = (AtomicUsize::new(0), Mutex::new(None));
        let draw = || {
            while let Some(drawing) = drawings.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = write_whole(&folder.join(drawing.path()), &drawing.draw(self)) {
                    failed.lock().expect("no thread panics with the lock").get_or_insert(error);
                }
            }
        };
        // One more than there are cores, for the one that waits for the disk.
        let threads = 1 + thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            for _ in 1..threads.min(drawings.len()) {
                scope.spawn(draw);
            }
            draw();
        });
        match failed.into_inner().expect("no thread panics with the lock") {
            Some(error) => Err(error),
            None => Ok(self.files().iter().map(|p| folder.join(p)).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use serde_json::Value;

    use super::*;
    use crate::{micros::Micros, verdict::Exit};

    #[test]
    fn every_file_is_written_where_the_design_says() {
        let run = sample::mixed();
        let folder = tempfile::tempdir().unwrap();
        let written = write_all(&run, folder.path()).unwrap();
        let names: Vec<&str> =
            written.iter().map(|p| p.strip_prefix(folder.path()).unwrap().to_str().unwrap()).collect();
        assert_eq!(
            names,
            [
                "payloads/S1_payloads.csv",
                "payloads/S2_payloads.csv",
                "report.html",
                "summary.md",
                "timings/S1.hlog",
                "timings/S1_exceptions.csv",
                "timings/S1_failures.csv",
                "timings/S1_jobs.csv",
                "timings/S1_stages.csv",
                "timings/S1_stats.csv",
                "timings/S1_stats_history.csv",
                "timings/S2.hlog",
                "timings/S2_exceptions.csv",
                "timings/S2_failures.csv",
                "timings/S2_jobs.csv",
                "timings/S2_stages.csv",
                "timings/S2_stats.csv",
                "timings/S2_stats_history.csv",
            ]
        );
        assert!(written.iter().all(|p| fs::metadata(p).unwrap().len() > 0));
        assert!(!folder.path().join("report.html.part").exists());
    }

    #[test]
    fn resilience_is_written_where_there_is_a_fault() {
        let run = sample::faults();
        let files = Paper::of(&run).files();
        let its = files.iter().filter(|p| p.starts_with("resilience"));
        let names: Vec<&str> = its.map(|p| p.to_str().unwrap()).collect();
        assert_eq!(names, ["resilience/S7_resilience.csv", "resilience/S8_resilience.csv"]);
    }

    #[test]
    fn redis_is_written_where_it_was_sampled() {
        let mut run = sample::redis();
        let last = run.cells.iter().rev().find(|c| c.cell.scenario.as_str() == "S4").unwrap().cell.clone();
        run.cells.retain(|c| c.cell.scenario != last.scenario || c.cell.index == last.index);
        run.cells.iter_mut().filter(|c| c.cell.index == last.index).for_each(|c| c.telemetry.redis = None);
        let files = Paper::of(&run).files();
        let its = files.iter().filter(|p| p.starts_with("redis"));
        let names: Vec<&str> = its.map(|p| p.to_str().unwrap()).collect();
        assert_eq!(names, ["redis/S1_redis.csv", "redis/S2_redis.csv", "redis/S3_redis.csv"]);
    }

    #[test]
    fn workers_are_written_where_there_was_a_plane() {
        let has = |run| Paper::of(&run).files().contains(&PathBuf::from("timings/workers.csv"));
        assert!(has(sample::crew()) && !has(sample::mixed()));
    }

    /// A run that lost a worker and went on is PASS, and tells of the loss wherever it is read.
    #[test]
    fn a_loss_is_seen_in_every_format() {
        let run = sample::crew();
        let paper = Paper::of(&run);
        let exit = Exit::of(run.all_checks());
        assert_eq!((paper.verdict(), exit), (Verdict::Pass, Exit::Pass));
        let json = json::summary(&paper, exit);
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&value["workers"]["lost"], &value["workers"]["refused"]), (&1.into(), &1.into()));
        for text in [html::page(&paper), markdown::summary(&paper), terminal::table(&paper), json] {
            for said in [
                "workers lost",
                "load-b (epoch 3) in S6 #2: its lease ran out",
                "workers sent away",
                "load-d (epoch 5): another build",
                "6 of load-b (epoch 3)",
                "cut off from the plane",
                "back after 3.40 s",
            ] {
                assert!(text.contains(said), "{said}: {text:.3000}");
            }
        }
    }

    #[test]
    fn a_folder_that_cannot_be_written_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("timings"), "in the way").unwrap();
        let error = write_all(&sample::good(), folder.path()).unwrap_err();
        assert!(error.to_string().contains("timings"), "{error}");
    }

    #[test]
    fn a_run_that_went_through_its_file_is_drawn_alike() {
        for run in [sample::mixed(), sample::faults(), sample::matrix(1), sample::crew()] {
            let text = serde_json::to_string(&run).unwrap();
            let again: RunRecord = serde_json::from_str(&text).unwrap();
            let (paper, twin) = (Paper::of(&run), Paper::of(&again));
            for (a, b) in drawings(&paper).iter().zip(drawings(&twin)) {
                assert!(a.draw(&paper) == b.draw(&twin), "{}", a.path().display());
            }
        }
    }

    /// The same figure in every format that has it.
    #[test]
    fn formats_agree() {
        for run in [
            sample::mixed(),
            sample::failed_only(),
            sample::invalid_only(),
            sample::faults(),
            sample::scraped_run(),
            sample::matrix(3),
            sample::crew(),
        ] {
            let paper = Paper::of(&run);
            let html = html::page(&paper);
            let markdown = markdown::summary(&paper);
            let terminal = terminal::table(&paper);
            let json: Value = serde_json::from_str(&json::summary(&paper, Exit::Invalid)).unwrap();
            for s in &paper.scenarios {
                let rows = sample::rows(&stages::csv(&paper, s));
                let all = s.parts().iter().flat_map(|p| p.stages.iter().map(move |stage| (p, stage)));
                for (row, (part, stage)) in rows.iter().zip(all) {
                    let of_json = |list: &Value, key: &str, name: &str| {
                        let is_it = |x: &&Value| {
                            x[key] == name && (key == "name" || x["source"] == stage.source.as_str())
                        };
                        list.as_array().unwrap().iter().find(is_it).unwrap().clone()
                    };
                    let scenario = of_json(&json["scenarios"], "name", &part.name());
                    let in_json = &of_json(&scenario["stages"], "stage", stage.stage.as_str());
                    for (column, name) in [
                        (7, "p50"),
                        (8, "p90"),
                        (9, "p95"),
                        (10, "p99"),
                        (11, "max"),
                        (12, "mean"),
                        (13, "half_width_p50"),
                        (6, "min"),
                    ] {
                        let in_csv = row[column].trim_start_matches(">= ");
                        match in_json[name].as_f64() {
                            None => assert_eq!(in_csv, ""),
                            Some(ms) => assert_eq!(in_csv, figure::ms(Micros::from_ms(ms))),
                        }
                        let bound = in_json["at_least"].as_array().unwrap().contains(&name.into());
                        assert_eq!(row[column].starts_with(">= "), bound);
                    }
                    for q in [0.5, 0.95] {
                        let said = figure::said(stage.quantile(q));
                        assert!(html.contains(&table::escape(&said)), "{said} in HTML");
                        let is_told = !criteria::all(&paper).is_empty() || markdown.contains(&said);
                        assert!(is_told, "{said} in Markdown");
                        // A matrix has no room for every stage there.
                        let is_told = !criteria::all(&paper).is_empty() || terminal.contains(&said);
                        assert!(is_told, "{said} on the terminal");
                    }
                }
                assert_eq!(rows.len(), s.parts().iter().map(|p| p.stages.len()).sum::<usize>());
                let stats = sample::rows(&locust::stats(s));
                let total = stats.last().unwrap();
                assert_eq!(total[2].parse::<u64>().unwrap(), s.all.count());
                assert_eq!(total[3].parse::<u64>().unwrap(), s.all.failed.count());
                let jobs = sample::rows(&jobs::csv(&run, s));
                let counted = jobs.iter().filter(|r| s.untrusted || &r[24] != "INVALID").count();
                assert_eq!(counted as u64, s.submitted);
            }
        }
    }

    /// `cargo test --release a_million -- --ignored --nocapture`; leaves the files where
    /// `SPRINGTIDE_TEST_REPORT` says.
    #[test]
    #[ignore = "measures, DESIGN 13"]
    fn a_million_jobs() {
        let users = 1_000;
        let run = sample::run(&[("S6", users, 8, 10)], 100, |_, n| match n % 997 {
            0 => sample::Fate::Failed,
            _ => sample::Fate::Fetched,
        });
        let kept = std::env::var_os("SPRINGTIDE_TEST_REPORT").map(PathBuf::from);
        let folder = tempfile::tempdir().unwrap();
        let folder = kept.as_deref().unwrap_or(folder.path());
        let jobs: usize = run.cells.iter().map(|c| c.totals.jobs.len()).sum();
        let began = Instant::now();
        let paper = Paper::of(&run);
        println!("{jobs} jobs added up in {:?}", began.elapsed());
        for drawing in drawings(&paper) {
            let began = Instant::now();
            let bytes = drawing.draw(&paper).len();
            println!("{}: {bytes} bytes in {:?}", drawing.path().display(), began.elapsed());
        }
        // On a busy machine the CPU time says more than the clock.
        let cpu = || {
            let stat = procfs::process::Process::myself().unwrap().stat().unwrap();
            (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
        };
        drop(paper);
        let (began, spent) = (Instant::now(), cpu());
        write_all(&run, folder).unwrap();
        println!("all of it in {:?}, {:.2} s of CPU", began.elapsed(), cpu() - spent);
        assert!(fs::metadata(folder.join("report.html")).unwrap().len() < 6_000_000);
    }
}
