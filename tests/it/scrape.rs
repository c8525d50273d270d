//! Exposition endpoints, sound and not, scraped beside the cells of a run.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rstest::rstest;
use springtide::{
    moment::Moment,
    record::RunRecord,
    report,
    sampling::scrape::Scraper,
    summary::{ScenarioSummary, Source},
    telemetry::scrape::{
        ScrapeSeries,
        text::Format::{self, Classic, OpenMetrics},
    },
    timeline::Stage,
};
use tokio::time::Instant;

use crate::{
    odd::{Odd, Reply},
    support::{Run, wait_for},
};

const PATIENCE: Duration = Duration::from_secs(20);

/// An answer with a content type and whatever body.
pub(crate) fn exposition(kind: &str, body: impl AsRef<[u8]>) -> Reply {
    let body = body.as_ref();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
    Reply::Raw([head.as_bytes(), body].concat())
}

fn in_format(format: Format, body: &str) -> Reply {
    match format {
        Classic => exposition("text/plain; version=0.0.4", body),
        OpenMetrics => {
            exposition("application/openmetrics-text; version=1.0.0; charset=utf-8", format!("{body}# EOF\n"))
        }
    }
}

/// A merge histogram with `n` values of 1.5 s.
fn merges(n: u32) -> String {
    let sum = f64::from(n) * 1.5;
    format!(
        "# TYPE yaptide_stage_duration_seconds histogram\n\
         yaptide_stage_duration_seconds_bucket{{stage=\"merge\",le=\"1.0\"}} 0\n\
         yaptide_stage_duration_seconds_bucket{{stage=\"merge\",le=\"2.0\"}} {n}\n\
         yaptide_stage_duration_seconds_bucket{{stage=\"merge\",le=\"+Inf\"}} {n}\n\
         yaptide_stage_duration_seconds_sum{{stage=\"merge\"}} {sum}\n\
         yaptide_stage_duration_seconds_count{{stage=\"merge\"}} {n}\n"
    )
}

