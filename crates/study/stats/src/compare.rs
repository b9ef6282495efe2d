//! The comparison of one response between two conditions, A and B, from their runs.
//!
//! Runs are the unit: samples within a run depend on each other and share the run's luck, so that ten thousand frames
//! of one run say nothing about the next run. Effects are B less A, and B to A.

use serde::{Deserialize, Serialize};

use crate::error::{Error, not_negative, share};
use crate::fdr::Adjustment;
use crate::permute::permutation_p;
use crate::resample::{Statistic, hierarchical_bootstrap};
use crate::welch::{Welch, finite, t_quantile};
use crate::{Interval, Summary};

/// Runs of each side from which on intervals are bootstrapped: below, resamples of so few values are too coarse, and
/// Student's tails are the better guess.
pub const BOOTSTRAP_FROM: usize = 8;
/// Power with which [`Verdict::Unclear`] promises to see the effect that was observed.
const POWER: f64 = 0.8;
/// More runs a side are no advice.
const RUNS_MOST: usize = 10_000;

/// Which values of a response are good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Low ones (latency).
    Lower,
    /// High ones (frames per second).
    Higher,
    /// Neither.
    #[default]
    Neutral,
}

/// A difference that does not matter.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Margin {
    /// In the unit of the values.
    Absolute(f64),
    /// As a share of A's mean: 0.02 is 2 %.
    Relative(f64),
}

/// How the interval was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Method {
    /// [`Method::Wider`] from [`BOOTSTRAP_FROM`] runs on each side on, [`Method::Welch`] below.
    #[default]
    Auto,
    /// Welch's t on the values of the runs; the ratio by the logarithms of the means (delta method). Intervals of 90 %
    /// cover 90 to 93 % from 3 normal runs a side on, and 87 to 95 % for skewed ones, but 84 % where values are as skewed
    /// as an exponential and one side spreads three times as much as the other.
    Welch,
    /// The hierarchical bootstrap-t ([`hierarchical_bootstrap`]).
    Bootstrap,
    /// From the lower of both lower ends to the higher of both higher ends: each alone covers too rarely somewhere, the
    /// bootstrap where one run in ten is an outlier (80 % instead of 90), Welch's where skewed values spread unequally.
    /// Intervals of 90 % covered 86 to 95 % of the time for 8 to 20 runs a side, normal, lognormal (up to a standard
    /// deviation of the logarithm of 1), exponential and with outliers; not so for the difference (the ratio is fine)
    /// where one side's outliers are three times the other's.
    Wider,
}

/// How to compare.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct How {
    /// What a run with several samples says.
    pub statistic: Statistic,
    /// Of intervals, 0 to 1; a difference counts as seen from p = 1 - level down.
    pub level: f64,
    /// Which values are good.
    pub direction: Direction,
    /// What does not matter; `None`: any difference does.
    pub margin: Option<Margin>,
    /// Of the interval.
    pub method: Method,
    /// Resamples of the bootstrap.
    pub resamples: usize,
    /// Draws of the permutation test where not all ways are tried; 0: no permutation test then.
    pub permutations: usize,
    /// Of both.
    pub seed: u64,
}

impl Default for How {
    /// 95 %, neutral, no margin, 2,000 resamples and permutations.
    fn default() -> Self {
        Self {
            statistic: Statistic::Mean,
            level: 0.95,
            direction: Direction::Neutral,
            margin: None,
            method: Method::Auto,
            resamples: 2000,
            permutations: 2000,
            seed: 1,
        }
    }
}

/// An estimate, and how sure it is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// The best guess.
    pub estimate: f64,
    /// `None` when the runs cannot tell (fewer than two on a side).
    pub interval: Option<Interval>,
}

impl Effect {
    /// A ratio as the change from A to B in percent: 1.03 is +3.
    pub fn percent(&self) -> Self {
        let percent = |r: f64| 100.0 * (r - 1.0);
        let interval = self.interval.map(|i| Interval { low: percent(i.low), high: percent(i.high) });
        Self { estimate: percent(self.estimate), interval }
    }
}

