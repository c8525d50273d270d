//! The arithmetic behind: correlation, a straight line and how far the next point may lie from it.

use std::f64::consts::FRAC_PI_2;

/// Pearson's r, −1 to 1; `None` with fewer than three points or when one side does not vary.
pub(super) fn pearson(points: &[(f64, f64)]) -> Option<f64> {
    let n = points.len() as f64;
    let (mx, my) = mean(points);
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (x, y) in points {
        xx += (x - mx).powi(2);
        yy += (y - my).powi(2);
        xy += (x - mx) * (y - my);
    }
    // What is left of equal numbers by rounding is no spread.
    let varies = |ss: f64, m: f64| ss > n * (m.abs() * 1e-12).powi(2) && ss > 0.0;
    (points.len() > 2 && varies(xx, mx) && varies(yy, my)).then(|| (xy / (xx * yy).sqrt()).clamp(-1.0, 1.0))
}

/// Spearman's ρ: Pearson's r of the ranks, equal values sharing the mean of theirs.
pub(super) fn spearman(points: &[(f64, f64)]) -> Option<f64> {
    let xs = ranks(points.iter().map(|p| p.0).collect());
    let ys = ranks(points.iter().map(|p| p.1).collect());
    pearson(&xs.into_iter().zip(ys).collect::<Vec<_>>())
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len().max(1) as f64;
    (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
}

fn ranks(values: Vec<f64>) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut from = 0;
    while from < order.len() {
        let alike = order[from..].iter().take_while(|&&i| values[i] == values[order[from]]).count();
        let rank = (2 * from + alike - 1) as f64 / 2.0;
        order[from..from + alike].iter().for_each(|&i| ranks[i] = rank);
        from += alike;
    }
    ranks
}

/// The median as everywhere in the reports: of two middle values the lower; `None` without values.
pub(super) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let n = values.len();
    (n > 0).then(|| values[(n - 1) / 2])
}

/// A straight line through points, by least squares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fitted {
    intercept: f64,
    slope: f64,
    n: f64,
    mean_x: f64,
    xx: f64,
    /// Residual sum of squares.
    residual: f64,
}

impl Fitted {
    /// `None` with fewer than three points or without spread in x.
    pub(super) fn through(points: &[(f64, f64)]) -> Option<Self> {
        let (mx, my) = mean(points);
        let xx: f64 = points.iter().map(|p| (p.0 - mx).powi(2)).sum();
        if points.len() < 3 || xx <= 0.0 {
            return None;
        }
        let slope = points.iter().map(|p| (p.0 - mx) * (p.1 - my)).sum::<f64>() / xx;
        let intercept = my - slope * mx;
        let residual = points.iter().map(|p| (p.1 - intercept - slope * p.0).powi(2)).sum();
        Some(Self { intercept, slope, n: points.len() as f64, mean_x: mx, xx, residual })
    }

    /// What the line says at `x`.
    pub(super) fn at(&self, x: f64) -> f64 {
        self.intercept + self.slope * x
    }

    /// Half of the 95 % prediction interval of the median of `m` more points at `x`:
    /// t(n−2, 97.5 %) · s · √(v + 1/n + (x − x̄)²/Sxx) (Draper & Smith, *Applied Regression
    /// Analysis*, on fitting a straight line). There v is the variance of that median for s = 1:
    /// 1/m of one or two, where it is the mean, else π/2 of that (Kendall & Stuart, *The Advanced
    /// Theory of Statistics*, on the standard errors of quantiles).
    pub(super) fn half_width(&self, x: f64, m: usize) -> f64 {
        let freedom = self.n - 2.0;
        let s = (self.residual / freedom).sqrt();
        let of_median = if m > 2 { FRAC_PI_2 / m as f64 } else { 1.0 / m.max(1) as f64 };
        student(freedom as usize)
            * s
            * (of_median + 1.0 / self.n + (x - self.mean_x).powi(2) / self.xx).sqrt()
    }
}

