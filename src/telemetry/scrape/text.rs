//! Reads what an exposition endpoint says: the classic text format (0.0.4) and OpenMetrics 1.0.
//!
//! A small reader of our own, since no crate with a licence we take reads both. Strict where a
//! number could be wrong (an answer that is not whole, a series that stands there twice, a sample
//! that its family cannot have), lenient in blanks and in the order of families. Help texts, units
//! and exemplars are read over and not kept. It is long because both formats are one grammar with a
//! few differences, told side by side.
//!
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>,
//! <https://prometheus.io/docs/specs/om/open_metrics_spec/>

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
    hash::{DefaultHasher, Hash, Hasher},
};

use serde::{Deserialize, Serialize};

/// How an endpoint writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// `text/plain; version=0.0.4`.
    #[default]
    Classic,
    /// `application/openmetrics-text`.
    OpenMetrics,
}

/// What a family counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Kind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Values in buckets.
    Histogram,
    /// Values in buckets that may leave them again.
    GaugeHistogram,
    /// Values by quantile.
    Summary,
    /// Texts as labels.
    Info,
    /// One of several states.
    StateSet,
    /// Nobody says.
    #[default]
    Unknown,
}

impl Kind {
    fn of(word: &str, format: Format) -> Option<Self> {
        Some(match (word, format) {
            ("counter", _) => Self::Counter,
            ("gauge", _) => Self::Gauge,
            ("histogram", _) => Self::Histogram,
            ("summary", _) => Self::Summary,
            ("untyped", Format::Classic) | ("unknown", Format::OpenMetrics) => Self::Unknown,
            ("gaugehistogram", Format::OpenMetrics) => Self::GaugeHistogram,
            ("info", Format::OpenMetrics) => Self::Info,
            ("stateset", Format::OpenMetrics) => Self::StateSet,
            _ => return None,
        })
    }

    /// What a sample of such a family may be called behind the family's name.
    fn has(self, part: Part, format: Format) -> bool {
        match (self, part) {
            (Self::Counter, Part::Total) => format == Format::OpenMetrics,
            (Self::Counter, Part::Itself) => format == Format::Classic,
            (Self::Histogram, Part::Bucket | Part::Sum | Part::Count) => true,
            (Self::GaugeHistogram, Part::Bucket | Part::GaugeSum | Part::GaugeCount) => true,
            (Self::Summary, Part::Itself | Part::Sum | Part::Count) => true,
            (Self::Counter | Self::Histogram | Self::Summary, Part::Created) => format == Format::OpenMetrics,
            (Self::Info, Part::Info) => true,
            (Self::Gauge | Self::StateSet | Self::Unknown, Part::Itself) => true,
            _ => false,
        }
    }
}

/// What a sample tells of its family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The figure, or one of its quantiles or states.
    Itself,
    /// `_total`.
    Total,
    /// `_bucket`.
    Bucket,
    /// `_sum`.
    Sum,
    /// `_count`.
    Count,
    /// `_gsum`.
    GaugeSum,
    /// `_gcount`.
    GaugeCount,
    /// `_created`.
    Created,
    /// `_info`.
    Info,
}

const SUFFIXES: [(&str, Part); 8] = [
    ("_total", Part::Total),
    ("_bucket", Part::Bucket),
    ("_sum", Part::Sum),
    ("_count", Part::Count),
    ("_gsum", Part::GaugeSum),
    ("_gcount", Part::GaugeCount),
    ("_created", Part::Created),
    ("_info", Part::Info),
];

/// Samples that belong together.
#[derive(Debug, Clone, PartialEq)]
pub struct Family<'a> {
    /// Its name, without what its samples have behind it.
    pub name: &'a str,
    /// What it counts.
    pub kind: Kind,
    /// In the order in which they stand there.
    pub samples: Vec<Sample<'a>>,
}

/// One line with a number.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// What it tells of its family.
    pub part: Part,
    /// In the order in which they stand there.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The number; may be infinite or no number.
    pub value: f64,
    /// Unix seconds, where the endpoint says when.
    pub timestamp: Option<f64>,
}

impl Sample<'_> {
    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.iter().find(|(n, _)| *n == name).map(|(_, v)| v.as_ref())
    }
}

/// Why an answer cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Unreadable {
    /// From 1.
    pub line: usize,
    /// What is wrong there.
    pub why: &'static str,
}

