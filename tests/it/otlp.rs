//! Spans, as an OTLP endpoint gets them, and endpoints that take none.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::post,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
    },
    common::v1::{KeyValue, any_value::Value},
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message;
use rstest::rstest;
use springtide::{
    record::{CellRecord, RunRecord},
    snapshot::{Job, JobKey, Phase},
    timeline::Stage,
    trace::Trace,
    verdict::Exit,
};
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    support::{Ended, Run},
};

/// What a collector does with a post.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    Answers(u16),
    RejectsOneOfEach,
    Hangs,
}

/// What a collector took.
#[derive(Debug, Default)]
struct Taken {
    posts: u64,
    spans: Vec<Span>,
    resources: Vec<Vec<KeyValue>>,
}

/// An OTLP endpoint on a free port. It ends when dropped.
struct Collector {
    url: String,
    taken: Arc<Mutex<Taken>>,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl Collector {
    fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let addr: SocketAddr = listener.local_addr().unwrap();
        let (taken, stop) = (Arc::<Mutex<Taken>>::default(), CancellationToken::new());
        let (of_server, until) = (Arc::clone(&taken), stop.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let router = Router::new().route("/v1/traces", post(take)).with_state((manner, of_server));
                let serving = axum::serve(listener, router);
                tokio::select! {
                    served = serving => served.unwrap(),
                    () = until.cancelled() => {}
                }
            });
        });
        Self { url: format!("http://{addr}"), taken, stop, thread: Some(thread) }
    }

    /// Spans by trace.
    fn traces(&self) -> BTreeMap<Vec<u8>, Vec<Span>> {
        let mut traces = BTreeMap::<_, Vec<Span>>::new();
        for span in &self.taken.lock().unwrap().spans {
            traces.entry(span.trace_id.clone()).or_default().push(span.clone());
        }
        traces
    }

    fn spans(&self) -> usize {
        self.taken.lock().unwrap().spans.len()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.stop.cancel();
        let ended = self.thread.take().unwrap().join();
        assert!(ended.is_ok() || std::thread::panicking(), "the collector broke down");
    }
}

async fn take(
    State((manner, taken)): State<(Manner, Arc<Mutex<Taken>>)>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let rejected = match manner {
        Manner::Takes => 0,
        Manner::RejectsOneOfEach => 1,
        Manner::Answers(status) => return StatusCode::from_u16(status).unwrap().into_response(),
        Manner::Hangs => std::future::pending().await,
    };
    let request = ExportTraceServiceRequest::decode(body);
    let (Ok(request), Some(kind)) = (request, headers.get(header::CONTENT_TYPE)) else {
        return StatusCode::BAD_REQUEST.into_response();
    };
    if kind != "application/x-protobuf" {
        return StatusCode::UNSUPPORTED_MEDIA_TYPE.into_response();
    }
    let mut taken = taken.lock().unwrap();
    taken.posts += 1;
    for spans in request.resource_spans {
        taken.resources.push(spans.resource.unwrap().attributes);
        taken.spans.extend(spans.scope_spans.into_iter().flat_map(|scope| scope.spans).skip(rejected));
    }
    let partial = ExportTracePartialSuccess {
        rejected_spans: i64::try_from(rejected).unwrap(),
        error_message: "no room".into(),
    };
    let answer = ExportTraceServiceResponse { partial_success: (rejected > 0).then_some(partial) };
    answer.encode_to_vec().into_response()
}

fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|a| a.key == key)?.value.clone()?.value?;
    Some(match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::DoubleValue(number) => number.to_string(),
        Value::BoolValue(truth) => truth.to_string(),
        other => panic!("{key}: {other:?}"),
    })
}

#[track_caller]
fn said(span: &Span, key: &str) -> String {
    text(&span.attributes, key).unwrap_or_else(|| panic!("no {key}: {span:#?}"))
}

fn status(span: &Span) -> SpanStatus {
    span.status.as_ref().unwrap().code()
}

fn is_request(span: &&Span) -> bool {
    span.kind() == SpanKind::Client
}

/// Every measured job of a run, with its cell.
fn jobs(run: &RunRecord) -> impl Iterator<Item = (&CellRecord, JobKey, &Job)> {
    run.cells.iter().flat_map(|cell| cell.totals.jobs.iter().map(move |(key, job)| (cell, *key, job)))
}

/// What the run says at its end: exported, dropped, not taken.
#[track_caller]
fn counts(ended: &Ended) -> [u64; 3] {
    let lines: Vec<&str> = ended.err.lines().filter(|line| line.contains("spans exported")).collect();
    let [line] = lines[..] else { panic!("{}", ended.err) };
    let number = |before: &str| {
        line.split(before).next().unwrap().trim_end().rsplit(' ').next().unwrap().parse().unwrap()
    };
    [number("spans exported"), number("dropped"), number("not taken")]
}

/// The moment as a span has it, in nanoseconds.
fn unix(cell: &CellRecord, offset: springtide::micros::Micros) -> u64 {
    (cell.t0_unix + offset.0) * 1_000
}

