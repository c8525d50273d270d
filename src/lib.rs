//! springtide: a load generator for job-based backends, where a client submits a job, polls it and
//! fetches its results.
//!
//! Data flows one way: matrix → plan → shares → users → recorder → frames → totals → verdict →
//! run record → reports. A module imports from the groups above its own, and from its own without a circle;
//! `tests/it/architecture.rs` holds the table.

// Words.
pub mod estimate;
pub mod fault;
pub mod histogram;
pub mod machine;
pub mod micros;
pub mod moment;
pub mod post;
pub mod route;
pub mod scenario;
pub mod series;
pub mod state;
pub mod threshold;
pub mod timeline;
pub mod trace;

// Sums.
pub mod agreement;
pub mod bootstrap;
pub mod crew;
pub mod finding;
pub mod injection;
pub mod judgement;
pub mod ledger;
pub mod merge_cost;
pub mod payload;
pub mod plan;
pub mod posts;
pub mod record;
pub mod relation;
pub mod repetitions;
pub mod resilience;
pub mod saturation;
pub mod snapshot;
pub mod summary;
pub mod telemetry;
pub mod verdict;

// Edges.
pub mod live;
pub mod plane;
pub mod recorder;
pub mod sampling;
pub mod spans;
pub mod tap;
pub mod target;
pub mod toxiproxy;

// Load.
pub mod attack;
pub mod driver;
#[path = "../loadtests/mod.rs"]
pub mod loadtests;

// Engine.
pub mod cluster;

// Paper.
pub mod report;

// Hands.
pub mod app;
pub mod cli;
pub mod standin;
