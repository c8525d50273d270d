//! Whether the internal workers send a post again that got no usable answer, and when.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::draw::{self, About};

/// How often a post is sent again at most.
const REPEATS: u32 = 10;

/// The pause before the first repeat; each later one is twice as long.
const FIRST: Duration = Duration::from_millis(100);

/// No pause is longer.
const LONGEST: Duration = Duration::from_secs(3);

/// What a worker does about a post that got no usable answer: the connection broke, the answer was
/// no JSON, or its status was 5xx.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retries {
    /// Nothing, as the target's workers do today (8-F).
    #[default]
    None,
    /// It sends the same bytes again, up to ten times, after 100 ms, 200 ms, 400 ms and so on up to
    /// 3 s, each ± 20 %. The worker's slot stays taken meanwhile.
    ///
    /// Each post carries an `Idempotency-Key`, the same on repeats, by which the server knows that
    /// it has carried the post out already.
    Exponential,
}

impl Retries {
    /// The name of the policy.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Exponential => "exponential",
        }
    }

    /// How long to wait after attempt `nth` (from 0) of a post; `None` when it was the last.
    pub(super) fn pause(self, seed: u64, post: u64, nth: u32) -> Option<Duration> {
        if self == Self::None || nth >= REPEATS {
            return None;
        }
        let pause = LONGEST.min(FIRST * 2_u32.pow(nth));
        let unit = draw::unit(seed, About::Pause, post, u64::from(nth));
        Some(LONGEST.min(pause.mul_f64(0.8 + 0.4 * unit)))
    }
}

impl fmt::Display for Retries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl FromStr for Retries {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let all = [Self::None, Self::Exponential];
        let found = all.into_iter().find(|retries| retries.as_str() == text.trim());
        found.ok_or_else(|| "write none or exponential".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{LONGEST, REPEATS, Retries};

    #[test]
    fn pauses_double_up_to_the_longest_and_end() {
        for post in 0..200 {
            let pauses: Vec<Duration> =
                (0..).map_while(|nth| Retries::Exponential.pause(7, post, nth)).collect();
            assert_eq!(pauses.len(), REPEATS as usize);
            for (pause, ms) in pauses.iter().zip([100, 200, 400, 800, 1600, 3000, 3000]) {
                let (low, high) = (Duration::from_millis(ms * 8 / 10), Duration::from_millis(ms * 12 / 10));
                assert!((low..=high.min(LONGEST)).contains(pause), "{pause:?} for {ms} ms");
            }
        }
        assert_eq!(Retries::None.pause(7, 0, 0), None);
    }

    #[test]
    fn the_seed_and_the_post_scatter_the_pauses() {
        let pause = |seed, post| Retries::Exponential.pause(seed, post, 0);
        assert_eq!(pause(1, 2), pause(1, 2));
        assert!(pause(1, 2) != pause(1, 3) && pause(1, 2) != pause(2, 2));
    }

    #[test]
    fn policies_read_back() {
        for retries in [Retries::None, Retries::Exponential] {
            assert_eq!(retries.to_string().parse(), Ok(retries));
        }
        assert!("linear".parse::<Retries>().is_err());
    }
}
