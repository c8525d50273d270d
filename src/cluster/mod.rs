//! The engine: a manager that carries out a plan with its workers.
//!
//! `coordinator` decides and does nothing else; `manager` and `worker` do what it decides. The `rig`
//! stands beside them with the tap and the faults.

pub mod coordinator;
pub mod manager;
pub mod members;
mod received;
pub mod rig;
#[cfg(test)]
mod trial;
pub mod worker;