/// Asserts everything about one job's spans, and returns those of its requests.
#[track_caller]
fn check(run: &RunRecord, (cell, key, job): (&CellRecord, JobKey, &Job), spans: &[Span]) -> Vec<Span> {
    let trace = Trace::of(&job.title);
    let ids: BTreeSet<&[u8]> = spans.iter().map(|s| s.span_id.as_slice()).collect();
    assert_eq!(ids.len(), spans.len(), "every span has an id of its own");
    let (roots, below): (Vec<&Span>, Vec<&Span>) = spans.iter().partition(|s| s.parent_span_id.is_empty());
    let [root] = roots[..] else { panic!("{roots:#?}") };
    assert_eq!((root.name.as_str(), root.span_id.as_slice()), ("job", &trace.job().0[..]));
    assert!(below.iter().all(|s| s.parent_span_id == root.span_id));
    let submit = job.timeline.submit.unwrap();
    assert_eq!(root.start_time_unix_nano, unix(cell, submit.sent));
    assert_eq!(root.end_time_unix_nano, unix(cell, job.timeline.ended));
    for (attribute, value) in [
        ("springtide.run_id", run.run_id.clone()),
        ("springtide.scenario", cell.cell.scenario.to_string()),
        ("springtide.repetition", cell.cell.repetition.to_string()),
        ("springtide.user", key.user.to_string()),
        ("springtide.tasks", cell.cell.tasks.to_string()),
        ("springtide.outcome", job.outcome.kind().to_owned()),
        ("springtide.job_id", job.job_id.clone().unwrap()),
    ] {
        assert_eq!(said(root, attribute), value);
    }
    let (requests, stages): (Vec<&Span>, Vec<&Span>) = below.into_iter().partition(is_request);
    for stage in stages {
        let inside = root.start_time_unix_nano..=root.end_time_unix_nano;
        let (start, end) = (stage.start_time_unix_nano, stage.end_time_unix_nano);
        assert!(start <= end && inside.contains(&start) && inside.contains(&end), "{stage:#?}");
    }
    requests.into_iter().cloned().collect()
}

