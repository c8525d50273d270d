//! Where a figure leaves the trend that the smaller loads set.

use std::collections::BTreeSet;

use super::statistics::Fitted;

/// The smaller loads that there must be before a larger one can be said to leave their trend.
pub const LEAST_LOADS: usize = 3;
/// So many and more are enough for a prediction interval that means something.
const ENOUGH_LOADS: usize = 5;
/// With fewer, how far from the line a point is out: half of what the line says.
pub const FAR: f64 = 0.5;
/// What is less than this share from the line is on it, however straight the others lie.
pub const NEAR: f64 = 0.1;

/// A scenario's figure at its load.
#[derive(Debug, Clone, PartialEq)]
pub struct Point {
    /// Which scenario.
    pub name: String,
    /// Tasks in flight at once.
    pub load: f64,
    /// The median over its cells.
    pub value: f64,
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
        /// smaller ones for it and the [factor](FAR) decided.
        half_width: Option<f64>,
    },
    /// None does.
    Nowhere {
        /// How many could be held against smaller ones.
        tried: usize,
    },
    /// There are too few loads below the largest.
    Unknown {
        /// How many there are.
        smaller: usize,
    },
}

/// Looks for the first scenario whose figure leaves the trend of the smaller ones.
///
/// In the order of the load a straight line is fitted by least squares through all scenarios of
/// strictly smaller load, at least [`LEAST_LOADS`] different ones, and asked what it expects at the
/// next. That one is out when it lies outside the 95 % prediction interval of a single further
/// observation and [`NEAR`] away from the line at least; with fewer than five smaller loads, where
/// that interval is wider than anything (t with one or two degrees of freedom), when it is away by
/// more than [`FAR`] of what the line says. This is segmented regression with the break between
/// two observations (R. E. Quandt, *The Estimation of the Parameters of a Linear Regression System
/// Obeying Two Separate Regimes*, JASA 53, 1958), reduced to its first step, since a matrix has too
/// few loads to fit what comes behind a break. Differences below `least` are never a break.
pub fn inflection(points: &[Point], least: f64) -> Inflection {
    let mut ordered: Vec<&Point> = points.iter().collect();
    ordered.sort_by(|a, b| a.load.total_cmp(&b.load));
    let (mut tried, mut most) = (0, 0);
    for point in &ordered {
        let smaller: Vec<(f64, f64)> =
            ordered.iter().filter(|p| p.load < point.load).map(|p| (p.load, p.value)).collect();
        let loads = smaller.iter().map(|p| p.0.to_bits()).collect::<BTreeSet<_>>().len();
        most = most.max(loads);
        let Some(line) = Fitted::through(&smaller).filter(|_| loads >= LEAST_LOADS) else { continue };
        tried += 1;
        let expected = line.at(point.load);
        let half_width = (loads >= ENOUGH_LOADS).then(|| line.half_width(point.load));
        // A line that runs through zero is no measure for what is far from it.
        let typical = smaller.iter().map(|p| p.1.abs()).sum::<f64>() / smaller.len() as f64;
        let measure = expected.abs().max(typical);
        let limit = half_width.map_or(FAR * measure, |w| w.max(NEAR * measure)).max(least);
        if (point.value - expected).abs() > limit {
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
        values.iter().enumerate().map(|(i, &(load, value))| Point { name: name(i), load, value }).collect()
    }

    fn at(inflection: Inflection) -> Option<String> {
        match inflection {
            Inflection::At { point, .. } => Some(point.name),
            _ => None,
        }
    }

    #[test]
    fn too_few_smaller_loads_are_not_determinable() {
        let three = points(&[(4.0, 1.0), (8.0, 2.0), (16.0, 90.0)]);
        assert_eq!(inflection(&three, 0.0), Inflection::Unknown { smaller: 2 });
        // Many scenarios of one load are one load.
        let alike = points(&[(4.0, 1.0), (8.0, 2.0), (8.0, 2.0), (16.0, 90.0), (16.0, 4.0)]);
        assert_eq!(inflection(&alike, 0.0), Inflection::Unknown { smaller: 2 });
        assert_eq!(inflection(&[], 0.0), Inflection::Unknown { smaller: 0 });
    }

    #[test]
    fn the_matrix_of_the_runbook_is_enough() {
        let loads = [4.0, 8.0, 16.0, 32.0, 40.0, 80.0];
        let line = points(&loads.map(|x| (x, 2.0 + x)));
        assert_eq!(inflection(&line, 0.0), Inflection::Nowhere { tried: 3 });
        let kinked = points(&loads.map(|x| (x, if x > 32.0 { 34.0 + 9.0 * (x - 32.0) } else { 2.0 + x })));
        let found = inflection(&kinked, 0.0);
        assert_eq!(at(found.clone()).as_deref(), Some("S5"), "{found:?}");
        assert_eq!(at(inflection(&kinked, 1e6)), None, "less than matters");
    }

    #[test]
    fn scatter_widens_what_is_expected() {
        let scattered = [(4.0, 4.0), (8.0, 13.0), (16.0, 9.0), (32.0, 45.0), (40.0, 30.0), (80.0, 110.0)];
        assert_eq!(
            at(inflection(&points(&scattered), 0.0)).as_deref(),
            Some("S4"),
            "a factor decides of four"
        );
        let mild = [(4.0, 5.0), (8.0, 7.0), (16.0, 18.0), (32.0, 29.0), (40.0, 44.0), (80.0, 92.0)];
        let found = inflection(&points(&mild), 0.0);
        assert_eq!(found, Inflection::Nowhere { tried: 3 });
    }

    proptest! {
        #[test]
        fn a_straight_line_has_none(
            a in 0.0..1e9f64,
            b in -1e3..1e6f64,
            loads in prop::collection::btree_set(1u32..2_000, 4..12),
        ) {
            let line: Vec<(f64, f64)> = loads.iter().map(|&x| (f64::from(x), a + b * f64::from(x))).collect();
            let found = inflection(&points(&line), 0.0);
            let is_nowhere = matches!(found, Inflection::Nowhere { .. });
            prop_assert!(is_nowhere, "{:?}", found);
        }

        #[test]
        fn a_kink_is_found_at_the_first_load_behind_it(
            a in 0.0..50.0f64,
            b in 1.0..100.0f64,
            steeper in 8.0..50.0f64,
            kink in 3usize..7,
        ) {
            // Loads that double, as a matrix has them; the kink is at one of them.
            let loads: Vec<f64> = (0..8).map(|i| 4.0 * 2f64.powi(i)).collect();
            let k = loads[kink - 1];
            let bent: Vec<(f64, f64)> =
                loads.iter().map(|&x| (x, a + b * x + b * steeper * (x - k).max(0.0))).collect();
            let found = at(inflection(&points(&bent), 0.0));
            prop_assert_eq!(found, Some(format!("S{}", kink + 1)));
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
