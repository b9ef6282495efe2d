//! When a response within a run has become steady: how much of its start to cut.
//!
//! The cut is that of MSER-5 (White 1997; Franklin and White 2008): means of five samples each, and of all cuts in the
//! first half the one that leaves the smallest standard error of the mean of the rest. On noise that rule cuts at random
//! at times, so the cut is made only when what it cuts differs from the rest. What is left is steady when no stretch
//! of its twenty parts stands out ([`crate::change`]).

use serde::{Deserialize, Serialize};

use crate::change;
use crate::error::{Error, not_negative};
use crate::{Interval, Summary};

/// Fewer samples cannot be judged: two in each of twenty parts, and as many to be cut.
pub const SAMPLES_LEAST: usize = 80;
/// Samples a batch of MSER-5.
const BATCH: usize = 5;
/// Parts of the rest that are tested. Samples must have forgotten each other within a part, or noise that wanders
/// slowly is called a change.
const PARTS: usize = 20;
/// Chance of calling a steady rest unsteady.
const ALPHA: f64 = 0.01;
/// t beyond which the start differs from the rest: 19 degrees of freedom and a chance of about 1 in 1,000, as MSER
/// has picked the start that differs most.
const CUT_T: f64 = 4.0;

/// Whether and from when a run is steady.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Steadiness {
    /// Time of the first sample to keep, in the unit given.
    pub cut: f64,
    /// Samples before it, of the finite ones in order of time.
    pub cut_samples: usize,
    /// Finite samples in all.
    pub samples: usize,
    /// Whether the rest is steady, to the end.
    pub steady: bool,
    /// Why it is called so.
    pub why: Why,
    /// Mean of the rest, and its interval of 95 % from the parts (Student); `None` when the rest cannot be judged.
    pub mean: Option<(f64, Interval)>,
}

/// Why a run is called steady or not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Why {
    /// Steady from its first sample on.
    FromTheStart,
    /// Steady after the start that is cut.
    AfterStart {
        /// Mean of what is cut less that of the rest.
        off: f64,
    },
    /// A stretch of the rest stands out: it still rises, falls or changed its level.
    StillChanging {
        /// Time at which the stretch begins, or ends where it begins with the rest.
        at: f64,
        /// The level from there on less that before it.
        by: f64,
        /// Chance of so large a change in a steady rest.
        p: f64,
    },
    /// Fewer than [`SAMPLES_LEAST`] samples.
    TooShort,
}

/// Judges a series of samples: pairs of time and value, in any order. Pairs with a number that is not finite are left
/// out; samples count alike, however far apart they are. Changes of less than `tolerance`, a share of the rest's mean (0.01 is 1 %), do not matter.
///
/// # Errors
///
/// No finite sample, values too large to be summed, a tolerance that is negative or no number.
pub fn steadiness(samples: &[(f64, f64)], tolerance: f64) -> Result<Steadiness, Error> {
    not_negative("the tolerance", tolerance)?;
    let mut samples: Vec<(f64, f64)> =
        samples.iter().copied().filter(|s| s.0.is_finite() && s.1.is_finite()).collect();
    samples.sort_by(|x, y| x.0.total_cmp(&y.0));
    let values: Vec<f64> = samples.iter().map(|s| s.1).collect();
    let name = "the series";
    let all = Summary::of(&values).ok_or(Error::Empty { name })?;
    if !all.mean.is_finite() || !all.sd.is_finite() {
        return Err(Error::TooLarge { name });
    }
    let n = values.len();
    let mut told = Steadiness {
        cut: samples[0].0,
        cut_samples: 0,
        samples: n,
        steady: false,
        why: Why::TooShort,
        mean: None,
    };
    if n < SAMPLES_LEAST {
        return Ok(told);
    }
    told.why = Why::FromTheStart;
    let cut = mser(&values);
    if cut > 0 {
        let (start, rest) = values.split_at(cut);
        let (off, se) = apart(start, rest);
        if off.abs() > CUT_T * se && off.abs() > tolerance * mean(rest).abs() {
            (told.cut, told.cut_samples, told.why) = (samples[cut].0, cut, Why::AfterStart { off });
        }
    }
    let rest = &values[told.cut_samples..];
    let parts = parts(rest);
    told.mean = crate::student(&parts, 0.95).map(|i| (mean(rest), i));
    told.steady = true;
    // 999 permutations, of which one in a hundred may be as large.
    if let Some((from, to, p)) = change::strongest(&parts, 999, 1).filter(|f| f.2 <= ALPHA) {
        let inside = mean(&parts[from..to]);
        let outside = mean(&[&parts[..from], &parts[to..]].concat());
        let at = if from == 0 { to } else { from };
        let by = if from == 0 { outside - inside } else { inside - outside };
        if by.abs() > tolerance * mean(rest).abs() {
            let first = told.cut_samples + at * rest.len() / PARTS;
            (told.steady, told.why) = (false, Why::StillChanging { at: samples[first].0, by, p });
        }
    }
    Ok(told)
}