/// What can be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// B is better than A.
    Better,
    /// B is worse than A.
    Worse,
    /// They differ, and nobody said which is good.
    Differs,
    /// The whole interval lies within the margin (which at an interval of 90 % is the pair of one-sided tests at 5 %),
    /// or every run of both sides gave one same value.
    NoDifferenceThatMatters,
    /// Neither a difference nor its absence is shown.
    Unclear {
        /// Runs a side that would show one of them if means and spreads stay as they are (with a power of 80 %);
        /// `None` when that cannot be told, or would be more than 10,000.
        runs: Option<usize>,
    },
}

/// A and B compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// Values of A's runs.
    pub a: Summary,
    /// Values of B's runs.
    pub b: Summary,
    /// B less A, in the unit of the values.
    pub difference: Effect,
    /// Mean of B to mean of A; `None` when a value is negative or a mean is 0.
    pub ratio: Option<Effect>,
    /// The difference in standard deviations between runs, corrected for few runs (Hedges 1981); `None` without spread.
    pub hedges_g: Option<f64>,
    /// Two-sided p-value of no difference: Welch's; the permutation test's where values have no spread.
    pub p: Option<f64>,
    /// That of the permutation test ([`permutation_p`]), beside `p`: it trusts no distribution, but with three runs a
    /// side it cannot fall below 0.1.
    pub p_permutation: Option<f64>,
    /// p-value of a difference outside of the margin (two one-sided tests).
    pub p_equivalence: Option<f64>,
    /// `p` adjusted for the other indicators compared at once, set by [`control`].
    pub p_adjusted: Option<f64>,
    /// How the interval was made: never `Auto`.
    pub method: Method,
    /// Of intervals.
    pub level: f64,
    /// Which values are good.
    pub direction: Direction,
    /// What does not matter.
    pub margin: Option<Margin>,
    /// What can be said.
    pub verdict: Verdict,
}

