//! `resilience/<ID>_resilience.csv`: one row a cell of a scenario with a fault; behind them the
//! cells of its fault-free twin under the twin's own name.

use crate::{
    injection::{Canary, Injector},
    micros::Micros,
    posts::{CellPosts, RoutePosts},
    record::{CellRecord, RunRecord},
    report::{
        figure::{bound_ms, ms},
        sheet,
    },
    resilience::{self, Figures, Resilience},
    summary::ScenarioSummary,
};

/// Its first line. Posts are counted by the tap and empty without one; `decided_faulted` is the
/// injector's own count, which has late posts of earlier cells in it. `p50` are medians of a cell.
const HEADER: &str = "run_id,scenario,repetition,fault,injector,posts_attempted,posts_faulted,posts_delayed,requests_dropped,answers_dropped,posts_refused,posts_error,posts_repeated,posts_retried,posts_lost,answers_lost,posts_replayed,jobs,jobs_fetched,jobs_stuck,stuck_states,jobs_failed,partial_completed,duplicate_final_writes,final_state_wrong,recovery_ms,posts_cut,posts_nameless,posts_late,posts_unread,simulations_foreign,decided_faulted,held_p50_ms,persist_p50_ms,results_served_p50_ms,canaries_before,canaries_before_p50_ms,canaries_during,canaries_during_p50_ms,canaries_after,canaries_after_p50_ms,proof,verdict";

/// The cells of a scenario and of its twin; only for a scenario with a fault.
pub(super) fn csv(run: &RunRecord, s: &ScenarioSummary) -> Vec<u8> {
    let tested = Resilience::of(run, &s.scenario);
    let mut rows: Vec<Vec<String>> = Vec::new();
    for part in tested.iter().flat_map(Resilience::all) {
        rows.extend(part.cells.iter().map(|(cell, figures)| row(run, cell, figures)));
    }
    sheet::csv(HEADER, rows)
}

fn row(run: &RunRecord, cell: &CellRecord, f: &Figures) -> Vec<String> {
    let injection = cell.injection.as_ref();
    let of_posts = |count: fn(&RoutePosts) -> u64| f.posts.as_ref().map(count);
    let of_cell = |n: fn(&CellPosts) -> u64| cell.posts.as_ref().map(n);
    let some = |n: Option<u64>| n.map_or_else(String::new, |n| n.to_string());
    let time = |m: Option<Micros>| m.map_or_else(String::new, ms);
    let mut row = vec![
        run.run_id.clone(),
        cell.cell.scenario.to_string(),
        cell.cell.repetition.to_string(),
        cell.cell.fault.to_string(),
        injection.map_or("", |i| injector(i.by)).to_owned(),
    ];
    row.extend(
        [
            of_posts(|p| p.attempted),
            of_posts(|p| p.fates.harmed()),
            of_posts(|p| p.fates.delayed),
            of_posts(|p| p.fates.requests_dropped),
            of_posts(|p| p.fates.answers_dropped),
            of_posts(|p| p.fates.refused),
            of_posts(|p| p.errors),
            of_posts(|p| p.repeated),
            of_posts(|p| p.retried),
            of_posts(|p| p.lost),
            of_posts(|p| p.answers_lost),
            of_posts(|p| p.replayed),
            Some(f.jobs),
            Some(f.fetched),
            Some(f.stuck_jobs()),
        ]
        .map(some),
    );
    row.push(f.stuck_states());
    row.extend([Some(f.failed), Some(f.partial), f.duplicate_writes, Some(f.wrong)].map(some));
    row.push(bound_ms(f.recovery_p50()));
    row.extend(
        [
            of_posts(|p| p.cut),
            of_cell(|p| p.nameless),
            of_cell(|p| p.late.total()),
            of_cell(|p| p.unread),
            f.posts.as_ref().map(|_| f.foreign),
            f.decided.map(|d| d.harmed()),
        ]
        .map(some),
    );
    row.extend([time(f.held_p50()), bound_ms(f.persist_p50()), time(f.served_p50())]);
    for phase in 0..3 {
        row.extend(match injection {
            None => [String::new(), String::new()],
            Some(i) => canaries([&i.proof.before, &i.proof.during, &i.proof.after][phase]),
        });
    }
    row.push(resilience::proof(cell).unwrap_or_default());
    row.push(cell.verdict.to_string());
    row
}

/// `answered/sent` and the median of how long they took.
fn canaries(some: &[Canary]) -> [String; 2] {
    let (answered, sent, p50) = resilience::canaries(some);
    [format!("{answered}/{sent}"), p50.map_or_else(String::new, ms)]
}

/// The name of who did the harm.
pub(super) fn injector(by: Injector) -> &'static str {
    match by {
        Injector::Tap => "tap",
        Injector::Toxiproxy => "toxiproxy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Paper, sample};

    #[test]
    fn a_row_a_cell_and_the_twin_behind() {
        assert!(HEADER.starts_with("run_id,scenario,repetition,fault,injector,posts_attempted,"));
        let run = sample::faults();
        let columns: Vec<&str> = HEADER.split(',').collect();
        let at = |name: &str| columns.iter().position(|c| *c == name).unwrap();
        for s in Paper::of(&run).scenarios.iter().filter(|s| s.scenario.id.as_str() != "S6") {
            let rows = sample::rows(&csv(&run, s));
            let ids: Vec<&str> = rows.iter().map(|r| &r[1]).collect();
            assert_eq!(ids, [[s.scenario.id.as_str(); 4], ["S6"; 4]].concat());
            for row in &rows {
                let number = |name| row[at(name)].parse::<u64>().unwrap();
                let parts = ["posts_delayed", "requests_dropped", "answers_dropped", "posts_refused"];
                assert_eq!(number("posts_faulted"), parts.into_iter().map(number).sum::<u64>());
                assert_eq!(number("jobs"), 10);
                let is_faulty = &row[1] != "S6";
                assert_eq!(number("posts_faulted") > 0, is_faulty);
                assert_eq!(&row[at("fault")] == "none", !is_faulty);
                assert_eq!(row[at("injector")].is_empty(), !is_faulty);
            }
        }
    }

    #[test]
    fn one_lost_post_is_one_stuck_job() {
        let run = sample::faults();
        let paper = Paper::of(&run);
        let rows = sample::rows(&csv(&run, paper.scenarios.last().unwrap()));
        let at = |name: &str| HEADER.split(',').position(|c| c == name).unwrap();
        for row in rows.iter().filter(|r| &r[1] == "S8") {
            assert_eq!((&row[at("posts_lost")], &row[at("jobs_stuck")]), ("1", "1"));
            assert_eq!(&row[at("stuck_states")], "RUNNING: 1");
            assert_eq!(&row[at("final_state_wrong")], "0");
        }
    }

    #[test]
    fn without_a_tap_the_columns_of_posts_are_empty() {
        let mut run = sample::faults();
        run.cells.iter_mut().for_each(|c| c.posts = None);
        let paper = Paper::of(&run);
        let rows = sample::rows(&csv(&run, &paper.scenarios[2]));
        assert!(rows.iter().all(|r| r[5].is_empty() && &r[17] == "10"));
    }
}
