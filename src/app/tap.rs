//! `springtide tap`: the proxy between the target's workers and its API.

use tokio::sync::watch;

use super::{
    Failure, Out,
    secret::{TAP_TOKEN, secret},
};
use crate::{
    cli::TapArgs,
    tap::{Config, Tap},
    verdict::Exit,
};

/// Serves until told to stop. Prints its address on stdout, so that scripts can wait for it.
///
/// # Errors
/// When the address cannot be listened on or is open to others without a token, or when the
/// upstream or the token cannot be used.
pub async fn tap(
    args: TapArgs,
    out: &mut Out,
    mut stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    let TapArgs { listen, upstream, token_file, buffer } = args;
    let token = secret("--token-file", token_file.as_deref(), TAP_TOKEN).map_err(Failure::usage)?;
    let config = Config { listen, upstream, token, buffer: buffer as usize };
    let mut tap = Tap::start(config).map_err(Failure::usage)?;
    writeln!(out, "listening on {}", tap.url()).and_then(|()| out.flush()).map_err(Failure::runtime)?;
    // The sender lives in main until the end.
    let _ = stop.wait_for(Option::is_some).await;
    tap.stop();
    Ok(Exit::Pass)
}
