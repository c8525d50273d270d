//! Names of keys, and entries as they stand in a stream: JSON in the field `e`.

use std::{collections::BTreeMap, sync::Arc};

use redis::Value;
use serde::de::DeserializeOwned;

use super::super::{Entry, Log, Place};

/// Where managers announce runs; outside any run.
pub(super) const LOBBY: &str = "springtide:lobby";

/// The keys of one run.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    run: String,
}

impl Keys {
    pub(super) fn of(run: &str) -> Self {
        Self { run: run.to_owned() }
    }

    pub(super) fn run(&self) -> &str {
        &self.run
    }

    pub(super) fn log(&self, log: &Log) -> String {
        match log {
            Log::Commands => self.key("cmd"),
            Log::Roll => self.key("roll"),
            Log::Reports(worker) => self.reports() + worker,
        }
    }

    /// What the keys of all workers' reports begin with.
    pub(super) fn reports(&self) -> String {
        self.key("res:")
    }

    pub(super) fn lease(&self, name: &str) -> String {
        self.key("lease:") + name
    }

    pub(super) fn epoch(&self) -> String {
        self.key("epoch")
    }

    pub(super) fn manifest(&self) -> String {
        self.key("manifest")
    }

    fn key(&self, rest: &str) -> String {
        format!("springtide:{}:{rest}", self.run)
    }
}

/// An entry as it is written down.
pub(super) fn encode(entry: &Entry) -> Vec<u8> {
    match entry {
        Entry::Command(command) => serde_json::to_vec(command),
        Entry::Member(member) => serde_json::to_vec(member),
        Entry::Sent(sent) => serde_json::to_vec(&**sent),
    }
    .expect("an entry is plain data")
}

/// Reads an entry of that log.
///
/// # Errors
/// Why it cannot be read.
pub(super) fn decode(log: &Log, text: &[u8]) -> Result<Entry, String> {
    fn of<T: DeserializeOwned>(text: &[u8]) -> Result<T, String> {
        serde_json::from_slice(text).map_err(|e| e.to_string())
    }
    match log {
        Log::Commands => of(text).map(Entry::Command),
        Log::Roll => of(text).map(Entry::Member),
        Log::Reports(_) => of(text).map(|sent| Entry::Sent(Arc::new(sent))),
    }
}

/// Where an entry of a stream stands, and its field `of`; no text where it has none. `None` when it is
/// no entry.
pub(super) fn one<'a>(entry: &'a Value, of: &str) -> Option<(Place, &'a [u8])> {
    let Value::Array(pair) = entry else { return None };
    let [Value::BulkString(id), fields] = &pair[..] else { return None };
    let text = match fields {
        Value::Array(fields) => fields.chunks_exact(2).find_map(|pair| match pair {
            [Value::BulkString(name), Value::BulkString(text)] if name == of.as_bytes() => Some(&text[..]),
            _ => None,
        }),
        _ => None,
    };
    Some((place(id)?, text.unwrap_or_default()))
}

/// Reads an id.
pub(super) fn place(id: &[u8]) -> Option<Place> {
    let (ms, seq) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some(Place(ms.parse().ok()?, seq.parse().ok()?))
}

/// What a reply to XREAD brings of these logs: the entries, each log in its order, and the new places.
///
/// What cannot be read is skipped, with a warning.
///
/// # Errors
/// When the reply is none to XREAD.
pub(super) fn read(
    reply: &Value,
    keys: &BTreeMap<String, &Log>,
) -> Result<(Vec<Entry>, BTreeMap<Log, Place>), String> {
    let odd = || "gives no answer that fits XREAD".to_owned();
    let (mut read, mut places) = (Vec::new(), BTreeMap::new());
    let streams: &[Value] = match reply {
        Value::Nil => &[],
        Value::Array(streams) => streams,
        _ => return Err(odd()),
    };
    for stream in streams {
        let (key, entries) = stream_of(stream).ok_or_else(odd)?;
        let log = *keys.get(key).ok_or_else(odd)?;
        for entry in entries {
            let (place, text) = one(entry, "e").ok_or_else(odd)?;
            match decode(log, text) {
                Ok(entry) => read.push(entry),
                // Whoever counts on it sees that it is missing.
                Err(why) => tracing::warn!("entry {place} in {key} cannot be read, and is skipped: {why}"),
            }
            places.insert(log.clone(), place);
        }
    }
    Ok((read, places))
}

fn stream_of(stream: &Value) -> Option<(&str, &[Value])> {
    let Value::Array(pair) = stream else { return None };
    let [Value::BulkString(key), Value::Array(entries)] = &pair[..] else { return None };
    Some((std::str::from_utf8(key).ok()?, entries))
}

#[cfg(test)]
mod tests {
    use proptest::{
        option,
        prelude::{Strategy, any, prop_assert_eq, prop_oneof, proptest},
    };

