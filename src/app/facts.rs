//! Facts of this program and this machine for the run record.

use std::env;

use procfs::Current;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use sha2::{Digest, Sha256};

use crate::{
    plane::Hello,
    record::{Build, Host},
    scenario::hex,
};

/// What this binary is made of.
pub(super) fn build() -> Build {
    Build {
        version: env!("CARGO_PKG_VERSION").into(),
        revision: env!("SPRINGTIDE_BUILD_REVISION").into(),
        profile: if cfg!(debug_assertions) { "debug" } else { "release" }.into(),
        goose: env!("SPRINGTIDE_GOOSE").into(),
    }
}

/// Cores this process may use.
pub(super) fn cores() -> u32 {
    std::thread::available_parallelism().map_or(1, |n| n.get() as u32)
}

/// The machine we run on; what cannot be found out is `unknown` or 0.
pub(super) fn host() -> Host {
    let uname = rustix::system::uname();
    let text = |s: &std::ffi::CStr| s.to_string_lossy().into_owned();
    let cpu = procfs::CpuInfo::current().ok().and_then(|c| c.model_name(0).map(str::to_owned));
    Host {
        name: text(uname.nodename()),
        cpu: cpu.unwrap_or_else(|| "unknown".into()),
        cores: cores(),
        memory: procfs::Meminfo::current().map_or(0, |m| m.mem_total),
        kernel: format!("{} {}", text(uname.sysname()), text(uname.release())),
        open_files: getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX),
    }
}

/// SHA-256 of the program that runs, in hex: two workers with one hash measure alike.
///
/// # Errors
/// When its file cannot be read any more.
pub(super) fn build_hash() -> std::io::Result<String> {
    let mut program = std::fs::File::open("/proc/self/exe")?;
    let mut digest = Sha256::new();
    std::io::copy(&mut program, &mut digest)?;
    Ok(hex(&digest.finalize()))
}

/// What a worker of this program on this machine says of itself.
pub(super) fn hello(build_hash: String, plan_hash: String) -> Hello {
    Hello { build: build(), build_hash, plan_hash, host: host(), trouble: None }
}

/// Raises the limit on open files to what is needed, as far as the hard limit allows.
///
/// # Errors
/// A sentence with the remedy, when that is not far enough.
pub(super) fn allow_open_files(needed: u64) -> Result<(), String> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current.is_none_or(|now| now >= needed) {
        return Ok(());
    }
    let wanted = maximum.map_or(needed, |most| most.min(needed));
    let raised = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum });
    if raised.is_ok() && wanted >= needed {
        return Ok(());
    }
    Err(format!(
        "{needed} open files are needed, {} are allowed; raise the limit (ulimit -n {needed}) or use fewer users",
        maximum.or(current).unwrap_or(0)
    ))
}

/// The command line as typed, fit to be pasted into a shell. Secrets have no flags; one that was
/// typed into a URL is left out.
pub(super) fn command_line() -> String {
    let quoted = |arg: String| {
        let plain =
            !arg.is_empty() && arg.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=,%@+".contains(c));
        if plain { arg } else { format!("'{}'", arg.replace('\'', r"'\''")) }
    };
    let args = env::args_os().skip(1).map(|a| quoted(without_secret(&a.to_string_lossy())));
    std::iter::once("springtide".to_owned()).chain(args).collect::<Vec<_>>().join(" ")
}

/// The same without the password of a URL in it.
fn without_secret(arg: &str) -> String {
    let Some((scheme, rest)) = arg.split_once("://") else { return arg.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest[..end].rsplit_once('@') {
        Some((user, host)) if user.contains(':') => {
            let name = user.split(':').next().unwrap_or_default();
            format!("{scheme}://{name}:***@{host}{}", &rest[end..])
        }
        _ => arg.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_in_a_url_is_not_kept() {
        for (typed, kept) in [
            (
                "--redis-url=rediss://ann:s3@cr@et.example:6379/0",
                "--redis-url=rediss://ann:***@et.example:6379/0",
            ),
            ("redis://:secret@h", "redis://:***@h"),
            ("http://yaptide:5000/", "http://yaptide:5000/"),
            ("a sentence: http", "a sentence: http"),
        ] {
            assert_eq!(without_secret(typed), kept);
        }
    }
}
