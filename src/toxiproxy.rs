//! stub
#![allow(missing_docs, unused_variables)]
use crate::fault::Fault;
#[derive(Debug)]
pub struct Toxiproxy;
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct ToxiproxyError;
impl Toxiproxy {
    pub fn new(u: &str, n: &str) -> Result<Self, ToxiproxyError> {
        Err(ToxiproxyError)
    }
    pub fn check(&self, f: &Fault) -> Result<(), ToxiproxyError> {
        Ok(())
    }
    pub async fn open(&mut self) -> Result<Vec<String>, ToxiproxyError> {
        Ok(vec![])
    }
    pub fn listen(&self) -> &str {
        ""
    }
    pub async fn inject(&mut self, f: &Fault) -> Result<(), ToxiproxyError> {
        Ok(())
    }
    pub async fn clear(&mut self) -> Result<(), ToxiproxyError> {
        Ok(())
    }
    pub fn deviations(&self, f: &Fault) -> Vec<String> {
        vec![]
    }
}