/// Compares B with A. Each run is its samples in order of time; a run of one sample is a value of that run. Samples
/// that are not finite are left out, and so are runs without any other.
///
/// # Errors
///
/// Settings out of range, a side without a finite value, values too large to be summed.
pub fn compare<R: AsRef<[f64]>>(a: &[R], b: &[R], how: &How) -> Result<Comparison, Error> {
    check(how)?;
    let side = |name, runs: &[R]| {
        let said = |r: &R| how.statistic.of(r.as_ref());
        let runs: Vec<Vec<f64>> =
            runs.iter().filter(|r| said(r).is_some()).map(|r| r.as_ref().to_vec()).collect();
        let values: Vec<f64> = runs.iter().filter_map(|r| how.statistic.of(r)).collect();
        let lost = values.iter().any(|v| !v.is_finite()) || values.len() != runs.len();
        let s = Summary::of(&values).ok_or(if lost {
            Error::TooLarge { name }
        } else {
            Error::Empty { name }
        })?;
        if lost || !s.mean.is_finite() || !s.sd.is_finite() {
            return Err(Error::TooLarge { name });
        }
        Ok((runs, values, s))
    };
    let (a_runs, a_values, a) = side("A", a)?;
    let (b_runs, b_values, b) = side("B", b)?;
    let welch = Welch::difference(&a, &b);
    let log_ratio = Welch::log_ratio(&a, &b);
    let enough = a.n.min(b.n) >= BOOTSTRAP_FROM;
    let method = match how.method {
        Method::Auto if enough => Method::Wider,
        Method::Auto => Method::Welch,
        given => given,
    };
    let resampled = (method != Method::Welch)
        .then(|| hierarchical_bootstrap(&a_runs, &b_runs, how.statistic, how.level, how.resamples, how.seed))
        .flatten();
    let by_welch = |w: Option<Welch>| w.and_then(|w| w.interval(how.level));
    let joined = |resampled: Option<Interval>, welch: Option<Interval>| match (resampled, welch) {
        (Some(r), Some(w)) if method == Method::Wider => {
            Some(Interval { low: r.low.min(w.low), high: r.high.max(w.high) })
        }
        (r, w) => r.or(w),
    };
    let has_ratio = |s: &Summary| s.min >= 0.0 && s.mean > 0.0;
    let ratio = (has_ratio(&a) && has_ratio(&b) && (b.mean / a.mean).is_finite()).then(|| {
        let welch = by_welch(log_ratio).and_then(|i| finite(i.low.exp(), i.high.exp()));
        Effect { estimate: b.mean / a.mean, interval: joined(resampled.and_then(|r| r.ratio), welch) }
    });
    let estimate = b.mean - a.mean;
    if !estimate.is_finite() {
        return Err(Error::TooLarge { name: "A and B" });
    }
    let interval = joined(resampled.map(|r| r.difference), by_welch(welch));
    let p_permutation = permutation_p(&a_values, &b_values, how.permutations, how.seed);
    let spread = welch.filter(|w| w.se > 0.0);
    let mut comparison = Comparison {
        a,
        b,
        difference: Effect { estimate, interval },
        ratio,
        hedges_g: hedges(&a, &b),
        p: match spread {
            Some(w) => w.p(),
            None => p_permutation,
        },
        p_permutation,
        p_equivalence: None,
        p_adjusted: None,
        method: if resampled.is_some() { method } else { Method::Welch },
        level: how.level,
        direction: how.direction,
        margin: how.margin,
        verdict: Verdict::Unclear { runs: None },
    };
    comparison.p_equivalence = comparison.outside(spread, log_ratio);
    comparison.verdict = comparison.judge();
    Ok(comparison)
}

/// [`compare`] for one value a run.
///
/// # Errors
///
/// Those of [`compare`].
pub fn compare_values(a: &[f64], b: &[f64], how: &How) -> Result<Comparison, Error> {
    let runs = |values: &[f64]| values.iter().map(|v| [*v]).collect::<Vec<_>>();
    compare(&runs(a), &runs(b), how)
}

/// The p-value that [`compare_values`] would give without a permutation test by random draws.
pub(crate) fn quick_p(a: &[f64], b: &[f64]) -> Option<f64> {
    let finite = |values: &[f64]| values.iter().copied().filter(|v| v.is_finite()).collect::<Vec<_>>();
    let (a, b) = (finite(a), finite(b));
    match Welch::difference(&Summary::of(&a)?, &Summary::of(&b)?)? {
        w if w.se > 0.0 => w.p(),
        _ => permutation_p(&a, &b, 0, 0),
    }
}

/// Adjusts the p-values of indicators that were compared at once, and gives each its verdict anew: only discoveries
/// are called differences. "No difference that matters" stays, as it is not a discovery.
pub fn control(comparisons: &mut [Comparison], adjustment: Adjustment) {
    let p: Vec<f64> = comparisons.iter().map(|c| c.p.unwrap_or(f64::NAN)).collect();
    for (comparison, adjusted) in comparisons.iter_mut().zip(adjustment.adjust(&p)) {
        comparison.p_adjusted = adjusted;
        comparison.verdict = comparison.judge();
    }
}

/// Checks settings.
pub(crate) fn check(how: &How) -> Result<(), Error> {
    share("the level", how.level)?;
    if let Statistic::Quantile(q) = how.statistic
        && !(0.0..=1.0).contains(&q)
    {
        return Err(Error::Share { name: "the quantile", value: q });
    }
    match how.margin {
        Some(Margin::Absolute(m) | Margin::Relative(m)) => not_negative("the margin", m).map(drop),
        None => Ok(()),
    }
}

