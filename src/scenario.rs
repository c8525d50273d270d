//! The matrix: which scenarios there are, read from one TOML file and checked.

use std::{fmt, fs, io, path::Path};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

mod level;
mod probe;

use crate::fault::{Fault, FaultMode};
use level::LevelRow;
pub use probe::{Filling, Pids, Probe, ProbeName, StartAt};

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

    /// Whether somebody who typed that means this one: letter case aside.
    pub fn is(&self, typed: &str) -> bool {
        self.0.eq_ignore_ascii_case(typed)
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

/// One row of the matrix.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Its name.
    pub id: ScenarioId,
    /// Jobs in flight at once, which is the number of users.
    pub concurrent_jobs: u32,
    /// Tasks of each job.
    pub tasks: u32,
    /// The kind of fault of its cells.
    pub fault: FaultMode,
    /// The faults themselves, at least one: they take turns by repetition.
    pub levels: Vec<Fault>,
    /// How often the scenario is repeated.
    pub repetitions: u32,
}

impl Scenario {
    /// The fault of a repetition, from 1.
    pub fn level(&self, repetition: u32) -> &Fault {
        let turn = repetition.saturating_sub(1) as usize % self.levels.len();
        &self.levels[turn]
    }

    /// Whether it is `other` without its fault: what a fault is held against.
    pub fn is_twin_of(&self, other: &Self) -> bool {
        self.fault == FaultMode::None
            && other.fault != FaultMode::None
            && (self.concurrent_jobs, self.tasks) == (other.concurrent_jobs, other.tasks)
    }
}

/// The scenarios of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Matrix {
    /// In the order of the file.
    pub scenarios: Vec<Scenario>,
    /// External commands that run beside its cells.
    pub probes: Vec<Probe>,
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
    scenario: Vec<toml::Spanned<Row>>,
    #[serde(default)]
    probe: Vec<probe::ProbeRow>,
}

/// A scenario as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: ScenarioId,
    concurrent_jobs: u32,
    tasks: u32,
    #[serde(default = "no_fault")]
    fault: FaultMode,
    levels: Option<Vec<toml::Spanned<LevelRow>>>,
    #[serde(default = "ten")]
    repetitions: u32,
}

fn no_fault() -> FaultMode {
    FaultMode::None
}

fn ten() -> u32 {
    10
}

impl Matrix {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// When it cannot be read, is no TOML, has unknown or ill-typed fields, a number out of its
    /// range, or two scenarios or probes of one name, or a probe that cannot be started.
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
            if scenarios.iter().any(|s| s.id.is(row.id.as_str())) {
                let at = find_field(text, span.start, "id");
                return Err(bad(at, "id", format!("{} stands there twice", row.id)));
            }
            let levels = match row.levels {
                None => Fault::default_levels(row.fault),
                Some(rows) if rows.is_empty() || row.fault == FaultMode::None => {
                    let at = find_field(text, span.start, "levels");
                    let problem = "figures of a fault, at least one set: leave it out for fault = \"none\" and for the default levels";
                    return Err(bad(at, "levels", problem.into()));
                }
                Some(rows) => {
                    let level = |r: toml::Spanned<LevelRow>| {
                        let at = r.span().start;
                        r.into_inner().fault(row.fault).map_err(|problem| bad(at, "levels", problem))
                    };
                    rows.into_iter().map(level).collect::<Result<_, _>>()?
                }
            };
            scenarios.push(Scenario {
                id: row.id,
                concurrent_jobs: row.concurrent_jobs,
                tasks: row.tasks,
                fault: row.fault,
                levels,
                repetitions: row.repetitions,
            });
        }
        if scenarios.is_empty() {
            return Err(bad(0, "scenario", "at least one [[scenario]] is needed".into()));
        }
        let mut probes = Vec::new();
        for row in file.probe {
            let probe =
                row.probe(&scenarios, &probes).map_err(|(at, field, problem)| bad(at, field, problem))?;
            probes.push(probe);
        }
        Ok(Self { scenarios, probes, sha256: hex(&Sha256::digest(text)) })
    }

    /// The scenario of that name, letter case aside.
    pub fn get(&self, id: &str) -> Option<&Scenario> {
        self.scenarios.iter().find(|s| s.id.is(id))
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

    #[test]
    fn the_faults_of_the_runbook_take_turns() {
        let matrix = Matrix::runbook();
        let turns =
            |id: &str| (1..=4).map(|r| matrix.get(id).unwrap().level(r).to_string()).collect::<Vec<_>>();
        let (quarter, second) = ("latency +250 ms ± 10.0 ms", "latency +1.00 s ± 40.0 ms");
        assert_eq!(turns("S7"), [quarter, second, quarter, second]);
        assert_eq!(turns("S8"), ["drop 2 %", "drop 5 %", "drop 2 %", "drop 5 %"]);
        assert!(matrix.get("S6").unwrap().is_twin_of(matrix.get("S8").unwrap()));
    }

    #[test]
    fn levels_of_the_file_are_those_of_the_code() {
        for scenario in Matrix::runbook().scenarios {
            assert_eq!(scenario.levels, Fault::default_levels(scenario.fault), "{}", scenario.id);
        }
    }

    #[rstest]
    #[case(
        "latency",
        "{ delay = \"1s\", jitter = \"100ms\", distribution = \"normal\" }",
        "latency +1.00 s ± 100 ms normal"
    )]
    #[case(
        "drop",
        "{ ratio = 0.5, side = \"after\", routes = [\"/results\"] }",
        "drop 50 % of answers on /results"
    )]
    #[case(
        "disconnect",
        "{ refuse = \"2s\", every = \"10s\", from = \"1s\", to = \"1m\" }",
        "disconnect 2.00 s every 10.00 s from 1.00 s to 1m 00s"
    )]
    fn a_level_is_read(#[case] mode: &str, #[case] level: &str, #[case] says: &str) {
        let text = format!(
            "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = 4\nfault = \"{mode}\"\nlevels = [{level}]\n"
        );
        assert_eq!(Matrix::parse(&text, "m.toml").unwrap().scenarios[0].levels[0].to_string(), says);
    }

    #[rstest]
    #[case("latency", "{}", "delay is needed")]
    #[case("latency", "{ delay = \"0s\" }", "delay must be 1ms to 1h")]
    #[case("latency", "{ delay = 250 }", "invalid type: integer")]
    #[case("latency", "{ delay = \"1s\", jitter = \"2s\" }", "jitter must not exceed the delay")]
    #[case("latency", "{ delay = \"1s\", ratio = \"2%\" }", "ratio is not for latency")]
    #[case("drop", "{ ratio = \"120%\" }", "write a share")]
    #[case("drop", "{ ratio = \"2%\", routes = [] }", "routes must name at least one")]
    #[case("drop", "{ ratio = \"2%\", routes = [\"/nowhere\"] }", "unknown variant")]
    #[case("drop", "{ ratio = \"2%\", from = \"2s\", to = \"1s\" }", "to must be later than from")]
    #[case("disconnect", "{ refuse = \"2s\", every = \"1s\" }", "every must be longer than refuse")]
    #[case("none", "{ ratio = 0.1 }", "leave it out for fault = \"none\"")]
    fn a_bad_level_is_named_with_its_line(#[case] mode: &str, #[case] level: &str, #[case] says: &str) {
        let text = format!(
            "[[scenario]]\nid = \"A\"\nconcurrent_jobs = 1\ntasks = 4\nfault = \"{mode}\"\nlevels = [{level}]\n"
        );
        let error = Matrix::parse(&text, "m.toml").unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("line 6"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
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
