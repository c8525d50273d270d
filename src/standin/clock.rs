//! Wall-clock moments and the three ways the contract writes them.

use std::time::{SystemTime, UNIX_EPOCH};

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Unix time in microseconds.
pub(super) fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// A moment in a reply: RFC 1123, whole seconds, GMT.
pub(super) fn in_reply(micros: u64) -> String {
    let mut out = String::with_capacity(29);
    write_reply(&mut out, micros);
    out
}

/// Appends a moment as replies show it. Polls write three a task, so this formats by hand.
pub(super) fn write_reply(out: &mut String, micros: u64) {
    const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let moment = utc(micros);
    let two = |out: &mut String, number: i8, after: &str| {
        let number = number.unsigned_abs();
        out.push(char::from(b'0' + number / 10));
        out.push(char::from(b'0' + number % 10));
        out.push_str(after);
    };
    out.push_str(DAYS[usize::from(moment.weekday().to_monday_zero_offset().unsigned_abs())]);
    out.push_str(", ");
    two(out, moment.day(), " ");
    out.push_str(MONTHS[usize::from(moment.month().unsigned_abs()) - 1]);
    out.push(' ');
    out.push_str(&moment.year().to_string());
    out.push(' ');
    two(out, moment.hour(), ":");
    two(out, moment.minute(), ":");
    two(out, moment.second(), " GMT");
}

/// A moment in a worker's post: `2026-11-22 22:00:00.123456`, UTC.
pub(super) fn in_post(micros: u64) -> String {
    utc(micros).strftime("%Y-%m-%d %H:%M:%S%.6f").to_string()
}

/// A moment in a job id: `20261122-220356`.
pub(super) fn in_job_id(micros: u64) -> String {
    utc(micros).strftime("%Y%m%d-%H%M%S").to_string()
}

/// A moment in a stored result: `2026-11-22T22:00:00.123456+00:00`.
pub(super) fn in_result(micros: u64) -> String {
    utc(micros).strftime("%Y-%m-%dT%H:%M:%S%.6f+00:00").to_string()
}

/// Reads a worker's moment; `None` unless it has a fraction of 1 to 6 digits.
pub(super) fn from_post(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.')?;
    let digits = fraction.len();
    if !(1..=6).contains(&digits) || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let moment = DateTime::strptime("%Y-%m-%d %H:%M:%S", whole).ok()?;
    let seconds = moment.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second();
    let micros = fraction.parse::<u64>().ok()? * 10_u64.pow(6 - u32::try_from(digits).ok()?);
    Some(u64::try_from(seconds).ok()? * 1_000_000 + micros)
}

fn utc(micros: u64) -> DateTime {
    let micros = i64::try_from(micros).unwrap_or(i64::MAX);
    let moment = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::UNIX_EPOCH);
    TimeZone::UTC.to_datetime(moment)
}

#[cfg(test)]
mod tests {
    use super::{from_post, in_job_id, in_post, in_reply, utc};

    const MOMENT: u64 = 1_795_384_878_012_345;

    #[test]
    fn moments_are_written_as_the_contract_does() {
        assert_eq!(in_reply(MOMENT), "Sun, 22 Nov 2026 22:01:18 GMT");
        for day in 0..400 {
            let moment = MOMENT + day * 86_400_000_000;
            let expected = utc(moment).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
            assert_eq!(in_reply(moment), expected);
        }
        assert_eq!(in_post(MOMENT), "2026-11-22 22:01:18.012345");
        assert_eq!(in_job_id(MOMENT), "20261122-220118");
    }

    #[test]
    fn a_post_needs_a_fraction() {
        assert_eq!(from_post("2026-11-22 22:01:18.012345"), Some(MOMENT));
        assert_eq!(from_post("2026-11-22 22:01:18.5"), Some(1_795_384_878_500_000));
        for bad in ["2026-11-22 22:01:18", "2026-11-22T22:01:18.1", "x.1", "2026-11-22 22:01:18.1234567"] {
            assert_eq!(from_post(bad), None, "{bad}");
        }
    }
}
