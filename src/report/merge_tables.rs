//! The tables on merging: what it cost the watched processes, and where profilers saw that cost.

use std::collections::BTreeMap;

use crate::{
    fault::FaultMode,
    merge_cost::{self, MergeCost},
    record::CellRecord,
    report::{
        Paper,
        figure::{self, NONE, TOO_SMALL_MEANS, said},
        table::{Table, code, name, num},
        tables::untrusted_note,
    },
    summary::ScenarioSummary,
    telemetry::{
        probe::{ProbeRun, Profile, ProfileKind},
        process::Used,
    },
    timeline::Stage,
};

/// Places that are listed of each profile.
pub(crate) const PLACES: usize = 10;
/// Files that are named of each profile.
const FILES: usize = 3;

/// Scenarios without a fault, by tasks and then by jobs: what merging is compared over.
pub(crate) fn without_fault<'a>(paper: &'a Paper<'_>) -> Vec<&'a ScenarioSummary> {
    let mut all: Vec<&ScenarioSummary> =
        paper.scenarios.iter().filter(|s| s.scenario.fault == FaultMode::None).collect();
    all.sort_by_key(|s| (s.scenario.tasks, s.scenario.concurrent_jobs));
    all
}

/// `420 ms (380 ms … 510 ms)`; without its bounds where they are one.
fn used(used: Option<Used>) -> String {
    used.map_or_else(
        || NONE.into(),
        |u| match u.least == u.most {
            true => u.about.to_string(),
            false => format!("{} ({} … {})", u.about, u.least, u.most),
        },
    )
}

fn signed_bytes(n: i64) -> String {
    let sign = match n {
        0 => "",
        1.. => "+",
        _ => "−",
    };
    format!("{sign}{}", figure::bytes(n.unsigned_abs()))
}

/// Each number of tasks and each watched process, a row each; `None` when none was watched.
pub(crate) fn costs(paper: &Paper<'_>) -> Option<Table> {
    let mut t = Table::new(
        "Merge: wall time, and what it cost the watched processes",
        &[
            "tasks",
            "scenario",
            "process",
            "cells",
            "merges",
            "wall n",
            "wall p50",
            "wall p95",
            "CPU per merge",
            "peak memory",
            "at most",
            "growth p50",
            "growth max",
            "seen by",
            "looks apart",
        ],
    );
    let (mut missing, mut looking, mut untrusted) = (Vec::new(), (0, 0), Vec::new());
    let mut is_crowded = false;
    for s in without_fault(paper) {
        let wall = s.best(Stage::Merge).map(|stage| &stage.sample);
        let quantile = |q: f64| said(wall.and_then(|sample| sample.quantile(q)));
        for cost in merge_cost::of_scenario(paper.run, s) {
            is_crowded |= s.scenario.concurrent_jobs > 1;
            untrusted.extend(s.untrusted.then(|| s.name()));
            looking = (looking.0 + cost.looking.0.0, looking.1 + cost.looking.1.0);
            t.row(vec![
                num(s.scenario.tasks),
                name(format!("{} ({} × {})", s.name(), s.scenario.concurrent_jobs, s.scenario.tasks)),
                code(cost.process.as_str()),
                num(cells(&cost)),
                num(cost.merges),
                num(wall.map_or(0, |sample| sample.count())),
                num(quantile(0.5)),
                num(quantile(0.95)),
                num(used(cost.cpu_per_merge())),
                num(cost.memory.map_or_else(|| NONE.into(), |m| figure::bytes(m.peak))),
                num(cost.memory.map_or_else(|| NONE.into(), |m| figure::bytes(m.ceiling))),
                num(cost.median_growth().map_or_else(|| NONE.into(), signed_bytes)),
                num(cost.growth.last().copied().map_or_else(|| NONE.into(), signed_bytes)),
                if cost.with_cpu > 0 { cost.clock.as_str() } else { NONE }.into(),
                num(cost.resolution.map_or_else(|| NONE.into(), |m| m.to_string())),
            ]);
            missing.extend(cost.missing);
        }
    }
    if t.is_empty() {
        return None;
    }
    t.note("Cells without a fault. Wall: the stage merge, from its best source. CPU per merge: CPU time of the process and its descendants while at least one job merged, divided by the merges; in brackets its bounds: looks are apart, and the ends of a merge are known only so well. The kernel counts in steps of mostly 10 ms a process. Peak memory: resident bytes of all of them together, the most that any look saw while a job merged or next to it; memory that processes share counts once each. At most: the kernel's own peaks (VmHWM) of each of them added up, since their start: it cannot have been more. Growth: memory at the end of the cell less that at T0.");
    t.note("Seen by tap: merges from MERGING_QUEUED to the post of the results, on the tap's clock held against ours. Seen by poll: merges lie somewhere between two polls; what runs just before and after a merge is within the upper bounds. Looks apart: the longest pause between two looks, gaps left out; what is shorter may not show.");
    if is_crowded {
        t.note("Where several jobs run at once, the tasks of one run while another merges: the process's CPU time and memory then hold both. Compare tasks by the scenarios of one job.");
    }
    if looking.1 > 0 {
        let share = looking.0 as f64 / looking.1 as f64;
        t.note(format!("Looking itself took {} of a core.", figure::percent(share)));
    }
    if !untrusted.is_empty() {
        untrusted.dedup();
        t.note(untrusted_note(&untrusted.join(", ")));
    }
    if let Some(first) = missing.first() {
        t.note(format!("Without figures: {} cells, such as {first}.", missing.len()));
    }
    t.note(TOO_SMALL_MEANS);
    Some(t)
}

