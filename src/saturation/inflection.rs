//! Where a figure leaves the trend that the smaller loads set.

use std::collections::BTreeSet;

use super::statistics::{Fitted, median};

/// The smaller loads that there must be before a larger one can be said to leave their trend.
pub const LEAST_LOADS: usize = 3;
/// So many cells of smaller loads and more are enough for a prediction interval that means
/// something: t with three degrees of freedom.
const ENOUGH_CELLS: usize = 5;
/// With fewer, how far from the line a point is out: half of what the line says.
pub const FAR: f64 = 0.5;
/// What is less than this share from the line is on it, however straight the others lie.
pub const NEAR: f64 = 0.1;

/// A scenario's figure at its load.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which scenario.
    pub name: String,
    /// Tasks in flight at once: the order of the scenarios.
    pub load: f64,
    /// What the figure is expected to grow with: the tasks in flight, or those of each job.
    pub driver: f64,
    /// The figure in each of its cells, at least one; none is negative.
    pub values: Vec<f64>,
}

impl Point {
    /// The median over its cells.
    pub fn value(&self) -> f64 {
        median(self.values.clone()).unwrap_or(0.0)
    }
}

/// What can be said of the trend of a figure.
#[derive(Debug, Clone, PartialEq)]
pub enum Inflection {
    /// The first scenario that leaves it.
    At {
        /// Which.
        point: Point,
        /// What the smaller ones let expect.
        expected: f64,
        /// Half of the 95 % prediction interval around that; `None` where there were too few
        /// cells for it and the [factor](FAR) decided.
        half_width: Option<f64>,
    },
    /// None does.
    Nowhere {
        /// How many could be held against smaller ones.
        tried: usize,
    },
    /// There are too few loads below the largest, or what the line through them says of the larger
    /// ones is less than nothing.
    Unknown {
        /// How many smaller ones there are.
        smaller: usize,
    },
}

