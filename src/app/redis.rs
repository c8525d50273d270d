//! The target's Redis, as the flags name it: for the sampler, and for the stand-in's workers.

use std::path::Path;

use anyhow::{Result, anyhow};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::secret::{REDIS_PASSWORD, secret};
use crate::{cli::LoadArgs, record::RedisFacts, sampling::redis::RedisSampler, standin::Broker};

/// The password, and where it comes from.
fn password(file: Option<&Path>) -> Result<Option<String>> {
    secret("--redis-password-file", file, REDIS_PASSWORD).map(|p| p.filter(|p| !p.is_empty()))
}

/// Connects the sampler, if a Redis was named.
///
/// # Errors
/// When it is not there or does not let us in.
pub(super) async fn sampler(args: &LoadArgs) -> Result<Option<(RedisSampler, RedisFacts)>> {
    let Some(url) = args.redis_url.as_deref().filter(|url| !url.is_empty()) else { return Ok(None) };
    let password = password(args.redis_password_file.as_deref())?;
    let queues = args.redis_queues.iter().map(|q| q.trim().to_owned()).filter(|q| !q.is_empty()).collect();
    RedisSampler::connect(url, password, args.redis_ca_cert.as_deref(), queues, "")
        .await
        .map(Some)
        .map_err(|e| anyhow!("--redis-url: {e}"))
}

/// What the stand-in's workers move their tasks and results through, if a Redis was named.
///
/// # Errors
/// When the password cannot be read.
pub(super) fn broker(
    url: Option<&str>,
    password_file: Option<&Path>,
    ca: Option<&Path>,
) -> Result<Option<Broker>> {
    let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
    let url = match password(password_file)? {
        Some(password) => with_password(url, &password),
        None => url.to_owned(),
    };
    Ok(Some(Broker { ca: ca.map(Path::to_owned), ..Broker::at(url) }))
}

/// The same address with that password in it, instead of another.
fn with_password(url: &str, password: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (user, host) = rest[..end].rsplit_once('@').unwrap_or(("", &rest[..end]));
    let user = user.split(':').next().unwrap_or_default();
    let password = utf8_percent_encode(password, NON_ALPHANUMERIC);
    format!("{scheme}://{user}:{password}@{host}{}", &rest[end..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_takes_the_place_of_another() {
        for (url, whole) in [
            ("redis://h:1/0", "redis://:s%40x@h:1/0"),
            ("rediss://ann@h/2", "rediss://ann:s%40x@h/2"),
            ("redis://ann:old@h", "redis://ann:s%40x@h"),
        ] {
            assert_eq!(with_password(url, "s@x"), whole);
        }
    }
}
