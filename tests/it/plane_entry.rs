//! Who is let in on a plane, and which planes are used at all: passwords, users, TLS, and what is
//! checked before a run. No message of all this shows a password.

use std::{path::Path, sync::Arc};

use rstest::rstest;
use springtide::plane::{
    Command, Entry, Log, MANAGER, Plane, PlaneError, Report, Sent,
    redis_streams::{After, Door, Lobby, check},
};

use crate::redis_server::{PASSWORD, RedisServer};

fn door(url: &str, password: Option<&str>, ca: Option<&Path>) -> Door {
    Door::new(url, password.map(str::to_owned), ca).unwrap()
}

async fn refused(door: &Door) -> String {
    let error = check(door, false, None).await.unwrap_err();
    assert!(!error.is_passing(), "{error}");
    one_line(&error)
}

fn one_line(error: &PlaneError) -> String {
    let said = error.to_string();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(!format!("{said}{error:?}").contains(PASSWORD), "{said}");
    said
}

/// An address that is not loopback's, and leads there nevertheless.
fn from_afar(server: &RedisServer) -> String {
    format!("redis://[::ffff:0.0.0.0]:{}", server.port())
}

#[tokio::test]
async fn a_password_opens_and_another_one_does_not() {
    let server = RedisServer::start_with_password();
    let bare = format!("redis://127.0.0.1:{}", server.port());
    let facts = check(&door(&bare, Some(PASSWORD), None), false, Some("another")).await.unwrap();
    assert_eq!(facts.url, format!("{bare}/0"));
    assert!(facts.version.contains('.') && facts.run_id.len() == 40, "{facts:?}");
    let lobby = Lobby::at(&door(&server.url(), None, None));
    lobby.open_run("r", "{}").await.unwrap().take(MANAGER, std::time::Duration::from_secs(9)).await.unwrap();
    assert!(!format!("{lobby:?}").contains(PASSWORD));

    let said = refused(&door(&bare, None, None)).await;
    assert!(said.contains("SPRINGTIDE_PLANE_PASSWORD"), "{said}");
    let said = refused(&door(&bare, Some("wrong"), None)).await;
    assert!(said.contains("refuses the password of user \"default\""), "{said}");
    let said =
        refused(&door(&format!("redis://ann:{PASSWORD}@127.0.0.1:{}", server.port()), None, None)).await;
    assert!(said.contains("user \"ann\""), "{said}");
}

#[tokio::test]
async fn tls_needs_an_authority_that_is_trusted() {
    let server = RedisServer::start_with_tls();
    let trusting = door(&server.url(), None, Some(&server.ca()));
    let facts = check(&trusting, false, None).await.unwrap();
    assert!(facts.url.starts_with("rediss://127.0.0.1:"), "{facts:?}");
    let lobby = Lobby::at(&trusting);
    let plane = lobby.open_run("r", "{}").await.unwrap();
    plane.take(MANAGER, std::time::Duration::from_secs(9)).await.unwrap();

    let said = refused(&door(&server.url(), None, None)).await;
    assert!(said.contains("TLS failed") && said.contains("--plane-ca-cert"), "{said}");
    let plain = server.url().replace("rediss://", "redis://");
    let said = one_line(&check(&door(&plain, None, None), false, None).await.unwrap_err());
    assert!(said.contains("rediss://"), "{said}");
    let open = RedisServer::start();
    let said = one_line(
        &check(&door(&open.url().replace("redis://", "rediss://"), None, None), false, None)
            .await
            .unwrap_err(),
    );
    assert!(said.contains("with TLS (else write redis://)"), "{said}");
}

#[tokio::test]
async fn a_user_who_may_use_one_run_is_refused_at_another() {
    let server = RedisServer::start();
    let rule = "on ~springtide:mine:* ~springtide:lobby +@all";
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg("ann").arg(format!(">{PASSWORD}"));
    rule.split_whitespace().for_each(|word| {
        set.arg(word);
    });
    let _: () = set.query(&mut server.connection()).unwrap();
    let url = format!("redis://ann@127.0.0.1:{}", server.port());
    let lobby = Lobby::at(&door(&url, Some(PASSWORD), None));
    let lease = std::time::Duration::from_secs(9);

    let mine = lobby.open_run("mine", "{}").await.unwrap();
    mine.take(MANAGER, lease).await.unwrap();
    mine.announce().await.unwrap();
    let other = lobby.take_over("other", "{}");
    let place = &mut [(Log::Commands, Default::default())].into();
    for error in [
        other.take("ann", lease).await.unwrap_err(),
        other.read(place, lease).await.unwrap_err(),
        other.close().await.unwrap_err(),
        lobby.of_run("other").await.unwrap_err(),
    ] {
        let said = one_line(&error);
        assert!(!error.is_passing() && said.contains("ann") && said.contains("other"), "{said}");
        assert!(said.contains("ACL"), "{said}");
    }
}

