//! The import table of DESIGN section 11: a module imports modules of its own group and of groups
//! above it, modules of one group never each other, and only one file knows Goose.
//!
//! To add a module, add it to `src/lib.rs` and to the same group here.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Every module, from the bottom up.
const TABLE: [(&str, &[&str]); 7] = [
    (
        "Words",
        &[
            "estimate",
            "fault",
            "histogram",
            "machine",
            "micros",
            "moment",
            "post",
            "route",
            "scenario",
            "series",
            "state",
            "threshold",
            "timeline",
            "trace",
        ],
    ),
    (
        "Sums",
        &[
            "agreement",
            "bootstrap",
            "crew",
            "finding",
            "injection",
            "judgement",
            "ledger",
            "merge_cost",
            "payload",
            "plan",
            "posts",
            "record",
            "relation",
            "repetitions",
            "resilience",
            "saturation",
            "snapshot",
            "summary",
            "telemetry",
            "verdict",
        ],
    ),
    ("Edges", &["live", "plane", "recorder", "sampling", "spans", "tap", "target", "toxiproxy"]),
    ("Load", &["attack", "driver", "loadtests"]),
    ("Engine", &["cluster"]),
    ("Paper", &["report"]),
    ("Hands", &["app", "cli", "main", "standin"]),
];

/// The only file that may know Goose.
const GOOSE: &str = "attack";

fn group_of(module: &str) -> Option<usize> {
    TABLE.iter().position(|(_, modules)| modules.contains(&module))
}

/// One file of the source, without comments, texts and tests.
struct Source {
    path: PathBuf,
    /// The module of the crate that it belongs to.
    module: String,
    /// How many folders below that module's root it stands: `super` must be said so often and once
    /// more to leave the module.
    depth: usize,
    code: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for (folder, module) in [("src", None), ("loadtests", Some("loadtests"))] {
        let folder = root.join(folder);
        for path in crate::support::files_below(&folder) {
            if path.extension().is_none_or(|e| e != "rs") {
                continue;
            }
            let inside = path.strip_prefix(&folder).unwrap().with_extension("");
            let mut parts: Vec<&str> = inside.iter().map(|p| p.to_str().unwrap()).collect();
            parts.splice(0..0, module);
            if parts.last() == Some(&"mod") {
                parts.pop();
            }
            let is_test = parts.contains(&"trial") || parts.contains(&"tests");
            if parts == ["lib"] || is_test {
                continue;
            }
            let code = code_of(&fs::read_to_string(&path).unwrap());
            all.push(Source { module: parts[0].to_owned(), depth: parts.len() - 1, path, code });
        }
    }
    all
}

/// The text without comments, string literals and what stands below `#[cfg(test)] mod tests {`.
fn code_of(text: &str) -> String {
    let tests = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..tests].lines().map(|line| match line.find("//") {
        // Not the // of a URL.
        Some(at) if !line[..at].ends_with(':') => &line[..at],
        _ => line,
    });
    let mut code = String::new();
    let mut in_text = false;
    for line in lines {
        let mut before = ' ';
        for c in line.chars() {
            if c == '"' && before != '\\' && before != '\'' {
                in_text = !in_text;
            } else if !in_text {
                code.push(c);
            }
            before = if before == '\\' { ' ' } else { c };
        }
        code.push('\n');
    }
    code
}

