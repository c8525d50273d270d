//! The folder of a run: `reports/<date>/<time>-<label>/`, and `reports/latest` beside it.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;

use super::key;
use crate::record::{FILE, RunRecord};

/// Makes the folder of a new run. Two runs in one second get `-2`, `-3` behind the label.
///
/// # Errors
/// When it cannot be made or written to.
pub(super) fn create(out: &Path, label: &str, started: Timestamp) -> Result<PathBuf> {
    let local = started.to_zoned(TimeZone::system());
    let day = out.join(local.strftime("%Y-%m-%d").to_string());
    let hint = || hint(out);
    fs::create_dir_all(&day).with_context(hint)?;
    for n in 1.. {
        let more = if n == 1 { String::new() } else { format!("-{n}") };
        let folder = day.join(format!("{}-{label}{more}", local.strftime("%H%M%S")));
        match fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(hint),
        }
    }
    unreachable!("the loop ends only by returning")
}

/// Where the record of a run is: a folder or a file as it was named, or the folder below `out` of the run
/// with that id. What is not found is returned as it was named.
pub(super) fn of_run(named: &Path, out: &Path) -> PathBuf {
    #[derive(Deserialize)]
    struct Head {
        run_id: String,
    }
    let is_it = |folder: &PathBuf| {
        let head = fs::read(folder.join(FILE)).ok().and_then(|b| serde_json::from_slice::<Head>(&b).ok());
        head.is_some_and(|head| Path::new(&head.run_id) == named)
    };
    let below =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    if named.exists() || named.components().count() != 1 {
        return named.to_owned();
    }
    let days = below(out).filter(|day| !day.is_symlink());
    days.flat_map(|day| below(&day)).find(is_it).unwrap_or_else(|| named.to_owned())
}

/// Tries whether the folder of a run can be made, and leaves nothing behind.
///
/// # Errors
/// When it cannot.
pub(super) fn try_out(out: &Path) -> Result<()> {
    let there = out.ancestors().find(|f| f.is_dir()).map(Path::to_owned);
    let probe = out.join(format!(".springtide-{}", std::process::id()));
    let made = fs::create_dir_all(&probe).with_context(|| hint(out));
    for folder in probe.ancestors().take_while(|f| Some(*f) != there.as_deref()) {
        let _ = fs::remove_dir(folder);
    }
    made
}

fn hint(out: &Path) -> String {
    format!("--out {}: cannot make a folder for the run there; name another with --out", out.display())
}

/// Takes the folder of a run that never began to measure away again: there is nothing to keep.
pub(super) fn remove_unless_measured(folder: &Path) {
    if RunRecord::load(folder).is_ok_and(|run| !run.cells.is_empty()) {
        return;
    }
    let _ = fs::remove_file(folder.join(FILE));
    key::forget(folder);
    for folder in folder.ancestors().take(2) {
        let _ = fs::remove_dir(folder);
    }
}

/// Points `latest` at the folder. A convenience: where links cannot be made, it is left out.
pub(super) fn point_latest_at(out: &Path, folder: &Path) {
    // The folder may have been named by way of the link itself.
    let (Ok(real), Ok(within)) = (folder.canonicalize(), out.canonicalize()) else { return };
    let Ok(inside) = real.strip_prefix(within) else { return };
    let (link, fresh) = (out.join("latest"), out.join(".latest.new"));
    let _ = fs::remove_file(&fresh);
    let linked = std::os::unix::fs::symlink(inside, &fresh).and_then(|()| fs::rename(&fresh, &link));
    if let Err(e) = linked {
        tracing::warn!("{}: {e}", link.display());
    }
}
