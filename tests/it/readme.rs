//! README.md, the sample configuration and the Makefile are held against the program: commands
//! parse, and tables have exactly what the code has.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{ArgAction, CommandFactory};
use springtide::{
    cli::{self, Cli},
    report::Format,
    scenario::Matrix,
    timeline::{JobOutcome, Stage},
    verdict::{Exit, Rule},
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// Code blocks of README.md in that language.
fn blocks(language: &str) -> Vec<String> {
    let readme = text("README.md");
    let parts: Vec<&str> = readme.split("```").collect();
    assert!(parts.len() % 2 == 1, "a code block is not closed");
    let code = parts.into_iter().skip(1).step_by(2);
    code.filter_map(|b| b.strip_prefix(language)?.strip_prefix('\n').map(str::to_owned)).collect()
}

/// Command lines of the `sh` blocks.
fn commands() -> Vec<String> {
    let all = blocks("sh").join("\n").replace("\\\n", " ");
    all.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')).map(str::to_owned).collect()
}

/// Rows of the table whose header starts with these cells, without the code marks around cells.
fn table(header: &[&str]) -> Vec<Vec<String>> {
    let readme = text("README.md");
    let cells = |line: &str| -> Option<Vec<String>> {
        let inner = line.strip_prefix('|')?.strip_suffix('|')?;
        Some(inner.split('|').map(|c| c.trim().trim_matches('`').to_owned()).collect())
    };
    let mut lines = readme.lines().skip_while(|l| !cells(l).is_some_and(|c| c.starts_with(&owned(header))));
    assert!(lines.next().is_some(), "no table {header:?}");
    lines.map_while(cells).skip(1).collect()
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

fn column(rows: &[Vec<String>], n: usize) -> Vec<&str> {
    rows.iter().map(|r| r[n].as_str()).collect()
}

/// Splits a command line as a shell does, as far as quotes go.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (quote, c) {
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, ' ') => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(quote.is_none(), "{line}: a quote is not closed");
    words.extend(word);
    words
}

/// What springtide is called with, if the line calls it.
fn arguments(line: &str) -> Option<Vec<String>> {
    let mut words = words(line);
    words.drain(..words.iter().take_while(|w| w.starts_with("SPRINGTIDE_")).count());
    match words.first()?.as_str() {
        "springtide" | "./springtide" => Some(words.split_off(1)),
        "cargo" if words.get(1)? == "run" => {
            let own = words.iter().position(|w| w == "--")?;
            Some(words.split_off(own + 1))
        }
        _ => None,
    }
}

fn parse(args: Vec<String>, config: Option<&str>) -> Result<Cli, clap::Error> {
    let all = std::iter::once("springtide".to_owned()).chain(args);
    cli::parse(all.map(OsString::from), config)
}

fn run_command() -> clap::Command {
    Cli::command().find_subcommand("run").expect("run is a command").clone()
}

#[test]
fn every_command_can_be_typed() {
    let mut seen = 0;
    let matrices = [Matrix::runbook(), Matrix::load(&root().join("loadtests/smoke.toml")).unwrap()];
    for line in commands() {
        let Some(args) = arguments(&line) else {
            // Those of the plane are run in `deploy`.
            let others = ["make ", "deploy/plane/", "redis-server plane/", "for host in "];
            assert!(others.iter().any(|o| line.starts_with(o)), "{line}: nobody knows this command");
            continue;
        };
        seen += 1;
        let cli = match parse(args, None) {
            Ok(cli) => cli,
            Err(e) if !e.use_stderr() => continue,
            Err(e) => panic!("{line}: {e}"),
        };
        let run = match cli.command {
            None => cli.run,
            Some(cli::Command::Run(run)) => *run,
            Some(_) => continue,
        };
        for id in run.scenarios {
            assert!(matrices.iter().any(|m| m.get(&id).is_some()), "{line}: no scenario {id}");
        }
    }
    assert!(seen > 5, "{seen} commands");
}

