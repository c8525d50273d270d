//! The plane over a real Redis: it does what the one in memory does, and when Redis is frozen, full,
//! restarted or asked by many, what is said of it is true. It is long because each way in which a
//! Redis fails is told from its beginning to its end.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rstest::rstest;
use springtide::{
    crew::Member,
    plane::{
        Command, Entry, Log, MANAGER, Place, Plane, PlaneError, Report, Sent,
        in_process::InProcess,
        redis_streams::{Door, Lobby, RedisStreams},
    },
    recorder::unix_micros,
};
use tokio::time::timeout;

use crate::{redis_server::RedisServer, support::wait_for};

/// A lease that does not run out in a test.
const LONG: Duration = Duration::from_secs(60);
/// More than any call may take.
const BOUND: Duration = Duration::from_millis(2_500);

pub(crate) fn lobby(server: &RedisServer) -> Lobby {
    Lobby::at(&Door::new(&server.url(), None, None).unwrap())
}

/// An open run and its manager.
async fn open(server: &RedisServer) -> (RedisStreams, Member) {
    let plane = lobby(server).open_run("r", "{}").await.unwrap();
    let manager = plane.take(MANAGER, LONG).await.unwrap();
    (plane, manager)
}

fn command(cell: u32) -> Entry {
    Entry::Command(Command::Settle { cell })
}

fn report(from: &str, cell: u32) -> (Log, Entry) {
    let from = Member { name: from.into(), epoch: 7 };
    (Log::Reports(from.name.clone()), Entry::Sent(Arc::new(Sent { from, report: Report::Merging { cell } })))
}

fn from_start<const N: usize>(logs: [Log; N]) -> BTreeMap<Log, Place> {
    logs.map(|log| (log, Place::default())).into()
}

async fn read(plane: &impl Plane, log: &Log) -> Vec<Entry> {
    plane.read(&mut from_start([log.clone()]), Duration::ZERO).await.unwrap()
}

#[tokio::test]
async fn a_plane_in_memory_keeps_its_word() {
    keeps_its_word(Arc::new(InProcess::new())).await;
}

#[tokio::test]
async fn a_plane_over_redis_keeps_its_word() {
    let server = RedisServer::start();
    keeps_its_word(Arc::new(lobby(&server).open_run("r", "{}").await.unwrap())).await;
}