/// The tree of every job, held against the record and against what the server saw.
#[test]
fn a_job_is_a_tree_of_its_stages_and_requests() {
    let (collector, backend) = (Collector::start(Manner::Takes), Backend::start("--standin-task-time 60ms"));
    let ended = Run::small_at(&backend.url).set("otlp", &collector.url).without("no-warmup").ends_shared();
    ended.exits(Exit::Pass).jobs(&[("fetched", 7)]);
    let (run, truth, traces) = (ended.record(), backend.truth(), collector.traces());
    assert_eq!(traces.len(), 6, "a warm-up has none");
    assert_eq!(counts(&ended), [collector.spans() as u64, 0, 0]);
    for found in jobs(&run) {
        let (cell, _, job) = found;
        let id = Trace::of(&job.title).id().0;
        let spans = &traces[&id[..]];
        let requests = check(&run, found, spans);
        let stage = |stage: Stage| spans.iter().find(|s| s.name == stage.as_str());
        let line = &job.timeline;
        for name in [Stage::Submit, Stage::Queue, Stage::Run, Stage::Merge, Stage::Fetch] {
            let span = stage(name).unwrap_or_else(|| panic!("no {name}"));
            let (start, end) = line.bounds(name).unwrap();
            let end = end.unwrap();
            assert_eq!(span.start_time_unix_nano, unix(cell, start.midpoint()), "{name}");
            assert_eq!(span.end_time_unix_nano, unix(cell, end.midpoint()), "{name}");
            assert_eq!(said(span, "springtide.end.half_width_ms"), end.half_width().as_ms().to_string());
        }
        assert_eq!(stage(Stage::Submit).unwrap().end_time_unix_nano, unix(cell, line.submit.unwrap().done));
        let server = &truth.jobs.iter().find(|j| Some(&j.job_id) == job.job_id.as_ref()).unwrap().traced;
        assert_eq!((server.requests, server.sampled), (requests.len() as u64, requests.len() as u64));
        assert!(
            requests.iter().any(|s| hex(&s.span_id) == server.last_parent),
            "the server's spans hang below"
        );
        let polls = requests.iter().filter(|s| s.name == "GET /jobs").count();
        assert_eq!(polls as u32, line.polls);
        for request in &requests {
            assert_eq!(
                request.name,
                format!("{} {}", said(request, "http.request.method"), said(request, "http.route"))
            );
            assert_eq!(said(request, "springtide.phase"), Phase::Load.as_str());
            assert_ne!(said(request, "springtide.received_bytes"), "0");
            assert_eq!(status(request), SpanStatus::Unset);
            let (from, to) = (unix(cell, line.submit.unwrap().sent), unix(cell, line.ended));
            assert!(from <= request.start_time_unix_nano && request.end_time_unix_nano <= to, "{request:#?}");
        }
        let fetch = requests.iter().find(|s| s.name == "GET /results").unwrap();
        assert_eq!(said(fetch, "http.response.status_code"), "200");
        assert_eq!(
            said(fetch, "http.response.body.size"),
            job.results.as_ref().unwrap().body_bytes.to_string()
        );
        assert_eq!(unix(cell, line.fetch.unwrap().sent), fetch.start_time_unix_nano);
    }
    let warm_up = truth.jobs.iter().filter(|j| j.title.contains(" c000 ")).map(|j| &j.traced);
    assert_eq!(warm_up.map(|t| (t.sampled, t.valid == t.requests)).collect::<Vec<_>>(), [(0, true)]);
    let taken = collector.taken.lock().unwrap();
    for resource in &taken.resources {
        assert_eq!(text(resource, "service.name").as_deref(), Some("springtide"));
        assert_eq!(text(resource, "springtide.run_id"), Some(run.run_id.clone()));
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// A job that was given up is an error, its last stage has no end, and what was asked about it
/// afterwards is of its trace.
#[test]
fn a_stuck_job_is_an_error_with_an_open_stage() {
    let collector = Collector::start(Manner::Takes);
    let run = Run::small().once().set("job-timeout", "1500ms").bug("stuck").set("otlp", &collector.url);
    let ended = run.ends_shared();
    ended.exits(Exit::Failed).jobs(&[("timed_out", 3)]);
    let (run, traces) = (ended.record(), collector.traces());
    for found in jobs(&run) {
        let (cell, _, job) = found;
        let spans = &traces[&Trace::of(&job.title).id().0[..]];
        let requests = check(&run, found, spans);
        let root = spans.iter().find(|s| s.name == "job").unwrap();
        assert_eq!(status(root), SpanStatus::Error);
        let open = spans.iter().find(|s| s.name == "run").unwrap();
        assert_eq!(said(open, "springtide.censored"), "true");
        assert_eq!(open.end_time_unix_nano, unix(cell, job.timeline.last_sure()));
        assert!(!spans.iter().any(|s| s.name == "merge" || s.name == "fetch"));
        assert!(requests.iter().any(|s| s.name == "DELETE /jobs/direct"));
        assert!(requests.iter().any(|s| said(s, "springtide.phase") == Phase::Settle.as_str()));
    }
}

/// Requests that fail are errors with a kind, and what the tap saw is told of the job.
#[test]
fn failures_and_the_tap_are_told() {
    let collector = Collector::start(Manner::Takes);
    let ended = Run::small().bug("error-500=/jobs:0.3").set("otlp", &collector.url).ends_shared();
    let (run, traces) = (ended.record(), collector.traces());
    let spans: Vec<Span> = traces.into_values().flatten().collect();
    let failed: Vec<&Span> =
        spans.iter().filter(is_request).filter(|s| status(s) == SpanStatus::Error).collect();
    let errors: u64 = run.cells.iter().flat_map(|c| c.totals.errors.values()).map(|e| e.count).sum();
    assert!(errors > 0 && failed.len() as u64 == errors, "{} of {errors}", failed.len());
    assert!(failed.iter().all(|s| said(s, "error.type") == "500"));
    let roots: Vec<&Span> = spans.iter().filter(|s| s.name == "job").collect();
    assert_eq!(roots.len(), 6);
    for root in roots {
        let persist: f64 = said(root, "springtide.tap.persist_ms").parse().unwrap();
        assert!(persist > 0.0 && said(root, "springtide.tap.merge_ms").parse::<f64>().unwrap() > 0.0);
    }
}

/// Lines of the log at the level of a warning.
fn warnings(ended: &Ended) -> Vec<&str> {
    ended.err.lines().filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")).collect()
}

/// The run is as it would be without, but for one warning.
#[rstest]
#[case::answers_500(Manner::Answers(500), "it answers 500")]
#[case::answers_404(Manner::Answers(404), "it answers 404")]
#[case::is_busy(Manner::Answers(503), "it answers 503")]
#[case::hangs(Manner::Hangs, "timed out")]
fn an_endpoint_that_takes_nothing_costs_a_warning(#[case] manner: Manner, #[case] why: &str) {
    let collector = Collector::start(manner);
    no_spans(&collector.url, why);
    assert_eq!(collector.spans(), 0);
}

#[test]
fn an_endpoint_that_is_not_there_costs_a_warning() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    no_spans(&url, "connection refused");
}

#[track_caller]
fn no_spans(url: &str, why: &str) {
    let ended = Run::small().once().set("otlp", url).within(Duration::from_secs(40)).ends_shared();
    ended.exits(Exit::Pass).jobs(&[("fetched", 3)]).found(&[]);
    let warned = warnings(&ended);
    let [one] = warned[..] else { panic!("{}", ended.err) };
    assert!(one.contains(url) && one.contains(why), "{one}");
    let [exported, dropped, refused] = counts(&ended);
    assert!(exported == 0 && dropped + refused > 3 * 6, "{}", ended.err);
}

#[test]
fn what_an_endpoint_rejects_is_not_counted_as_exported() {
    let collector = Collector::start(Manner::RejectsOneOfEach);
    let ended = Run::small().once().set("otlp", &collector.url).ends_shared();
    ended.exits(Exit::Pass);
    let posts = collector.taken.lock().unwrap().posts;
    assert_eq!(counts(&ended), [collector.spans() as u64, 0, posts]);
    assert!(warnings(&ended)[0].contains("no room"), "{}", ended.err);
}