#[test]
fn every_make_target_is_documented_and_every_one_named_is_there() {
    let makefile = text("Makefile");
    let documented: BTreeSet<&str> =
        makefile.lines().filter_map(|l| l.strip_prefix("## ")?.split_once(": ")).map(|(t, _)| t).collect();
    for target in ["help", "test", "check", "bench", "run", "clean"] {
        assert!(documented.contains(target), "{target}");
    }
    for target in &documented {
        assert!(makefile.lines().any(|l| l.starts_with(&format!("{target}:"))), "{target}");
    }
    let readme = text("README.md");
    for line in commands().iter().map(String::as_str).chain(readme.split('`')) {
        if let Some(target) = line.strip_prefix("make ") {
            assert!(documented.contains(target), "make {target}");
        }
    }
}

/// `-u, --users N`, as the table of flags has it.
fn spelled(arg: &clap::Arg) -> String {
    let short = arg.get_short().map_or(String::new(), |c| format!("-{c}, "));
    let value = match arg.get_value_names() {
        Some(names) if arg.get_action().takes_values() => format!(" {}", names[0]),
        _ => String::new(),
    };
    format!("{short}--{}{value}", arg.get_long().expect("every flag is long"))
}

/// The default of a flag, or what its help says the default is.
fn default(arg: &clap::Arg) -> String {
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return "off".into();
    }
    if let Some(value) = arg.get_default_values().first() {
        return value.to_string_lossy().into_owned();
    }
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let said = help.split_once("[default: ").and_then(|(_, rest)| rest.split_once(']'));
    said.map_or("none".into(), |(default, _)| default.into())
}

#[test]
fn the_flags_are_those_of_run() {
    let run = run_command();
    let flags: Vec<(String, String)> = run.get_arguments().map(|a| (spelled(a), default(a))).collect();
    let rows = table(&["flag", "default"]);
    let told: Vec<(String, String)> = rows.into_iter().map(|r| (r[0].clone(), r[1].clone())).collect();
    assert_eq!(told, flags);
    for arg in run.get_arguments() {
        let twin = format!("SPRINGTIDE_{}", arg.get_long().unwrap().replace('-', "_").to_uppercase());
        assert_eq!(arg.get_env().unwrap().to_string_lossy(), twin);
    }
}

#[test]
fn matrix_has_the_flags_of_run_and_some_of_its_own() {
    let matrix = Cli::command().find_subcommand("matrix").expect("matrix is a command").clone();
    let of_run: Vec<String> = run_command().get_arguments().skip(1).map(spelled).collect();
    let (own, common): (Vec<_>, Vec<_>) = matrix
        .get_arguments()
        .map(|a| (spelled(a), default(a)))
        .partition(|(flag, _)| !of_run.contains(flag));
    assert_eq!(common.into_iter().map(|(flag, _)| flag).collect::<Vec<_>>(), of_run);
    let told = table(&["matrix flag"]).into_iter().map(|r| (r[0].clone(), r[1].clone()));
    assert_eq!(told.collect::<Vec<_>>(), own);
}

#[test]
fn the_flags_of_the_tap_are_those_of_tap() {
    let tap = Cli::command().find_subcommand("tap").expect("tap is a command").clone();
    let flags: Vec<Vec<String>> = tap.get_arguments().map(|a| vec![spelled(a), default(a)]).collect();
    let told: Vec<Vec<String>> = table(&["tap flag"]).into_iter().map(|r| r[..2].to_vec()).collect();
    assert_eq!(told, flags);
}

#[test]
fn a_manager_has_the_flags_of_matrix_and_some_of_its_own_and_a_worker_has_others() {
    let of = |name: &str| -> Vec<Vec<String>> {
        let command = Cli::command().find_subcommand(name).expect("it is a command").clone();
        command.get_arguments().map(|a| vec![spelled(a), default(a)]).collect()
    };
    let told =
        |head: &str| -> Vec<Vec<String>> { table(&[head]).into_iter().map(|r| r[..2].to_vec()).collect() };
    let of_matrix = of("matrix");
    let (common, own): (Vec<_>, Vec<_>) = of("manager").into_iter().partition(|f| of_matrix.contains(f));
    assert_eq!(common, of_matrix);
    assert_eq!(told("manager flag"), own);
    assert_eq!(told("worker flag"), of("worker"));
}

