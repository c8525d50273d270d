//! springtide: a load generator for job-based backends.
pub mod estimate;
pub mod histogram;
pub mod micros;
pub mod plan;
pub mod scenario;
pub mod series;
pub mod snapshot;
pub mod state;
pub mod timeline;
