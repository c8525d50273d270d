//! Probes: external commands, such as profilers, that run in a window of a cell.

mod row;
mod words;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Scenario, ScenarioId};
use crate::micros::Micros;
pub(super) use row::ProbeRow;
pub use words::Filling;

/// A `[[probe]]` of the matrix file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Names its files: 1 to 32 letters, digits, `-` or `_`.
    pub name: ProbeName,
    /// The program and its arguments, placeholders not yet filled in.
    pub command: Vec<String>,
    /// When it starts.
    pub start_at: StartAt,
    /// It is told to end after this long, or when the cell ends.
    pub window: Micros,
    /// The scenarios it runs in; all when empty.
    pub scenarios: Vec<ScenarioId>,
}

/// Name of a probe: the same rules as for scenarios, since both become parts of file names.
pub type ProbeName = ScenarioId;

/// When a probe starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartAt {
    /// At T0.
    #[default]
    Cell,
    /// When the first job of the cell is seen merging.
    FirstMerge,
}

/// Watched processes that a probe's command names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pids {
    /// Those of `{pid:NAME}`.
    pub named: BTreeSet<String>,
    /// Whether there is a `{pid}`, which is the only watched process.
    pub only: bool,
}

impl Probe {
    /// Whether it runs in the cells of a scenario.
    pub fn runs_in(&self, scenario: &ScenarioId) -> bool {
        self.scenarios.is_empty() || self.scenarios.iter().any(|s| s.is(scenario.as_str()))
    }

    /// Those of some probes that run in at least one of the scenarios.
    pub fn of_scenarios(probes: Vec<Self>, scenarios: &[Scenario]) -> Vec<Self> {
        probes.into_iter().filter(|p| scenarios.iter().any(|s| p.runs_in(&s.id))).collect()
    }

    /// The watched processes that its command names.
    pub fn needs(&self) -> Pids {
        words::pids(&self.command)
    }

    /// The command with its placeholders filled in.
    ///
    /// # Errors
    /// When it names a process that is not watched; [`Probe::check`] tells so before a run.
    pub fn filled(&self, with: &Filling<'_>) -> Result<Vec<String>, String> {
        self.command.iter().map(|word| words::fill(word, with)).collect()
    }

