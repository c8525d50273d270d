//! Results as stored: upserted page by page, served as one ready reply.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Estimators as a worker posted them, checked and brought to the form of the replies.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Posted(Vec<PostedEstimator>);

#[derive(Debug, Clone, PartialEq)]
struct PostedEstimator {
    name: String,
    metadata: String,
    pages: Vec<Page>,
}

/// One page: what the indexes need, and its JSON.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Page {
    pub(super) number: i64,
    pub(super) name: String,
    pub(super) dimensions: u64,
    pub(super) json: Bytes,
}

/// One stored estimator.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Estimator {
    pub(super) name: String,
    /// Compact JSON object.
    pub(super) metadata: String,
    pub(super) pages: Vec<Page>,
}

/// All rows of one simulation. The pages are slices of the ready reply.
#[derive(Debug, Clone)]
pub(super) struct StoredResults {
    pub(super) estimators: Vec<Estimator>,
    whole: Bytes,
}

/// Estimators on which the target raises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

#[derive(Deserialize)]
struct WireEstimator<'a> {
    name: String,
    #[serde(borrow)]
    metadata: &'a RawValue,
    #[serde(borrow)]
    pages: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct WirePage {
    dimensions: u64,
    metadata: WirePageMetadata,
}

#[derive(Deserialize)]
struct WirePageMetadata {
    name: String,
    page_number: serde_json::Value,
}

impl Posted {
    /// Reads the `estimators` of a post.
    pub(super) fn read(estimators: &RawValue) -> Result<Self, Malformed> {
        let wire: Vec<WireEstimator<'_>> = serde_json::from_str(estimators.get()).map_err(|_| Malformed)?;
        wire.into_iter().map(PostedEstimator::read).collect::<Result<_, _>>().map(Self)
    }

    /// Gives the estimators the names of the project's outputs, matched by alphabetical rank.
    ///
    /// # Errors
    /// There are fewer estimators than outputs.
    pub(super) fn renamed(mut self, outputs: &[String]) -> Result<Self, Malformed> {
        self.0.sort_by(|a, b| a.name.cmp(&b.name));
        let mut ranks: Vec<usize> = (0..outputs.len()).collect();
        ranks.sort_by(|&a, &b| outputs[a].cmp(&outputs[b]));
        let mut named = vec![None; outputs.len()];
        for (estimator, &place) in self.0.into_iter().zip(&ranks) {
            named[place] = Some(PostedEstimator { name: outputs[place].clone(), ..estimator });
        }
        named.into_iter().collect::<Option<_>>().map(Self).ok_or(Malformed)
    }

    /// The results of a first post, for simulation `pk`.
    pub(super) fn store(self, pk: u64) -> StoredResults {
        let mut stored = StoredResults { estimators: Vec::new(), whole: Bytes::new() };
        self.add_to(&mut stored, pk);
        stored
    }

    /// A second post: pages of known estimators are overwritten, the rest is added.
    pub(super) fn upsert(self, stored: &mut StoredResults, pk: u64) {
        let (known, new): (Vec<_>, Vec<_>) =
            self.0.into_iter().partition(|e| stored.estimators.iter().any(|s| s.name == e.name));
        for estimator in known {
            let into = stored.estimators.iter_mut().find(|s| s.name == estimator.name);
            let Some(into) = into else { continue };
            for page in estimator.pages {
                match into.pages.iter_mut().find(|p| p.number == page.number) {
                    Some(old) => *old = page,
                    None => into.pages.push(page),
                }
            }
        }
        Self(new).add_to(stored, pk);
    }

    /// A second post that found nothing of the first: every row twice.
    pub(super) fn add_to(self, stored: &mut StoredResults, pk: u64) {
        stored.estimators.extend(self.0.into_iter().map(|posted| Estimator {
            name: posted.name,
            metadata: posted.metadata,
            pages: posted.pages,
        }));
        stored.assemble(pk);
    }
}

impl PostedEstimator {
    fn read(wire: WireEstimator<'_>) -> Result<Self, Malformed> {
        let pages = wire.pages.into_iter().map(Page::read).collect::<Result<_, _>>()?;
        Ok(Self { name: wire.name, metadata: sorted(wire.metadata), pages })
    }
}

impl Page {
    fn read(raw: &RawValue) -> Result<Self, Malformed> {
        let head: WirePage = serde_json::from_str(raw.get()).map_err(|_| Malformed)?;
        let number = match &head.metadata.page_number {
            serde_json::Value::String(text) => text.parse().ok(),
            number => number.as_i64(),
        };
        Ok(Self {
            number: number.ok_or(Malformed)?,
            name: head.metadata.name,
            dimensions: head.dimensions,
            json: Bytes::from(sorted(raw)),
        })
    }
}

impl StoredResults {
    /// The reply of `GET /results`.
    pub(super) fn whole(&self) -> Bytes {
        self.whole.clone()
    }

    /// The same without the last estimator.
    pub(super) fn without_last(&self, pk: u64) -> Bytes {
        let mut fewer = self.clone();
        fewer.estimators.pop();
        fewer.assemble(pk);
        fewer.whole
    }

