//! What a manager lays down on the plane for its workers: the plan and all that is needed to carry out
//! a share of it, but for the target's passwords, which are sealed or not there at all.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{micros::Micros, plan::Plan, scenario::hex};

/// The manifest of a run.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The manager's springtide, so that another one can say what it met.
    pub(super) version: String,
    /// SHA-256 of its program.
    pub(super) build_hash: String,
    /// The run.
    pub(super) run_id: String,
    /// How the titles of its jobs begin in this start of the run, behind `springtide `.
    pub(super) name: String,
    /// The manager's host.
    pub(super) host: String,
    /// How long leases last.
    pub(super) lease: Micros,
    /// The target's address; no credentials.
    pub(super) target: String,
    /// What is submitted, as [`crate::loadtests::input::Input::text`] has it.
    pub(super) input: String,
    /// Age at which a session is renewed.
    pub(super) refresh_after: Micros,
    /// The account that all users share: its name only.
    pub(super) username: Option<String>,
    /// [`super::sealed::Credentials`], if there is a secret to seal them with.
    pub(super) sealed: Option<String>,
    /// What is to be carried out.
    pub(super) plan: Plan,
}

impl Manifest {
    /// As it is laid down.
    pub(super) fn text(&self) -> String {
        serde_json::to_string(self).expect("a manifest is plain data")
    }

    /// Reads one.
    ///
    /// # Errors
    /// A sentence: it is of another springtide.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: String,
            build_hash: String,
        }
        serde_json::from_str(text).map_err(|error| match serde_json::from_str::<Version>(text) {
            Ok(Version { version, build_hash }) => {
                format!("the manager is springtide {version}, build {build_hash}, and this one is another: {error}")
            }
            Err(_) => format!("what the manager laid down cannot be read: {error}"),
        })
    }

    /// The prefix of the accounts that the run registers.
    pub(super) fn prefix(run_id: &str) -> String {
        format!("springtide-{run_id}")
    }

    /// What passwords of registered accounts are made of where there is no secret to share another:
    /// nobody is kept out by it who knows the run's name.
    pub(super) fn open_key(run_id: &str) -> String {
        hex(&Sha256::digest(format!("accounts of {run_id}"))[..16])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_another_version_is_named() {
        let Err(said) = Manifest::read(r#"{"version":"9.9","build_hash":"abc","new":1}"#) else { panic!() };
        assert!(said.contains("springtide 9.9, build abc"), "{said}");
    }
}
