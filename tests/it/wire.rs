//! Targets that are not the stand-in, and hardly HTTP: a clear outcome, the right exit code, never
//! a panic and never a hang.

use std::{
    net::TcpListener,
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

use rstest::rstest;
use serde_json::json;
use springtide::{
    finding::Kind,
    timeline::{JobOutcome, JobState},
    verdict::Exit,
};

use crate::{
    odd::{Odd, Reply, results},
    support::{Ended, Run},
};

const AT_ONCE: Duration = Duration::from_secs(15);

/// One cell of two users with a job each, and little patience.
fn run_at(url: &str) -> Run {
    Run::small_at(url).once().set("users", 2).set("patience", "1s").set("job-timeout", "3s").within(AT_ONCE)
}

fn ends(run: Run) -> Ended {
    let ended = run.ends_shared();
    assert!(!ended.err.contains("panicked"), "{}", ended.err);
    ended
}

/// What went wrong with each job.
fn broken(ended: &Ended) -> Vec<String> {
    let run = ended.record();
    let jobs = run.cells.iter().flat_map(|c| c.totals.jobs.values());
    jobs.map(|j| match &j.outcome {
        JobOutcome::Broken { what } => what.clone(),
        other => format!("{other:?}"),
    })
    .collect()
}

/// Asserts that the greeting failed: nothing was measured, so there is nothing but one line.
#[track_caller]
fn no_greeting(ended: &Ended, why: &str) {
    ended.leaves_with(1).says_only(&["does not answer", why, "--host"]);
    assert!(ended.records().is_empty(), "{:?}", ended.records());
}

#[test]
fn nobody_listens() {
    let addr = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    no_greeting(&ends(run_at(&format!("http://{addr}"))), "connection refused");
}

#[rstest]
#[case::closes_at_once(Reply::Close, "closed before an answer")]
#[case::garbage(Reply::Raw(b"\x00\x01\x02 SSH-2.0-OpenSSH\r\n\r\n".to_vec()), "not HTTP")]
#[case::half_a_head(Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Le".to_vec()), "closed before an answer")]
#[case::half_a_body(Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec()), "cut off")]
#[case::no_answer(Reply::Hang, "timed out")]
fn what_is_no_answer_ends_the_run_before_it_starts(#[case] reply: Reply, #[case] why: &str) {
    let odd = Odd::always(reply);
    let ended = ends(run_at(&odd.url));
    no_greeting(&ended, why);
    assert!(ended.took < Duration::from_secs(6), "{:?}", ended.took);
    assert_eq!(odd.requests().values().sum::<u64>(), 1, "{:?}", odd.requests());
}

#[rstest]
#[case::page(Reply::Text(200, "<!DOCTYPE html><html><body>Welcome</body></html>".into()), "200 HTML page")]
#[case::nothing(Reply::Text(204, String::new()), "204")]
#[case::redirect(Reply::Raw(b"HTTP/1.1 302 Found\r\nLocation: https://elsewhere/\r\nContent-Length: 0\r\n\r\n".to_vec()), "302")]
#[case::forbidden(Reply::Text(403, "no".into()), "403")]
fn what_is_no_backend_gives_no_session(#[case] reply: Reply, #[case] why: &str) {
    let odd = Odd::always(reply);
    let ended = ends(run_at(&odd.url));
    let run = ended.exits(Exit::Failed).record();
    let stopped = run.stopped.as_deref().unwrap();
    assert!(stopped.contains("no session") && stopped.contains(why), "{stopped}");
    assert!(ended.err.contains(why), "{}", ended.err);
}

#[test]
fn a_login_without_cookies_is_no_session() {
    let odd = Odd::backend(false, |route| {
        (route == "POST /auth/login").then(|| Reply::json(202, json!({"message": "Successfully logged in"})))
    });
    let ended = ends(run_at(&odd.url));
    assert!(ended.exits(Exit::Failed).record().stopped.unwrap().contains("no session"));
}

#[rstest]
#[case::kept(true)]
#[case::closed(false)]
fn a_small_backend_passes(#[case] keep_alive: bool) {
    let odd = Odd::backend(keep_alive, |_| None);
    let ended = ends(run_at(&odd.url).set("users", 3).set("repetitions", 2));
    ended.exits(Exit::Pass).jobs(&[("fetched", 6)]).found(&[]);
    let run = ended.record();
    assert_eq!((run.target.keep_alive, run.target.stand_in), (keep_alive, false));
    let requests: u64 = odd.requests().values().sum();
    let ours: u64 = run.cells.iter().flat_map(|c| c.totals.requests.values()).map(|r| r.count()).sum();
    assert_eq!(ours + 1, requests, "all but the greeting: {:?}", odd.requests());
    let connects: u64 = run.cells.iter().flat_map(|c| c.totals.requests.values()).map(|r| r.connects).sum();
    assert_eq!(connects + 1, odd.connections());
    // One connection a user, kept for the whole run, or one a request.
    assert_eq!(odd.connections(), if keep_alive { 1 + 3 } else { requests });
}

#[test]
fn large_results_are_read_whole() {
    let text = results(200_000);
    let size = text.len() as u64;
    assert!(size > 3_000_000, "{size}");
    let odd =
        Odd::backend(true, move |route| (route == "GET /results").then(|| Reply::Text(200, text.clone())));
    let ended = ends(run_at(&odd.url).set("patience", "10s"));
    ended.exits(Exit::Pass).jobs(&[("fetched", 2)]);
    for job in ended.record().cells[0].totals.jobs.values() {
        let results = job.results.as_ref().unwrap();
        assert_eq!((results.body_bytes, results.values), (size, 200_000));
        assert!(results.wire_bytes > size && results.wire_bytes < size + 1_000, "head and body");
    }
}

#[test]
fn chunked_results_are_read_whole() {
    let text = results(1_000);
    let (size, mut raw) =
        (text.len() as u64, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec());
    for piece in text.as_bytes().chunks(777) {
        raw.extend(format!("{:x}\r\n", piece.len()).bytes());
        raw.extend(piece);
        raw.extend(b"\r\n");
    }
    raw.extend(b"0\r\n\r\n");
    let odd = Odd::backend(false, move |route| (route == "GET /results").then(|| Reply::Raw(raw.clone())));
    let ended = ends(run_at(&odd.url));
    ended.exits(Exit::Pass).jobs(&[("fetched", 2)]);
    let run = ended.record();
    let results = run.cells[0].totals.jobs.values().next().unwrap().results.as_ref().unwrap();
    assert!(results.body_bytes == size && results.wire_bytes > size);
}

/// Each case: what every submit is answered with, and the jobs' outcome.
#[rstest]
#[case::refused(Reply::json(400, json!({"message": "No JSON in body"})), "rejected", Exit::Failed)]
#[case::no_answer(Reply::Close, "rejected", Exit::Failed)]
#[case::hang(Reply::Hang, "rejected", Exit::Failed)]
#[case::page(Reply::Text(202, "<html></html>".into()), "broken", Exit::Failed)]
#[case::no_id(Reply::json(202, json!({"message": "ok"})), "broken", Exit::Failed)]
fn an_odd_answer_to_a_submit(#[case] reply: Reply, #[case] outcome: &str, #[case] exit: Exit) {
    let odd = Odd::backend(true, move |route| (route == "POST /jobs/direct").then(|| reply.clone()));
    let ended = ends(run_at(&odd.url));
    ended.exits(exit).jobs(&[(outcome, 2)]);
    assert_eq!(ended.residual(), 0);
    assert_eq!(odd.requests()["POST /jobs/direct"], 2, "a submit is sent once");
}

/// Each case: what every poll is answered with, and what becomes of the jobs.
#[rstest]
#[case::garbage(Reply::Raw(b"garbage\r\n\r\n".to_vec()), "no usable answer for 1.00 s: not HTTP")]
#[case::close(Reply::Close, "no usable answer for 1.00 s: closed before an answer")]
#[case::hang(Reply::Hang, "no usable answer for 1.00 s: timed out")]
#[case::page(Reply::Text(200, "<html></html>".into()), "no usable answer for 1.00 s: HTML instead of JSON")]
#[case::no_state(Reply::json(200, json!({"message": "ok"})), "no usable answer for 1.00 s: unexpected answer: missing field")]
#[case::gateway(Reply::Text(502, "<html></html>".into()), "no usable answer for 1.00 s: 502 HTML page")]
#[case::forbidden(Reply::json(403, json!({"message": "not yours"})), "no access to the own job: 403 not yours")]
fn an_odd_answer_to_polls(#[case] reply: Reply, #[case] what: &str) {
    let odd = Odd::backend(true, move |route| (route == "GET /jobs").then(|| reply.clone()));
    let ended = ends(run_at(&odd.url));
    // What goes on at such a target cannot be known, and may load later cells.
    ended.exits(Exit::Invalid).jobs(&[("broken", 2)]);
    assert_eq!(ended.residual(), 0);
    assert!(broken(&ended).iter().all(|w| w.contains(what)), "{:?}", broken(&ended));
    assert_eq!(odd.requests()["DELETE /jobs/direct"], 2, "what is given up is canceled");
}

#[test]
fn an_unknown_state_is_told_and_ends_with_the_timeout() {
    let canceled = AtomicBool::new(false);
    let odd = Odd::backend(true, move |route| {
        canceled.fetch_or(route == "DELETE /jobs/direct", Ordering::Relaxed);
        let state = if canceled.load(Ordering::Relaxed) { "CANCELED" } else { "BANANA" };
        (route == "GET /jobs").then(|| Reply::json(200, json!({"job_state": state, "message": "?"})))
    });
    let ended = ends(run_at(&odd.url).set("users", 1).set("job-timeout", "1s"));
    ended.exits(Exit::Failed).jobs(&[("timed_out", 1)]);
    ended.found(&[(Kind::Stuck { state: JobState::Unknown }, 1), (Kind::UnknownState, 1)]);
    assert!(odd.requests()["GET /jobs"] < 30, "{:?}", odd.requests());
}

/// A session that is refused once is opened again, and nobody loses a job over it.
#[test]
fn a_session_that_was_forgotten_is_opened_again() {
    let polls = AtomicU32::new(0);
    let odd = Odd::backend(true, move |route| {
        let first = route == "GET /jobs" && polls.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| Reply::json(403, json!({"message": "User is not allowed to get this resource"})))
    });
    let ended = ends(run_at(&odd.url));
    ended.exits(Exit::Pass).jobs(&[("fetched", 2)]);
    assert_eq!(odd.requests()["POST /auth/login"], 3, "two users, one of them twice");
}