/// The first words of all paths that begin with `start`, such as `a` and `b` in `crate::{a::X, b}`.
fn first_words<'a>(code: &'a str, start: &str) -> BTreeSet<&'a str> {
    let word = |s: &'a str| {
        let s = s.trim_start();
        &s[..s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len())]
    };
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(start) {
        let is_whole = !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
        let rest = &code[at + start.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            if is_whole {
                found.insert(word(rest));
            }
            continue;
        };
        let (mut deep, mut from) = (0, 0);
        for (i, c) in list.char_indices() {
            match c {
                '{' => deep += 1,
                '}' if deep > 0 => deep -= 1,
                ',' | '}' if deep == 0 => {
                    found.insert(word(&list[from..i]));
                    from = i + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    found.retain(|w| !w.is_empty());
    found
}

/// Who imports whom, and an example of where.
fn imports() -> BTreeMap<(String, String), PathBuf> {
    let mut found = BTreeMap::new();
    for source in sources() {
        let up = "super::".repeat(source.depth + 1);
        let mut used = first_words(&source.code, "crate::");
        used.extend(first_words(&source.code, &up).into_iter().filter(|w| group_of(w).is_some()));
        if source.module == "main" {
            used.extend(first_words(&source.code, "springtide::"));
        }
        for other in used {
            if other != source.module {
                found.entry((source.module.clone(), other.to_owned())).or_insert(source.path.clone());
            }
        }
    }
    found
}

#[test]
fn every_module_stands_in_the_table_and_on_the_disk() {
    let on_disk: BTreeSet<String> = sources().into_iter().map(|s| s.module).collect();
    for module in &on_disk {
        assert!(group_of(module).is_some(), "{module} belongs to no group of the table");
    }
    for module in TABLE.iter().flat_map(|(_, modules)| *modules) {
        assert!(on_disk.contains(*module), "there is no {module}");
    }
}

#[test]
fn the_library_lists_its_modules_as_the_table_does() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).unwrap();
    let mut group = None;
    let mut listed = BTreeSet::new();
    for line in lib.lines() {
        if let Some(name) = line.strip_prefix("// ") {
            group = TABLE.iter().position(|(g, _)| *g == name.trim_end_matches('.'));
            assert!(group.is_some(), "src/lib.rs has a group {name:?} that the table has not");
        } else if let Some(module) = line.strip_prefix("pub mod ").and_then(|l| l.strip_suffix(';')) {
            assert_eq!(group_of(module), group, "{module} stands in another group in src/lib.rs");
            listed.insert(module.to_owned());
        }
    }
    let on_disk: BTreeSet<String> = sources().into_iter().map(|s| s.module).filter(|m| m != "main").collect();
    assert_eq!(listed, on_disk);
}

#[test]
fn no_module_imports_one_of_a_later_group() {
    let group = |m: &str, at: &Path| group_of(m).unwrap_or_else(|| panic!("{m}, named in {at:?}"));
    let wrong: Vec<String> = imports()
        .iter()
        .filter(|((from, to), at)| group(from, at) < group(to, at))
        .map(|((from, to), at)| format!("{from} imports {to}: {}", at.display()))
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn modules_of_a_group_do_not_import_each_other_in_a_circle() {
    let imports = imports();
    let within = |from: &str| {
        imports
            .keys()
            .filter(|(a, b)| a == from && group_of(a) == group_of(b))
            .map(|(_, b)| b.clone())
            .collect::<Vec<_>>()
    };
    for module in TABLE.iter().flat_map(|(_, modules)| *modules) {
        let (mut reached, mut next) = (BTreeSet::new(), within(module));
        while let Some(one) = next.pop() {
            assert!(one != *module, "{module} imports itself by way of {reached:?}");
            if reached.insert(one.clone()) {
                next.extend(within(&one));
            }
        }
    }
}

#[test]
fn only_one_file_knows_goose() {
    for source in sources() {
        let knows = source.code.contains("goose::") || source.code.contains("use goose");
        assert_eq!(knows, source.module == GOOSE, "{}", source.path.display());
    }
}

#[test]
fn the_scanner_sees_what_it_looks_for() {
    let code = code_of(
        "use crate::{a::{B, C},\n  d, };\n// crate::no\nlet x = \"crate::no\"; crate::e::f();\n#[cfg(test)]\nmod tests {\n use crate::no;",
    );
    assert_eq!(first_words(&code, "crate::"), ["a", "d", "e"].into());
    let found = imports();
    let has = |a: &str, b: &str| found.contains_key(&(a.to_owned(), b.to_owned()));
    assert!(
        has("app", "cluster") && has("loadtests", "recorder") && has("main", "cli") && has("cli", "standin")
    );
}