/// What both have in common.
async fn keeps_its_word<P: Plane>(plane: Arc<P>) {
    let commands = Log::Commands;
    // A lease has one holder.
    let manager = plane.take(MANAGER, LONG).await.unwrap();
    let held = plane.take(MANAGER, LONG).await;
    assert_eq!(held, Err(PlaneError::Held { name: MANAGER.into(), epoch: manager.epoch }));
    let worker = plane.take("w", LONG).await.unwrap();
    assert!(worker.epoch > manager.epoch);
    let holders = plane.holders(&["w", "nobody", MANAGER]).await.unwrap();
    let epochs: Vec<_> = holders.iter().map(|held| held.map(|h| h.epoch)).collect();
    assert_eq!(epochs, [Some(worker.epoch), None, Some(manager.epoch)]);
    assert!(holders[0].unwrap().left > LONG / 2);
    plane.renew(&worker, LONG).await.unwrap();

    // Logs keep their order, each by itself.
    assert_eq!(plane.end_of(&commands).await, Ok(Place::default()));
    for cell in 1..=3 {
        plane.append(&commands, &command(cell), Some(&manager)).await.unwrap();
        let (log, entry) = report("w", cell);
        plane.append(&log, &entry, None).await.unwrap();
    }
    plane.append(&Log::Roll, &Entry::Member(worker.clone()), None).await.unwrap();
    let mut places = from_start([commands.clone(), Log::Roll, report("w", 0).0, report("x", 0).0]);
    let entries = plane.read(&mut places, LONG).await.unwrap();
    assert_eq!(entries.len(), 7);
    let of = |is: fn(&Entry) -> bool| entries.iter().filter(|e| is(e)).cloned().collect::<Vec<_>>();
    assert_eq!(of(|e| matches!(e, Entry::Command(_))), [1, 2, 3].map(command));
    assert_eq!(of(|e| matches!(e, Entry::Sent(_))), [1, 2, 3].map(|cell| report("w", cell).1));
    assert_eq!(of(|e| matches!(e, Entry::Member(_))), [Entry::Member(worker.clone())]);
    assert_eq!(plane.end_of(&commands).await, Ok(places[&commands]));
    assert_eq!(places[&report("x", 0).0], Place::default(), "nobody said anything there");

    // There is nothing more, and that is known in time.
    let began = Instant::now();
    assert_eq!(plane.read(&mut places, Duration::from_millis(100)).await, Ok(vec![]));
    assert!(began.elapsed() >= Duration::from_millis(90) && began.elapsed() < Duration::from_secs(1));

    // A reader that waits is woken by what comes, and holds nobody up.
    let waits = tokio::spawn({
        let (plane, mut places) = (Arc::clone(&plane), places.clone());
        async move { plane.read(&mut places, LONG).await }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    let began = Instant::now();
    plane.renew(&manager, LONG).await.unwrap();
    plane.append(&commands, &command(4), Some(&manager)).await.unwrap();
    assert_eq!(timeout(LONG, waits).await.unwrap().unwrap(), Ok(vec![command(4)]));
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    // What was read is forgotten, again and again.
    for _ in 0..2 {
        plane.trim(&places, &manager).await.unwrap();
        assert_eq!(read(&*plane, &commands).await, [command(4)]);
        assert_eq!(read(&*plane, &report("w", 0).0).await, []);
    }
    assert_eq!(plane.end_of(&report("w", 0).0).await, Ok(places[&report("w", 0).0]), "the place stays");

    // Who lost the lease is fenced off.
    plane.release(&manager).await.unwrap();
    let fenced = PlaneError::Fenced(manager.clone());
    assert_eq!(plane.append(&commands, &command(5), Some(&manager)).await, Err(fenced.clone()));
    let second = plane.take(MANAGER, LONG).await.unwrap();
    assert!(second.epoch > worker.epoch);
    assert_eq!(plane.append(&commands, &command(5), Some(&manager)).await, Err(fenced.clone()));
    assert_eq!(plane.renew(&manager, LONG).await, Err(fenced.clone()));
    assert_eq!(plane.trim(&[(commands.clone(), Place(u64::MAX, 0))].into(), &manager).await, Err(fenced));
    plane.release(&manager).await.unwrap();
    plane.append(&commands, &command(6), Some(&second)).await.unwrap();
    assert_eq!(read(&*plane, &commands).await, [command(4), command(6)]);

    let apart = plane.time().await.unwrap().0.abs_diff(unix_micros());
    assert!(apart < 1_000_000, "one host, one clock: {apart} µs");
    plane.announce().await.unwrap();
    plane.close().await.unwrap();
}

#[tokio::test]
async fn a_lease_runs_out_and_no_epoch_is_given_twice() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let ttl = Duration::from_millis(200);
    let first = plane.take("w", ttl).await.unwrap();
    let began = Instant::now();
    while plane.holders(&["w"]).await.unwrap()[0].is_some() {
        assert!(began.elapsed() < Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(began.elapsed() >= ttl - Duration::from_millis(20), "{:?}", began.elapsed());
    assert_eq!(plane.renew(&first, ttl).await, Err(PlaneError::Fenced(first.clone())));
    let (log, entry) = report("w", 1);
    assert_eq!(plane.append(&log, &entry, Some(&first)).await, Err(PlaneError::Fenced(first.clone())));
    let second = plane.take("w", LONG).await.unwrap();
    assert!(second.epoch > first.epoch && first.epoch > manager.epoch);

    // A Redis that forgot what it gave out, as one that lost the last second of its file.
    let _: () = redis::cmd("SET").arg("springtide:r:epoch").arg(1).query(&mut server.connection()).unwrap();
    plane.release(&second).await.unwrap();
    let third = plane.take("w", LONG).await.unwrap();
    assert!(third.epoch > second.epoch, "{third} after {second}");
    assert!(plane.take("x", LONG).await.unwrap().epoch > third.epoch);
}

#[tokio::test]
async fn a_thousand_logs_are_read_with_one_command() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let names: Vec<String> = (0..1_000).map(|n| format!("worker-{n:04}")).collect();
    let mut places: BTreeMap<Log, Place> =
        names.iter().map(|name| (Log::Reports(name.clone()), Place::default())).collect();
    for (cell, name) in names.iter().enumerate().step_by(100) {
        let (log, entry) = report(name, cell as u32);
        plane.append(&log, &entry, None).await.unwrap();
    }
    assert_eq!(plane.read(&mut places, LONG).await.unwrap().len(), 10);
    assert_eq!(calls(&server, "xread"), 1);
    plane.trim(&places, &manager).await.unwrap();
    plane.trim(&places, &manager).await.unwrap();
    assert_eq!(calls(&server, "xtrim"), 10, "only what has grown");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert_eq!(plane.holders(&names).await.unwrap(), vec![None; 1_000]);
}

#[tokio::test]
async fn a_long_log_is_read_in_pieces_and_each_reader_sees_all_of_it() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let appends = async {
        for cell in 0..1_200 {
            plane.append(&Log::Commands, &command(cell), Some(&manager)).await.unwrap();
        }
    };
    let reader = async || {
        let other = lobby(&server).of_run("r").await.unwrap();
        let (mut places, mut seen, mut most) = (from_start([Log::Commands]), Vec::new(), 0);
        while seen.len() < 1_200 {
            let entries = other.read(&mut places, LONG).await.unwrap();
            most = most.max(entries.len());
            seen.extend(entries);
        }
        (seen, most)
    };
    let ((), (a, _), (b, _)) = tokio::join!(appends, reader(), reader());
    let all: Vec<Entry> = (0..1_200).map(command).collect();
    assert!(a == all && b == all);
    let (again, most) = reader().await;
    assert_eq!(again, all);
    assert_eq!(most, 500);
}

fn calls(server: &RedisServer, command: &str) -> u64 {
    let info: String = redis::cmd("INFO").arg("commandstats").query(&mut server.connection()).unwrap();
    let line = info.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_is_given_up_leaves_nobody_waiting_at_redis() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let mut places = from_start([Log::Commands]);
    for _ in 0..20 {
        let given_up = timeout(Duration::from_millis(20), plane.read(&mut places, LONG)).await;
        assert!(given_up.is_err());
    }
    wait_for("an end of their waiting", BOUND, || (server.info("blocked_clients") == 0).then_some(()));
    plane.append(&Log::Commands, &command(1), Some(&manager)).await.unwrap();
    assert_eq!(plane.read(&mut places, LONG).await, Ok(vec![command(1)]));
    // Those of commands, of the read, and the test's own.
    wait_for("an end of their connections", BOUND, || (server.info("connected_clients") <= 3).then_some(()));
}

#[tokio::test]
async fn a_redis_that_says_nothing_is_away_in_time_and_back_at_once() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let mut places = from_start([Log::Commands]);
    plane.read(&mut places, Duration::ZERO).await.unwrap();
    server.freeze();
    for _ in 0..2 {
        let began = Instant::now();
        let commands = Log::Commands;
        let entry = command(1);
        let (renewed, appended, held, read) = tokio::join!(
            plane.renew(&manager, LONG),
            plane.append(&commands, &entry, Some(&manager)),
            plane.holders(&[MANAGER]),
            plane.read(&mut places, Duration::from_millis(500)),
        );
        let said = [renewed.unwrap_err(), appended.unwrap_err(), held.unwrap_err(), read.unwrap_err()];
        assert!(began.elapsed() < BOUND, "{:?}", began.elapsed());
        for error in said {
            assert!(error.is_passing() && error.to_string().contains("does not answer"), "{error}");
        }
    }
    server.wake();
    plane.renew(&manager, LONG).await.unwrap();
    plane.append(&Log::Commands, &command(2), Some(&manager)).await.unwrap();
    let entries = plane.read(&mut places, LONG).await.unwrap();
    // What was asked for and not answered may have been done.
    assert!(entries.iter().filter(|e| **e == command(1)).count() <= 2, "{entries:?}");
    assert_eq!(entries.last(), Some(&command(2)));
}

