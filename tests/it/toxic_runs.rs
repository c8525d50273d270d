//! Runs whose faults a Toxiproxy does: a stand-in in this process, its workers behind a fake
//! Toxiproxy, with a tap or without.

use rstest::rstest;
use rustix::process::Signal;
use serde_json::json;
use springtide::{
    injection::Injector,
    standin::{Config, Retries, StandIn},
    verdict::{Exit, Rule, Verdict},
};
use std::time::Duration;

use crate::{
    support::{Run, shared, wait_for},
    toxiproxy_fake::{FakeToxiproxy, NAME},
};

fn behind_a_fake(retries: Retries) -> (StandIn, FakeToxiproxy) {
    let task_time = Duration::from_millis(20);
    let stand_in = StandIn::start(Config { task_time, retries, ..Config::default() }).unwrap();
    let fake = FakeToxiproxy::start(stand_in.url());
    stand_in.post_through(&fake.listen_url).unwrap();
    (stand_in, fake)
}

fn run(stand_in: &StandIn, fake: &FakeToxiproxy, fault: &str, level: &str) -> Run {
    let matrix = format!(
        "[[scenario]]\nid = \"S7\"\nconcurrent_jobs = 2\ntasks = 2\nfault = \"{fault}\"\nlevels = [{level}]\nrepetitions = 1\n"
    );
    Run::small_at(stand_in.url())
        .set("scenario", "S7")
        .file("m.toml", &matrix)
        .set("matrix", "m.toml")
        .set("toxiproxy", &fake.api_url)
        .set("toxiproxy-proxy", NAME)
        .once()
}

#[rstest]
#[case::latency("latency", "{ delay = \"100ms\" }")]
#[case::drop("drop", "{ ratio = \"20%\" }")]
#[case::disconnect("disconnect", "{ refuse = \"700ms\" }")]
fn a_toxiproxy_does_the_fault_and_is_left_as_it_was(#[case] fault: &str, #[case] level: &str) {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::Exponential);
    let ended = run(&stand_in, &fake, fault, level).ends();
    ended.exits(Exit::Pass);
    let cell = &ended.record().cells[0];
    let injection = cell.injection.as_ref().unwrap();
    assert_eq!((injection.by, injection.proof.flaws.len()), (Injector::Toxiproxy, 0));
    assert!(injection.deviations.iter().any(|d| d.contains("no routes")), "{:?}", injection.deviations);
    assert!(!fake.changes().is_empty() && fake.toxics().is_empty() && fake.enabled());
}

#[test]
fn a_toxic_that_does_nothing_is_no_fault() {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::None);
    // The workers and the canaries take another way than the proxy that has the toxic.
    let idle = FakeToxiproxy::start("http://127.0.0.1:1");
    let mut ended = run(&stand_in, &idle, "latency", "{ delay = \"100ms\" }").ends();
    ended.exits(Exit::Failed);
    assert!(ended.err.contains("canary"), "{}", ended.err);
    ended = run(&stand_in, &fake, "latency", "{ delay = \"100ms\", from = \"30s\" }").ends();
    ended.exits(Exit::Invalid);
    let cell = &ended.record().cells[0];
    let check = cell.checks.iter().find(|c| c.rule == Rule::FaultProven).unwrap();
    assert_eq!(check.verdict, Verdict::Invalid, "{}", check.evidence);
}

#[test]
fn a_toxic_that_somebody_takes_away_is_missed() {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::None);
    let going = run(&stand_in, &fake, "latency", "{ delay = \"500ms\" }").start();
    wait_for("jobs", Duration::from_secs(20), || (stand_in.truth().jobs_submitted > 1).then_some(()));
    crate::backend::ask(&fake.api_url, "DELETE", &format!("/proxies/{NAME}/toxics/springtide_latency"), "");
    assert!(fake.toxics().is_empty());
    let ended = going.ends();
    ended.exits(Exit::Invalid);
    assert!(ended.out.contains("not as it was left"), "{}", ended.out);
}

#[rstest]
#[case::foreign("somebody's", &["somebody's"])]
fn a_proxy_with_toxics_of_others_is_refused(#[case] name: &str, #[case] says: &[&str]) {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::None);
    let toxic = json!({"name": name, "type": "latency", "stream": "upstream", "toxicity": 1.0, "attributes": {"latency": 5}});
    crate::backend::ask(&fake.api_url, "POST", &format!("/proxies/{NAME}/toxics"), &toxic.to_string());
    assert_eq!(fake.names(), [name]);
    let ended = run(&stand_in, &fake, "latency", "{ delay = \"100ms\" }").ends();
    ended.leaves_with(2).says_only(&[&["--toxiproxy"], says].concat());
    assert_eq!(fake.names(), [name], "left as it was");
}

#[test]
fn a_proxy_that_is_not_there_is_refused_with_those_that_are() {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::None);
    let run = run(&stand_in, &fake, "latency", "{ delay = \"100ms\" }").set("toxiproxy-proxy", "other");
    run.ends().leaves_with(2).says_only(&["--toxiproxy", "other", NAME]);
}

#[rstest]
#[case::interrupted(Signal::INT)]
#[case::terminated(Signal::TERM)]
fn an_interrupted_run_takes_its_toxics_away(#[case] signal: Signal) {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::None);
    let going = run(&stand_in, &fake, "latency", "{ delay = \"2s\" }").start();
    wait_for("the toxic", Duration::from_secs(20), || (!fake.toxics().is_empty()).then_some(()));
    going.signal(signal);
    going.ends();
    assert!(fake.toxics().is_empty() && fake.enabled());
}

#[rstest]
#[case::latency("latency", "{ delay = \"2s\" }")]
#[case::disconnect("disconnect", "{ refuse = \"20s\" }")]
fn what_a_killed_run_left_is_taken_away_by_the_next(#[case] fault: &str, #[case] level: &str) {
    let _shared = shared();
    let (stand_in, fake) = behind_a_fake(Retries::None);
    let going = run(&stand_in, &fake, fault, level).start();
    let is_harmed = || !fake.toxics().is_empty() && (fault == "latency" || !fake.enabled());
    wait_for("the fault", Duration::from_secs(20), || is_harmed().then_some(()));
    going.signal(Signal::KILL);
    going.ends();
    assert!(is_harmed(), "a Toxiproxy knows no lease");
    let next = run(&stand_in, &fake, "latency", "{ delay = \"50ms\" }").set("users", 1).ends();
    next.exits(Exit::Pass);
    assert!(next.err.contains("an earlier run left something behind"), "{}", next.err);
    assert!(fake.toxics().is_empty() && fake.enabled());
}
