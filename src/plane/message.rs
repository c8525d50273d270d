//! What manager and workers say to each other.

use serde::{Deserialize, Serialize};

use crate::{
    crew::{Member, Offset},
    micros::Micros,
    plan::Cell,
    record::{Build, Host},
    snapshot::Frame,
};

/// What the manager tells its workers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// You may not take part.
    Refuse {
        /// Who.
        member: Member,
        /// Why, in one line.
        why: String,
    },
    /// Bring the users of your share to the start.
    Prepare {
        /// The cell.
        cell: Cell,
        /// Who shares it: the place in the list is the number of the share.
        members: Vec<Member>,
        /// Jobs of an earlier cell may go on at the target: look after them first.
        tidy: bool,
    },
    /// T0 of the cell.
    Start {
        /// Which.
        cell: u32,
        /// On the plane's clock.
        at: Micros,
    },
    /// Every worker's jobs have an outcome: make the target quiet and read its list.
    Settle {
        /// Which.
        cell: u32,
    },
    /// The cell is given up: stop loading, cancel what is in flight.
    Abort {
        /// Which.
        cell: u32,
    },
    /// There will be no more.
    End,
}

/// A report and who sent it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sent {
    /// Who.
    pub from: Member,
    /// What.
    pub report: Report,
}

/// What a worker tells the manager.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Report {
    /// I am here.
    Hello(Box<Hello>),
    /// All users of the share stand at the start.
    Ready {
        /// Of which cell.
        cell: u32,
        /// How the clock stands.
        offset: Offset,
    },
    /// A job of the share was seen merging, for the first time.
    Merging {
        /// Of which cell.
        cell: u32,
    },
    /// All jobs of the share have an outcome.
    Through {
        /// Of which cell.
        cell: u32,
        /// How long after T0 the users were let go.
        start_late: Option<Micros>,
    },
    /// Measurements.
    Frame(Frame),
    /// The share cannot be carried out, or was stopped on command.
    GaveUp {
        /// Of which cell.
        cell: u32,
        /// Why; `None` after an [`Command::Abort`].
        why: Option<String>,
    },
    /// The share was not begun at T0, for a reason that may not come again.
    Missed {
        /// Of which cell.
        cell: u32,
        /// Why.
        why: String,
    },
    /// I finish the cell I am at, and am not to be counted on for another.
    Draining,
    /// I take no more part.
    Leaving,
}

/// Who a worker is, and what it would carry out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// Its program.
    pub build: Build,
    /// SHA-256 of the program's file, in hex.
    pub build_hash: String,
    /// SHA-256 of the plan as it understood it, in hex.
    pub plan_hash: String,
    /// Its machine.
    pub host: Host,
    /// Why it cannot take part, such as for want of a password.
    pub trouble: Option<String>,
}

#[cfg(test)]
pub(crate) mod trial {
    use super::*;

    /// Somebody whom nothing is wrong with.
    pub(crate) fn hello() -> Hello {
        let text = |s: &str| s.to_owned();
        Hello {
            build: Build {
                version: text("0"),
                revision: text("r"),
                profile: text("debug"),
                goose: text("0.19.0"),
            },
            build_hash: text("b"),
            plan_hash: text("p"),
            host: Host {
                name: text("host"),
                cpu: text("cpu"),
                cores: 2,
                memory: 1,
                kernel: text("k"),
                open_files: 1,
            },
            trouble: None,
        }
    }
}
