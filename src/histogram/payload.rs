//! The standard payload of a histogram, from and to sparse buckets: HdrHistogram's V2 encoding inside a
//! zlib stream ("V2-deflate").
//!
//! Big-endian: the cookie of a compressed histogram, the length of the zlib stream, and in it cookie,
//! length of the counts, normalizing offset, digits, lowest, highest, conversion ratio, and the counts.
//! A count is a zigzag number in LEB128 of at most nine bytes; a negative one says how many empty buckets
//! follow each other. Source: `AbstractHistogram.encodeIntoByteBuffer` and `ZigZagEncoding` of
//! HdrHistogram 2.1 for Java, which every port reads.
//!
//! The library does the same over an array of all 23,552 buckets. A frame of a second holds twenty
//! histograms with a few dozen values each, and that array was most of what a manager did.

use std::cell::RefCell;

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{Bucket, DIGITS, HIGHEST, index};

const COOKIE: u32 = 0x1c84_9313;
const COMPRESSED: u32 = 0x1c84_9314;
/// Bytes before the counts.
const HEAD: usize = 40;
/// Shorter ones do not shrink by more than it costs: they are stored in the stream as they are.
const WORTHWHILE: usize = 512;

struct Deflate {
    stored: Compress,
    packed: Compress,
    unpack: Decompress,
}

thread_local! {
    // Far dearer to make than to use.
    static DEFLATE: RefCell<Deflate> = RefCell::new(Deflate {
        stored: Compress::new(Compression::none(), true),
        packed: Compress::new(Compression::default(), true),
        unpack: Decompress::new(true),
    });
}

/// The payload of buckets in rising order.
pub(super) fn write(buckets: &[Bucket]) -> Vec<u8> {
    let plain = plain(buckets);
    let mut payload = Vec::with_capacity(plain.len() + 32);
    payload.extend(COMPRESSED.to_be_bytes());
    payload.extend([0; 4]);
    DEFLATE.with_borrow_mut(|deflate| {
        let with = if plain.len() < WORTHWHILE { &mut deflate.stored } else { &mut deflate.packed };
        with.reset();
        loop {
            let done = with.total_in() as usize;
            match with.compress_vec(&plain[done..], &mut payload, FlushCompress::Finish) {
                Ok(Status::StreamEnd) => break,
                Ok(_) => payload.reserve(plain.len()),
                Err(error) => unreachable!("a stream that was begun anew: {error}"),
            }
        }
    });
    let length = (payload.len() - 8) as u32;
    payload[4..8].copy_from_slice(&length.to_be_bytes());
    payload
}

/// The buckets of a payload, in rising order.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(payload: &[u8]) -> Result<Vec<Bucket>, String> {
    let mut rest = payload;
    let (cookie, length) = (u32::from_be_bytes(take(&mut rest)?), u32::from_be_bytes(take(&mut rest)?));
    if cookie != COMPRESSED || length as usize != rest.len() {
        return Err("it is no V2-deflate histogram".into());
    }
    counts(&unpacked(rest)?)
}

/// The zlib stream's content, as long as a histogram may be.
fn unpacked(stream: &[u8]) -> Result<Vec<u8>, String> {
    let most = HEAD + (index(HIGHEST.0) + 1) * 9;
    let mut plain = Vec::with_capacity((stream.len() * 4).clamp(WORTHWHILE, most));
    DEFLATE.with_borrow_mut(|Deflate { unpack, .. }| {
        unpack.reset(true);
        loop {
            let done = unpack.total_in() as usize;
            match unpack.decompress_vec(&stream[done..], &mut plain, FlushDecompress::None) {
                Ok(Status::StreamEnd) => return Ok(plain),
                Ok(_) if plain.len() == plain.capacity() && plain.len() < most => plain.reserve(plain.len()),
                Ok(_) => return Err("its zlib stream does not end".into()),
                Err(error) => return Err(error.to_string()),
            }
        }
    })
}

/// The V2 encoding without compression.
fn plain(buckets: &[Bucket]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD + buckets.len() * 3);
    out.extend(COOKIE.to_be_bytes());
    out.extend([0; 8]);
    out.extend(u32::from(DIGITS).to_be_bytes());
    out.extend(1_u64.to_be_bytes());
    out.extend(HIGHEST.0.to_be_bytes());
    out.extend(1_f64.to_be_bytes());
    let mut next = 0;
    for bucket in buckets {
        match bucket.index() - next {
            0 => {}
            1 => put(&mut out, 0),
            empty => put(&mut out, -(empty as i64)),
        }
        put(&mut out, bucket.count() as i64);
        next = bucket.index() + 1;
    }
    let length = (out.len() - HEAD) as u32;
    out[4..8].copy_from_slice(&length.to_be_bytes());
    out
}

