//! Who may not take part, which plane is not taken, and who is waited for in vain.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    net::{IpAddr, UdpSocket},
    path::Path,
    time::Duration,
};

use rustix::process::Signal;
use sha2::{Digest, Sha256};
use springtide::{
    crew::What,
    verdict::{Exit, Rule, Verdict},
};

use super::{Fleet, MARGIN, WITHIN, are_sent_home, ends_true, events, says, worker_at};
use crate::{
    redis_server::{PASSWORD as PLANE_PASSWORD, RedisServer},
    support::{Ended, PROGRAM, Run, shared, wait_for},
};

/// A mistake is found at once: as soon as a debug build of the program has been hashed.
const AT_ONCE: Duration = Duration::from_secs(20);

fn sha256(file: &Path) -> String {
    let mut digest = Sha256::new();
    io::copy(&mut fs::File::open(file).unwrap(), &mut digest).unwrap();
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The last line that it said, after it was refused.
#[track_caller]
fn refusal(ended: &Ended) -> &str {
    ended.leaves_with(2);
    let line = ended.err.lines().last().unwrap();
    assert!(line.starts_with("springtide: "), "{line}");
    line
}

/// A run with worker `a`, to which `other` does not get in, for a reason that holds all of `words`; the
/// run goes on without it.
#[track_caller]
fn is_sent_away(fleet: &Fleet, other: Run, words: &[&str]) {
    let worker = fleet.worker("a").start();
    let manager = fleet.manager().set("expect-workers", "a").set("jobs-per-user", 3).start();
    fleet.in_flight(0, 1);
    let ended = other.ends();
    let line = refusal(&ended);
    assert!(line.contains("refused by the manager of run"), "{line}");
    for word in words {
        assert!(line.contains(word), "{word:?} is not in: {line}");
        says(&manager, word);
    }
    let ended = manager.ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    let refused = events(&run).iter().find(|e| matches!(e.what, What::Refused { .. })).unwrap();
    assert_eq!(refused.who.as_ref().unwrap().name, "b");
    assert!(run.cells.iter().all(|c| c.workers.len() == 1));
    are_sent_home([worker]);
}

#[test]
fn a_worker_of_another_build_is_sent_away() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1s");
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("springtide");
    fs::copy(PROGRAM, &other).unwrap();
    OpenOptions::new().append(true).open(&other).unwrap().write_all(b"x").unwrap();
    let hashes = [sha256(Path::new(PROGRAM)), sha256(&other)];
    is_sent_away(&fleet, fleet.worker("b").by(&other), &["another build", &hashes[0], &hashes[1]]);
}

#[test]
fn a_worker_of_another_matrix_is_sent_away() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1s");
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/loadtests/matrix.toml");
    let folder = tempfile::tempdir().unwrap();
    let other = folder.path().join("m.toml");
    let text = fs::read_to_string(ours).unwrap();
    fs::write(&other, format!("{text}\n# and no more\n")).unwrap();
    let hashes = [sha256(Path::new(ours)), sha256(&other)];
    let worker = fleet.worker("b").set("matrix", other.display());
    is_sent_away(&fleet, worker, &["another matrix", &hashes[0], &hashes[1]]);
}

#[test]
fn a_worker_of_the_same_matrix_is_taken() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 100ms");
    let ours = concat!(env!("CARGO_MANIFEST_DIR"), "/loadtests/matrix.toml");
    let worker = fleet.worker("a").set("matrix", ours).start();
    ends_true(&fleet.manager().ends(), Exit::Pass, &fleet.backend.truth());
    are_sent_home([worker]);
}

#[test]
fn a_worker_that_cannot_log_in_is_sent_away() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 1s");
    let worker = worker_at(&fleet.plane.url(), "b");
    is_sent_away(&fleet, worker, &["has no password for account ann", "SPRINGTIDE_PASSWORD"]);
}

/// Manager and worker of one fleet, at another plane.
fn both(fleet: &Fleet, plane: &str) -> [Run; 2] {
    let [manager, worker] = [fleet.manager(), fleet.worker("a")];
    [manager.set("plane", plane).within(AT_ONCE), worker.set("plane", plane).within(AT_ONCE)]
}

/// Asserts that neither manager nor worker takes a plane, for a reason that holds all of `words`, and
/// that nothing is written.
#[track_caller]
fn is_not_taken(runs: [Run; 2], words: &[&str]) {
    for run in runs {
        let ended = run.ends();
        ended.leaves_with(2).says_only(&["--plane: "]).says_only(words).leaves_only(&[]);
    }
}

#[test]
fn a_wrong_password_or_none_is_refused() {
    let _shared = shared();
    let plane = RedisServer::start_with_password();
    let fleet = Fleet::start("");
    let url = format!("redis://127.0.0.1:{}", plane.port());
    let wrong = both(&fleet, &url).map(|run| run.env("SPRINGTIDE_PLANE_PASSWORD", "wr0ng"));
    is_not_taken(wrong, &["refuses the password"]);
    is_not_taken(both(&fleet, &url), &["wants a password", "SPRINGTIDE_PLANE_PASSWORD"]);
    let right = fleet.worker("a").set("plane", &url).env("SPRINGTIDE_PLANE_PASSWORD", PLANE_PASSWORD).start();
    wait_for("the worker", WITHIN, || right.out().contains("worker a waits").then_some(()));
    are_sent_home([right]);
}

