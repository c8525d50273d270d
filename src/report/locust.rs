//! Locust's four CSV files, so that tools written for Locust read a run: its headers, its order,
//! its milliseconds, its coarse percentiles (two significant digits) and its `Aggregated` row.
//!
//! Load-phase requests of the cells that count, failed ones included as Locust includes them.
//! What differs, because a wrong number is worse than none: a history row without any request in
//! its window says `N/A` where Locust says 0, and the window ends with the row's own second
//! where Locust's ends two seconds earlier.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, VecDeque},
};

use jiff::Timestamp;

use crate::{
    histogram::Histogram,
    micros::Micros,
    record::{CellRecord, RunRecord},
    report::{figure::ms, sheet},
    series::Second,
    snapshot::{Phase, RequestStats},
    summary::ScenarioSummary,
};

const STATS: &str = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%";
const HISTORY: &str = "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%,Total Request Count,Total Failure Count,Total Median Response Time,Total Average Response Time,Total Min Response Time,Total Max Response Time,Total Average Content Size";
const FAILURES: &str = "Method,Name,Error,Occurrences,First Seen,Last Seen";
const EXCEPTIONS: &str = "Count,Message,Traceback,Nodes";

const PERCENTILES: [f64; 11] = [0.50, 0.66, 0.75, 0.80, 0.90, 0.95, 0.98, 0.99, 0.999, 0.9999, 1.0];
/// Seconds over which a history row looks back.
const WINDOW: usize = 10;

/// `_stats.csv`: an endpoint a row, by name and then method; `Aggregated` last.
pub(super) fn stats(s: &ScenarioSummary) -> Vec<u8> {
    let mut endpoints: Vec<(&str, &str, &RequestStats)> =
        s.requests.iter().map(|(k, r)| (k.name.as_str(), k.method.as_str(), r)).collect();
    endpoints.sort_by_key(|(name, method, _)| (*name, *method));
    endpoints.push(("Aggregated", "", &s.all));
    let seconds = s.duration.as_secs();
    let rate = |n: u64| {
        if seconds > 0.0 { n as f64 / seconds } else { 0.0 }
    };
    let rows = endpoints.into_iter().map(|(name, method, r)| {
        let mut entry = Entry::default();
        entry.add(&r.ok, &r.failed, r.body_bytes);
        let mut row = vec![method.to_owned(), name.to_owned()];
        row.extend(entry.totals());
        row.extend([rate(entry.requests), rate(entry.failures)].map(|v| v.to_string()));
        row.extend(entry.times.percentiles());
        row
    });
    sheet::csv(STATS, rows)
}

/// `_stats_history.csv`: a row a second for all requests together, cell after cell; percentiles
/// and rates over the last ten seconds of the cell, totals since the first cell's T0.
pub(super) fn history(run: &RunRecord, s: &ScenarioSummary) -> Vec<u8> {
    let mut total = Entry::default();
    let mut rows = Vec::new();
    for cell in s.counting(run) {
        cell_history(cell, &mut total, &mut rows);
    }
    sheet::csv(HISTORY, rows)
}

fn cell_history(cell: &CellRecord, total: &mut Entry, rows: &mut Vec<Vec<String>>) {
    let series = &cell.totals.series.0;
    let last = (cell.duration.0 / 1_000_000).max(series.keys().next_back().copied().unwrap_or(0));
    let mut window: VecDeque<Entry> = VecDeque::with_capacity(WINDOW);
    let silence = Second::default();
    for n in 0..=last {
        let second = series.get(&n).unwrap_or(&silence);
        let mut entry = Entry::default();
        entry.add(&second.ok, &second.failed, second.body_bytes);
        total.merge(&entry);
        if window.len() == WINDOW {
            window.pop_front();
        }
        window.push_back(entry);

        let mut times = Times::default();
        window.iter().for_each(|e| times.merge(&e.times));
        let rate = |of: fn(&Entry) -> u64| {
            let n: u64 = window.iter().map(of).sum();
            format!("{:.6}", n as f64 / window.len() as f64)
        };
        let mut row = vec![
            (cell.t0_unix / 1_000_000 + n).to_string(),
            cell.cell.users.to_string(),
            String::new(),
            "Aggregated".to_owned(),
            rate(|e| e.requests),
            rate(|e| e.failures),
        ];
        row.extend(times.percentiles());
        row.extend(total.totals());
        rows.push(row);
    }
}

