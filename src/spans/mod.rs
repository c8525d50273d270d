//! Spans of jobs, their stages and their requests, for a tracing backend that speaks OTLP.
//!
//! Only made when somebody asked for them. What the load hands over is small and never waited for:
//! a bounded queue takes it or drops it. A task turns it into spans of OpenTelemetry and gives the
//! SDK's batch processor as many as that has room for, so that there is one place where spans are
//! dropped, and every one is counted. A backend that does not answer costs a warning and its spans.

mod job;
mod outlet;
mod request;
mod way;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{self as otel, SpanContext, SpanKind, Status, TraceFlags, TraceState},
};
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor},
};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use request::RequestSpan;

use crate::{
    record::CellRecord,
    target::origin::OriginError,
    trace::{SpanId, TraceId},
};
use job::CellSpans;
use outlet::{Fate, Outlet};
use way::Way;

/// Requests and cells that wait to become spans; about 150 bytes a request.
const QUEUE: usize = 1 << 16;
/// Spans that wait in the SDK.
const ROOM: usize = 4_096;
/// Spans of one post.
const BATCH: usize = 512;
/// The longest that a span waits for others to be posted with it.
const DELAY: Duration = Duration::from_secs(1);
/// How long the end of a run waits for spans to be taken.
const LAST_GRACE: Duration = Duration::from_secs(5);

/// Why spans cannot be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// The address is none.
    #[error("{url:?} is no OTLP endpoint: {why}; write http://HOST:4318")]
    Url {
        /// What was given, without credentials.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Its host or the certificates cannot be used.
    #[error(transparent)]
    Origin(OriginError),
    /// The environment asks the exporter for something that it cannot do.
    #[error("OTEL_EXPORTER_OTLP_*: {0}")]
    Exporter(#[from] ExporterBuildError),
}

/// What became of the spans of a run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exported {
    /// The endpoint took them.
    pub exported: u64,
    /// They did not fit into the queue, or nobody had said that they were taken when the wait was over.
    pub dropped: u64,
    /// The endpoint did not take them, or gave no answer.
    pub refused: u64,
}

/// What waits to become spans.
#[derive(Debug)]
enum Item {
    Request(RequestSpan),
    Cell(Box<CellSpans>),
}

impl fmt::Display for Exported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { exported, dropped, refused } = self;
        write!(f, "{exported} spans exported, {dropped} dropped, {refused} not taken")
    }
}

/// Where requests and cells are left to be exported. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sender {
    run_id: Arc<str>,
    items: mpsc::Sender<Item>,
    offered: Arc<AtomicU64>,
}

impl Sender {
    /// Leaves a request, or drops it when there is no room; never waits.
    pub fn request(&self, request: RequestSpan) {
        self.offer(Item::Request(request), 1);
    }

    /// Leaves the jobs of a cell and their stages; a warm-up has none.
    pub fn cell_closed(&self, record: &CellRecord) {
        let cell = CellSpans::of(record, Arc::clone(&self.run_id));
        let spans = cell.count();
        if spans > 0 {
            self.offer(Item::Cell(Box::new(cell)), spans);
        }
    }

    fn offer(&self, item: Item, spans: u64) {
        self.offered.fetch_add(spans, Ordering::Relaxed);
        // What does not fit is counted all the same: it was offered and not exported.
        let _ = self.items.try_send(item);
    }
}

/// Exports the spans of one run.
#[derive(Debug)]
pub struct Exporter {
    sender: Sender,
    processor: Arc<BatchSpanProcessor>,
    fate: Arc<Fate>,
    feeder: JoinHandle<()>,
    no_more: CancellationToken,
}

impl Exporter {
    /// Starts to export to an OTLP endpoint, such as `http://collector:4318`: OTLP over HTTP, in
    /// protobuf, to `/v1/traces` where the address has no path. It is not asked whether it is there.
    /// Headers to be sent, such as a key, come from `OTEL_EXPORTER_OTLP_HEADERS`, as everywhere.
    ///
    /// Must be called within a Tokio runtime, which carries the posts.
    ///
    /// # Errors
    /// When the address cannot be an endpoint, or its host cannot be resolved.
    pub fn new(url: &str, run_id: &str) -> Result<Self, OtlpError> {
        let way = Way::to(url, Handle::current())?;
        let fate = Arc::new(Fate::new(way.url().to_owned(), Semaphore::new(ROOM)));
        let post = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_endpoint(way.url())
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(way::TIMEOUT)
            .with_http_client(way.clone())
            .build()?;
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(ROOM)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::new(Outlet::new(post, way, Arc::clone(&fate)), config);
        processor.set_resource(
            &Resource::builder_empty()
                .with_attributes([
                    KeyValue::new("service.name", "springtide"),
                    KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                    KeyValue::new("springtide.run_id", run_id.to_owned()),
                ])
                .build(),
        );
        let processor = Arc::new(processor);
        let (items, queue) = mpsc::channel(QUEUE);
        let no_more = CancellationToken::new();
        let feeder = feed(queue, Arc::clone(&processor), Arc::clone(&fate), no_more.clone());
        Ok(Self {
            sender: Sender { run_id: run_id.into(), items, offered: Arc::default() },
            processor,
            fate,
            feeder: tokio::spawn(feeder),
            no_more,
        })
    }

