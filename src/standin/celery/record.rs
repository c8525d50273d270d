//! What the stand-in has put into Redis, by its own count: for the truth, and to take it away again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use redis::{Arg, Pipeline, Value};

use crate::standin::truth::{RedisTruth, ResultKind, StoredResult};

/// The count.
#[derive(Debug, Default)]
pub(super) struct Record(Mutex<Made>);

#[derive(Debug, Default)]
struct Made {
    results: BTreeMap<String, StoredResult>,
    /// Keys of chords that are not over.
    chords: BTreeSet<String>,
    /// Delivery tags of messages that wait on the list, or may.
    waiting: BTreeSet<String>,
    /// Delivery tags of messages in `unacked`.
    unacked: BTreeSet<String>,
    /// Binding and claim.
    fixed: BTreeSet<String>,
    bytes_in: u64,
    bytes_out: u64,
    commands: u64,
    lost: u64,
}

impl Record {
    pub(super) fn stored(&self, key: &str, bytes: usize, kind: ResultKind) {
        let result = StoredResult { bytes: bytes as u64, kind };
        self.made().results.insert(key.to_owned(), result);
    }

    pub(super) fn chord(&self, key: &str) {
        self.made().chords.insert(key.to_owned());
    }

    pub(super) fn chord_gone(&self, key: &str) {
        self.made().chords.remove(key);
    }

    pub(super) fn fixed(&self, key: &str) {
        self.made().fixed.insert(key.to_owned());
    }

    pub(super) fn waits(&self, tag: &str) {
        self.made().waiting.insert(tag.to_owned());
    }

    pub(super) fn reserved(&self, tag: &str) {
        let mut made = self.made();
        made.waiting.remove(tag);
        made.unacked.insert(tag.to_owned());
    }

    pub(super) fn acked(&self, tag: &str) {
        self.made().unacked.remove(tag);
    }

    pub(super) fn any_waiting(&self) -> bool {
        !self.made().waiting.is_empty()
    }

    /// A connection broke.
    pub(super) fn lost(&self) {
        self.made().lost += 1;
    }

    /// Bytes of a reply.
    pub(super) fn came(&self, reply: &Value) {
        self.made().bytes_out += length_of(reply);
    }

    /// Bytes and number of commands.
    pub(super) fn went(&self, commands: &Pipeline) {
        let mut made = self.made();
        for command in commands.cmd_iter() {
            made.commands += 1;
            made.bytes_in += length_of_command(command.args_iter());
        }
    }

    /// Bytes of one command.
    pub(super) fn went_one(&self, command: &redis::Cmd) {
        let mut made = self.made();
        made.commands += 1;
        made.bytes_in += length_of_command(command.args_iter());
    }

    /// All keys with results or chords, and the fixed ones.
    pub(super) fn keys(&self) -> Vec<String> {
        let made = self.made();
        let keys = made.results.keys().chain(&made.chords).chain(&made.fixed);
        keys.cloned().collect()
    }

    /// The tags of what was fetched and not acknowledged.
    pub(super) fn unacked(&self) -> Vec<String> {
        self.made().unacked.iter().cloned().collect()
    }

    /// A copy for the truth.
    pub(super) fn truth(&self) -> RedisTruth {
        let made = self.made();
        let lists = u64::from(!made.waiting.is_empty()) + 2 * u64::from(!made.unacked.is_empty());
        RedisTruth {
            keys: (made.results.len() + made.chords.len() + made.fixed.len()) as u64 + lists,
            results: made.results.clone(),
            messages_waiting: made.waiting.len() as u64,
            messages_unacked: made.unacked.len() as u64,
            commands: made.commands,
            bytes_in: made.bytes_in,
            bytes_out: made.bytes_out,
            connections_lost: made.lost,
        }
    }

    fn made(&self) -> MutexGuard<'_, Made> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn digits(number: usize) -> u64 {
    u64::from(number.checked_ilog10().unwrap_or(0)) + 1
}

/// `$5\r\nhello\r\n` (RESP2).
fn length_of_text(length: usize) -> u64 {
    length as u64 + digits(length) + 5
}

/// `*2\r\n` and its arguments.
fn length_of_command<'a>(args: impl ExactSizeIterator<Item = Arg<&'a [u8]>>) -> u64 {
    let head = digits(args.len()) + 3;
    let texts = args.map(|arg| if let Arg::Simple(text) = arg { length_of_text(text.len()) } else { 0 });
    head + texts.sum::<u64>()
}

/// The length on the wire, as far as the replies here go.
fn length_of(value: &Value) -> u64 {
    match value {
        Value::BulkString(text) => length_of_text(text.len()),
        Value::Array(items) => digits(items.len()) + 3 + items.iter().map(length_of).sum::<u64>(),
        Value::SimpleString(text) => text.len() as u64 + 3,
        Value::Int(number) => number.to_string().len() as u64 + 3,
        // `+OK` and `$-1`.
        _ => 5,
    }
}

#[cfg(test)]
mod tests {
    use redis::Value;

    use super::{length_of, length_of_command};

    #[test]
    fn lengths_are_those_on_the_wire() {
        for command in [
            redis::cmd("PING"),
            redis::cmd("SETEX").arg("key").arg(86400).arg(vec![7_u8; 12_345]).clone(),
            redis::cmd("A").arg("").arg(&["x"; 12]).clone(),
        ] {
            let packed = command.get_packed_command();
            assert_eq!(length_of_command(command.args_iter()), packed.len() as u64);
        }
        for (wire, value) in [
            ("+OK\r\n", Value::Okay),
            ("$-1\r\n", Value::Nil),
            (":-12\r\n", Value::Int(-12)),
            (
                "*2\r\n$3\r\nabc\r\n+x\r\n",
                Value::Array(vec![Value::BulkString(b"abc".to_vec()), Value::SimpleString("x".to_owned())]),
            ),
        ] {
            assert_eq!(length_of(&value), wire.len() as u64);
        }
    }
}
