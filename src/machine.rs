//! What measures: a program on a machine.

use serde::{Deserialize, Serialize};

/// The program that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Build {
    /// springtide's version.
    pub version: String,
    /// Git revision it was built from, `-dirty` when changed; `unknown` outside a checkout.
    pub revision: String,
    /// `release` or `debug`.
    pub profile: String,
    /// Goose's version.
    pub goose: String,
}

/// The machine that measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Its name.
    pub name: String,
    /// CPU model.
    pub cpu: String,
    /// Cores it may use.
    pub cores: u32,
    /// Memory in bytes.
    pub memory: u64,
    /// Kernel release.
    pub kernel: String,
    /// Open files allowed.
    pub open_files: u64,
}
