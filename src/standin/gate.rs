//! Whether the server takes connections: open, cutting them for a window, or gone.

use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::bug::Bug;

/// What happens to connections at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Open,
    /// New connections are reset, old ones are dropped.
    Cutting,
    /// Nobody listens any more.
    Gone,
}

impl Gate {
    /// The gate after this time since the start.
    fn at(bugs: &[Bug], elapsed: Duration) -> Self {
        let any = |test: &dyn Fn(&Bug) -> bool| bugs.iter().any(test);
        if any(&|bug| matches!(bug, Bug::VanishAfter(after) if elapsed >= *after)) {
            Self::Gone
        } else if any(&|bug| matches!(bug, Bug::Refuse { from, to } if (*from..*to).contains(&elapsed))) {
            Self::Cutting
        } else {
            Self::Open
        }
    }
}

/// Moves the gate at the times the bugs name; returns when it will move no more.
pub(super) async fn turn(bugs: Vec<Bug>, started: Instant, gate: watch::Sender<Gate>) {
    let mut times: Vec<Duration> = bugs
        .iter()
        .flat_map(|bug| match *bug {
            Bug::Refuse { from, to } => vec![from, to],
            Bug::VanishAfter(after) => vec![after],
            _ => Vec::new(),
        })
        .collect();
    times.sort_unstable();
    for time in times {
        tokio::time::sleep_until((started + time).into()).await;
        gate.send_replace(Gate::at(&bugs, time));
    }
    // Kept until the server ends, so that nobody takes a closed channel for a change.
    gate.closed().await;
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Gate;

    #[test]
    fn the_gate_follows_the_windows() {
        let bugs = ["refuse=1s..2s", "refuse=4s..5s", "vanish-after=6s"].map(|bug| bug.parse().unwrap());
        let at = |millis| Gate::at(&bugs, Duration::from_millis(millis));
        assert_eq!((at(0), at(999), at(1000)), (Gate::Open, Gate::Open, Gate::Cutting));
        assert_eq!((at(2000), at(4500), at(5000)), (Gate::Open, Gate::Cutting, Gate::Open));
        assert_eq!((at(6000), at(60_000)), (Gate::Gone, Gate::Gone));
    }
}
