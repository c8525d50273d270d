//! Runs that begin, end and are lost, as workers find them over a real Redis; and both ends of the
//! plane across a Redis that stands still for a lease.

use std::{sync::Arc, time::Duration};

use springtide::{
    crew::Member,
    plane::{
        Command, Hello, PlaneError, Report,
        manager_end::{ManagerEnd, News},
        redis_streams::{After, Lobby, Offer, RedisStreams},
        worker_end::{Terms, Word, WorkerEnd},
    },
    record::{Build, Host},
};
use tokio::time::{Instant, timeout};

use crate::{plane::lobby, redis_server::RedisServer};

const LEASE: Duration = Duration::from_secs(2);
const SOON: Duration = Duration::from_secs(10);

type Manager = ManagerEnd<RedisStreams>;

async fn open(lobby: &Lobby, run: &str) -> Manager {
    let plane = lobby.open_run(run, &format!("the run {run}")).await.unwrap();
    ManagerEnd::open(Arc::new(plane), Some(LEASE)).await.unwrap()
}

async fn next(lobby: &Lobby, after: &After) -> Offer {
    timeout(SOON, lobby.next_run(after)).await.expect("an offer").unwrap()
}

/// Whether there is nothing to join for a moment.
async fn waits(lobby: &Lobby, after: &After) -> bool {
    timeout(Duration::from_millis(300), lobby.next_run(after)).await.is_err()
}

async fn join(lobby: &Lobby, run: &str) -> WorkerEnd<RedisStreams> {
    let terms = Terms { name: "w".into(), lease: Some(LEASE), spool: None, manager: None };
    let plane = lobby.of_run(run).await.unwrap();
    WorkerEnd::join(Arc::new(plane), &terms, hello()).await.unwrap()
}

fn hello() -> Hello {
    let text = String::new;
    Hello {
        build: Build { version: text(), revision: text(), profile: text(), goose: text() },
        build_hash: text(),
        plan_hash: text(),
        host: Host { name: text(), cpu: text(), cores: 1, memory: 1, kernel: text(), open_files: 1 },
        trouble: None,
    }
}

/// News until one fits.
async fn hears<T>(manager: &mut Manager, what: &str, mut fits: impl FnMut(News) -> Option<T>) -> T {
    let until = Instant::now() + SOON;
    loop {
        let news = tokio::time::timeout_at(until, manager.next()).await;
        if let Some(it) = fits(news.unwrap_or_else(|_| panic!("waited in vain: {what}"))) {
            return it;
        }
    }
}

async fn hears_hello(manager: &mut Manager) -> Member {
    let is_hello = |news| match news {
        News::Sent(sent) if matches!(sent.report, Report::Hello(_)) => Some(sent.from.clone()),
        _ => None,
    };
    hears(manager, "hello", is_hello).await
}

#[tokio::test]
async fn a_worker_finds_the_run_that_was_announced_last_and_lives() {
    let server = RedisServer::start();
    let (managers, workers) = (lobby(&server), lobby(&server));
    assert!(waits(&workers, &After::Nothing).await);
    let waiting = tokio::spawn({
        let workers = lobby(&server);
        async move { next(&workers, &After::Nothing).await }
    });
    let first = open(&managers, "a").await;
    let offer = waiting.await.unwrap();
    assert_eq!((offer.run.as_str(), offer.manifest.as_str()), ("a", "the run a"));
    assert!(matches!(managers.open_run("a", "").await, Err(PlaneError::Refused(_))), "it is open");

    let second = open(&managers, "b").await;
    let other = next(&workers, &After::Lost(offer.clone())).await;
    assert_eq!(other.run, "b");
    second.close().await;
    assert_eq!(next(&workers, &After::Over(other)).await, offer, "the one before it is there still");
    assert_eq!(next(&workers, &After::Lost(offer.clone())).await, offer, "who was lost to it may join again");
    assert!(waits(&workers, &After::Over(offer.clone())).await, "who was told of its end may not");
    first.close().await;
    assert!(waits(&workers, &After::Lost(offer.clone())).await, "a run without its manager is none");

    let plane = managers.take_over("a", "the rest of a");
    let _third = ManagerEnd::open(Arc::new(plane), Some(LEASE)).await.unwrap();
    let again = next(&workers, &After::Over(offer)).await;
    assert_eq!(again.manifest, "the rest of a");
}

