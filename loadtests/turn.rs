//! A user at work in one cell: sends, waits and keeps account of where its time goes.

use std::{borrow::Cow, sync::Arc, time::Duration};

use bytes::Bytes;
use hyper::header::HeaderValue;
use rand_chacha::ChaCha12Rng;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::user::User;
use crate::{
    driver::CellRun,
    micros::Micros,
    plan::{self, CellKind},
    recorder::{Recorder, Sample},
    snapshot::Phase,
    spans::{self, RequestSpan},
    target::{
        Answer, Endpoint, decode,
        http::{Call, Exchange, HttpError, HttpErrorKind},
    },
    trace::{self, Trace},
};

/// A request that did not bring what was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// Status of the answer; `None` when there was no whole answer.
    pub(super) status: Option<u16>,
    /// What went wrong, without ids.
    pub(super) what: String,
}

/// How long a request may take on once the cell is stopped.
const GRACE: Duration = Duration::from_secs(3);

async fn grace_after(stop: &CancellationToken) {
    stop.cancelled().await;
    tokio::time::sleep(GRACE).await;
}

/// What stands for the answer to a request that nobody waits for any more.
fn given_up(asked: Instant) -> HttpError {
    let done = Instant::now();
    let exchange =
        Exchange { sent: asked, first_byte: asked, done, sent_bytes: 0, wire_bytes: 0, connects: 0 };
    HttpError { kind: HttpErrorKind::TimedOut, exchange }
}

/// What the target said instead of what was asked for.
pub(super) fn said(answer: &Answer) -> String {
    format!("{} {}", answer.status, decode::message(&answer.body))
}

/// A user, the cell it takes part in, and its account of time.
pub(super) struct Turn<'a> {
    pub(super) user: &'a mut User,
    pub(super) run: &'a CellRun,
    pub(super) recorder: &'a Arc<Recorder>,
    /// The user's number in the cell.
    pub(super) number: u32,
    pub(super) phase: Phase,
    /// The job that is being carried through or settled; what is sent about it is of its trace.
    pub(super) trace: Option<Trace>,
    /// Where spans of requests are left; `None` when nobody collects any, and in a warm-up.
    spans: Option<spans::Sender>,
    rng: ChaCha12Rng,
    begun: Option<Instant>,
    in_flight: Micros,
    waiting: Micros,
    checking: Micros,
}

impl<'a> Turn<'a> {
    pub(super) fn new(
        user: &'a mut User,
        run: &'a CellRun,
        recorder: &'a Arc<Recorder>,
        number: u32,
    ) -> Self {
        let measured = run.share.cell.kind == CellKind::Measured;
        let spans = user.kit.spans.clone().filter(|_| measured);
        Self {
            user,
            run,
            recorder,
            number,
            phase: Phase::Setup,
            trace: None,
            spans,
            rng: plan::rng(run.share.cell.seed, &format!("user/{number}")),
            begun: None,
            in_flight: Micros::ZERO,
            waiting: Micros::ZERO,
            checking: Micros::ZERO,
        }
    }

    /// The user's own time in the cell starts.
    pub(super) fn begin(&mut self, planned: Instant) {
        let now = Instant::now();
        self.recorder.lag((now - planned).into());
        self.begun = Some(planned);
        (self.in_flight, self.waiting, self.checking) = Default::default();
    }

    /// It ends; where it went is taken down.
    pub(super) fn end(&mut self) {
        if let Some(begun) = self.begun.take() {
            self.recorder.time(begun.elapsed().into(), self.in_flight, self.waiting, self.checking);
        }
    }

    /// Waits that long, or until the cell is stopped. Returns whether to go on.
    pub(super) async fn wait(&mut self, pause: Duration) -> bool {
        let began = Instant::now();
        let until = began + pause;
        tokio::select! {
            biased;
            () = self.run.stop.cancelled() => return false,
            () = tokio::time::sleep_until(until) => {}
        }
        if self.phase == Phase::Load {
            self.recorder.lag(until.elapsed().into());
            // With its lateness, which the lag tells and has a limit of its own.
            self.waiting += began.elapsed().into();
        }
        true
    }

