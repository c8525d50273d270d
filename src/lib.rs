//! springtide: a load generator for job-based backends.
pub mod estimate;
pub mod finding;
pub mod histogram;
pub mod judgement;
pub mod ledger;
pub mod micros;
pub mod plan;
pub mod record;
pub mod scenario;
pub mod series;
pub mod snapshot;
pub mod state;
pub mod summary;
pub mod target;
pub mod threshold;
pub mod timeline;
pub mod verdict;
