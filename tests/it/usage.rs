//! Mistakes: exit code 2, one line that names the flag or file and the remedy, nothing on stdout,
//! nothing written, and not a single connection to the target.

use std::{io::ErrorKind, net::TcpListener, time::Duration};

use rstest::rstest;

use crate::support::Run;

/// A mistake is found at once.
const AT_ONCE: Duration = Duration::from_secs(10);

/// Each case: the words behind `springtide --scenario S1`, and what the line must name.
#[rstest]
#[case::unknown_flag("--frobnicate", &["--frobnicate"])]
#[case::password_on_the_command_line("--password x", &["--password-file"])]
#[case::no_users("--users 0", &["--users", "1..=100000"])]
#[case::users_in_words("--users ten", &["--users", "ten"])]
#[case::no_tasks("--tasks 0", &["--tasks", "1..=10000"])]
#[case::no_repetitions("--repetitions 0", &["--repetitions", "1..=1000"])]
#[case::time_without_unit("--poll-interval 5", &["--poll-interval", "500ms"])]
#[case::job_timeout("--job-timeout soon", &["--job-timeout", "30s"])]
#[case::no_run_time("--run-time 0", &["--run-time", "longer"])]
#[case::run_time_and_count("--run-time 5s --jobs-per-user 3", &["--run-time", "--jobs-per-user"])]
#[case::spawn_rate("--spawn-rate 0", &["--spawn-rate", "0.001"])]
#[case::label("--label a/b", &["--label", "letters"])]
#[case::threshold_upside_down("--threshold job.p95>3s", &["--threshold", "job.p95>3s", "FIGURE<LIMIT"])]
#[case::threshold_without_unit("--threshold job.p95<3", &["--threshold", "500ms"])]
#[case::threshold_of_what("--threshold speed.p95<3s", &["--threshold", "speed", "job.pNN"])]
#[case::otlp("--otlp collector:4318", &["--otlp", "collector:4318", "http://HOST:4318"])]
#[case::otlp_password("--otlp http://ann:secret@collector", &["--otlp", "collector", "OTEL_EXPORTER_OTLP_HEADERS"])]
#[case::bug("--standin-bug gremlin", &["--standin-bug", "gremlin", "lost-completed"])]
#[case::matrix_not_there("--matrix nowhere.toml", &["--matrix", "nowhere.toml"])]
#[case::input_not_there("--input nowhere.json", &["--input", "nowhere.json"])]
#[case::out_below_proc("--out /proc/springtide", &["--out", "/proc/springtide", "name another"])]
#[case::out_on_proc("--out /proc", &["--out", "/proc", "name another"])]
#[case::host_of_ftp("--host ftp://backend --register", &["--host", "ftp://backend", "http://HOST"])]
#[case::host_without_scheme("--host backend:5000 --register", &["--host", "backend:5000", "http://HOST"])]
#[case::host_with_query("--host http://127.0.0.1:1/?a=b --register", &["--host", "query"])]
#[case::account_on_the_stand_in("--username ann", &["--username", "--host"])]
#[case::username_and_register("--host http://127.0.0.1:1 --username ann --register", &["--username", "--register"])]
#[case::tap_on_the_stand_in("--tap http://127.0.0.1:1", &["--tap", "--host"])]
#[case::twice("--scenario S1,S1", &["--scenario", "once"])]
#[case::certificates("--host https://127.0.0.1:1 --register --ca-cert nowhere.pem", &["--ca-cert", "nowhere.pem"])]
fn a_mistake_is_one_line(#[case] words: &str, #[case] names: &[&str]) {
    let ended = Run::of(&format!("--scenario S1 {words}")).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(names).leaves_only(&[]);
}

#[test]
fn a_scenario_is_needed() {
    let ended = Run::of("").within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--scenario", "--help"]).leaves_only(&[]);
    let ended = Run::of("run").within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--scenario", "--help"]).leaves_only(&[]);
}

#[test]
fn an_unknown_scenario_is_answered_with_those_there_are() {
    let ended = Run::of("--scenario S99").within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--scenario S99", "S1, S2, S3"]).leaves_only(&[]);
}

#[test]
fn a_threshold_for_a_scenario_that_does_not_run_is_refused() {
    let ended = Run::bare().set("threshold", "job.p95<3s for S2").within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--threshold", "S2", "S1"]).leaves_only(&[]);
}

#[rstest]
#[case::range("id = \"A\"\nconcurrent_jobs = 0\ntasks = 1", "line 3", "concurrent_jobs")]
#[case::unknown_field("id = \"A\"\nconcurent_jobs = 1\ntasks = 1", "line 3", "concurent_jobs")]
#[case::missing_field("id = \"A\"\nconcurrent_jobs = 1", "line", "tasks")]
#[case::type_("id = \"A\"\nconcurrent_jobs = \"one\"\ntasks = 1", "line 3", "concurrent_jobs")]
#[case::name("id = \"A B\"\nconcurrent_jobs = 1\ntasks = 1", "line 2", "id")]
fn a_bad_matrix_is_named_with_its_line(#[case] row: &str, #[case] line: &str, #[case] field: &str) {
    let run = Run::of("--scenario A --matrix my.toml").file("my.toml", &format!("[[scenario]]\n{row}\n"));
    let ended = run.within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["my.toml", line, field]).leaves_only(&["my.toml"]);
}

