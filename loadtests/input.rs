//! What is submitted: a complete body for `POST /jobs/direct`, in which each job sets its own
//! number of tasks and its title.

use std::{fs, io, path::Path};

use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::{plan::InputFacts, scenario::hex};

/// The built-in payload: SHIELD-HIT12A input files of a proton pencil beam on water.
const BUILT_IN: &str = include_str!("../fixtures/submit/shieldhit_files.json");

/// A payload, ready to be sent many times.
#[derive(Debug, Clone)]
pub struct Input {
    /// What reports say of it.
    pub facts: InputFacts,
    /// The JSON object's members but `ntasks` and `title`, without the braces.
    rest: Bytes,
}

/// Why a payload was refused; each message is one line.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// The file cannot be read.
    #[error("--input {path}: {source}")]
    Unreadable {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// It is no body of a submit.
    #[error("--input {path}: {why}")]
    Bad {
        /// The file.
        path: String,
        /// What is wrong and what would be right.
        why: String,
    },
}

impl Input {
    /// The payload that ships with springtide.
    pub fn built_in() -> Self {
        Self::parse(BUILT_IN.as_bytes(), "built-in shieldhit_files.json")
            .expect("the shipped payload is checked by a test")
    }

    /// Reads a payload from a file.
    ///
    /// # Errors
    /// When it cannot be read, is no JSON object, or lacks what every submit needs.
    pub fn load(path: &Path) -> Result<Self, InputError> {
        let name = path.display().to_string();
        let bytes = fs::read(path).map_err(|source| InputError::Unreadable { path: name.clone(), source })?;
        Self::parse(&bytes, &name).map_err(|why| InputError::Bad { path: name, why })
    }

    fn parse(bytes: &[u8], name: &str) -> Result<Self, String> {
        let mut members: Map<String, Value> = serde_json::from_slice(bytes)
            .map_err(|e| format!("not a JSON object: {e}; it must be a whole body for POST /jobs/direct"))?;
        for (key, values) in [("sim_type", None), ("input_type", Some(["files", "editor"]))] {
            let value = members.get(key).and_then(Value::as_str);
            let fits = value.is_some_and(|v| values.is_none_or(|allowed| allowed.contains(&v)));
            if !fits {
                let wanted = values.map_or("a text".into(), |v| format!("one of {}", v.join(", ")));
                return Err(format!(
                    "field {key:?} must be {wanted}, is {}",
                    members.get(key).unwrap_or(&Value::Null)
                ));
            }
        }
        let kind = if members["input_type"] == "files" { "input_files" } else { "input_json" };
        if !members.get(kind).is_some_and(Value::is_object) {
            return Err(format!(
                "field {kind:?} must be an object, as input_type says {}",
                members["input_type"]
            ));
        }
        members.remove("ntasks");
        members.remove("title");
        let text = serde_json::to_string(&members).expect("JSON that was read can be written");
        Ok(Self {
            facts: InputFacts {
                name: Path::new(name).file_name().map_or(name.into(), |n| n.to_string_lossy().into_owned()),
                sha256: hex(&Sha256::digest(bytes)),
                bytes: bytes.len() as u64,
            },
            rest: Bytes::copy_from_slice(&text.as_bytes()[1..text.len() - 1]),
        })
    }

    /// The same on another host: what reports say of it, and the text that [`text`](Self::text) gave.
    pub fn sent(facts: InputFacts, text: String) -> Self {
        Self { facts, rest: text.into() }
    }

    /// What is needed to submit it from another host.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.rest).into_owned()
    }

    /// The body of one submit.
    pub fn body(&self, tasks: u32, title: &str) -> Bytes {
        let title = Value::from(title);
        let mut body = format!("{{\"ntasks\":{tasks},\"title\":{title},").into_bytes();
        body.extend_from_slice(&self.rest);
        body.push(b'}');
        body.into()
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[test]
    fn a_body_is_the_payload_with_tasks_and_title() {
        let body = Input::built_in().body(8, "a \"b\"");
        let sent: Value = serde_json::from_slice(&body).unwrap();
        let mut file: Value = serde_json::from_str(BUILT_IN).unwrap();
        file["ntasks"] = 8.into();
        file["title"] = "a \"b\"".into();
        assert_eq!(sent, file);
    }

    #[rstest]
    #[case("[]", "not a JSON object")]
    #[case("{}", "\"sim_type\" must be a text")]
    #[case(r#"{"sim_type":"x","input_type":"file"}"#, "\"input_type\" must be one of files, editor")]
    #[case(r#"{"sim_type":"x","input_type":"files"}"#, "\"input_files\" must be an object")]
    fn a_bad_payload_is_refused(#[case] text: &str, #[case] why: &str) {
        let said = Input::parse(text.as_bytes(), "x.json").unwrap_err();
        assert!(said.contains(why), "{said}");
    }
}
