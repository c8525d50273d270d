//! The matrix: which scenarios there are, read from one TOML file and checked.

use std::{fmt, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The runbook's matrix S1–S8, as shipped in `loadtests/matrix.toml`.
pub const RUNBOOK: &str = include_str!("../loadtests/matrix.toml");

/// Name of a row of the matrix: 1 to 32 letters, digits, `-` or `_` (it becomes part of file names).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ScenarioId(String);

impl ScenarioId {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ScenarioId {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let fits = (1..=32).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
        if fits {
            Ok(Self(name))
        } else {
            Err(format!("id {name:?} must be 1 to 32 letters, digits, '-' or '_'"))
        }
    }
}

impl From<ScenarioId> for String {
    fn from(id: ScenarioId) -> Self {
        id.0
    }
}

impl fmt::Display for ScenarioId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// What goes wrong on purpose while a scenario runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FaultMode {
    /// Nothing.
    None,
    /// Worker posts are delayed.
    Latency,
    /// Worker posts are cut off, before or after they reach the target.
    Drop,
    /// Worker posts are refused for a while.
    Disconnect,
}

impl fmt::Display for FaultMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::None => "none",
            Self::Latency => "latency",
            Self::Drop => "drop",
            Self::Disconnect => "disconnect",
        })
    }
}

/// One row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub id: ScenarioId,
    /// Jobs in flight at once, which is the number of users.
    pub concurrent_jobs: u32,
    /// Tasks of each job.
    pub tasks: u32,
    /// The fault of its cells.
    #[serde(default = "no_fault")]
    pub fault: FaultMode,
    /// How often the scenario is repeated.
    #[serde(default = "ten")]
    pub repetitions: u32,
}

fn no_fault() -> FaultMode {
    FaultMode::None
}

fn ten() -> u32 {
    10
}

/// The scenarios of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// In the order of the file.
    pub scenarios: Vec<Scenario>,
    /// SHA-256 of the file, in hex.
    pub sha256: String,
}

/// Why a matrix file was refused. Each message is one line with file, line and field.
#[derive(Debug, thiserror::Error)]
pub enum MatrixError {
    /// The file could not be read.
    #[error("matrix {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Its text is not a matrix.
    #[error("matrix {path}, line {line}: {field}{problem}")]
    Bad {
        /// The file.
        path: String,
        /// Line, from 1.
        line: usize,
        /// `field: `, or empty where the fault is no field's.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    scenario: Vec<toml::Spanned<Scenario>>,
}

impl Matrix {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, has unknown or ill-typed fields, a number out of its
    /// range, or two scenarios of one name.
    pub fn load(path: &Path) -> Result<Self, MatrixError> {
        let name = path.display().to_string();
        let text = fs::read_to_string(path)
            .map_err(|source| MatrixError::Unreadable { path: name.clone(), source })?;
        Self::parse(&text, &name)
    }

    /// The runbook's own matrix.
    pub fn runbook() -> Self {
        Self::parse(RUNBOOK, "loadtests/matrix.toml").expect("the shipped matrix is checked by a test")
    }

    /// Reads a matrix out of a file's text; `path` only names it in errors.
    ///
    /// # Errors
    /// As [`Matrix::load`].
    pub fn parse(text: &str, path: &str) -> Result<Self, MatrixError> {
        let bad = |at: usize, field: &str, problem: String| MatrixError::Bad {
            path: path.into(),
            line: line_of(text, at),
            field: if field.is_empty() { String::new() } else { format!("{field}: ") },
            problem,
        };
        let file: File = toml::from_str(text).map_err(|e| {
            let at = e.span().map_or(0, |s| s.start);
            bad(at, &field_at(text, at), e.message().replace('\n', " "))
        })?;
        let mut scenarios: Vec<Scenario> = Vec::new();
        for spanned in file.scenario {
            let span = spanned.span();
            let row = spanned.into_inner();
            let ranges = [
                ("concurrent_jobs", row.concurrent_jobs, 100_000),
                ("tasks", row.tasks, 10_000),
                ("repetitions", row.repetitions, 1_000),
            ];
            for (field, value, most) in ranges {
                if !(1..=most).contains(&value) {
                    let at = find_field(text, span.start, field);
                    return Err(bad(at, field, format!("must be 1 to {most}, is {value}")));
                }
            }
            if scenarios.iter().any(|s| s.id == row.id) {
                let at = find_field(text, span.start, "id");
                return Err(bad(at, "id", format!("{} stands there twice", row.id)));
            }
            scenarios.push(row);
        }
        if scenarios.is_empty() {
            return Err(bad(0, "scenario", "at least one [[scenario]] is needed".into()));
        }
        Ok(Self { scenarios, sha256: hex(&Sha256::digest(text)) })
    }

