//! Takes one scrape after the other in and keeps of each what is worth a place in the run's record.
//!
//! What is kept is bounded: [`MOST_SERIES`] series an endpoint, those of interest before others, and
//! of each only its changes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{
    FigureSeries, Gap, HistogramSeries, LeftOut, MOST_BUCKETS, MOST_SERIES, ScrapeSeries, is_of_interest,
    text::{Family, Format, Kind, Part, Sample},
};
use crate::{estimate::Buckets, moment::Moment};

/// How many names of what is left out are told.
const NAMES: usize = 10;

/// What has been kept of a cell so far.
#[derive(Debug, Default)]
pub struct Keeper {
    series: ScrapeSeries,
    /// Places in `series.figures`.
    figures: HashMap<String, usize>,
    histograms: HashMap<String, Known>,
    left_out: BTreeSet<String>,
    /// Why there has been nothing since the last scrape that succeeded.
    silent: Option<String>,
    opened: bool,
}

/// A histogram, and what the scrape before said.
#[derive(Debug)]
struct Known {
    place: usize,
    before: Buckets,
}

/// The samples of one histogram in one scrape.
#[derive(Default)]
struct Raw {
    labels: BTreeMap<String, String>,
    buckets: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

impl Keeper {
    /// Takes a scrape in. Moments are of any clock, the same for all.
    pub fn take(&mut self, at: Moment, format: Format, families: &[Family<'_>], bytes: usize) {
        let index = u32::try_from(self.series.at.len()).unwrap_or(u32::MAX);
        self.end_gap(at);
        if index == 0 {
            self.opened = self.series.gaps.is_empty();
        }
        self.series.at.push(at);
        self.series.format = format;
        self.series.bytes += bytes as u64;
        let mut over = 0;
        let mut told = vec![false; self.series.figures.len()];
        // Those of interest first, should there not be room for all.
        let (first, second): (Vec<_>, Vec<_>) = families.iter().partition(|f| is_of_interest(f.name));
        for family in first.into_iter().chain(second) {
            over += match family.kind {
                Kind::Histogram => self.histograms(index, family),
                _ => self.figures(index, family, &mut told),
            };
        }
        for (figure, _) in self.series.figures.iter_mut().zip(told).filter(|(_, told)| !told) {
            note(figure, index, None);
        }
        self.series.left_out.series = self.series.left_out.series.max(over);
    }

    /// Takes in that a scrape failed.
    pub fn miss(&mut self, opened: Moment, why: String) {
        if self.silent.is_none() {
            let from = self.series.at.last().copied().unwrap_or(opened);
            self.series.gaps.push(Gap { from, to: from, why: why.clone() });
            self.silent = Some(why);
        }
    }

    fn end_gap(&mut self, at: Moment) {
        if let (Some(_), Some(gap)) = (self.silent.take(), self.series.gaps.last_mut()) {
            gap.to = at;
        }
    }

    /// What was kept, all moments moved by so many microseconds. `closed` is when the cell was.
    pub fn finish(mut self, closed: Moment, shift: i64) -> ScrapeSeries {
        let is_closed = self.silent.is_none() && !self.series.at.is_empty();
        self.end_gap(closed);
        let mut series = self.series;
        series.is_whole = self.opened && is_closed;
        let move_it = |m: &mut Moment| m.0 = m.0.saturating_add(shift);
        series.at.iter_mut().for_each(move_it);
        series.gaps.iter_mut().for_each(|gap| {
            move_it(&mut gap.from);
            move_it(&mut gap.to);
        });
        series.left_out = LeftOut { names: self.left_out.into_iter().collect(), ..series.left_out };
        series.figures.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        series.histograms.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        series
    }

    fn is_full(&self) -> bool {
        self.figures.len() + self.histograms.len() >= MOST_SERIES
    }

    fn leave_out(&mut self, what: String) {
        if self.left_out.len() < NAMES {
            self.left_out.insert(what);
        }
    }

    /// Counters, gauges and what can be drawn as such. Returns how many there was no room for.
    fn figures(&mut self, index: u32, family: &Family<'_>, told: &mut Vec<bool>) -> u64 {
        let mut over = 0;
        for sample in &family.samples {
            let (suffix, is_counter) = match (family.kind, sample.part) {
                (_, Part::Created) | (Kind::GaugeHistogram, Part::Bucket) => continue,
                (kind, Part::Itself) => ("", kind == Kind::Counter),
                (_, Part::Total) => ("_total", true),
                (_, Part::Count) => ("_count", true),
                (_, Part::Sum) => ("_sum", true),
                (_, Part::GaugeCount) => ("_gcount", false),
                (_, Part::GaugeSum) => ("_gsum", false),
                (_, Part::Info) => ("_info", false),
                (_, Part::Bucket) => ("_bucket", false),
            };
            let key = identity(family.name, suffix, sample, None);
            let place = match self.figures.get(&key) {
                Some(&place) => place,
                None if self.is_full() => {
                    over += 1;
                    self.leave_out(format!("{}{suffix}", family.name));
                    continue;
                }
                None => {
                    let place = self.series.figures.len();
                    let name = format!("{}{suffix}", family.name);
                    let labels = labels_of(sample, None);
                    self.series.figures.push(FigureSeries { name, labels, is_counter, changes: Vec::new() });
                    self.figures.insert(key, place);
                    told.push(false);
                    place
                }
            };
            told[place] = true;
            note(&mut self.series.figures[place], index, Some(sample.value).filter(|v| v.is_finite()));
        }
        over
    }

    fn histograms(&mut self, index: u32, family: &Family<'_>) -> u64 {
        let mut raw: BTreeMap<String, Raw> = BTreeMap::new();
        for sample in &family.samples {
            let one = raw
                .entry(identity(family.name, "", sample, Some("le")))
                .or_insert_with(|| Raw { labels: labels_of(sample, Some("le")), ..Raw::default() });
            match sample.part {
                Part::Bucket => {
                    let le = sample.label("le").and_then(|le| le.parse().ok()).unwrap_or(f64::NAN);
                    one.buckets.push((le, sample.value));
                }
                Part::Sum => one.sum = Some(sample.value),
                Part::Count => one.count = Some(sample.value),
                _ => {}
            }
        }
        let mut over = 0;
        for (key, Raw { labels, buckets, sum, count }) in raw {
            if buckets.len() > MOST_BUCKETS {
                self.leave_out(format!("{}: more than {MOST_BUCKETS} buckets", family.name));
                continue;
            }
            let now = match Buckets::of_cumulative(buckets, sum) {
                Ok(now) if count.is_none_or(|n| n == now.count() as f64) => now,
                Ok(_) => {
                    self.leave_out(format!("{}: _count is not what its buckets hold", family.name));
                    continue;
                }
                Err(why) => {
                    self.leave_out(format!("{}: {why}", family.name));
                    continue;
                }
            };
            if let Some(known) = self.histograms.get_mut(&key) {
                grow(&mut self.series.histograms[known.place], index, known, now);
                continue;
            }
            if self.is_full() {
                over += 1;
                self.leave_out(family.name.to_owned());
                continue;
            }
            let growth = now.cleared();
            let mut known = Known { place: self.series.histograms.len(), before: growth.clone() };
            let name = family.name.to_owned();
            let mut series = HistogramSeries { name, labels, growth, resets: 0, counts: Vec::new() };
            if index == 0 {
                // What was counted before the cell is none of its own.
                known.before = now;
            } else {
                // It was not there in the scrape before, so it began at zero.
                grow(&mut series, index, &mut known, now);
            }
            self.series.histograms.push(series);
            self.histograms.insert(key, known);
        }
        over
    }
}

/// Adds what a histogram counted since the scrape before.
fn grow(series: &mut HistogramSeries, index: u32, known: &mut Known, now: Buckets) {
    let grown = match now.since(&known.before) {
        Some(grown) => grown,
        None => {
            // A new start of the target: it counted all it has since then.
            series.resets += 1;
            now.clone()
        }
    };
    series.growth.merge(&grown);
    known.before = now;
    if grown.count() > 0 {
        series.counts.push((index, series.growth.count(), series.growth.sum()));
    }
}

fn note(figure: &mut FigureSeries, index: u32, value: Option<f64>) {
    match figure.changes.last_mut() {
        Some((_, last)) if *last == value => {}
        // Of several moments in one answer the last one counts.
        Some((at, last)) if *at == index => *last = value,
        None if value.is_none() => {}
        _ => figure.changes.push((index, value)),
    }
}

fn labels_of(sample: &Sample<'_>, but: Option<&str>) -> BTreeMap<String, String> {
    let others = sample.labels.iter().filter(|(n, _)| Some(*n) != but);
    others.map(|(n, v)| ((*n).to_owned(), v.to_string())).collect()
}

/// A text that only this series has.
fn identity(name: &str, suffix: &str, sample: &Sample<'_>, but: Option<&str>) -> String {
    let mut labels: Vec<_> = sample.labels.iter().filter(|(n, _)| Some(*n) != but).collect();
    labels.sort_unstable();
    let mut key = format!("{name}{suffix}");
    for (n, v) in labels {
        // 0xff is in no UTF-8 text; \0 in no label's name.
        key.push('\0');
        key.push_str(n);
        key.push('\0');
        key.push_str(&v.len().to_string());
        key.push('\0');
        key.push_str(v);
    }
    key
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Unit, text::read},
        *,
    };