#[tokio::test]
async fn the_users_that_are_shipped_may_do_what_they_must() {
    let server = RedisServer::start();
    for line in
        include_str!("../../deploy/plane/users.acl").lines().filter(|l| l.starts_with("user springtide"))
    {
        let mut set = redis::cmd("ACL");
        set.arg("SETUSER");
        for word in line.split_whitespace().skip(1) {
            let is_password = word.starts_with('#');
            set.arg(if is_password { format!(">{PASSWORD}") } else { word.to_owned() });
        }
        let _: () = set.query(&mut server.connection()).unwrap();
    }
    let as_user = |name: &str| {
        let url = format!("redis://springtide-{name}@127.0.0.1:{}", server.port());
        door(&url, Some(PASSWORD), None)
    };
    let lease = std::time::Duration::from_secs(9);
    let (managers, workers) = (Lobby::at(&as_user("manager")), Lobby::at(&as_user("worker")));
    for user in ["manager", "worker"] {
        check(&as_user(user), false, None).await.unwrap();
    }
    let manager = managers.open_run("r", "{}").await.unwrap();
    let lead = manager.take(MANAGER, lease).await.unwrap();
    manager.announce().await.unwrap();
    let offer = workers.next_run(&After::Nothing).await.unwrap();
    let worker = workers.of_run(&offer.run).await.unwrap();
    worker.end_of(&Log::Commands).await.unwrap();
    let member = worker.take("w", lease).await.unwrap();
    worker.time().await.unwrap();
    worker.append(&Log::Roll, &Entry::Member(member.clone()), None).await.unwrap();
    let log = Log::Reports("w".into());
    let sent = Sent { from: member.clone(), report: Report::Leaving };
    worker.append(&log, &Entry::Sent(Arc::new(sent)), None).await.unwrap();
    worker.renew(&member, lease).await.unwrap();
    assert!(worker.holders(&[MANAGER]).await.unwrap()[0].is_some());
    let mut places = [(log, Default::default()), (Log::Roll, Default::default())].into();
    assert_eq!(manager.read(&mut places, lease).await.unwrap().len(), 2);
    manager.trim(&places, &lead).await.unwrap();
    assert!(manager.holders(&["w"]).await.unwrap()[0].is_some());
    let end = Entry::Command(Command::End);
    manager.append(&Log::Commands, &end, Some(&lead)).await.unwrap();
    let mut commands = [(Log::Commands, Default::default())].into();
    assert_eq!(worker.read(&mut commands, lease).await.unwrap(), std::slice::from_ref(&end));

    // A worker commands nobody, and ends no run.
    for error in [
        worker.append(&Log::Commands, &end, None).await.unwrap_err(),
        worker.renew(&lead, lease).await.unwrap_err(),
        worker.announce().await.unwrap_err(),
        worker.close().await.unwrap_err(),
        workers.take_over("s", "{}").take(MANAGER, lease).await.unwrap_err(),
    ] {
        assert!(one_line(&error).contains("springtide-worker"), "{error}");
    }
    assert!(workers.of_run("r").await.is_ok(), "it is open still");
    worker.release(&member).await.unwrap();
    manager.close().await.unwrap();
    manager.release(&lead).await.unwrap();
}

#[rstest]
#[case::nobody_asked(RedisServer::start_with(&["--bind", "127.0.0.1"]), None, "would be used without a password")]
#[case::asked_for_nothing(RedisServer::start_with(&["--bind", "127.0.0.1"]), Some(PASSWORD), "lets everybody in")]
#[case::asked(RedisServer::start_with_password(), Some(PASSWORD), "")]
#[tokio::test]
async fn a_plane_off_this_host_must_ask_for_a_password(
    #[case] server: RedisServer,
    #[case] password: Option<&str>,
    #[case] why: &str,
) {
    if password.is_some() && !why.is_empty() {
        // Ann has a password, the default user has none.
        let rule = ["ann", "on", "~*", "+@all", &format!(">{PASSWORD}")];
        let _: () = redis::cmd("ACL").arg("SETUSER").arg(&rule).query(&mut server.connection()).unwrap();
    }
    let mut url = from_afar(&server);
    if password.is_some() && !why.is_empty() {
        url = url.replace("redis://", "redis://ann@");
    }
    let door = door(&url, password, None);
    if why.is_empty() {
        check(&door, false, None).await.unwrap();
        return;
    }
    let said = refused(&door).await;
    assert!(said.contains(why) && said.contains("--insecure-plane"), "{said}");
    check(&door, true, None).await.unwrap();
}

#[tokio::test]
async fn a_plane_that_throws_keys_away_is_refused() {
    let server = RedisServer::start_with(&["--maxmemory-policy", "allkeys-lru"]);
    let said = refused(&door(&server.url(), None, None)).await;
    assert!(said.contains("allkeys-lru") && said.contains("set maxmemory-policy noeviction"), "{said}");
}

#[tokio::test]
async fn a_plane_that_is_the_targets_own_redis_is_refused() {
    let server = RedisServer::start();
    let door = door(&server.url(), None, None);
    let facts = check(&door, false, None).await.unwrap();
    let error = check(&door, false, Some(&facts.run_id)).await.unwrap_err();
    assert!(one_line(&error).contains("the target's own Redis"), "{error}");
}

#[tokio::test]
async fn a_replica_is_refused() {
    let master = RedisServer::start();
    let replica = RedisServer::start_with(&["--replicaof", &format!("127.0.0.1 {}", master.port())]);
    let said = refused(&door(&replica.url(), None, None)).await;
    assert!(said.contains("is a replica"), "{said}");
}
