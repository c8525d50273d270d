//! What a run can ask of a tap, and what it cannot.

use std::net::TcpListener;

use super::{super::*, *};
use crate::{
    fault::{Fault, FaultKind, Ratio, Side},
    micros::Micros,
    route::Route,
};

fn asked(run: &str) -> FaultOrder {
    let kind = FaultKind::Drop { ratio: Ratio::percent(50), side: Side::Either };
    FaultOrder { run: run.into(), cell: 1, seed: 1, fault: Fault::whole_cell(kind), lease: Micros(5_000_000) }
}

fn start(listen: &str, upstream: &str, token: Option<&str>) -> Result<Tap, TapError> {
    let listen = listen.parse().unwrap();
    Tap::start(Config { listen, upstream: upstream.into(), token: token.map(Into::into), buffer: 10 })
}

#[test]
fn a_tap_that_others_can_reach_needs_a_token() {
    let open = start("0.0.0.0:0", "http://127.0.0.1:1", None).unwrap_err();
    assert!(open.to_string().contains("SPRINGTIDE_TAP_TOKEN"), "{open}");
    for bad in ["", "a b", "\n", "ä", &"x".repeat(2_000)] {
        assert!(matches!(start("127.0.0.1:0", "http://127.0.0.1:1", Some(bad)), Err(TapError::BadToken)));
    }
    for bad in ["https://a:1", "a:1", "http://", ""] {
        assert!(matches!(start("127.0.0.1:0", bad, None), Err(TapError::Upstream { .. })), "{bad}");
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    assert!(matches!(start(&addr, "http://127.0.0.1:1", None), Err(TapError::Listen { .. })));
}

#[test]
fn the_token_guards_the_runs_side_and_not_the_workers() {
    let target = Target::accepting();
    let tap = tap_with(&target, 10, Some("secret"));
    assert_eq!(ask(&tap, post_of("/tasks", "{}")).status(), 202);
    for header in [
        "",
        "Authorization: Bearer secret2\r\n",
        "Authorization: secret\r\n",
        "Authorization: Basic secret\r\n",
    ] {
        let answer = ask(&tap, format!("GET /_tap/hello HTTP/1.1\r\n{header}\r\n"));
        assert_eq!(answer.status(), 401, "{header}");
        assert!(answer.text().starts_with("{\"message\":"), "{answer:?}");
    }
    now(async {
        let link = |token: Option<&str>| Link::new(tap.url(), token.map(Into::into)).unwrap();
        let refused = link(None).hello().await.unwrap_err();
        assert!(matches!(refused, LinkError::Refused { status: 401, .. }), "{refused}");
        assert!(!format!("{:?}", link(Some("secret"))).contains("secret"));
        let hello = link(Some("secret")).hello().await.unwrap();
        assert_eq!(hello.upstream, format!("http://{}", target.addr));
        assert_eq!(hello.version, env!("CARGO_PKG_VERSION"));
        assert!(link(Some("secret")).canary(Route::Tasks, 1, PATIENCE).await.status.is_some());
    });
    assert_eq!(target.seen().len(), 2, "nothing of the run's side goes to the target");
}

/// An order of that fault.
fn put_of(fault: &str) -> String {
    let order = format!(r#"{{"run":"r","cell":1,"seed":1,"lease":1000000,"fault":{fault}}}"#);
    post_of("/_tap/fault", &order).replacen("POST", "PUT", 1)
}

#[test]
fn mistakes_are_answered_in_words() {
    let target = Target::accepting();
    let tap = tap(&target);
    let big = "x".repeat(70_000);
    for (request, status) in [
        ("GET /_tap/nothing HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("GET /_tap/ HTTP/1.1\r\n\r\n".to_owned(), 404),
        ("DELETE /_tap/hello HTTP/1.1\r\n\r\n".to_owned(), 405),
        ("DELETE /_tap/fault HTTP/1.1\r\n\r\n".to_owned(), 400),
        ("GET /_tap/posts?boot=x&from=1 HTTP/1.1\r\n\r\n".to_owned(), 409),
        (post_of("/_tap/fault/start", "{}"), 400),
        (post_of("/_tap/fault/start", r#"{"run":"r","cell":1,"in_us":3600000001}"#), 400),
        (post_of("/_tap/fault/start", r#"{"run":"r","cell":1,"in_us":18446744073709551615}"#), 400),
        (put_of(r#"{"mode":"drop","ratio":0,"side":"before","routes":["/tasks"],"window":{"from":0}}"#), 400),
        (put_of(r#"{"mode":"drop","ratio":9,"side":"before","routes":[],"window":{"from":0}}"#), 400),
        (post_of("/_tap/fault/renew", "nonsense"), 400),
        (post_of("/_tap/fault/renew", &big), 413),
        (post_of("/_tap/fault/renew", r#"{"run":"r","cell":1}"#), 410),
    ] {
        let answer = ask(&tap, &request);
        assert_eq!(answer.status(), status, "{request:.60}");
        assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).unwrap()["message"].is_string());
    }
    let boot = now(async { link(&tap).hello().await.unwrap().boot });
    assert_eq!(ask(&tap, format!("GET /_tap/posts?boot={boot}&from=-1 HTTP/1.1\r\n\r\n")).status(), 400);
    assert!(target.seen().is_empty());
}

#[test]
fn a_run_has_the_fault_to_itself() {
    let target = Target::accepting();
    let tap = tap(&target);
    now(async {
        let link = link(&tap);
        let set = link.set(&asked("one")).await.unwrap();
        assert_eq!((set.order.as_ref(), set.t0, set.active), (Some(&asked("one")), None, true));
        let started = link.start("one", 1, Duration::from_secs(60)).await.unwrap();
        let t0 = started.t0.unwrap().saturating_sub(started.now);
        assert_eq!(t0, Micros(60_000_000));
        for refused in [
            link.set(&asked("two")).await,
            link.clear("two").await,
            link.renew("two", 1).await,
            link.start("two", 1, Duration::ZERO).await,
        ] {
            let Err(LinkError::Refused { status: 409, message }) = refused else { panic!("{refused:?}") };
            assert!(message.contains("run \"one\""), "{message}");
        }
        assert!(link.clear("one").await.unwrap().order.is_none());
        assert!(!link.clear("one").await.unwrap().expired);
        link.set(&asked("two & a half/ü")).await.unwrap();
        link.clear("two & a half/ü").await.unwrap();
    });
}

#[test]
fn a_tap_that_was_started_anew_is_told_from_the_one_before() {
    let target = Target::accepting();
    let mut first = tap(&target);
    let boot = now(async { link(&first).hello().await.unwrap().boot });
    let addr = first.addr();
    first.stop();
    let second = start(&addr.to_string(), &format!("http://{}", target.addr), None).unwrap();
    let again = now(async { link(&second).posts(&boot, 1).await.unwrap_err() });
    assert!(matches!(again, LinkError::Restarted), "{again}");
}

#[test]
fn what_is_no_tap_is_called_so() {
    assert!(matches!(Link::new("https://a", None), Err(LinkError::BadUrl { .. })));
    for answer in [
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        "HTTP/1.1 404 NOT FOUND\r\nContent-Length: 16\r\n\r\n{\"message\":\"no\"}",
        "HTTP/1.1 404 NOT FOUND\r\nContent-Length: 6\r\n\r\n<html>",
    ] {
        let target = Target::answering(answer);
        let link = Link::new(&format!("http://{}", target.addr), None).unwrap();
        let error = now(link.hello()).unwrap_err();
        assert!(matches!(error, LinkError::NotATap { .. }), "{error}");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let link = Link::new(&format!("http://{nobody}"), None).unwrap();
    assert!(matches!(now(link.hello()), Err(LinkError::Unreachable { .. })));
}

#[test]
fn a_canary_says_how_it_fared() {
    let (target, silent) = (Target::accepting(), Target::serving(|wire, _| drop(wire.rest())));
    let url = |t: &Target| format!("http://{}", t.addr);
    now(async {
        let alive = canary_at(&url(&target), Route::Results, 7, PATIENCE).await;
        assert_eq!((alive.number, alive.status), (7, Some(202)));
        let timeout = Duration::from_millis(50);
        let late = canary_at(&url(&silent), Route::Tasks, 8, timeout).await;
        assert!(late.status.is_none() && late.took >= timeout.into(), "{late:?}");
        assert_eq!(canary_at("nonsense", Route::Tasks, 9, timeout).await.status, None);
    });
    let seen = &target.seen()[0];
    assert_eq!((seen.first.as_str(), seen.text().as_str()), ("POST /results HTTP/1.1", "{}"));
    assert_eq!(
        (seen.header("x-springtide-canary"), seen.header("connection")),
        (Some("7".into()), Some("close".into()))
    );
}

#[test]
fn a_tap_stops_with_connections_open() {
    let target = Target::accepting();
    let mut tap = tap(&target);
    let mut idle = Wire::to(tap.addr());
    let mut half = Wire::to(tap.addr());
    half.send("POST /tasks HTTP/1.1\r\nContent-Length: 9\r\n\r\n{");
    let began = Instant::now();
    tap.stop();
    assert!(began.elapsed() < Duration::from_secs(3));
    let _ = (idle.rest(), half.rest());
}