impl Comparison {
    /// The margin in the unit of the values.
    fn margin_absolute(&self) -> Option<f64> {
        match self.margin? {
            Margin::Absolute(m) => Some(m),
            Margin::Relative(m) => Some(m * self.a.mean.abs()),
        }
    }

    /// The interval and the margin around nothing, on the scale on which the margin was given.
    fn within_margin(&self) -> Option<bool> {
        if let (Some(Margin::Relative(m)), Some(ratio)) = (self.margin, &self.ratio) {
            return ratio.interval.map(|i| 1.0 - m <= i.low && i.high <= 1.0 + m);
        }
        let (m, i) = (self.margin_absolute()?, self.difference.interval?);
        Some(-m <= i.low && i.high <= m)
    }

    fn outside(&self, difference: Option<Welch>, log_ratio: Option<Welch>) -> Option<f64> {
        if let (Some(Margin::Relative(m)), Some(w)) = (self.margin, log_ratio.filter(|w| w.se > 0.0)) {
            let low = if m < 1.0 { (-m).ln_1p() } else { f64::NEG_INFINITY };
            return w.p_outside(low, m.ln_1p());
        }
        let m = self.margin_absolute()?;
        difference?.p_outside(-m, m)
    }

    fn judge(&self) -> Verdict {
        let same = self.a.min == self.b.max && self.b.min == self.a.max;
        if self.a.n > 1 && self.b.n > 1 && same {
            return Verdict::NoDifferenceThatMatters;
        }
        if self.within_margin() == Some(true) {
            return Verdict::NoDifferenceThatMatters;
        }
        let apart = |i: Interval| i.low > 0.0 || i.high < 0.0;
        let seen = self.p_adjusted.or(self.p).is_some_and(|p| p <= 1.0 - self.level + 1e-12);
        if seen && self.difference.interval.is_some_and(apart) {
            let higher = self.difference.estimate > 0.0;
            return match (self.direction, higher) {
                (Direction::Neutral, _) => Verdict::Differs,
                (Direction::Higher, true) | (Direction::Lower, false) => Verdict::Better,
                (Direction::Higher, false) | (Direction::Lower, true) => Verdict::Worse,
            };
        }
        Verdict::Unclear { runs: self.runs_to_tell() }
    }

    /// Runs a side that would show a difference or its absence, as observed.
    fn runs_to_tell(&self) -> Option<usize> {
        let now = self.a.n.min(self.b.n);
        let spread = self.a.sd.hypot(self.b.sd);
        if now < 2 || spread == 0.0 {
            return None;
        }
        let d = self.difference.estimate.abs();
        let (tail, room) = ((1.0 - self.level) / 2.0, self.margin_absolute().map(|m| m - d));
        let tells = |n: usize| {
            let (df, se) = (2.0 * (n - 1) as f64, spread / (n as f64).sqrt());
            let Some((t, power)) = t_quantile(df, 1.0 - tail).zip(t_quantile(df, POWER)) else {
                return false;
            };
            (t + power) * se <= d || room.is_some_and(|room| t * se <= room)
        };
        let (mut low, mut high) = (now, RUNS_MOST);
        if !tells(high) {
            return None;
        }
        // The least number that tells lies above `low`, as `now` did not.
        while low + 1 < high {
            let middle = low.midpoint(high);
            if tells(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

/// Hedges' g with the correction J = 1 - 3 / (4 df - 1).
fn hedges(a: &Summary, b: &Summary) -> Option<f64> {
    if a.n + b.n < 4 || a.n < 2 || b.n < 2 {
        return None;
    }
    let df = (a.n + b.n - 2) as f64;
    let (wa, wb) = ((a.n - 1) as f64 / df, (b.n - 1) as f64 / df);
    let pooled = (a.sd * wa.sqrt()).hypot(b.sd * wb.sqrt());
    let g = (b.mean - a.mean) / pooled * (1.0 - 3.0 / (4.0 * df - 1.0));
    g.is_finite().then_some(g)
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