    /// A poll interval, jittered.
    pub(super) fn poll_pause(&mut self) -> Duration {
        plan::jittered(self.run.settings.poll_interval, &mut self.rng)
    }

    /// Keeps account of time spent waiting for others of us.
    pub(super) fn waited_since(&mut self, start: Instant) {
        self.waiting += start.elapsed().into();
    }

    /// Keeps account of time that went into checking results.
    pub(super) fn checked_since(&mut self, start: Instant) {
        self.checking += start.elapsed().into();
    }

    /// Sends a request without a session and takes it down. `read` makes sense of the answer; a
    /// status other than `expected` is a problem before it is asked.
    pub(super) async fn call<T>(
        &mut self,
        endpoint: Endpoint,
        query: &str,
        body: Bytes,
        expected: u16,
        read: impl FnOnce(&Answer) -> Result<T, String>,
    ) -> Result<(T, Exchange), Problem> {
        let read = |answer: &Answer| if answer.status == expected { read(answer) } else { Err(said(answer)) };
        self.ask(endpoint, query, body, read).await
    }

    /// The same where `read` has a say on the status, too.
    pub(super) async fn ask<T>(
        &mut self,
        endpoint: Endpoint,
        query: &str,
        body: Bytes,
        read: impl FnOnce(&Answer) -> Result<T, String>,
    ) -> Result<(T, Exchange), Problem> {
        let path = endpoint.path();
        let path_and_query =
            if query.is_empty() { Cow::Borrowed(path) } else { Cow::Owned(format!("{path}?{query}")) };
        let cookie = self.user.login.as_ref().and_then(|l| l.cookie_for(endpoint));
        let trace = self.trace.as_mut().filter(|_| endpoint.is_of_job());
        let span = trace.map(|trace| (trace.id(), trace.request()));
        let recorded = self.spans.is_some();
        let call = Call {
            method: endpoint.method(),
            path: &path_and_query,
            cookie,
            trace: span
                .and_then(|(id, span)| HeaderValue::from_bytes(&trace::traceparent(id, span, recorded)).ok()),
            headers: None,
            body,
            safe: endpoint.is_safe(),
        };
        let asked = Instant::now();
        // Whatever a submit has waited for, be it another user or a stopped process to go on.
        let run = self.run;
        let may_go = move || endpoint != Endpoint::Submit || run.may_submit();
        let answered = tokio::select! {
            biased;
            answered = self.user.client.call_if(&call, &may_go) => answered,
            () = grace_after(&self.run.stop) => Err(given_up(asked)),
        };
        let (exchange, status, body_bytes, result) = match &answered {
            Ok(answer) => (answer.exchange, Some(answer.status), answer.body.len() as u64, read(answer)),
            Err(error) => (error.exchange, None, 0, Err(error.kind.to_string())),
        };
        self.in_flight += (exchange.done - exchange.sent).into();
        self.recorder.request(&Sample {
            phase: self.phase,
            endpoint,
            exchange,
            status,
            body_bytes,
            error: result.as_ref().err().map(String::as_str),
        });
        if let (Some(spans), Some(trace), Some((id, span))) = (&self.spans, &self.trace, span) {
            spans.request(RequestSpan {
                trace: id,
                job: trace.job(),
                span,
                sent: self.recorder.unix(exchange.sent),
                took: (exchange.done - exchange.sent).into(),
                first_byte: (exchange.first_byte - exchange.sent).into(),
                endpoint,
                phase: self.phase,
                status,
                sent_bytes: exchange.sent_bytes,
                wire_bytes: exchange.wire_bytes,
                body_bytes,
                error: result.as_ref().err().cloned(),
            });
        }
        match result {
            Ok(value) => Ok((value, exchange)),
            Err(what) => Err(Problem { status, what }),
        }
    }
}