/// Each case: what every fetch is answered with, and what is wrong with the results.
#[rstest]
#[case::none(Reply::json(200, json!({"estimators": [], "message": "ok"})), "no estimators", 1)]
#[case::pages(Reply::json(200, json!({"estimators": [{"name": "e", "pages": []}]})), "without pages", 1)]
#[case::page(Reply::Text(200, "<html></html>".into()), "HTML instead of JSON", 1)]
#[case::cut_off(Reply::Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n{\"estimators\"".to_vec()), "in 3 tries", 3)]
#[case::gateway(Reply::Text(502, "<html></html>".into()), "in 3 tries, 502", 3)]
#[case::hang(Reply::Hang, "in 3 tries, timed out", 3)]
fn an_odd_answer_to_a_fetch(#[case] reply: Reply, #[case] what: &str, #[case] tries: u64) {
    let odd = Odd::backend(true, move |route| (route == "GET /results").then(|| reply.clone()));
    let ended = ends(run_at(&odd.url));
    ended.exits(Exit::Failed).jobs(&[("broken", 2)]);
    assert!(broken(&ended).iter().all(|w| w.contains(what)), "{:?}", broken(&ended));
    assert_eq!(odd.requests()["GET /results"], 2 * tries);
}

/// Without the target's own list nothing can be reconciled, and the cell proves nothing.
#[rstest]
#[case::page(Reply::Text(200, "<html></html>".into()))]
#[case::hang(Reply::Hang)]
#[case::not_there(Reply::json(404, json!({"message": "no such route"})))]
fn an_odd_answer_to_the_list(#[case] reply: Reply) {
    let odd = Odd::backend(true, move |route| (route == "GET /user/simulations").then(|| reply.clone()));
    let ended = ends(run_at(&odd.url));
    ended.exits(Exit::Invalid).jobs(&[("fetched", 2)]);
    assert!(!ended.record().cells[0].ledger.reconciled);
}

/// A list whose last page never comes is not read for ever.
#[test]
fn an_endless_list_of_other_peoples_jobs_is_left() {
    let odd = Odd::backend(true, |route| {
        let rows: Vec<_> = (0..100).map(|n| json!({"job_id": format!("x{n}"), "title": "theirs"})).collect();
        (route == "GET /user/simulations")
            .then(|| Reply::json(200, json!({"page_count": 1_000_000, "simulations": rows})))
    });
    let ended = ends(run_at(&odd.url));
    ended.exits(Exit::Invalid);
    assert!(odd.requests()["GET /user/simulations"] <= 4, "{:?}", odd.requests());
}
