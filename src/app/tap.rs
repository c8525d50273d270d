//! `springtide tap`: the proxy between the target's workers and its API.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::{Failure, Out};
use crate::{
    cli::TapArgs,
    tap::{Config, Tap},
    verdict::Exit,
};

/// What runs must know, when no file says it.
const TOKEN: &str = "SPRINGTIDE_TAP_TOKEN";

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
    let token = token(token_file.as_deref()).map_err(Failure::usage)?;
    let config = Config { listen, upstream, token, buffer: buffer as usize };
    let mut tap = Tap::start(config).map_err(Failure::usage)?;
    writeln!(out, "listening on {}", tap.url()).and_then(|()| out.flush()).map_err(Failure::runtime)?;
    // The sender lives in main until the end.
    let _ = stop.wait_for(Option::is_some).await;
    tap.stop();
    Ok(Exit::Pass)
}

/// The first line of the file, or else what the environment says.
fn token(file: Option<&Path>) -> Result<Option<String>> {
    let Some(file) = file else {
        return Ok(std::env::var(TOKEN).ok());
    };
    let text = fs::read_to_string(file).with_context(|| format!("--token-file {}", file.display()))?;
    Ok(Some(text.lines().next().unwrap_or_default().to_owned()))
}
