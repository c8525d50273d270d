//! What a worker's post speaks of, read from its body as it passes.
//!
//! A strict JSON scanner (RFC 8259, and `NaN` and `Infinity` as Python has them) that takes pieces
//! as they come. It keeps one bit for each level of nesting and one scalar of at most 64 bytes, and
//! of the body only the ids and states it is there for: no update key is ever copied.

mod grammar;

use crate::state::JobState;
use grammar::{Number, Text, first_of_many, plain};

/// Deeper documents count as malformed. Python gives up at about a thousand levels.
const DEPTH: usize = 512;

/// Longer keys and values are none of ours.
const CAPTURE: usize = 64;

/// What a document said; nothing unless it was one whole object without a mistake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// `simulation_id`, or else `sim_id`.
    pub(super) simulation: Option<u64>,
    /// `task_id`.
    pub(super) task: Option<u64>,
    /// `job_state`.
    pub(super) job_state: Option<JobState>,
    /// `task_state` in `update_dict`.
    pub(super) task_state: Option<JobState>,
}

/// A value that is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    SimulationId,
    SimId,
    TaskId,
    JobState,
    UpdateDict,
    TaskState,
}

/// What may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Document,
    Value,
    FirstItem,
    FirstKey,
    Key,
    Colon,
    Comma,
    Text(Text),
    Number(Number),
    /// The rest of a literal.
    Word(&'static [u8]),
    End,
    Malformed,
}

/// A document under way.
#[derive(Debug)]
pub(super) struct Scan {
    at: At,
    depth: usize,
    /// A bit for each level: set for an object.
    objects: [u64; DEPTH / 64],
    /// The string is a key.
    in_key: bool,
    /// The object at level 2 is the last `update_dict`.
    in_update: bool,
    /// The value that is about to come.
    want: Option<Want>,
    /// The key or value that is being read, as far as it matters.
    capture: [u8; CAPTURE],
    captured: usize,
    /// The key or value is too long, or is not to be captured.
    is_loose: bool,
    simulation_id: Option<u64>,
    sim_id: Option<u64>,
    found: Found,
}

impl Scan {
    /// The beginning of a document.
    pub(super) fn new() -> Self {
        Self {
            at: At::Document,
            depth: 0,
            objects: [0; DEPTH / 64],
            in_key: false,
            in_update: false,
            want: None,
            capture: [0; CAPTURE],
            captured: 0,
            is_loose: true,
            simulation_id: None,
            sim_id: None,
            found: Found::default(),
        }
    }