#[tokio::test]
async fn a_redis_that_is_started_again_knows_what_its_file_says() {
    let mut server = RedisServer::start_with(&["--appendonly", "yes", "--appendfsync", "always"]);
    let (plane, manager) = open(&server).await;
    let mut places = from_start([Log::Commands]);
    plane.append(&Log::Commands, &command(1), Some(&manager)).await.unwrap();
    assert_eq!(plane.read(&mut places, LONG).await, Ok(vec![command(1)]));
    plane.append(&Log::Commands, &command(2), Some(&manager)).await.unwrap();
    server.stop();
    let began = Instant::now();
    let error = plane.append(&Log::Commands, &command(3), Some(&manager)).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    let error = plane.read(&mut places, Duration::from_millis(100)).await.unwrap_err();
    assert!(error.is_passing() && !error.to_string().contains("does not answer"), "{error}");
    assert!(began.elapsed() < BOUND);
    server.start_again();
    plane.renew(&manager, LONG).await.unwrap();
    plane.append(&Log::Commands, &command(4), Some(&manager)).await.unwrap();
    assert_eq!(plane.read(&mut places, LONG).await, Ok(vec![command(2), command(4)]));
    assert!(plane.take("w", LONG).await.unwrap().epoch > manager.epoch);
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_has_no_such_run() {
    let mut server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    server.start_again();
    // The first one to ask may hear that the connection is gone.
    let _ = plane.time().await;
    assert_eq!(plane.renew(&manager, LONG).await, Err(PlaneError::Fenced(manager.clone())));
    assert_eq!(plane.append(&Log::Commands, &command(1), Some(&manager)).await, Err(PlaneError::Gone));
    assert_eq!(plane.take(MANAGER, LONG).await, Err(PlaneError::Gone));
    assert_eq!(server.keys(), Vec::<String>::new());
}

#[tokio::test]
async fn a_full_redis_says_so_keeps_leases_and_takes_more_when_there_is_room() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let room = server.info("used_memory") + 2_000_000;
    let give = |bytes: u64| {
        let mut set = redis::cmd("CONFIG");
        let () = set.arg("SET").arg("maxmemory").arg(bytes).query(&mut server.connection()).unwrap();
    };
    give(room);
    let why = "x".repeat(50_000);
    let log = Log::Reports("w".into());
    let mut sent = 0;
    let error = loop {
        let from = Member { name: "w".into(), epoch: 1 };
        let report = Report::GaveUp { cell: sent, why: Some(why.clone()) };
        match plane.append(&log, &Entry::Sent(Arc::new(Sent { from, report })), None).await {
            Ok(()) => sent += 1,
            Err(error) => break error,
        }
        assert!(sent < 1_000);
    };
    assert!(error.is_passing() && error.to_string().contains("OOM command not allowed"), "{error}");
    assert!(sent > 10);
    // However little room there is.
    give(1);
    plane.renew(&manager, LONG).await.unwrap();
    let error = plane.take("x", LONG).await.unwrap_err();
    assert!(error.is_passing(), "{error}");
    give(room);
    let mut places = from_start([log.clone()]);
    let read = plane.read(&mut places, LONG).await.unwrap();
    assert_eq!(read.len(), sent as usize, "nothing that was taken is lost");
    plane.trim(&places, &manager).await.unwrap();
    plane.append(&log, &report("w", 1).1, None).await.unwrap();
}