fn cells(cost: &MergeCost) -> String {
    let with = cost.with_cpu.min(cost.with_memory);
    if with == cost.cells { with.to_string() } else { format!("{with} of {}", cost.cells) }
}

/// The profiles that one probe took in one scenario, added up.
pub(crate) struct Profiled {
    /// Tasks of each job.
    pub(crate) tasks: u32,
    /// What the scenario is called.
    pub(crate) scenario: String,
    /// Which probe.
    pub(crate) probe: String,
    /// Everything counted.
    pub(crate) sum: Profile,
    /// The files that it comes from.
    pub(crate) files: Vec<String>,
}

/// Every probe's profiles, of the cells that count; by tasks, those of time first.
pub(crate) fn profiled(paper: &Paper<'_>) -> Vec<Profiled> {
    let mut all = Vec::new();
    for s in without_fault(paper) {
        let mut of: BTreeMap<(ProfileKind, &str), Vec<&Profile>> = BTreeMap::new();
        for run in s.counting(paper.run).iter().flat_map(|c| &c.telemetry.probes) {
            for profile in &run.profiles {
                of.entry((profile.kind, &run.name)).or_default().push(profile);
            }
        }
        all.extend(of.into_iter().map(|((kind, probe), profiles)| Profiled {
            tasks: s.scenario.tasks,
            scenario: s.name(),
            probe: probe.to_owned(),
            files: profiles.iter().map(|p| p.file.clone()).collect(),
            sum: Profile::sum(kind, profiles),
        }));
    }
    all
}

fn hotspots(of: &Profiled) -> Table {
    let Profiled { tasks, scenario, probe, sum, files } = of;
    let what = match sum.kind {
        ProfileKind::Stacks => format!("where time went, {} looks at what runs", sum.total),
        ProfileKind::Allocations => format!("what allocated memory, {} in all", figure::bytes(sum.total)),
    };
    let title = format!("{scenario} ({tasks} tasks), probe {probe}: {what}");
    let mut t = match sum.kind {
        ProfileKind::Stacks => {
            Table::new(title, &["#", "function and file", "looks", "share", "so far", "with what it calls"])
        }
        ProfileKind::Allocations => {
            Table::new(title, &["#", "function and file", "bytes", "share", "so far"])
        }
    };
    for (i, (hotspot, share, so_far)) in sum.first(PLACES).into_iter().enumerate() {
        let count = match sum.kind {
            ProfileKind::Stacks => hotspot.own.to_string(),
            ProfileKind::Allocations => figure::bytes(hotspot.own),
        };
        let mut row = vec![
            num(i + 1),
            code(hotspot.place.as_str()),
            num(count),
            num(figure::percent(share)),
            num(figure::percent(so_far)),
        ];
        if sum.kind == ProfileKind::Stacks {
            let total = hotspot.total.map(|n| n as f64 / sum.total.max(1) as f64);
            row.push(num(total.map_or_else(|| NONE.into(), figure::percent)));
        }
        t.row(row);
    }
    let widest = sum.widest(5);
    if !widest.is_empty() {
        let said: Vec<String> =
            widest.iter().map(|(h, share)| format!("{} {}", h.place, figure::percent(*share))).collect();
        t.note(format!("With what they call, most looks: {}.", said.join("; ")));
    }
    let more = match files.len().saturating_sub(FILES) {
        0 => String::new(),
        n => format!(" and {n} more"),
    };
    t.note(format!("From {}{more}.", files[..files.len().min(FILES)].join(", ")));
    if sum.unreadable > 0 {
        t.note(format!("{} lines of these files made no sense and were left out.", sum.unreadable));
    }
    t
}

