//! What is looked at before a plane is trusted: that not everybody is let in, that it throws nothing
//! away, and that it is not the target's own.

use super::{
    super::PlaneError,
    door::Door,
    link::{Link, is_open_to_all},
};

/// The oldest Redis that will do: it trims a stream up to an id.
const OLDEST: (u32, u32) = (6, 2);

/// What a plane is, as records tell it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Its address; no credentials.
    pub url: String,
    /// Version of its Redis.
    pub version: String,
    /// The name that Redis gave itself at its start.
    pub run_id: String,
    /// Whether it can be reached from this host only.
    pub is_near: bool,
}

/// Looks at a plane. `is_insecure` lets one through that anybody may use, wherever it is; `target` is
/// what the target's Redis calls itself (`run_id` of its INFO), where that is known.
///
/// # Errors
/// Why it cannot be used, one line with the remedy.
pub async fn check(door: &Door, is_insecure: bool, target: Option<&str>) -> Result<Facts, PlaneError> {
    let refuse = |why: &str| Err(PlaneError::Refused(format!("at {door} {why}")));
    let is_near = is_loopback(door).await?;
    let is_trusted = is_insecure || is_near;
    if !is_trusted && !door.has_password() {
        return refuse(
            "would be used without a password, and not on this host: give SPRINGTIDE_PLANE_PASSWORD or \
             --plane-password-file, or allow it with --insecure-plane",
        );
    }
    let info: Result<String, _> = Link::new(door.clone()).call("INFO", &redis::cmd("INFO")).await;
    let info = info.map_err(|error| match error {
        // Who expects TLS hangs up on whoever does not speak it, and the other way round says nothing.
        PlaneError::Away(why) => PlaneError::Away(match door.tls() {
            None => format!("{why}; is Redis there, and without TLS (else write rediss://)?"),
            Some(_) => format!("{why}; is Redis there, and with TLS (else write redis://)?"),
        }),
        other => other,
    })?;
    if !is_trusted && is_open_to_all(door).await? {
        return refuse(
            "lets everybody in without a password: set one there (requirepass, or ACL SETUSER default off), \
             or allow it with --insecure-plane",
        );
    }
    let figure = |name: &str| {
        let value = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap_or_default().trim().to_owned()
    };
    let version = figure("redis_version");
    if numbers(&version).is_some_and(|v| v < OLDEST) {
        return refuse(&format!("is Redis {version}: it must be {}.{} or newer", OLDEST.0, OLDEST.1));
    }
    if figure("cluster_enabled") == "1" {
        return refuse("is a Redis Cluster: give a single Redis");
    }
    if !["", "master"].contains(&&*figure("role")) {
        return refuse("is a replica, which takes nothing down: give its master");
    }
    let policy = figure("maxmemory_policy");
    if !["", "noeviction"].contains(&&*policy) {
        return refuse(&format!(
            "throws keys away when it is full (maxmemory-policy {policy}): set maxmemory-policy noeviction there"
        ));
    }
    let run_id = figure("run_id");
    if target.is_some_and(|target| !target.is_empty() && target == run_id) {
        return refuse("is the target's own Redis, which would be measured along: give another one");
    }
    Ok(Facts { url: door.to_string(), version, run_id, is_near })
}

/// Whether all addresses it may be reached at are this host's own.
async fn is_loopback(door: &Door) -> Result<bool, PlaneError> {
    let addresses = tokio::net::lookup_host(door.host()).await;
    let addresses = addresses.map_err(|e| super::told::unreachable(door, &e))?;
    Ok(addresses.into_iter().all(|address| address.ip().to_canonical().is_loopback()))
}

fn numbers(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_numbers() {
        assert!(numbers("7.0.15").unwrap() >= OLDEST);
        assert!(numbers("10.0.0").unwrap() >= OLDEST);
        assert!(numbers("6.0.16").unwrap() < OLDEST);
        assert_eq!(numbers("unstable"), None);
    }

    #[tokio::test]
    async fn without_a_password_it_must_be_near() {
        // 192.0.2.0/24 is nobody's (RFC 5737); it is refused before anybody connects.
        let door = Door::new("redis://192.0.2.1", None, None).unwrap();
        let said = check(&door, false, None).await.unwrap_err().to_string();
        assert!(said.contains("--insecure-plane") && said.contains("SPRINGTIDE_PLANE_PASSWORD"), "{said}");
    }
}
