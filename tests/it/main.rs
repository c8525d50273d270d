//! The integration tests: springtide from the outside, as its users and its targets see it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

/// The import table of DESIGN section 11, held against the source.
mod architecture;
/// `springtide backend` and `springtide tap` as processes of their own.
mod backend;
/// What a run says of each bug that the stand-in can be told to have.
mod bugs;
/// The stand-in over a real Redis.
mod celery;
/// Every unit, manifest, image and compose file in deploy/, held against the program and the disk.
mod deploy;
/// A real plane of the shipped files: its certificates, its two users and their rights; `make plane`.
mod deploy_plane;
/// Faults end to end, through a tap in a process of its own.
mod faults;
/// A manager and its workers, as processes on a real plane: their shares, their losses, what is refused.
mod fleet;
/// Workers that look for a run, and both ends of the plane, over a real Redis.
mod lobby;
/// Runs of the real binary against the built-in stand-in.
mod local;
/// The matrix files and the fixtures, held against the disk in both directions.
mod matrix;
/// A server that answers as it is told, right or wrong.
mod odd;
/// Spans, as an OTLP endpoint gets them, and endpoints that take none.
mod otlp;
/// The plane over a real Redis, held against the one in memory.
mod plane;
/// Who is let in on a plane, and which planes are used at all.
mod plane_entry;
/// Watched processes and probes, with real Python, py-spy and memray.
mod profiling;
/// A real Prometheus beside a run, with the shipped configuration, rules and dashboard.
mod prometheus;
/// Every command, flag and table of the README, held against the code.
mod readme;
/// The sampler of the target's Redis, on a real one.
mod redis_sampling;
/// A real redis-server of a test's own.
mod redis_server;
/// `springtide matrix`: resumed, alone on its target, and INVALID cells made again.
mod resume;
/// Exposition endpoints, sound and not, scraped beside the cells of a run.
mod scrape;
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
/// The traces of jobs, as the server that gets them sees them.
mod traces;
/// What is reported, held against what the server knows to be true.
mod truth;
/// Mistakes: one line that names what is wrong, and nothing started or written.
mod usage;
/// Users of several workers: whose accounts they use, what they look after, when they submit no more.
mod users;
/// Targets that are not the stand-in, and hardly HTTP.
mod wire;