/// The probes of the run and what came of them; `None` when there were none.
pub(crate) fn probes(paper: &Paper<'_>) -> Option<Table> {
    let mut t = Table::new(
        "Probes: commands that ran beside the cells",
        &["probe", "scenario", "runs", "went well", "files", "problem or note, with its first cell"],
    );
    for scenario in &paper.run.plan.scenarios {
        let mut of: BTreeMap<&str, Vec<(&CellRecord, &ProbeRun)>> = BTreeMap::new();
        for cell in paper.run.measured().filter(|c| c.cell.scenario == scenario.id) {
            for run in &cell.telemetry.probes {
                of.entry(&run.name).or_default().push((cell, run));
            }
        }
        for (probe, runs) in of {
            let well = runs.iter().filter(|(_, run)| run.problem.is_none()).count();
            let files: usize = runs.iter().map(|(_, run)| run.files.len()).sum();
            let said = |(cell, run): &(&CellRecord, &ProbeRun)| {
                let what = run.problem.as_ref().or(run.notes.first())?;
                Some(format!("#{}: {what}", cell.cell.repetition))
            };
            let broken = runs.iter().find(|(_, run)| run.problem.is_some());
            let example = broken.or(runs.iter().find(|(_, run)| !run.notes.is_empty())).and_then(said);
            t.row(vec![
                code(probe),
                scenario.id.to_string().into(),
                num(runs.len()),
                num(format!("{well} of {}", runs.len())),
                num(files),
                example.unwrap_or_else(|| NONE.into()).into(),
            ]);
        }
    }
    if t.is_empty() {
        return None;
    }
    for probe in &paper.run.plan.probes {
        let (name, window) = (&probe.name, probe.window);
        t.note(format!("{name}: {} for {window} at most.", probe.command.join(" ")));
    }
    t.note("Profilers cost the process that they look at: figures of cells with a probe are not those of cells without one.");
    Some(t)
}

/// Everything on merging; nothing when no process was watched and no probe ran.
pub(crate) fn all(paper: &Paper<'_>) -> Vec<Table> {
    let mut tables: Vec<Table> = costs(paper).into_iter().collect();
    tables.extend(profiled(paper).iter().map(hotspots));
    tables.extend(probes(paper));
    tables
}