fn now<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Opens and closes a cell beside which `until` is waited for.
fn watch(url: &str, until: impl Fn() -> bool) -> ScrapeSeries {
    let cell =
        springtide::plan::Plan::cells(1, &springtide::scenario::Matrix::runbook().scenarios, false).remove(0);
    now(async {
        let mut scraper = Scraper::connect(url).await.unwrap();
        scraper.open(&cell).await;
        let deadline = Instant::now() + PATIENCE;
        while !until() {
            assert!(Instant::now() < deadline, "waited in vain");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let t0 = Instant::now();
        let (name, series) = scraper.close(t0).await;
        assert_eq!(name, url);
        assert!(series.at.first().is_none_or(|at| *at < Moment(0)), "{:?}", series.at);
        series
    })
}

/// A server whose nth answer (from 0: the one at the start, the one at the opening, …) is as said.
fn answers(answer: impl Fn(u32) -> Reply + Send + Sync + 'static) -> (Odd, Arc<AtomicU32>) {
    let n = Arc::new(AtomicU32::new(0));
    let asked = Arc::clone(&n);
    (Odd::start(false, move |_| answer(asked.fetch_add(1, Ordering::SeqCst))), n)
}

#[rstest]
#[case(Classic)]
#[case(OpenMetrics)]
fn growth_is_what_was_counted_between_the_first_and_the_last_scrape(#[case] format: Format) {
    let (odd, n) = answers(move |n| in_format(format, &merges(10 * n)));
    let series = watch(&format!("{}/metrics", odd.url), || n.load(Ordering::SeqCst) >= 4);
    assert!(series.is_whole && series.gaps.is_empty() && series.format == format, "{series:?}");
    let last = n.load(Ordering::SeqCst) - 1;
    let h = &series.histograms[0];
    // The one before the cell said 0, the opening one 10.
    assert_eq!((h.growth.count(), h.resets), (u64::from(10 * last - 10), 0));
    assert_eq!(series.at.len() as u32, last);
    assert!(series.at.windows(2).all(|w| w[0] < w[1]), "{:?}", series.at);
}

#[rstest]
#[case::gone(Reply::Close, "closed before an answer")]
#[case::ill(Reply::Text(503, "{}".into()), "status 503")]
#[case::page(exposition("text/html", "<html>"), "it answers text/html, not metrics")]
#[case::no_text(exposition("text/plain", b"a{b=\"\xff\"} 1\n"), "no UTF-8 at byte 5")]
#[case::nonsense(exposition("text/plain", "a 1\nb one\n"), "line 2: no number")]
#[case::cut(exposition("application/openmetrics-text", "a 1\n"), "# EOF")]
#[case::huge(exposition("text/plain", "#\n".repeat((16 << 19) + 10_000)), "larger than 16 MiB")]
#[case::slow(Reply::Hang, "timed out")]
fn what_goes_wrong_in_the_middle_is_a_gap_with_its_reason(#[case] wrong: Reply, #[case] why: &str) {
    // Sound at the start and the opening, then wrong once, then sound.
    let (odd, n) = answers(move |n| if n == 2 { wrong.clone() } else { in_format(Classic, &merges(n)) });
    let series = watch(&format!("{}/metrics", odd.url), || n.load(Ordering::SeqCst) >= 5);
    assert_eq!(series.gaps.len(), 1, "{series:?}");
    let gap = &series.gaps[0];
    assert!(gap.why.contains(why), "{}", gap.why);
    assert_eq!((gap.from, gap.to), (series.at[0], series.at[1]));
    assert!(series.is_whole, "its ends are sound");
    let last = n.load(Ordering::SeqCst) - 1;
    assert_eq!(series.histograms[0].growth.count(), u64::from(last - 1), "and nothing is lost");
}

#[test]
fn an_endpoint_that_starts_anew_has_no_negative_growth() {
    let (odd, n) = answers(|n| in_format(Classic, &merges(if n < 3 { 100 + n } else { n })));
    let series = watch(&format!("{}/metrics", odd.url), || n.load(Ordering::SeqCst) >= 5);
    let h = &series.histograms[0];
    assert_eq!(h.resets, 1);
    let last = n.load(Ordering::SeqCst) - 1;
    assert_eq!(h.growth.count(), u64::from(1 + last), "101 to 102, then from zero");
    assert!(h.points(&series.at).iter().all(|p| p.1 >= 0.0));
}

#[test]
fn a_target_that_dies_leaves_a_gap_to_the_end() {
    let alive = Arc::new(AtomicBool::new(true));
    let (is_alive, dead) = (Arc::clone(&alive), Arc::new(AtomicU64::new(0)));
    let died = Arc::clone(&dead);
    let odd = Odd::start(false, move |_| {
        if is_alive.load(Ordering::SeqCst) {
            return in_format(Classic, &merges(3));
        }
        died.fetch_add(1, Ordering::SeqCst);
        Reply::Close
    });
    let series = watch(&format!("{}/metrics", odd.url), || {
        alive.store(false, Ordering::SeqCst);
        dead.load(Ordering::SeqCst) > 0
    });
    assert!(!series.is_whole && series.gaps.len() == 1, "{series:?}");
    assert!(series.gaps[0].to >= Moment(0));
}

#[test]
fn the_better_format_is_asked_for_and_the_query_goes_with_it() {
    let odd = Odd::start(false, |_| in_format(Classic, "a 1\n"));
    now(Scraper::connect(&format!("{}/probe/metrics?collect=x", odd.url))).unwrap();
    assert_eq!(odd.requests(), [("GET /probe/metrics".to_owned(), 1)].into());
}

#[rstest]
#[case::nobody("http://127.0.0.1:1/metrics", &["http://127.0.0.1:1/metrics", "connection refused"])]
#[case::no_address("metrics", &["\"metrics\"", "http://"])]
#[case::other_scheme("ftp://127.0.0.1/metrics", &["http://"])]
fn an_endpoint_that_is_not_there_is_one_line_and_nothing_is_written(
    #[case] url: &str,
    #[case] says: &[&str],
) {
    let ended = Run::small().set("metrics-url", url).ends();
    ended.leaves_with(2).says_only(&[&["--metrics-url"], says].concat()).leaves_only(&[]);
}

#[rstest]
#[case::page(exposition("text/html", "<html>"), "it answers text/html")]
#[case::nonsense(exposition("text/plain", "{}"), "line 1")]
#[case::missing(Reply::Text(404, "{}".into()), "status 404")]
fn an_endpoint_without_metrics_is_one_line(#[case] reply: Reply, #[case] why: &str) {
    let odd = Odd::always(reply);
    let ended = Run::small().set("metrics-url", format!("{}/metrics", odd.url)).ends();
    ended.leaves_with(2).says_only(&["--metrics-url", why]).leaves_only(&[]);
}

/// The whole way: a run, its record, its files.
#[test]
fn a_run_reports_what_the_target_told() {
    let jobs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&jobs);
    // Every look at it finds that one more job has been merged.
    let odd =
        Odd::start(false, move |_| in_format(OpenMetrics, &merges(counted.fetch_add(1, Ordering::SeqCst))));
    let url = format!("{}/metrics", odd.url);
    let ended = Run::small().set("metrics-url", &url).ends_shared();
    let run: RunRecord = ended.record();
    let cells: Vec<_> = run.measured().collect();
    assert!(cells.len() == 2 && cells.iter().all(|c| c.telemetry.scrapes[&url].is_whole), "{}", ended.err);
    let merged: u64 = cells.iter().map(|c| c.telemetry.scrapes[&url].histograms[0].growth.count()).sum();
    assert!(merged >= 2);
    let s = &ScenarioSummary::of_run(&run)[0];
    let merge = s.stages.iter().find(|x| x.stage == Stage::Merge && x.source == Source::Metrics).unwrap();
    let p50 = merge.quantile(0.5).unwrap();
    assert_eq!(merge.sample.count() as u64, merged);
    assert_eq!(p50.bucket.map(|(low, high)| (low.0, high.unwrap().0)), Some((1_000_000, 2_000_000)));
    assert_eq!(merge.mean().unwrap().0, 1_500_000);
    let folder = ended.folder();
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let stages = read("timings/S1_stages.csv");
    let row = stages.lines().find(|l| l.contains(",merge,metrics,")).unwrap_or_else(|| panic!("{stages}"));
    assert!(row.contains(&format!(",merge,metrics,{merged},0,")), "{row}");
    for file in ["summary.md", "report.html"] {
        let text = read(file);
        assert!(
            text.contains("as the target's own metrics tell them")
                || text.contains("target&#39;s own metrics tell them"),
            "{file}"
        );
        assert!(text.contains("in 1.00 s … 2.00 s"), "{file}");
    }
    assert!(ended.out.contains("metrics"), "{}", ended.out);
    // Drawn again it is the same.
    let again = tempfile::tempdir().unwrap();
    report::write_all(&run, again.path()).unwrap();
    assert_eq!(std::fs::read_to_string(again.path().join("timings/S1_stages.csv")).unwrap(), stages);
}

