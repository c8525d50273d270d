//! One request, as the load leaves it.

use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanKind, Status},
};
use opentelemetry_sdk::trace::SpanData;

use super::{Outline, number};
use crate::{
    micros::Micros,
    snapshot::Phase,
    target::Endpoint,
    trace::{SpanId, TraceId},
};

/// A request about a job, done with.
#[derive(Debug, Clone)]
pub struct RequestSpan {
    /// The job's trace.
    pub trace: TraceId,
    /// The job's span.
    pub job: SpanId,
    /// The span that the request named as the parent of whatever the target does for it.
    pub span: SpanId,
    /// When it was sent, in Unix microseconds of the worker's clock.
    pub sent: u64,
    /// Sending to the last byte of the answer, or to its failure.
    pub took: Micros,
    /// Sending to the head of the answer.
    pub first_byte: Micros,
    /// Where to.
    pub endpoint: Endpoint,
    /// When in the cell.
    pub phase: Phase,
    /// Status of the answer, if there was one.
    pub status: Option<u16>,
    /// Bytes sent, head included.
    pub sent_bytes: u64,
    /// Bytes received, head included.
    pub wire_bytes: u64,
    /// Bytes of the answer's body.
    pub body_bytes: u64,
    /// What was wrong with it.
    pub error: Option<String>,
}

impl RequestSpan {
    /// The span, with the names of OpenTelemetry's semantic conventions for HTTP where they have one.
    pub(super) fn into_span(self, scope: &InstrumentationScope) -> SpanData {
        let (method, route) = (self.endpoint.method_name(), self.endpoint.path());
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.route", route),
            number("http.response.body.size", self.body_bytes),
            number("springtide.sent_bytes", self.sent_bytes),
            number("springtide.received_bytes", self.wire_bytes),
            KeyValue::new("springtide.first_byte_ms", self.first_byte.as_ms()),
            KeyValue::new("springtide.phase", self.phase.as_str()),
        ];
        attributes.extend(self.status.map(|status| number("http.response.status_code", status)));
        let status = match self.error {
            None => Status::Unset,
            Some(error) => {
                let kind = self.status.map_or_else(|| "no_answer".to_owned(), |status| status.to_string());
                attributes.push(KeyValue::new("error.type", kind));
                Status::error(error)
            }
        };
        let outline = Outline {
            trace: self.trace,
            id: self.span,
            parent: Some(self.job),
            kind: SpanKind::Client,
            start: self.sent,
            end: self.sent + self.took.0,
        };
        outline.span(format!("{method} {route}"), attributes, status, scope)
    }
}
