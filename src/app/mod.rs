//! What a command does: wiring only, one file a command.

pub mod backend;
mod course;
mod errand;
mod facts;
mod fleet;
mod folder;
mod instruments;
mod key;
mod local;
mod lock;
pub mod manager;
mod manifest;
pub mod matrix;
mod metering;
mod preflight;
mod progress;
mod redis;
pub mod report;
mod resume;
mod rigging;
pub mod run;
mod scene;
mod sealed;
mod secret;
pub mod tap;
mod wanted;
pub mod worker;

use std::{fmt, io::Write};

use anyhow::Error;

use crate::verdict::Exit;

/// Where a command may speak: stdout for results, and nothing else.
///
/// It is a handle of our own, because Goose prints a line of its own to the process's stdout.
pub type Out = Box<dyn Write + Send>;

/// Why a command did not come to its end.
#[derive(Debug)]
pub struct Failure {
    /// What the process exits with.
    pub exit: Exit,
    /// What went wrong, in one line.
    pub error: Error,
}

impl Failure {
    /// Something that the user can mend in what was typed: exit code 2.
    pub fn usage(error: impl Into<Error>) -> Self {
        Self { exit: Exit::Usage, error: error.into() }
    }

    /// Something that went wrong on the way: exit code 1.
    pub fn runtime(error: impl Into<Error>) -> Self {
        Self { exit: Exit::Failed, error: error.into() }
    }
}

impl fmt::Display for Failure {
    /// The error and its causes in one line. A cause that the message before it has quoted is not
    /// said again.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = self.error.to_string();
        for cause in self.error.chain().skip(1).map(ToString::to_string) {
            if !line.ends_with(&cause) {
                line = format!("{line}: {cause}");
            }
        }
        f.write_str(&line.replace('\n', " "))
    }
}