#[tokio::test]
async fn a_worker_waits_for_a_plane_that_is_away() {
    let mut server = RedisServer::start();
    let (managers, workers) = (lobby(&server), lobby(&server));
    server.stop();
    let waiting = tokio::spawn(async move { next(&workers, &After::Nothing).await });
    tokio::time::sleep(Duration::from_millis(100)).await;
    server.start_again();
    let _manager = open(&managers, "a").await;
    assert_eq!(waiting.await.unwrap().run, "a");
}

#[tokio::test]
async fn two_managers_of_one_run_are_one_too_many() {
    let server = RedisServer::start();
    let first = open(&lobby(&server), "a").await;
    let plane = lobby(&server).take_over("a", "another");
    let second = ManagerEnd::open(Arc::new(plane), Some(LEASE)).await;
    assert!(matches!(second, Err(PlaneError::Held { .. })), "{second:?}");
    let offer = next(&lobby(&server), &After::Nothing).await;
    assert_eq!(offer.manifest, "the run a", "who was refused has changed nothing");
    first.close().await;
}

#[tokio::test]
async fn commands_and_reports_go_both_ways() {
    let server = RedisServer::start();
    let (managers, workers) = (lobby(&server), lobby(&server));
    let mut manager = open(&managers, "a").await;
    let mut worker = join(&workers, "a").await;
    assert_eq!(&hears_hello(&mut manager).await, worker.member());
    let holds = |news| match news {
        News::Holders(holders) => holders.contains(worker.member()).then_some(()),
        _ => None,
    };
    hears(&mut manager, "the worker's lease", holds).await;
    manager.command(Command::Settle { cell: 7 }).await.unwrap();
    assert_eq!(timeout(SOON, worker.next()).await.unwrap(), Word::Command(Command::Settle { cell: 7 }));
    worker.report(Report::Merging { cell: 7 });
    let is_merging = |news| match news {
        News::Sent(sent) => (sent.report == Report::Merging { cell: 7 }).then_some(()),
        _ => None,
    };
    hears(&mut manager, "merging", is_merging).await;
    let apart = manager.now().0.abs_diff(worker.clock().now().0);
    assert!(apart < 20_000, "two ends, one clock: {apart} µs");

    worker.report(Report::Leaving);
    assert_eq!(worker.leave(SOON).await, 0);
    let leaves = |news| match news {
        News::Sent(sent) => (sent.report == Report::Leaving).then_some(()),
        _ => None,
    };
    hears(&mut manager, "leaving", leaves).await;
    manager.close().await;
}

#[tokio::test]
async fn a_redis_that_stands_still_for_a_lease_stops_the_load_and_lets_both_come_back() {
    let server = RedisServer::start();
    let (managers, workers) = (lobby(&server), lobby(&server));
    let mut manager = open(&managers, "a").await;
    let offer = next(&workers, &After::Nothing).await;
    let mut worker = join(&workers, "a").await;
    let first = hears_hello(&mut manager).await;

    server.freeze();
    let frozen = Instant::now();
    let lost = async {
        let word = timeout(SOON, worker.next()).await.unwrap();
        (word, frozen.elapsed(), worker.permit().holds())
    };
    let cut = hears(&mut manager, "a cut", |news| match news {
        News::Cut(why) => Some(why),
        _ => None,
    });
    let ((word, after, holds), cut) = tokio::join!(lost, cut);
    assert!(matches!(&word, Word::Lost(why) if why.contains("ran out")), "{word:?}");
    assert!(!holds && after <= LEASE + Duration::from_millis(100), "{after:?}");
    assert!(cut.contains("does not answer"), "{cut}");
    assert_eq!(worker.leave(Duration::from_millis(100)).await, 0);

    server.wake();
    hears(&mut manager, "its return", |news| (news == News::Back).then_some(())).await;
    assert_eq!(next(&workers, &After::Lost(offer)).await.run, "a");
    let mut worker = join(&workers, "a").await;
    let second = hears_hello(&mut manager).await;
    assert!(second.name == first.name && second.epoch > first.epoch, "{second} after {first}");
    manager.command(Command::End).await.unwrap();
    assert_eq!(timeout(SOON, worker.next()).await.unwrap(), Word::Command(Command::End));
    worker.leave(SOON).await;
    manager.close().await;
}
