//! The parts of JSON's grammar that are longer than one byte: strings and numbers.

/// Where in a string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Text {
    Plain,
    Escape,
    /// Digits that are missing, and the value of those before.
    Hex(u8, u16),
    /// UTF-8: bytes that are missing, and the bounds of the next one.
    More(u8, u8, u8),
}

/// The last part of a number that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    Minus,
    Zero,
    Digits,
    Point,
    Fraction,
    Exponent,
    Sign,
    Power,
}

impl Number {
    pub(super) fn first(byte: u8) -> Option<Self> {
        match byte {
            b'-' => Some(Self::Minus),
            b'0' => Some(Self::Zero),
            b'1'..=b'9' => Some(Self::Digits),
            _ => None,
        }
    }

    pub(super) fn then(self, byte: u8) -> Option<Self> {
        match (self, byte) {
            (Self::Minus, b'0'..=b'9') => Self::first(byte),
            (Self::Digits, b'0'..=b'9') => Some(Self::Digits),
            (Self::Zero | Self::Digits, b'.') => Some(Self::Point),
            (Self::Point | Self::Fraction, b'0'..=b'9') => Some(Self::Fraction),
            (Self::Zero | Self::Digits | Self::Fraction, b'e' | b'E') => Some(Self::Exponent),
            (Self::Exponent, b'+' | b'-') => Some(Self::Sign),
            (Self::Exponent | Self::Sign | Self::Power, b'0'..=b'9') => Some(Self::Power),
            _ => None,
        }
    }
}

/// What may follow the first byte of a character of several (RFC 3629, section 4).
pub(super) fn first_of_many(byte: u8) -> Option<Text> {
    let (left, low, high) = match byte {
        0xc2..=0xdf => (1, 0x80, 0xbf),
        0xe0 => (2, 0xa0, 0xbf),
        0xed => (2, 0x80, 0x9f),
        0xe1..=0xef => (2, 0x80, 0xbf),
        0xf0 => (3, 0x90, 0xbf),
        0xf1..=0xf3 => (3, 0x80, 0xbf),
        0xf4 => (3, 0x80, 0x8f),
        _ => return None,
    };
    Some(Text::More(left, low, high))
}

/// How many bytes at the front are ASCII that means itself in a string; eight at a time, so that
/// long strings cost little. It may stop early.
pub(super) fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGHS: u64 = u64::from_ne_bytes([0x80; 8]);
    let below = |word: u64, n: u8| word.wrapping_sub(ONES * u64::from(n)) & !word;
    let is_plain = |word: u64| {
        let [quote, backslash] = [b'"', b'\\'].map(|b| below(word ^ (ONES * u64::from(b)), 1));
        (word | below(word, 0x20) | quote | backslash) & HIGHS == 0
    };
    let (words, _) = bytes.as_chunks::<8>();
    8 * words.iter().take_while(|word| is_plain(u64::from_ne_bytes(**word))).count()
}
