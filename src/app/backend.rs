//! `springtide backend`: the stand-in alone.

use tokio::sync::watch;

use super::{Failure, Out, redis, wanted::stand_in_config};
use crate::{
    cli::BackendArgs,
    standin::{Config, StandIn},
    verdict::Exit,
};

/// Serves until told to stop. Prints its address on stdout, so that scripts can wait for it.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn backend(
    args: BackendArgs,
    out: &mut Out,
    mut stop: watch::Receiver<Option<String>>,
) -> Result<Exit, Failure> {
    let (url, password) = (args.redis_url.as_deref(), args.redis_password_file.as_deref());
    let redis = redis::broker(url, password, None).map_err(Failure::usage)?;
    let config = Config {
        redis,
        listen: args.listen,
        internal_url: args.internal_url.filter(|url| !url.is_empty()),
        ..stand_in_config(&args.standin, args.seed)
    };
    let mut stand_in = StandIn::start(config).map_err(Failure::usage)?;
    writeln!(out, "listening on {}", stand_in.url()).and_then(|()| out.flush()).map_err(Failure::runtime)?;
    // The sender lives in main until the end.
    let _ = stop.wait_for(Option::is_some).await;
    stand_in.stop();
    Ok(Exit::Pass)
}
