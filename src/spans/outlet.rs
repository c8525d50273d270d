//! Posts batches, and counts what becomes of them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_sdk::{
    Resource,
    error::{OTelSdkError, OTelSdkResult},
    trace::{SpanData, SpanExporter},
};
use prost::Message;
use tokio::sync::Semaphore;

use super::way::Way;

/// What becomes of the spans.
#[derive(Debug)]
pub(super) struct Fate {
    url: String,
    /// One permit for each span that may still be given to the SDK.
    room: Semaphore,
    exported: AtomicU64,
    refused: AtomicU64,
    /// The last post was not taken.
    failing: AtomicBool,
    /// A failure was told.
    told: AtomicBool,
    /// The run is over.
    ending: AtomicBool,
}

impl Fate {
    pub(super) fn new(url: String, room: Semaphore) -> Self {
        Self {
            url,
            room,
            exported: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            failing: AtomicBool::new(false),
            told: AtomicBool::new(false),
            ending: AtomicBool::new(false),
        }
    }

    /// Waits until the SDK has room for one more span.
    pub(super) async fn room(&self) {
        if let Ok(permit) = self.room.acquire().await {
            permit.forget();
        }
    }

    /// From now on nobody waits for an endpoint that takes nothing.
    pub(super) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Spans exported and refused so far.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.exported.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }

    fn is_hopeless(&self) -> bool {
        self.ending.load(Ordering::Relaxed) && self.failing.load(Ordering::Relaxed)
    }

    /// Takes down what became of a batch; `why` is asked only when some were refused.
    fn settle(&self, spans: usize, refused: u64, why: impl FnOnce() -> String) {
        let spans = spans as u64;
        let refused = refused.min(spans);
        self.exported.fetch_add(spans - refused, Ordering::Relaxed);
        self.refused.fetch_add(refused, Ordering::Relaxed);
        self.failing.store(refused == spans, Ordering::Relaxed);
        if refused > 0 && !self.told.swap(true, Ordering::Relaxed) {
            tracing::warn!("{} does not take our spans: {}; the run goes on without them", self.url, why());
        }
        self.room.add_permits(spans as usize);
    }
}

/// OpenTelemetry's exporter, watched.
#[derive(Debug)]
pub(super) struct Outlet {
    post: opentelemetry_otlp::SpanExporter,
    way: Way,
    fate: Arc<Fate>,
}

impl Outlet {
    pub(super) fn new(post: opentelemetry_otlp::SpanExporter, way: Way, fate: Arc<Fate>) -> Self {
        Self { post, way, fate }
    }
}

impl SpanExporter for Outlet {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = if self.fate.is_hopeless() {
            Err(OTelSdkError::InternalFailure("nobody takes spans".into()))
        } else {
            self.post.export(batch).await
        };
        let (problem, answer) = self.way.last();
        match &result {
            Err(error) => {
                let why = || if problem.is_empty() { error.to_string() } else { problem };
                self.fate.settle(spans, spans as u64, why);
            }
            // An endpoint may take some of a batch and say so.
            Ok(()) => {
                let partial = ExportTraceServiceResponse::decode(answer).ok().and_then(|a| a.partial_success);
                let partial = partial.unwrap_or_default();
                let refused = u64::try_from(partial.rejected_spans).unwrap_or(0);
                self.fate.settle(spans, refused, || {
                    format!("it rejects {refused} of {spans}: {}", partial.error_message)
                });
            }
        }
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.post.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.post.set_resource(resource);
    }
}
