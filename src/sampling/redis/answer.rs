//! Reads what Redis answers, and writes what it takes for a pattern.

use redis::Value;

/// A prefix as it stands in a pattern: nothing of it is a wildcard.
pub(super) fn escaped(prefix: &str) -> String {
    prefix
        .chars()
        .flat_map(|c| matches!(c, '*' | '?' | '[' | ']' | '\\' | '^').then_some('\\').into_iter().chain([c]))
        .collect()
}

/// A text of any kind.
pub(super) fn text(value: &Value) -> Option<String> {
    match value {
        Value::BulkString(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => Some(text.clone()),
        _ => None,
    }
}

/// A count; `None` for an error and anything else.
pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(n) => u64::try_from(*n).ok(),
        _ => None,
    }
}

/// Where a scan goes on, and the keys of the batch.
pub(super) fn batch(value: Value) -> Result<(u64, Vec<Vec<u8>>), Value> {
    if let Value::Array(parts) = &value
        && let [next, Value::Array(keys)] = parts.as_slice()
        && let Some(next) = text(next).and_then(|t| t.parse().ok())
    {
        let key = |v: &Value| match v {
            Value::BulkString(bytes) => Some(bytes.clone()),
            _ => None,
        };
        return Ok((next, keys.iter().filter_map(key).collect()));
    }
    Err(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_a_prefix_is_a_wildcard() {
        assert_eq!(escaped("a*[b]?^\\:"), "a\\*\\[b\\]\\?\\^\\\\:");
    }

    #[test]
    fn a_batch_is_a_cursor_and_keys_or_comes_back_as_it_is() {
        let bulk = |t: &str| Value::BulkString(t.as_bytes().to_vec());
        let good = Value::Array(vec![bulk("17"), Value::Array(vec![bulk("a"), bulk("b")])]);
        assert_eq!(batch(good), Ok((17, vec![b"a".to_vec(), b"b".to_vec()])));
        for odd in
            [Value::Nil, Value::Array(vec![bulk("17")]), Value::Array(vec![bulk("x"), Value::Array(vec![])])]
        {
            assert_eq!(batch(odd.clone()), Err(odd));
        }
    }
}
