//! A load that is only recorded: twenty histograms a second, and nothing sent anywhere.

use std::{sync::Arc, time::Duration};

use springtide::{
    driver::{CellRun, Driver},
    fault::{Fault, FaultMode},
    micros::Micros,
    plan::{Accounts, InputFacts, Plan, Settings},
    recorder::{Recorder, Sample},
    scenario::Scenario,
    snapshot::{Job, JobKey, Listed, Phase, TargetView, Totals},
    target::{Endpoint, http::Exchange},
    timeline::JobOutcome,
};
use tokio::time::{Instant, sleep_until};

/// So many requests to each of nine endpoints a second: eighteen histograms, and two of the series.
const REQUESTS: u64 = 20;

/// Makes it for so many seconds.
pub(crate) struct Recorded(pub(crate) u64);

impl Driver for Recorded {
    fn threads(&self) -> usize {
        1
    }

    async fn drive(&self, run: Arc<CellRun>) {
        (0..run.share.users).for_each(|_| run.start.arrive());
        let t0 = tokio::select! {
            () = run.stop.cancelled() => return,
            t0 = run.start.opened() => t0,
        };
        sleep_until(t0).await;
        run.let_go(t0.elapsed());
        let recorder = &run.recorders[0];
        for second in 1..=self.0 {
            tokio::select! {
                () = run.stop.cancelled() => return,
                () = sleep_until(t0 + Duration::from_secs(second)) => {}
            }
            a_second(recorder, u64::from(run.share.first_user) + second);
        }
        let mut view = TargetView { accounts_read: 1, ..TargetView::default() };
        for slot in 0..run.share.users {
            let key = JobKey { user: run.share.first_user + slot, nth: 0 };
            let id = format!("{}", key.user);
            recorder.submitting(Instant::now());
            let mut job = Job::new(run.share.worker, run.title(key), JobOutcome::Fetched);
            job.timeline.ended = recorder.offset(Instant::now());
            view.listed.insert(id.clone(), Listed { title: job.title.clone(), end_time: None });
            recorder.job(key, Job { job_id: Some(id), ..job });
            run.settle.arrive();
        }
        tokio::select! {
            () = run.stop.cancelled() => return,
            _ = run.settle.opened() => {}
        }
        recorder.target(view);
    }
}

/// Takes a second of requests down.
pub(crate) fn a_second(recorder: &Recorder, seed: u64) {
    let mut x = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    for endpoint in Endpoint::ALL {
        for _ in 0..REQUESTS {
            x ^= x << 13;
            x ^= x >> 7;
            x ^= x << 17;
            let took = Duration::from_micros(1_000 + x % 50_000);
            let done = Instant::now();
            let sent = done - took;
            let exchange = Exchange {
                sent,
                first_byte: sent + took / 2,
                done,
                sent_bytes: 200,
                wire_bytes: 500,
                connects: 1,
            };
            let (phase, status, body_bytes, error) = (Phase::Load, Some(200), 300, None);
            recorder.request(&Sample { phase, endpoint, exchange, status, body_bytes, error });
        }
    }
}

/// What a worker has to tell after a second of it.
pub(crate) fn a_stretch() -> Totals {
    let recorder = Recorder::default();
    recorder.start(Instant::now() - Duration::from_secs(5), 0);
    a_second(&recorder, 7);
    recorder.take()
}

/// Two cells with a user a worker.
pub(crate) fn plan(workers: u32) -> Plan {
    let scenario = Scenario {
        id: "plane".to_owned().try_into().expect("it is a name"),
        concurrent_jobs: workers,
        tasks: 4,
        fault: FaultMode::None,
        levels: vec![Fault::none()],
        repetitions: 2,
    };
    Plan {
        seed: 1,
        matrix_sha256: String::new(),
        matrix_name: String::new(),
        cells: Plan::cells(1, std::slice::from_ref(&scenario), false),
        scenarios: vec![scenario],
        overrides: Vec::new(),
        input: InputFacts { name: String::new(), sha256: String::new(), bytes: 0 },
        accounts: Accounts::Registered,
        settings: Settings { job_timeout: Micros(600_000_000), ..Settings::default() },
        probes: Vec::new(),
    }
}
