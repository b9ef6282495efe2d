//! How sure a number is.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use statrs::distribution::{ContinuousCDF, StudentsT};

use crate::summary::{Summary, quantile};

/// A range with a stated chance of holding the truth.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Interval {
    /// Lower end.
    pub low: f64,
    /// Upper end.
    pub high: f64,
}

/// The interval of Student for the mean of independent values (run-level values, never the frames of one run, which
/// depend on each other); `level` such as 0.95. `None` below two values.
pub fn student(values: &[f64], level: f64) -> Option<Interval> {
    let s = Summary::of(values).filter(|s| s.n > 1)?;
    let t =
        StudentsT::new(0.0, 1.0, (s.n - 1) as f64).ok()?.inverse_cdf(0.5 + level.clamp(0.0, 0.9999) / 2.0);
    let half = t * s.sd / (s.n as f64).sqrt();
    Some(Interval { low: s.mean - half, high: s.mean + half })
}

/// The percentile bootstrap of a statistic over independent values. `None` below two values.
pub fn bootstrap(
    values: &[f64],
    statistic: impl Fn(&[f64]) -> f64,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<Interval> {
    block_bootstrap(values, statistic, 1, level, resamples, seed)
}

/// The moving-block bootstrap (Künsch 1989) of a statistic over a sequence whose neighbours depend on each other, such
/// as the frames of one run. `block` is the length over which they do; `None` below two blocks.
pub fn block_bootstrap(
    values: &[f64],
    statistic: impl Fn(&[f64]) -> f64,
    block: usize,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<Interval> {
    let block = block.max(1);
    if values.len() < 2 * block || resamples == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut sample = Vec::with_capacity(values.len() + block);
    let mut results: Vec<f64> = (0..resamples)
        .map(|_| {
            sample.clear();
            while sample.len() < values.len() {
                let start = rng.random_range(0..=values.len() - block);
                sample.extend_from_slice(&values[start..start + block]);
            }
            statistic(&sample[..values.len()])
        })
        .collect();
    let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
    let low = quantile(&mut results, tail)?;
    Some(Interval { low, high: quantile(&mut results, 1.0 - tail)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mean(values: &[f64]) -> f64 {
        values.iter().sum::<f64>() / values.len() as f64
    }

    #[test]
    fn the_interval_of_student_agrees_with_the_tables() {
        // t(0.975, 2) = 4.302653, sd of 1, 2, 3 is 1.
        let i = student(&[1.0, 2.0, 3.0], 0.95).unwrap();
        assert!((i.high - (2.0 + 4.302_652_73 / 3f64.sqrt())).abs() < 1e-6, "{i:?}");
        assert_eq!(student(&[1.0], 0.95), None);
    }

    #[test]
    fn the_interval_of_student_covers_as_often_as_it_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        // A sum of uniform values is close enough to normal.
        let mut normal = || (0..12).map(|_| rng.random::<f64>()).sum::<f64>() - 6.0;
        let hits = (0..4000)
            .filter(|_| {
                let values = [normal(), normal(), normal()];
                student(&values, 0.95).is_some_and(|i| i.low <= 0.0 && 0.0 <= i.high)
            })
            .count();
        assert!((3720..=3880).contains(&hits), "{hits} of 4000");
    }

    #[test]
    fn bootstraps_are_reproducible_and_hold_the_mean() {
        let values: Vec<f64> = (0..200).map(|i| f64::from(i % 10)).collect();
        let run = |seed| bootstrap(&values, mean, 0.95, 500, seed).unwrap();
        assert_eq!(run(3), run(3));
        assert!(run(3).low < 4.5 && 4.5 < run(3).high);
        assert_eq!(block_bootstrap(&values[..5], mean, 4, 0.95, 10, 1), None);
    }

    #[test]
    fn blocks_widen_the_interval_of_a_slow_sequence() {
        let slow: Vec<f64> = (0..400).map(|i| f64::from(i) / 100.0).map(f64::sin).collect();
        let width =
            |block| block_bootstrap(&slow, mean, block, 0.95, 400, 1).map(|i| i.high - i.low).unwrap();
        assert!(width(50) > 2.0 * width(1));
    }
}