    use super::*;
    use crate::{
        crew::{Member, Offset},
        histogram::Histogram,
        micros::Micros,
        plane::{Command, Report, Sent},
        snapshot::{Frame, FrameBody, Health, Totals},
    };

    fn member() -> impl Strategy<Value = Member> {
        (".*", any::<u64>()).prop_map(|(name, epoch)| Member { name, epoch })
    }

    fn totals() -> impl Strategy<Value = Totals> {
        (proptest::collection::vec(0..10_000_000_u64, 0..20), any::<u64>(), any::<i64>()).prop_map(
            |(lags, cpu, running)| {
                let mut lag = Histogram::default();
                lags.into_iter().for_each(|us| lag.record(Micros(us)));
                let mut totals = Totals {
                    health: Health { lag, cpu: Micros(cpu), ..Health::default() },
                    ..Totals::default()
                };
                totals.progress.running = running;
                totals
            },
        )
    }

    fn report() -> impl Strategy<Value = Report> {
        prop_oneof![
            any::<(u32, i64, u64)>().prop_map(|(cell, ahead, error)| Report::Ready {
                cell,
                offset: Offset { ahead, error: Micros(error) }
            }),
            (any::<u32>(), option::of(any::<u64>()))
                .prop_map(|(cell, late)| Report::Through { cell, start_late: late.map(Micros) }),
            (any::<u32>(), option::of(".*")).prop_map(|(cell, why)| Report::GaveUp { cell, why }),
            (any::<(u32, u32, u64, u64, bool)>(), totals()).prop_map(
                |((cell, worker, epoch, seq, ends), totals)| {
                    let body = match ends {
                        true => FrameBody::Final(totals.fingerprint()),
                        false => FrameBody::Delta(Box::new(totals)),
                    };
                    Report::Frame(Frame { cell, worker, epoch, seq, body })
                }
            ),
            any::<u32>().prop_map(|cell| Report::Merging { cell }),
            any::<bool>().prop_map(|drains| if drains { Report::Draining } else { Report::Leaving }),
            any::<bool>().prop_map(|_| Report::Hello(Box::new(crate::plane::message::trial::hello()))),
        ]
    }

    fn entry() -> impl Strategy<Value = (Log, Entry)> {
        let command = prop_oneof![
            (member(), ".*").prop_map(|(member, why)| Command::Refuse { member, why }),
            any::<(u32, u64)>().prop_map(|(cell, at)| Command::Start { cell, at: Micros(at) }),
            any::<u32>().prop_map(|cell| Command::Settle { cell }),
            any::<u32>().prop_map(|cell| Command::Abort { cell }),
            any::<bool>().prop_map(|_| Command::End),
        ];
        prop_oneof![
            command.prop_map(|c| (Log::Commands, Entry::Command(c))),
            member().prop_map(|m| (Log::Roll, Entry::Member(m))),
            (member(), report()).prop_map(|(from, report)| (
                Log::Reports(from.name.clone()),
                Entry::Sent(Arc::new(Sent { from, report }))
            )),
        ]
    }

    fn bulk(text: impl AsRef<[u8]>) -> Value {
        Value::BulkString(text.as_ref().to_vec())
    }

    fn reply(key: &str, id: &str, field: &str, text: &[u8]) -> Value {
        let entry = Value::Array(vec![bulk(id), Value::Array(vec![bulk(field), bulk(text)])]);
        Value::Array(vec![Value::Array(vec![bulk(key), Value::Array(vec![entry])])])
    }

    proptest! {
        #[test]
        fn an_entry_comes_back_as_it_went((log, entry) in entry(), id in any::<(u64, u64)>()) {
            let place = Place(id.0, id.1);
            let key = Keys::of("r").log(&log);
            let reply = reply(&key, &place.to_string(), "e", &encode(&entry));
            let (read, places) = read(&reply, &BTreeMap::from([(key, &log)])).unwrap();
            prop_assert_eq!(read, [entry]);
            prop_assert_eq!(places, BTreeMap::from([(log, place)]));
        }
    }

    #[test]
    fn what_cannot_be_read_is_skipped() {
        let keys = BTreeMap::from([("springtide:r:cmd".to_owned(), &Log::Commands)]);
        for (field, text) in [("e", "{\"start\":"), ("e", "7"), ("x", "\"end\"")] {
            let (entries, places) =
                read(&reply("springtide:r:cmd", "5-1", field, text.as_bytes()), &keys).unwrap();
            assert_eq!((entries, places), (Vec::new(), [(Log::Commands, Place(5, 1))].into()));
        }
        assert_eq!(read(&Value::Nil, &keys).unwrap(), Default::default());
        assert!(read(&Value::Okay, &keys).is_err());
        assert!(read(&reply("springtide:q:cmd", "5-1", "e", b"\"end\""), &keys).is_err());
        assert_eq!(place(b"7"), None);
    }
}