    /// Whether every process that the probes name is watched.
    ///
    /// # Errors
    /// One line with the probe, the name and the remedy.
    pub fn check<'a>(probes: &[Self], watched: impl IntoIterator<Item = &'a str>) -> Result<(), String> {
        let watched: BTreeSet<&str> = watched.into_iter().collect();
        for probe in probes {
            let needs = probe.needs();
            if let Some(name) = needs.named.iter().find(|name| !watched.contains(name.as_str())) {
                return Err(format!(
                    "--watch-pid: probe {} needs the process {{pid:{name}}}; give --watch-pid {name}=PID, or run without that probe",
                    probe.name
                ));
            }
            if needs.only && watched.len() != 1 {
                return Err(format!(
                    "--watch-pid: probe {} says {{pid}}, which needs exactly one --watch-pid and not {}; write {{pid:NAME}} or give one",
                    probe.name,
                    watched.len()
                ));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, path::Path};

    use proptest::prelude::{prop_assert_eq, proptest};
    use rstest::rstest;

    use super::*;
    use crate::scenario::Matrix;

    const S: &str = "[[scenario]]\nid = \"S1\"\nconcurrent_jobs = 1\ntasks = 4\n";

    fn read(probes: &str) -> Result<Vec<Probe>, String> {
        Matrix::parse(&format!("{S}{probes}"), "m.toml").map(|m| m.probes).map_err(|e| e.to_string())
    }

    fn one(command: &str) -> Probe {
        read(&format!("[[probe]]\nname = \"p\"\ncommand = {command}\nfor = \"60s\"\n")).unwrap().remove(0)
    }

    #[test]
    fn a_probe_is_read_with_its_defaults() {
        let probe = one(r#""py-spy record -o '{dir}/my file' --pid {pid:celery}""#);
        assert_eq!(probe.command, ["py-spy", "record", "-o", "{dir}/my file", "--pid", "{pid:celery}"]);
        assert_eq!(
            (probe.start_at, probe.window, probe.scenarios.len()),
            (StartAt::Cell, Micros(60_000_000), 0)
        );
        assert_eq!(probe.needs(), Pids { named: ["celery".to_owned()].into(), only: false });
        let list = one(r#"["a b", "{{x}}"]"#);
        assert_eq!(list.command, ["a b", "{{x}}"]);
        let text = "[[probe]]\nname = \"q\"\ncommand = [\"true\"]\nfor = \"2m\"\nstart_at = \"first_merge\"\nscenarios = [\"s1\"]\n";
        let probe = read(text).unwrap().remove(0);
        assert_eq!((probe.start_at, probe.scenarios[0].as_str()), (StartAt::FirstMerge, "S1"));
    }

    #[rstest]
    #[case("name = \"p\"\ncommand = []\nfor = \"1s\"\n", "line 7: command: must name a program")]
    #[case("name = \"p\"\ncommand = \"  \"\nfor = \"1s\"\n", "line 7: command: must name a program")]
    #[case("name = \"p\"\ncommand = [\"\", \"x\"]\nfor = \"1s\"\n", "line 7: command: must name a program")]
    #[case(
        "name = \"p\"\ncommand = \"a 'b\"\nfor = \"1s\"\n",
        "line 7: command: a quote ' is opened and not closed"
    )]
    #[case(
        "name = \"p\"\ncommand = \"a {pdi}\"\nfor = \"1s\"\n",
        "line 7: command: {pdi} is unknown; there are"
    )]
    #[case("name = \"p\"\ncommand = \"a {pid:}\"\nfor = \"1s\"\n", "line 7: command: {pid:} is unknown")]
    #[case(
        "name = \"p\"\ncommand = \"a {dir\"\nfor = \"1s\"\n",
        "line 7: command: a brace { is opened and not closed"
    )]
    #[case("name = \"p\"\ncommand = 7\nfor = \"1s\"\n", "line 7: command: ")]
    #[case("name = \"p/q\"\ncommand = \"a\"\nfor = \"1s\"\n", "line 6: name: ")]
    #[case("name = \"p\"\ncommand = \"a\"\nfor = \"soon\"\n", "line 8: for: write a time with its unit")]
    #[case("name = \"p\"\ncommand = \"a\"\nfor = \"0s\"\n", "line 8: for: must be 100ms to 24h")]
    #[case("name = \"p\"\ncommand = \"a\"\n", "missing field `for`")]
    #[case(
        "name = \"p\"\ncommand = \"a\"\nfor = \"1s\"\nstart_at = \"merge\"\n",
        "line 9: start_at: unknown variant"
    )]
    #[case("name = \"p\"\ncommand = \"a\"\nfor = \"1s\"\nwindow = \"1s\"\n", "line 9: window: unknown field")]
    #[case(
        "name = \"p\"\ncommand = \"a\"\nfor = \"1s\"\nscenarios = [\"S9\"]\n",
        "line 9: scenarios: S9 is no scenario of this file, which has S1"
    )]
    #[case(
        "name = \"p\"\ncommand = \"a\"\nfor = \"1s\"\nscenarios = []\n",
        "line 9: scenarios: must name at least one, or be left out for all"
    )]
    #[case(
        "name = \"p\"\ncommand = \"a\"\nfor = \"1s\"\n[[probe]]\nname = \"P\"\ncommand = \"a\"\nfor = \"1s\"\n",
        "line 10: name: P stands there twice"
    )]
    fn a_bad_probe_is_named_with_line_and_field(#[case] probe: &str, #[case] says: &str) {
        let error = read(&format!("[[probe]]\n{probe}")).unwrap_err();
        assert!(error.contains(says), "{error}");
        assert!(error.starts_with("matrix m.toml, line "), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }

    #[test]
    fn placeholders_are_filled_in() {
        let pids: BTreeMap<String, u32> = [("celery".to_owned(), 4711)].into();
        let with = Filling {
            dir: Path::new("/r/merge-profiles/S4-r03"),
            scenario: "S4",
            repetition: 3,
            tasks: 32,
            pids: &pids,
        };
        let probe = one(r#""x {dir}/{scenario}-{repetition}-{tasks}.txt {pid:celery}{pid} {{tasks}}""#);
        assert_eq!(
            probe.filled(&with).unwrap(),
            ["x", "/r/merge-profiles/S4-r03/S4-3-32.txt", "47114711", "{tasks}"]
        );
        let none = BTreeMap::new();
        assert!(probe.filled(&Filling { pids: &none, ..with }).is_err());
    }

    #[test]
    fn a_process_that_is_not_watched_is_told_with_its_remedy() {
        let named = [one(r#""a {pid:celery}""#)];
        assert!(Probe::check(&named, ["celery", "redis"]).is_ok());
        let says = Probe::check(&named, ["redis"]).unwrap_err();
        assert!(says.contains("probe p") && says.contains("--watch-pid celery=PID"), "{says}");
        let only = [one(r#""a {pid}""#)];
        assert!(Probe::check(&only, ["celery"]).is_ok());
        assert!(Probe::check(&only, ["celery", "redis"]).unwrap_err().contains("exactly one"));
        assert!(Probe::check(&only, []).is_err());
    }

    #[test]
    fn probes_of_scenarios_that_do_not_run_are_left_out() {
        let mut probe = one(r#""a""#);
        probe.scenarios = vec!["S2".to_owned().try_into().unwrap()];
        let all = vec![one(r#""b""#), probe];
        let scenarios = Matrix::parse(S, "m.toml").unwrap().scenarios;
        let left = Probe::of_scenarios(all, &scenarios);
        assert_eq!(left.iter().map(|p| p.command[0].as_str()).collect::<Vec<_>>(), ["b"]);
    }

    proptest! {
        #[test]
        fn a_quoted_word_comes_out_as_it_went_in(words in proptest::collection::vec("[a-z \"\\\\]{1,8}", 1..6)) {
            let line: Vec<String> = words.iter().map(|w| format!("'{w}'")).collect();
            prop_assert_eq!(super::words::split(&line.join("  ")).unwrap(), words);
        }
    }
}