#[rstest]
#[case::no_json("begin", "JSON")]
#[case::half("{\"sim_type\":", "JSON")]
#[case::list("[]", "JSON object")]
#[case::field("{\"sim_type\":\"shieldhit\",\"input_type\":\"file\"}", "files, editor")]
fn a_bad_payload_is_named(#[case] text: &str, #[case] remedy: &str) {
    let ended = Run::bare().set("input", "my.json").file("my.json", text).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--input", "my.json", remedy]).leaves_only(&["my.json"]);
}

#[test]
fn a_file_in_place_of_the_folder_is_refused() {
    let ended = Run::bare().set("out", "taken").file("taken", "").within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--out taken", "name another"]).leaves_only(&["taken"]);
}

#[rstest]
#[case::csv("csv", "nowhere/S1")]
#[case::html("html", "nowhere/report.html")]
fn a_copy_into_a_folder_that_is_not_there_is_refused(#[case] flag: &str, #[case] path: &str) {
    let ended = Run::bare().set(flag, path).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&[flag, path]).leaves_only(&[]);
}

#[rstest]
#[case::unknown_key("user = 3", "user")]
#[case::no_toml("users = ", "line 1")]
#[case::range("users = 0", "users")]
#[case::type_("users = \"many\"", "many")]
#[case::password("password = \"hunter2\"", "password")]
fn a_bad_configuration_file_is_named(#[case] text: &str, #[case] names: &str) {
    let ended = Run::bare().file("springtide.toml", text).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&[names]).leaves_only(&["springtide.toml"]);
    assert!(!ended.err.contains("hunter2"), "{}", ended.err);
    assert!(!ended.err.contains("<COMMAND>"), "{}", ended.err);
}

#[rstest]
#[case::users("SPRINGTIDE_USERS", "0", "--users")]
#[case::threshold("SPRINGTIDE_THRESHOLD", "job.p95", "--threshold")]
fn a_bad_environment_names_the_flag(#[case] name: &str, #[case] value: &str, #[case] flag: &str) {
    let ended = Run::bare().env(name, value).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&[flag, value]).leaves_only(&[]);
}

#[test]
fn more_users_than_open_files_are_refused_with_the_number_needed() {
    let ended = Run::bare().set("users", 500).open_files(200).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--users", "1256", "ulimit -n 1256"]).leaves_only(&[]);
}

/// Each case has a target that listens, and must leave it alone.
#[rstest]
#[case::no_account("", &["--host", "--username", "--register"])]
#[case::no_password("--username ann", &["--username ann", "SPRINGTIDE_PASSWORD"])]
#[case::no_password_file("--username ann --password-file nowhere", &["--password-file", "nowhere"])]
#[case::fault("--register --scenario S7", &["--scenario S7", "latency", "--tap", "--toxiproxy"])]
#[case::no_tap_there("--register --tap http://127.0.0.1:1", &["--tap", "http://127.0.0.1:1"])]
#[case::no_token_file("--register --tap http://127.0.0.1:1 --tap-token-file nowhere", &["--tap-token-file", "nowhere"])]
#[case::no_toxiproxy_there("--register --toxiproxy http://127.0.0.1:1 --toxiproxy-proxy x", &["--toxiproxy", "http://127.0.0.1:1"])]
#[case::no_proxy_named("--register --toxiproxy http://127.0.0.1:1", &["--toxiproxy-proxy"])]
#[case::input("--register --input nowhere.json", &["nowhere.json"])]
#[case::out("--register --out /proc", &["/proc"])]
fn the_target_is_left_alone(#[case] words: &str, #[case] names: &[&str]) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let scenario = if words.contains("--scenario") { "" } else { "--scenario S1" };
    let ended = Run::of(&format!("{scenario} {words}")).set("host", url).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(names).leaves_only(&[]);
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock, "somebody called");
}

#[test]
fn credentials_in_the_address_are_refused_and_not_repeated() {
    let run = Run::bare().set("host", "http://ann:hunter2@127.0.0.1:1").flag("register");
    let ended = run.within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&["--host", "--username", "SPRINGTIDE_PASSWORD"]).leaves_only(&[]);
    assert!(!ended.err.contains("hunter2"), "{}", ended.err);
}

#[test]
fn no_line_says_the_same_twice() {
    for words in [
        "--matrix nowhere",
        "--input nowhere",
        "--out /proc/x",
        "--host http://no.such.host.invalid --register",
    ] {
        let ended = Run::of(&format!("--scenario S1 {words}")).within(AT_ONCE).ends();
        let line = ended.leaves_with(2).err.trim();
        let last = line.rsplit(": ").next().unwrap();
        assert_eq!(line.matches(last).count(), 1, "{line}");
    }
}

#[rstest]
#[case("report nowhere", &["nowhere"])]
#[case("report", &["<DIR>"])]
#[case("backend --listen here", &["--listen", "here"])]
#[case("frobnicate", &["frobnicate"])]
fn other_commands_have_one_line_too(#[case] words: &str, #[case] names: &[&str]) {
    Run::of(words).within(AT_ONCE).ends().leaves_with(2).says_only(names).leaves_only(&[]);
}

#[test]
fn a_taken_address_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let ended = Run::of("backend").set("listen", &addr).within(AT_ONCE).ends();
    ended.leaves_with(2).says_only(&[&addr, "another port"]);
}
