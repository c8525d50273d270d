//! `springtide manager`: a matrix, or some scenarios of it, with workers on many hosts.

use tokio::sync::watch;

use super::{
    Failure, Out,
    errand::{Errand, carry_out},
    fleet::Asked,
    lock::Share,
};
use crate::{cli::ManagerArgs, verdict::Exit};

/// Runs it and writes its reports. `stop` holds the reason once somebody wants it to end.
///
/// # Errors
/// Usage errors before anything has started or been written, runtime errors after.
pub async fn manager(
    args: ManagerArgs,
    out: &mut Out,
    stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    let ManagerArgs { matrix, plane, expect_workers, expect_workers_max_wait, plane_lease } = args;
    let asked =
        Asked { plane, lease: plane_lease, expect: expect_workers, max_wait: expect_workers_max_wait };
    let errand = Errand {
        flag: "--scenarios",
        label: matrix.scenarios.is_empty().then_some("matrix"),
        scenarios: matrix.scenarios,
        requeue: matrix.requeue,
        resume: matrix.resume,
        share: Share::Alone,
        plane: Some(asked),
        load: matrix.load,
    };
    carry_out(errand, out, stop).await
}
