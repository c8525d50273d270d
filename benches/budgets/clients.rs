//! The clients that are compared: how each is started, and what it says of its run.

use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use springtide::micros::{self, Micros};

use crate::process::own;

/// What a client says of its run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    pub(crate) mean: Micros,
    pub(crate) p50: Micros,
    pub(crate) p99: Micros,
    /// 99th percentile of how late planned waits ended, where the client measures that.
    pub(crate) lag_p99: Option<Micros>,
    /// Share of the users' time that is in no request, where the client keeps account of it.
    pub(crate) missing: Option<f64>,
}

/// A client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tool {
    Wrk,
    Oha,
    Springtide,
    PlainGoose,
}

impl Tool {
    pub(crate) const ALL: [Self; 4] = [Self::Wrk, Self::Oha, Self::Springtide, Self::PlainGoose];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Wrk => "wrk",
            Self::Oha => "oha",
            Self::Springtide => "springtide",
            Self::PlainGoose => "plain Goose",
        }
    }

    /// Whether it is there; our own always are.
    pub(crate) fn is_installed(self) -> bool {
        let program = match self {
            Self::Springtide | Self::PlainGoose => return true,
            Self::Wrk | Self::Oha => self.name(),
        };
        Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    }

    /// The words that start it against `url`.
    pub(crate) fn command(self, url: &str, users: u32, seconds: u64) -> Result<Vec<String>> {
        let (users, secs) = (users.to_string(), seconds.to_string());
        let foreign = |words: String| Ok(words.split(' ').map(str::to_owned).collect());
        match self {
            Self::Wrk => foreign(format!("wrk -t1 -c{users} -d{secs}s --latency {url}/")),
            Self::Oha => foreign(format!("oha --no-tui -j -z {secs}s -c {users} {url}/")),
            Self::Springtide => own(&["hello", url, &users, &secs]),
            Self::PlainGoose => own(&["plain-goose", url, &users, &secs]),
        }
    }

    /// Reads what it printed.
    pub(crate) fn read(self, output: &str) -> Result<Report> {
        match self {
            Self::Springtide | Self::PlainGoose => {
                // Goose may have printed lines of its own before.
                let said = output.lines().last().unwrap_or_default();
                serde_json::from_str(said).with_context(|| format!("{} said {output:?}", self.name()))
            }
            Self::Wrk => wrk(output).with_context(|| format!("wrk said {output:?}")),
            Self::Oha => oha(output).with_context(|| format!("oha said {output:?}")),
        }
    }
}

fn wrk(output: &str) -> Option<Report> {
    let after = |label: &str, nth: usize| {
        let line = output.lines().find(|l| l.trim_start().starts_with(label))?;
        line.split_whitespace().nth(nth)
    };
    let time = |label| micros::parse(after(label, 1)?);
    let requests = output.lines().find(|l| l.contains(" requests in "))?;
    Some(Report {
        requests: requests.split_whitespace().next()?.parse().ok()?,
        failed: after("Non-2xx", 3).map_or(Some(0), |n| n.parse().ok())?,
        mean: time("Latency  ")?,
        p50: time("50%")?,
        p99: time("99%")?,
        lag_p99: None,
        missing: None,
    })
}

fn oha(output: &str) -> Option<Report> {
    let said: serde_json::Value = serde_json::from_str(output).ok()?;
    let time = |path: &str| said.pointer(path)?.as_f64().map(|s| Micros((s * 1e6) as u64));
    let counts = said.get("statusCodeDistribution")?.as_object()?;
    Some(Report {
        requests: counts.values().filter_map(serde_json::Value::as_u64).sum(),
        failed: counts.iter().filter(|(code, _)| *code != "200").filter_map(|(_, n)| n.as_u64()).sum(),
        mean: time("/summary/average")?,
        p50: time("/latencyPercentiles/p50")?,
        p99: time("/latencyPercentiles/p99")?,
        lag_p99: None,
        missing: None,
    })
}
