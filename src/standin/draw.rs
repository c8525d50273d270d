//! Seeded decisions: each one a pure function of (seed, what, which), so that
//! neither the order of requests nor the clock can change it.

/// What a draw decides; keeps the draws about one job apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum About {
    TaskTime,
    TaskValues,
    TaskFailure,
    Flaw,
    JobId,
    Error,
    Secret,
    Pause,
}

/// 64 mixed bits for the question `(about, a, b)`.
///
/// The finaliser is that of SplitMix64 (Steele, Lea, Flood 2014), once per input.
pub(super) fn bits(seed: u64, about: About, a: u64, b: u64) -> u64 {
    [about as u64, a, b].into_iter().fold(mix(seed), |state, input| mix(state ^ mix(input)))
}

/// A number in `[0, 1)` for the question `(about, a, b)`.
pub(super) fn unit(seed: u64, about: About, a: u64, b: u64) -> f64 {
    (bits(seed, about, a, b) >> 11) as f64 / (1_u64 << 53) as f64
}

/// A version-4 UUID (RFC 9562) of these bits.
pub(super) fn uuid(bits: u128) -> String {
    let bits = bits & !(0xf << 76) & !(0b11 << 62) | (0x4 << 76) | (0b10 << 62);
    let hex = format!("{bits:032x}");
    let (a, b, c, d, e) = (&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]);
    format!("{a}-{b}-{c}-{d}-{e}")
}

fn mix(input: u64) -> u64 {
    let mut z = input.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::{About, bits, unit};

    #[test]
    fn same_question_same_answer_and_questions_differ() {
        assert_eq!(bits(1, About::Flaw, 2, 3), bits(1, About::Flaw, 2, 3));
        assert_ne!(bits(1, About::Flaw, 2, 3), bits(1, About::JobId, 2, 3));
        assert_ne!(bits(1, About::Flaw, 2, 3), bits(1, About::Flaw, 3, 2));
        assert_ne!(bits(1, About::Flaw, 2, 3), bits(2, About::Flaw, 2, 3));
    }

    #[test]
    fn units_fill_the_unit_interval_evenly() {
        let mean = (0..10_000).map(|i| unit(7, About::TaskTime, i, 0)).sum::<f64>() / 10_000.0;
        assert!((mean - 0.5).abs() < 0.02, "{mean}");
    }
}