    /// The scenario of that name, letter case aside.
    pub fn get(&self, id: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|s| s.id.as_str().eq_ignore_ascii_case(id))
    }

    /// All names, for messages: `S1, S2, …`.
    pub fn ids(&self) -> String {
        let ids: Vec<&str> = self.scenarios.iter().map(|s| s.id.as_str()).collect();
        ids.join(", ")
    }
}

/// Lower-case hex of some bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|&&b| b == b'\n').count() + 1
}

/// The key of the `key = value` line that `at` lies in, if it is one.
fn field_at(text: &str, at: usize) -> String {
    let start = text[..at.min(text.len())].rfind('\n').map_or(0, |i| i + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    line.split_once('=').map(|(key, _)| key.trim().to_owned()).unwrap_or_default()
}

/// Where `field` is set in the table that starts at `from`; `from` where it is not.
fn find_field(text: &str, from: usize, field: &str) -> usize {
    let mut at = from;
    for line in text[from..].split_inclusive('\n') {
        if line.trim_start().strip_prefix(field).is_some_and(|r| r.trim_start().starts_with('=')) {
            return at;
        }
        at += line.len();
    }
    from
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn the_runbook_has_exactly_its_rows() {
        let rows: Vec<String> = Matrix::runbook()
            .scenarios
            .iter()
            .map(|s| format!("{} {}x{} {} {}", s.id, s.concurrent_jobs, s.tasks, s.fault, s.repetitions))
            .collect();
        assert_eq!(
            rows,
            [
                "S1 1x4 none 10",
                "S2 1x8 none 10",
                "S3 1x16 none 10",
                "S4 1x32 none 10",
                "S5 5x8 none 10",
                "S6 10x8 none 10",
                "S7 10x8 latency 10",
                "S8 10x8 drop 10",
            ]
        );
    }

    #[rstest]
    #[case(
        "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 0\ntasks = 4\n",
        "m.toml, line 3: concurrent_jobs: must be 1 to 100000, is 0"
    )]
    #[case(
        "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = \"4\"\n",
        "m.toml, line 4: tasks: invalid type"
    )]
    #[case(
        "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = 4\nfualt = \"none\"\n",
        "m.toml, line 5: fualt: unknown field"
    )]
    #[case(
        "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = 4\nfault = \"fire\"\n",
        "m.toml, line 5: fault: unknown variant"
    )]
    #[case(
        "[[scenario]]\nid = \"a/b\"\nconcurrent_jobs = 1\ntasks = 4\n",
        "m.toml, line 2: id: id \"a/b\" must be"
    )]
    #[case("[[scenario]]\nid = \"A\"\ntasks = 4\n", "missing field `concurrent_jobs`")]
    #[case("scenario = []\n", "at least one [[scenario]]")]
    #[case("what is this", "m.toml, line 1: ")]
    #[case(
        "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = 4\n[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = 4\n",
        "m.toml, line 6: id: A stands there twice"
    )]
    fn a_bad_file_is_named_with_line_and_field(#[case] text: &str, #[case] says: &str) {
        let error = Matrix::parse(text, "m.toml").unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn names_are_found_in_any_case() {
        assert_eq!(Matrix::runbook().get("s6").unwrap().concurrent_jobs, 10);
    }
}