/// The 97.5 % quantile of Student's t. Beyond the table its expansion for many degrees of freedom
/// (Abramowitz & Stegun 26.7.5, first term).
fn student(freedom: usize) -> f64 {
    const TABLE: [f64; 20] = [
        12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
    ];
    match freedom {
        0 => f64::INFINITY,
        f => TABLE.get(f - 1).copied().unwrap_or_else(|| 1.960 + 2.372 / f as f64),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop, prop_assert, prop_assert_eq, proptest};

    use super::*;

    #[test]
    fn known_values_come_out() {
        // Anscombe's first set: r = 0.816, y = 3.00 + 0.500 x, residual sum of squares 13.76.
        let x = [10.0, 8.0, 13.0, 9.0, 11.0, 14.0, 6.0, 4.0, 12.0, 7.0, 5.0];
        let y = [8.04, 6.95, 7.58, 8.81, 8.33, 9.96, 7.24, 4.26, 10.84, 4.82, 5.68];
        let points: Vec<(f64, f64)> = x.into_iter().zip(y).collect();
        assert!((pearson(&points).unwrap() - 0.81642).abs() < 1e-4);
        assert!((spearman(&points).unwrap() - 0.81818).abs() < 1e-4);
        let line = Fitted::through(&points).unwrap();
        assert!((line.at(0.0) - 3.0001).abs() < 1e-3 && (line.slope - 0.50009).abs() < 1e-4);
        assert!((line.residual - 13.7627).abs() < 1e-3);
        // t(9) = 2.262, s = 1.2366, √(1 + 1/11 + 9²/110 ) = 1.3521 at x = 18.
        assert!((line.half_width(18.0, 1) - 2.262 * 1.2366 * 1.3521).abs() < 1e-2);
        assert!((student(30) - 2.042).abs() < 5e-3 && (student(120) - 1.980).abs() < 1e-3);
    }

    #[test]
    fn without_spread_nothing_is_said() {
        assert_eq!(pearson(&[(1.0, 2.0), (1.0, 3.0), (1.0, 4.0)]), None);
        assert_eq!(pearson(&[(1.0, 2.0), (2.0, 3.0)]), None);
        assert_eq!(spearman(&[(1.0, 2.0), (2.0, 2.0), (3.0, 2.0)]), None);
        assert!(Fitted::through(&[(1.0, 1.0), (1.0, 2.0), (1.0, 3.0)]).is_none());
        assert_eq!((median(Vec::new()), median(vec![3.0, 1.0, 2.0, 9.0])), (None, Some(2.0)));
    }

    #[test]
    fn equal_values_share_their_rank() {
        assert_eq!(ranks(vec![5.0, 1.0, 5.0, 0.0]), [2.5, 1.0, 2.5, 0.0]);
    }

    proptest! {
        #[test]
        fn what_only_rises_has_rank_correlation_one(xs in prop::collection::btree_set(-1_000i32..1_000, 3..40)) {
            let points: Vec<(f64, f64)> = xs.iter().map(|&x| (f64::from(x), f64::from(x).powi(3))).collect();
            prop_assert!((spearman(&points).unwrap() - 1.0).abs() < 1e-9);
            prop_assert!(pearson(&points).unwrap() <= 1.0);
        }

        #[test]
        fn correlation_is_symmetric(points in prop::collection::vec((-1e6..1e6f64, -1e6..1e6f64), 3..40)) {
            let turned: Vec<(f64, f64)> = points.iter().map(|&(x, y)| (y, x)).collect();
            let (a, b) = (pearson(&points), pearson(&turned));
            prop_assert_eq!(a.is_some(), b.is_some());
            if let (Some(a), Some(b)) = (a, b) {
                prop_assert!((a - b).abs() < 1e-9 && (-1.0..=1.0).contains(&a));
            }
        }
    }
}
