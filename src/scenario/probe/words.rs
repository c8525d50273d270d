//! The words of a probe's command: how a line is split, and what its placeholders stand for.

use std::{collections::BTreeMap, path::Path};

use super::Pids;

/// What placeholders stand for in one cell.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// `{dir}`: where the probe may leave files.
    pub dir: &'a Path,
    /// `{scenario}`.
    pub scenario: &'a str,
    /// `{repetition}`.
    pub repetition: u32,
    /// `{tasks}`: tasks of each job.
    pub tasks: u32,
    /// `{pid:NAME}` of each watched process, and `{pid}` when it is the only one.
    pub pids: &'a BTreeMap<String, u32>,
}

/// Every placeholder, for messages.
const KNOWN: &str = "{dir}, {scenario}, {repetition}, {tasks}, {pid:NAME} and {pid}; write {{ for a brace";

enum Part<'a> {
    Plain(&'a str),
    Dir,
    Scenario,
    Repetition,
    Tasks,
    Pid(&'a str),
    OnlyPid,
}

/// The parts of a word; `{{` and `}}` are braces.
fn parts(word: &str) -> Result<Vec<Part<'_>>, String> {
    let (mut parts, mut rest) = (Vec::new(), word);
    while let Some(at) = rest.find(['{', '}']) {
        parts.push(Part::Plain(&rest[..at]));
        let brace = &rest[at..=at];
        let behind = &rest[at + 1..];
        if behind.starts_with(brace) {
            parts.push(Part::Plain(brace));
            rest = &behind[1..];
            continue;
        }
        if brace == "}" {
            // A lone one closes nothing and stands for itself.
            parts.push(Part::Plain(brace));
            rest = behind;
            continue;
        }
        let Some((name, after)) = behind.split_once('}') else {
            return Err("a brace { is opened and not closed; write {{ for a brace".into());
        };
        parts.push(match name {
            "dir" => Part::Dir,
            "scenario" => Part::Scenario,
            "repetition" => Part::Repetition,
            "tasks" => Part::Tasks,
            "pid" => Part::OnlyPid,
            _ => match name.strip_prefix("pid:").filter(|name| !name.is_empty()) {
                Some(process) => Part::Pid(process),
                None => return Err(format!("{{{name}}} is unknown; there are {KNOWN}")),
            },
        });
        rest = after;
    }
    parts.push(Part::Plain(rest));
    Ok(parts)
}

/// Whether the command can be started once its placeholders are filled in.
pub(super) fn check(command: &[String]) -> Result<(), String> {
    if command.first().is_none_or(String::is_empty) {
        return Err("must name a program".into());
    }
    if command.iter().any(|word| word.contains('\0')) {
        return Err("must not contain a zero byte".into());
    }
    command.iter().try_for_each(|word| parts(word).map(drop))
}

/// The watched processes that a checked command names.
pub(super) fn pids(command: &[String]) -> Pids {
    let mut pids = Pids::default();
    for part in command.iter().filter_map(|word| parts(word).ok()).flatten() {
        match part {
            Part::Pid(name) => _ = pids.named.insert(name.to_owned()),
            Part::OnlyPid => pids.only = true,
            _ => {}
        }
    }
    pids
}

/// A word with its placeholders filled in.
pub(super) fn fill(word: &str, with: &Filling<'_>) -> Result<String, String> {
    let mut filled = String::new();
    for part in parts(word)? {
        match part {
            Part::Plain(text) => filled.push_str(text),
            Part::Dir => filled.push_str(&with.dir.to_string_lossy()),
            Part::Scenario => filled.push_str(with.scenario),
            Part::Repetition => filled.push_str(&with.repetition.to_string()),
            Part::Tasks => filled.push_str(&with.tasks.to_string()),
            Part::Pid(name) => {
                let pid = with.pids.get(name).ok_or_else(|| format!("no process {name} is watched"))?;
                filled.push_str(&pid.to_string());
            }
            Part::OnlyPid => match with.pids.values().collect::<Vec<_>>()[..] {
                [pid] => filled.push_str(&pid.to_string()),
                _ => return Err(format!("{{pid}}: {} processes are watched, not one", with.pids.len())),
            },
        }
    }
    Ok(filled)
}

/// Splits a line at blanks. Between `'` all is as it stands; between `"` a backslash keeps the `"`
/// or backslash behind it; elsewhere it keeps whatever is behind it. Nothing is expanded.
pub(super) fn split(line: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some('\''), c) => word.get_or_insert_default().push(c),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (open, '\\') => {
                let next = chars.next().ok_or("it ends with a backslash")?;
                let word = word.get_or_insert_default();
                if open.is_some() && !matches!(next, '"' | '\\') {
                    word.push('\\');
                }
                word.push(next);
            }
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    if let Some(open) = quote {
        return Err(format!("a quote {open} is opened and not closed"));
    }
    words.extend(word);
    Ok(words)
}
