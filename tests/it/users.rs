//! Users of several workers: whose accounts they use, what an earlier cell has left over, and that
//! nothing is submitted without a permit.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use rstest::rstest;
use serde_json::json;
use springtide::{
    attack::Attack,
    driver::{CellRun, Driver},
    loadtests::{
        Kit, User,
        input::Input,
        session::{Account, Accounts},
        take_part,
        user::LOGINS_AT_ONCE,
    },
    micros::Micros,
    plan::{Cell, Plan, Settings, Share},
    plane::permit::Permit,
    recorder::unix_micros,
    scenario::Matrix,
    snapshot::{Phase, Totals},
    standin::{Config, StandIn},
    target::Origin,
    timeline::{JobOutcome, JobState},
};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::odd::{Odd, Reply};

/// Any of these things takes less.
const SOON: Duration = Duration::from_secs(30);
const RUN: &str = "20260101T000000Z-abcd";

fn kit(url: &str, accounts: Accounts, most_users: u32) -> Kit {
    Kit {
        origin: Arc::new(Origin::new(url, None).unwrap()),
        sockets: Arc::default(),
        input: Input::built_in(),
        accounts,
        logins: Semaphore::new(LOGINS_AT_ONCE),
        refresh_after: Duration::from_secs(480),
        timeout: Duration::from_secs(20),
        title: format!("springtide {RUN}"),
        most_users,
        spans: None,
    }
}

fn registered() -> Accounts {
    Accounts::Registered { prefix: "p".into(), key: "secret".into() }
}

fn shared(name: &str) -> Accounts {
    Accounts::Shared(Account { username: name.into(), password: "pw".into() })
}

fn cell(index: u32, users: u32) -> Cell {
    let cell = Plan::cells(1, &Matrix::runbook().scenarios, false).remove(0);
    Cell { index, users, tasks: 1, ..cell }
}

/// A share of worker `worker` of `workers`, and what else it is told.
fn share(cell: &Cell, (worker, workers): (u32, u32), tidy: bool, permit: Permit) -> CellRun {
    let settings = Settings { poll_interval: Micros(50_000), ..Settings::default() };
    let stop = CancellationToken::new();
    let mut run = CellRun::new(Share::of(cell, worker, workers), settings, RUN, stop, 1);
    (run.tidy, run.permit) = (tidy, permit);
    run
}

/// Users that live on from cell to cell, as those of one worker.
struct Host {
    users: Vec<Arc<Mutex<User>>>,
}

/// Its users in one cell.
struct Part {
    run: Arc<CellRun>,
    users: Vec<JoinHandle<()>>,
}

impl Host {
    fn new(kit: Kit) -> Self {
        let kit = Arc::new(kit);
        let user = |slot| Arc::new(Mutex::new(User::new(slot, Arc::clone(&kit))));
        Self { users: (0..kit.most_users).map(user).collect() }
    }

    /// Lets its users take part.
    fn joins(&self, run: CellRun) -> Part {
        let run = Arc::new(run);
        let play = |user: &Arc<Mutex<User>>| {
            let (user, run) = (Arc::clone(user), Arc::clone(&run));
            tokio::spawn(async move { take_part(&mut *user.lock().await, &run, &run.recorders[0]).await })
        };
        let users = self.users.iter().take(run.hands() as usize).map(play).collect();
        Part { run, users }
    }
}

impl Part {
    /// Waits until all users stand at the start.
    async fn is_ready(&self) {
        timeout(SOON, self.run.start.full()).await.expect("all users come to the start");
    }

    fn starts(&self) {
        let now = Instant::now();
        self.run.recorders[0].start(now, unix_micros());
        self.run.start.open(now);
    }

    /// Waits until the cell is over, and says what was measured.
    async fn ends(self) -> Totals {
        timeout(SOON, self.run.settle.full()).await.expect("all jobs have an outcome");
        self.run.settle.open(Instant::now());
        self.leaves().await
    }

    /// Waits until all users have left.
    async fn leaves(self) -> Totals {
        for user in self.users {
            timeout(SOON, user).await.expect("all users leave").unwrap();
        }
        self.run.recorders[0].take()
    }

    /// Ends the users as a kill ends a process: nobody cancels their jobs.
    async fn kill(self) {
        for user in self.users {
            user.abort();
            let _ = user.await;
        }
    }
}

