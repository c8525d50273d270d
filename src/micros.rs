//! A span of time with the resolution of everything springtide measures: one microsecond.

use std::{fmt, iter::Sum, ops, time::Duration};

use serde::{Deserialize, Serialize};

/// A duration, or an offset from a cell's T0, in whole microseconds.
///
/// It is what files and frames carry; code that waits uses [`Duration`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub u64);

impl Micros {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// In milliseconds, the unit of the CSV files.
    pub fn as_ms(self) -> f64 {
        self.0 as f64 / 1e3
    }

    /// In seconds.
    pub fn as_secs(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// From fractional milliseconds, rounded; negative values become zero.
    pub fn from_ms(ms: f64) -> Self {
        Self((ms * 1e3).round().max(0.0) as u64)
    }

    /// `self - other`, or zero when `other` is later.
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The difference, `None` below it.
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

impl From<Duration> for Micros {
    fn from(d: Duration) -> Self {
        Self(u64::try_from(d.as_micros()).unwrap_or(u64::MAX))
    }
}

impl From<Micros> for Duration {
    fn from(m: Micros) -> Self {
        Self::from_micros(m.0)
    }
}

impl ops::Add for Micros {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl ops::AddAssign for Micros {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Micros {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, |a, b| a + b)
    }
}

/// For people: `870 µs`, `12.3 ms`, `4.56 s`, `3m 20s`.
impl fmt::Display for Micros {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            us @ 0..1_000 => format!("{us} µs"),
            us @ 1_000..10_000 => format!("{:.2} ms", us as f64 / 1e3),
            us @ 10_000..100_000 => format!("{:.1} ms", us as f64 / 1e3),
            us @ 100_000..1_000_000 => format!("{:.0} ms", us as f64 / 1e3),
            us @ 1_000_000..60_000_000 => format!("{:.2} s", us as f64 / 1e6),
            us => {
                let s = us / 1_000_000;
                match s / 3600 {
                    0 => format!("{}m {:02}s", s / 60, s % 60),
                    h => format!("{h}h {:02}m {:02}s", s % 3600 / 60, s % 60),
                }
            }
        };
        f.pad(&text)
    }
}

/// One span less another, in whole microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// `a - b`.
    pub fn of(a: Micros, b: Micros) -> Self {
        let apart = i64::try_from(a.0.abs_diff(b.0)).unwrap_or(i64::MAX);
        Self(if a < b { -apart } else { apart })
    }

    /// In milliseconds.
    pub fn as_ms(self) -> f64 {
        self.0 as f64 / 1e3
    }
}

/// For people: `+12.3 ms`, `−870 µs`.
impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.0 {
            0 => "",
            1.. => "+",
            _ => "−",
        };
        f.pad(&format!("{sign}{}", Micros(self.0.unsigned_abs())))
    }
}

/// Reads `250us`, `500ms`, `30s`, `2m`, `1.5h` and sums of them such as `1m30s`; a unit is needed.
pub fn parse(text: &str) -> Option<Micros> {
    let (mut rest, mut total) = (text.trim(), 0.0);
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let value: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        total += value
            * match &rest[..unit] {
                "us" | "µs" => 1.0,
                "ms" => 1e3,
                "s" => 1e6,
                "m" | "min" => 60e6,
                "h" => 3600e6,
                _ => return None,
            };
        rest = &rest[unit..];
    }
    (total <= 1e15).then_some(Micros(total.round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_with_their_unit() {
        let read = ["500ms", "30s", "1m30s", "1.5h", "7us"].map(|t| parse(t).map(|m| m.0));
        let us = [500_000, 30_000_000, 90_000_000, 5_400_000_000, 7].map(Some);
        assert_eq!(read, us);
        assert!(["", "5", "s", "5 parsec", "-3s", "1.2.3s"].iter().all(|t| parse(t).is_none()));
    }

    #[test]
    fn a_difference_has_its_sign() {
        let said = [(9, 2_009), (870, 0), (5, 5)].map(|(a, b)| Offset::of(Micros(a), Micros(b)).to_string());
        assert_eq!(said, ["−2.00 ms", "+870 µs", "0 µs"]);
    }

    #[test]
    fn reads_as_a_person_would_write_it() {
        let said: Vec<String> = [0, 870, 1_500, 12_340, 870_000, 4_560_000, 200_000_000, 3_725_000_000]
            .map(|us| Micros(us).to_string())
            .to_vec();
        assert_eq!(
            said,
            ["0 µs", "870 µs", "1.50 ms", "12.3 ms", "870 ms", "4.56 s", "3m 20s", "1h 02m 05s"]
        );
    }
}