/// `_failures.csv`: a row a kind of failure.
pub(super) fn failures(s: &ScenarioSummary) -> Vec<u8> {
    let rows = s.errors.iter().filter(|(key, _)| key.phase == Phase::Load).map(|(key, e)| {
        vec![
            key.method.clone(),
            key.name.clone(),
            key.error.clone(),
            e.count.to_string(),
            whole_second(e.first),
            whole_second(e.last),
        ]
    });
    sheet::csv(FAILURES, rows)
}

/// `_exceptions.csv`: what Locust's own user code raised. Ours is compiled in, so there is none.
pub(super) fn exceptions() -> Vec<u8> {
    sheet::csv(EXCEPTIONS, [])
}

/// `2026-10-01T12:34:56Z` of Unix microseconds.
fn whole_second(unix: u64) -> String {
    i64::try_from(unix / 1_000_000)
        .ok()
        .and_then(|s| Timestamp::from_second(s).ok())
        .map(|t| t.to_string())
        .unwrap_or_default()
}

/// What Locust keeps of some requests.
#[derive(Default)]
struct Entry {
    requests: u64,
    failures: u64,
    body_bytes: u64,
    /// All of them, for the exact figures.
    all: Exact,
    times: Times,
}

#[derive(Default)]
struct Exact {
    sum: Micros,
    min: Option<Micros>,
    max: Micros,
}

impl Entry {
    fn add(&mut self, ok: &Histogram, failed: &Histogram, body_bytes: u64) {
        self.requests += ok.count() + failed.count();
        self.failures += failed.count();
        self.body_bytes += body_bytes;
        for h in [ok, failed].into_iter().filter(|h| h.count() > 0) {
            self.all.sum += h.sum();
            self.all.min = Some(self.all.min.map_or(h.min(), |m| m.min(h.min())));
            self.all.max = self.all.max.max(h.max());
            self.times.add(h);
        }
    }

    fn merge(&mut self, other: &Self) {
        self.requests += other.requests;
        self.failures += other.failures;
        self.body_bytes += other.body_bytes;
        self.all.sum += other.all.sum;
        self.all.min = self.all.min.into_iter().chain(other.all.min).min();
        self.all.max = self.all.max.max(other.all.max);
        self.times.merge(&other.times);
    }

    /// Requests, failures, median, average, least, most, average size.
    fn totals(&self) -> [String; 7] {
        let mean = Micros(self.all.sum.0.checked_div(self.requests).unwrap_or(0));
        let size = if self.requests == 0 { 0.0 } else { self.body_bytes as f64 / self.requests as f64 };
        [
            self.requests.to_string(),
            self.failures.to_string(),
            self.median(),
            ms(mean),
            ms(self.all.min.unwrap_or_default()),
            ms(self.all.max),
            size.to_string(),
        ]
    }

    /// Locust's median: of rounded times, but never outside the exact least and most.
    fn median(&self) -> String {
        let Some(min) = self.all.min else {
            return "0".into();
        };
        let median = self.times.at((self.requests - 1) / 2);
        match Micros(median * 1000) {
            m if m > self.all.max => ms(self.all.max),
            m if m < min => ms(min),
            _ => median.to_string(),
        }
    }
}

/// Response times rounded as Locust rounds them, in milliseconds → how many.
#[derive(Default)]
struct Times(BTreeMap<u64, u64>);

impl Times {
    fn add(&mut self, h: &Histogram) {
        // Buckets rise, so those that are rounded to one time follow each other.
        let (mut time, mut seen) = (0, 0);
        for (upper, n) in h.iter() {
            let next = rounded(upper.clamp(h.min(), h.max()));
            if next != time && seen > 0 {
                *self.0.entry(time).or_default() += seen;
                seen = 0;
            }
            time = next;
            seen += n;
        }
        if seen > 0 {
            *self.0.entry(time).or_default() += seen;
        }
    }

    fn merge(&mut self, other: &Self) {
        for (&time, n) in &other.0 {
            *self.0.entry(time).or_default() += n;
        }
    }

    /// The time at that rank, from 0.
    fn at(&self, mut rank: u64) -> u64 {
        for (&time, &n) in &self.0 {
            if rank < n {
                return time;
            }
            rank -= n;
        }
        self.0.keys().next_back().copied().unwrap_or(0)
    }

    fn percentiles(&self) -> Vec<String> {
        let n: u64 = self.0.values().sum();
        if n == 0 {
            return vec!["N/A".to_owned(); PERCENTILES.len()];
        }
        // Locust walks down from the longest until no more than ⌊n·q⌋ are left, which is the
        // time at that rank counted from 0.
        let rank = |q: f64| ((n as f64 * q) as u64).min(n - 1);
        PERCENTILES.map(|q| self.at(rank(q)).to_string()).to_vec()
    }
}

