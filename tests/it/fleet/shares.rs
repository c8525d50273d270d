//! Who does how much, in which account, and what of it stands on the plane.

use std::fs;

use springtide::{crew::What, verdict::Exit};

use super::{ANN, Fleet, PASSWORD, are_sent_home, ends_true, registered_accounts, shares, whom, worker_at};
use crate::{
    redis_server::RedisServer,
    support::{Run, shared},
    truth::{counted, served_in_all},
};

/// Seals what the manager sends its workers of the target's accounts.
const SECRET: &str = "paper-lantern-over-the-harbour";

/// How users come by their accounts, and what workers are told of it.
#[derive(Clone, Copy)]
enum Accounts {
    Registered,
    RegisteredSealed,
    SharedWithPassword,
    SharedSealed,
}

impl Accounts {
    fn manager(self, run: Run) -> Run {
        match self {
            Self::Registered => registered_accounts(run),
            Self::RegisteredSealed => registered_accounts(run).env("SPRINGTIDE_PLANE_SECRET", SECRET),
            Self::SharedWithPassword => run,
            Self::SharedSealed => run.env("SPRINGTIDE_PLANE_SECRET", SECRET),
        }
    }

    fn worker(self, run: Run) -> Run {
        match self {
            Self::Registered => run,
            Self::SharedWithPassword => run.env("SPRINGTIDE_PASSWORD", PASSWORD),
            Self::RegisteredSealed | Self::SharedSealed => run.env("SPRINGTIDE_PLANE_SECRET", SECRET),
        }
    }
}

/// Everything that stands on a plane, as text.
fn everything(plane: &RedisServer) -> String {
    let mut connection = plane.connection();
    let mut all = String::new();
    for key in plane.keys() {
        let kind: String = redis::cmd("TYPE").arg(&key).query(&mut connection).unwrap();
        let value: redis::Value = match kind.as_str() {
            "stream" => redis::cmd("XRANGE").arg(&key).arg("-").arg("+").query(&mut connection).unwrap(),
            "string" => redis::cmd("GET").arg(&key).query(&mut connection).unwrap(),
            other => panic!("{key} is a {other}"),
        };
        let mut texts = vec![&value];
        while let Some(value) = texts.pop() {
            match value {
                redis::Value::Array(values) => texts.extend(values),
                redis::Value::BulkString(text) => {
                    all += &String::from_utf8_lossy(text);
                    all.push('\n');
                }
                _ => {}
            }
        }
        all += &key;
    }
    all
}

/// S6 as it stands, but for shorter jobs.
fn s6_with_three(accounts: Accounts) {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 100ms");
    let workers = ["a", "b", "c"].map(|name| accounts.worker(worker_at(&fleet.plane.url(), name)).start());
    let manager = accounts.manager(fleet.manager());
    let manager = manager.set("users", 10).set("tasks", 2).set("expect-workers", 3).start();
    let folder = manager.home().to_owned();
    let ended = manager.ends();
    let truth = fleet.backend.truth();
    let run = ends_true(&ended, Exit::Pass, &truth);
    assert_eq!(ended.records(), [ended.folder().join("run.json")], "one report below {}", folder.display());
    for file in ["report.html", "summary.md", "timings/S6_stats.csv", "timings/S6_jobs.csv"] {
        assert!(ended.folder().join(file).is_file(), "{file}");
    }
    for shares in shares(&run) {
        let mut users: Vec<u32> = shares.values().copied().collect();
        users.sort_unstable();
        assert_eq!((shares.len(), users), (3, vec![3, 3, 4]), "{shares:?}");
    }
    let rows = fs::read_to_string(ended.folder().join("timings/workers.csv")).unwrap();
    let mut rows = rows.lines().map(|line| line.split(',').collect::<Vec<_>>());
    let head = rows.next().unwrap();
    let column = |name: &str| head.iter().position(|n| *n == name).unwrap();
    let (cell, name, users) = (column("cell"), column("worker"), column("users"));
    let told: Vec<(u32, String, u32)> =
        rows.map(|row| (row[cell].parse().unwrap(), row[name].into(), row[users].parse().unwrap())).collect();
    let known =
        run.cells.iter().flat_map(|c| c.workers.iter().map(|w| (c.cell.index, w.name.clone(), w.users)));
    assert_eq!(told, known.collect::<Vec<_>>());
    let joined = whom(&run, |what| matches!(what, What::Joined { .. }));
    assert_eq!(joined.len(), 3, "{joined:?}");
    // Manager and workers each said hello; every other request was counted by one of the workers.
    let mut served = served_in_all(&truth);
    assert_eq!(served.remove("GET /"), Some((4, [(200, 4)].into())));
    let registered = served.remove("PUT /auth/register");
    assert!(registered.is_some(), "the test itself registered one");
    let mut ours = counted(&run);
    ours.remove("PUT /auth/register");
    assert_eq!(ours, served);
    let all = everything(&fleet.plane);
    assert!(all.contains("\"frame\"") || all.contains("springtide:lobby"), "{all}");
    for secret in [PASSWORD, SECRET] {
        assert!(!all.contains(secret), "a secret stands on the plane");
        for worker in &workers {
            assert!(!worker.err().contains(secret) && !worker.out().contains(secret));
        }
        assert!(!ended.err.contains(secret) && !ended.out.contains(secret));
    }
    if matches!(accounts, Accounts::SharedWithPassword | Accounts::SharedSealed) {
        assert!(truth.jobs.iter().all(|j| j.username == ANN));
    }
    are_sent_home(workers);
}

#[test]
fn ten_users_are_three_and_three_and_four_in_registered_accounts() {
    s6_with_three(Accounts::Registered);
}

#[test]
fn ten_users_are_three_and_three_and_four_in_registered_accounts_that_are_sealed() {
    s6_with_three(Accounts::RegisteredSealed);
}

#[test]
fn ten_users_share_an_account_whose_password_only_the_workers_know() {
    s6_with_three(Accounts::SharedWithPassword);
}

#[test]
fn ten_users_share_an_account_whose_password_is_sealed() {
    s6_with_three(Accounts::SharedSealed);
}
