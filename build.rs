//! Notes which revision of springtide and which Goose a binary is made of.

use std::{fs, process::Command};

const REVISION: &str = "SPRINGTIDE_BUILD_REVISION";

fn main() {
    // Not the index: git itself rewrites that, and every look at the tree would build anew.
    for path in ["Cargo.lock", "Cargo.toml", "src", "loadtests", "templates", ".git/logs/HEAD"] {
        if fs::exists(path).unwrap_or(false) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    println!("cargo::rerun-if-env-changed={REVISION}");
    println!("cargo::rustc-env={REVISION}={}", revision().unwrap_or_else(|| "unknown".into()));
    println!("cargo::rustc-env=SPRINGTIDE_GOOSE={}", goose().unwrap_or_else(|| "unknown".into()));
}

/// The commit, with `-dirty` behind it when the tree was changed. Outside a checkout it is what whoever
/// builds says in the environment, such as deploy/Dockerfile; `None` without that, too.
fn revision() -> Option<String> {
    checked_out().or_else(|| std::env::var(REVISION).ok().filter(|said| !said.is_empty()))
}

fn checked_out() -> Option<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").arg("--no-optional-locks").args(args).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain", "--untracked-files=no"])?;
    Some(if changed.is_empty() { commit } else { format!("{commit}-dirty") })
}

/// The version of Goose in the lock file.
fn goose() -> Option<String> {
    let lock = fs::read_to_string("Cargo.lock").ok()?;
    let entry = lock.split("[[package]]").find(|e| e.contains("name = \"goose\"\n"))?;
    let line = entry.lines().find(|l| l.starts_with("version"))?;
    Some(line.split('"').nth(1)?.to_owned())
}