    const S: i64 = 1_000_000;

    fn of(scrapes: &[Option<&str>]) -> ScrapeSeries {
        let mut keeper = Keeper::default();
        for (i, scrape) in scrapes.iter().enumerate() {
            let at = Moment(i as i64 * S);
            match scrape {
                Some(text) => {
                    let families = read(text, Format::Classic).unwrap();
                    keeper.take(at, Format::Classic, &families, text.len());
                }
                None => keeper.miss(Moment(0), "gone".into()),
            }
        }
        keeper.finish(Moment(scrapes.len() as i64 * S), -S)
    }

    fn counter(n: u32) -> String {
        format!("# TYPE a counter\na {n}\n")
    }

    fn histogram(low: u32, all: u32, sum: f64) -> String {
        format!(
            "# TYPE h histogram\nh_bucket{{s=\"x\",le=\"1\"}} {low}\nh_bucket{{s=\"x\",le=\"+Inf\"}} {all}\nh_sum{{s=\"x\"}} {sum}\nh_count{{s=\"x\"}} {all}\n"
        )
    }

    #[test]
    fn a_new_start_makes_no_negative_rate() {
        let texts = [10, 14, 3, 3].map(counter);
        let series = of(&texts.each_ref().map(|t| Some(t.as_str())));
        let rates: Vec<f64> = series.figures[0].points(&series.at).iter().map(|p| p.1).collect();
        assert_eq!(rates, [4.0, 3.0, 0.0]);
        assert_eq!(series.figures[0].changes.len(), 3, "only changes are kept");
        assert_eq!(series.at[0], Moment(-S));
        assert_eq!(series.lines("u")[0].unit, Unit::PerSecond);
    }

