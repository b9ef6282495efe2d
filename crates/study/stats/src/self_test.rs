//! Whether comparisons cry wolf: runs of one condition are dealt into two groups again and again, and compared as if
//! they were of two.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{Beta, ContinuousCDF};

use crate::Interval;
use crate::compare::{How, Verdict, check, compare_values, quick_p};
use crate::error::Error;
use crate::fdr::Adjustment;
use crate::permute::{Choices, choose};

/// With fewer runs the few ways to deal them are too few to tell a rate of a twentieth: 8 runs can be dealt into halves
/// in 35 ways.
pub const RUNS_LEAST: usize = 8;

/// How to test.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// How groups are compared; false findings are expected in 1 - level of the splits at most.
    pub how: How,
    /// How many indicators at once are allowed for.
    pub adjustment: Adjustment,
    /// Splits: drawn at random, or all there are where those are fewer.
    pub splits: usize,
    /// Of the splits.
    pub seed: u64,
}

impl Default for Trial {
    /// Comparisons by [`How::default`], Benjamini and Hochberg, 500 splits.
    fn default() -> Self {
        Self { how: How::default(), adjustment: Adjustment::default(), splits: 500, seed: 1 }
    }
}

/// What the splits showed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SelfTest {
    /// Runs dealt.
    pub runs: usize,
    /// Splits compared.
    pub splits: usize,
    /// Rate of splits with a false finding that may be expected at most: 1 - level.
    pub nominal: f64,
    /// Share of splits in which some indicator was called different after adjusting.
    pub any_false: f64,
    /// Of that share at 95 %, as if splits were independent (Clopper and Pearson 1934).
    pub interval: Interval,
    /// Each indicator on its own, in the order given.
    pub indicators: Vec<Rates>,
    /// Whether comparisons can be trusted on these indicators.
    pub outcome: Outcome,
}

/// How often one indicator was called different.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// Splits in which it could be tested.
    pub splits: usize,
    /// Share of those with a finding, without adjusting: about 1 - level or less.
    pub alone: f64,
    /// Share of those with a finding after adjusting.
    pub adjusted: f64,
}

/// The verdict on the comparison itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// False findings are as rare as said, or the excess is within chance.
    Honest,
    /// False findings are surely more frequent than said.
    CriesWolf,
    /// Fewer than [`RUNS_LEAST`] runs, or no indicator that could be tested.
    TooFew,
}

/// Deals runs of one condition into halves and compares these. `indicators` holds, for each indicator, its values by
/// run, all in one order of runs; a value that is not finite is a run that lacks it. Runs must not differ by their order
/// (time of day), or the test is too kind.
///
/// # Errors
///
/// Settings out of range.
pub fn self_test<I: AsRef<[f64]>>(indicators: &[I], trial: &Trial) -> Result<SelfTest, Error> {
    check(&trial.how)?;
    let runs = indicators.iter().map(|i| i.as_ref().len()).max().unwrap_or(0);
    let splits = splits(runs, trial.splits, trial.seed);
    let mut rates = vec![(0usize, 0usize, 0usize); indicators.len()];
    let mut any = 0usize;
    for split in &splits {
        let found = findings(indicators, split, trial);
        for (rate, f) in rates.iter_mut().zip(&found) {
            rate.0 += usize::from(f.tested);
            rate.1 += usize::from(f.alone);
            rate.2 += usize::from(f.adjusted);
        }
        any += usize::from(found.iter().any(|f| f.adjusted));
    }
    let nominal = 1.0 - trial.how.level;
    let interval = clopper_pearson(any, splits.len());
    let tested = rates.iter().any(|r| r.0 > 0);
    let outcome = match () {
        () if runs < RUNS_LEAST || !tested => Outcome::TooFew,
        () if interval.low > nominal => Outcome::CriesWolf,
        () => Outcome::Honest,
    };
    let share = |hits: usize, of: usize| if of == 0 { 0.0 } else { hits as f64 / of as f64 };
    let rate =
        |r: &(usize, usize, usize)| Rates { splits: r.0, alone: share(r.1, r.0), adjusted: share(r.2, r.0) };
    Ok(SelfTest {
        runs,
        splits: splits.len(),
        nominal,
        any_false: share(any, splits.len()),
        interval,
        indicators: rates.iter().map(rate).collect(),
        outcome,
    })
}