#[test]
fn a_page_whose_port_is_taken_is_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap();
    let ended = Run::small().set("metrics-listen", addr).ends();
    ended
        .leaves_with(2)
        .says_only(&["--metrics-listen", &addr.to_string(), "choose another port"])
        .leaves_only(&[]);
}

/// The address of the page of a run that goes on.
pub(crate) fn page_of(going: &crate::support::Going) -> String {
    wait_for("the page", PATIENCE, || {
        let err = going.err();
        let at = err.split("live figures at ").nth(1)?;
        Some(at.lines().next()?.trim().trim_end_matches("/metrics").to_owned())
    })
}

#[test]
fn a_run_shows_itself_while_it_goes_on_and_only_at_its_place() {
    let going = Run::small().set("metrics-listen", "127.0.0.1:0").set("standin-task-time", "1500ms").start();
    let url = page_of(&going);
    let text = wait_for("figures", PATIENCE, || {
        let text = String::from_utf8(crate::backend::ask(&url, "GET", "/metrics", "")).unwrap();
        text.contains("springtide_jobs_in_flight{scenario=\"S1\"} 3").then_some(text)
    });
    assert!(springtide::telemetry::scrape::text::read(&text, Classic).is_ok());
    assert!(
        text.contains("springtide_run_info{run_id=\"")
            && text.contains("springtide_worker_up{worker=\"local\"} 1")
    );
    assert!(
        crate::backend::ask(&url, "GET", "/", "").starts_with(b"springtide's live figures are at /metrics")
    );
    assert!(crate::backend::ask(&url, "POST", "/metrics", "").is_empty());
    going.ends();
}
