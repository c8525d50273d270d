//! springtide.
pub mod timeline;
