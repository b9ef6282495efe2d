//! The difference and the ratio of two means whose spreads may differ (Welch 1947).

use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::{Interval, Summary};

/// An estimate with the standard error and the degrees of freedom of Welch and Satterthwaite.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Welch {
    pub(crate) estimate: f64,
    pub(crate) se: f64,
    pub(crate) df: f64,
}

impl Welch {
    /// Of the mean of `b` less that of `a`; `None` below two values on a side.
    pub(crate) fn difference(a: &Summary, b: &Summary) -> Option<Self> {
        Self::of(b.mean - a.mean, [(a.sd, a.n), (b.sd, b.n)])
    }

    /// Of the logarithm of the ratio of the means, b to a, by the delta method; `None` below two values on a side, when
    /// a value is negative or a mean is not positive.
    pub(crate) fn log_ratio(a: &Summary, b: &Summary) -> Option<Self> {
        let positive = |s: &Summary| s.min >= 0.0 && s.mean > 0.0;
        if !positive(a) || !positive(b) {
            return None;
        }
        Self::of((b.mean / a.mean).ln(), [(a.sd / a.mean, a.n), (b.sd / b.mean, b.n)])
    }

    fn of(estimate: f64, sides: [(f64, usize); 2]) -> Option<Self> {
        if sides.iter().any(|s| s.1 < 2) || !estimate.is_finite() {
            return None;
        }
        // In units of the larger spread, so that squares of huge and of tiny ones hold.
        let unit = sides[0].0.max(sides[1].0);
        if !unit.is_finite() {
            return None;
        }
        if unit == 0.0 {
            return Some(Self { estimate, se: 0.0, df: (sides[0].1 + sides[1].1 - 2) as f64 });
        }
        let parts = sides.map(|(sd, n)| (sd / unit).powi(2) / n as f64);
        let sum = parts[0] + parts[1];
        let below: f64 = parts.iter().zip(sides).map(|(v, (_, n))| v * v / (n - 1) as f64).sum();
        let se = unit * sum.sqrt();
        (se.is_finite()).then_some(Self { estimate, se, df: (sum * sum / below).max(1.0) })
    }

    /// The interval of `level`; `None` when its ends are not finite.
    pub(crate) fn interval(&self, level: f64) -> Option<Interval> {
        let half = t_quantile(self.df, 0.5 + level / 2.0)? * self.se;
        finite(self.estimate - half, self.estimate + half)
    }

    /// Two-sided p-value of the hypothesis that the truth is 0; `None` without spread, where t says nothing.
    pub(crate) fn p(&self) -> Option<f64> {
        Some((2.0 * t_above(self.df, (self.estimate / self.se).abs())?).min(1.0))
    }

    /// p-value of the hypothesis that the truth lies outside of `low` to `high`: the larger of two one-sided tests
    /// (Schuirmann 1987).
    pub(crate) fn p_outside(&self, low: f64, high: f64) -> Option<f64> {
        let above = t_above(self.df, (self.estimate - low) / self.se)?;
        Some(above.max(t_above(self.df, (high - self.estimate) / self.se)?))
    }
}

/// An interval with finite ends.
pub(crate) fn finite(low: f64, high: f64) -> Option<Interval> {
    (low.is_finite() && high.is_finite()).then_some(Interval { low, high })
}

/// The quantile `q` of Student's t.
pub(crate) fn t_quantile(df: f64, q: f64) -> Option<f64> {
    Some(StudentsT::new(0.0, 1.0, df).ok()?.inverse_cdf(q))
}

/// The chance that Student's t is larger than `t`.
pub(crate) fn t_above(df: f64, t: f64) -> Option<f64> {
    if t.is_nan() {
        return None;
    }
    Some(StudentsT::new(0.0, 1.0, df).ok()?.sf(t.clamp(-1e150, 1e150)).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worked_example_of_welchs_test_comes_out() {
        let (a, b) = ([1.0, 2.0, 3.0, 4.0], [2.0, 4.0, 6.0, 8.0, 10.0]);
        let w = Welch::difference(&Summary::of(&a).unwrap(), &Summary::of(&b).unwrap()).unwrap();
        // Variances 5/3 and 10: se^2 = 5/12 + 2, df = se^4 / ((5/12)^2 / 3 + 2^2 / 4).
        assert!((w.se * w.se - 29.0 / 12.0).abs() < 1e-12 && (w.df - 5.520_787_746).abs() < 1e-6, "{w:?}");
        // By integrating the density of t numerically.
        assert!((w.p().unwrap() - 0.069_133_593).abs() < 1e-6, "{:?}", w.p());
    }
}
