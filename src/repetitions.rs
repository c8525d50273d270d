//! A scenario's figures repetition by repetition, and what they say together: the cells are the
//! unit, see [`bootstrap`]. Computed from the run record, never stored.

use std::{num::NonZero, thread};

use crate::{
    bootstrap::{self, Cluster, Interval},
    estimate::{Quantile, Sample},
    histogram::Histogram,
    micros::Micros,
    plan,
    record::{CellRecord, RunRecord},
    snapshot::Phase,
    summary::{self, ScenarioSummary, Source},
    timeline::Stage,
    verdict::Verdict,
};

/// What is followed over the repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metric {
    /// A stage of a job, by its best source.
    Stage(Stage),
    /// The response time of all requests under load that succeeded.
    Requests,
}

impl Metric {
    /// The name in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stage(stage) => stage.as_str(),
            Self::Requests => "requests",
        }
    }
}

/// One scenario, or one level of its fault.
#[derive(Debug)]
pub struct Repetitions {
    /// [`ScenarioSummary::name`] of it.
    pub name: String,
    /// Each stage that anything was measured of, in the order of a job's life, then the requests.
    pub metrics: Vec<Repeated>,
}

/// One metric.
#[derive(Debug)]
pub struct Repeated {
    /// What.
    pub metric: Metric,
    /// Who clocked it.
    pub source: Source,
    /// Its cells in the order they ran, those that do not count among them.
    pub cells: Vec<OfCell>,
    /// How many cells count and measured anything.
    pub counting: usize,
    /// Jobs, or requests, in them.
    pub jobs: usize,
    /// The median of them all together.
    pub p50: Option<Quantile>,
    /// The 95th percentile of them all together.
    pub p95: Option<Quantile>,
    /// Where the true median lies; `None` with fewer than [`bootstrap::LEAST_CELLS`] cells, and
    /// where none can be trusted.
    pub p50_interval: Option<Interval>,
    /// Where the true 95th percentile lies.
    pub p95_interval: Option<Interval>,
}

/// One metric in one cell.
#[derive(Debug, Clone, Copy)]
pub struct OfCell {
    /// Which repetition.
    pub repetition: u32,
    /// Which try at it.
    pub attempt: u32,
    /// Whether it counts: it is not INVALID and was not made again.
    pub counts: bool,
    /// Jobs, or requests.
    pub n: usize,
    /// Their median, read without its own interval; `None` where there are none.
    pub p50: Option<Quantile>,
    /// Their 95th percentile.
    pub p95: Option<Quantile>,
}

impl Repeated {
    /// Of the cells that count, the smallest and the largest median.
    pub fn spread(&self) -> Option<(Quantile, Quantile)> {
        let medians = || self.cells.iter().filter(|c| c.counts).filter_map(|c| c.p50);
        Some((medians().min_by_key(|q| q.value)?, medians().max_by_key(|q| q.value)?))
    }
}

impl Repetitions {
    /// Follows every scenario of a run, and of those with several levels of a fault each level.
    pub fn of_run(run: &RunRecord, scenarios: &[ScenarioSummary]) -> Vec<Self> {
        scenarios.iter().flat_map(ScenarioSummary::parts).map(|part| Self::of(run, part)).collect()
    }

    /// Follows one scenario, or one level of its fault.
    pub fn of(run: &RunRecord, part: &ScenarioSummary) -> Self {
        let name = part.name();
        let mut cells: Vec<&CellRecord> = part.all_cells(run);
        let is_its = |c: &&CellRecord| {
            c.cell.scenario == part.scenario.id && part.fault.as_ref() == Some(&c.cell.fault)
        };
        cells.extend(run.replaced().filter(is_its));
        cells.sort_by_key(|c| (c.t0_unix, c.cell.repetition, c.cell.attempt));
        let counts: Vec<bool> = cells.iter().map(|c| c.verdict != Verdict::Invalid).collect();

        let best = Stage::ALL.into_iter().filter_map(|stage| part.best(stage));
        let wanted: Vec<(Metric, Source, Both, usize)> = best
            .map(|s| (Metric::Stage(s.stage), s.source, [0.5, 0.95].map(|q| s.quantile(q)), s.sample.count()))
            .chain((part.all.ok.count() > 0).then(|| {
                let requests = &part.all.ok;
                (Metric::Requests, Source::Client, of_histogram(requests), requests.count() as usize)
            }))
            .collect();
        let steps: Vec<usize> = wanted.iter().map(|w| bootstrap::thinning(w.3)).collect();
        // A cell may have a hundred thousand jobs: they are thinned out where they are read.
        let read: Vec<Vec<(OfCell, Cluster)>> = in_parallel(&cells, |cell| {
            let spans = summary::spans_of(cell);
            let of = |(metric, source, ..): &(Metric, Source, Both, usize), step: &usize| {
                read(cell, &spans, *metric, *source, *step)
            };
            wanted.iter().zip(&steps).map(|(w, step)| of(w, step)).collect()
        });
        let numbers: Vec<usize> = (0..wanted.len()).collect();
        let metrics = in_parallel(&numbers, |&i| {
            let (metric, source, [p50, p95], jobs) = wanted[i];
            let column = || read.iter().zip(&counts).map(|(cell, counts)| (&cell[i], *counts));
            let clusters: Vec<Cluster> =
                column().filter(|(_, counts)| *counts).map(|((_, cluster), _)| cluster.clone()).collect();
            let seed = format!("bootstrap/{name}/{}/{}", metric.as_str(), source.as_str());
            let intervals =
                bootstrap::intervals(&clusters, [0.5, 0.95], &mut plan::rng(run.plan.seed, &seed));
            let cells: Vec<OfCell> = column().map(|((cell, _), counts)| OfCell { counts, ..*cell }).collect();
            Repeated {
                counting: cells.iter().filter(|c| c.counts && c.n > 0).count(),
                cells,
                metric,
                source,
                jobs,
                p50,
                p95,
                p50_interval: intervals.map(|[p50, _]| p50),
                p95_interval: intervals.map(|[_, p95]| p95),
            }
        });
        Self { name, metrics }
    }

