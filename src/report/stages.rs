//! `timings/<ID>_stages.csv`: one row a stage, in milliseconds.

use crate::{
    estimate::Quantile,
    micros::Micros,
    record::RunRecord,
    repetitions::Repeated,
    report::{
        Paper,
        figure::{bound_ms, ms},
        sheet,
    },
    summary::{ScenarioSummary, StageSummary},
};

/// Its first line. Behind the columns of DESIGN 8 stand the 95 % confidence intervals and the
/// level of the fault, each with rows of its own; then, for the best source of a stage, how many
/// cells count and the intervals that have the repetition as their unit. An empty field is
/// unknown, `>= x` a quantile among unfinished jobs.
const HEADER: &str = "run_id,scenario,stage,source,n,censored,min,p50,p90,p95,p99,max,mean,half_width_p50,p50_low,p50_high,p95_low,p95_high,fault,cells,p50_cells_low,p50_cells_high,p95_cells_low,p95_cells_high";

/// The stages of a scenario.
pub(super) fn csv(paper: &Paper<'_>, s: &ScenarioSummary) -> Vec<u8> {
    let parts = paper.repeated().filter(|(part, _)| part.scenario.id == s.scenario.id);
    let rows = parts.flat_map(|(part, repetitions)| {
        part.stages.iter().map(move |stage| {
            let repeated = repetitions.stage(stage.stage).filter(|r| r.source == stage.source);
            row(paper.run, part, stage, repeated)
        })
    });
    sheet::csv(HEADER, rows)
}

fn row(
    run: &RunRecord,
    s: &ScenarioSummary,
    stage: &StageSummary,
    repeated: Option<&Repeated>,
) -> Vec<String> {
    let sample = &stage.sample;
    let some = |m: Option<Micros>| m.map(ms).unwrap_or_default();
    let quantile = |q| bound_ms(stage.quantile(q));
    let side = |q, side: fn(Quantile) -> Option<Micros>| some(stage.quantile(q).and_then(side));
    let mut row = vec![
        run.run_id.clone(),
        s.scenario.id.to_string(),
        stage.stage.to_string(),
        stage.source.as_str().into(),
        sample.count().to_string(),
        sample.censored().to_string(),
        bound_ms(sample.min()),
        quantile(0.5),
        quantile(0.9),
        quantile(0.95),
        quantile(0.99),
        bound_ms(sample.max()),
        some(stage.mean()),
        some(sample.half_width()),
        side(0.5, |q| q.low),
        side(0.5, |q| q.high),
        side(0.95, |q| q.low),
        side(0.95, |q| q.high),
        s.fault(),
        repeated.map_or_else(String::new, |r| r.counting.to_string()),
    ];
    for interval in [|r: &Repeated| r.p50_interval, |r: &Repeated| r.p95_interval] {
        let interval = repeated.and_then(interval);
        row.extend([some(interval.and_then(|i| i.low)), some(interval.and_then(|i| i.high))]);
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn a_row_a_stage_and_source_and_the_columns_of_the_design() {
        assert!(HEADER.starts_with(
            "run_id,scenario,stage,source,n,censored,min,p50,p90,p95,p99,max,mean,half_width_p50"
        ));
        let run = sample::mixed();
        let paper = Paper::of(&run);
        for s in &paper.scenarios {
            let rows = sample::rows(&csv(&paper, s));
            assert_eq!(rows.len(), 6);
            assert!(rows.iter().all(|r| r.len() == HEADER.split(',').count()));
            assert!(rows.iter().all(|r| &r[1] == s.scenario.id.as_str()));
        }
    }

    #[test]
    fn each_level_has_rows_of_its_own_and_the_tap_comes_first() {
        let run = sample::faults();
        let paper = Paper::of(&run);
        let rows = sample::rows(&csv(&paper, &paper.scenarios[1]));
        let of = |level: &str| -> Vec<String> {
            let its = rows.iter().filter(|r| &r[18] == level);
            its.map(|r| format!("{} {}", &r[2], &r[3])).collect()
        };
        let all = [
            "submit client",
            "queue poll",
            "run tap",
            "run poll",
            "hand_over_queued tap",
            "hand_over_running tap",
            "merge tap",
            "merge poll",
            "persist tap",
            "fetch client",
            "end_to_end client",
        ];
        assert_eq!(of("latency +250 ms ± 10.0 ms"), all);
        assert_eq!(of("latency +1.00 s ± 40.0 ms"), all);
        assert_eq!(rows.len(), 2 * all.len());
    }

    #[test]
    fn a_censored_tail_is_a_bound() {
        let run = sample::mixed();
        let paper = Paper::of(&run);
        let s = &paper.scenarios[1];
        let rows = sample::rows(&csv(&paper, s));
        let e2e = rows.iter().find(|r| &r[2] == "end_to_end").unwrap();
        assert!(e2e[5].parse::<u64>().unwrap() > 0);
        assert!(e2e[11].starts_with(">= "), "{e2e:?}");
        assert_eq!(&e2e[12], "", "a mean without the unfinished ones is too low");
    }
}
