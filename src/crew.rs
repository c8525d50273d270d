//! Who carried a run out: the workers of each cell, and what befell them.
//!
//! It only tells. Who takes part is decided in the engine; what a loss means is a matter of the rules.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    machine::{Build, Host},
    micros::Micros,
    snapshot::Health,
};

/// A worker in one life: the name it goes by, and the epoch it was given when it took its lease. One
/// that comes back has another epoch, so that nothing it says late is taken for something new.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Unique on a plane at any time.
    pub name: String,
    /// Rises with every lease of a run.
    pub epoch: u64,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (epoch {})", self.name, self.epoch)
    }
}

/// How a host's clock stands to the plane's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offset {
    /// The plane's clock less the host's own (Unix time), in microseconds.
    pub ahead: i64,
    /// Half the round trip of the best sample: the offset is right to ± this.
    pub error: Micros,
}

/// What one worker did in one cell.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Its epoch.
    pub epoch: u64,
    /// Users of its share; 0 for one that stood by.
    pub users: u32,
    /// Frames that arrived, each counted once.
    pub frames: u64,
    /// Frames that should have arrived and did not.
    pub gaps: u64,
    /// Frames that arrived again.
    pub repeated: u64,
    /// How its clock stood when it was ready.
    pub offset: Offset,
    /// How long after T0 it let its users go, on its own monotonic clock; with the error of the offset
    /// it is how far its start was from that of the others. `None` when it did not start.
    pub start_late: Option<Micros>,
    /// How well it was doing itself.
    pub health: Health,
    /// Why it did not stay to the end.
    pub lost: Option<String>,
}

impl Part {
    /// Whose it is.
    pub fn member(&self) -> Member {
        Member { name: self.name.clone(), epoch: self.epoch }
    }
}

/// The plane that a run was carried out over.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Crew {
    /// Its address; no credentials.
    pub plane: String,
    /// Version of its Redis.
    pub version: String,
    /// The name that Redis gave itself at its start.
    pub run_id: String,
    /// How long a lease lasts that is not renewed.
    pub lease: Micros,
    /// How many workers were waited for.
    pub expected: u32,
    /// What befell the workers, in order.
    pub events: Vec<Event>,
}

impl Crew {
    /// Takes an event down. Late frames of one worker are one event, however many there are; returns
    /// whether it is a new one.
    pub fn take_down(&mut self, event: Event) -> bool {
        if let (What::LateFrames { frames }, Some(last)) = (&event.what, self.events.last_mut())
            && let (What::LateFrames { frames: before }, true) = (&mut last.what, last.who == event.who)
        {
            *before += frames;
            return false;
        }
        self.events.push(event);
        true
    }
}

/// Something that befell a worker, or the plane.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When, in Unix microseconds of the plane's clock.
    pub at: u64,
    /// Whom; `None` for the plane and the manager itself.
    pub who: Option<Member>,
    /// The cell that ran, if one did.
    pub cell: Option<u32>,
    /// What.
    pub what: What,
}

/// What can befall them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum What {
    /// It came and was taken in.
    Joined {
        /// Its machine.
        host: Host,
        /// Its program.
        build: Build,
    },
    /// It came and was sent away.
    Refused {
        /// Why, in one line.
        why: String,
    },
    /// It went, as it had said.
    Left,
    /// It is gone: its lease ran out, or another one goes by its name.
    Lost {
        /// Why, in one line.
        why: String,
    },
    /// Frames of it came when it was not counted on any more; they are in no figure.
    LateFrames {
        /// How many.
        frames: u64,
    },
    /// The manager lost the plane, or its own lease on it.
    Cut {
        /// Why, in one line.
        why: String,
    },
    /// The manager has the plane again.
    Back,
    /// Too few came in time.
    Short {
        /// Who came, who did not, in one line.
        why: String,
    },
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Joined { host, build } => {
                write!(
                    f,
                    "joined from {}, {} cores, {} {}",
                    host.name, host.cores, build.version, build.revision
                )
            }
            Self::Refused { why } => write!(f, "refused: {why}"),
            Self::Left => f.write_str("left"),
            Self::Lost { why } => write!(f, "lost: {why}"),
            Self::LateFrames { frames: 1 } => f.write_str("a late frame, kept apart"),
            Self::LateFrames { frames } => write!(f, "{frames} late frames, kept apart"),
            Self::Cut { why } => write!(f, "cut off: {why}"),
            Self::Back => f.write_str("back"),
            Self::Short { why } => f.write_str(why),
        }
    }
}
