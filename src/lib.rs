//! springtide.
pub mod standin;
pub mod timeline;