/// Reads a whole answer.
///
/// # Errors
/// When it is not whole, or a line is not what the format has.
pub fn read(text: &str, format: Format) -> Result<Vec<Family<'_>>, Unreadable> {
    let mut reader = Reader { format, families: Vec::new(), index: HashMap::new(), seen: HashSet::new() };
    let mut ended = false;
    let mut lines = 0;
    for (i, line) in text.split('\n').enumerate() {
        let wrong = |why| Unreadable { line: i + 1, why };
        let line = line.trim_matches(BLANKS);
        if line.is_empty() {
            continue;
        }
        lines = i + 1;
        if ended {
            return Err(wrong("more text behind # EOF"));
        }
        match line.strip_prefix('#') {
            Some(rest) if format == Format::OpenMetrics && rest.trim_matches(BLANKS) == "EOF" => ended = true,
            Some(rest) => reader.comment(rest).map_err(wrong)?,
            None => reader.sample(line).map_err(wrong)?,
        }
    }
    let whole = match format {
        Format::OpenMetrics => ended,
        // A number at the very end may have lost digits.
        Format::Classic => text.is_empty() || text.ends_with('\n'),
    };
    if !whole {
        let why = match format {
            Format::OpenMetrics => "the answer ends without # EOF, so it may not be whole",
            Format::Classic => "the answer ends without a line feed, so it may not be whole",
        };
        return Err(Unreadable { line: lines.max(1), why });
    }
    Ok(reader.families)
}

const BLANKS: [char; 3] = [' ', '\t', '\r'];

struct Reader<'a> {
    format: Format,
    families: Vec<Family<'a>>,
    index: HashMap<&'a str, usize>,
    /// Hashes of the series so far.
    seen: HashSet<u64>,
}

impl<'a> Reader<'a> {
    /// What stands behind a `#`.
    fn comment(&mut self, rest: &'a str) -> Result<(), &'static str> {
        let mut words = rest.split([' ', '\t']).filter(|w| !w.is_empty());
        if words.next() != Some("TYPE") {
            // Help, unit, or somebody's remark.
            return Ok(());
        }
        let name = words.next().filter(|n| is_name(n)).ok_or("TYPE without a metric's name")?;
        let kind =
            words.next().and_then(|w| Kind::of(w, self.format)).ok_or("TYPE of a kind that there is not")?;
        if words.next().is_some() {
            return Err("more words behind TYPE");
        }
        match self.index.get(name) {
            None => {
                self.family(name, kind);
                Ok(())
            }
            Some(_) => Err("a second TYPE for a metric, or one behind its samples"),
        }
    }

    fn family(&mut self, name: &'a str, kind: Kind) -> usize {
        self.index.insert(name, self.families.len());
        self.families.push(Family { name, kind, samples: Vec::new() });
        self.families.len() - 1
    }

    fn sample(&mut self, line: &'a str) -> Result<(), &'static str> {
        let end = line.find(|c: char| !is_name_char(c)).unwrap_or(line.len());
        let (name, mut rest) = line.split_at(end);
        if !is_name(name) {
            return Err("no metric's name in front");
        }
        rest = rest.trim_start_matches(BLANKS);
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            (labels, rest) = read_labels(inside)?;
        }
        let (rest, exemplar) = match (rest.split_once('#'), self.format) {
            (Some((_, _)), Format::Classic) => return Err("something behind the number"),
            (Some((rest, exemplar)), Format::OpenMetrics) => (rest, Some(exemplar)),
            (None, _) => (rest, None),
        };
        let (value, timestamp) = numbers(rest)?;
        let timestamp = timestamp.map(|t| if self.format == Format::Classic { t / 1e3 } else { t });
        let (family, part) = self.home(name)?;
        let kind = self.families[family].kind;
        if let Some(exemplar) = exemplar {
            if !matches!(part, Part::Bucket | Part::Total) {
                return Err("an exemplar where there can be none");
            }
            read_exemplar(exemplar)?;
        }
        let sample = Sample { part, labels, value, timestamp };
        if part == Part::Bucket && sample.label("le").is_none() {
            return Err("a bucket without le");
        }
        let only_rises = match part {
            Part::Total | Part::Bucket | Part::Count => true,
            Part::Itself => kind == Kind::Counter,
            _ => false,
        };
        if only_rises && (value.is_nan() || value < 0.0) {
            return Err("a count that is negative or no number");
        }
        if !self.seen.insert(identity(name, &sample)) {
            return Err("a series that stands there twice");
        }
        self.families[family].samples.push(sample);
        Ok(())
    }

    /// The family of a sample. One of its very name goes before those that the name is made of.
    fn home(&mut self, name: &'a str) -> Result<(usize, Part), &'static str> {
        let of = |this: &Self, base: &str, part| {
            let found = *this.index.get(base)?;
            this.families[found].kind.has(part, this.format).then_some((found, part))
        };
        let parts =
            SUFFIXES.into_iter().filter_map(|(suffix, part)| Some((name.strip_suffix(suffix)?, part)));
        let found = of(self, name, Part::Itself).or_else(|| {
            let mut parts = parts;
            parts.find_map(|(base, part)| of(self, base, part))
        });
        match found {
            Some(found) => Ok(found),
            None if self.index.contains_key(name) => Err("a sample that a metric of its TYPE cannot have"),
            None => Ok((self.family(name, Kind::Unknown), Part::Itself)),
        }
    }
}

fn identity(name: &str, sample: &Sample<'_>) -> u64 {
    let mut labels: Vec<_> = sample.labels.iter().collect();
    labels.sort_unstable();
    let mut hasher = DefaultHasher::new();
    (name, labels, sample.timestamp.map(f64::to_bits)).hash(&mut hasher);
    hasher.finish()
}

fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.chars().all(is_name_char) && !name.starts_with(|c: char| c.is_ascii_digit())
}

type Labels<'a> = Vec<(&'a str, Cow<'a, str>)>;

/// The labels up to `}`, and what stands behind it.
fn read_labels(mut rest: &str) -> Result<(Labels<'_>, &str), &'static str> {
    let mut labels: Labels<'_> = Vec::new();
    loop {
        rest = rest.trim_start_matches(BLANKS);
        if let Some(behind) = rest.strip_prefix('}') {
            return Ok((labels, behind));
        }
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).ok_or("labels without }")?;
        let (name, behind) = rest.split_at(end);
        if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
            return Err("a label without a name");
        }
        if labels.iter().any(|(n, _)| *n == name) {
            return Err("a label that stands there twice");
        }
        let behind = behind.trim_start_matches(BLANKS).strip_prefix('=').ok_or("a label without =")?;
        let behind = behind.trim_start_matches(BLANKS).strip_prefix('"').ok_or("a label without quotes")?;
        let (value, behind) = quoted(behind)?;
        labels.push((name, value));
        rest = behind.trim_start_matches(BLANKS);
        match rest.strip_prefix(',') {
            Some(behind) => rest = behind,
            None if rest.starts_with('}') => {}
            None => return Err("labels without , or } between them"),
        }
    }
}

