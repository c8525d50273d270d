//! What a whole run is judged by when its cells are done: thresholds held against the pooled
//! figures, and whether the plan was carried out.

use std::collections::BTreeMap;

use crate::{
    crew::What,
    estimate::Quantile,
    micros::Micros,
    record::RunRecord,
    summary::{ScenarioSummary, Source, StageSummary},
    threshold::{Aggregate, Figure, Threshold},
    timeline::Stage,
    verdict::{self, Check, Rule, Verdict},
};

/// Applies the rules of the whole run and sets its verdict.
pub fn close(run: &mut RunRecord) {
    let summaries = ScenarioSummary::of_run(run);
    let mut checks: Vec<Check> = run.thresholds.iter().flat_map(|t| check(t, &summaries)).collect();
    checks.extend(summaries.iter().filter_map(|s| results_agree(run, s)));
    let (done, planned) = (run.measured().count(), run.plan.measured().count());
    let evidence = match &run.stopped {
        Some(why) => format!("{done} of {planned} cells: {why}"),
        None => format!("{done} of {planned} cells"),
    };
    // Where nothing was measured, no number can be wrong: the run failed; but too few workers, or a plane
    // that is gone, say nothing of the target.
    let otherwise = if done == 0 && !is_short(run) { Verdict::Fail } else { Verdict::Invalid };
    checks.push(Check::new(Rule::RunComplete, done == planned, otherwise, evidence));
    run.checks = checks;
    run.verdict = Some(verdict::worst(run.all_checks()));
}

/// Whether it was for want of workers or of the plane that it ended.
fn is_short(run: &RunRecord) -> bool {
    let events = run.crew.iter().flat_map(|crew| &crew.events);
    let mut fateful = events.filter(|e| matches!(e.what, What::Short { .. } | What::Cut { .. } | What::Back));
    fateful.next_back().is_some_and(|event| event.what != What::Back)
}

/// Whether jobs of different cells of a scenario have results of one shape, where there are any to
/// compare: a cell of one job can only be compared with the others.
fn results_agree(run: &RunRecord, s: &ScenarioSummary) -> Option<Check> {
    // What a fault does to results is a finding; FAIL is for a target that was left alone.
    let cells = run.measured().filter(|c| c.cell.scenario == s.scenario.id && c.cell.fault.is_none());
    let mut shapes: BTreeMap<&str, u64> = BTreeMap::new();
    for results in cells.flat_map(|c| c.totals.jobs.values()).filter_map(|j| j.results.as_ref()) {
        *shapes.entry(&results.shape).or_default() += 1;
    }
    let (all, usual) = (shapes.values().sum::<u64>(), *shapes.values().max()?);
    let evidence =
        format!("{} of {all} jobs of {} with results unlike most others'", all - usual, s.scenario.id);
    Some(Check::new(Rule::ResultsAgree, all == usual, Verdict::Fail, evidence))
}

/// Holds every scenario a threshold speaks of against it, each level of a fault for itself. A stage
/// is that of its best source; one of which only the bucket is known, with the limit inside it,
/// decides nothing, and the next source does. A figure that is missing, known only to be at least
/// something, or never decided does not show that the limit is kept, so it fails.
fn check(threshold: &Threshold, summaries: &[ScenarioSummary]) -> Vec<Check> {
    let mut checks: Vec<Check> = summaries
        .iter()
        .filter(|s| threshold.scenario().is_none_or(|id| s.scenario.id.is(id.as_str())))
        .flat_map(ScenarioSummary::parts)
        .map(|s| {
            let (kept, said) = measure(threshold, s);
            let evidence = format!("{threshold} in {}: {said}", s.name());
            Check::new(Rule::Threshold, kept, Verdict::Fail, evidence)
        })
        .collect();
    if checks.is_empty() {
        let evidence = format!("{threshold}: no such scenario was measured");
        checks.push(Check::new(Rule::Threshold, false, Verdict::Fail, evidence));
    }
    checks
}

/// Where several sources could have told it.
fn said_of(source: Source) -> &'static str {
    match source {
        Source::Tap => ", tap",
        Source::Metrics => ", target's metrics",
        Source::Client | Source::Poll => "",
    }
}

/// A stage's quantile or largest; a mean is none.
fn figure(s: &StageSummary, aggregate: Aggregate) -> Option<Quantile> {
    match aggregate {
        Aggregate::Quantile(q) => s.sample.quantile(q),
        Aggregate::Max => s.sample.max(),
        Aggregate::Mean => None,
    }
}