/// Looks for the first scenario whose figure leaves the trend of the smaller ones.
///
/// In the order of the load a straight line over the [driver](Point::driver) is fitted by least
/// squares through the cells of all scenarios of strictly smaller load, at least [`LEAST_LOADS`]
/// different drivers, and asked what it
/// expects of the median of the next. That one is out when it lies outside the 95 % prediction
/// interval and [`NEAR`] away from the line at least; with fewer than five cells, where that
/// interval is wider than anything, when it is away by more than [`FAR`] of what the line says.
/// Differences below `least` are never a break.
///
/// It is the predictive test for a second regime that has too few observations to be fitted
/// (G. C. Chow, *Tests of Equality Between Sets of Coefficients in Two Linear Regressions*,
/// Econometrica 28, 1960), taken one step ahead at a time as recursive residuals are (R. L. Brown,
/// J. Durbin, J. M. Evans, *Techniques for Testing the Constancy of Regression Relationships over
/// Time*, JRSS B 37, 1975). Each step has its own 5 %; they are not corrected for their number.
pub fn inflection(points: &[Point], least: f64) -> Inflection {
    let mut ordered: Vec<&Point> = points.iter().collect();
    ordered.sort_by(|a, b| a.load.total_cmp(&b.load));
    let (mut tried, mut most) = (0, 0);
    for point in &ordered {
        let below = || ordered.iter().filter(|p| p.load < point.load);
        let loads = below().map(|p| p.driver.to_bits()).collect::<BTreeSet<_>>().len();
        most = most.max(loads);
        let smaller: Vec<(f64, f64)> =
            below().flat_map(|p| p.values.iter().map(|v| (p.driver, *v))).collect();
        let Some(line) = Fitted::through(&smaller).filter(|_| loads >= LEAST_LOADS) else { continue };
        let expected = line.at(point.driver);
        if expected < 0.0 {
            // A falling line does not go on below zero.
            continue;
        }
        tried += 1;
        let half_width =
            (smaller.len() >= ENOUGH_CELLS).then(|| line.half_width(point.driver, point.values.len()));
        // A line near zero is no measure for what is far from it.
        let typical = smaller.iter().map(|p| p.1.abs()).sum::<f64>() / smaller.len() as f64;
        let measure = expected.max(typical);
        let limit = half_width.map_or(FAR * measure, |w| w.max(NEAR * measure)).max(least);
        if (point.value() - expected).abs() > limit {
            return Inflection::At { point: (*point).clone(), expected, half_width };
        }
    }
    if tried == 0 { Inflection::Unknown { smaller: most } } else { Inflection::Nowhere { tried } }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    fn points(values: &[(f64, f64)]) -> Vec<Point> {
        let name = |i: usize| format!("S{}", i + 1);
        let point = |(i, &(load, value)): (usize, &(f64, f64))| Point {
            name: name(i),
            load,
            driver: load,
            values: vec![value],
        };
        values.iter().enumerate().map(point).collect()
    }

    /// Ten cells each, scattered evenly by `share` of the value around it.
    fn scattered(values: &[(f64, f64)], share: f64) -> Vec<Point> {
        let around =
            |v: f64| (0..10).map(|i| v * (1.0 + share * (f64::from(i * 7 % 10) - 4.5) / 4.5)).collect();
        points(values).into_iter().map(|p| Point { values: around(p.values[0]), ..p }).collect()
    }

    fn at(inflection: Inflection) -> Option<String> {
        match inflection {
            Inflection::At { point, .. } => Some(point.name),
            _ => None,
        }
    }

    const RUNBOOK: [f64; 6] = [4.0, 8.0, 16.0, 32.0, 40.0, 80.0];

    #[test]
    fn too_few_smaller_loads_are_not_determinable() {
        let three = points(&[(4.0, 1.0), (8.0, 2.0), (16.0, 90.0)]);
        assert_eq!(inflection(&three, 0.0), Inflection::Unknown { smaller: 2 });
        // Many scenarios of one load are one load.
        let alike = points(&[(4.0, 1.0), (8.0, 2.0), (8.0, 2.0), (16.0, 90.0), (16.0, 4.0)]);
        assert_eq!(inflection(&alike, 0.0), Inflection::Unknown { smaller: 2 });
        assert_eq!(inflection(&[], 0.0), Inflection::Unknown { smaller: 0 });
        let falling = points(&[(4.0, 90.0), (8.0, 50.0), (16.0, 9.0), (64.0, 8.0)]);
        assert_eq!(inflection(&falling, 0.0), Inflection::Unknown { smaller: 3 }, "below zero");
    }

    #[test]
    fn what_a_job_costs_is_held_against_jobs_of_as_many_tasks() {
        let tasks = [4.0, 8.0, 16.0, 32.0, 8.0, 8.0];
        let of = |cost: fn(usize, f64) -> f64| {
            let all = RUNBOOK.iter().zip(tasks).enumerate().map(|(i, (&load, tasks))| Point {
                name: format!("S{}", i + 1),
                load,
                driver: tasks,
                values: vec![cost(i, tasks); 10],
            });
            inflection(&all.collect::<Vec<_>>(), 0.0)
        };
        assert_eq!(of(|_, tasks| 10.0 * tasks), Inflection::Nowhere { tried: 3 }, "the same for each job");
        assert_eq!(
            at(of(|i, tasks| if i == 5 { 90.0 * tasks } else { 10.0 * tasks })).as_deref(),
            Some("S6")
        );
    }

    #[test]
    fn the_matrix_of_the_runbook_is_enough() {
        let line = RUNBOOK.map(|x| (x, 2.0 + x));
        let kinked = RUNBOOK.map(|x| (x, if x > 32.0 { 34.0 + 9.0 * (x - 32.0) } else { 2.0 + x }));
        for share in [0.0, 0.05, 0.2] {
            assert_eq!(
                inflection(&scattered(&line, share), 0.0),
                Inflection::Nowhere { tried: 3 },
                "{share}"
            );
            let found = inflection(&scattered(&kinked, share), 0.0);
            assert_eq!(at(found.clone()).as_deref(), Some("S5"), "{share}: {found:?}");
            assert!(matches!(found, Inflection::At { half_width: Some(_), .. }));
        }
        assert_eq!(at(inflection(&points(&kinked), 1e6)), None, "less than matters");
    }

    #[test]
    fn a_factor_decides_where_there_are_few_cells() {
        let of = |last: f64| inflection(&points(&[(4.0, 4.0), (8.0, 8.5), (16.0, 15.5), (32.0, last)]), 0.0);
        assert_eq!(of(44.0), Inflection::Nowhere { tried: 1 });
        assert!(matches!(of(50.0), Inflection::At { half_width: None, .. }));
    }

    #[test]
    fn scatter_hides_what_it_could_have_made() {
        let bent = RUNBOOK.map(|x| (x, if x > 32.0 { 1.12 * x } else { x }));
        assert_eq!(at(inflection(&scattered(&bent, 0.01), 0.0)).as_deref(), Some("S5"));
        assert_eq!(at(inflection(&scattered(&bent, 0.6), 0.0)), None);
    }

    proptest! {
        #[test]
        fn a_straight_line_has_none(
            a in 0.0..1e9f64,
            b in 0.0..1e6f64,
            share in 0.0..0.03f64,
            loads in prop::collection::btree_set(1u32..2_000, 4..12),
        ) {
            let line: Vec<(f64, f64)> = loads.iter().map(|&x| (f64::from(x), a + b * f64::from(x))).collect();
            let exact = inflection(&points(&line), 0.0);
            let is_nowhere = matches!(exact, Inflection::Nowhere { .. });
            prop_assert!(is_nowhere, "{:?}", exact);
            // The median of such a scatter is its middle: nothing leaves the line then either.
            let found = inflection(&scattered(&line, share), 0.0);
            let is_nowhere = matches!(found, Inflection::Nowhere { .. });
            prop_assert!(is_nowhere, "{:?}", found);
        }

        #[test]
        fn a_kink_is_found_at_the_first_load_behind_it(
            a in 0.0..50.0f64,
            b in 1.0..100.0f64,
            steeper in 8.0..50.0f64,
            share in 0.0..0.05f64,
            kink in 3usize..7,
        ) {
            // Loads that double, as a matrix has them; the kink is at one of them.
            let loads: Vec<f64> = (0..8).map(|i| 4.0 * 2f64.powi(i)).collect();
            let k = loads[kink - 1];
            let bent: Vec<(f64, f64)> =
                loads.iter().map(|&x| (x, a + b * x + b * steeper * (x - k).max(0.0))).collect();
            let behind = Some(format!("S{}", kink + 1));
            prop_assert_eq!(at(inflection(&points(&bent), 0.0)), behind.clone());
            prop_assert_eq!(at(inflection(&scattered(&bent, share), 0.0)), behind);
        }

        #[test]
        fn the_order_of_the_scenarios_does_not_matter(
            values in prop::collection::vec((1u32..100, 0.0..1e6f64), 0..10),
        ) {
            let some = points(&values.iter().map(|&(x, y)| (f64::from(x), y)).collect::<Vec<_>>());
            // One scenario a load, so that there is one first.
            let mut seen = BTreeSet::new();
            let some: Vec<Point> = some.into_iter().filter(|p| seen.insert(p.load.to_bits())).collect();
            let turned: Vec<Point> = some.iter().rev().cloned().collect();
            prop_assert_eq!(at(inflection(&some, 0.0)), at(inflection(&turned, 0.0)));
        }
    }
}
