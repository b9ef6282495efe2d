//! What a design can see.

use serde::{Deserialize, Serialize};
use statrs::distribution::{ChiSquared, ContinuousCDF, Normal};

use crate::error::{Error, not_negative, share};
use crate::welch::t_quantile;

/// Steps of the integral over the chi-squared distribution of the variance.
const STEPS: usize = 400;

/// What is to be seen, and how sure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Precision {
    /// 1 less the chance of seeing an effect where there is none, 0 to 1.
    pub level: f64,
    /// Chance of seeing the effect, 0 to 1.
    pub power: f64,
}

impl Default for Precision {
    /// The usual 95 % and 80 %.
    fn default() -> Self {
        Self { level: 0.95, power: 0.8 }
    }
}

/// The power of a two-sided test of a two-level main effect: `effect` is the mean at the high level less that at the
/// low one, over `points` points (half of them at each level), each run `repeats` times, where runs at one point have
/// the standard deviation `sd` (same unit). `terms` are the parameters estimated from the same runs, the mean included:
/// for main effects alone, 1 + factors. From the noncentral t distribution, integrated numerically.
///
/// # Errors
///
/// A level outside of 0 to 1; no run beyond the terms; numbers that are not finite.
pub fn power(
    effect: f64,
    points: usize,
    repeats: usize,
    terms: usize,
    sd: f64,
    level: f64,
) -> Result<f64, Error> {
    share("the level", level)?;
    not_negative("the effect", effect.abs())?;
    let test = Test::new(points, repeats, terms, sd, level)?;
    if test.se == 0.0 {
        return Ok(if effect == 0.0 { 1.0 - level } else { 1.0 });
    }
    Ok(test.power(effect.abs() / test.se))
}

/// The smallest two-level main effect (mean at the high level less that at the low one, in the unit of `sd`) that a
/// design resolves: is seen at `precision.level` with a chance of `precision.power`. Arguments as for [`power`].
///
/// # Errors
///
/// Those of [`power`], and a power outside of 0 to 1 or not above the chance of a false finding.
pub fn resolvable_effect(
    points: usize,
    repeats: usize,
    terms: usize,
    sd: f64,
    precision: Precision,
) -> Result<f64, Error> {
    share("the level", precision.level)?;
    share("the power", precision.power)?;
    let test = Test::new(points, repeats, terms, sd, precision.level)?;
    if precision.power <= 1.0 - precision.level {
        return Err(Error::Share {
            name: "the power (at most the chance of a false finding)",
            value: precision.power,
        });
    }
    let (mut low, mut high) = (0.0, 1.0);
    while test.power(high) < precision.power && high < 1e12 {
        (low, high) = (high, 2.0 * high);
    }
    for _ in 0..60 {
        let middle = f64::midpoint(low, high);
        if test.power(middle) < precision.power { low = middle } else { high = middle }
    }
    Ok(high * test.se)
}

struct Test {
    /// Of the effect.
    se: f64,
    /// |t| beyond which it is seen.
    t: f64,
    /// The estimate of the standard deviation by the true one, at equally likely steps.
    spread: Vec<f64>,
}

impl Test {
    fn new(points: usize, repeats: usize, terms: usize, sd: f64, level: f64) -> Result<Self, Error> {
        not_negative("the standard deviation", sd)?;
        let runs = points.saturating_mul(repeats);
        let refused = || Error::Design {
            why: format!(
                "{runs} runs leave none to estimate the noise beside {terms} terms; repeat each point"
            ),
        };
        let df = runs.checked_sub(terms.max(2)).filter(|df| *df > 0).ok_or_else(refused)? as f64;
        let t = t_quantile(df, 0.5 + level / 2.0).ok_or_else(refused)?;
        let chi = ChiSquared::new(df).map_err(|_| refused())?;
        let at = |i: usize| (chi.inverse_cdf((i as f64 + 0.5) / STEPS as f64) / df).sqrt();
        Ok(Self { se: 2.0 * sd / (runs as f64).sqrt(), t, spread: (0..STEPS).map(at).collect() })
    }

    /// Power for an effect of `delta` standard errors.
    fn power(&self, delta: f64) -> f64 {
        let normal = Normal::standard();
        let seen = |s: &f64| normal.cdf(delta - self.t * s) + normal.cdf(-delta - self.t * s);
        self.spread.iter().map(seen).sum::<f64>() / STEPS as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn textbook_powers_come_out() {
        // power.t.test(n = 17, delta = 1, sd = 1) of R: 0.807; two groups of 17 are 34 points.
        assert!((power(1.0, 34, 1, 2, 1.0, 0.95).unwrap() - 0.807).abs() < 2e-3);
        // power.t.test(n = 4, delta = 2, sd = 1): 0.663 (two-sided, other tail negligible).
        assert!((power(2.0, 8, 1, 2, 1.0, 0.95).unwrap() - 0.663).abs() < 2e-2);
        let effect = resolvable_effect(34, 1, 2, 1.0, Precision::default()).unwrap();
        assert!((effect - 0.99).abs() < 0.01, "{effect}");
    }

    #[test]
    fn more_runs_resolve_smaller_effects_in_the_unit_of_the_spread() {
        let of =
            |points, repeats, sd| resolvable_effect(points, repeats, 5, sd, Precision::default()).unwrap();
        assert!(of(8, 2, 1.0) < of(8, 1, 1.0) && of(16, 1, 1.0) < of(8, 1, 1.0));
        assert!((of(8, 2, 3.0) / of(8, 2, 1.0) - 3.0).abs() < 1e-6);
        assert_eq!(of(8, 2, 0.0), 0.0);
    }

    #[test]
    fn what_cannot_be_resolved_is_refused() {
        let refused =
            |points, terms, sd| resolvable_effect(points, 1, terms, sd, Precision::default()).is_err();
        assert!(refused(8, 8, 1.0) && refused(0, 1, 1.0) && refused(8, 2, f64::NAN) && refused(8, 2, -1.0));
        assert!(power(f64::NAN, 8, 1, 2, 1.0, 0.95).is_err() && power(1.0, 8, 1, 2, 1.0, 1.0).is_err());
        assert!(resolvable_effect(8, 2, 2, 1.0, Precision { level: 0.95, power: 0.01 }).is_err());
    }
}
