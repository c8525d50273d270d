//! The page of a whole matrix: its size, and how a real Chromium takes it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use super::{Paper, html, markdown, sample, terminal};
use crate::{micros::Micros, record::RunRecord};

/// The whole runbook: eighty cells, each a minute long.
fn eighty_cells() -> RunRecord {
    let mut run = sample::matrix(10);
    let begin = run.cells[0].t0_unix;
    for (cell, n) in run.cells.iter_mut().zip(0..) {
        cell.t0_unix = begin + n * 65_000_000;
        cell.duration = Micros(58_000_000);
    }
    run
}

/// Its page, with ten figures beside each cell, looked at once a second. Leaves it where
/// `SPRINGTIDE_TEST_REPORT` says, for eyes.
fn page() -> String {
    let run = eighty_cells();
    let mut paper = Paper::of(&run);
    assert!(paper.lines.len() > 80);
    paper.lines.iter_mut().for_each(|(cell, lines)| *lines = sample::sampled::lines(cell, 60));
    let html = html::page(&paper);
    if let Some(folder) = std::env::var_os("SPRINGTIDE_TEST_REPORT").map(PathBuf::from) {
        fs::write(folder.join("eighty.html"), &html).unwrap();
        fs::write(folder.join("eighty.md"), markdown::summary(&paper)).unwrap();
        fs::write(folder.join("eighty.txt"), terminal::table(&paper)).unwrap();
    }
    html
}

/// Loads a page and returns what the script put into its title; `None` when Chromium did not get
/// that far in time.
fn title(folder: &Path, file: &Path, width: u32) -> Option<String> {
    let out = fs::File::create(folder.join("dom.html")).unwrap();
    let mut browser = Command::new("chromium")
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--dump-dom"])
        .arg(format!("--window-size={width},900"))
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .arg(format!("file://{}", file.display()))
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(40);
    while browser.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            browser.kill().unwrap();
            browser.wait().unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let dom = fs::read_to_string(folder.join("dom.html")).unwrap();
    let title = dom.split("<title>").nth(1)?.split("</title>").next()?;
    title.strip_prefix("measured ").map(str::to_owned)
}

#[test]
fn the_page_of_eighty_cells_is_small_and_opens_quickly() {
    let html = page();
    assert!(html.len() < 6_000_000, "{} bytes", html.len());
    assert_eq!(html.matches("class=\"course\"").count(), 10);
    if Command::new("chromium").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err()
    {
        eprintln!("there is no chromium: the page was not opened");
        return;
    }
    // The page has no script of its own; this one reads the clock when it was laid out, which
    // asking for its size enforces.
    let script = "<script>addEventListener('load',()=>{const e=document.documentElement;const w=e.scrollWidth,h=e.scrollHeight;const t=performance.now();scrollTo(0,h/2);const top=document.querySelector('.ways').getBoundingClientRect().top;document.title=`measured ${t} ${w} ${innerWidth} ${top}`})</script>";
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.html");
    fs::write(&file, html.replace("</body>", &format!("{script}</body>"))).unwrap();
    // The best of a few: a busy machine is not the page's fault.
    let mut best = f64::MAX;
    for width in [1280, 500, 1280, 500] {
        let Some(title) = title(folder.path(), &file, width) else { continue };
        let said: Vec<f64> = title.split(' ').map(|n| n.parse().unwrap()).collect();
        assert!(said[1] <= said[2], "{width} px: {title}: the page is wider than its window");
        assert!(said[3].abs() < 1.0, "{width} px: {title}: the list of scenarios does not stay in sight");
        best = best.min(said[0]);
        if width == 500 {
            break;
        }
    }
    println!("laid out after {best:.0} ms, {} bytes", html.len());
    // How quickly depends on the machine: two seconds is what it takes at most when nothing else runs.
    assert!(best < f64::MAX, "it did not open");
}
