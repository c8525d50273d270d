//! Collapsed stacks: a line a stack, `outer;inner;innermost 42`, as `py-spy record --format raw`
//! writes them (and many other profilers do).

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashSet},
};

use super::{Profile, ProfileKind};

/// A stack deeper than this is cut at its outer end.
const DEEPEST: usize = 1_000;

/// Reads them; `None` when the text is something else.
pub(super) fn read(text: &str) -> Option<Profile> {
    let mut places: BTreeMap<Cow<'_, str>, (u64, Option<u64>)> = BTreeMap::new();
    let (mut total, mut readable, mut unreadable, mut looks_right) = (0u64, 0u64, 0u64, 0u64);
    for line in text.lines().filter(|line| !line.trim().is_empty()) {
        let Some((stack, count)) = parse(line) else {
            unreadable += 1;
            continue;
        };
        readable += 1;
        // py-spy has a line of a process or thread alone, where it saw no frame.
        looks_right += u64::from(stack.contains(';') || function(stack).is_some() || is_root(stack));
        total = total.saturating_add(count);
        let frames: Vec<&str> = stack.rsplit(';').filter(|f| !is_root(f)).take(DEEPEST).collect();
        let mut seen = HashSet::new();
        for (i, frame) in frames.iter().enumerate() {
            let place = function(frame).unwrap_or(Cow::Borrowed(*frame));
            if seen.insert(place.clone()) {
                let (own, all) = places.entry(place).or_default();
                *all = Some(all.unwrap_or(0).saturating_add(count));
                *own = own.saturating_add(if i == 0 { count } else { 0 });
            }
        }
    }
    // Any text may have a line or two that end in a number.
    if looks_right == 0 || looks_right < readable || readable < unreadable {
        return None;
    }
    Some(Profile { unreadable, ..Profile::of(ProfileKind::Stacks, total, places) })
}

/// The stack and its count.
fn parse(line: &str) -> Option<(&str, u64)> {
    let (stack, count) = line.trim_end().rsplit_once(' ')?;
    let is_number = !count.is_empty() && count.bytes().all(|b| b.is_ascii_digit());
    let count = is_number.then(|| count.parse().ok())??;
    (!stack.trim().is_empty()).then_some((stack, count))
}

/// What stands before the first frame: the process, and the thread.
fn is_root(frame: &str) -> bool {
    let is =
        |word: &str, next: fn(char) -> bool| frame.strip_prefix(word).is_some_and(|r| r.starts_with(next));
    is("process ", |c| c.is_ascii_digit())
        || is("thread (", |_| true)
        || is("thread ", |c| c.is_ascii_digit())
}

/// `name (file.py:12)` without the line, as a function is hot and not a line; `None` for a frame
/// of another shape.
fn function(frame: &str) -> Option<Cow<'_, str>> {
    let (name, place) = frame.strip_suffix(')')?.rsplit_once(" (")?;
    let file = match place.rsplit_once(':') {
        Some((file, line)) if !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) => file,
        _ => place,
    };
    (!name.is_empty() && !file.is_empty()).then(|| Cow::Owned(format!("{name} ({file})")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As py-spy 0.4 wrote it of a process and its forked child.
    const REAL: &str = "process 1867:\"python worker.py\";process 1869:\"python worker.py\";<module> (worker.py:18);child (worker.py:14);merge_average (worker.py:5) 74\nprocess 1867:\"python worker.py\";process 1869:\"python worker.py\";<module> (worker.py:18);child (worker.py:13);allocate_pages (worker.py:9);allocate_pages.<locals>.<listcomp> (worker.py:9) 4\nprocess 1867:\"python worker.py\";process 1869:\"python worker.py\";<module> (worker.py:18);child (worker.py:14);merge_average (worker.py:6) 69\n";

    #[test]
    fn a_process_without_a_frame_is_no_reason_to_refuse_the_file() {
        let profile = read(&format!("{REAL}process 5428:\"celery -A worker\" 4\n")).unwrap();
        assert_eq!((profile.total, profile.unreadable, profile.places), (151, 0, 5));
    }

    #[test]
    fn functions_are_counted_over_lines_and_processes() {
        let profile = read(REAL).unwrap();
        assert_eq!((profile.total, profile.unreadable, profile.places), (147, 0, 5));
        let of = |place: &str| {
            let found = profile.hotspots.iter().find(|h| h.place == place).unwrap();
            (found.own, found.total)
        };
        assert_eq!(of("merge_average (worker.py)"), (143, Some(143)));
        assert_eq!(of("child (worker.py)"), (0, Some(147)));
        assert_eq!(of("allocate_pages.<locals>.<listcomp> (worker.py)"), (4, Some(4)));
    }

    #[test]
    fn a_function_that_calls_itself_counts_once_a_stack() {
        let profile = read("f (a.py:1);f (a.py:2);f (a.py:1) 5\n").unwrap();
        assert_eq!(profile.hotspots[0].total, Some(5));
        assert_eq!(profile.hotspots[0].own, 5);
    }

    #[test]
    fn a_file_that_was_cut_is_read_as_far_as_it_goes() {
        let cut = format!("{REAL}process 1867:\"python wor");
        let profile = read(&cut).unwrap();
        assert_eq!((profile.total, profile.unreadable), (147, 1));
        assert_eq!(read("a;b 18446744073709551615\na;c 7\n").unwrap().total, u64::MAX);
        assert_eq!(read("a;b 99999999999999999999999\n"), None);
    }

    #[test]
    fn frames_of_other_profilers_are_taken_as_they_are() {
        let profile = read("main;foo::bar<baz, qux>;libc.so.6`memcpy 3\n").unwrap();
        assert_eq!(profile.first(1)[0].0.place, "libc.so.6`memcpy");
    }
}
