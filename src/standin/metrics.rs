//! `GET /metrics`: the histograms a backend like this would expose, filled from the same moments
//! that the truth is made of.
//!
//! Only histograms are used, because their lines read the same in both formats: OpenMetrics adds no
//! more than the line that ends it, and `# UNIT` is a comment to readers of the older format.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hyper::HeaderMap;
use hyper::header::{ACCEPT, HeaderValue};
use prometheus_client::encoding::text;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

/// Bounds for requests, in seconds.
const REQUEST_S: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Bounds for stages and jobs, in seconds.
const STAGE_S: [f64; 17] =
    [0.01, 0.025, 0.05, 0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0];

/// Bounds for payloads, in bytes: fine where task posts (300), polls and results (1 MB) lie.
const PAYLOAD_B: [f64; 20] = [
    128.0,
    256.0,
    320.0,
    512.0,
    1024.0,
    2048.0,
    4096.0,
    8192.0,
    16_384.0,
    65_536.0,
    262_144.0,
    524_288.0,
    786_432.0,
    917_504.0,
    1_048_576.0,
    1_179_648.0,
    1_310_720.0,
    1_572_864.0,
    2_097_152.0,
    8_388_608.0,
];

/// A part of a job's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Queue,
    Run,
    Merge,
    Persist,
}

impl Stage {
    fn name(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Run => "run",
            Self::Merge => "merge",
            Self::Persist => "persist",
        }
    }
}

/// What is measured in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Payload {
    Submit,
    TaskPost,
    JobPost,
    TaskEstimators,
    Estimators,
    Results,
}

impl Payload {
    fn name(self) -> &'static str {
        match self {
            Self::Submit => "submit",
            Self::TaskPost => "task_post",
            Self::JobPost => "job_post",
            Self::TaskEstimators => "task_estimators",
            Self::Estimators => "estimators",
            Self::Results => "results",
        }
    }
}

/// Which of the two texts is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// Prometheus text exposition 0.0.4.
    Classic,
    /// OpenMetrics 1.0.
    OpenMetrics,
}

impl Format {
    /// What the header asks for most; the classic one when it does not care.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let all = || headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
        let weight = |kind: &str| {
            let weights = all().flat_map(|value| value.split(',')).filter_map(|range| {
                let mut parts = range.split(';').map(str::trim);
                let name = parts.next()?;
                let quality = parts.find_map(|part| part.strip_prefix("q=")?.parse().ok()).unwrap_or(1.0);
                name.eq_ignore_ascii_case(kind).then_some(quality)
            });
            weights.fold(0.0, f64::max)
        };
        let open = weight("application/openmetrics-text");
        if open > 0.0 && open >= weight("text/plain") { Self::OpenMetrics } else { Self::Classic }
    }

    pub(super) fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Self::Classic => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