#[tokio::test]
async fn a_closed_run_takes_nothing_and_its_keys_run_out() {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let worker = lobby(&server).of_run("r").await.unwrap();
    let member = worker.take("w", LONG).await.unwrap();
    worker.append(&Log::Roll, &Entry::Member(member.clone()), None).await.unwrap();
    let (log, entry) = report("w", 1);
    worker.append(&log, &entry, None).await.unwrap();
    plane.append(&Log::Commands, &Entry::Command(Command::End), Some(&manager)).await.unwrap();
    plane.close().await.unwrap();

    assert_eq!(
        read(&worker, &Log::Commands).await,
        [Entry::Command(Command::End)],
        "the end is still heard of"
    );
    assert_eq!(worker.append(&log, &entry, None).await, Err(PlaneError::Gone));
    assert_eq!(worker.append(&report("late", 1).0, &entry, None).await, Err(PlaneError::Gone));
    assert_eq!(worker.take("late", LONG).await, Err(PlaneError::Gone));
    plane.release(&manager).await.unwrap();
    assert_eq!(plane.take(MANAGER, LONG).await, Err(PlaneError::Gone), "nor does its manager open it again");
    assert_eq!(lobby(&server).of_run("r").await.unwrap_err(), PlaneError::Gone);
    let left = |key: &String| -> i64 { redis::cmd("TTL").arg(key).query(&mut server.connection()).unwrap() };
    let keys = ["cmd", "epoch", "lease:w", "res:w", "roll"].map(|key| format!("springtide:r:{key}"));
    assert_eq!(server.keys(), keys);
    assert!(keys.iter().all(|key| (1..=600).contains(&left(key))), "{:?}", keys.each_ref().map(left));

    // Another manager that takes the run over keeps all that there is, for as long as a run may last.
    let second = lobby(&server).take_over("r", "{}");
    let epoch = second.take(MANAGER, LONG).await.unwrap().epoch;
    assert!(epoch > member.epoch);
    worker.append(&log, &entry, None).await.unwrap();
    for key in ["cmd", "epoch", "res:w", "roll"] {
        let days = left(&format!("springtide:r:{key}")) / (24 * 3600);
        assert!((29..=30).contains(&days), "{key}: {days} days");
    }
}

#[rstest]
#[case("{\"start\":")]
#[case("{\"dance\":{}}")]
#[tokio::test]
async fn an_entry_that_nobody_can_read_is_skipped(#[case] text: &str) {
    let server = RedisServer::start();
    let (plane, manager) = open(&server).await;
    let mut add = redis::cmd("XADD");
    let _: String =
        add.arg("springtide:r:cmd").arg("*").arg("e").arg(text).query(&mut server.connection()).unwrap();
    plane.append(&Log::Commands, &Entry::Command(Command::End), Some(&manager)).await.unwrap();
    let read = plane.read(&mut from_start([Log::Commands]), LONG).await.unwrap();
    assert_eq!(read, [Entry::Command(Command::End)]);
}