/// For each split, which runs go to the second group.
fn splits(runs: usize, most: usize, seed: u64) -> Vec<Vec<bool>> {
    if runs < 4 {
        return Vec::new();
    }
    let half = runs / 2;
    // Halves of an even number of runs are the same split when swapped: leave the last run where it is.
    let (free, chosen) = if runs.is_multiple_of(2) { (runs - 1, half) } else { (runs, half) };
    if choose(free, chosen) <= most as u64 && free <= 62 {
        return Choices::new(free, chosen)
            .map(|bits| (0..runs).map(|i| i < free && bits >> i & 1 == 1).collect())
            .collect();
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut split: Vec<bool> = (0..runs).map(|i| i < half).collect();
    let mut one = || {
        split.shuffle(&mut rng);
        split.clone()
    };
    (0..most).map(|_| one()).collect()
}

#[derive(Clone, Copy, Default)]
struct Finding {
    tested: bool,
    alone: bool,
    adjusted: bool,
}

fn findings<I: AsRef<[f64]>>(indicators: &[I], split: &[bool], trial: &Trial) -> Vec<Finding> {
    let differs = |v: Verdict| matches!(v, Verdict::Better | Verdict::Worse | Verdict::Differs);
    let alpha = 1.0 - trial.how.level + 1e-12;
    // The p-values first: whole comparisons only where they would allow a finding, which gives the same findings for a
    // fraction of the time.
    let sides = |values: &[f64]| {
        let side = |b: bool| values.iter().zip(split).filter(|v| *v.1 == b).map(|v| *v.0).collect::<Vec<_>>();
        (side(false), side(true))
    };
    let p: Vec<f64> = indicators
        .iter()
        .map(|i| {
            let (a, b) = sides(i.as_ref());
            quick_p(&a, &b).unwrap_or(f64::NAN)
        })
        .collect();
    let adjusted = trial.adjustment.adjust(&p);
    let finding = |((i, p), adjusted): ((&I, &f64), &Option<f64>)| {
        let tested = adjusted.is_some();
        if !tested || *p > alpha {
            return Finding { tested, ..Finding::default() };
        }
        let (a, b) = sides(i.as_ref());
        let how = How { permutations: 0, ..trial.how };
        let alone = compare_values(&a, &b, &how).is_ok_and(|c| differs(c.verdict));
        Finding { tested, alone, adjusted: alone && adjusted.is_some_and(|p| p <= alpha) }
    };
    indicators.iter().zip(&p).zip(&adjusted).map(finding).collect()
}

/// The exact interval of a share at 95 %.
fn clopper_pearson(hits: usize, of: usize) -> Interval {
    let quantile = |a: f64, b: f64, q: f64| Beta::new(a, b).map(|beta| beta.inverse_cdf(q));
    let (k, n) = (hits as f64, of as f64);
    let low = if hits == 0 { 0.0 } else { quantile(k, n - k + 1.0, 0.025).unwrap_or(0.0) };
    let high = if hits == of { 1.0 } else { quantile(k + 1.0, n - k, 0.975).unwrap_or(1.0) };
    Interval { low, high }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn few_runs_are_dealt_in_all_ways_and_many_at_random() {
        let ways = splits(8, 500, 1);
        assert_eq!(ways.len(), 35);
        assert!(ways.iter().all(|s| s.iter().filter(|b| **b).count() == 4));
        assert_eq!(splits(9, 500, 1).len(), 126);
        assert_eq!((splits(40, 500, 1).len(), splits(3, 500, 1).len()), (500, 0));
        assert_eq!(splits(40, 20, 7), splits(40, 20, 7));
    }

    #[test]
    fn exact_intervals_of_shares_agree_with_tables() {
        // binom.test(5, 100) of R.
        let i = clopper_pearson(5, 100);
        assert!((i.low - 0.016_43).abs() < 1e-4 && (i.high - 0.112_83).abs() < 1e-4, "{i:?}");
        assert_eq!(clopper_pearson(0, 0), Interval { low: 0.0, high: 1.0 });
    }

    #[test]
    fn few_runs_are_too_few() {
        let test = self_test(&[[1.0, 2.0, 3.0, 4.0, 5.0]], &Trial::default()).unwrap();
        assert_eq!((test.outcome, test.splits), (Outcome::TooFew, 10));
        assert_eq!(self_test::<[f64; 0]>(&[], &Trial::default()).unwrap().outcome, Outcome::TooFew);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]
        #[test]
        fn hostile_values_do_no_harm(
            indicators in prop::collection::vec(prop::collection::vec(prop::num::f64::ANY, 0..12), 0..4),
        ) {
            let trial = Trial { splits: 20, ..Trial::default() };
            let test = self_test(&indicators, &trial).unwrap();
            prop_assert!((0.0..=1.0).contains(&test.any_false) && test.indicators.len() == indicators.len());
        }
    }
}
