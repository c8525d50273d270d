//! What the figures were measured on.

use std::{fs, process::Command};

/// A list of facts.
pub(crate) fn facts() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let models: Vec<&str> = cpuinfo
        .lines()
        .filter_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, name)| name))
        .collect();
    let kib = read("/proc/meminfo")
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.trim().trim_end_matches(" kB").parse::<u64>().ok());
    format!(
        "- {} on {}\n- {} × {}, {} GiB\n- Linux {}\n- {}\n- load average at the start: {}\n",
        said("git", &["describe", "--always", "--dirty"]),
        jiff::Zoned::now().strftime("%Y-%m-%d %H:%M %Z"),
        models.len(),
        models.first().unwrap_or(&"unknown CPU"),
        kib.unwrap_or(0) >> 20,
        read("/proc/sys/kernel/osrelease").trim(),
        said("rustc", &["--version"]),
        read("/proc/loadavg").trim(),
    )
}

fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    output.map_or("unknown".into(), |o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
}
