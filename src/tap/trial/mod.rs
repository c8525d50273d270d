//! The tap from the outside, with raw sockets on both sides.
