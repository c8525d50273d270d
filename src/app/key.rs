//! The secret that a run makes the passwords of its accounts of. It lies in the run's folder as long as
//! the run can be resumed: whoever goes on with it must get at the jobs that were under way.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, Result};
use rand::RngExt;

/// Its name in the folder.
const FILE: &str = "accounts.key";

/// The run's secret, made anew where there is none. A stand-in forgets its accounts, so that nothing
/// is kept for it.
///
/// # Errors
/// When it cannot be kept.
pub(super) fn of(folder: &Path, stand_in: bool) -> Result<String> {
    let fresh = format!("{:032x}", rand::rng().random::<u128>());
    if stand_in {
        return Ok(fresh);
    }
    let path = folder.join(FILE);
    let context = || path.display().to_string();
    match fs::read_to_string(&path) {
        Ok(key) if key.len() == fresh.len() => return Ok(key),
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e).with_context(context),
        _ => {}
    }
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .with_context(context)?;
    file.write_all(fresh.as_bytes()).and_then(|()| file.sync_all()).with_context(context)?;
    Ok(fresh)
}

/// Takes it away: the run is over.
pub(super) fn forget(folder: &Path) {
    let _ = fs::remove_file(folder.join(FILE));
}