type One = [(&'static str, &'static str); 1];
type Three = [(&'static str, String); 3];
type Histograms<L> = Family<L, Histogram, fn() -> Histogram>;

/// All of them. There is no job id among the labels, and never will be.
pub(super) struct Metrics {
    registry: Registry,
    stages: Histograms<One>,
    jobs: Histograms<One>,
    payloads: Histograms<One>,
    requests: Histograms<Three>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::default();
        let stages = Histograms::<One>::new_with_constructor(|| Histogram::new(STAGE_S));
        let jobs = Histograms::<One>::new_with_constructor(|| Histogram::new(STAGE_S));
        let payloads = Histograms::<One>::new_with_constructor(|| Histogram::new(PAYLOAD_B));
        let requests = Histograms::<Three>::new_with_constructor(|| Histogram::new(REQUEST_S));
        registry.register_with_unit(
            "yaptide_stage_duration",
            "Stages of jobs. queue: accepted to first task RUNNING; run: first task RUNNING to the last \
             task's terminal post; merge: MERGING_QUEUED to the begin of the accepted results post; \
             persist: that begin to results stored. A job without a begin or an end of a stage (no task \
             was seen RUNNING, say) is not in it",
            Unit::Seconds,
            stages.clone(),
        );
        registry.register_with_unit(
            "yaptide_job_duration",
            "Jobs from accepted to their terminal state",
            Unit::Seconds,
            jobs.clone(),
        );
        registry.register_with_unit(
            "yaptide_payload",
            "Bodies. submit, task_post, job_post: of POST /jobs/direct, /tasks, /jobs; task_estimators: \
             result of one task as it crosses Redis; estimators: merged, of POST /results; results: \
             whole replies of GET /results",
            Unit::Bytes,
            payloads.clone(),
        );
        registry.register_with_unit(
            "yaptide_http_request_duration",
            "Requests from head received to last byte of the reply handed over",
            Unit::Seconds,
            requests.clone(),
        );
        Self { registry, stages, jobs, payloads, requests }
    }
}

impl Metrics {
    /// A stage was gone through, from one unix time in microseconds to another.
    pub(super) fn stage(&self, stage: Stage, from_us: u64, to_us: u64) {
        self.stages.get_or_create(&[("stage", stage.name())]).observe(seconds(from_us, to_us));
    }

    /// A job ended in that state.
    pub(super) fn job(&self, state: &'static str, from_us: u64, to_us: u64) {
        self.jobs.get_or_create(&[("state", state)]).observe(seconds(from_us, to_us));
    }

    /// A body of so many bytes.
    pub(super) fn payload(&self, payload: Payload, bytes: usize) {
        self.payloads.get_or_create(&[("kind", payload.name())]).observe(bytes as f64);
    }

    /// A request was answered.
    pub(super) fn request(&self, route: &str, method: &str, status: u16, took: Duration) {
        let labels =
            [("route", route.to_owned()), ("method", method.to_owned()), ("status", status.to_string())];
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// All of it as text.
    pub(super) fn text(&self, format: Format) -> Bytes {
        let mut out = String::new();
        let wrote = match format {
            Format::Classic => text::encode_registry(&mut out, &self.registry),
            Format::OpenMetrics => text::encode(&mut out, &self.registry),
        };
        wrote.expect("a string takes every text");
        Bytes::from(out)
    }
}

fn seconds(from_us: u64, to_us: u64) -> f64 {
    to_us.saturating_sub(from_us) as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use hyper::HeaderMap;
    use hyper::header::ACCEPT;
    use rstest::rstest;

    use super::{Format, Metrics, Stage};

    #[rstest]
    #[case("", Format::Classic)]
    #[case("*/*", Format::Classic)]
    #[case("text/plain;version=0.0.4", Format::Classic)]
    #[case("application/openmetrics-text", Format::OpenMetrics)]
    #[case(
        "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
        Format::OpenMetrics
    )]
    #[case("application/openmetrics-text;q=0.2, text/plain;q=0.7", Format::Classic)]
    #[case("application/openmetrics-text;q=0", Format::Classic)]
    fn the_header_decides(#[case] accept: &str, #[case] expected: Format) {
        let headers = HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]);
        assert_eq!(Format::wanted(&headers), expected);
    }

    #[test]
    fn the_formats_differ_in_their_end() {
        let metrics = Metrics::default();
        metrics.stage(Stage::Run, 1_000_000, 2_500_000);
        let classic = String::from_utf8(metrics.text(Format::Classic).to_vec()).unwrap();
        let open = String::from_utf8(metrics.text(Format::OpenMetrics).to_vec()).unwrap();
        assert_eq!(open, format!("{classic}# EOF\n"));
        for line in [
            "# TYPE yaptide_stage_duration_seconds histogram",
            "# UNIT yaptide_stage_duration_seconds seconds",
            "yaptide_stage_duration_seconds_sum{stage=\"run\"} 1.5",
            "yaptide_stage_duration_seconds_count{stage=\"run\"} 1",
            "yaptide_stage_duration_seconds_bucket{le=\"1.5\",stage=\"run\"} 1",
            "yaptide_stage_duration_seconds_bucket{le=\"1.0\",stage=\"run\"} 0",
            "yaptide_stage_duration_seconds_bucket{le=\"+Inf\",stage=\"run\"} 1",
        ] {
            assert!(classic.lines().any(|found| found == line), "no {line:?} in\n{classic}");
        }
    }
}
