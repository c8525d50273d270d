//! `springtide run`: all repetitions of one scenario, or of a few that take turns.

use tokio::sync::watch;

pub use super::errand::{INTERRUPTED, TERMINATED};
use super::{
    Failure, Out,
    errand::{Errand, carry_out},
    lock::Share,
};
use crate::{cli::RunArgs, verdict::Exit};

/// Runs scenarios and writes their reports. `stop` holds the reason once somebody wants it to end.
///
/// # Errors
/// Usage errors before anything has started or been written, runtime errors after.
pub async fn run(
    args: RunArgs,
    out: &mut Out,
    stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    let errand = Errand {
        flag: "--scenario",
        scenarios: args.scenarios,
        requeue: 0,
        resume: None,
        label: None,
        share: Share::WithRuns,
        plane: None,
        load: args.load,
    };
    carry_out(errand, out, stop).await
}
