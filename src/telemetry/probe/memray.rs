//! Memray's statistics: what `memray stats` prints, with and without `--json`.
//!
//! The text has figures rounded to three decimals of their unit, so sums of it are rounded too;
//! the JSON is exact.

use std::{borrow::Cow, collections::BTreeMap};

use serde::Deserialize;

use super::{Profile, ProfileKind};

/// Reads them; `None` when the text is something else.
pub(super) fn read(text: &str) -> Option<Profile> {
    json(text).or_else(|| printed(text))
}

#[derive(Deserialize)]
struct Stats {
    total_bytes_allocated: u64,
    top_allocations_by_size: Vec<Top>,
}

#[derive(Deserialize)]
struct Top {
    location: String,
    size: u64,
}

fn json(text: &str) -> Option<Profile> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let stats: Stats = serde_json::from_str(text).ok()?;
    let tops = stats.top_allocations_by_size.iter().map(|top| (place(&top.location), top.size));
    Some(profile(stats.total_bytes_allocated, tops, 0))
}

const TOTAL: &str = "Total memory allocated:";
const BY_SIZE: &str = "largest allocating locations (by size):";

fn printed(text: &str) -> Option<Profile> {
    let mut lines = text.lines();
    lines.find(|line| line.trim_end().ends_with(TOTAL))?;
    let total = bytes(lines.next()?.trim())?;
    lines.find(|line| line.trim_end().ends_with(BY_SIZE))?;
    let (mut tops, mut unreadable) = (Vec::new(), 0);
    for line in lines.map(str::trim).take_while(|line| !line.is_empty()) {
        let top = line.strip_prefix("- ").and_then(|line| line.rsplit_once(" -> "));
        match top.and_then(|(at, size)| Some((place(at), bytes(size)?))) {
            Some(top) => tops.push(top),
            None => unreadable += 1,
        }
    }
    Some(profile(total, tops, unreadable))
}

fn profile<'a>(total: u64, tops: impl IntoIterator<Item = (Cow<'a, str>, u64)>, unreadable: u64) -> Profile {
    let mut places: BTreeMap<Cow<'_, str>, (u64, Option<u64>)> = BTreeMap::new();
    for (place, size) in tops {
        let own = &mut places.entry(place).or_default().0;
        *own = own.saturating_add(size);
    }
    Profile { unreadable, ..Profile::of(ProfileKind::Allocations, total, places) }
}

/// `function:/path/file.py:12` in the shape of the other profiles: `function (/path/file.py)`.
fn place(location: &str) -> Cow<'_, str> {
    let split = || {
        let (rest, line) = location.rsplit_once(':')?;
        let (name, file) = rest.split_once(':')?;
        let is_line = !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit());
        (is_line && !name.is_empty() && !file.is_empty()).then(|| format!("{name} ({file})"))
    };
    split().map_or(Cow::Borrowed(location), Cow::Owned)
}

/// `100.019MB`: memray counts in powers of 1000, whatever the number.
fn bytes(text: &str) -> Option<u64> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let value: f64 = text[..unit].parse().ok().filter(|v: &f64| (0.0..1e6).contains(v))?;
    let scale = match &text[unit..] {
        "B" => 1.0,
        "kB" | "KB" => 1e3,
        "MB" => 1e6,
        "GB" => 1e9,
        "TB" => 1e12,
        _ => return None,
    };
    Some((value * scale).round() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As memray 1.20 printed it.
    const PRINTED: &str = "📏 Total allocations:\n\t113\n\n📦 Total memory allocated:\n\t100.019MB\n\n📈 Peak memory usage:\n\t40.019MB\n\n🥇 Top 5 largest allocating locations (by size):\n\t- <listcomp>:/srv/worker.py:9 -> 100.000MB\n\t- <stack trace unavailable> -> 16.416kB\n\t- __init__:/usr/lib/python3.11/threading.py:265 -> 1.056kB\n\t- wait:/usr/lib/python3.11/threading.py:629 -> 670.000B\n\n🥇 Top 5 largest allocating locations (by number of allocations):\n\t- <listcomp>:/srv/worker.py:9 -> 100\n";

    const JSON: &str = r#"{"total_num_allocations": 113, "total_bytes_allocated": 100019324, "top_allocations_by_size": [
        {"location": "<listcomp>:/srv/worker.py:9", "size": 100000100}, {"location": "<listcomp>:/srv/worker.py:10", "size": 5},
        {"location": "<stack trace unavailable>", "size": 16416}], "metadata": {"peak_memory": 40019324}}"#;

    #[test]
    fn what_it_prints_is_read() {
        let profile = read(PRINTED).unwrap();
        assert_eq!(
            (profile.kind, profile.total, profile.unreadable),
            (ProfileKind::Allocations, 100_019_000, 0)
        );
        let first = profile.first(2);
        assert_eq!((first[0].0.place.as_str(), first[0].0.own), ("<listcomp> (/srv/worker.py)", 100_000_000));
        assert_eq!((first[1].0.place.as_str(), first[1].0.own), ("<stack trace unavailable>", 16_416));
        assert!(profile.widest(3).is_empty(), "memray's statistics have no totals of what is called");
    }

    #[test]
    fn its_json_is_exact() {
        let profile = read(JSON).unwrap();
        assert_eq!(profile.total, 100_019_324);
        assert_eq!(profile.first(1)[0].0.own, 100_000_105, "two lines of one function");
    }

    #[test]
    fn what_was_cut_or_changed_is_no_error() {
        assert_eq!(read(&JSON[..200]), None);
        assert_eq!(read(&PRINTED[..60]), None);
        let odd = PRINTED.replace("-> 16.416kB", "-> 16 parsec");
        assert_eq!(read(&odd).unwrap().unreadable, 1);
        assert_eq!(["1e300B", "-1B", "NaNMB", "12", "7 XB"].map(bytes), [None; 5]);
    }
}
