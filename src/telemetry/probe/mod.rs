//! A probe beside a cell, and what profilers among them found.

mod memray;
mod stacks;

use std::{borrow::Cow, collections::BTreeMap};

use serde::{Deserialize, Serialize};

use crate::moment::Moment;

/// What came of a probe in one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeRun {
    /// Which probe.
    pub name: String,
    /// The command as it was started; the first word is the program.
    pub command: Vec<String>,
    /// When it was started; `None` when it never was.
    pub started: Option<Moment>,
    /// When it ended.
    pub ended: Option<Moment>,
    /// Its exit code; `None` when a signal ended it or it never started.
    pub code: Option<i32>,
    /// Files that it left in the run's folder, relative to it, stdout and stderr among them.
    pub files: Vec<String>,
    /// What was cut or left out of them, one sentence each.
    pub notes: Vec<String>,
    /// What went wrong; `None` when nothing did.
    pub problem: Option<String>,
    /// What those of its files say that are a profiler's.
    pub profiles: Vec<Profile>,
}

/// What a profiler's file says: where time went, or memory.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    /// The file, as in [`ProbeRun::files`].
    pub file: String,
    /// What is counted.
    pub kind: ProfileKind,
    /// All that was counted.
    pub total: u64,
    /// The first of them by [`own`](Hotspot::own) and by [`total`](Hotspot::total), in no order.
    pub hotspots: Vec<Hotspot>,
    /// How many there were in all.
    pub places: u64,
    /// Lines that made no sense, and were left out.
    pub unreadable: u64,
}

/// What a profile counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProfileKind {
    /// Looks at what runs, a stack each: collapsed stacks as py-spy writes them.
    #[default]
    Stacks,
    /// Bytes allocated: memray's statistics.
    Allocations,
}

impl ProfileKind {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Stacks, Self::Allocations];
}

/// A place in a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hotspot {
    /// Function and file, as the profiler names them, without the line.
    pub place: String,
    /// Counted right there.
    pub own: u64,
    /// Counted there and in what was called from there; `None` where the profiler does not tell.
    /// A place counts once a stack, however often it is in it.
    pub total: Option<u64>,
}

/// Places of one profile that are kept by each of the two orders.
const KEPT: usize = 60;
/// A place's name is cut behind so many characters.
const NAME: usize = 200;

impl Profile {
    /// Reads a file of a known kind, told by its content and not by its name; `None` for any other.
    pub fn read(file: &str, bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let mut profile = memray::read(&text).or_else(|| stacks::read(&text))?;
        file.clone_into(&mut profile.file);
        Some(profile)
    }

    /// Out of everything that was counted, keeps the first places by either order.
    fn of(kind: ProfileKind, total: u64, places: BTreeMap<Cow<'_, str>, (u64, Option<u64>)>) -> Self {
        let mut all: Vec<_> = places.into_iter().collect();
        let places = all.len() as u64;
        // What is in front by one order stays there when the rest is sorted by the other.
        all.sort_by_key(|(_, (own, _))| std::cmp::Reverse(*own));
        let (first, rest) = all.split_at_mut(KEPT.min(places as usize));
        rest.sort_by_key(|(_, (_, total))| std::cmp::Reverse(*total));
        let kept = first.iter().chain(rest.iter().take(KEPT));
        let hotspots = kept
            .map(|(place, (own, total))| Hotspot {
                place: place.chars().map(|c| if c.is_control() { ' ' } else { c }).take(NAME).collect(),
                own: *own,
                total: *total,
            })
            .collect();
        Self { kind, total, hotspots, places, ..Self::default() }
    }

