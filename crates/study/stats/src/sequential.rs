//! When enough runs have been made, by a method that stays valid however often one looks.
//!
//! An interval of Student that is looked at after each run and stops the campaign once it suits holds the truth less
//! often than it says: each look is another chance to err. A confidence sequence holds the truth at all looks at once
//! with the stated chance, at the price of about twice the width.

use serde::{Deserialize, Serialize};

use crate::error::{Error, not_negative, share};
use crate::welch::finite;
use crate::{Interval, Summary};

/// Runs for which [`Sequence::new`] makes the interval narrowest by default: about what a campaign can pay.
pub const BEST_AT: usize = 10;
/// Values that are all equal show no spread; from so many on they are believed to have none.
pub const EQUAL_FROM: usize = 5;
/// More runs are not foretold.
const RUNS_MOST: usize = 100_000;

/// A confidence sequence for the mean of independent normal values of unknown spread.
///
/// It inverts the scale-invariant mixture e-process: the t-statistic's likelihood ratio with the effect (mean by
/// standard deviation) spread normally with variance g (Lai 1976; Rouder and others 2009; Wang and Ramdas 2025,
/// "Anytime-valid t-tests and confidence sequences for Gaussian means with unknown variance", theorem 4.9). That is a
/// martingale from the first value on, so Ville's inequality bounds the chance of ever leaving the truth out, for normal
/// values exactly and from the start. For others the simulations of this crate say how much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sequence {
    level: f64,
    variance: f64,
}

impl Sequence {
    /// At `level` (0.95), narrowest at `best_at` values ([`BEST_AT`]; 3 or more). Both must be settled before values
    /// are seen.
    ///
    /// # Errors
    ///
    /// A level outside of 0 to 1.
    pub fn new(level: f64, best_at: usize) -> Result<Self, Error> {
        share("the level", level)?;
        // Effects from a hundredth of a standard deviation to a hundred of them; the optimum is flat.
        let grid = (0..=160).map(|i| 10f64.powf(-4.0 + f64::from(i) / 20.0));
        let width =
            |g: f64| Self { level, variance: g }.factor(best_at.clamp(3, RUNS_MOST)).unwrap_or(f64::MAX);
        let best = grid.fold((f64::MAX, 1.0), |best, g| {
            let w = width(g);
            if w < best.0 { (w, g) } else { best }
        });
        Ok(Self { level, variance: best.1 })
    }

    /// Half the width in sample standard deviations at `n` values; `None` where it is infinite.
    fn factor(&self, n: usize) -> Option<f64> {
        if n < 2 {
            return None;
        }
        let n = n as f64;
        let r = 1.0 / (1.0 + n * self.variance);
        // E = sqrt(r) ((1 + x) / (1 + r x))^(n/2) < 1 / (1 - level), where x = t^2 / (n - 1).
        let q = ((-(1.0 - self.level).ln() - 0.5 * r.ln()) * 2.0 / n).exp();
        let x = (q - 1.0) / (1.0 - q * r);
        (q * r < 1.0 && x.is_finite()).then(|| ((n - 1.0) * x / n).sqrt())
    }

    /// The number of values from which on there is an interval (5 at 95 % with the default, 3 when best at 3).
    pub fn start(&self) -> usize {
        (2..RUNS_MOST).find(|n| self.factor(*n).is_some()).unwrap_or(RUNS_MOST)
    }

    /// The interval after these values, in any order; those that are not finite are left out. `None` before
    /// [`Sequence::start`], and for equal values before [`EQUAL_FROM`].
    pub fn interval(&self, values: &[f64]) -> Option<Interval> {
        let s = Summary::of(values)?;
        if s.sd == 0.0 {
            return (s.n >= EQUAL_FROM.max(self.start())).then_some(Interval { low: s.mean, high: s.mean });
        }
        let half = self.factor(s.n)? * s.sd;
        finite(s.mean - half, s.mean + half)
    }

    /// Whether the mean is known well enough after these values. May be asked after each of them.
    ///
    /// # Errors
    ///
    /// A target that is negative or no number.
    pub fn look(&self, values: &[f64], target: Target) -> Result<Look, Error> {
        let (Target::Absolute(wanted) | Target::Relative(wanted)) = target;
        not_negative("the target", wanted)?;
        let mut look = Look {
            interval: self.interval(values),
            half_width: None,
            target: None,
            enough: false,
            runs: None,
        };
        let Some(s) = Summary::of(values) else { return Ok(look) };
        let wanted = match target {
            Target::Absolute(_) => wanted,
            Target::Relative(_) => wanted * s.mean.abs(),
        };
        look.target = Some(wanted).filter(|w| w.is_finite());
        look.half_width = look.interval.map(|i| i.high / 2.0 - i.low / 2.0);
        look.enough = look.half_width.is_some_and(|half| half <= wanted);
        look.runs = if look.enough { Some(s.n) } else { self.runs(&s, wanted) };
        Ok(look)
    }

