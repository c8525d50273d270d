//! What a run is surrounded by, found and checked before anything starts: its target, the lock on
//! it, tap and Toxiproxy, and the instruments.

use std::path::Path;

use anyhow::{Result, anyhow};

use super::{
    instruments::Instruments,
    lock::{Lock, Share},
    rigging::Rigging,
};
use crate::{
    cli::LoadArgs,
    plan::Plan,
    target::{Origin, origin::OriginError},
};

/// Everything around a run.
pub(super) struct Scene {
    /// The target; `None` for the stand-in.
    pub(super) origin: Option<Origin>,
    /// What stands between its workers and its API.
    pub(super) rigging: Rigging,
    /// What looks on.
    pub(super) instruments: Instruments,
    /// Held as long as the run lasts.
    _lock: Option<Lock>,
}

impl Scene {
    /// Finds what the flags name.
    ///
    /// # Errors
    /// One line with the flag, the value and the remedy.
    pub(super) async fn find(args: &LoadArgs, plan: &Plan, run_id: &str, share: Share) -> Result<Self> {
        let origin = match &args.host {
            Some(url) => Some(target(url, args.ca_cert.as_deref())?),
            None => None,
        };
        let lock = match &origin {
            Some(origin) => Some(Lock::on(origin, share)?),
            None => None,
        };
        let rigging = Rigging::find(args, plan).await?;
        let instruments = Instruments::find(args, plan, run_id).await?;
        Ok(Self { origin, rigging, instruments, _lock: lock })
    }
}

/// The target's address, with the flag to mend named in what is wrong with it.
fn target(url: &str, ca: Option<&Path>) -> Result<Origin> {
    Origin::new(url, ca).map_err(|e| match e {
        OriginError::Certificates { .. } => anyhow!("--ca-cert: {e}"),
        _ => anyhow!("--host: {e}"),
    })
}
