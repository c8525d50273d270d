//! Whole runs over the real ends of a plane in virtual time: manager, plane, workers, recorder,
//! frames and record as they are, with a script for a target.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    cluster::{
        manager::{self, Watcher},
        members::Wanted,
        worker::{Ask, Served, Worker},
    },
    crew::{self, Member},
    driver::{CellRun, Driver, scripted::Script},
    micros::Micros,
    plan::{Accounts, Cell, CellKind, InputFacts, Plan, Settings},
    plane::{
        Command, Entry, Log, MANAGER, Place, Plane, Report,
        in_process::InProcess,
        manager_end::ManagerEnd,
        message::trial::hello,
        trial::{Fitful, Storm, Stormy},
        worker_end::{Terms, WorkerEnd},
    },
    record::CellRecord,
    scenario::Matrix,
    snapshot::{Phase, Totals},
    verdict::Verdict,
};

const TTL: Duration = Duration::from_secs(5);
/// No run lasts longer, whatever happens.
const FOR_EVER: Duration = Duration::from_secs(2 * 3_600);

/// What is kept of a run, even if its manager is not.
#[derive(Debug, Default, Clone)]
struct Kept(Arc<Mutex<(Vec<CellRecord>, Vec<crew::Event>)>>);

impl Kept {
    fn cells(&self) -> Vec<CellRecord> {
        self.0.lock().unwrap().0.iter().filter(|c| c.cell.kind == CellKind::Measured).cloned().collect()
    }

    fn verdicts(&self) -> Vec<Verdict> {
        self.cells().iter().map(|c| c.verdict).collect()
    }
}

impl Watcher for Kept {
    fn opened(&mut self, _: &Cell, _: usize) {}
    fn progress(&mut self, _: &Cell, _: &[&Totals], _: Option<Micros>) {}
    fn closed(&mut self, record: CellRecord) -> Result<(), String> {
        self.0.lock().unwrap().0.push(record);
        Ok(())
    }
    fn told(&mut self, event: crew::Event) {
        self.0.lock().unwrap().1.push(event);
    }
}

fn plan() -> Plan {
    let mut scenario = Matrix::runbook().get("S6").unwrap().clone();
    scenario.repetitions = 3;
    let settings = Settings { requeue: 3, job_timeout: Micros(60_000_000), ..Settings::default() };
    Plan {
        seed: 7,
        matrix_sha256: String::new(),
        matrix_name: String::new(),
        cells: Plan::cells(7, std::slice::from_ref(&scenario), false),
        scenarios: vec![scenario],
        overrides: Vec::new(),
        input: InputFacts { name: String::new(), sha256: String::new(), bytes: 0 },
        accounts: Accounts::Registered,
        settings,
        probes: Vec::new(),
    }
}

type Side = Arc<Fitful<Stormy>>;

/// A plane, and the ways of everybody to it.
struct Host {
    manager: Side,
    workers: Vec<Side>,
    serving: Vec<JoinHandle<()>>,
    kept: Kept,
}

impl Host {
    /// A plane in that storm, with workers that serve until the run is over.
    fn new(storm: Storm, workers: usize) -> Self {
        let plane = Stormy::new(storm);
        let side = || Arc::new(Fitful::new(plane.clone()));
        let sides: Vec<Side> = (0..workers).map(|_| side()).collect();
        let serve =
            |(number, side): (usize, &Side)| tokio::spawn(serve(number, Arc::clone(side), plane.clone()));
        let serving = sides.iter().enumerate().map(serve).collect();
        Self { manager: side(), workers: sides, serving, kept: Kept::default() }
    }

    /// A manager that carries these cells out.
    fn manage(&self, cells: Vec<Cell>, is_resumed: bool) -> JoinHandle<Option<String>> {
        let (side, mut kept, workers) = (Arc::clone(&self.manager), self.kept.clone(), self.workers.len());
        tokio::spawn(async move {
            let plan = plan();
            let end = loop {
                match ManagerEnd::open(Arc::clone(&side), Some(TTL)).await {
                    Ok(end) => break end,
                    Err(_) => sleep(Duration::from_secs(1)).await,
                }
            };
            let (_asks, stop) = watch::channel(None);
            let wanted = Wanted::any(workers as u32);
            manager::manage(end, &plan, (cells, is_resumed), wanted, &mut kept, None, stop).await
        })
    }

    /// The whole run, in which something happens beside it. Returns why it ended.
    async fn run(&self, beside: impl Future<Output = ()>) -> Option<String> {
        let managed = self.manage(plan().cells, false);
        let (ended, ()) = tokio::join!(timeout(FOR_EVER, managed), beside);
        let ended = ended.expect("a run ends").expect("a manager does not panic");
        self.is_true();
        ended
    }

