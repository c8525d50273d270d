//! Hosts of their own: network namespaces with addresses and links, where the machine allows them, and a
//! clock that is wrong.

use std::{
    fs::File,
    net::TcpStream,
    os::fd::AsFd,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use springtide::{
    crew::What,
    standin::Truth,
    verdict::{Exit, Rule, Verdict},
};

use super::{Fleet, LEASE, WHOLE, WITHIN, are_sent_home, ends_true, events, registered_accounts, says, whom};
use crate::{
    backend::{Served, ask},
    support::{Going, Run, alone, end, shared, wait_for},
};

/// What the plane asks for.
const PASSWORD: &str = "a-plane-of-its-own";

/// A few hosts on one switch, which is in a namespace too: nothing of this machine's own network is
/// touched.
struct Hosts {
    switch: String,
    names: Vec<String>,
}

impl Hosts {
    /// So many hosts, `10.77.0.1` and so on; `None` where that is not allowed.
    fn new(count: usize) -> Option<Self> {
        let name = |what: &str| format!("springtide-{}-{what}", std::process::id());
        let mut hosts = Self { switch: name("switch"), names: Vec::new() };
        if !ip(&format!("netns add {}", hosts.switch)) {
            return None;
        }
        must_ip(&format!("-n {} link add bridge type bridge", hosts.switch));
        must_ip(&format!("-n {} link set bridge up", hosts.switch));
        for n in 1..=count {
            let host = name(&n.to_string());
            must_ip(&format!("netns add {host}"));
            hosts.names.push(host.clone());
            must_ip(&format!("-n {host} link add net0 type veth peer name port{n} netns {}", hosts.switch));
            must_ip(&format!("-n {} link set port{n} master bridge up", hosts.switch));
            must_ip(&format!("-n {host} address add 10.77.0.{n}/24 dev net0"));
            must_ip(&format!("-n {host} link set net0 up"));
            must_ip(&format!("-n {host} link set lo up"));
        }
        Some(hosts)
    }

    /// Does something on a host, such as to start a process, which stays there.
    fn on<T: Send>(&self, host: usize, act: impl FnOnce() -> T + Send) -> T {
        let path = PathBuf::from("/run/netns").join(&self.names[host - 1]);
        thread::scope(|scope| {
            let there = scope.spawn(move || {
                let namespace = File::open(path).unwrap();
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
                act()
            });
            there.join().unwrap()
        })
    }

    /// Lets a host lose its way to an address.
    fn loses(&self, host: usize, address: &str) {
        must_ip(&format!("-n {} route add unreachable {address}/32", self.names[host - 1]));
    }

    /// Lets it find that again.
    fn finds(&self, host: usize, address: &str) {
        must_ip(&format!("-n {} route delete unreachable {address}/32", self.names[host - 1]));
    }

    /// Cuts the link of a host, or mends it.
    fn link(&self, host: usize, state: &str) {
        must_ip(&format!("-n {} link set port{host} {state}", self.switch));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for name in self.names.iter().chain([&self.switch]) {
            ip(&format!("netns delete {name}"));
        }
    }
}

fn ip(words: &str) -> bool {
    let mut command = Command::new("ip");
    let status = command.args(words.split(' ')).stdin(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|status| status.success())
}

#[track_caller]
fn must_ip(words: &str) {
    assert!(ip(words), "ip {words}");
}

/// A redis-server that listens on an address of its host.
struct Plane {
    child: Child,
    /// Removed when it has ended.
    _home: tempfile::TempDir,
}

impl Plane {
    fn start(address: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let mut child = Command::new("redis-server")
            .args(["--bind", address, "--port", "6379", "--requirepass", PASSWORD, "--save", ""])
            .args(["--maxmemory-policy", "noeviction", "--loglevel", "warning", "--dir"])
            .arg(home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("{address}:6379");
        wait_for("redis-server", WITHIN, || {
            assert!(child.try_wait().unwrap().is_none(), "redis-server ended");
            TcpStream::connect(&address).is_ok().then_some(())
        });
        Self { child, _home: home }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

/// Manager, plane, two workers and the target, each on a host of its own.
struct Five {
    hosts: Hosts,
    _redis: Plane,
    backend: Served,
}

impl Five {
    const MANAGER: usize = 1;
    const PLANE: usize = 2;
    const FIRST: usize = 3;
    const SECOND: usize = 4;
    const TARGET: usize = 5;
    const URL: &str = "http://10.77.0.5:5000";

    /// Plane and target; `None` where that is not allowed.
    fn new(flags: &str) -> Option<Self> {
        let Some(hosts) = Hosts::new(5) else {
            eprintln!("skipped: this machine allows no network namespaces");
            return None;
        };
        let redis = hosts.on(Self::PLANE, || Plane::start("10.77.0.2"));
        let backend = hosts.on(Self::TARGET, || Served::start_at("10.77.0.5:5000", "backend", flags));
        Some(Self { hosts, _redis: redis, backend })
    }

    fn truth(&self) -> Truth {
        let text = self.hosts.on(Self::TARGET, || ask(Self::URL, "GET", "/_truth", ""));
        serde_json::from_slice(&text).unwrap()
    }

    fn on_plane(run: Run) -> Run {
        run.set("plane", "redis://10.77.0.2:6379/0").env("SPRINGTIDE_PLANE_PASSWORD", PASSWORD)
    }

    fn workers(&self) -> [Going; 2] {
        [("a", Self::FIRST), ("b", Self::SECOND)].map(|(name, host)| {
            let run = Self::on_plane(Run::of("worker")).set("name", name).set("spool", "spool");
            self.hosts.on(host, || run.within(WHOLE * 2).start())
        })
    }

    /// A manager of four users, two a worker, to be started.
    fn manager(&self) -> Run {
        Self::on_plane(Run::of("manager"))
            .set("plane-lease", format!("{}s", LEASE.as_secs()))
            .set("expect-workers", "a,b")
            .set("scenarios", "S6")
            .set("users", 4)
            .set("tasks", 1)
            .flag("no-warmup")
            .set("requeue", 5)
            .set("poll-interval", "50ms")
            .set("max-lag", "60s")
            .set("max-cpu", 100)
            .set("seed", 7)
            .set("host", Self::URL)
            .within(WHOLE)
    }

    fn start(&self, manager: Run) -> Going {
        self.hosts.on(Self::MANAGER, || registered_accounts(manager).start())
    }
}

/// The link of one worker is cut in the middle of a cell and mended when it is known to be lost.
#[test]
fn a_worker_whose_link_is_cut_stops_and_comes_back_when_it_is_mended() {
    let _alone = alone();
    let Some(five) = Five::new("--standin-task-time 1500ms") else { return };
    let [a, b] = five.workers();
    let going = five.start(five.manager().set("repetitions", 4));
    wait_for("jobs of both workers", WITHIN, || (five.truth().jobs.len() >= 4).then_some(()));
    five.hosts.link(Five::SECOND, "down");
    says(&going, "worker b (epoch");
    wait_for("the loss", WITHIN, || going.err().contains("): lost: its lease ran out").then_some(()));
    five.hosts.link(Five::SECOND, "up");
    let ended = going.ends();
    let run = ends_true(&ended, Exit::Pass, &five.truth());
    let lost = whom(&run, |what| matches!(what, What::Lost { .. }));
    assert_eq!(lost.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["b"], "{lost:?}");
    assert!(b.err().contains("lost to the run"), "{}", b.err());
    let joined = whom(&run, |what| matches!(what, What::Joined { .. }));
    let again = joined.iter().filter(|(name, _)| name == "b").map(|(_, epoch)| *epoch);
    assert!(again.max() > Some(lost[0].1), "it came back: {joined:?}");
    are_sent_home([a, b]);
    drop(five.backend);
}

/// One worker loses its way to the target and to nothing else.
#[test]
fn a_worker_that_alone_does_not_reach_the_target_says_nothing_of_the_target() {
    let _alone = alone();
    let Some(five) = Five::new("--standin-task-time 10s") else { return };
    let [a, b] = five.workers();
    let going = five.start(five.manager().set("repetitions", 1).set("patience", "1s"));
    wait_for("jobs of both workers", WITHIN, || (five.truth().jobs.len() >= 4).then_some(()));
    let cut = Instant::now();
    five.hosts.loses(Five::SECOND, "10.77.0.5");
    wait_for("its patience to end", WITHIN, || (cut.elapsed() > Duration::from_secs(3)).then_some(()));
    five.hosts.finds(Five::SECOND, "10.77.0.5");
    let ended = going.ends();
    let run = ends_true(&ended, Exit::Pass, &five.truth());
    let first = run.cells.iter().find(|c| c.cell.attempt == 1).unwrap();
    let check = first.checks.iter().find(|c| c.rule == Rule::TargetReached).unwrap();
    assert_eq!(check.verdict, Verdict::Invalid);
    assert!(check.evidence.starts_with("2 of 2 jobs of worker b (epoch "), "{}", check.evidence);
    assert!(events(&run).iter().all(|e| !matches!(e.what, What::Lost { .. })), "it lost nothing else");
    are_sent_home([a, b]);
    drop(five.backend);
}

/// Where libfaketime is.
fn faketime() -> PathBuf {
    let folders = std::fs::read_dir("/usr/lib").unwrap().flatten().map(|e| e.path().join("faketime"));
    let library = folders.map(|f| f.join("libfaketimeMT.so.1")).find(|f| f.is_file());
    library.expect("faketime is not installed; `make test` does that")
}

#[test]
fn a_worker_whose_clock_is_five_seconds_off_starts_with_the_others() {
    let _shared = shared();
    let fleet = Fleet::start("--standin-task-time 50ms");
    let off = fleet
        .worker("off")
        .env("LD_PRELOAD", faketime())
        .env("FAKETIME", "+5s")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("DONT_FAKE_MONOTONIC", "1")
        .start();
    let right = fleet.worker("right").start();
    // A start that was too late for the machine's sake is made again.
    let ended = fleet.manager().set("expect-workers", 2).set("requeue", 10).ends();
    let run = ends_true(&ended, Exit::Pass, &fleet.backend.truth());
    for cell in run.measured() {
        let of = |name: &str| cell.workers.iter().find(|w| w.name == name).unwrap();
        let (off, right) = (of("off"), of("right"));
        let behind = (right.offset.ahead - off.offset.ahead) as f64 / 1e6;
        assert!((4.9..5.1).contains(&behind), "{behind} s");
        // T0 on the plane's clock, to the plane's clock: what the verdict holds to 20 ms.
        let begun = |w: &springtide::crew::Part| w.start_late.unwrap() + w.offset.error;
        assert!(begun(off).as_ms() <= 20.0 && begun(right).as_ms() <= 20.0, "{:?}", cell.workers);
        let sent = |worker: u32| {
            let jobs = cell.totals.jobs.values().filter(move |j| j.worker == worker);
            jobs.map(|j| j.timeline.submit.unwrap().sent).min().unwrap()
        };
        assert!(sent(0).as_ms() < 1_000.0 && sent(1).as_ms() < 1_000.0, "both began at T0, not 5 s apart");
    }
    assert!(events(&run).iter().all(|e| !matches!(e.what, What::Lost { .. })));
    // The stand-in has one clock: users of both submitted at the same time.
    let truth = fleet.backend.truth();
    let counted = run.measured().next().unwrap();
    let submitted: Vec<u64> = counted
        .totals
        .jobs
        .values()
        .map(|j| truth.jobs.iter().find(|t| Some(&t.job_id) == j.job_id.as_ref()).unwrap().submitted_us)
        .collect();
    let apart = submitted.iter().max().unwrap() - submitted.iter().min().unwrap();
    assert!(apart < 1_000_000, "{apart} µs");
    are_sent_home([off, right]);
}
