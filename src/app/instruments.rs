//! Finds what looks on beside a run: Redis, exposition endpoints, processes and probes.

use std::path::Path;

use anyhow::Result;

use crate::{cli::LoadArgs, plan::Plan, record::RedisFacts, sampling::Samplers};

/// The instruments of a run.
#[derive(Default)]
pub(super) struct Instruments {
    /// The target's Redis, if one was named.
    pub(super) redis: Option<RedisFacts>,
    samplers: Samplers,
}

impl Instruments {
    /// Finds what the flags name.
    ///
    /// # Errors
    /// When it is not there; one line with the flag, the value and the remedy.
    pub(super) async fn find(_args: &LoadArgs, _plan: &Plan) -> Result<Self> {
        Ok(Self::default())
    }

    /// Hands them over to the rig; probes write below the run's folder.
    pub(super) fn set_up(&mut self, _folder: &Path) -> Samplers {
        std::mem::take(&mut self.samplers)
    }
}
