//! How one number is written: for people with its unit and its doubts, for files in milliseconds.

use crate::{
    estimate::{self, Quantile},
    histogram::Histogram,
    micros::Micros,
};

/// Behind a quantile that the sample is too small for; its interval is what it is worth.
pub(crate) const TOO_SMALL: &str = "†";
/// What the mark means, for the foot of a table.
pub(crate) const TOO_SMALL_MEANS: &str = "† n too small for this quantile (p50 needs 20, p90 100, p95 200, p99 1000): read the interval, not the number.";
/// Where there is no number.
pub(crate) const NONE: &str = "–";

/// Milliseconds with three decimals, which is exact: `12.345`.
pub(crate) fn ms(m: Micros) -> String {
    format!("{}.{:03}", m.0 / 1000, m.0 % 1000)
}

/// The same into a file of millions of rows, without the formatter's detours.
pub(crate) fn push_ms(out: &mut Vec<u8>, m: Micros) {
    push_int(out, m.0 / 1000);
    let rest = m.0 % 1000;
    let digits = [rest / 100, rest / 10 % 10, rest % 10].map(|d| b'0' + d as u8);
    out.extend_from_slice(&[b'.', digits[0], digits[1], digits[2]]);
}

/// A whole number, likewise.
pub(crate) fn push_int(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// A quantile for a file: `12.345`, or `>= 12.345` among unfinished jobs; empty when unknown.
pub(crate) fn bound_ms(q: Option<Quantile>) -> String {
    q.map_or_else(String::new, |q| format!("{}{}", at_least(q), ms(q.value)))
}

/// A quantile for people: `4.56 s`, `>= 4.56 s`, with [`TOO_SMALL`] where it is.
pub(crate) fn said(q: Option<Quantile>) -> String {
    q.map_or_else(
        || NONE.into(),
        |q| {
            let mark = if q.supported { "" } else { TOO_SMALL };
            // What was drawn on a line through a bucket is nothing without the bucket.
            let bucket = match q.bucket {
                Some((low, Some(high))) => format!(" in {low} … {high}"),
                _ => String::new(),
            };
            format!("{}{}{mark}{bucket}", at_least(q), q.value)
        },
    )
}

/// Its 95 % confidence interval: `4.40 s … 4.70 s`, `?` on a side without bound.
pub(crate) fn interval(q: Option<Quantile>) -> String {
    let side = |m: Option<Micros>| m.map_or_else(|| "?".to_owned(), |m| m.to_string());
    match q {
        Some(Quantile { low: None, high: None, .. }) | None => NONE.into(),
        Some(q) => format!("{} … {}", side(q.low), side(q.high)),
    }
}

fn at_least(q: Quantile) -> &'static str {
    if q.at_least { ">= " } else { "" }
}

/// A quantile of requests: within 0.1 %, with [`TOO_SMALL`] where there are too few.
pub(crate) fn of_requests(h: &Histogram, q: f64) -> String {
    if h.count() == 0 {
        return NONE.into();
    }
    let mark = if estimate::is_enough(h.count(), q) { "" } else { TOO_SMALL };
    format!("{}{mark}", h.quantile(q))
}

/// `f` of a histogram that counted something.
pub(crate) fn or_none(h: &Histogram, f: fn(&Histogram) -> Micros) -> String {
    if h.count() == 0 { NONE.into() } else { f(h).to_string() }
}

/// Bytes for people, in powers of ten: `870 B`, `98.9 kB`, `1.13 MB`.
pub(crate) fn bytes(n: u64) -> String {
    let scaled = |unit: f64| {
        let v = n as f64 / unit;
        let decimals = match v {
            v if v < 9.995 => 2,
            v if v < 99.95 => 1,
            _ => 0,
        };
        format!("{v:.decimals$}")
    };
    match n {
        0..1_000 => format!("{n} B"),
        1_000..1_000_000 => format!("{} kB", scaled(1e3)),
        1_000_000..1_000_000_000 => format!("{} MB", scaled(1e6)),
        _ => format!("{} GB", scaled(1e9)),
    }
}

/// A share of 1 for people: `2.35 %`.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

/// The part of a whole with both: `97.00 % (97 of 100)`.
pub(crate) fn part(n: u64, of: u64) -> String {
    if of == 0 {
        return NONE.into();
    }
    format!("{} ({n} of {of})", percent(n as f64 / of as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_exact() {
        assert_eq!(ms(Micros(0)), "0.000");
        assert_eq!(ms(Micros(12_345_678)), "12345.678");
        assert_eq!(ms(Micros(1_005)), "1.005");
        for us in [0, 7, 1_005, 12_345_678, u64::MAX] {
            let mut out = Vec::new();
            push_ms(&mut out, Micros(us));
            assert_eq!(out, ms(Micros(us)).as_bytes());
        }
    }

    #[test]
    fn a_quantile_tells_its_doubts() {
        let q = Quantile {
            value: Micros(4_560_000),
            at_least: true,
            low: Some(Micros(4_400_000)),
            high: None,
            supported: false,
            bucket: None,
        };
        assert_eq!(said(Some(q)), ">= 4.56 s†");
        assert_eq!(interval(Some(q)), "4.40 s … ?");
        assert_eq!(bound_ms(Some(q)), ">= 4560.000");
        assert_eq!((said(None), bound_ms(None)), ("–".into(), String::new()));
    }

    #[test]
    fn bytes_keep_three_digits() {
        let said = [7, 999, 1_000, 98_892, 999_999, 1_130_000, 2_500_000_000].map(bytes);
        assert_eq!(said, ["7 B", "999 B", "1.00 kB", "98.9 kB", "1000 kB", "1.13 MB", "2.50 GB"]);
    }
}