    #[test]
    fn a_gap_has_both_ends_and_its_reason_and_spoils_no_growth() {
        let texts = [histogram(1, 2, 5.0), histogram(3, 5, 9.0)];
        let series = of(&[Some(&texts[0]), None, None, Some(&texts[1])]);
        assert_eq!(series.gaps, [Gap { from: Moment(-S), to: Moment(2 * S), why: "gone".into() }]);
        let h = &series.histograms[0];
        assert_eq!((h.growth.count(), h.growth.sum(), h.growth.beyond()), (3, Some(4.0), 1));
        assert!(series.is_whole);
        let open = of(&[None, Some(&texts[0]), Some(&texts[1])]);
        assert!(!open.is_whole && open.gaps[0].to == Moment(0));
        let shut = of(&[Some(&texts[0]), None]);
        assert!(!shut.is_whole && shut.gaps[0].to == Moment(S));
        assert!(!of(&[None, None]).is_whole);
    }

    #[test]
    fn growth_over_a_new_start_counts_from_zero_and_says_so() {
        let texts = [histogram(5, 9, 20.0), histogram(6, 11, 25.0), histogram(1, 1, 0.5)];
        let series = of(&texts.each_ref().map(|t| Some(t.as_str())));
        let h = &series.histograms[0];
        assert_eq!((h.resets, h.growth.count(), h.growth.sum()), (1, 3, Some(5.5)));
        assert_eq!(h.counts, [(1, 2, Some(5.0)), (2, 3, Some(5.5))]);
        assert_eq!(h.labels, [("s".to_owned(), "x".to_owned())].into());
    }

    #[test]
    fn a_histogram_that_comes_later_began_at_zero() {
        let late = histogram(2, 2, 1.0);
        let series = of(&[Some("a 1\n"), Some(&late)]);
        assert_eq!(series.histograms[0].growth.count(), 2);
        assert_eq!(series.figures[0].changes, [(0, Some(1.0)), (1, None)]);
    }

    #[test]
    fn what_is_too_much_is_left_out_and_named_and_what_matters_is_kept() {
        let mut text: String = (0..600).map(|i| format!("noise{{i=\"{i}\"}} {i}\n")).collect();
        text.push_str("yaptide_users 3\n");
        text.push_str("# TYPE bad histogram\nbad_bucket{le=\"1\"} 1\n");
        let series = of(&[Some(&text), Some(&text)]);
        assert_eq!(series.figures.len(), MOST_SERIES);
        assert!(series.figures.iter().any(|f| f.name == "yaptide_users"));
        assert_eq!(series.left_out.series, 101);
        assert_eq!(series.left_out.names, ["bad: no bucket le=\"+Inf\"", "noise"]);
        assert_eq!(series.lines("u").len(), 1, "only what is of interest is drawn");
        let text = serde_json::to_string(&series).unwrap();
        assert_eq!(serde_json::from_str::<ScrapeSeries>(&text).unwrap(), series);
    }
}