    /// Several profiles of one kind as one, such as those of all repetitions.
    pub fn sum<'a>(kind: ProfileKind, of: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut sum = Self { kind, ..Self::default() };
        let mut places: BTreeMap<&str, Hotspot> = BTreeMap::new();
        for profile in of.into_iter().filter(|p| p.kind == kind) {
            sum.total = sum.total.saturating_add(profile.total);
            sum.unreadable += profile.unreadable;
            for hotspot in &profile.hotspots {
                let place = places.entry(&hotspot.place).or_default();
                place.own = place.own.saturating_add(hotspot.own);
                place.total =
                    hotspot.total.map(|n| n.saturating_add(place.total.unwrap_or(0))).or(place.total);
            }
        }
        sum.hotspots =
            places.into_iter().map(|(place, hotspot)| Hotspot { place: place.into(), ..hotspot }).collect();
        sum.hotspots.sort_by_key(|h| (std::cmp::Reverse(h.own), std::cmp::Reverse(h.total)));
        sum.places = sum.hotspots.len() as u64;
        sum
    }

    /// The first `n` places by what was counted right there, each with its share and that of all
    /// down to it.
    pub fn first(&self, n: usize) -> Vec<(&Hotspot, f64, f64)> {
        let mut order: Vec<&Hotspot> = self.hotspots.iter().filter(|h| h.own > 0).collect();
        order.sort_by_key(|h| (std::cmp::Reverse(h.own), std::cmp::Reverse(h.total)));
        let mut so_far = 0u64;
        let rows = order.into_iter().take(n).map(|hotspot| {
            so_far = hotspot.own.saturating_add(so_far);
            (hotspot, self.share(hotspot.own), self.share(so_far))
        });
        rows.collect()
    }

    /// The first `n` places by what was counted there and below, each with its share.
    pub fn widest(&self, n: usize) -> Vec<(&Hotspot, f64)> {
        let mut order: Vec<(&Hotspot, u64)> =
            self.hotspots.iter().filter_map(|h| Some((h, h.total?))).collect();
        order.sort_by_key(|(h, total)| (std::cmp::Reverse(*total), std::cmp::Reverse(h.own)));
        order.into_iter().take(n).map(|(h, total)| (h, self.share(total))).collect()
    }

    fn share(&self, n: u64) -> f64 {
        if self.total == 0 { 0.0 } else { n as f64 / self.total as f64 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_no_profile() {
        for text in [
            "",
            "\n\n",
            "hello",
            "Samples: 120 Errors: 0\n",
            "py-spy> Sampling process 100 times a second for 3 seconds. Press Control-C to exit.\n\npy-spy> Wrote raw flamegraph data to 'stacks.txt'. Samples: 284 Errors: 0\n",
            "{\"a\": 1}",
            "<svg></svg>",
        ] {
            assert_eq!(Profile::read("f", text.as_bytes()), None, "{text}");
        }
        assert_eq!(Profile::read("f", &[0xff, 0xfe, 0, 7, 10, 0x80]), None);
    }

    #[test]
    fn a_sum_is_over_places() {
        let of = |text: &str| Profile::read("f", text.as_bytes()).unwrap();
        let (a, b) = (of("f (a.py:1);g (a.py:2) 3\nf (a.py:1) 1\n"), of("f (a.py:9);h (b.py:2) 6\n"));
        let sum = Profile::sum(ProfileKind::Stacks, [&a, &b]);
        assert_eq!(sum.total, 10);
        let first: Vec<(&str, u64, f64)> =
            sum.first(10).iter().map(|(h, _, c)| (h.place.as_str(), h.own, *c)).collect();
        assert_eq!(first, [("h (b.py)", 6, 0.6), ("g (a.py)", 3, 0.9), ("f (a.py)", 1, 1.0)]);
        let widest = sum.widest(1);
        assert_eq!((widest[0].0.place.as_str(), widest[0].1), ("f (a.py)", 1.0));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let text: String = (0..1_000).map(|i| format!("root (r.py:1);f{i} (a.py:{i}) {}\n", i + 1)).collect();
        let profile = Profile::read("f", text.as_bytes()).unwrap();
        assert_eq!((profile.places, profile.hotspots.len()), (1_001, 2 * KEPT));
        assert_eq!(profile.first(1)[0].0.place, "f999 (a.py)");
        assert_eq!(profile.widest(1)[0].0.place, "root (r.py)");
        assert_eq!(profile.total, 500_500);
    }
}
