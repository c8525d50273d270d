//! Writes the page, in the classic text format or as OpenMetrics.

use std::fmt::Write as _;

use super::figures::Sizes;
use crate::{histogram::Histogram, micros::Micros, telemetry::scrape::text::Format};

/// Upper bounds of duration buckets in microseconds. Each is the lower edge of one of our own
/// histogram's buckets, so that no bucket of ours lies on both sides of one: what is counted below
/// it is exact. From 5 ms on they are 5 and 7.5 ms, doubled over and over.
const DURATIONS: [u64; 40] = [
    500,
    1_000,
    2_000,
    5_000,
    7_500,
    10_000,
    15_000,
    20_000,
    30_000,
    40_000,
    60_000,
    80_000,
    120_000,
    160_000,
    240_000,
    320_000,
    480_000,
    640_000,
    960_000,
    1_280_000,
    1_920_000,
    2_560_000,
    3_840_000,
    5_120_000,
    7_680_000,
    10_240_000,
    15_360_000,
    20_480_000,
    30_720_000,
    40_960_000,
    61_440_000,
    81_920_000,
    122_880_000,
    163_840_000,
    245_760_000,
    327_680_000,
    491_520_000,
    655_360_000,
    1_310_720_000,
    2_621_440_000,
];

/// What a family counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Info,
}

/// A page being written, family after family.
pub(super) struct Page {
    format: Format,
    text: String,
    name: &'static str,
}

impl Page {
    pub(super) fn new(format: Format) -> Self {
        Self { format, text: String::new(), name: "" }
    }

    pub(super) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// Begins a family; what is written next belongs to it. `name` is that of its samples.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, help: &str) {
        self.name = name;
        let (family, kind) = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => (name.trim_end_matches("_total"), "counter"),
            (Format::OpenMetrics, Kind::Info) => (name.trim_end_matches("_info"), "info"),
            (Format::Classic, Kind::Counter) => (name, "counter"),
            (Format::Classic, Kind::Info) | (_, Kind::Gauge) => (name, "gauge"),
            (_, Kind::Histogram) => (name, "histogram"),
        };
        let _ = writeln!(self.text, "# HELP {family} {help}\n# TYPE {family} {kind}");
    }

    /// One number.
    pub(super) fn number(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, None, value);
    }

    /// Durations: of each, whole microseconds are known, so `count_up_to(b - 1 µs)` are those that
    /// took less than `b`.
    pub(super) fn durations(&mut self, labels: &[(&str, &str)], h: &Histogram) {
        for bound in DURATIONS {
            let le = format!("{:?}", bound as f64 / 1e6);
            self.line("_bucket", labels, Some(&le), h.count_up_to(Micros(bound - 1)) as f64);
        }
        self.end(labels, h.count(), h.sum().as_secs());
    }

    /// Sizes in bytes.
    pub(super) fn sizes(&mut self, labels: &[(&str, &str)], sizes: &Sizes) {
        let mut so_far = 0;
        for (bound, n) in Sizes::bounds().zip(&sizes.counts) {
            so_far += n;
            self.line("_bucket", labels, Some(&format!("{bound:?}")), so_far as f64);
        }
        self.end(labels, sizes.counts.iter().sum(), sizes.sum as f64);
    }

    fn end(&mut self, labels: &[(&str, &str)], count: u64, sum: f64) {
        self.line("_bucket", labels, Some("+Inf"), count as f64);
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, count as f64);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], le: Option<&str>, value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let le = le.map(|le| ("le", le));
        let mut between = '{';
        for (name, value) in labels.iter().copied().chain(le) {
            self.text.push(between);
            let _ = write!(self.text, "{name}=\"{}\"", escaped(value));
            between = ',';
        }
        if between == ',' {
            self.text.push('}');
        }
        // `{}` writes whole numbers without a point and never an exponent.
        let _ = writeln!(self.text, " {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert_eq, proptest};

    use super::*;
    use crate::telemetry::scrape::text::read;

    proptest! {
        #[test]
        fn what_a_bucket_counts_is_exact(values in prop::collection::vec(0usize..DURATIONS.len(), 1..40), off in 0u64..2) {
            // On both sides of each bound, where a bucket that straddles it would show.
            let values: Vec<u64> = values.into_iter().map(|i| DURATIONS[i] - off).collect();
            let mut h = Histogram::default();
            values.iter().for_each(|v| h.record(Micros(*v)));
            for bound in DURATIONS {
                let below = values.iter().filter(|v| **v < bound).count() as u64;
                prop_assert_eq!(h.count_up_to(Micros(bound - 1)), below);
            }
        }
    }

    #[test]
    fn the_bounds_rise() {
        assert!(DURATIONS.windows(2).all(|w| w[0] < w[1]));
        let bytes: Vec<f64> = Sizes::bounds().collect();
        assert!(bytes.windows(2).all(|w| w[0] < w[1]));
    }

    #[test]
    fn hostile_labels_stay_labels_in_both_formats() {
        for format in [Format::Classic, Format::OpenMetrics] {
            let mut page = Page::new(format);
            page.family("a_total", Kind::Counter, "A.");
            page.number(&[("x", "} 1\n\"\\n")], 2.0);
            let text = page.finish();
            let all = read(&text, format).unwrap();
            assert_eq!((all[0].samples[0].label("x"), all[0].samples[0].value), (Some("} 1\n\"\\n"), 2.0));
        }
    }
}
