//! One request before anything starts: is the target there, and what is it?

use std::{sync::Arc, time::Duration};

use anyhow::{Result, bail};
use bytes::Bytes;

use crate::{
    record::Target,
    target::{Client, Endpoint, Origin, Sockets, decode, http::Call},
};

/// Nobody waits longer than this for a greeting.
const LONGEST: Duration = Duration::from_secs(10);

/// Asks the target for its greeting.
///
/// # Errors
/// When it gives no answer at all; any HTTP answer will do, since a proxy may hide `GET /`.
pub(super) async fn look(origin: &Arc<Origin>, stand_in: bool, patience: Duration) -> Result<Target> {
    let timeout = patience.min(LONGEST);
    let mut client = Client::new(Arc::clone(origin), Arc::new(Sockets::default()), timeout);
    let hello = Endpoint::Hello;
    let call = Call {
        method: hello.method(),
        path: hello.path(),
        cookie: None,
        trace: None,
        headers: None,
        body: Bytes::new(),
        safe: true,
    };
    let answer = match client.call(&call).await {
        Ok(answer) => answer,
        Err(e) => bail!(
            "the target {} does not answer: {}; is it running, and is --host right?",
            origin.url(),
            e.kind
        ),
    };
    let header = |name| answer.headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(Target {
        stand_in,
        url: origin.url().to_owned(),
        hello: format!("{} {}", answer.status, decode::message(&answer.body)),
        server: header("server"),
        keep_alive: !header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close")),
        retries: None,
        knobs: None,
    })
}
