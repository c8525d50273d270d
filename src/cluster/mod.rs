//! The engine: a manager that carries out a plan with its workers.
//!
//! `coordinator` decides and does nothing else; `manager` and `worker` do what it decides.

pub mod coordinator;
pub mod manager;
pub mod worker;