/// Whoever may use the keys of another run only is told so, and what would have to be allowed.
#[test]
fn a_user_of_another_runs_keys_is_refused() {
    let _shared = shared();
    let fleet = Fleet::start("");
    let mut connection = fleet.plane.connection();
    let rule = "on >pass ~springtide:other:* ~springtide:lobby +@all";
    let mut set = redis::cmd("ACL");
    set.arg("SETUSER").arg("bob").arg(rule.split(' ').collect::<Vec<_>>());
    let _: () = set.query(&mut connection).unwrap();
    let url = format!("redis://bob@127.0.0.1:{}", fleet.plane.port());
    let [manager, worker] = both(&fleet, &url).map(|run| run.env("SPRINGTIDE_PLANE_PASSWORD", "pass"));
    let ended = manager.ends();
    assert!(refusal(&ended).contains("does not let user \"bob\""), "{}", ended.err);
    ended.leaves_only(&[]);
    // The run of another manager is not bob's either.
    let waits = fleet.manager().start();
    says(&waits, "waiting up to");
    let ended = worker.ends();
    let line = refusal(&ended);
    assert!(line.contains("--plane: ") && line.contains("does not let user \"bob\""), "{line}");
    assert!(line.contains("manifest"), "{line}");
    waits.signal(Signal::INT);
    waits.ends().leaves_with(130);
}

#[test]
fn a_plane_that_throws_keys_away_is_refused() {
    let _shared = shared();
    let plane = RedisServer::start_with(&["--maxmemory", "50mb", "--maxmemory-policy", "allkeys-lru"]);
    let fleet = Fleet::start("");
    is_not_taken(both(&fleet, &plane.url()), &["allkeys-lru", "noeviction"]);
}

#[test]
fn the_targets_own_redis_is_refused_by_whatever_name() {
    let _shared = shared();
    let fleet = Fleet::start("");
    for host in ["127.0.0.1", "localhost"] {
        let target = format!("redis://{host}:{}/1", fleet.plane.port());
        let ended = fleet.manager().set("redis-url", target).within(AT_ONCE).ends();
        ended.leaves_with(2).says_only(&["--plane: ", "is the target's own Redis"]).leaves_only(&[]);
    }
}

/// An address of this host that is not loopback: the one that it would talk to others from. Nothing is
/// sent (192.0.2.0/24 and 2001:db8::/32 are for documentation, RFC 5737 and 3849).
fn own_address() -> Option<IpAddr> {
    let route = |from: &str, to: &str| {
        let socket = UdpSocket::bind(from).ok()?;
        socket.connect(to).ok()?;
        Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_loopback())
    };
    route("0.0.0.0:0", "198.51.100.1:9").or_else(|| route("[::]:0", "[2001:db8::1]:9"))
}

#[test]
fn a_plane_off_loopback_must_ask_for_a_password_unless_it_is_allowed() {
    let _shared = shared();
    let Some(ip) = own_address() else {
        eprintln!("this host has no address beside loopback: nothing to test");
        return;
    };
    let address = ip.to_string();
    let open = RedisServer::start_with(&["--bind", "127.0.0.1", &address, "--protected-mode", "no"]);
    let fleet = Fleet::start("--standin-task-time 100ms");
    let host = if ip.is_ipv6() { format!("[{ip}]") } else { address.clone() };
    let url = format!("redis://{host}:{}", open.port());
    is_not_taken(both(&fleet, &url), &["without a password", "--insecure-plane"]);
    // A password that nobody asks for is none.
    let with = both(&fleet, &url).map(|run| run.env("SPRINGTIDE_PLANE_PASSWORD", "x"));
    for run in with {
        let ended = run.ends();
        ended.leaves_with(2).says_only(&["--plane: "]).leaves_only(&[]);
    }
    let worker = fleet.worker("a").set("plane", &url).flag("insecure-plane").start();
    let ended = fleet.manager().set("plane", &url).flag("insecure-plane").ends();
    ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    are_sent_home([worker]);
}

/// Waits in vain for as long as it may, with worker `a` there.
fn in_vain(fleet: &Fleet, expect: &str) -> Ended {
    let worker = fleet.worker("a").start();
    wait_for("the worker", WITHIN, || worker.out().contains("worker a waits").then_some(()));
    let manager = fleet.manager().set("expect-workers", expect).set("expect-workers-max-wait", "4s");
    let ended = manager.ends();
    ended.leaves_with(5);
    assert!(ended.took < AT_ONCE + Duration::from_secs(4) + MARGIN, "{:?}", ended.took);
    let run = ended.record();
    assert!(run.cells.is_empty() && run.verdict == Some(Verdict::Invalid));
    assert!(run.checks.iter().any(|c| c.rule == Rule::RunComplete && c.verdict == Verdict::Invalid));
    let last = ended.out.lines().last().unwrap();
    assert!(last.starts_with("RESULT: INVALID") && last.ends_with("(exit 5)"), "{last}");
    assert_eq!(fleet.backend.truth().jobs_submitted, 0);
    are_sent_home([worker]);
    ended
}

#[test]
fn who_is_missing_is_counted() {
    let _shared = shared();
    let fleet = Fleet::start("");
    let ended = in_vain(&fleet, "3");
    assert!(ended.err.contains("1 of 3 workers came within 4.00 s: a on "), "{}", ended.err);
    assert!(ended.err.contains("; 2 are missing"), "{}", ended.err);
}

#[test]
fn who_is_missing_is_named() {
    let _shared = shared();
    let fleet = Fleet::start("");
    let ended = in_vain(&fleet, "a,b,c");
    assert!(ended.err.contains("1 of 3 workers came within 4.00 s: a on "), "{}", ended.err);
    assert!(ended.err.contains("; missing: b, c"), "{}", ended.err);
    let run = ended.record();
    assert!(matches!(&events(&run).last().unwrap().what, What::Short { why } if why.contains("b, c")));
}