fn counts(mut rest: &[u8]) -> Result<Vec<Bucket>, String> {
    let rest = &mut rest;
    let cookie = u32::from_be_bytes(take(rest)?);
    let length = u32::from_be_bytes(take(rest)?) as usize;
    let offset = u32::from_be_bytes(take(rest)?);
    let digits = u32::from_be_bytes(take(rest)?);
    let range = (u64::from_be_bytes(take(rest)?), u64::from_be_bytes(take(rest)?));
    let ratio = f64::from_be_bytes(take(rest)?);
    let is_ours = digits == u32::from(DIGITS) && range == (1, HIGHEST.0) && ratio == 1.0 && offset == 0;
    if cookie != COOKIE || !is_ours || length != rest.len() {
        return Err(format!("it is no histogram of 1 to {} µs with {DIGITS} digits", HIGHEST.0));
    }
    let mut buckets = Vec::with_capacity(length / 2);
    let mut next = 0_usize;
    while !rest.is_empty() {
        let number = get(rest)?;
        let stretch = usize::try_from(number.saturating_neg()).unwrap_or(0).max(1);
        if stretch > index(HIGHEST.0) + 1 - next {
            return Err(format!("it has more buckets than reach to {} µs", HIGHEST.0));
        }
        match u64::try_from(number) {
            Ok(count) if count >= 1 << 48 => {
                return Err(format!("{count} values are more than a run can hold"));
            }
            Ok(count) if count > 0 => buckets.push(Bucket::new(next, count)),
            _ => {}
        }
        next += stretch;
    }
    buckets.shrink_to_fit();
    Ok(buckets)
}

fn put(out: &mut Vec<u8>, number: i64) {
    let mut rest = (number << 1 ^ number >> 63) as u64;
    for _ in 0..8 {
        if rest < 0x80 {
            break;
        }
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn get(rest: &mut &[u8]) -> Result<i64, String> {
    let mut zigzag = 0_u64;
    for n in 0..9 {
        let [byte] = take(rest)?;
        let (bits, is_last) = if n == 8 { (byte, true) } else { (byte & 0x7f, byte < 0x80) };
        zigzag |= u64::from(bits) << (7 * n);
        if is_last {
            break;
        }
    }
    Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], String> {
    let (taken, left) = rest.split_first_chunk().ok_or("it ends too soon")?;
    *rest = left;
    Ok(*taken)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use hdrhistogram::{
        Histogram as Dense,
        serialization::{Deserializer, Serializer as _, V2DeflateSerializer, V2Serializer},
    };
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, proptest};

    use super::{super::Histogram, *};
    use crate::micros::Micros;

    fn of(values: &[(u64, u64)]) -> Histogram {
        let once = |&(us, n): &(u64, u64)| {
            let mut h = Histogram::default();
            h.record(Micros(us));
            h.buckets[0] = Bucket::new(index(us.clamp(1, HIGHEST.0)), n);
            h.count = n;
            h
        };
        values.iter().map(once).collect::<Vec<_>>().iter().sum()
    }

    proptest! {
        #[test]
        fn it_is_what_the_reference_writes_and_reads(
            values in prop::collection::vec((0u64..4_000_000_000, 1u64..1 << 40), 1..200),
            near in prop::collection::vec((0u64..60, 1u64..300), 0..40),
        ) {
            let h = of(&[values, near].concat());
            let mut reference = Vec::new();
            V2Serializer::new().serialize(&h.to_dense(), &mut reference).unwrap();
            prop_assert_eq!(plain(&h.buckets), reference);
            let dense: Dense<u64> =
                Deserializer::new().deserialize(&mut Cursor::new(write(&h.buckets))).unwrap();
            prop_assert!(dense == h.to_dense());
            let mut theirs = Vec::new();
            V2DeflateSerializer::new().serialize(&dense, &mut theirs).unwrap();
            prop_assert_eq!(read(&theirs), Ok(h.buckets.clone()));
            prop_assert_eq!(read(&write(&h.buckets)), Ok(h.buckets));
        }

        #[test]
        fn what_is_damaged_is_refused_or_another_histogram(
            values in prop::collection::vec((1u64..4_000_000_000, 1u64..5), 1..60),
            at in any::<prop::sample::Index>(),
            bit in 0..8_u8,
        ) {
            let whole = write(&of(&values).buckets);
            let mut damaged = whole.clone();
            damaged[at.index(whole.len())] ^= 1 << bit;
            let _ = read(&damaged);
            prop_assert!(read(&whole[..at.index(whole.len())]).is_err());
            let mut counts_damaged = plain(&of(&values).buckets);
            let place = at.index(counts_damaged.len());
            counts_damaged[place] ^= 1 << bit;
            let _ = counts(&counts_damaged);
        }

        #[test]
        fn a_number_is_read_as_it_was_written(number in any::<i64>()) {
            let mut text = Vec::new();
            put(&mut text, number);
            prop_assert!(text.len() <= 9);
            prop_assert_eq!(get(&mut &text[..]), Ok(number));
        }
    }

    #[test]
    fn more_than_there_are_buckets_is_refused() {
        let mut text = plain(&[]);
        put(&mut text, -(index(HIGHEST.0) as i64 + 1));
        let length = (text.len() - HEAD) as u8;
        text[7] = length;
        assert_eq!(counts(&text), Ok(Vec::new()));
        put(&mut text, 1);
        text[7] = length + 1;
        assert!(counts(&text).unwrap_err().contains("more buckets"));
    }
}