async fn accepted(backend: &StandIn, jobs: usize) {
    let deadline = Instant::now() + SOON;
    while backend.truth().jobs.len() < jobs {
        assert!(Instant::now() < deadline, "{} of {jobs} jobs", backend.truth().jobs.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn backend(task_time: Duration, accounts: &[(&str, &str)]) -> StandIn {
    let accounts = accounts.iter().map(|(name, pw)| ((*name).to_owned(), (*pw).to_owned())).collect();
    let login_cost = Duration::from_millis(1);
    StandIn::start(Config { task_time, accounts, login_cost, ..Config::default() }).unwrap()
}

/// How often an endpoint answered with each status before T0.
fn in_setup(totals: &Totals, name: &str) -> BTreeMap<u16, u64> {
    let of_it = totals.phase(Phase::Setup).filter(|(key, _)| key.name == name);
    of_it.flat_map(|(_, stats)| stats.statuses.clone()).collect()
}

/// Three users on two workers, then all on one, then again on two, whose places are swapped.
#[tokio::test]
async fn an_account_follows_the_number_in_the_cell() {
    let backend = backend(Duration::from_millis(10), &[]);
    let hosts = [(); 2].map(|()| Host::new(kit(backend.url(), registered(), 3)));
    for (nth, parts) in
        [&[(0, (0, 2)), (1, (1, 2))][..], &[(1, (0, 1))], &[(0, (1, 2)), (1, (0, 2))]].into_iter().enumerate()
    {
        let cell = cell(nth as u32, 3);
        let parts: Vec<Part> = parts
            .iter()
            .map(|(host, place)| hosts[*host].joins(share(&cell, *place, false, Permit::forever())))
            .collect();
        for part in &parts {
            part.is_ready().await;
        }
        parts.iter().for_each(Part::starts);
        let mut sum = Totals::default();
        for part in parts {
            assert_eq!(part.run.failure(), None);
            sum.merge(part.ends().await);
        }
        assert!(sum.jobs.values().all(|job| job.outcome == JobOutcome::Fetched), "{:?}", sum.jobs);
        assert_eq!((sum.errors.len(), sum.target.listed.len()), (0, 3), "{:?}", sum.errors);
        let registered = in_setup(&sum, "/auth/register");
        match nth {
            0 => assert_eq!(registered, [(201, 3)].into()),
            // The worker that had 1 and 2 is given 0, 1 and 2, in other places; all exist.
            1 => assert_eq!(registered, [(403, 3)].into()),
            _ => assert_eq!(registered.keys().copied().collect::<Vec<_>>(), [403]),
        }
    }
    for job in &backend.truth().jobs {
        let number = &job.username["p-".len()..];
        assert!(job.title.contains(&format!(" u000{number} ")), "{} in {}", job.title, job.username);
    }
}

/// A name that somebody else has is no account of ours.
#[tokio::test]
async fn an_account_with_another_password_ends_the_run() {
    let backend = backend(Duration::from_millis(10), &[("p-0", "somebody else's")]);
    let part = Host::new(kit(backend.url(), registered(), 1)).joins(share(
        &cell(0, 1),
        (0, 1),
        false,
        Permit::forever(),
    ));
    part.is_ready().await;
    let why = part.run.failure().unwrap();
    assert!(why.contains("User existing") && why.contains("Invalid login"), "{why}");
}

/// Five users on two workers that are killed; then two users on another look after all accounts of
/// the plan, of which two were never made.
#[tokio::test]
async fn what_lost_workers_leave_is_canceled_in_every_account() {
    let backend = backend(Duration::from_secs(60), &[]);
    let first = cell(0, 5);
    let lost: Vec<Part> = (0..2)
        .map(|n| {
            Host::new(kit(backend.url(), registered(), 7)).joins(share(
                &first,
                (n, 2),
                false,
                Permit::forever(),
            ))
        })
        .collect();
    for part in &lost {
        part.is_ready().await;
        part.starts();
    }
    accepted(&backend, 5).await;
    for part in lost {
        part.kill().await;
    }
    let part = Host::new(kit(backend.url(), registered(), 7)).joins(share(
        &cell(1, 2),
        (0, 1),
        true,
        Permit::forever(),
    ));
    part.is_ready().await;
    assert_eq!(part.run.failure(), None);
    let jobs = backend.truth().jobs;
    let states: BTreeSet<JobState> = jobs.iter().map(|j| j.final_state).collect();
    assert_eq!((jobs.len(), states), (5, [JobState::Canceled].into()), "before T0, and nothing more");
    part.run.stop.cancel();
    let totals = part.leaves().await;
    assert_eq!(in_setup(&totals, "/auth/login"), [(202, 5), (401, 2)].into());
    assert!(totals.errors.is_empty(), "an account that was never made is no error: {:?}", totals.errors);
    assert!(totals.target.unfinished.is_empty() && totals.target.errors.is_empty(), "{:?}", totals.target);
}

/// A worker that has no user in the cell looks after its account nevertheless, and only then is through.
#[tokio::test]
async fn a_worker_that_stands_by_looks_after_its_shared_account() {
    let backend = backend(Duration::from_secs(60), &[("ann", "pw"), ("bob", "pw")]);
    let first = cell(0, 2);
    let mut lost = Vec::new();
    for (n, name) in [(0, "ann"), (1, "bob")] {
        let part = Host::new(kit(backend.url(), shared(name), 2)).joins(share(
            &first,
            (n, 2),
            false,
            Permit::forever(),
        ));
        part.is_ready().await;
        part.starts();
        lost.push(part);
    }
    accepted(&backend, 2).await;
    for part in lost {
        part.kill().await;
    }
    let attack = Attack::launch(2, 1, &Arc::new(kit(backend.url(), shared("ann"), 2))).unwrap();
    let run = Arc::new(share(&cell(1, 1), (0, 2), true, Permit::forever()));
    assert_eq!(run.share.users, 0);
    timeout(SOON, attack.drive(Arc::clone(&run))).await.expect("it looks after its account");
    assert_eq!(run.failure(), None);
    let states: BTreeMap<String, JobState> =
        backend.truth().jobs.into_iter().map(|j| (j.username, j.final_state)).collect();
    assert_eq!(states["ann"], JobState::Canceled);
    assert_ne!(states["bob"], JobState::Canceled, "it has no way to that account");
    run.stop.cancel();
    let run = Arc::new(share(&cell(2, 1), (0, 2), false, Permit::forever()));
    timeout(SOON, attack.drive(run)).await.expect("there is nothing to do");
}

/// A list that came when the permit had run out may hold jobs of a cell that others have begun.
#[tokio::test]
async fn without_a_permit_nothing_is_canceled_from_a_list() {
    let permit = Permit::forever();
    let on_list = permit.clone();
    let odd = Odd::backend(true, move |route| {
        (route == "GET /user/simulations").then(|| {
            on_list.extend(Instant::now());
            let row = json!({"job_id": "job-0", "title": format!("springtide {RUN} c009 u0000 j0000"), "end_time": null});
            Reply::json(200, json!({"page_count": 1, "simulations_count": 1, "simulations": [row]}))
        })
    });
    let host = Host::new(kit(&odd.url, registered(), 1));
    let part = host.joins(share(&cell(1, 1), (0, 1), true, permit));
    part.is_ready().await;
    assert!(part.run.stop.is_cancelled());
    part.leaves().await;
    let asked = odd.requests();
    assert_eq!(asked.get("GET /user/simulations"), Some(&1));
    assert!(!asked.contains_key("DELETE /jobs/direct") && !asked.contains_key("GET /jobs"), "{asked:?}");
}

/// Whatever a user does between the permit and the submit: when the permit runs out meanwhile, the
/// submit is not sent, nor sent again.
#[rstest]
#[case::before_the_start(None, 0)]
#[case::while_the_session_is_renewed(Some("GET /auth/refresh"), 0)]
#[case::while_it_is_refused_for_want_of_a_session(Some("POST /jobs/direct"), 1)]
#[case::while_it_logs_in_once_more(Some("POST /auth/login"), 1)]
#[tokio::test]
async fn nothing_is_submitted_without_a_permit(#[case] runs_out_in: Option<&'static str>, #[case] sent: u64) {
    let permit = if runs_out_in.is_some() { Permit::forever() } else { Permit::none() };
    let of_server = permit.clone();
    let logins = std::sync::atomic::AtomicU32::new(0);
    let odd = Odd::backend(false, move |route| {
        // The first login is that of the setup.
        let nth = u32::from(route == "POST /auth/login");
        let is_first = logins.fetch_add(nth, std::sync::atomic::Ordering::Relaxed) == 0 && nth == 1;
        if runs_out_in == Some(route) && !is_first {
            of_server.extend(Instant::now());
        }
        match route {
            "POST /jobs/direct" => Some(Reply::json(401, json!({"message": "No token provided"}))),
            "GET /auth/refresh" => Some(Reply::json(200, json!({"message": "User refreshed"}))),
            _ => None,
        }
    });
    let refresh_after = match runs_out_in {
        Some("GET /auth/refresh") => Duration::ZERO,
        _ => Duration::from_secs(480),
    };
    let host = Host::new(Kit { refresh_after, ..kit(&odd.url, registered(), 1) });
    let part = host.joins(share(&cell(0, 1), (0, 1), false, permit));
    part.is_ready().await;
    part.starts();
    timeout(SOON, part.run.stop.cancelled()).await.expect("the share ends with its permit");
    part.leaves().await;
    let asked = odd.requests();
    assert_eq!(asked.get("POST /jobs/direct").copied().unwrap_or(0), sent, "{asked:?}");
}
