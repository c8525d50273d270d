//! Which stored results there are, and which of them are new: the book that a scan of the keys
//! fills, pass after pass. No sockets here.

use std::collections::HashMap;

use sha2::{Digest, Sha256};

use crate::telemetry::redis::ResultSizes;

/// The first bytes of a stored result tell what it is; so many are read.
pub(super) const HEAD: usize = 200;

/// A pass may take this many batches in one second, so that a large key space is walked through
/// over several and never holds Redis up.
pub(super) const BATCHES_A_SECOND: usize = 10;

/// Every stored result that is known, as 16 bytes of its hash: 10⁵ of them are some 4 MB.
#[derive(Debug, Default)]
pub(super) struct KeyBook {
    /// The pass in which each was last seen.
    known: HashMap<u128, u32>,
    pass: u32,
    cursor: u64,
    /// Whether everything that was there before the cell is known, so that what is new is of it.
    is_told_apart: bool,
    sizes: ResultSizes,
}

/// What a stored value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stored {
    /// The result of one task: an object that begins with `estimators`.
    Task,
    /// The results of many tasks: a list.
    Aggregate,
    /// Anything else that is final.
    Other,
    /// A task that goes on: what it stores in the end is still to come.
    Unfinished,
}

impl KeyBook {
    /// Where the scan goes on.
    pub(super) fn cursor(&self) -> u64 {
        self.cursor
    }

    /// How many there are, as far as the last passes tell.
    pub(super) fn count(&self) -> u64 {
        self.known.len() as u64
    }

    /// Begins a pass from the start.
    pub(super) fn begin_pass(&mut self) {
        self.pass += 1;
        self.cursor = 0;
    }

    /// A cell is about to begin: until a whole pass is done, whatever is found is of before.
    pub(super) fn begin_cell(&mut self) {
        self.begin_pass();
        self.is_told_apart = false;
        self.sizes = ResultSizes::default();
    }

    /// Whether what is new is of the cell.
    pub(super) fn is_told_apart(&self) -> bool {
        self.is_told_apart
    }

    /// Takes a batch of keys in, and where the scan goes on. What is returned is to be looked at
    /// and [`sized`](Self::sized): keys that the cell stored.
    pub(super) fn batch(&mut self, next: u64, keys: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
        let mut new = Vec::new();
        for key in keys {
            let hash = hash(&key);
            match self.known.get_mut(&hash) {
                Some(seen) => *seen = self.pass,
                None if self.is_told_apart => new.push(key),
                None => {
                    self.known.insert(hash, self.pass);
                }
            }
        }
        self.cursor = next;
        new
    }

    /// Whether the pass is through, after the batch that led back to the start; forgets what it
    /// did not come by, which is gone: `SCAN` returns whatever is there from its start to its end.
    pub(super) fn end_pass(&mut self) -> bool {
        if self.cursor != 0 {
            return false;
        }
        let pass = self.pass;
        self.known.retain(|_, seen| *seen == pass);
        self.is_told_apart = true;
        true
    }

    /// Takes down what a key of the cell holds.
    pub(super) fn sized(&mut self, key: &[u8], bytes: u64, head: &[u8]) {
        if bytes == 0 {
            // Deleted between the two looks.
            self.sizes.is_partial = true;
            return;
        }
        let sizes = match stored(head) {
            Stored::Unfinished => return,
            Stored::Task => &mut self.sizes.bytes,
            Stored::Aggregate => &mut self.sizes.aggregates,
            Stored::Other => &mut self.sizes.others,
        };
        // Found twice in a batch, which SCAN may do.
        if self.known.insert(hash(key), self.pass).is_none() {
            sizes.push(bytes);
        }
    }

    /// There may be more than was found.
    pub(super) fn is_partial(&mut self) {
        self.sizes.is_partial = true;
    }

    /// The sizes of the cell, which is over.
    pub(super) fn take_sizes(&mut self) -> ResultSizes {
        self.is_told_apart = false;
        std::mem::take(&mut self.sizes)
    }
}

fn hash(key: &[u8]) -> u128 {
    let digest = Sha256::digest(key);
    u128::from_le_bytes(digest[..16].try_into().expect("a digest has 32 bytes"))
}

/// What a value is that begins with `head`. Celery writes its JSON in the order `status`, `result`;
/// what is written in another way (pickle, compression) is none of the known ones.
pub(super) fn stored(head: &[u8]) -> Stored {
    let text = String::from_utf8_lossy(head);
    let status = behind(&text, "status").and_then(|rest| rest.strip_prefix('"')?.split('"').next());
    match status {
        Some("SUCCESS") => {}
        // Custom states are set while a task goes on.
        Some(status) if !matches!(status, "FAILURE" | "REVOKED") => return Stored::Unfinished,
        _ => return Stored::Other,
    }
    let Some(result) = behind(&text, "result") else { return Stored::Other };
    let inner = result.strip_prefix('{').map(str::trim_start);
    match inner {
        Some(inner) if inner.starts_with("\"estimators\"") => Stored::Task,
        None if result.starts_with('[') => Stored::Aggregate,
        _ => Stored::Other,
    }
}