    /// What is said of a metric.
    pub fn get(&self, metric: Metric) -> Option<&Repeated> {
        self.metrics.iter().find(|m| m.metric == metric)
    }

    /// What is said of a stage.
    pub fn stage(&self, stage: Stage) -> Option<&Repeated> {
        self.get(Metric::Stage(stage))
    }
}

/// Median and 95th percentile.
type Both = [Option<Quantile>; 2];

fn of_histogram(h: &Histogram) -> Both {
    let quantile = |q| Quantile {
        value: h.quantile(q),
        at_least: false,
        low: None,
        high: None,
        supported: crate::estimate::is_enough(h.count(), q),
        bucket: None,
    };
    [0.5, 0.95].map(|q| (h.count() > 0).then(|| quantile(q)))
}

/// The quantile at rank ⌈q·n⌉, as a [`Sample`] has it, without its interval.
fn of_sorted(jobs: &[u64], q: f64) -> Option<Quantile> {
    let n = jobs.len();
    let rank = ((q * n as f64 - 1e-9).ceil() as usize).clamp(1, n.max(1)) - 1;
    let supported = crate::estimate::is_enough(n as u64, q);
    let value = Micros(*jobs.get(rank)?);
    Some(Quantile { value, at_least: false, low: None, high: None, supported, bucket: None })
}

fn read(
    cell: &CellRecord,
    spans: &[summary::Spans],
    metric: Metric,
    source: Source,
    step: usize,
) -> (OfCell, Cluster) {
    let of = |n, [p50, p95]: Both| OfCell {
        repetition: cell.cell.repetition,
        attempt: cell.cell.attempt,
        counts: true,
        n,
        p50,
        p95,
    };
    match metric {
        Metric::Stage(stage) => {
            let its = spans.iter().find(|s| s.stage == stage && s.source == source);
            let spans = its.map_or(&[][..], |s| &s.spans);
            if spans.iter().all(|span| span.most.is_some()) {
                // Most cells of a large run: one sorting serves both.
                let mut jobs: Vec<u64> = spans.iter().map(|span| span.midpoint().0).collect();
                jobs.sort_unstable();
                return (
                    of(jobs.len(), [0.5, 0.95].map(|q| of_sorted(&jobs, q))),
                    Cluster::of_sorted(&jobs, step),
                );
            }
            let sample = Sample::new(spans.iter().copied());
            (of(spans.len(), [0.5, 0.95].map(|q| sample.quantile(q))), Cluster::of(spans, step))
        }
        Metric::Requests => {
            let requests: Histogram = cell.totals.phase(Phase::Load).map(|(_, r)| &r.ok).sum();
            let both = of_histogram(&requests);
            (of(requests.count() as usize, both), Cluster::of_histogram(&requests, step))
        }
    }
}

/// Does the same with each of them, on as many threads as there are cores.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let work = &work;
    thread::scope(|scope| {
        let parts = items.chunks(items.len().div_ceil(threads).max(1));
        let running: Vec<_> =
            parts.map(|part| scope.spawn(move || part.iter().map(work).collect::<Vec<R>>())).collect();
        running.into_iter().flat_map(|r| r.join().expect("arithmetic does not panic")).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sample;

    #[test]
    fn the_cells_add_up_to_the_summary() {
        for run in [sample::good(), sample::mixed(), sample::faults(), sample::invalid_only()] {
            let scenarios = ScenarioSummary::of_run(&run);
            let all = Repetitions::of_run(&run, &scenarios);
            for (part, r) in scenarios.iter().flat_map(ScenarioSummary::parts).zip(&all) {
                for m in &r.metrics {
                    let counted: usize =
                        m.cells.iter().filter(|c| c.counts || part.untrusted).map(|c| c.n).sum();
                    assert_eq!(counted, m.jobs, "{} {}", r.name, m.metric.as_str());
                    let enough = m.counting >= bootstrap::LEAST_CELLS;
                    assert_eq!(m.p50_interval.is_some(), enough);
                    assert_eq!(m.cells.len(), part.cells);
                }
                let e2e = r.stage(Stage::EndToEnd).unwrap();
                assert_eq!(e2e.p50, part.stage(Stage::EndToEnd).quantile(0.5));
            }
        }
    }

    #[test]
    fn a_quick_quantile_is_that_of_a_sample() {
        for n in 0..45u64 {
            let jobs: Vec<u64> = (0..n).map(|i| i * i).collect();
            let sample = Sample::new(jobs.iter().map(|us| crate::estimate::Span::exact(Micros(*us))));
            for q in [0.5, 0.95] {
                let (quick, slow) = (of_sorted(&jobs, q), sample.quantile(q));
                assert_eq!(quick, slow.map(|q| Quantile { low: None, high: None, ..q }));
            }
        }
    }

    #[test]
    fn the_same_run_has_the_same_intervals_and_another_seed_others() {
        let mut run = sample::faults();
        let of = |run: &crate::record::RunRecord| {
            let all = Repetitions::of_run(run, &ScenarioSummary::of_run(run));
            let metrics = all.into_iter().flat_map(|r| r.metrics);
            metrics.map(|m| (m.p50_interval, m.p95_interval)).collect::<Vec<_>>()
        };
        let first = of(&run);
        assert_eq!(first, of(&run));
        run.plan.seed += 1;
        assert_ne!(first, of(&run));
    }
}
