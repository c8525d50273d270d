//! stub
#![allow(missing_docs, unused_variables)]
use crate::{injection::Canary, post::*, route::Route};
use std::time::Duration;
#[derive(Debug, Clone)]
pub struct Link;
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    #[error("x")]
    Unreachable { url: String },
    #[error("y")]
    Restarted,
}
impl Link {
    pub fn new(url: &str, t: Option<String>) -> Result<Self, LinkError> {
        Err(LinkError::Restarted)
    }
    pub fn url(&self) -> &str {
        ""
    }
    pub async fn hello(&self) -> Result<TapHello, LinkError> {
        Err(LinkError::Restarted)
    }
    pub async fn posts(&self, b: &str, n: u64) -> Result<Batch, LinkError> {
        Err(LinkError::Restarted)
    }
    pub async fn set(&self, o: &FaultOrder) -> Result<FaultStatus, LinkError> {
        Err(LinkError::Restarted)
    }
    pub async fn start(&self, r: &str, c: u32, d: Duration) -> Result<FaultStatus, LinkError> {
        Err(LinkError::Restarted)
    }
    pub async fn renew(&self, r: &str, c: u32) -> Result<FaultStatus, LinkError> {
        Err(LinkError::Restarted)
    }
    pub async fn clear(&self, r: &str) -> Result<FaultStatus, LinkError> {
        Err(LinkError::Restarted)
    }
    pub async fn canary(&self, r: Route, n: u64, d: Duration) -> Canary {
        todo!()
    }
}
pub async fn canary_at(u: &str, r: Route, n: u64, d: Duration) -> Canary {
    todo!()
}