/// What follows the first `"name":`.
fn behind<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("\"{name}\""))?;
    Some(rest.trim_start().strip_prefix(':')?.trim_start())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case(r#"{"status": "SUCCESS", "result": {"estimators": [{"na"#, Stored::Task)]
    #[case(r#"{"status":"SUCCESS","result":{"estimators":[]}}"#, Stored::Task)]
    #[case(r#"{"status": "SUCCESS", "result": [{"estimators": "#, Stored::Aggregate)]
    #[case(r#"{"status": "SUCCESS", "result": {}, "traceback""#, Stored::Other)]
    #[case(r#"{"status": "SUCCESS", "result": null, "trace"#, Stored::Other)]
    #[case(r#"{"status": "FAILURE", "result": {"exc_type": "#, Stored::Other)]
    #[case(r#"{"status": "STARTED", "result": {"pid": 7, "#, Stored::Unfinished)]
    #[case(r#"{"status": "PROGRESS", "result": {"estimators"#, Stored::Unfinished)]
    #[case("\u{80}\u{5}pickle", Stored::Other)]
    #[case("", Stored::Other)]
    fn a_value_is_told_by_its_first_bytes(#[case] head: &str, #[case] what: Stored) {
        assert_eq!(stored(head.as_bytes()), what);
    }

    const TASK: &[u8] = br#"{"status": "SUCCESS", "result": {"estimators": []}}"#;

    fn keys(names: &[&str]) -> Vec<Vec<u8>> {
        names.iter().map(|n| n.as_bytes().to_vec()).collect()
    }

    /// A whole pass in one batch, its new keys of 10 bytes each.
    fn pass(book: &mut KeyBook, names: &[&str]) -> usize {
        book.begin_pass();
        let new = book.batch(0, keys(names));
        for key in &new {
            book.sized(key, 10, TASK);
        }
        assert!(book.end_pass());
        new.len()
    }

    #[test]
    fn keys_of_before_are_not_of_the_cell() {
        let mut book = KeyBook::default();
        book.begin_cell();
        assert_eq!(book.batch(7, keys(&["a"])).len(), 0);
        assert!(!book.end_pass() && !book.is_told_apart());
        assert_eq!(book.batch(0, keys(&["b"])).len(), 0);
        assert!(book.end_pass() && book.is_told_apart());
        assert_eq!(pass(&mut book, &["a", "b", "c", "c"]), 2, "one key found twice");
        assert_eq!(pass(&mut book, &["a", "b", "c"]), 0);
        assert_eq!(book.take_sizes().bytes, [10]);
    }

    #[test]
    fn what_is_deleted_is_forgotten_and_what_is_of_an_earlier_cell_is_known() {
        let mut book = KeyBook::default();
        book.begin_cell();
        pass(&mut book, &["a", "b"]);
        pass(&mut book, &["b", "c"]);
        assert_eq!(book.count(), 2);
        let first = book.take_sizes();
        book.begin_cell();
        pass(&mut book, &["b", "c", "d"]);
        pass(&mut book, &["b", "c", "d", "e"]);
        assert_eq!((first.bytes.len(), book.take_sizes().bytes.len()), (1, 1));
    }

    #[test]
    fn an_unfinished_task_is_looked_at_again() {
        let mut book = KeyBook::default();
        book.begin_cell();
        pass(&mut book, &[]);
        for (head, found) in [(&br#"{"status": "STARTED", "#[..], 0), (TASK, 1)] {
            let new = book.batch(0, keys(&["t"]));
            assert_eq!(new.len(), 1);
            book.sized(&new[0], 33, head);
            assert_eq!(book.sizes.bytes.len(), found);
        }
        assert_eq!(book.batch(0, keys(&["t"])).len(), 0);
        assert!(!book.sizes.is_partial);
    }

    #[test]
    fn a_value_that_is_gone_before_it_is_seen_leaves_the_sizes_partial() {
        let mut book = KeyBook::default();
        book.begin_cell();
        pass(&mut book, &[]);
        book.sized(b"x", 0, b"");
        assert!(book.take_sizes().is_partial);
    }

    #[test]
    fn many_keys_stay_small() {
        let mut book = KeyBook::default();
        book.begin_cell();
        book.batch(0, (0..100_000).map(|i| format!("celery-task-meta-{i}").into_bytes()).collect());
        // 16 bytes of hash and 4 of pass, with padding 32, at most half of the table empty.
        assert!(book.known.capacity() * 33 < 8_000_000, "{}", book.known.capacity());
        book.begin_pass();
        book.batch(0, Vec::new());
        book.end_pass();
        assert_eq!(book.count(), 0);
    }
}