/// A label's value up to its closing quote, and what stands behind it.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut unescaped: Option<String> = None;
    let mut from = 0;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => {
                let value = match unescaped {
                    None => Cow::Borrowed(&text[..at]),
                    Some(mut s) => {
                        s.push_str(&text[from..at]);
                        Cow::Owned(s)
                    }
                };
                return Ok((value, &text[at + 1..]));
            }
            '\\' => {
                let into = unescaped.get_or_insert_default();
                into.push_str(&text[from..at]);
                let (next, c) = chars.next().ok_or("a label's value without an end")?;
                match c {
                    'n' => into.push('\n'),
                    '\\' | '"' => into.push(c),
                    // Not an escape: both characters are meant.
                    other => into.extend(['\\', other]),
                }
                from = next + c.len_utf8();
            }
            _ => {}
        }
    }
    Err("a label's value without an end")
}

/// A number, and perhaps a timestamp behind it.
fn numbers(text: &str) -> Result<(f64, Option<f64>), &'static str> {
    let mut words = text.split(BLANKS).filter(|w| !w.is_empty());
    let value = words.next().and_then(number).ok_or("no number where the value should be")?;
    let timestamp = match words.next() {
        Some(word) => Some(number(word).filter(|t| t.is_finite()).ok_or("a timestamp that is no number")?),
        None => None,
    };
    if words.next().is_some() {
        return Err("something behind the number");
    }
    Ok((value, timestamp))
}

fn number(word: &str) -> Option<f64> {
    word.parse().ok()
}

fn read_exemplar(text: &str) -> Result<(), &'static str> {
    let inside = text.trim_start_matches(BLANKS).strip_prefix('{').ok_or("an exemplar without labels")?;
    let (_, rest) = read_labels(inside)?;
    numbers(rest).map(|_| ())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Strategy, any, prop, prop_assert_eq, proptest};
    use rstest::rstest;

    use super::*;

    /// The example of the classic format's own page.
    const CLASSIC: &str = r##"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\""} 1.458255915e9

# Minimalistic line:
metric_without_timestamp_and_labels 12.47

# A weird metric from before the epoch:
something_weird{problem="division by zero"} +Inf -3982045

# A histogram, which has a pretty complex representation in the text format:
# HELP http_request_duration_seconds A histogram of the request duration.
# TYPE http_request_duration_seconds histogram
http_request_duration_seconds_bucket{le="0.05"} 24054
http_request_duration_seconds_bucket{le="0.1"} 33444
http_request_duration_seconds_bucket{le="+Inf"} 144320
http_request_duration_seconds_sum 53423
http_request_duration_seconds_count 144320

