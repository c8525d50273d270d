//! The bugs the stand-in can be told to have: the ground truth of springtide's own tests.
//!
//! Each has a name for the command line, with an optional parameter after `=`.
//! The figures in the comments (8-B …) are the findings of the target's contract.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::draw::{self, About};

/// One fault of the stand-in, as a switch.
#[derive(Debug, Clone, PartialEq)]
pub enum Bug {
    /// A share of the jobs (decided by seed, per job) has a flaw: `lost-completed`, `stuck=0.2` ….
    Flawed {
        /// What is wrong with them.
        flaw: Flaw,
        /// Which part of the jobs, in `[0, 1]`.
        share: f64,
    },
    /// `keys-void-after=5s` (8-E): from then on every update key is refused, as after a restart.
    KeysVoidAfter(Duration),
    /// `refuse=3s..6s` (8-F): connections are cut for that window after the start.
    /// Posts of the internal workers that fall into it kill their task.
    Refuse {
        /// Start of the window, since the start of the server.
        from: Duration,
        /// End of the window.
        to: Duration,
    },
    /// `slow-results=2s`: `POST /results` waits that long before it stores.
    SlowResults(Duration),
    /// `slow-fetch=2s`: `GET /results` waits that long before it answers.
    SlowFetch(Duration),
    /// `error-500=/jobs:0.2`: that share of the client requests to a path answers 500.
    Error500 {
        /// The path, as in `/jobs/direct`.
        route: String,
        /// Which part of the requests, in `[0, 1]`.
        share: f64,
    },
    /// `html`: every client route answers an HTML page with status 200.
    Html,
    /// `html-error`: every client route answers 502 with an HTML page, as a proxy does.
    HtmlError,
    /// `login-refused`: every login answers 401.
    LoginRefused,
    /// `vanish-after=3s`: the server stops listening and drops every connection, for good.
    VanishAfter(Duration),
}

/// What can be wrong with a single job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flaw {
    /// After COMPLETED, with its end time set, the state is overwritten by RUNNING for good (8-B).
    LostCompleted,
    /// The worker posts `/results` three times at once, and all of them are stored (8-C).
    DuplicateResults,
    /// All tasks fail and the job stays in MERGING_RUNNING for ever (8-D).
    AllFailedStuck,
    /// All tasks fail and the job becomes FAILED.
    AllFailed,
    /// The tasks start and never end: RUNNING for ever.
    Stuck,
    /// After it was accepted the job is gone: 404, and not in the list.
    LoseJob,
    /// Submit answers 500 after the row was committed; the row stays in UNKNOWN.
    Ghost,
    /// One submit creates two rows of the same title; the reply names the first.
    DuplicateJob,
    /// COMPLETED, but `GET /results` answers 404.
    MissingResults,
    /// `GET /results` is cut in the middle of the JSON, with the length of what is sent.
    BrokenResults,
    /// `GET /results` lacks its last estimator.
    WrongResults,
}

impl Flaw {
    /// Every flaw.
    pub const ALL: [Self; 11] = [
        Self::LostCompleted,
        Self::DuplicateResults,
        Self::AllFailedStuck,
        Self::AllFailed,
        Self::Stuck,
        Self::LoseJob,
        Self::Ghost,
        Self::DuplicateJob,
        Self::MissingResults,
        Self::BrokenResults,
        Self::WrongResults,
    ];

    /// The name of the switch.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LostCompleted => "lost-completed",
            Self::DuplicateResults => "duplicate-results",
            Self::AllFailedStuck => "all-failed-stuck",
            Self::AllFailed => "all-failed",
            Self::Stuck => "stuck",
            Self::LoseJob => "lose-job",
            Self::Ghost => "ghost",
            Self::DuplicateJob => "duplicate-job",
            Self::MissingResults => "missing-results",
            Self::BrokenResults => "broken-results",
            Self::WrongResults => "wrong-results",
        }
    }
}