    /// Writes the whole reply and lets the pages point into it.
    fn assemble(&mut self, pk: u64) {
        let pages = self.estimators.iter().flat_map(|estimator| &estimator.pages);
        let length: usize = pages.map(|page| page.json.len() + 1).sum();
        let mut out = Vec::with_capacity(length + 512 * (self.estimators.len() + 1));
        let mut ranges = Vec::new();
        out.extend_from_slice(b"{\"estimators\":[");
        for (place, estimator) in self.estimators.iter().enumerate() {
            out.extend_from_slice(if place > 0 { b",{\"metadata\":" } else { b"{\"metadata\":" });
            out.extend_from_slice(estimator.metadata.as_bytes());
            let name = serde_json::Value::from(estimator.name.as_str());
            out.extend_from_slice(format!(",\"name\":{name},\"pages\":[").as_bytes());
            for (place, page) in estimator.pages.iter().enumerate() {
                if place > 0 {
                    out.push(b',');
                }
                let start = out.len();
                out.extend_from_slice(&page.json);
                ranges.push(start..out.len());
            }
            out.extend_from_slice(b"]}");
        }
        out.extend_from_slice(format!("],\"message\":\"Results for simulation: {pk}\"}}\n").as_bytes());
        self.whole = Bytes::from(out);
        let pages = self.estimators.iter_mut().flat_map(|estimator| &mut estimator.pages);
        for (page, range) in pages.zip(ranges) {
            page.json = self.whole.slice(range);
        }
    }
}

/// The value without spaces and with the keys of every object sorted; numbers stay as written.
fn sorted(raw: &RawValue) -> String {
    let mut out = String::with_capacity(raw.get().len());
    write_sorted(raw.get(), &mut out);
    out
}

fn write_sorted(text: &str, out: &mut String) {
    if !text.starts_with('{') {
        return write_compact(text, out);
    }
    let members: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).expect("a raw value that opens a brace is an object");
    out.push('{');
    for (place, (key, value)) in members.into_iter().enumerate() {
        if place > 0 {
            out.push(',');
        }
        out.push_str(&serde_json::Value::from(key).to_string());
        out.push(':');
        write_sorted(value.get(), out);
    }
    out.push('}');
}

/// Drops the space outside of strings.
fn write_compact(text: &str, out: &mut String) {
    let (mut in_string, mut escaped, mut start) = (false, false, 0);
    for (at, byte) in text.bytes().enumerate() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte == b'"' {
            in_string = true;
        } else if byte.is_ascii_whitespace() {
            out.push_str(&text[start..at]);
            start = at + 1;
        }
    }
    out.push_str(&text[start..]);
}

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::{Malformed, Posted, sorted};

    fn posted(json: &str) -> Result<Posted, Malformed> {
        Posted::read(&RawValue::from_string(json.to_owned()).unwrap())
    }

    fn two() -> Posted {
        posted(
            r#"[{"name": "b", "metadata": {"x": "1"}, "pages": [
                 {"metadata": {"page_number": "0", "name": "DOSE"}, "dimensions": 1, "data": [1.0, 0.10]}]},
               {"name": "a", "metadata": {}, "pages": []}]"#,
        )
        .unwrap()
    }

    #[test]
    fn the_reply_is_sorted_and_compact_and_keeps_numbers() {
        assert_eq!(
            two().store(7).whole(),
            concat!(
                r#"{"estimators":[{"metadata":{"x":"1"},"name":"b","pages":[{"data":[1.0,0.10],"#,
                r#""dimensions":1,"metadata":{"name":"DOSE","page_number":"0"}}]},"#,
                r#"{"metadata":{},"name":"a","pages":[]}],"message":"Results for simulation: 7"}"#,
                "\n"
            )
        );
        let spaced = RawValue::from_string(r#"[ "a \" b" , 1 ]"#.to_owned()).unwrap();
        assert_eq!(sorted(&spaced), r#"["a \" b",1]"#);
    }

    #[test]
    fn a_repeat_overwrites_and_a_race_doubles() {
        let once = two().store(7);
        let mut twice = once.clone();
        two().upsert(&mut twice, 7);
        assert_eq!(twice.whole(), once.whole());
        two().add_to(&mut twice, 7);
        assert_eq!(twice.estimators.len(), 4);
        assert!(twice.whole().len() > once.whole().len() + 100);
        assert_eq!(twice.estimators[2].pages[0].json, once.estimators[0].pages[0].json);
    }

    #[test]
    fn editor_outputs_are_matched_by_rank() {
        let outputs = ["z".to_owned(), "m".to_owned()];
        let named = two().renamed(&outputs).unwrap().store(1);
        assert_eq!(named.estimators.iter().map(|e| e.name.as_str()).collect::<Vec<_>>(), ["z", "m"]);
        assert_eq!(named.estimators[0].pages.len(), 1, "rank 2 of 2 is b");
        let three = [outputs.as_slice(), &["q".to_owned()]].concat();
        assert_eq!(two().renamed(&three), Err(Malformed));
    }

    #[test]
    fn malformed_estimators_are_refused() {
        assert_eq!(posted(r#"[{"name":"x","pages":[]}]"#), Err(Malformed));
        assert_eq!(posted(r#"[{"name":"x","metadata":{},"pages":[{}]}]"#), Err(Malformed));
        assert_eq!(posted("7"), Err(Malformed));
    }
}
