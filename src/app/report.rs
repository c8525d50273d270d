//! `springtide report`, and the end of every run: files and the words on stdout.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::{
    Failure, Out,
    errand::{INTERRUPTED, TERMINATED},
};
use crate::{
    cli::ReportArgs,
    record::RunRecord,
    report::{Format, Paper, json, terminal},
    verdict::Exit,
};

/// Locust's four files, with what `--csv` puts behind its prefix.
const LOCUST: [(Format, &str); 4] = [
    (Format::LocustStats, "stats"),
    (Format::LocustHistory, "stats_history"),
    (Format::LocustFailures, "failures"),
    (Format::LocustExceptions, "exceptions"),
];

/// Draws the reports of a finished run again.
///
/// # Errors
/// When there is no run record, or the folder cannot be written to.
pub fn report(args: &ReportArgs, out: &mut Out) -> Result<Exit, Failure> {
    let run = RunRecord::load(&args.run).map_err(Failure::usage)?;
    let folder =
        if args.run.is_dir() { args.run.as_path() } else { args.run.parent().unwrap_or(Path::new(".")) };
    let paper = Paper::of(&run);
    paper.write_all(folder).map_err(Failure::runtime)?;
    print(&paper, folder, args.json, out).map_err(Failure::runtime)?;
    Ok(Exit::Pass)
}

/// How a run's record says that the run ended.
pub(super) fn exit_of(run: &RunRecord) -> Exit {
    match run.stopped.as_deref() {
        Some(INTERRUPTED) => Exit::Interrupted,
        Some(TERMINATED) => Exit::Terminated,
        // A run that was killed was never judged.
        _ if run.verdict.is_none() => Exit::Invalid,
        _ => Exit::of(run.all_checks()),
    }
}

/// Copies reports to where they were asked for besides.
pub(super) fn copy(paper: &Paper<'_>, folder: &Path, csv: Option<&Path>, html: Option<&Path>) -> Result<()> {
    if let Some(file) = html {
        copy_one(&folder.join(Format::Html.path("")), file, "--html")?;
    }
    let Some(prefix) = csv else { return Ok(()) };
    for scenario in &paper.scenarios {
        for (format, name) in LOCUST {
            let mut file = prefix.as_os_str().to_owned();
            // Locust knows no scenarios, so that its names have no place for one.
            if paper.scenarios.len() > 1 {
                file.push(format!("_{}", scenario.scenario.id));
            }
            file.push(format!("_{name}.csv"));
            copy_one(
                &folder.join(format.path(scenario.scenario.id.as_str())),
                &PathBuf::from(file),
                "--csv",
            )?;
        }
    }
    Ok(())
}

fn copy_one(from: &Path, to: &Path, flag: &str) -> Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).with_context(|| format!("{flag} {}", to.display()))?;
    }
    fs::copy(from, to).with_context(|| format!("{flag} {}", to.display()))?;
    Ok(())
}

/// Says on stdout how the run went: the tables and the result, or all of it as JSON. A reader who
/// has gone away does not change how the run went.
pub(super) fn print(paper: &Paper<'_>, folder: &Path, json: bool, out: &mut Out) -> io::Result<()> {
    let exit = exit_of(paper.run);
    let text = if json {
        json::summary(paper, exit).trim_end().to_owned()
    } else {
        let page = folder.join(Format::Html.path(""));
        let result = terminal::result_line(paper, exit);
        format!("{}\nreport: {}\n{result}", terminal::table(paper), page.display())
    };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}
