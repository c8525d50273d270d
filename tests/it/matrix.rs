//! The matrix files and the fixtures, held against the disk in both directions.

use std::{
    fs,
    path::{Path, PathBuf},
};

use springtide::{
    loadtests::input::Input,
    plan::{Plan, Share},
    scenario::{Matrix, RUNBOOK},
};

fn below(folder: &str, ending: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let mut found: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == ending))
        .collect();
    found.sort();
    assert!(!found.is_empty(), "no .{ending} in {}", folder.display());
    found
}

#[test]
fn every_matrix_file_parses() {
    for path in below("loadtests", "toml") {
        let matrix = Matrix::load(&path).unwrap();
        assert!(!matrix.scenarios.is_empty(), "{}", path.display());
    }
}

#[test]
fn the_built_in_matrix_is_the_runbooks() {
    let matrix = Matrix::runbook();
    let on_disk = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtests/matrix.toml");
    assert_eq!(fs::read_to_string(on_disk).unwrap(), RUNBOOK);
    assert_eq!(matrix.ids(), "S1, S2, S3, S4, S5, S6, S7, S8");
    assert!(matrix.scenarios.iter().all(|s| s.repetitions == 10));
}

#[test]
fn every_matrix_file_has_the_scenarios_of_the_runbook_with_their_faults() {
    let runbook = Matrix::runbook();
    for path in below("loadtests", "toml") {
        for s in Matrix::load(&path).unwrap().scenarios {
            let of_runbook = runbook.get(s.id.as_str()).unwrap_or_else(|| panic!("{} in {path:?}", s.id));
            assert_eq!((s.concurrent_jobs, s.fault), (of_runbook.concurrent_jobs, of_runbook.fault));
        }
    }
}

#[test]
fn every_payload_can_be_submitted() {
    for path in below("fixtures/submit", "json") {
        let input = Input::load(&path).unwrap();
        let body: serde_json::Value = serde_json::from_slice(&input.body(8, "a title")).unwrap();
        assert_eq!((body["ntasks"].as_u64(), body["title"].as_str()), (Some(8), Some("a title")));
        assert_eq!(input.facts.bytes, fs::metadata(&path).unwrap().len());
    }
}

#[test]
fn the_built_in_payload_is_one_of_them() {
    let built_in = Input::built_in().facts.sha256;
    let on_disk = below("fixtures/submit", "json");
    assert!(on_disk.iter().any(|p| Input::load(p).unwrap().facts.sha256 == built_in));
}

#[test]
fn every_fixture_is_told_of_in_the_readme() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    for file in crate::support::files_below(&root) {
        let name = file.file_name().unwrap().to_str().unwrap();
        let all_like_it = format!(
            "{}/*.{}",
            file.parent().unwrap().file_name().unwrap().to_str().unwrap(),
            file.extension().unwrap().to_str().unwrap()
        );
        let told = name == "README.md" || readme.contains(name) || readme.contains(&all_like_it);
        assert!(told, "fixtures/README.md says nothing of {}", file.display());
    }
}

#[test]
fn every_scenario_plans_for_any_number_of_workers() {
    for path in below("loadtests", "toml") {
        for scenario in Matrix::load(&path).unwrap().scenarios {
            let cells = Plan::cells(1, std::slice::from_ref(&scenario), true);
            assert_eq!(cells.len() as u32, scenario.repetitions + 1, "a warm-up and the repetitions");
            for (cell, workers) in cells.iter().flat_map(|c| [1, 3, 7].map(|n| (c, n))) {
                let shares: Vec<Share> = (0..workers).map(|w| Share::of(cell, w, workers)).collect();
                let mut next = 0;
                for share in &shares {
                    assert_eq!(share.first_user, next, "{shares:?}");
                    next += share.users;
                }
                assert_eq!(next, cell.users, "{} on {workers} workers", scenario.id);
            }
        }
    }
}