impl Bug {
    /// The flaw, in every job.
    pub fn always(flaw: Flaw) -> Self {
        Self::Flawed { flaw, share: 1.0 }
    }

    /// The flaw this bug gives to the simulation `pk`, if any.
    pub(super) fn flaw_of(&self, seed: u64, pk: u64) -> Option<Flaw> {
        match *self {
            Self::Flawed { flaw, share } => {
                (draw::unit(seed, About::Flaw, flaw as u64, pk) < share).then_some(flaw)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Bug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flawed { flaw, share: 1.0 } => f.write_str(flaw.as_str()),
            Self::Flawed { flaw, share } => write!(f, "{}={share}", flaw.as_str()),
            Self::KeysVoidAfter(after) => write!(f, "keys-void-after={}", Span(*after)),
            Self::Refuse { from, to } => write!(f, "refuse={}..{}", Span(*from), Span(*to)),
            Self::SlowResults(by) => write!(f, "slow-results={}", Span(*by)),
            Self::SlowFetch(by) => write!(f, "slow-fetch={}", Span(*by)),
            Self::Error500 { route, share } => write!(f, "error-500={route}:{share}"),
            Self::Html => f.write_str("html"),
            Self::HtmlError => f.write_str("html-error"),
            Self::LoginRefused => f.write_str("login-refused"),
            Self::VanishAfter(after) => write!(f, "vanish-after={}", Span(*after)),
        }
    }
}

/// Why a text is no [`Bug`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BugError {
    /// No switch has this name.
    #[error("no bug is called {name:?}; known: {}", known())]
    Unknown {
        /// The name given.
        name: String,
    },
    /// The parameter does not fit the switch.
    #[error("bug {name:?} cannot take {value:?}; expected {expected}")]
    Parameter {
        /// The name of the switch.
        name: String,
        /// What stood after `=`.
        value: String,
        /// What it takes.
        expected: &'static str,
    },
}

impl FromStr for Bug {
    type Err = BugError;

    fn from_str(text: &str) -> Result<Self, BugError> {
        let (name, value) = match text.trim().split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (text.trim(), None),
        };
        let bad = |expected| BugError::Parameter {
            name: name.to_owned(),
            value: value.unwrap_or_default().to_owned(),
            expected,
        };
        let span = || value.and_then(parse_span).ok_or_else(|| bad("a time such as 3s or 250ms after '='"));
        let bare = |bug: Self| match value {
            None => Ok(bug),
            Some(_) => Err(bad("no parameter")),
        };
        if let Some(flaw) = Flaw::ALL.into_iter().find(|flaw| flaw.as_str() == name) {
            let share = value.map_or(Some(1.0), parse_share);
            let share = share.ok_or_else(|| bad("a share between 0 and 1 after '='"))?;
            return Ok(Self::Flawed { flaw, share });
        }
        match name {
            "keys-void-after" => span().map(Self::KeysVoidAfter),
            "slow-results" => span().map(Self::SlowResults),
            "slow-fetch" => span().map(Self::SlowFetch),
            "vanish-after" => span().map(Self::VanishAfter),
            "refuse" => value
                .and_then(|value| value.split_once(".."))
                .and_then(|(from, to)| Some((parse_span(from)?, parse_span(to)?)))
                .filter(|(from, to)| from < to)
                .map(|(from, to)| Self::Refuse { from, to })
                .ok_or_else(|| bad("a window such as 3s..6s after '='")),
            "error-500" => value
                .and_then(|value| value.rsplit_once(':'))
                .filter(|(route, _)| route.starts_with('/'))
                .and_then(|(route, share)| {
                    Some(Self::Error500 { route: route.to_owned(), share: parse_share(share)? })
                })
                .ok_or_else(|| bad("a path and a share such as /jobs:0.2 after '='")),
            "html" => bare(Self::Html),
            "html-error" => bare(Self::HtmlError),
            "login-refused" => bare(Self::LoginRefused),
            _ => Err(BugError::Unknown { name: name.to_owned() }),
        }
    }
}