    /// Every cell that passed has exactly what happened, and counts once.
    fn is_true(&self) {
        let mut passed = BTreeSet::new();
        for record in self.kept.cells().iter().filter(|c| c.verdict == Verdict::Pass) {
            assert!(passed.insert(record.cell.repetition), "repetition {} twice", record.cell.repetition);
            assert_eq!((record.ledger.count("fetched"), record.ledger.residual()), (10, 0));
            let users: BTreeSet<u32> = record.totals.jobs.keys().map(|k| k.user).collect();
            assert_eq!(users, (0..10).collect());
            assert!(record.workers.iter().all(|w| w.gaps == 0 && w.lost.is_none()), "{:?}", record.workers);
            // Each poll was taken down twice: as a request and in its job.
            let polls: u64 = record.totals.jobs.values().map(|j| u64::from(j.timeline.polls)).sum();
            let of_polls = record.totals.phase(Phase::Load).filter(|(k, _)| k.name == "/jobs");
            assert_eq!(polls, of_polls.map(|(_, stats)| stats.count()).sum::<u64>());
        }
    }

    /// All repetitions passed, and nothing more was made than these attempts.
    fn is_complete(&self, attempts: usize) {
        let verdicts = self.kept.verdicts();
        let passed = verdicts.iter().filter(|v| **v == Verdict::Pass).count();
        assert_eq!((passed, verdicts.len()), (3, attempts), "{verdicts:?}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.iter().for_each(JoinHandle::abort);
    }
}

/// One that joins again whenever it was lost, as long as there is a run.
async fn serve(number: usize, side: Side, plane: Stormy) {
    let (_serve, ask) = watch::channel(Ask::Serve);
    let terms = Terms { name: format!("w{number:02}"), lease: Some(TTL), spool: None, manager: None };
    loop {
        if plane.manager().is_none() {
            sleep(Duration::from_millis(500)).await;
            continue;
        }
        let Ok(end) = WorkerEnd::join(Arc::clone(&side), &terms, hello()).await else {
            sleep(Duration::from_millis(500)).await;
            continue;
        };
        let driver = Arc::new(Script::healthy());
        let settings = plan().settings;
        let mut worker = Worker { end, driver, run_id: "r".into(), settings, ask: ask.clone() };
        let served = worker.serve().await;
        worker.end.leave(Duration::from_secs(1)).await;
        if matches!(served, Served::Refused(_)) {
            return;
        }
    }
}

async fn seconds(n: u64) {
    sleep(Duration::from_secs(n)).await;
}

#[tokio::test(start_paused = true)]
async fn without_a_storm_a_run_passes() {
    let host = Host::new(Storm::default(), 3);
    assert_eq!(host.run(async {}).await, None);
    host.is_complete(3);
}

#[tokio::test(start_paused = true)]
async fn in_any_storm_a_run_ends_and_what_passes_is_true() {
    let mut passed = 0;
    for seed in 0..u64::from(super::cases(24)) {
        let some = |n: u64| (seed / n % 4) as u32 * 3;
        let storm = Storm { seed, lost: some(1) / 3, twice: some(2), late: some(3), vague: some(5) };
        let host = Host::new(storm, 1 + seed as usize % 4);
        let beside = async {
            seconds(seed % 23).await;
            let side = host.workers.get(seed as usize % 6).unwrap_or(&host.manager);
            side.is_away(true);
            seconds(seed % 9).await;
            side.is_away(false);
        };
        host.run(beside).await;
        passed += host.kept.verdicts().iter().filter(|v| **v == Verdict::Pass).count();
    }
    assert!(passed > 15, "only {passed} cells passed: storms that leave nothing show nothing");
}

#[tokio::test(start_paused = true)]
async fn words_that_come_twice_and_answers_that_are_lost_cost_nothing() {
    for seed in 0..8 {
        let host = Host::new(Storm { seed, twice: 20, vague: 10, ..Storm::default() }, 3);
        assert_eq!(host.run(async {}).await, None, "seed {seed}");
        host.is_complete(3);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_costs_one_cell() {
    let host = Host::new(Storm::default(), 3);
    let ended = host.run(async {
        seconds(6).await;
        host.serving[1].abort();
    });
    assert_eq!(ended.await, None);
    host.is_complete(4);
    let first = &host.kept.cells()[0];
    assert_eq!(first.workers[1].lost.as_deref(), Some("its lease ran out"), "{:?}", first.workers);
    assert!(host.kept.cells()[1..].iter().all(|c| c.workers.len() == 2));
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_is_away_for_less_than_a_lease_costs_nothing() {
    let host = Host::new(Storm::default(), 3);
    let ended = host.run(async {
        seconds(6).await;
        let sides = || host.workers.iter().chain([&host.manager]);
        sides().for_each(|side| side.is_away(true));
        seconds(2).await;
        sides().for_each(|side| side.is_away(false));
    });
    assert_eq!(ended.await, None);
    host.is_complete(3);
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_is_away_for_longer_costs_one_cell() {
    let host = Host::new(Storm::default(), 3);
    let ended = host.run(async {
        seconds(6).await;
        let sides = || host.workers.iter().chain([&host.manager]);
        sides().for_each(|side| side.is_away(true));
        seconds(20).await;
        sides().for_each(|side| side.is_away(false));
    });
    assert_eq!(ended.await, None);
    host.is_complete(4);
}

#[tokio::test(start_paused = true)]
async fn a_plane_that_is_gone_ends_the_run_with_a_reason() {
    let host = Host::new(Storm::default(), 2);
    let began = Instant::now();
    let ended = host.run(async {
        seconds(6).await;
        host.workers.iter().chain([&host.manager]).for_each(|side| side.is_away(true));
    });
    assert!(ended.await.is_some());
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn another_manager_carries_out_what_is_left() {
    let host = Host::new(Storm::default(), 3);
    let first = host.manage(plan().cells, false);
    let mut died = None;
    while died.is_none() {
        sleep(Duration::from_millis(100)).await;
        // In the middle of the second cell.
        if host.kept.cells().len() == 1 {
            seconds(3).await;
            first.abort();
            died = Some(Instant::now());
        }
    }
    assert_eq!(host.kept.verdicts(), [Verdict::Pass]);
    let left = plan().cells[1..].to_vec();
    let ended = timeout(FOR_EVER, host.manage(left, true)).await.expect("a run ends").unwrap();
    assert_eq!(ended, None);
    host.is_true();
    host.is_complete(3);
}

/// Makes load until the permit runs out, and sees that before anybody else does.
struct Keen;

impl Driver for Keen {
    fn threads(&self) -> usize {
        1
    }

    async fn drive(&self, run: Arc<CellRun>) {
        (0..run.share.users).for_each(|_| run.start.arrive());
        run.start.opened().await;
        run.permit.extend(Instant::now());
        assert!(!run.may_submit());
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_permit_ran_out_does_not_end_the_run() {
    let plane = Arc::new(Fitful::new(InProcess::new()));
    plane.take(MANAGER, TTL).await.unwrap();
    let terms = Terms { name: "a".into(), lease: Some(TTL), spool: None, manager: None };
    let end = WorkerEnd::join(Arc::clone(&plane), &terms, hello()).await.unwrap();
    let member = end.member().clone();
    let (_serve, ask) = watch::channel(Ask::Serve);
    let mut worker =
        Worker { end, driver: Arc::new(Keen), run_id: "r".into(), settings: plan().settings, ask };
    let cell = plan().cells[0].clone();
    let at = Micros(plane.time().await.unwrap().0 + 100_000);
    for command in
        [Command::Prepare { cell, members: vec![member], tidy: false }, Command::Start { cell: 0, at }]
    {
        plane.append(&Log::Commands, &Entry::Command(command), None).await.unwrap();
    }
    let Served::Lost(_) = worker.serve().await else { panic!() };
    let mut places = [(Log::Reports("a".into()), Place::default())].into();
    for entry in plane.read(&mut places, Duration::ZERO).await.unwrap() {
        let Entry::Sent(sent) = entry else { panic!() };
        assert!(!matches!(sent.report, Report::GaveUp { .. }), "{sent:?}");
    }
}

/// Has no users to drive.
struct Idle;

impl Driver for Idle {
    fn threads(&self) -> usize {
        1
    }

    async fn drive(&self, _: Arc<CellRun>) {}
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_stands_by_hears_of_the_end() {
    let plane = Arc::new(InProcess::new());
    plane.take(MANAGER, TTL).await.unwrap();
    let terms = Terms { name: "a".into(), lease: Some(TTL), spool: None, manager: None };
    let end = WorkerEnd::join(Arc::clone(&plane), &terms, hello()).await.unwrap();
    let other = Member { name: "b".into(), epoch: 9 };
    // The last one has the only user.
    let members = vec![end.member().clone(), other];
    let (_serve, ask) = watch::channel(Ask::Serve);
    let settings = plan().settings;
    let mut worker = Worker { end, driver: Arc::new(Idle), run_id: "r".into(), settings, ask };
    let serving = tokio::spawn(async move { worker.serve().await });
    let cell = Cell { users: 1, ..plan().cells[0].clone() };
    let say = async |command| plane.append(&Log::Commands, &Entry::Command(command), None).await.unwrap();
    say(Command::Prepare { cell, members, tidy: false }).await;
    let mut places = [(Log::Reports("a".into()), Place::default())].into();
    let is_ready = |entry: &Entry| match entry {
        Entry::Sent(sent) => matches!(sent.report, Report::Ready { .. }),
        _ => false,
    };
    let said_so = async { while !plane.read(&mut places, TTL).await.unwrap().iter().any(is_ready) {} };
    timeout(TTL * 2, said_so).await.expect("it is ready");
    say(Command::End).await;
    assert_eq!(timeout(FOR_EVER, serving).await.unwrap().unwrap(), Served::Ended);
}