# Finally a summary, which has a complex representation, too:
# HELP rpc_duration_seconds A summary of the RPC duration in seconds.
# TYPE rpc_duration_seconds summary
rpc_duration_seconds{quantile="0.01"} 3102
rpc_duration_seconds{quantile="0.99"} NaN
rpc_duration_seconds_sum 1.7560473e+07
rpc_duration_seconds_count 2693
"##;

    /// Every kind of OpenMetrics, after the examples of its specification.
    const OPEN: &str = r##"# TYPE acme_http_router_request_seconds summary
# UNIT acme_http_router_request_seconds seconds
# HELP acme_http_router_request_seconds Latency though all of ACME's HTTP request router.
acme_http_router_request_seconds_sum{path="/api/v1",method="GET"} 9036.32
acme_http_router_request_seconds_count{path="/api/v1",method="GET"} 807283.0
acme_http_router_request_seconds_created{path="/api/v1",method="GET"} 1605281325.0
# TYPE go_goroutines gauge
# HELP go_goroutines Number of goroutines that currently exist.
go_goroutines 69
# TYPE foo counter
foo_total 17.0 1520879607.789 # {trace_id="KOO5S4vxi0o # }"} 0.67 1520879607.789
foo_created 1520430000.123
# TYPE build info
build_info{entity="controller",name="pretty\"name"} 1.0
# TYPE state stateset
state{entity="controller",state="a"} 1.0
state{entity="controller",state="bb"} 0
# TYPE lat histogram
lat_bucket{le="0.01"} 0
lat_bucket{le="0.1"} 8 # {} 0.054
lat_bucket{le="+Inf"} 17 # {trace_id="oHg5SJYRHA0"} 9.8 1520879607.789
lat_count 17
lat_sum 324789.3
lat_created 1520430000.123
# TYPE queue gaugehistogram
queue_bucket{le="+Inf"} 17
queue_gcount 17
queue_gsum -3.5
# TYPE odd unknown
odd{with="no"} -Inf
loose_end 1
# EOF
"##;

    fn part_of<'a>(all: &'a [Family<'_>], name: &str) -> &'a Family<'a> {
        all.iter().find(|f| f.name == name).unwrap()
    }

    #[test]
    fn the_example_of_the_classic_format_is_read() {
        let all = read(CLASSIC, Format::Classic).unwrap();
        let requests = part_of(&all, "http_requests_total");
        assert_eq!((requests.kind, requests.samples[0].value), (Kind::Counter, 1027.0));
        assert_eq!(requests.samples[1].timestamp, Some(1_395_066_363.0));
        let escaped = &part_of(&all, "msdos_file_access_time_seconds").samples[0];
        assert_eq!(escaped.label("path"), Some("C:\\DIR\\FILE.TXT"));
        assert_eq!(escaped.label("error"), Some("Cannot find file:\n\"FILE.TXT\""));
        let weird = &part_of(&all, "something_weird").samples[0];
        assert_eq!((weird.value, weird.timestamp), (f64::INFINITY, Some(-3982.045)));
        let histogram = part_of(&all, "http_request_duration_seconds");
        assert_eq!((histogram.kind, histogram.samples.len()), (Kind::Histogram, 5));
        assert_eq!(histogram.samples[2].label("le"), Some("+Inf"));
        let summary = part_of(&all, "rpc_duration_seconds");
        assert!(summary.samples[1].value.is_nan() && summary.samples[2].part == Part::Sum);
    }

    #[test]
    fn every_kind_of_openmetrics_is_read() {
        let all = read(OPEN, Format::OpenMetrics).unwrap();
        let kinds: Vec<Kind> = all.iter().map(|f| f.kind).collect();
        use Kind::{Counter, Gauge, GaugeHistogram, Histogram, Info, StateSet, Summary, Unknown};
        assert_eq!(
            kinds,
            [Summary, Gauge, Counter, Info, StateSet, Histogram, GaugeHistogram, Unknown, Unknown]
        );
        let foo = part_of(&all, "foo");
        assert_eq!((foo.samples[0].part, foo.samples[0].timestamp), (Part::Total, Some(1_520_879_607.789)));
        assert_eq!(foo.samples[1].part, Part::Created);
        assert_eq!(part_of(&all, "build").samples[0].label("name"), Some("pretty\"name"));
        assert_eq!(part_of(&all, "lat").samples.len(), 6);
        assert_eq!(part_of(&all, "queue").samples[2].value, -3.5);
        assert_eq!(part_of(&all, "odd").samples[0].value, f64::NEG_INFINITY);
    }

    #[rstest]
    #[case::no_eof("a 1\n", "without # EOF")]
    #[case::behind_eof("a 1\n# EOF\nb 1\n", "behind # EOF")]
    #[case::counter_without_total("# TYPE a counter\na 1\n# EOF\n", "cannot have")]
    #[case::twice(
        "a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n# EOF\n",
        "line 2: a series that stands there twice"
    )]
    #[case::negative_count("# TYPE a counter\na_total -1\n# EOF\n", "negative")]
    #[case::exemplar_of_a_gauge("# TYPE a gauge\na 1 # {} 1\n# EOF\n", "exemplar")]
    #[case::two_types("# TYPE a gauge\n# TYPE a gauge\n# EOF\n", "second TYPE")]
    #[case::old_type("# TYPE a untyped\n# EOF\n", "kind")]
    fn what_openmetrics_forbids_is_refused(#[case] text: &str, #[case] why: &str) {
        let said = read(text, Format::OpenMetrics).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }

    #[rstest]
    #[case::cut("a 1\nb 12", "line 2: the answer ends without a line feed")]
    #[case::html("<html>\n", "no metric's name")]
    #[case::no_number("a one\n", "no number")]
    #[case::no_value("a\n", "no number")]
    #[case::open_quote("a{x=\"1} 1\n", "without an end")]
    #[case::open_brace("a{x=\"1\" 1\n", "labels without")]
    #[case::no_quote("a{x=1} 1\n", "without quotes")]
    #[case::double_label("a{x=\"1\",x=\"2\"} 1\n", "label that stands there twice")]
    #[case::too_much("a 1 2 3\n", "behind the number")]
    #[case::exemplar("a 1 # {} 1\n", "behind the number")]
    #[case::no_le("# TYPE a histogram\na_bucket 1\n", "without le")]
    #[case::nan_count("# TYPE a counter\na NaN\n", "no number")]
    fn what_the_classic_format_has_not_is_refused(#[case] text: &str, #[case] why: &str) {
        let said = read(text, Format::Classic).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }

    #[test]
    fn one_series_may_have_several_moments() {
        let all = read("# TYPE a gauge\na 1 100\na 2 101\n# EOF\n", Format::OpenMetrics).unwrap();
        assert_eq!(all[0].samples.len(), 2);
        assert!(read("", Format::Classic).unwrap().is_empty());
        assert!(read("# EOF", Format::OpenMetrics).unwrap().is_empty());
    }

    fn escaped(text: &str) -> String {
        text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    }

    /// To the last bit, but for NaN, of which only one is written.
    fn bits(value: f64) -> u64 {
        if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() }
    }

    fn series() -> impl Strategy<Value = (String, Vec<(String, String)>, f64)> {
        let label = ("[a-zA-Z_][a-zA-Z0-9_]{0,6}", ".*").prop_map(|(n, v)| (n, v));
        ("[a-z_:][a-z0-9_:]{0,8}", prop::collection::vec(label, 0..4), any::<f64>())
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(
            all in prop::collection::vec(series(), 0..12),
            open in any::<bool>(),
        ) {
            let (mut text, mut expected) = (String::new(), Vec::new());
            for (i, (name, mut labels, value)) in all.into_iter().enumerate() {
                labels.sort();
                labels.dedup_by(|a, b| a.0 == b.0);
                // A name of its own each, that no suffix makes another's.
                let name = format!("{name}_{i}");
                let inside: Vec<String> = labels.iter().map(|(n, v)| format!("{n}=\"{}\"", escaped(v))).collect();
                text.push_str(&format!("{name}{{{}}} {value:?}\n", inside.join(",")));
                expected.push((name, labels, bits(value)));
            }
            let format = if open { Format::OpenMetrics } else { Format::Classic };
            if open {
                text.push_str("# EOF\n");
            }
            let read = read(&text, format).unwrap();
            let found: Vec<_> = read.iter().flat_map(|f| f.samples.iter().map(move |s| {
                let labels = s.labels.iter().map(|(n, v)| ((*n).to_owned(), v.to_string())).collect::<Vec<_>>();
                (f.name.to_owned(), labels, bits(s.value))
            })).collect();
            // Only one NaN is written.
            prop_assert_eq!(found, expected);
        }

        #[test]
        fn no_text_makes_it_panic(text in "[a-z_{}\"\\\\=,# 0-9\n.+-]{0,80}", open in any::<bool>()) {
            let _ = read(&text, if open { Format::OpenMetrics } else { Format::Classic });
        }
    }
}