fn mean(values: &[f64]) -> f64 {
    Summary::of(values).map_or(0.0, |s| s.mean)
}

/// Means of [`PARTS`] parts of about the same number of samples.
fn parts(values: &[f64]) -> Vec<f64> {
    let at = |i: usize| i * values.len() / PARTS;
    (0..PARTS).map(|i| mean(&values[at(i)..at(i + 1)])).collect()
}

/// Samples that MSER-5 cuts: at most half.
fn mser(values: &[f64]) -> usize {
    let batches: Vec<f64> = values.chunks_exact(BATCH).map(mean).collect();
    let (mut best, mut cut) = (f64::INFINITY, 0);
    // From the end to the start by Welford's recurrence.
    let (mut n, mut mean, mut squares) = (0.0, 0.0, 0.0);
    for (at, v) in batches.iter().enumerate().rev() {
        n += 1.0;
        let d = v - mean;
        mean += d / n;
        squares += d * (v - mean);
        let error = squares / (n * n);
        // The earlier cut where two are as good.
        if at <= batches.len() / 2 && error <= best {
            (best, cut) = (error, at);
        }
    }
    cut * BATCH
}

/// Mean of `start` less that of `rest`, and its standard error from the spread of the rest's parts, which allows for
/// samples that depend on their neighbours.
fn apart(start: &[f64], rest: &[f64]) -> (f64, f64) {
    let spread = Summary::of(&parts(rest)).map_or(0.0, |s| s.sd);
    let one = spread * (rest.len() as f64 / PARTS as f64).sqrt();
    let se = one * (1.0 / start.len() as f64 + 1.0 / rest.len() as f64).sqrt();
    (mean(start) - mean(rest), se)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// One sample a second, with noise of 0 to 1.
    fn series(n: usize, of: impl Fn(f64) -> f64) -> Vec<(f64, f64)> {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        (0..n).map(|i| (i as f64, of(i as f64) + rng.random::<f64>())).collect()
    }

    #[test]
    fn a_start_that_settles_is_cut_and_the_rest_is_steady() {
        let s = steadiness(&series(1000, |t| 100.0 + 50.0 * (-t / 30.0).exp()), 0.01).unwrap();
        assert!(s.steady && (60.0..200.0).contains(&s.cut), "{s:?}");
        assert!(matches!(s.why, Why::AfterStart { off } if off > 5.0), "{s:?}");
        let (mean, i) = s.mean.unwrap();
        assert!((mean - 100.5).abs() < 0.5 && i.low < mean && mean < i.high, "{s:?}");
    }

    #[test]
    fn a_steady_series_is_kept_whole() {
        let s = steadiness(&series(500, |_| 7.0), 0.0).unwrap();
        assert_eq!((s.steady, s.cut_samples, s.why), (true, 0, Why::FromTheStart));
        let flat: Vec<_> = (0..200).map(|i| (f64::from(i), 3.0)).collect();
        let s = steadiness(&flat, 0.0).unwrap();
        assert_eq!((s.steady, s.cut_samples, s.why), (true, 0, Why::FromTheStart));
    }

    #[test]
    fn a_ramp_is_never_steady_unless_it_is_within_the_tolerance() {
        let ramp = series(600, |t| 100.0 + t / 100.0);
        let s = steadiness(&ramp, 0.01).unwrap();
        assert!(!s.steady && matches!(s.why, Why::StillChanging { by, .. } if by > 0.0), "{s:?}");
        assert!(steadiness(&ramp, 0.1).unwrap().steady);
    }

    #[test]
    fn a_late_shift_is_told_with_its_time() {
        let s = steadiness(&series(800, |t| if t < 600.0 { 10.0 } else { 14.0 }), 0.01).unwrap();
        let Why::StillChanging { at, by, .. } = s.why else { panic!("{s:?}") };
        assert!((at - 600.0).abs() < 45.0 && (by - 4.0).abs() < 1.0, "{s:?}");
    }

    #[test]
    fn short_and_empty_series_say_so() {
        assert_eq!(steadiness(&series(79, |_| 1.0), 0.0).unwrap().why, Why::TooShort);
        assert_eq!(steadiness(&[(f64::NAN, 1.0)], 0.0), Err(Error::Empty { name: "the series" }));
        assert!(matches!(steadiness(&series(9, |_| 1.0), -1.0), Err(Error::Negative { .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn hostile_values_do_no_harm(
            samples in prop::collection::vec((prop::num::f64::ANY, prop::num::f64::ANY), 0..300),
            plain in prop::collection::vec((-1e3..1e3f64, prop_oneof![Just(0.0), -1e150..1e150f64]), 0..300),
        ) {
            for samples in [samples, plain] {
                if let Ok(s) = steadiness(&samples, 0.01) {
                    prop_assert!(s.cut.is_finite() && 2 * s.cut_samples <= s.samples + 10);
                }
            }
        }
    }
}
