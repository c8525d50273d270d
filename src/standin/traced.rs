//! Of which traces the requests about a job were, by their `traceparent` headers. They are read as
//! the W3C's Trace Context has them (version 00), apart from the code that writes them.

use std::collections::BTreeSet;

use hyper::header::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

/// Of which trace a request is.
pub(super) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The clients' requests about one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// All of them, the submit included.
    pub requests: u64,
    /// Those with a valid header.
    pub valid: u64,
    /// Of these, those with the sampled flag.
    pub sampled: u64,
    /// Of these, those that named the same parent as the one before.
    pub same_parent: u64,
    /// The trace ids, in hex; more than a few are somebody's mistake and not kept.
    pub ids: BTreeSet<String>,
    /// The parent that the last of them named, in hex.
    pub last_parent: String,
}

/// So many ids are kept.
const IDS: usize = 16;

impl Traced {
    /// Counts a request.
    pub(super) fn note(&mut self, header: Option<&HeaderValue>) {
        self.requests += 1;
        let Some((id, parent, sampled)) = header.and_then(|value| read(value.to_str().ok()?)) else {
            return;
        };
        self.valid += 1;
        self.sampled += u64::from(sampled);
        self.same_parent += u64::from(self.last_parent == parent);
        parent.clone_into(&mut self.last_parent);
        if self.ids.len() < IDS && !self.ids.contains(id) {
            self.ids.insert(id.to_owned());
        }
    }
}

/// Trace id, parent id and sampled flag of a valid header.
fn read(text: &str) -> Option<(&str, &str, bool)> {
    let mut parts = text.split('-');
    let mut hex = |length: usize| {
        let is_hex = |part: &&str| part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        parts.next().filter(|part| part.len() == length).filter(is_hex)
    };
    let (version, id, parent, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_zero = |id: &str| id.bytes().all(|b| b == b'0');
    let valid = version == "00" && !is_zero(id) && !is_zero(parent) && parts.next().is_none();
    let sampled = u8::from_str_radix(flags, 16).ok()? & 1 == 1;
    valid.then_some((id, parent, sampled))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    #[test]
    fn a_header_of_the_specification_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(read(text), Some((ID, "00f067aa0ba902b7", true)));
        assert_eq!(read(&text.replace("-01", "-00")), Some((ID, "00f067aa0ba902b7", false)));
    }

    #[rstest]
    #[case::version("ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
    #[case::no_trace("00-00000000000000000000000000000000-00f067aa0ba902b7-01")]
    #[case::no_parent("00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01")]
    #[case::capitals("00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01")]
    #[case::short("00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01")]
    #[case::more("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x")]
    #[case::less("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7")]
    #[case::nothing("")]
    fn others_are_not(#[case] text: &str) {
        assert_eq!(read(text), None);
    }

    #[test]
    fn requests_are_counted_by_what_they_carry() {
        let mut traced = Traced::default();
        let header = |parent: u64, flags| HeaderValue::from_str(&format!("00-{ID}-{parent:016x}-{flags}"));
        for header in [header(1, "01"), header(2, "00"), header(2, "00")] {
            traced.note(Some(&header.unwrap()));
        }
        traced.note(None);
        assert_eq!((traced.requests, traced.valid, traced.sampled, traced.same_parent), (4, 3, 1, 1));
        assert_eq!(traced.ids, BTreeSet::from([ID.to_owned()]));
    }
}