    /// Reads on.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) {
        while let Some((&byte, rest)) = bytes.split_first() {
            self.at = match self.at {
                At::Malformed => return,
                At::Text(Text::Plain) => {
                    let plain = plain(bytes);
                    if plain > 0 {
                        self.keep(&bytes[..plain]);
                        bytes = &bytes[plain..];
                        continue;
                    }
                    self.text(Text::Plain, byte)
                }
                At::Text(text) => self.text(text, byte),
                At::Number(number) => match number.then(byte) {
                    Some(next) => {
                        self.keep(&[byte]);
                        At::Number(next)
                    }
                    None => {
                        // The byte behind a number belongs to what follows.
                        self.at = self.number_ends(number);
                        continue;
                    }
                },
                At::Word(word) => match word.split_first() {
                    Some((first, rest)) if *first == byte => self.word(rest),
                    _ => At::Malformed,
                },
                at if byte.is_ascii_whitespace() && byte != b'\x0c' => at,
                At::Document if byte == b'{' => self.open(true),
                At::Document | At::End => At::Malformed,
                At::FirstItem if byte == b']' => self.close(false),
                At::Value | At::FirstItem => self.value(byte),
                At::FirstKey if byte == b'}' => self.close(true),
                At::FirstKey | At::Key if byte == b'"' => {
                    self.in_key = true;
                    self.capture_if(self.depth == 1 || (self.depth == 2 && self.in_update));
                    At::Text(Text::Plain)
                }
                At::FirstKey | At::Key => At::Malformed,
                At::Colon if byte == b':' => At::Value,
                At::Colon => At::Malformed,
                At::Comma => match byte {
                    b',' if self.is_in_object() => At::Key,
                    b',' => At::Value,
                    b'}' => self.close(true),
                    b']' => self.close(false),
                    _ => At::Malformed,
                },
            };
            bytes = rest;
        }
    }

    /// What it said, now that there is no more of it.
    pub(super) fn finish(self) -> Found {
        if self.at != At::End {
            return Found::default();
        }
        Found { simulation: self.simulation_id.or(self.sim_id), ..self.found }
    }

    fn value(&mut self, byte: u8) -> At {
        let number = Number::first(byte);
        let is_scalar = self.want.is_some_and(|want| want != Want::UpdateDict);
        self.capture_if(is_scalar && (number.is_some() || byte == b'"'));
        match byte {
            b'{' => {
                self.in_update |= self.depth == 1 && self.want == Some(Want::UpdateDict);
                self.open(true)
            }
            b'[' => self.open(false),
            b'"' => {
                self.in_key = false;
                At::Text(Text::Plain)
            }
            b't' => At::Word(b"rue"),
            b'f' => At::Word(b"alse"),
            b'n' => At::Word(b"ull"),
            b'N' => At::Word(b"aN"),
            b'I' => At::Word(b"nfinity"),
            _ => match number {
                Some(number) => {
                    self.keep(&[byte]);
                    At::Number(number)
                }
                None => At::Malformed,
            },
        }
    }

    fn open(&mut self, is_object: bool) -> At {
        if self.depth == DEPTH {
            return At::Malformed;
        }
        let (word, bit) = (self.depth / 64, 1 << (self.depth % 64));
        if is_object {
            self.objects[word] |= bit;
        } else {
            self.objects[word] &= !bit;
        }
        self.depth += 1;
        self.want = None;
        if is_object { At::FirstKey } else { At::FirstItem }
    }

    fn close(&mut self, is_object: bool) -> At {
        if self.is_in_object() != is_object {
            return At::Malformed;
        }
        self.depth -= 1;
        self.in_update &= self.depth > 1;
        self.value_ends()
    }

    fn is_in_object(&self) -> bool {
        let top = self.depth - 1;
        self.objects[top / 64] & (1 << (top % 64)) != 0
    }

    fn value_ends(&mut self) -> At {
        self.want = None;
        if self.depth == 0 { At::End } else { At::Comma }
    }

    fn word(&mut self, rest: &'static [u8]) -> At {
        if rest.is_empty() { self.value_ends() } else { At::Word(rest) }
    }

    fn number_ends(&mut self, number: Number) -> At {
        match number {
            // `-Infinity`, as Python has it: the byte behind the sign decides.
            Number::Minus => {
                self.is_loose = true;
                At::Word(b"Infinity")
            }
            Number::Zero | Number::Digits | Number::Fraction | Number::Power => {
                let number = self.captured_text().and_then(|text| text.parse().ok());
                match self.want {
                    Some(Want::SimulationId) => self.simulation_id = number,
                    Some(Want::SimId) => self.sim_id = number,
                    Some(Want::TaskId) => self.found.task = number,
                    _ => {}
                }
                self.value_ends()
            }
            Number::Point | Number::Exponent | Number::Sign => At::Malformed,
        }
    }

    fn text(&mut self, text: Text, byte: u8) -> At {
        let next = match (text, byte) {
            (Text::Plain, b'"') => return self.text_ends(),
            (Text::Plain, b'\\') => Some(Text::Escape),
            (Text::Plain, 0x00..0x20) => None,
            (Text::Plain, 0x80..) => {
                self.keep(&[byte]);
                first_of_many(byte)
            }
            (Text::Plain, _) => {
                self.keep(&[byte]);
                Some(Text::Plain)
            }
            (Text::Escape, b'u') => Some(Text::Hex(4, 0)),
            (Text::Escape, _) => self.escaped(byte),
            (Text::Hex(left, value), _) => char::from(byte).to_digit(16).map(|digit| {
                let value = value << 4 | digit as u16;
                if left > 1 {
                    return Text::Hex(left - 1, value);
                }
                // No name of ours has other characters: any byte that is in none will do for them.
                self.keep(&[u8::try_from(value).ok().filter(u8::is_ascii).unwrap_or(0xff)]);
                Text::Plain
            }),
            (Text::More(left, low, high), _) => (low..=high)
                .contains(&byte)
                .then(|| if left > 1 { Text::More(left - 1, 0x80, 0xbf) } else { Text::Plain }),
        };
        next.map_or(At::Malformed, At::Text)
    }

    fn escaped(&mut self, byte: u8) -> Option<Text> {
        let meant = match byte {
            b'"' | b'\\' | b'/' => byte,
            b'b' => 0x08,
            b'f' => 0x0c,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            _ => return None,
        };
        self.keep(&[meant]);
        Some(Text::Plain)
    }

    fn text_ends(&mut self) -> At {
        if self.in_key {
            self.want = self.wanted();
            // The last of several equal keys is what counts, whatever its value.
            match self.want {
                Some(Want::SimulationId) => self.simulation_id = None,
                Some(Want::SimId) => self.sim_id = None,
                Some(Want::TaskId) => self.found.task = None,
                Some(Want::JobState) => self.found.job_state = None,
                Some(Want::UpdateDict | Want::TaskState) => self.found.task_state = None,
                None => {}
            }
            return At::Colon;
        }
        let state = self.captured_text().and_then(JobState::parse);
        match self.want {
            Some(Want::JobState) => self.found.job_state = state,
            Some(Want::TaskState) => self.found.task_state = state,
            _ => {}
        }
        self.value_ends()
    }

    /// What the key that was read stands for, where it stands.
    fn wanted(&self) -> Option<Want> {
        match (self.depth, self.captured_text()?) {
            (1, "simulation_id") => Some(Want::SimulationId),
            (1, "sim_id") => Some(Want::SimId),
            (1, "task_id") => Some(Want::TaskId),
            (1, "job_state") => Some(Want::JobState),
            (1, "update_dict") => Some(Want::UpdateDict),
            (2, "task_state") => Some(Want::TaskState),
            _ => None,
        }
    }

    fn capture_if(&mut self, is_ours: bool) {
        self.captured = 0;
        self.is_loose = !is_ours;
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.is_loose {
            return;
        }
        match self.capture.get_mut(self.captured..self.captured + bytes.len()) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.captured += bytes.len();
            }
            None => self.is_loose = true,
        }
    }

    fn captured_text(&self) -> Option<&str> {
        if self.is_loose { None } else { std::str::from_utf8(&self.capture[..self.captured]).ok() }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{Just, Strategy, any, prop, prop_assert_eq, prop_oneof, proptest};
    use rstest::rstest;
    use serde_json::{Map, Value, json};

    use super::*;

    fn scan(text: impl AsRef<[u8]>) -> Found {
        let mut scan = Scan::new();
        scan.feed(text.as_ref());
        scan.finish()
    }

    /// What serde_json makes of it; `None` where it is stricter than Python in what we do not care
    /// about, large numbers and lone surrogates.
    fn by_serde(text: &[u8]) -> Option<Found> {
        let value: Value = match serde_json::from_slice(text) {
            Ok(value) => value,
            Err(e)
                if ["out of range", "surrogate", "hex escape"].iter().any(|w| e.to_string().contains(w)) =>
            {
                return None;
            }
            Err(_) => return Some(Found::default()),
        };
        let state = |v: &Value| v.as_str().and_then(JobState::parse);
        Some(match value {
            Value::Object(_) => Found {
                simulation: value["simulation_id"].as_u64().or(value["sim_id"].as_u64()),
                task: value["task_id"].as_u64(),
                job_state: state(&value["job_state"]),
                task_state: value["update_dict"].as_object().and_then(|u| state(u.get("task_state")?)),
            },
            _ => Found::default(),
        })
    }

    #[test]
    fn a_post_of_each_route_is_read() {
        let tasks = json!({"simulation_id": 10, "task_id": 0, "update_key": "eyJ",
            "update_dict": {"task_state": "RUNNING", "simulated_primaries": 0}});
        let jobs = json!({"sim_id": 7, "update_key": "eyJ", "job_state": "MERGING_QUEUED"});
        let nothing = Found::default();
        assert_eq!(
            scan(tasks.to_string()),
            Found { simulation: Some(10), task: Some(0), task_state: Some(JobState::Running), ..nothing }
        );
        assert_eq!(
            scan(jobs.to_string()),
            Found { simulation: Some(7), job_state: Some(JobState::MergingQueued), ..nothing }
        );
    }

    #[rstest]
    #[case(r#"{"simulation_id":1,"simulation_id":2}"#, Some(2))]
    #[case(r#"{"simulation_id":1,"simulation_id":"x"}"#, None)]
    #[case(r#"{"sim_id":3,"x":[{"simulation_id":4}]}"#, Some(3))]
    #[case(r#"{"sim\u005fid" : 5 }"#, Some(5))]
    #[case(r#"{"sim_id":18446744073709551615}"#, Some(u64::MAX))]
    #[case(r#"{"sim_id":18446744073709551616}"#, None)]
    #[case(r#"{"sim_id":-1}"#, None)]
    #[case(r#"{"sim_id":1.0}"#, None)]
    #[case(r#"{"sim_id":1e1}"#, None)]
    #[case(r#"{"a":NaN,"b":-Infinity,"c":[Infinity],"sim_id":6}"#, Some(6))]
    #[case(r#"{"a":"\ud800 alone","sim_id":6}"#, Some(6))]
    #[case("\t{\r\n\"sim_id\" :6 } \n", Some(6))]
    #[case(r#"{"sim_id":6}x"#, None)]
    #[case(r#"{"sim_id":6"#, None)]
    #[case(r#"[{"sim_id":6}]"#, None)]
    #[case(r#"{"sim_id":06}"#, None)]
    #[case(r#"{"sim_id":6,}"#, None)]
    #[case(r#"{"sim_id":6,"a":-Inf}"#, None)]
    #[case(r#"{"sim_id":6,"a":-}"#, None)]
    #[case("{\"sim_id\":6,\"a\":\"\n\"}", None)]
    #[case("", None)]
    fn simulations_are_named_or_not(#[case] text: &str, #[case] simulation: Option<u64>) {
        assert_eq!(scan(text).simulation, simulation, "{text}");
    }

    #[test]
    fn only_the_last_update_dict_counts_and_only_its_own_level() {
        let deep = r#"{"update_dict":{"task_state":"FAILED","a":{"task_state":"RUNNING"}}}"#;
        assert_eq!(scan(deep).task_state, Some(JobState::Failed));
        let twice = r#"{"update_dict":{"task_state":"FAILED"},"update_dict":{}}"#;
        assert_eq!(scan(twice).task_state, None);
        let beside = r#"{"update_dict":1,"other":{"task_state":"FAILED"}}"#;
        assert_eq!(scan(beside).task_state, None);
        assert_eq!(scan(r#"{"job_state":"BANANA"}"#).job_state, None);
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |n: usize| format!("{{\"sim_id\":1,\"a\":{}{}}}", "[".repeat(n), "]".repeat(n));
        assert_eq!(scan(nested(DEPTH - 1)).simulation, Some(1));
        assert_eq!(scan(nested(DEPTH)).simulation, None);
    }

    #[test]
    fn a_scan_is_small() {
        assert!(size_of::<Scan>() < 300, "{}", size_of::<Scan>());
    }

    fn key() -> impl Strategy<Value = String> {
        const OURS: &[&str] =
            &["simulation_id", "sim_id", "task_id", "job_state", "task_state", "update_dict"];
        prop_oneof![4 => prop::sample::select(OURS).prop_map(str::to_owned), 1 => any::<String>()]
    }

    fn value() -> impl Strategy<Value = Value> {
        let scalar = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<u64>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
            prop::sample::select(&JobState::ALL[..]).prop_map(|s| Value::from(s.as_str())),
            "[ -~]{60,70}".prop_map(Value::from),
        ];
        scalar.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                prop::collection::vec((key(), inner), 0..5)
                    .prop_map(|pairs| Value::from(pairs.into_iter().collect::<Map<_, _>>())),
            ]
        })
    }

    /// An object whose keys may be there several times, spread out or not, with escapes or not.
    fn document() -> impl Strategy<Value = Vec<u8>> {
        (prop::collection::vec((key(), value()), 0..8), any::<bool>(), any::<bool>()).prop_map(
            |(pairs, is_spread, is_escaped)| {
                let members: Vec<String> = pairs
                    .into_iter()
                    .map(|(key, value)| {
                        let key = serde_json::to_string(&key).unwrap();
                        let text = if is_spread { format!("{value:#}") } else { value.to_string() };
                        format!("{key}{}{text}", if is_spread { " :\n" } else { ":" })
                    })
                    .collect();
                let text = format!("{{{}}}", members.join(","));
                let escape = |c: char| {
                    let mut units = [0; 2];
                    let units = c.encode_utf16(&mut units).iter();
                    units.map(|u| format!("\\u{u:04x}")).collect::<String>()
                };
                let odd = |c: char| !c.is_ascii() || (is_escaped && c == '_');
                let text = text.chars().map(|c| if is_escaped && odd(c) { escape(c) } else { c.into() });
                text.collect::<String>().into_bytes()
            },
        )
    }

    proptest! {
        #[test]
        fn it_finds_what_a_parser_finds_however_the_body_is_cut(
            text in document(), cuts in prop::collection::vec(0usize..4_000, 0..20)
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c % (text.len() + 1)).collect();
            cuts.sort_unstable();
            let (mut scan, mut from) = (Scan::new(), 0);
            for cut in cuts.into_iter().chain([text.len()]) {
                scan.feed(&text[from..cut]);
                from = cut;
            }
            prop_assert_eq!(Some(scan.finish()), by_serde(&text));
        }

        #[test]
        fn it_is_as_strict_as_a_parser(
            text in document(),
            edits in prop::collection::vec((0usize..4_000, 0u8..3, any::<u8>(), any::<bool>()), 1..4)
        ) {
            let mut text = text;
            for (at, kind, byte, is_json) in edits {
                let byte = if is_json { b"{}[],:\"\\ 0-.eEtfnu19"[usize::from(byte) % 20] } else { byte };
                let at = at % (text.len() + 1);
                match kind {
                    0 if at < text.len() => text[at] = byte,
                    1 if at < text.len() => { text.remove(at); }
                    _ => text.insert(at, byte),
                }
            }
            if let Some(expected) = by_serde(&text) {
                prop_assert_eq!(scan(&text), expected, "{}", String::from_utf8_lossy(&text));
            }
        }

        #[test]
        fn long_strings_are_cut_where_they_mean_something(text in prop::collection::vec(any::<u8>(), 0..64)) {
            let ends = |b: &u8| matches!(b, 0..0x20 | b'"' | b'\\' | 0x80..);
            let end = text.iter().position(ends).unwrap_or(text.len());
            prop_assert_eq!(plain(&text), end / 8 * 8);
        }
    }
}