#[test]
fn no_flag_is_made_up() {
    let mut known: BTreeSet<String> = ["release", "path", "help", "version"].map(str::to_owned).into();
    for command in Cli::command().get_subcommands() {
        known.extend(command.get_arguments().filter_map(|a| a.get_long()).map(str::to_owned));
    }
    for file in ["README.md", "CHANGELOG.md", "reports/README.md", "springtide.example.toml"] {
        for word in text(file).split(|c: char| !(c.is_ascii_alphanumeric() || c == '-')) {
            if let Some(flag) =
                word.strip_prefix("--").filter(|f| f.starts_with(|c: char| c.is_ascii_lowercase()))
            {
                assert!(known.contains(flag), "{file}: --{flag}");
            }
        }
    }
}

#[test]
fn the_exit_codes_are_those_of_the_program() {
    // A variant that is missing in the list below is missed here by the compiler.
    let name = |exit: Exit| match exit {
        Exit::Pass => "pass",
        Exit::Failed => "failed",
        Exit::Usage => "usage",
        Exit::Threshold => "threshold",
        Exit::Regression => "regression",
        Exit::Invalid => "invalid",
        Exit::Interrupted => "interrupted",
        Exit::Terminated => "terminated",
    };
    let all = [
        Exit::Pass,
        Exit::Failed,
        Exit::Usage,
        Exit::Threshold,
        Exit::Regression,
        Exit::Invalid,
        Exit::Interrupted,
        Exit::Terminated,
    ];
    let told: Vec<Vec<String>> = table(&["code", "name"]).into_iter().map(|r| r[..2].to_vec()).collect();
    assert_eq!(told, all.map(|e| vec![e.code().to_string(), name(e).to_owned()]));
}

#[test]
fn the_rules_stages_and_outcomes_are_those_of_the_program() {
    // As above.
    let place = |rule: Rule| match rule {
        Rule::LedgerAddsUp => 0,
        Rule::Reconciled => 1,
        Rule::Quiet => 2,
        Rule::SchedulingLag => 3,
        Rule::GeneratorCpu => 4,
        Rule::LittlesLaw => 5,
        Rule::FramesComplete => 6,
        Rule::StartTogether => 7,
        Rule::TargetReached => 8,
        Rule::Idle => 9,
        Rule::TapComplete => 10,
        Rule::FaultProven => 11,
        Rule::JobsFetched => 12,
        Rule::ResultsAgree => 13,
        Rule::Threshold => 14,
        Rule::RunComplete => 15,
    };
    let rules = [
        Rule::LedgerAddsUp,
        Rule::Reconciled,
        Rule::Quiet,
        Rule::SchedulingLag,
        Rule::GeneratorCpu,
        Rule::LittlesLaw,
        Rule::FramesComplete,
        Rule::StartTogether,
        Rule::TargetReached,
        Rule::Idle,
        Rule::TapComplete,
        Rule::FaultProven,
        Rule::JobsFetched,
        Rule::ResultsAgree,
        Rule::Threshold,
        Rule::RunComplete,
    ];
    assert!(rules.into_iter().enumerate().all(|(i, r)| place(r) == i));
    let rows = table(&["rule", "when broken"]);
    assert_eq!(column(&rows, 0), rules.map(Rule::as_str));
    assert!(column(&rows, 1).iter().all(|v| ["FAIL", "INVALID"].contains(v)));
    let rows = table(&["stage", "from"]);
    assert_eq!(column(&rows, 0), Stage::ALL.map(Stage::as_str));
    let source = |s: Stage| match (Stage::TAP.contains(&s), s.is_polled()) {
        (true, true) => "tap, poll",
        (true, false) => "tap",
        (false, true) => "poll",
        (false, false) => "client",
    };
    assert_eq!(column(&rows, 3), Stage::ALL.map(source));
    assert_eq!(column(&table(&["outcome", "meaning"]), 0), JobOutcome::KINDS);
}

