//! The integration tests: springtide from the outside, as its users and its targets see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// The import table of DESIGN section 11, held against the source.
mod architecture;
/// `springtide backend` and `springtide tap` as processes of their own.
mod backend;
/// What a run says of each bug that the stand-in can be told to have.
mod bugs;
/// Faults end to end, through a tap in a process of its own.
mod faults;
/// Runs of the real binary against the built-in stand-in.
mod local;
/// The matrix files and the fixtures, held against the disk in both directions.
mod matrix;
/// A server that answers as it is told, right or wrong.
mod odd;
/// Watched processes and probes, with real Python, py-spy and memray.
mod profiling;
/// Every command, flag and table of the README, held against the code.
mod readme;
/// Ctrl-C, SIGTERM and SIGKILL in the middle of a run.
mod signals;
/// What the other modules are written with: a run, its end, a backend, an odd server.
mod support;
/// `springtide tap` as a process of its own.
mod tap;
/// Runs whose faults a Toxiproxy does.
mod toxic_runs;
/// The client of Toxiproxy's API.
mod toxiproxy;
/// A Toxiproxy that follows the documented API, and lies when told to.
mod toxiproxy_fake;
/// What is reported, held against what the server knows to be true.
mod truth;
/// Mistakes: one line that names what is wrong, and nothing started or written.
mod usage;
/// Targets that are not the stand-in, and hardly HTTP.
mod wire;
