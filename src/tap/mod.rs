//! stub
#![allow(missing_docs, unused_variables)]
pub mod link;
use std::net::SocketAddr;
pub struct Tap;
pub struct Config {
    pub listen: SocketAddr,
    pub upstream: String,
    pub token: Option<String>,
    pub buffer: usize,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct TapError;
impl Tap {
    pub fn start(c: Config) -> Result<Self, TapError> {
        Err(TapError)
    }
    pub fn url(&self) -> &str {
        ""
    }
}