fn measure(threshold: &Threshold, s: &ScenarioSummary) -> (bool, String) {
    let kept = |value: f64| threshold.is_kept_by(value);
    let time = |us: Micros, n: u64| (kept(us.0 as f64), format!("{us} (n={n})"));
    let share = |part: u64, whole: u64| match whole {
        0 => (false, "no data".into()),
        _ => (
            kept(part as f64 / whole as f64),
            format!("{:.2} % ({part} of {whole})", part as f64 / whole as f64 * 100.0),
        ),
    };
    match threshold.figure() {
        Figure::Stage(stage, aggregate) => {
            let is_open = |x: &&StageSummary| {
                let q = figure(x, aggregate).and_then(|q| q.bucket);
                q.is_some_and(|(low, high)| high.is_none_or(|h| kept(h.0 as f64) != kept(low.0 as f64)))
            };
            let decides = s.sources(stage).find(|x| !is_open(x)).or_else(|| s.best(stage));
            let Some(summary @ StageSummary { sample, source, .. }) = decides else {
                let why = if Stage::CLIENT.contains(&stage) { "no data" } else { "no data from a tap" };
                return (false, why.into());
            };
            let n = sample.count() as u64;
            let said_of = said_of(*source);
            match (aggregate, figure(summary, aggregate)) {
                (_, Some(Quantile { value, at_least: true, bucket, .. })) => {
                    let why = if bucket.is_some() { "beyond the last bucket" } else { "some unfinished" };
                    (false, format!(">= {value} (n={n}{said_of}, {why})"))
                }
                (_, Some(Quantile { bucket: Some((low, Some(high))), .. })) => {
                    let is_kept = kept(low.0 as f64) && kept(high.0 as f64);
                    (is_kept, format!("between {low} and {high} (n={n}{said_of})"))
                }
                (_, Some(Quantile { value, .. })) => {
                    (kept(value.0 as f64), format!("{value} (n={n}{said_of})"))
                }
                (Aggregate::Mean, None) if sample.censored() > 0 && !sample.is_in_buckets() => {
                    (false, format!("{} of {n} unfinished, no mean", sample.censored()))
                }
                (Aggregate::Mean, None) => summary.mean().map_or((false, "no data".into()), |mean| {
                    (kept(mean.0 as f64), format!("{mean} (n={n}{said_of})"))
                }),
                (_, None) => (false, "no data".into()),
            }
        }
        Figure::Requests(aggregate) => {
            let mut h = s.all.ok.clone();
            h.merge(&s.all.failed);
            if h.count() == 0 {
                return (false, "no data".into());
            }
            let value = match aggregate {
                Aggregate::Quantile(q) => h.quantile(q),
                Aggregate::Mean => h.mean(),
                Aggregate::Max => h.max(),
            };
            time(value, h.count())
        }
        Figure::JobFailures => share(s.not_fetched(), s.submitted),
        Figure::RequestFailures => share(s.all.failed.count(), s.all.count()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    fn close_with(rule: &str, change: impl Fn(&mut RunRecord)) -> Vec<Check> {
        let mut run = sample::faults();
        run.thresholds = vec![rule.parse().unwrap()];
        change(&mut run);
        close(&mut run);
        run.checks
    }

    #[test]
    fn each_level_is_held_against_a_threshold_for_itself() {
        let checks = close_with("persist.p50<800ms for S7", |_| ());
        let thresholds: Vec<_> = checks.iter().filter(|c| c.rule == Rule::Threshold).collect();
        let verdicts: Vec<Verdict> = thresholds.iter().map(|c| c.verdict).collect();
        assert_eq!(verdicts, [Verdict::Pass, Verdict::Fail]);
        assert!(
            thresholds[1].evidence.contains("S7 latency +1.00 s") && thresholds[1].evidence.ends_with("tap)")
        );
    }

    #[test]
    fn a_stage_that_only_a_tap_tells_is_not_kept_without_one() {
        let checks =
            close_with("persist.p50<800ms for S6", |run| run.cells.iter_mut().for_each(|c| c.posts = None));
        assert!(checks[0].verdict == Verdict::Fail && checks[0].evidence.ends_with("no data from a tap"));
    }

    #[test]
    fn a_bucket_with_the_limit_inside_leaves_the_decision_to_the_next_source() {
        let mut run = sample::scraped_run();
        run.cells.iter_mut().for_each(|c| c.posts = None);
        let s = &ScenarioSummary::of_run(&run)[0];
        let (low, high) = s.best(Stage::Merge).unwrap().quantile(0.5).unwrap().bucket.unwrap();
        let high = high.unwrap();
        let said = |limit: u64| {
            let check = check(
                &format!("merge.p50<{limit}us for S6").parse().unwrap(),
                &ScenarioSummary::of_run(&run),
            );
            (check[0].verdict, check[0].evidence.clone())
        };
        for (limit, verdict) in [(high.0 + 1, Verdict::Pass), (low.0, Verdict::Fail)] {
            let (got, evidence) = said(limit);
            assert!(
                got == verdict && evidence.contains("between") && evidence.contains("target's metrics"),
                "{evidence}"
            );
        }
        let (_, evidence) = said(low.0.midpoint(high.0));
        assert!(!evidence.contains("target's metrics"), "{evidence}");
        run.cells.iter_mut().for_each(|c| c.totals.jobs.values_mut().for_each(|j| j.timeline.seen.clear()));
        let check = check(
            &format!("merge.p50<{}us for S6", low.0.midpoint(high.0)).parse().unwrap(),
            &ScenarioSummary::of_run(&run),
        );
        assert_eq!(check[0].verdict, Verdict::Fail, "nobody knows: {}", check[0].evidence);
    }

    #[test]
    fn results_that_a_fault_damaged_fail_nobody() {
        let spoil = |id: &'static str| {
            let checks = close_with("failures<50%", |run| {
                let cell = run.cells.iter_mut().rfind(|c| c.cell.scenario.as_str() == id).unwrap();
                let job = cell.totals.jobs.values_mut().find(|j| j.results.is_some()).unwrap();
                job.results.as_mut().unwrap().shape = "other".into();
            });
            verdict::worst(checks.iter().filter(|c| c.rule == Rule::ResultsAgree))
        };
        assert_eq!((spoil("S8"), spoil("S6")), (Verdict::Pass, Verdict::Fail));
    }
}
