//! A driver that plays a script instead of loading a target: for tests of everything above the
//! seam, in virtual time and without sockets.

use std::{sync::Arc, time::Duration};

use tokio::time::{Instant, sleep, sleep_until};

use super::{CellRun, Driver};
use crate::{
    micros::Micros,
    plan,
    recorder::{Recorder, Sample},
    snapshot::{Job, JobKey, Listed, Phase, Results, TargetView},
    target::{Endpoint, http::Exchange},
    timeline::{JobOutcome, JobState, JobTimeline},
};

/// What the pretended target does with every job.
#[derive(Debug, Clone)]
pub struct Script {
    /// Time after the submit at which a job enters each state.
    pub life: Vec<(Duration, JobState)>,
    /// How long every request takes.
    pub latency: Duration,
    /// Jobs that the target's list leaves out.
    pub unlisted: u32,
    /// Users cannot open a session, for this reason.
    pub no_session: Option<String>,
}

impl Script {
    /// A healthy job: runs after 1 s, merges after 3 s, completed after 4 s.
    pub fn healthy() -> Self {
        let at = |s, state| (Duration::from_secs(s), state);
        Self {
            life: vec![at(1, JobState::Running), at(3, JobState::MergingQueued), at(4, JobState::Completed)],
            latency: Duration::from_millis(10),
            unlisted: 0,
            no_session: None,
        }
    }
}

impl Driver for Script {
    fn threads(&self) -> usize {
        1
    }

    async fn drive(&self, run: Arc<CellRun>) {
        let users = (0..run.share.users).map(|slot| {
            let (script, run) = (self.clone(), Arc::clone(&run));
            tokio::spawn(async move { script.play(slot, &run).await })
        });
        for user in users.collect::<Vec<_>>() {
            // A panic in a script is a test's own fault and shows there.
            let _ = user.await;
        }
    }
}

impl Script {
    async fn play(&self, slot: u32, run: &CellRun) {
        if let Some(why) = &self.no_session {
            run.fail(why.clone());
        }
        run.start.arrive();
        let t0 = tokio::select! {
            () = run.stop.cancelled() => return,
            t0 = run.start.opened() => t0,
        };
        sleep_until(t0).await;
        run.let_go(t0.elapsed());
        let recorder = &run.recorders[0];
        let key = JobKey { user: run.share.first_user + slot, nth: 0 };
        let job = self.job(key, run, recorder).await;
        let listed = Listed { title: job.title.clone(), end_time: None };
        let id = job.job_id.clone().unwrap_or_default();
        recorder.time(t0.elapsed().into(), t0.elapsed().into(), Micros::ZERO, Micros::ZERO);
        recorder.job(key, job);
        run.settle.arrive();
        tokio::select! {
            () = run.stop.cancelled() => return,
            _ = run.settle.opened() => {}
        }
        let mut view = TargetView { accounts_read: 1, ..TargetView::default() };
        if slot >= self.unlisted {
            view.listed.insert(id, listed);
        }
        recorder.target(view);
    }

    async fn job(&self, key: JobKey, run: &CellRun, recorder: &Recorder) -> Job {
        let mut timeline = JobTimeline::default();
        recorder.submitting(Instant::now());
        let submit = self.request(Endpoint::Submit, recorder).await;
        timeline.submitted(recorder.clocked(&submit));
        let mut rng = plan::rng(run.share.cell.seed, &format!("user/{}", key.user));
        let deadline = submit.sent + Duration::from(run.settings.job_timeout);
        let outcome = loop {
            if run.stop.is_cancelled() {
                break JobOutcome::Canceled;
            }
            sleep(plan::jittered(run.settings.poll_interval, &mut rng)).await;
            let age = submit.sent.elapsed();
            let state =
                self.life.iter().rev().find(|(at, _)| *at <= age).map_or(JobState::Pending, |(_, s)| *s);
            let poll = self.request(Endpoint::Poll, recorder).await;
            timeline.observe(state, recorder.clocked(&poll), 100);
            match state {
                JobState::Completed => break JobOutcome::Fetched,
                JobState::Failed => break JobOutcome::Failed,
                in_state if Instant::now() >= deadline => break JobOutcome::TimedOut { in_state },
                _ => {}
            }
        };
        let mut results = None;
        if outcome == JobOutcome::Fetched {
            timeline.fetch = Some(recorder.clocked(&self.request(Endpoint::Results, recorder).await));
            results = Some(Results {
                simulation: None,
                wire_bytes: 10,
                body_bytes: 10,
                estimators: 1,
                pages: 1,
                values: 1,
                duplicates: 0,
                shape: "s".into(),
                sha256: "h".into(),
            });
        }
        timeline.ended = recorder.offset(Instant::now());
        Job {
            job_id: Some(format!("job-{}-{}", run.share.cell.index, key.user)),
            timeline,
            submit_bytes: 10,
            results,
            ..Job::new(run.share.worker, run.title(key), outcome)
        }
    }

