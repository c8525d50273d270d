//! Planes for tests: one that can be taken away, and one where leases run out and words are lost.

mod storm;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

pub(crate) use self::storm::{Storm, Stormy};
use super::{Entry, Held, Log, Place, Plane, PlaneError};
use crate::{crew::Member, micros::Micros};

/// Another plane, when it is not away.
#[derive(Debug)]
pub(crate) struct Fitful<P> {
    inner: P,
    away: AtomicBool,
}

impl<P> Fitful<P> {
    pub(crate) fn new(inner: P) -> Self {
        Self { inner, away: AtomicBool::new(false) }
    }

    pub(crate) fn is_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn there(&self) -> Result<&P, PlaneError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(PlaneError::Away("is away".into())),
            false => Ok(&self.inner),
        }
    }
}

impl<P: Plane> Plane for Fitful<P> {
    async fn append(&self, log: &Log, entry: &Entry, fence: Option<&Member>) -> Result<(), PlaneError> {
        self.there()?.append(log, entry, fence).await
    }

    async fn read(
        &self,
        places: &mut BTreeMap<Log, Place>,
        wait: Duration,
    ) -> Result<Vec<Entry>, PlaneError> {
        self.there()?.read(places, wait).await
    }

    async fn end_of(&self, log: &Log) -> Result<Place, PlaneError> {
        self.there()?.end_of(log).await
    }

    async fn trim(&self, places: &BTreeMap<Log, Place>, fence: &Member) -> Result<(), PlaneError> {
        self.there()?.trim(places, fence).await
    }

    async fn take(&self, name: &str, ttl: Duration) -> Result<Member, PlaneError> {
        self.there()?.take(name, ttl).await
    }

    async fn renew(&self, lease: &Member, ttl: Duration) -> Result<(), PlaneError> {
        self.there()?.renew(lease, ttl).await
    }

    async fn release(&self, lease: &Member) -> Result<(), PlaneError> {
        self.there()?.release(lease).await
    }

    async fn holders(&self, names: &[&str]) -> Result<Vec<Option<Held>>, PlaneError> {
        self.there()?.holders(names).await
    }

    async fn time(&self) -> Result<Micros, PlaneError> {
        self.there()?.time().await
    }

    async fn announce(&self) -> Result<(), PlaneError> {
        self.there()?.announce().await
    }

    async fn close(&self) -> Result<(), PlaneError> {
        self.there()?.close().await
    }
}
