//! A probe as it is written in a matrix file.

use serde::Deserialize;
use toml::Spanned;

use super::{Probe, ProbeName, StartAt, words};
use crate::{
    micros::{self, Micros},
    scenario::Scenario,
};

/// Windows are within these bounds.
const LEAST: Micros = Micros(100_000);
const MOST: Micros = Micros(86_400_000_000);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::scenario) struct ProbeRow {
    name: Spanned<ProbeName>,
    command: Spanned<Command>,
    #[serde(default)]
    start_at: StartAt,
    #[serde(rename = "for")]
    window: Spanned<String>,
    scenarios: Option<Spanned<Vec<String>>>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "write the program and its arguments, as a list of words or as one line")]
enum Command {
    Words(Vec<String>),
    Line(String),
}

/// Where in the file something is wrong, in which field, and what.
type Wrong = (usize, &'static str, String);

impl ProbeRow {
    /// The probe, checked against the scenarios of its file and the probes before it.
    pub(in crate::scenario) fn probe(self, scenarios: &[Scenario], before: &[Probe]) -> Result<Probe, Wrong> {
        let at = self.name.span().start;
        let name = self.name.into_inner();
        if before.iter().any(|p| p.name.is(name.as_str())) {
            return Err((at, "name", format!("{name} stands there twice")));
        }
        let at = self.command.span().start;
        let command = match self.command.into_inner() {
            Command::Words(words) => Ok(words),
            Command::Line(line) => words::split(&line),
        };
        let command = command
            .and_then(|command| words::check(&command).map(|()| command))
            .map_err(|problem| (at, "command", problem))?;
        let at = self.window.span().start;
        let window = micros::parse(self.window.get_ref())
            .ok_or_else(|| (at, "for", "write a time with its unit, such as \"60s\" or \"5m\"".to_owned()))?;
        if !(LEAST..=MOST).contains(&window) {
            return Err((at, "for", "must be 100ms to 24h".into()));
        }
        let mut its = Vec::new();
        if let Some(names) = self.scenarios {
            let at = names.span().start;
            for typed in names.get_ref() {
                let Some(scenario) = scenarios.iter().find(|s| s.id.is(typed)) else {
                    let ids: Vec<&str> = scenarios.iter().map(|s| s.id.as_str()).collect();
                    let problem =
                        format!("{typed} is no scenario of this file, which has {}", ids.join(", "));
                    return Err((at, "scenarios", problem));
                };
                its.push(scenario.id.clone());
            }
            if its.is_empty() {
                return Err((at, "scenarios", "must name at least one, or be left out for all".into()));
            }
        }
        Ok(Probe { name, command, start_at: self.start_at, window, scenarios: its })
    }
}
