//! `springtide matrix`: every scenario of a matrix in randomized blocks, from start to summary.

use tokio::sync::watch;

use super::{
    Failure, Out,
    errand::{Errand, carry_out},
    lock::Share,
};
use crate::{cli::MatrixArgs, verdict::Exit};

/// Runs a matrix and writes its reports. `stop` holds the reason once somebody wants it to end.
///
/// # Errors
/// Usage errors before anything has started or been written, runtime errors after.
pub async fn matrix(
    args: MatrixArgs,
    out: &mut Out,
    stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    let errand = Errand {
        flag: "--scenarios",
        scenarios: args.scenarios,
        requeue: args.requeue,
        resume: args.resume,
        label: Some("matrix"),
        share: Share::Alone,
        plane: None,
        load: args.load,
    };
    carry_out(errand, out, stop).await
}
