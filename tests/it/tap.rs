//! `springtide tap` as a process of its own, before a stand-in and before a raw socket.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rstest::rstest;
use rustix::process::{Signal, kill_process};
use springtide::{
    fault::{Fault, FaultKind, Ratio, Side},
    micros::Micros,
    post::{Batch, Ending, FaultOrder},
    route::Route,
    standin::{Config, StandIn},
    tap::{Link, LinkError},
};

use crate::{
    backend::Served,
    support::{Run, pid_of, wait_for},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// `springtide tap`, as a process.
struct Tap {
    served: Served,
    url: String,
}

impl Tap {
    /// Starts one on a free port before that upstream.
    fn start(upstream: &str) -> Self {
        let served = Served::start("tap", &format!("--upstream {upstream}"));
        Self { url: served.url.clone(), served }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.url.strip_prefix("http://").unwrap()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn link(&self) -> Link {
        Link::new(&self.url, None).unwrap()
    }

    /// The most memory it ever had, in bytes.
    fn peak(&self) -> u64 {
        let process = procfs::process::Process::new(self.served.child.id().try_into().unwrap()).unwrap();
        process.status().unwrap().vmhwm.unwrap() * 1024
    }

    /// All posts, once that many have ended.
    fn posts(&self, count: usize) -> Batch {
        let boot = now(self.link().hello()).unwrap().boot;
        wait_for("posts", PATIENCE, || {
            let batch = now(self.link().posts(&boot, 1)).unwrap();
            (batch.posts.len() >= count && batch.in_flight == 0).then_some(batch)
        })
    }
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

fn stand_in() -> StandIn {
    StandIn::start(Config { listen: "127.0.0.1:0".parse().unwrap(), ..Config::default() }).unwrap()
}

#[rstest]
#[case("tap", &["--upstream"])]
#[case("tap --upstream https://yaptide:5000", &["https://yaptide:5000", "http://host:port"])]
#[case("tap --upstream http://127.0.0.1:1 --listen 0.0.0.0:0", &["token", "SPRINGTIDE_TAP_TOKEN"])]
#[case("tap --upstream http://127.0.0.1:1 --listen nowhere", &["'nowhere' for '--listen"])]
#[case("tap --upstream http://127.0.0.1:1 --buffer 999", &["999", "1000..=10000000"])]
#[case("tap --upstream http://127.0.0.1:1 --token-file nothing.txt", &["--token-file nothing.txt"])]
#[case("tap --upstream http://127.0.0.1:1 --token-file empty.txt", &["token must be 1 to 1024"])]
#[case("tap --upstream http://127.0.0.1:1 --token x", &["--token"])]
fn mistakes_are_one_line_and_exit_2(#[case] words: &str, #[case] says: &[&str]) {
    Run::of(words).file("empty.txt", "\nsecret\n").ends().leaves_with(2).says_only(says);
}

#[rstest]
#[case("127.0.0.1", "127.0.0.1")]
#[case("127.0.0.1", "localhost")]
#[case("127.0.0.1", "0.0.0.0")]
fn a_tap_before_itself_does_not_start(#[case] listen: &str, #[case] upstream: &str) {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://{upstream}:{port}");
    let line = format!("tap --listen {listen}:{port} --upstream {url}");
    Run::of(&line).ends().leaves_with(2).says_only(&[&url, "is this tap itself"]);
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let holds = TcpListener::bind(taken).unwrap();
    let line = format!("tap --upstream http://127.0.0.1:1 --listen {taken}");
    Run::of(&line).ends().leaves_with(2).says_only(&[&taken.to_string(), "choose another port"]);
    drop(holds);
}

#[rstest]
#[case("file", "--token-file t", None)]
#[case("environment", "", Some("secret"))]
#[case("environment, with blanks", "", Some(" secret\n"))]
fn a_token_is_read_and_never_said(#[case] from: &str, #[case] flag: &str, #[case] env: Option<&str>) {
    let line = format!("tap --listen 127.0.0.1:0 --upstream http://127.0.0.1:1 {flag}");
    let run = Run::of(&line).file("t", " secret \r\nnot this\n").env("SPRINGTIDE_LOG", "debug");
    let run = env.into_iter().fold(run, |run, token| run.env("SPRINGTIDE_TAP_TOKEN", token));
    let tap = run.start();
    let url = wait_for("its address", PATIENCE, || {
        let out = tap.out();
        Some(out.strip_suffix('\n')?.strip_prefix("listening on ")?.to_owned())
    });
    let refused = now(Link::new(&url, None).unwrap().hello());
    assert!(matches!(refused, Err(LinkError::Refused { status: 401, .. })), "{from}: {refused:?}");
    now(Link::new(&url, Some("secret".into())).unwrap().hello()).unwrap();
    tap.signal(Signal::TERM);
    let ended = tap.ends();
    assert_eq!(ended.code, Some(0), "{}", ended.err);
    assert!(!ended.err.contains("secret") && !ended.out.contains("secret"));
}

#[rstest]
fn an_empty_token_in_the_environment_is_none(#[values("", " \n")] token: &str) {
    let line = "tap --listen 0.0.0.0:0 --upstream http://127.0.0.1:1";
    let run = Run::of(line).env("SPRINGTIDE_TAP_TOKEN", token);
    run.ends().leaves_with(2).says_only(&["has no token", "SPRINGTIDE_TAP_TOKEN"]);
}

#[test]
fn ctrl_c_ends_it_though_a_post_is_under_way() {
    let stand_in = stand_in();
    let mut tap = Tap::start(stand_in.url());
    let mut stream = tap.connect();
    stream.write_all(b"POST /tasks HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{").unwrap();
    let began = Instant::now();
    kill_process(pid_of(&tap.served.child), Signal::INT).unwrap();
    let status = wait_for("its end", PATIENCE, || tap.served.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_stand_in_behind_it_answers_as_if_it_were_not_there() {
    let stand_in = stand_in();
    let tap = Tap::start(stand_in.url());
    let ask = |url: &str| {
        let answer = crate::backend::ask(url, "POST", "/tasks", "{}");
        String::from_utf8(answer).unwrap()
    };
    assert_eq!(ask(&tap.url), ask(stand_in.url()));
    let batch = tap.posts(1);
    assert_eq!((batch.posts[0].status, batch.posts[0].ending), (Some(400), Ending::Answered));
}

#[test]
fn a_target_that_comes_later_is_found() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tap = Tap::start(&format!("http://{addr}"));
    let hello = now(tap.link().hello()).unwrap();
    assert_eq!(hello.upstream, format!("http://{addr}"));
    let canary = || now(tap.link().canary(Route::Tasks, 1, Duration::from_secs(5)));
    assert_eq!(canary().status, Some(502));
    let _stand_in = StandIn::start(Config { listen: addr, ..Config::default() }).unwrap();
    assert_eq!(canary().status, Some(400));
}

#[test]
fn a_tap_that_was_killed_leaves_no_fault_behind() {
    let stand_in = stand_in();
    let mut tap = Tap::start(stand_in.url());
    let kind = FaultKind::Drop { ratio: Ratio::percent(100), side: Side::Before };
    let fault = Fault::whole_cell(kind);
    let order = FaultOrder { run: "r".into(), cell: 0, seed: 1, fault, lease: Micros(60_000_000) };
    let (boot, link) = (now(tap.link().hello()).unwrap().boot, tap.link());
    now(link.set(&order)).unwrap();
    assert_eq!(now(link.canary(Route::Tasks, 0, PATIENCE)).status, None);
    tap.served.child.kill().unwrap();
    tap.served.child.wait().unwrap();
    assert!(matches!(now(link.hello()), Err(LinkError::Unreachable { .. })));
    let again = Tap::start(stand_in.url());
    assert!(matches!(now(again.link().posts(&boot, 1)), Err(LinkError::Restarted)));
    assert!(now(again.link().canary(Route::Tasks, 0, PATIENCE)).status.is_some());
}

/// Sends a post of that many MiB, has the target send as many back, and returns how much the tap
/// grew over what it was before.
fn pass_through(mib: usize) -> u64 {
    const PIECE: usize = 1 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let tap = Tap::start(&format!("http://{}", listener.local_addr().unwrap()));
    let before = tap.peak();
    let read = |stream: &mut TcpStream, mut left: usize| {
        let mut buffer = vec![0; PIECE];
        while left > 0 {
            let n = stream.read(&mut buffer).unwrap();
            assert!(n > 0, "{left} bytes are missing");
            left -= n;
        }
    };
    let head = |first: &str| format!("{first}\r\nContent-Length: {}\r\n\r\n", mib * PIECE);
    let skip_head = |stream: &mut TcpStream| {
        let (mut last, mut byte) = (Vec::new(), [0]);
        while !last.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            last.push(byte[0]);
        }
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            skip_head(&mut stream);
            read(&mut stream, mib * PIECE);
            stream.write_all(head("HTTP/1.1 200 OK").as_bytes()).unwrap();
            for _ in 0..mib {
                stream.write_all(&[b'y'; PIECE]).unwrap();
            }
        });
        let mut stream = tap.connect();
        stream.write_all(head("POST /results HTTP/1.1").as_bytes()).unwrap();
        for _ in 0..mib {
            stream.write_all(&[b'x'; PIECE]).unwrap();
        }
        skip_head(&mut stream);
        read(&mut stream, mib * PIECE);
    });
    let post = tap.posts(1).posts.remove(0);
    assert_eq!((post.bytes, post.answer_bytes), ((mib * PIECE) as u64, (mib * PIECE) as u64));
    assert!(post.hash.is_some() && post.ending == Ending::Answered);
    tap.peak().saturating_sub(before)
}

#[test]
fn a_hundred_megabytes_pass_in_little_memory() {
    let grown = pass_through(100);
    assert!(grown < 16 << 20, "{grown} bytes");
}

#[test]
#[ignore = "takes seconds: run it by name"]
fn a_gigabyte_passes_in_little_memory() {
    let grown = pass_through(1_024);
    assert!(grown < 16 << 20, "{grown} bytes");
}
