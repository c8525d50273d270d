//! The system under test, seen from a client: where it is, which routes it has, what its answers
//! mean, and the HTTP connection that carries them.
//!
//! Nothing here decides what to send when; that is `loadtests`.

mod connection;
pub mod decode;
pub mod endpoint;
pub mod http;
mod meter;
pub mod origin;
mod trust;

pub use endpoint::Endpoint;
pub use http::{Answer, Client, HttpError, Sockets};
pub(crate) use meter::{Metered, Tally};
pub use origin::{Origin, OriginError, url_of};
pub(crate) use origin::{connector, without_credentials};
