//! Reading the body of a submit: what is asked for, and how it is split over the tasks.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use crate::standin::call::require_keys;
use crate::standin::job::Request;
use crate::standin::reply::Reply;

/// A submit that passed the checks before the row is written.
#[derive(Debug)]
pub(super) struct Submission {
    pub(super) title: String,
    pub(super) request: Request,
    /// Number of tasks, clamped to what there is to simulate.
    pub(super) tasks: usize,
    /// Primaries of each task.
    pub(super) primaries_per_task: u64,
    /// The target raises after it has committed the row.
    pub(super) raises: bool,
}

impl Submission {
    pub(super) fn read(body: &Map<String, Value>) -> Result<Self, Reply> {
        require_keys(body, &["sim_type", "ntasks", "input_type"])?;
        let wrong = || Reply::bad_request("Wrong data provided");
        let text = |key: &str| match body.get(key) {
            None => Ok(String::new()),
            Some(value) => value.as_str().map(str::to_owned).ok_or_else(Reply::server_error),
        };
        let editor = match body.get("input_type").and_then(Value::as_str) {
            Some("editor") => true,
            Some("files") => false,
            _ => return Err(wrong()),
        };
        let input = body.get(if editor { "input_json" } else { "input_files" }).ok_or_else(wrong)?;
        let wanted = body.get("ntasks").and_then(Value::as_i64).ok_or_else(Reply::server_error)?;
        let (title, sim_type) = (text("title")?, text("sim_type")?);
        let known = matches!(sim_type.as_str(), "shieldhit" | "fluka");
        let primaries = if editor { project_primaries(input) } else { Some(file_primaries(input)) };
        let raises = primaries.is_none() || (editor && !known);
        let primaries = primaries.unwrap_or_default();
        let most = usize::try_from(primaries).unwrap_or(usize::MAX).max(1);
        let tasks = usize::try_from(wanted).unwrap_or(0).clamp(1, most);
        let primaries_per_task = primaries / tasks as u64;
        let inputs = inputs_reply(editor, input, primaries, primaries_per_task);
        let outputs = if editor { output_names(input) } else { Vec::new() };
        let request = Request { sim_type, editor, outputs, inputs };
        Ok(Self { title, request, tasks, primaries_per_task, raises })
    }
}

fn project_primaries(project: &Value) -> Option<u64> {
    project.get("beam")?.get("numberOfParticles")?.as_u64()
}

fn output_names(project: &Value) -> Vec<String> {
    let outputs = project.pointer("/scoringManager/outputs").and_then(Value::as_array);
    let names = outputs.into_iter().flatten().filter_map(|output| output.get("name")?.as_str());
    names.map(str::to_owned).collect()
}

/// The primaries that `NSTAT` (SHIELD-HIT12A) or `START` (FLUKA) asks for; 0 without either.
fn file_primaries(files: &Value) -> u64 {
    let texts = files.as_object().into_iter().flatten().filter_map(|(_, text)| text.as_str());
    texts.flat_map(str::lines).find_map(card_primaries).unwrap_or(0)
}

fn card_primaries(line: &str) -> Option<u64> {
    let mut words = line.split_whitespace();
    let card = words.next()?;
    if !matches!(card, "NSTAT" | "START") {
        return None;
    }
    let number: f64 = words.next()?.parse().ok()?;
    (number >= 0.0).then_some(number as u64)
}

/// The reply of `GET /inputs`, made once: the files of one task, and the project if there is one.
fn inputs_reply(editor: bool, input: &Value, primaries: u64, per_task: u64) -> Bytes {
    let mut content = Map::new();
    content.insert("input_type".to_owned(), Value::from(if editor { "EDITOR" } else { "FILES" }));
    content.insert("number_of_all_primaries".to_owned(), Value::from(primaries));
    if editor {
        // The target converts the project; the stand-in only shows that there are files.
        let files = json!({ "beam.dat": format!("NSTAT {per_task} 0\n"), "info.json": "{}" });
        content.insert("input_files".to_owned(), files);
        content.insert("input_json".to_owned(), input.clone());
    } else {
        let files = input.as_object().into_iter().flatten();
        let split = files.map(|(name, text)| (name.clone(), split_file(text, per_task)));
        content.insert("input_files".to_owned(), Value::Object(split.collect()));
    }
    Bytes::from(format!("{}\n", json!({ "input": content, "message": "Input of simulation" })))
}

fn split_file(text: &Value, per_task: u64) -> Value {
    let Some(text) = text.as_str() else {
        return text.clone();
    };
    let line = |line: &str| match card_primaries(line) {
        Some(_) if line.starts_with("START") => {
            format!("START     {:>10}\n", format!("{per_task}."))
        }
        Some(_) => format!("NSTAT {per_task} 0\n"),
        None => format!("{line}\n"),
    };
    Value::from(text.lines().map(line).collect::<String>())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::Submission;

    fn read(body: Value) -> Option<Submission> {
        Submission::read(body.as_object().unwrap()).ok()
    }

    fn files(ntasks: Value, beam: &str) -> Value {
        json!({"input_type": "files", "sim_type": "shieldhit", "ntasks": ntasks,
               "input_files": {"beam.dat": beam, "info.json": "{}"}})
    }

    #[test]
    fn primaries_are_split_and_tasks_clamped() {
        let submission = read(files(json!(4), "MODE 1\nNSTAT 10000 0\n")).unwrap();
        assert_eq!((submission.tasks, submission.primaries_per_task), (4, 2500));
        let inputs = std::str::from_utf8(&submission.request.inputs).unwrap();
        assert!(inputs.contains("NSTAT 2500 0") && inputs.contains("\"number_of_all_primaries\":10000"));
        assert_eq!(read(files(json!(0), "NSTAT 10 0")).unwrap().tasks, 1);
        assert_eq!(read(files(json!(50), "NSTAT 10 0")).unwrap().tasks, 10);
        assert_eq!(read(files(json!(3), "")).unwrap().primaries_per_task, 0);
    }

    #[test]
    fn projects_name_their_outputs() {
        let project = json!({"beam": {"numberOfParticles": 100},
            "scoringManager": {"outputs": [{"name": "b"}, {"name": "a"}]}});
        let body = json!({"input_type": "editor", "sim_type": "shieldhit", "ntasks": 2, "title": "t",
            "input_json": project});
        let submission = read(body).unwrap();
        assert_eq!(submission.request.outputs, ["b", "a"]);
        assert!(!submission.raises);
        let bad = json!({"input_type": "editor", "sim_type": "shieldhit", "ntasks": 2, "input_json": {}});
        assert!(read(bad).unwrap().raises);
    }

    #[test]
    fn what_the_target_refuses_is_refused() {
        for ntasks in [json!("4"), json!(null), json!(4.0)] {
            assert!(read(files(ntasks, "NSTAT 10 0")).is_none());
        }
        assert!(read(json!({"input_type": "files", "sim_type": "shieldhit"})).is_none());
        assert!(read(json!({"input_type": "x", "sim_type": "shieldhit", "ntasks": 1})).is_none());
        assert!(read(json!({"input_type": "editor", "sim_type": "fluka", "ntasks": 1})).is_none());
    }
}
