//! The routes that the target's workers post to.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One of them. The method is POST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Route {
    /// The state of a task.
    #[serde(rename = "/tasks")]
    Tasks,
    /// The state of a job.
    #[serde(rename = "/jobs")]
    Jobs,
    /// The merged results.
    #[serde(rename = "/results")]
    Results,
    /// Log files.
    #[serde(rename = "/logfiles")]
    Logfiles,
}

impl Route {
    /// Every route.
    pub const ALL: [Self; 4] = [Self::Tasks, Self::Jobs, Self::Results, Self::Logfiles];
    /// Those that faults hit when nothing else is said.
    pub const FAULTY: [Self; 2] = [Self::Tasks, Self::Results];

    /// The path.
    pub fn path(self) -> &'static str {
        match self {
            Self::Tasks => "/tasks",
            Self::Jobs => "/jobs",
            Self::Results => "/results",
            Self::Logfiles => "/logfiles",
        }
    }

    /// The route of that path.
    pub fn of_path(path: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|r| r.path() == path)
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_found_by_their_path() {
        assert!(Route::ALL.into_iter().all(|r| Route::of_path(r.path()) == Some(r)));
        assert_eq!(Route::of_path("/tasks/"), None);
    }
}