/// The first of it, for the terminal: costs in few columns, and the hottest place of each profile.
pub(crate) fn brief(paper: &Paper<'_>) -> Option<String> {
    let wide =
        ["scenario", "cells", "wall n", "growth p50", "growth max", "seen by", "looks apart", "at most"];
    let mut text = costs(paper).map_or_else(String::new, |t| wide.into_iter().fold(t, Table::without).text());
    for of in profiled(paper) {
        if let Some((hotspot, share, _)) = of.sum.first(1).first() {
            let place = crate::report::table::one_line(&hotspot.place);
            let share = figure::percent(*share);
            text.push_str(&format!("  {} {}: {share} in {place}\n", of.scenario, of.probe));
        }
    }
    let broken =
        paper.run.measured().flat_map(|c| &c.telemetry.probes).filter(|r| r.problem.is_some()).count();
    if broken > 0 {
        text.push_str(&format!("  {broken} runs of probes had a problem: see the report\n"));
    }
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        micros::Micros,
        moment::Moment,
        record::RunRecord,
        report::{html, json, markdown, sample, terminal},
        telemetry::process::{ProcessSample, ProcessSeries},
        verdict::Exit,
    };

    const EVIL: &str = "<script>alert(1)</script>|`";

    /// One job of 4 and of 32 tasks, a process that was watched, and a probe that profiled it and
    /// failed once.
    fn profiled_run() -> RunRecord {
        let mut run = sample::run(&[("S4", 1, 32, 3), ("S1", 1, 4, 3)], 1, |_, _| sample::Fate::Fetched);
        for cell in &mut run.cells {
            let looks = cell.duration.0 as i64 / 100_000 + 3;
            let samples = (0..looks).map(|i| ProcessSample {
                at: Moment((i - 1) * 100_000),
                cpu: Micros(i as u64 * 50_000),
                rss: 50_000_000 + i as u64 * 1_000,
                peak_rss: 90_000_000,
                processes: 3,
            });
            let series =
                ProcessSeries { samples: samples.collect(), cost: Micros(1_000), ..ProcessSeries::default() };
            cell.telemetry.processes.insert("celery".into(), series);
            let file =
                format!("merge-profiles/{}-r{:02}/py-spy.txt", cell.cell.scenario, cell.cell.repetition);
            let text =
                format!("main (w.py:1);average (w.py:2) 60\nmain (w.py:1) 30\n{EVIL} (x.py:3);{EVIL} 10\n");
            cell.telemetry.probes.push(ProbeRun {
                name: "py-spy".into(),
                problem: (cell.cell.repetition == 2).then(|| format!("exit code 1: {EVIL}")),
                profiles: Profile::read(&file, text.as_bytes()).into_iter().collect(),
                files: vec![file],
                ..ProbeRun::default()
            });
        }
        run
    }

    #[test]
    fn each_number_of_tasks_has_its_row_and_its_hotspots() {
        let run = profiled_run();
        let paper = Paper::of(&run);
        let costs = costs(&paper).unwrap().text();
        let rows: Vec<&str> = costs.lines().skip(1).collect();
        assert!(rows[0].trim_start().starts_with("4  S1 (1 × 4)"), "{costs}");
        assert!(rows[1].trim_start().starts_with("32  S4 (1 × 32)"), "{costs}");
        assert!(rows[0].contains("poll") && rows[0].contains("90.0 MB"), "{costs}");
        let hot = hotspots(&profiled_runs_first(&paper)).text();
        let second: Vec<&str> = hot.lines().nth(1).unwrap().split_whitespace().collect();
        assert_eq!(second, ["1", "average", "(w.py)", "180", "60.00", "%", "60.00", "%", "60.00", "%"]);
        assert!(
            hot.lines().nth(2).unwrap().contains("90.00 %"),
            "so far, and main with what it calls: {hot}"
        );
        let probes = probes(&paper).unwrap().text();
        assert!(probes.contains("2 of 3") && probes.contains("#2: exit code 1"), "{probes}");
    }

    fn profiled_runs_first(paper: &Paper<'_>) -> Profiled {
        profiled(paper).remove(0)
    }

    #[test]
    fn every_format_has_it_and_nothing_becomes_markup() {
        let run = profiled_run();
        let paper = Paper::of(&run);
        let html = html::page(&paper);
        assert!(html.contains("<section id=\"merge\"") && !html.contains("<script"));
        let markdown = markdown::summary(&paper);
        let outside_code: String = markdown.split('`').step_by(2).collect();
        assert!(markdown.contains("\n## Merge\n") && !outside_code.contains("<script>"), "{markdown}");
        let terminal = terminal::table(&paper);
        assert!(terminal.contains("\nmerge:\n") && terminal.contains("in average (w.py)"), "{terminal}");
        let json: serde_json::Value = serde_json::from_str(&json::summary(&paper, Exit::Pass)).unwrap();
        let merge = &json["merge"];
        assert_eq!(
            (merge["costs"][1]["tasks"].as_u64(), merge["costs"][1]["cells"].as_u64()),
            (Some(32), Some(3))
        );
        assert_eq!(merge["profiles"][0]["hotspots"][0]["place"], "average (w.py)");
        assert_eq!(merge["probes"].as_array().unwrap().len(), 6);
        assert!(merge["costs"][0]["cpu_least"].as_f64() <= merge["costs"][0]["cpu_most"].as_f64());
    }

    #[test]
    fn a_run_without_processes_and_probes_has_no_such_section() {
        let run = sample::good();
        let paper = Paper::of(&run);
        assert!(all(&paper).is_empty() && brief(&paper).is_none());
        assert!(html::page(&paper).contains("Not sampled: give --watch-pid"));
    }
}
