//! A moment of a cell on the generator's own monotonic clock.

use std::fmt;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// Microseconds from a cell's T0; negative before it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Moment(pub i64);

impl Moment {
    /// Where `at` lies, seen from T0.
    pub fn of(at: Instant, t0: Instant) -> Self {
        let micros = |d: std::time::Duration| i64::try_from(d.as_micros()).unwrap_or(i64::MAX);
        Self(if at >= t0 { micros(at - t0) } else { -micros(t0 - at) })
    }

    /// In seconds.
    pub fn as_secs(self) -> f64 {
        self.0 as f64 / 1e6
    }
}

/// `12.345 s`.
impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn moments_before_t0_are_negative() {
        let t0 = Instant::now();
        assert_eq!(Moment::of(t0 + Duration::from_millis(2), t0), Moment(2_000));
        assert_eq!(Moment::of(t0, t0 + Duration::from_millis(2)), Moment(-2_000));
    }
}
