//! The part of the JSON summary on faults and on the tap.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    agreement::Agreement,
    histogram::Histogram,
    micros::{Micros, Offset},
    post::Fates,
    record::{CellRecord, RunRecord},
    resilience::{Figures, Resilience, Tested, proof},
    summary::ScenarioSummary,
};

/// A scenario with a fault: its levels, and the same without the fault.
#[derive(Serialize)]
pub(super) struct OfResilience {
    scenario: String,
    levels: Vec<OfTested>,
    twin: Option<OfTested>,
}

impl OfResilience {
    pub(super) fn of_run(run: &RunRecord) -> Vec<Self> {
        let of = |r: &Resilience<'_>| Self {
            scenario: r.scenario.id.to_string(),
            levels: r.levels.iter().map(OfTested::of).collect(),
            twin: r.twin.as_ref().map(OfTested::of),
        };
        Resilience::of_run(run).iter().map(of).collect()
    }
}

#[derive(Serialize)]
struct OfTested {
    name: String,
    level: String,
    delay_ordered: Option<f64>,
    total: OfFigures,
    cells: Vec<OfCell>,
}

impl OfTested {
    fn of(t: &Tested<'_>) -> Self {
        let cell = |(cell, figures): &(&CellRecord, Figures)| OfCell {
            repetition: cell.cell.repetition,
            verdict: cell.verdict.to_string(),
            proof: proof(cell),
            figures: OfFigures::of(figures),
        };
        Self {
            name: t.name.clone(),
            level: t.fault.to_string(),
            delay_ordered: t.ordered_delay().map(Micros::as_ms),
            total: OfFigures::of(&t.total),
            cells: t.cells.iter().map(cell).collect(),
        }
    }
}

#[derive(Serialize)]
struct OfCell {
    repetition: u32,
    verdict: String,
    proof: Option<String>,
    #[serde(flatten)]
    figures: OfFigures,
}

/// What of posts is `null` needs a tap.
#[derive(Serialize)]
struct OfFigures {
    jobs: u64,
    fetched: u64,
    stuck: u64,
    stuck_states: BTreeMap<&'static str, u64>,
    failed: u64,
    partial_completed: u64,
    duplicate_final_writes: Option<u64>,
    final_state_wrong: u64,
    recovery_p50: Option<f64>,
    persist_p50: Option<f64>,
    results_served_p50: Option<f64>,
    held_p50: Option<f64>,
    simulations_foreign: u64,
    decided: Option<Fates>,
    posts: Option<OfPosts>,
}

#[derive(Serialize)]
struct OfPosts {
    attempted: u64,
    faulted: u64,
    #[serde(flatten)]
    fates: Fates,
    errors: u64,
    cut: u64,
    repeated: u64,
    retried: u64,
    lost: u64,
    answers_lost: u64,
    replayed: u64,
}

impl OfFigures {
    fn of(f: &Figures) -> Self {
        Self {
            jobs: f.jobs,
            fetched: f.fetched,
            stuck: f.stuck_jobs(),
            stuck_states: f.stuck.iter().map(|(state, n)| (state.as_str(), *n)).collect(),
            failed: f.failed,
            partial_completed: f.partial,
            duplicate_final_writes: f.duplicate_writes,
            final_state_wrong: f.wrong,
            recovery_p50: f.recovery_p50().map(|q| q.value.as_ms()),
            persist_p50: f.persist_p50().map(|q| q.value.as_ms()),
            results_served_p50: f.served_p50().map(Micros::as_ms),
            held_p50: f.held_p50().map(Micros::as_ms),
            simulations_foreign: f.foreign,
            decided: f.decided,
            posts: f.posts.as_ref().map(|p| OfPosts {
                attempted: p.attempted,
                faulted: p.fates.harmed(),
                fates: p.fates,
                errors: p.errors,
                cut: p.cut,
                repeated: p.repeated,
                retried: p.retried,
                lost: p.lost,
                answers_lost: p.answers_lost,
                replayed: p.replayed,
            }),
        }
    }
}

/// Posts to one route.
#[derive(Serialize)]
pub(super) struct OfRoute {
    route: &'static str,
    posts: u64,
    statuses: BTreeMap<u16, u64>,
    took_p50: Option<f64>,
    took_p95: Option<f64>,
    served_p50: Option<f64>,
    served_p95: Option<f64>,
}

impl OfRoute {
    pub(super) fn of(run: &RunRecord, s: &ScenarioSummary) -> Vec<Self> {
        let at = |h: &Histogram, q| (h.count() > 0).then(|| h.quantile(q).as_ms());
        let routes = s.posts(run);
        let each = routes.into_iter().map(|(route, r)| Self {
            route: route.path(),
            posts: r.attempted,
            took_p50: at(&r.took, 0.5),
            took_p95: at(&r.took, 0.95),
            served_p50: at(&r.served, 0.5),
            served_p95: at(&r.served, 0.95),
            statuses: r.statuses,
        });
        each.collect()
    }
}

/// A polled stage against the tap's, on the same bounds.
#[derive(Serialize)]
pub(super) struct OfAgreement {
    stage: &'static str,
    n: usize,
    agree: usize,
    p50_polled: Option<f64>,
    p50_tap: Option<f64>,
    median_gap: Option<f64>,
    widest_gap: Option<f64>,
}

impl OfAgreement {
    pub(super) fn of(run: &RunRecord, s: &ScenarioSummary) -> Vec<Self> {
        let cells = s.counting(run);
        let each = Agreement::STAGES.into_iter().filter_map(|stage| Agreement::of(&cells, stage));
        each.map(|a| {
            let [p50_polled, p50_tap] = a.medians().map(|q| q.map(|q| q.value.as_ms()));
            Self {
                stage: a.stage.as_str(),
                n: a.count(),
                agree: a.agree,
                p50_polled,
                p50_tap,
                median_gap: a.median_gap().map(Offset::as_ms),
                widest_gap: a.widest_gap().map(Offset::as_ms),
            }
        })
        .collect()
    }
}