    async fn request(&self, endpoint: Endpoint, recorder: &Recorder) -> Exchange {
        let sent = Instant::now();
        sleep(self.latency).await;
        let done = Instant::now();
        let exchange = Exchange { sent, first_byte: done, done, sent_bytes: 1, wire_bytes: 1, connects: 0 };
        let (phase, status, body_bytes, error) = (Phase::Load, Some(200), 1, None);
        recorder.request(&Sample { phase, endpoint, exchange, status, body_bytes, error });
        exchange
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use tokio::sync::watch;

    use super::*;
    use crate::{
        cluster::{
            manager::{self, Watcher},
            members::Wanted,
            worker::{Ask, Served, Worker},
        },
        crew,
        plan::{Accounts, Cell, InputFacts, Plan, Settings},
        plane::{
            in_process::InProcess,
            manager_end::ManagerEnd,
            message::trial::hello,
            worker_end::{Terms, WorkerEnd},
        },
        record::CellRecord,
        scenario::Matrix,
        snapshot::Totals,
        timeline::Stage,
        verdict::{Rule, Verdict},
    };

    #[derive(Default)]
    struct Kept {
        cells: Vec<CellRecord>,
        most_submitted: u64,
        full_disk: bool,
    }

    impl Watcher for Kept {
        fn opened(&mut self, _: &Cell, _: usize) {}
        fn told(&mut self, _: crew::Event) {}
        fn progress(&mut self, _: &Cell, so_far: &[&Totals], _: Option<Micros>) {
            self.most_submitted = self.most_submitted.max(so_far.iter().map(|t| t.progress.submitted).sum());
        }
        fn closed(&mut self, record: CellRecord) -> Result<(), String> {
            self.cells.push(record);
            if self.full_disk { Err("disk full".into()) } else { Ok(()) }
        }
    }

    fn plan(settings: Settings) -> Plan {
        let mut scenario = Matrix::runbook().get("S6").unwrap().clone();
        scenario.repetitions = 3;
        Plan {
            seed: 7,
            matrix_sha256: String::new(),
            matrix_name: String::new(),
            cells: Plan::cells(7, std::slice::from_ref(&scenario), true),
            scenarios: vec![scenario],
            overrides: Vec::new(),
            input: InputFacts { name: String::new(), sha256: String::new(), bytes: 0 },
            accounts: Accounts::Registered,
            settings,
            probes: Vec::new(),
        }
    }

    /// The whole pipeline but for the target: manager, plane, workers, recorder, frames, record.
    async fn play(
        script: Script,
        settings: Settings,
        workers: u32,
        mut kept: Kept,
    ) -> (Kept, Option<String>) {
        let (plane, plan) = (Arc::new(InProcess::new()), plan(settings));
        let end = ManagerEnd::open(Arc::clone(&plane), None).await.unwrap();
        let (_serve, ask) = watch::channel(Ask::Serve);
        let mut serving = Vec::new();
        for number in 0..workers {
            let terms = Terms { name: format!("w{number:02}"), lease: None, spool: None, manager: None };
            let mut worker = Worker {
                end: WorkerEnd::join(Arc::clone(&plane), &terms, hello()).await.unwrap(),
                driver: Arc::new(script.clone()),
                run_id: "r".into(),
                settings: plan.settings.clone(),
                ask: ask.clone(),
            };
            serving.push(tokio::spawn(async move { worker.serve().await }));
        }
        let (_ask, stop) = watch::channel(None);
        let todo = (plan.cells.clone(), false);
        let ended = manager::manage(end, &plan, todo, Wanted::any(workers), &mut kept, None, stop).await;
        for worker in serving {
            assert_eq!(worker.await.unwrap(), Served::Ended);
        }
        (kept, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_healthy_run_passes_on_any_number_of_workers() {
        for workers in [1, 3, 12] {
            let (kept, ended) = play(Script::healthy(), Settings::default(), workers, Kept::default()).await;
            assert_eq!(ended, None);
            assert_eq!(kept.cells.len(), 4, "a warm-up and three repetitions");
            assert_eq!(kept.most_submitted, 10);
            for cell in &kept.cells[1..] {
                assert_eq!(cell.verdict, Verdict::Pass, "{:?}", cell.checks);
                assert_eq!((cell.ledger.count("fetched"), cell.ledger.residual()), (10, 0));
                let users: BTreeSet<u32> = cell.totals.jobs.keys().map(|k| k.user).collect();
                assert_eq!(users, (0..10).collect());
                for job in cell.totals.jobs.values() {
                    let run = job.timeline.stage(Stage::Run).unwrap();
                    assert!(run.least <= Micros(2_000_000) && run.most >= Some(Micros(2_000_000)), "{run:?}");
                }
                let polls: u64 = cell.totals.jobs.values().map(|j| u64::from(j.timeline.polls)).sum();
                let counted: u64 = cell
                    .totals
                    .phase(Phase::Load)
                    .filter(|(k, _)| k.name == "/jobs")
                    .map(|(_, s)| s.count())
                    .sum();
                assert_eq!(polls, counted);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_target_that_never_finishes_ends_in_fail_at_the_job_timeout() {
        let script = Script { life: vec![(Duration::ZERO, JobState::Running)], ..Script::healthy() };
        let settings = Settings { job_timeout: Micros(20_000_000), ..Settings::default() };
        let began = Instant::now();
        let (kept, _) = play(script, settings, 1, Kept::default()).await;
        assert!(began.elapsed() < Duration::from_secs(100));
        assert_eq!(kept.cells[1].verdict, Verdict::Fail);
        assert_eq!(kept.cells[1].ledger.count("timed_out"), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_job_missing_in_the_targets_list_makes_the_cell_invalid() {
        let script = Script { unlisted: 2, ..Script::healthy() };
        let (kept, _) = play(script, Settings::default(), 1, Kept::default()).await;
        let cell = &kept.cells[1];
        assert_eq!((cell.verdict, cell.ledger.vanished.len()), (Verdict::Invalid, 2));
        assert!(cell.checks.iter().any(|c| c.rule == Rule::LedgerAddsUp && c.verdict == Verdict::Invalid));
    }

    #[tokio::test(start_paused = true)]
    async fn invalid_cells_are_made_again_at_the_end_and_not_for_ever() {
        let script = Script { unlisted: 2, ..Script::healthy() };
        let settings = Settings { requeue: 2, ..Settings::default() };
        let (kept, ended) = play(script, settings, 2, Kept::default()).await;
        assert_eq!(ended, None);
        let order: Vec<(u32, u32)> =
            kept.cells[1..].iter().map(|c| (c.cell.repetition, c.cell.attempt)).collect();
        assert_eq!(order, [(1, 1), (2, 1), (3, 1), (1, 2), (2, 2), (3, 2), (1, 3), (2, 3), (3, 3)]);
        let titles: BTreeSet<u32> = kept.cells.iter().map(|c| c.cell.index).collect();
        assert_eq!(titles.len(), kept.cells.len(), "no two cells share their jobs' titles");
        let healthy = Settings { requeue: 2, ..Settings::default() };
        let (kept, _) = play(Script::healthy(), healthy, 2, Kept::default()).await;
        assert_eq!(kept.cells.len(), 4, "what is sound is not made again");
    }

    #[tokio::test(start_paused = true)]
    async fn without_sessions_the_run_ends_with_the_reason() {
        let script = Script { no_session: Some("401 Invalid login".into()), ..Script::healthy() };
        let (kept, ended) = play(script, Settings::default(), 3, Kept::default()).await;
        assert_eq!(ended.as_deref(), Some("401 Invalid login"));
        assert!(kept.cells.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_record_that_cannot_be_kept_ends_the_run() {
        let kept = Kept { full_disk: true, ..Kept::default() };
        let (kept, ended) = play(Script::healthy(), Settings::default(), 1, kept).await;
        assert_eq!((kept.cells.len(), ended.as_deref()), (1, Some("disk full")));
    }
}