fn known() -> String {
    let flaws = Flaw::ALL.map(Flaw::as_str).join(", ");
    format!(
        "{flaws}, keys-void-after, refuse, slow-results, slow-fetch, error-500, html, html-error, \
         login-refused, vanish-after"
    )
}

fn parse_share(text: &str) -> Option<f64> {
    text.parse().ok().filter(|share| (0.0..=1.0).contains(share))
}

fn parse_span(text: &str) -> Option<Duration> {
    let unit_at = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit_at);
    let seconds = match unit {
        "us" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        _ => return None,
    };
    let number: f64 = number.parse().ok()?;
    // Whole microseconds, so that what is printed reads back as the same value.
    let micros = Duration::try_from_secs_f64(number * seconds).ok()?.as_nanos().div_ceil(1000);
    u64::try_from(micros).ok().map(Duration::from_micros)
}

/// A duration as the switches write it.
struct Span(Duration);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        match micros {
            _ if micros.is_multiple_of(1_000_000) => write!(f, "{}s", micros / 1_000_000),
            _ if micros.is_multiple_of(1000) => write!(f, "{}ms", micros / 1000),
            _ => write!(f, "{micros}us"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Bug, BugError, Flaw};

    #[test]
    fn every_switch_reads_back_what_it_prints() {
        let mut switches: Vec<String> = Flaw::ALL.iter().map(|flaw| flaw.as_str().to_owned()).collect();
        switches.extend(Flaw::ALL.iter().map(|flaw| format!("{}=0.25", flaw.as_str())));
        switches.extend(
            [
                "keys-void-after=5s",
                "refuse=3s..6s",
                "refuse=250ms..1500ms",
                "slow-results=2s",
                "slow-fetch=17us",
                "error-500=/jobs:0.2",
                "error-500=/jobs/direct:1",
                "html",
                "html-error",
                "login-refused",
                "vanish-after=3s",
            ]
            .map(str::to_owned),
        );
        for switch in switches {
            let bug: Bug = switch.parse().unwrap();
            assert_eq!(bug.to_string(), switch);
            assert_eq!(bug.to_string().parse::<Bug>().unwrap(), bug);
        }
    }

    #[test]
    fn spans_take_fractions_and_minutes() {
        assert_eq!("slow-fetch=1.5s".parse::<Bug>().unwrap().to_string(), "slow-fetch=1500ms");
        assert_eq!("slow-fetch=2m".parse::<Bug>().unwrap().to_string(), "slow-fetch=120s");
    }

    #[test]
    fn what_is_no_bug_is_refused_with_its_name() {
        let unknown = "no-such".parse::<Bug>().unwrap_err();
        assert!(unknown.to_string().contains("no-such") && unknown.to_string().contains("ghost"));
        for text in [
            "stuck=2",
            "stuck=x",
            "html=1",
            "refuse=6s..3s",
            "refuse=3s",
            "slow-fetch",
            "slow-fetch=3",
            "error-500=jobs:0.1",
            "error-500=/jobs",
            "vanish-after=-1s",
        ] {
            let refused = text.parse::<Bug>().unwrap_err();
            assert!(matches!(refused, BugError::Parameter { .. }), "{text}: {refused}");
        }
    }

    #[test]
    fn a_share_hits_that_share_of_the_jobs_and_always_the_same_ones() {
        let bug: Bug = "stuck=0.25".parse().unwrap();
        let hits = |seed| -> Vec<u64> { (1..=2000).filter(|&pk| bug.flaw_of(seed, pk).is_some()).collect() };
        assert_eq!(hits(1), hits(1));
        assert_ne!(hits(1), hits(2));
        assert!((400..600).contains(&hits(1).len()), "{}", hits(1).len());
        assert!((1..=100).all(|pk| Bug::always(Flaw::Ghost).flaw_of(3, pk).is_some()));
    }
}