    /// The least number of values at which the interval would be narrow enough if the spread stays.
    fn runs(&self, s: &Summary, wanted: f64) -> Option<usize> {
        if s.n < 2 {
            return None;
        }
        if s.sd == 0.0 {
            return Some(EQUAL_FROM.max(self.start()));
        }
        let narrow = |n: usize| self.factor(n).is_some_and(|f| f * s.sd <= wanted);
        if !narrow(RUNS_MOST) {
            return None;
        }
        let (mut low, mut high) = (s.n, RUNS_MOST);
        while low + 1 < high {
            let middle = low.midpoint(high);
            if narrow(middle) { high = middle } else { low = middle }
        }
        Some(high)
    }
}

/// How narrow an interval has to be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Target {
    /// Half its width, in the unit of the values.
    Absolute(f64),
    /// Half its width as a share of the mean so far: 0.02 is 2 %.
    Relative(f64),
}

/// What is known after some runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Of the mean; valid at every look.
    pub interval: Option<Interval>,
    /// Half its width, in the unit of the values.
    pub half_width: Option<f64>,
    /// The half width wanted, in the same unit.
    pub target: Option<f64>,
    /// Whether to stop.
    pub enough: bool,
    /// Runs in all that are expected to be enough if the spread stays; `None` when that cannot be told, or would be
    /// more than 100,000.
    pub runs: Option<usize>,
}

/// The interval of the mean after these values, valid at every number of them: [`Sequence::interval`] with the default
/// [`BEST_AT`]. `None` for too few values and for a level outside of 0 to 1.
pub fn confidence_sequence(values: &[f64], level: f64) -> Option<Interval> {
    Sequence::new(level, BEST_AT).ok()?.interval(values)
}

/// Whether these values are enough: [`Sequence::look`] with the default [`BEST_AT`].
///
/// # Errors
///
/// A level outside of 0 to 1, a target that is negative or no number.
pub fn enough(values: &[f64], target: Target, level: f64) -> Result<Look, Error> {
    Sequence::new(level, BEST_AT)?.look(values, target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_start_is_early_and_the_width_about_twice_students() {
        let s = Sequence::new(0.95, BEST_AT).unwrap();
        assert_eq!(s.start(), 5, "{s:?}");
        // Half widths of Student at 95 %, in standard deviations: t / sqrt(n).
        for (n, student, most) in [(5, 1.242, 2.6), (10, 0.715, 1.8), (30, 0.373, 1.8), (100, 0.198, 2.0)] {
            let ratio = s.factor(n).unwrap() / student;
            assert!(ratio > 1.0 && ratio < most, "{n}: {ratio}");
        }
        assert!(Sequence::new(0.95, 3).unwrap().start() == 3);
    }

    #[test]
    fn the_width_is_where_the_martingale_reaches_its_bound() {
        let s = Sequence::new(0.95, BEST_AT).unwrap();
        for n in [5usize, 20, 200] {
            let f = s.factor(n).unwrap();
            let (nf, g) = (n as f64, s.variance);
            let x = f * f * nf / (nf - 1.0);
            let e = (1.0 + nf * g).powf(-0.5) * ((1.0 + x) / (1.0 + x / (1.0 + nf * g))).powf(nf / 2.0);
            assert!((e - 20.0).abs() < 1e-6, "{n}: {e}");
        }
    }

    #[test]
    fn a_look_says_whether_to_stop_and_how_many_runs_to_expect() {
        let values: Vec<f64> = (0..30).map(|i| 100.0 + f64::from(i % 3) - 1.0).collect();
        let look = enough(&values, Target::Relative(0.01), 0.95).unwrap();
        assert!(look.enough && look.runs == Some(30), "{look:?}");
        assert!((look.target.unwrap() - 1.0).abs() < 1e-9, "{look:?}");
        let look = enough(&values, Target::Absolute(0.25), 0.95).unwrap();
        assert!(!look.enough && (80..180).contains(&look.runs.unwrap()), "{look:?}");
        assert_eq!(enough(&values[..1], Target::Absolute(1.0), 0.95).unwrap().runs, None);
        assert_eq!(enough(&values, Target::Absolute(0.0), 0.95).unwrap().runs, None);
    }

    #[test]
    fn equal_values_are_believed_from_the_fifth_on() {
        assert_eq!(confidence_sequence(&[2.0; 4], 0.95), None);
        assert_eq!(confidence_sequence(&[2.0; 5], 0.95), Some(Interval { low: 2.0, high: 2.0 }));
    }

    proptest! {
        #[test]
        fn hostile_values_do_no_harm(
            values in prop::collection::vec(prop::num::f64::ANY, 0..12),
            target in prop::num::f64::ANY,
            level in prop_oneof![prop::num::f64::ANY, 0.0..1.0f64],
        ) {
            if let Some(i) = confidence_sequence(&values, level) {
                prop_assert!(i.low <= i.high && i.low.is_finite() && i.high.is_finite());
            }
            for t in [Target::Absolute(target), Target::Relative(target)] {
                if let Ok(look) = enough(&values, t, level) {
                    prop_assert!(!look.enough || look.half_width.is_some());
                }
            }
        }
    }
}