/// Whole milliseconds below 100, then two significant digits: 147 → 150, 3432 → 3400.
fn rounded(time: Micros) -> u64 {
    let unit = match time.0 {
        0..100_000 => 1,
        100_000..1_000_000 => 10,
        1_000_000..10_000_000 => 100,
        _ => 1_000,
    };
    let (whole, rest) = (time.0 / (unit * 1_000), time.0 % (unit * 1_000));
    // Python rounds halves to even.
    let up = match (rest * 2).cmp(&(unit * 1_000)) {
        Ordering::Less => 0,
        Ordering::Equal => whole % 2,
        Ordering::Greater => 1,
    };
    (whole + up) * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn headers_are_locusts_byte_for_byte() {
        let run = sample::mixed();
        let paper = Paper::of(&run);
        let s = &paper.scenarios[0];
        let head = |bytes: Vec<u8>| {
            let text = String::from_utf8(bytes).unwrap();
            text.split_once('\n').unwrap().0.to_owned()
        };
        assert_eq!(
            head(stats(s)),
            "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Min Response Time,Max Response Time,Average Content Size,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%"
        );
        assert_eq!(
            head(history(&run, s)),
            "Timestamp,User Count,Type,Name,Requests/s,Failures/s,50%,66%,75%,80%,90%,95%,98%,99%,99.9%,99.99%,100%,Total Request Count,Total Failure Count,Total Median Response Time,Total Average Response Time,Total Min Response Time,Total Max Response Time,Total Average Content Size"
        );
        assert_eq!(head(failures(s)), "Method,Name,Error,Occurrences,First Seen,Last Seen");
        assert_eq!(exceptions(), b"Count,Message,Traceback,Nodes\n");
    }

    #[test]
    fn endpoints_add_up_to_the_aggregated_row() {
        let run = sample::mixed();
        for s in &Paper::of(&run).scenarios {
            let rows = sample::rows(&stats(s));
            let (total, endpoints) = rows.split_last().unwrap();
            assert_eq!((&total[0], &total[1]), ("", "Aggregated"));
            assert_eq!(endpoints.len(), s.requests.len());
            for column in [2, 3] {
                let sum: u64 = endpoints.iter().map(|r| r[column].parse::<u64>().unwrap()).sum();
                assert_eq!(sum, total[column].parse::<u64>().unwrap());
            }
            let names: Vec<(String, String)> = endpoints.iter().map(|r| (r[1].into(), r[0].into())).collect();
            assert!(names.is_sorted(), "{names:?}");
        }
    }

    #[test]
    fn the_last_history_row_has_the_totals_of_the_stats() {
        let run = sample::mixed();
        for s in &Paper::of(&run).scenarios {
            let (stats, history) = (sample::rows(&stats(s)), sample::rows(&history(&run, s)));
            let (total, last) = (stats.last().unwrap(), history.last().unwrap());
            let totals: Vec<&str> = total.iter().skip(2).take(7).collect();
            assert_eq!(last.iter().skip(17).collect::<Vec<_>>(), totals);
            let seconds: u64 = s.counting(&run).iter().map(|c| c.duration.0 / 1_000_000 + 1).sum();
            assert!(history.len() as u64 >= seconds);
        }
    }

    #[test]
    fn failures_have_first_and_last_seen() {
        let run = sample::mixed();
        let rows = sample::rows(&failures(&Paper::of(&run).scenarios[1]));
        assert!(!rows.is_empty());
        assert!(rows.iter().all(|r| r[4].ends_with('Z') && r[4].len() == 20), "{rows:?}");
    }

    #[test]
    fn times_are_rounded_as_locust_rounds() {
        let cases = [
            (400, 0),
            (500, 0),
            (1_500, 2),
            (99_400, 99),
            (147_000, 150),
            (145_000, 140),
            (3_432_000, 3_400),
            (58_760_000, 59_000),
        ];
        for (us, ms) in cases {
            assert_eq!(rounded(Micros(us)), ms, "{us} µs");
        }
    }

    /// Figures worked out by Locust's own rules: ranks ⌊n·q⌋ from 0, the lower middle as median.
    #[test]
    fn percentiles_have_locusts_ranks() {
        let mut times = Times::default();
        let mut h = Histogram::default();
        (1..=10).for_each(|ms| h.record(Micros(ms * 1_000)));
        times.add(&h);
        assert_eq!(times.percentiles(), ["6", "7", "8", "9", "10", "10", "10", "10", "10", "10", "10"]);
        let mut entry = Entry::default();
        entry.add(&h, &Histogram::default(), 0);
        assert_eq!(entry.median(), "5");
        assert_eq!(Times::default().percentiles(), ["N/A"; 11]);
    }
}
