//! The files that probes left, and the profiles among them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::FOLDER;
use crate::telemetry::probe::{ProbeRun, Profile};

/// Files of one cell that are listed.
const MOST: usize = 200;
/// Folders within folders that are looked into.
const DEEP: usize = 3;
/// Profiles larger than this are not read.
const LARGEST: u64 = 32_000_000;

/// Gives each file in the cell's folder to the probe that wrote it, and reads those that are
/// profiles. A folder that stayed empty is removed.
pub(super) fn gather(dir: &Path, runs: &mut [ProbeRun]) {
    let mut found = Vec::new();
    below(dir, DEEP, &mut found);
    found.sort();
    if found.is_empty() {
        let _ = fs::remove_dir(dir);
    }
    let is_more = found.len() > MOST;
    found.truncate(MOST);
    for path in found {
        let Some(run) = owner(&path, dir, runs).and_then(|i| runs.get_mut(i)) else { continue };
        let inside = path.strip_prefix(dir).unwrap_or(&path);
        let folder = dir.file_name().unwrap_or_default();
        let file = Path::new(FOLDER).join(folder).join(inside).to_string_lossy().into_owned();
        match fs::metadata(&path) {
            Ok(facts) if facts.len() > LARGEST => {
                run.notes.push(format!("{file} is larger than {} MB and was not read", LARGEST / 1_000_000));
            }
            _ => match fs::read(&path) {
                Ok(bytes) => run.profiles.extend(Profile::read(&file, &bytes)),
                Err(e) => run.notes.push(format!("{file} could not be read: {e}")),
            },
        }
        run.files.push(file);
    }
    if let (true, Some(run)) = (is_more, runs.first_mut()) {
        run.notes.push(format!("there are more than {MOST} files; the rest is not listed"));
    }
}

/// Everything that is a file, some folders deep; links are not followed.
fn below(dir: &Path, deep: usize, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            Ok(kind) if kind.is_dir() && deep > 0 && found.len() <= MOST => {
                below(&entry.path(), deep - 1, found);
            }
            _ => {}
        }
    }
}

/// Whose a file is: whose command names it, or whose name it begins with, or else the first one's.
fn owner(path: &Path, dir: &Path, runs: &[ProbeRun]) -> Option<usize> {
    let whole = path.to_string_lossy();
    let named = runs.iter().position(|run| run.command.iter().any(|word| word.contains(&*whole)));
    let inside = path.strip_prefix(dir).unwrap_or(path).to_string_lossy().into_owned();
    let begins = |run: &ProbeRun| {
        let rest = inside.strip_prefix(&run.name)?;
        rest.starts_with(['.', '-', '_', '/']).then_some(run.name.len())
    };
    let by_name = || {
        let all = runs.iter().enumerate().filter_map(|(i, run)| Some((begins(run)?, i)));
        all.max().map(|(_, i)| i)
    };
    named.or_else(by_name).or_else(|| (!runs.is_empty()).then_some(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(name: &str, command: &[String]) -> ProbeRun {
        ProbeRun { name: name.into(), command: command.to_vec(), ..ProbeRun::default() }
    }

    #[test]
    fn every_file_has_its_probe_and_profiles_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join(FOLDER).join("S4-r03");
        fs::create_dir_all(dir.join("sub")).unwrap();
        let stacks = dir.join("out.txt");
        fs::write(&stacks, "a (x.py:1);b (x.py:2) 7\n").unwrap();
        fs::write(dir.join("mem-1.bin"), [0, 159, 146, 150]).unwrap();
        fs::write(dir.join("mem.stdout"), "hello\n").unwrap();
        fs::write(dir.join("sub/left.over"), "?").unwrap();
        let mut runs = [
            run("mem", &["memray".into()]),
            run("spy", &["py-spy".into(), format!("--output={}", stacks.display())]),
        ];
        gather(&dir, &mut runs);
        let files =
            |i: usize| runs[i].files.iter().map(|f| f.rsplit_once("S4-r03/").unwrap().1).collect::<Vec<_>>();
        assert_eq!(files(0), ["mem-1.bin", "mem.stdout", "sub/left.over"]);
        assert_eq!(files(1), ["out.txt"]);
        assert_eq!(runs[1].files[0], "merge-profiles/S4-r03/out.txt");
        assert_eq!((runs[0].profiles.len(), runs[1].profiles[0].total), (0, 7));
        assert_eq!(runs[1].profiles[0].file, runs[1].files[0]);
    }

    #[test]
    fn an_empty_folder_goes() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("S1-r01");
        fs::create_dir(&dir).unwrap();
        gather(&dir, &mut [run("a", &[])]);
        assert!(!dir.exists());
    }
}