    /// Where requests and cells are left.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// Sends what is left, for a few seconds at most, and says what became of all spans.
    pub async fn finish(mut self) -> Exported {
        let deadline = Instant::now() + LAST_GRACE;
        self.no_more.cancel();
        self.fate.end();
        if tokio::time::timeout_at(deadline, &mut self.feeder).await.is_err() {
            self.feeder.abort();
        }
        let (processor, left) =
            (Arc::clone(&self.processor), deadline.saturating_duration_since(Instant::now()));
        // It blocks, and the posts need this thread. Whether it was through in time shows in the counts.
        let _ = tokio::task::spawn_blocking(move || processor.shutdown_with_timeout(left)).await;
        let offered = self.sender.offered.load(Ordering::Relaxed);
        let (exported, refused) = self.fate.counts();
        Exported { exported, refused, dropped: offered.saturating_sub(exported + refused) }
    }
}

/// Turns items into spans as fast as there is room for them, until there will be no more.
async fn feed(
    mut queue: mpsc::Receiver<Item>,
    processor: Arc<BatchSpanProcessor>,
    fate: Arc<Fate>,
    no_more: CancellationToken,
) {
    let scope = InstrumentationScope::builder("springtide").with_version(env!("CARGO_PKG_VERSION")).build();
    loop {
        let item = tokio::select! {
            biased;
            item = queue.recv() => item,
            () = no_more.cancelled(), if !queue.is_closed() => {
                queue.close();
                continue;
            }
        };
        match item {
            None => return,
            Some(Item::Request(request)) => {
                fate.room().await;
                processor.on_end(request.into_span(&scope));
            }
            Some(Item::Cell(cell)) => {
                for (key, job) in &cell.jobs {
                    for span in cell.spans(*key, job, &scope) {
                        fate.room().await;
                        processor.on_end(span);
                    }
                }
            }
        }
    }
}

/// What every span has.
struct Outline {
    trace: TraceId,
    id: SpanId,
    parent: Option<SpanId>,
    kind: SpanKind,
    /// Unix microseconds.
    start: u64,
    end: u64,
}

impl Outline {
    fn span(
        self,
        name: impl Into<std::borrow::Cow<'static, str>>,
        attributes: Vec<KeyValue>,
        status: Status,
        scope: &InstrumentationScope,
    ) -> SpanData {
        let moment = |us| SystemTime::UNIX_EPOCH + Duration::from_micros(us);
        let id = |id: SpanId| otel::SpanId::from_bytes(id.0);
        let trace = otel::TraceId::from_bytes(self.trace.0);
        SpanData {
            span_context: SpanContext::new(
                trace,
                id(self.id),
                TraceFlags::SAMPLED,
                false,
                TraceState::default(),
            ),
            parent_span_id: self.parent.map_or(otel::SpanId::INVALID, id),
            parent_span_is_remote: false,
            span_kind: self.kind,
            name: name.into(),
            start_time: moment(self.start),
            end_time: moment(self.end.max(self.start)),
            attributes,
            dropped_attributes_count: 0,
            events: Default::default(),
            links: Default::default(),
            status,
            instrumentation_scope: scope.clone(),
        }
    }
}

/// An attribute with a whole number; OTLP has signed ones only.
fn number(key: &'static str, value: impl TryInto<i64>) -> KeyValue {
    KeyValue::new(key, value.try_into().unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use axum::{Router, routing::post};
    use tokio::net::TcpListener;

    use super::*;
    use crate::{micros::Micros, snapshot::Phase, target::Endpoint, trace::Trace};

    fn offer(sender: &Sender, requests: u64) {
        let mut trace = Trace::of("springtide r c001 u0000 j0000");
        for _ in 0..requests {
            sender.request(RequestSpan {
                trace: trace.id(),
                job: trace.job(),
                span: trace.request(),
                sent: 1_000_000,
                took: Micros(10),
                first_byte: Micros(5),
                endpoint: Endpoint::Poll,
                phase: Phase::Load,
                status: Some(200),
                sent_bytes: 100,
                wire_bytes: 200,
                body_bytes: 100,
                error: None,
            });
        }
    }

    #[tokio::test]
    async fn an_endpoint_in_good_health_gets_all_that_fits_into_the_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let exporter = Exporter::new(&format!("http://{}", listener.local_addr().unwrap()), "r").unwrap();
        let router = Router::new().route("/v1/traces", post(async || ()));
        let serving = tokio::spawn(async { axum::serve(listener, router).await });
        let many = 2 * ROOM as u64 + 7;
        offer(&exporter.sender(), many);
        assert_eq!(exporter.finish().await, Exported { exported: many, dropped: 0, refused: 0 });
        serving.abort();
    }

    #[tokio::test]
    async fn an_endpoint_that_hangs_holds_nobody_up_and_everything_is_counted() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let exporter =
            Exporter::new(&format!("http://{}/otlp", listener.local_addr().unwrap()), "r").unwrap();
        let many = QUEUE as u64 + 5_000;
        offer(&exporter.sender(), many);
        let began = Instant::now();
        let Exported { exported, dropped, refused } = exporter.finish().await;
        assert!(began.elapsed() < LAST_GRACE + Duration::from_secs(3));
        assert_eq!((exported, dropped + refused), (0, many));
        assert!(dropped >= 5_000 && refused > 0, "{dropped} dropped, {refused} refused");
    }
}
