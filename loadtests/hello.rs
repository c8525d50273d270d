//! The cheapest request: `GET /`, without a session. `cargo bench` measures springtide by it.

use bytes::Bytes;

use super::turn::Turn;
use crate::target::Endpoint;

/// Asks once; whether it went well is in the recorder.
pub(super) async fn hello(turn: &mut Turn<'_>) {
    let _ = turn.call(Endpoint::Hello, "", Bytes::new(), 200, |_| Ok(())).await;
}