#[test]
fn the_scenarios_are_those_of_the_runbook() {
    let rows: Vec<Vec<String>> = Matrix::runbook()
        .scenarios
        .iter()
        .map(|s| {
            let numbers = [s.concurrent_jobs, s.tasks, s.repetitions].map(|n| n.to_string());
            let [jobs, tasks, repetitions] = numbers;
            vec![s.id.to_string(), jobs, tasks, s.fault.to_string(), repetitions]
        })
        .collect();
    assert_eq!(table(&["id", "concurrent jobs"]), rows);
}

#[test]
fn the_files_of_a_run_are_those_that_are_written() {
    let rows = table(&["file"]);
    let mut told: Vec<PathBuf> = column(&rows, 0).into_iter().map(PathBuf::from).collect();
    let mut written: Vec<PathBuf> = Format::ALL.into_iter().map(|f| f.path("S6")).collect();
    written.push(springtide::record::FILE.into());
    told.sort();
    written.sort();
    assert_eq!(told, written);
}

#[test]
fn the_map_names_every_module_in_order() {
    let lib = text("src/lib.rs");
    let modules: Vec<&str> = lib
        .lines()
        .filter_map(|l| l.strip_prefix("pub mod ").or_else(|| l.strip_prefix("mod "))?.strip_suffix(';'))
        .collect();
    assert_eq!(column(&table(&["module"]), 0), modules);
}

#[test]
fn every_file_that_is_named_is_there() {
    for file in ["README.md", "CHANGELOG.md", "reports/README.md", "springtide.example.toml", "Makefile"] {
        let text = text(file);
        let paths = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_-./<>".contains(c)));
        let ours = ["loadtests/", "fixtures/", "src/", "tests/"];
        for path in paths.map(|p| p.trim_end_matches('.')) {
            if ours.iter().any(|folder| path.starts_with(folder)) && !path.contains('<') {
                assert!(root().join(path).exists(), "{file}: {path}");
            }
        }
    }
}

#[test]
fn toml_examples_are_read() {
    let examples = blocks("toml");
    assert!(!examples.is_empty());
    for example in examples {
        Matrix::parse(&example, "README.md").unwrap();
    }
}

#[test]
fn the_sample_configuration_has_every_flag() {
    let sample = text("springtide.example.toml");
    let scenario = parse(Vec::new(), Some(&sample)).unwrap().run.scenarios;
    assert_eq!(scenario, ["S6"]);
    // `#key = value` is a setting, `# text` is a comment.
    let every: String = sample
        .lines()
        .map(|l| match l.strip_prefix('#') {
            Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => format!("{setting}\n"),
            _ => format!("{l}\n"),
        })
        .collect();
    parse(Vec::new(), Some(&every)).unwrap();
    let set: toml::Table = toml::from_str(&every).unwrap();
    let keys: BTreeSet<&str> = set.keys().map(String::as_str).collect();
    let run = run_command();
    let flags: BTreeSet<&str> = run.get_arguments().filter_map(|a| a.get_long()).collect();
    assert_eq!(keys, flags);
    // Where there is a default, the sample shows it.
    let defaults: BTreeMap<&str, String> = run
        .get_arguments()
        .filter(|a| !a.get_default_values().is_empty())
        .map(|a| (a.get_long().unwrap(), default(a)))
        .collect();
    for (key, default) in defaults.into_iter().filter(|(_, d)| d != "off") {
        let shown = set[key].as_str().map_or_else(|| set[key].to_string(), str::to_owned);
        assert_eq!(shown, default, "{key}");
    }
}

#[test]
fn ci_runs_make_test_and_nothing_else() {
    use std::os::unix::fs::PermissionsExt;
    let script = text(".ci/run");
    let made: Vec<&str> = script.lines().filter(|l| l.trim_start().starts_with("make ")).collect();
    assert_eq!(made, ["make test"]);
    let mode = fs::metadata(root().join(".ci/run")).unwrap().permissions().mode();
    assert!(mode & 0o111 == 0o111, "{mode:o}");
}
