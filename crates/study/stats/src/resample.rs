//! The hierarchical bootstrap: runs are drawn again, and within each run blocks of its samples.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::welch::{Welch, finite};
use crate::{Interval, Summary, quantile};

/// Resampled statistics kept of each run; the outer loop draws from these. Their own error (the tails of 200 draws)
/// is small beside that of ten runs.
const INNER: usize = 200;

/// What a run says: a number of its samples.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statistic {
    /// Their mean.
    #[default]
    Mean,
    /// Their quantile, 0 to 1 (0.99: the 99th percentile).
    Quantile(f64),
}

impl Statistic {
    /// Of the finite samples; `None` when there are none.
    pub fn of(self, samples: &[f64]) -> Option<f64> {
        match self {
            Self::Mean => Summary::of(samples).map(|s| s.mean),
            Self::Quantile(q) => quantile(&mut samples.to_vec(), q),
        }
    }
}

/// Over how many neighbouring samples a series depends on itself, as the length of blocks for the moving-block
/// bootstrap: the automatic choice of Politis and White 2004 as corrected by Patton, Politis and White 2009 (flat-top
/// lag window; circular-block constant). 1 for independent samples and for a series without spread; at most a third of
/// the series and 3 sqrt(n). Samples that are not finite must be left out before.
pub fn block_length(series: &[f64]) -> usize {
    let n = series.len();
    let Some(s) = Summary::of(series).filter(|s| n >= 9 && s.sd > 0.0 && s.sd.is_finite()) else { return 1 };
    let most = (3.0 * (n as f64).sqrt()).min(n as f64 / 3.0).ceil().max(1.0);
    let log = (n as f64).log10();
    // Insignificant over so many lags in a row: the correlation has ended.
    let quiet = (log.sqrt().ceil() as usize).max(5);
    let last = (((n as f64).sqrt().ceil() as usize) + quiet).min(n - 1);
    let z: Vec<f64> = series.iter().map(|v| (v - s.mean) / s.sd).collect();
    let r: Vec<f64> =
        (0..=last).map(|k| z.iter().zip(&z[k..]).map(|(x, y)| x * y).sum::<f64>() / n as f64).collect();
    let significant = |k: usize| (r[k] / r[0]).abs() >= 2.0 * (log / n as f64).sqrt();
    let ended = (0..=last - quiet).find(|m| (m + 1..=m + quiet).all(|k| !significant(k)));
    let m = ended.unwrap_or_else(|| (1..=last).rev().find(|k| significant(*k)).unwrap_or(1)).max(1);
    let window = (2 * m).min(last);
    let weight = |k: usize| (2.0 * (1.0 - k as f64 / window as f64)).clamp(0.0, 1.0);
    let both = |of: &dyn Fn(usize) -> f64| (1..=window).map(|k| 2.0 * weight(k) * of(k)).sum::<f64>();
    let slope = both(&|k| k as f64 * r[k]);
    let spectrum = r[0] + both(&|k| r[k]);
    let length = (2.0 * slope * slope / (4.0 / 3.0 * spectrum * spectrum)).cbrt() * (n as f64).cbrt();
    if length.is_finite() { length.round().clamp(1.0, most) as usize } else { most as usize }
}

/// What the bootstrap gave: the interval of the difference (b less a) and of the ratio (b to a) of the means over runs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resampled {
    /// Of the difference, in the unit of the values.
    pub difference: Interval,
    /// Of the ratio; `None` where it has no meaning (negative values, a mean of 0).
    pub ratio: Option<Interval>,
}

/// The interval of the difference and the ratio of two sides by the hierarchical bootstrap-t.
///
/// Each side is a list of runs, each run its samples in order of time (one sample: a value of the run). A run says
/// `statistic`. A resample draws as many runs as there are with replacement, and of each drawn run blocks of
/// [`block_length`] (at least the cube root of the samples, so that cost stays low) with replacement (Künsch 1989;
/// Davison and Hinkley 1997, section 3.8). The means are compared by their t (Efron 1981), not as they are: drawing
/// within runs counts the spread within them twice, and drawing few runs loses a part of the spread between them; both
/// cancel in t, and a skew is kept.
///
/// `None` below four runs on a side (t of a resample of three is mostly infinite; use Welch's interval below about
/// eight), without any spread, or when values are not finite.
pub fn hierarchical_bootstrap<R: AsRef<[f64]>>(
    a: &[R],
    b: &[R],
    statistic: Statistic,
    level: f64,
    resamples: usize,
    seed: u64,
) -> Option<Resampled> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let (a, b) = (Side::new(a, statistic, &mut rng)?, Side::new(b, statistic, &mut rng)?);
    let difference = Welch::difference(&a.seen, &b.seen).filter(|w| w.se > 0.0)?;
    let ratio = Welch::log_ratio(&a.seen, &b.seen);
    let (mut by_difference, mut by_ratio) = (Vec::with_capacity(resamples), Vec::with_capacity(resamples));
    for _ in 0..resamples {
        let (x, y) = (a.draw(&mut rng), b.draw(&mut rng));
        let t = |drawn: Option<Welch>, seen: &Welch| {
            drawn.filter(|d| d.se > 0.0).map(|d| (d.estimate - seen.estimate) / d.se)
        };
        by_difference.extend(t(Welch::difference(&x, &y), &difference));
        by_ratio.extend(ratio.as_ref().and_then(|seen| t(Welch::log_ratio(&x, &y), seen)));
    }
    let tail = (1.0 - level.clamp(0.0, 1.0)) / 2.0;
    let interval = |seen: &Welch, mut t: Vec<f64>| {
        // Resamples without spread are rare; where they are not, the values are too few or too coarse.
        if t.len() * 10 < resamples * 9 {
            return None;
        }
        let (low, high) = (quantile(&mut t, tail)?, quantile(&mut t, 1.0 - tail)?);
        finite(seen.estimate - high * seen.se, seen.estimate - low * seen.se)
    };
    Some(Resampled {
        difference: interval(&difference, by_difference)?,
        ratio: ratio
            .and_then(|seen| interval(&seen, by_ratio))
            .and_then(|i| finite(i.low.exp(), i.high.exp())),
    })
}

/// One side: what was seen, and the resampled statistics of each run.
struct Side {
    seen: Summary,
    runs: Vec<Vec<f64>>,
}

impl Side {
    fn new<R: AsRef<[f64]>>(runs: &[R], statistic: Statistic, rng: &mut ChaCha8Rng) -> Option<Self> {
        let values: Vec<f64> = runs.iter().filter_map(|r| statistic.of(r.as_ref())).collect();
        let seen = Summary::of(&values).filter(|s| s.n >= 4 && s.n == runs.len())?;
        let runs = runs.iter().map(|r| within(r.as_ref(), statistic, rng)).collect::<Option<_>>()?;
        Some(Self { seen, runs })
    }

    fn draw(&self, rng: &mut ChaCha8Rng) -> Summary {
        let n = self.runs.len();
        let (mut mean, mut squares, mut min) = (0.0, 0.0, f64::INFINITY);
        for i in 0..n {
            let run = &self.runs[rng.random_range(0..n as u32) as usize];
            let v = if run.len() == 1 { run[0] } else { run[rng.random_range(0..run.len() as u32) as usize] };
            let d = v - mean;
            mean += d / (i + 1) as f64;
            squares += d * (v - mean);
            min = min.min(v);
        }
        Summary { n, mean, sd: (squares / (n - 1) as f64).sqrt(), min, max: f64::NAN }
    }
}

/// The statistic of a run, over resamples of its blocks.
fn within(run: &[f64], statistic: Statistic, rng: &mut ChaCha8Rng) -> Option<Vec<f64>> {
    let samples: Vec<f64> = run.iter().copied().filter(|v| v.is_finite()).collect();
    let n = samples.len();
    if n < 4 {
        return Some(vec![statistic.of(&samples)?]);
    }
    let block = block_length(&samples).max((n as f64).cbrt() as usize).min(n / 2);
    let starts = (n - block + 1) as u32;
    // Sums up to each sample, of the values less the first, make a block's mean one subtraction.
    let mut sums = vec![0.0; n + 1];
    for i in 0..n {
        sums[i + 1] = sums[i] + (samples[i] - samples[0]);
    }
    let mut drawn = Vec::with_capacity(n + block);
    let mut one = || match statistic {
        Statistic::Mean => {
            let (mut left, mut sum) = (n, 0.0);
            while left > 0 {
                let (start, length) = (rng.random_range(0..starts) as usize, block.min(left));
                sum += sums[start + length] - sums[start];
                left -= length;
            }
            Some(samples[0] + sum / n as f64)
        }
        Statistic::Quantile(q) => {
            drawn.clear();
            while drawn.len() < n {
                let start = rng.random_range(0..starts) as usize;
                drawn.extend_from_slice(&samples[start..start + block]);
            }
            drawn.truncate(n);
            quantile(&mut drawn, q)
        }
    };
    (0..INNER).map(|_| one()).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn walk(n: usize, keep: f64, seed: u64) -> Vec<f64> {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut v = 0.0;
        (0..n)
            .map(|_| {
                v = keep * v + rng.random::<f64>() - 0.5;
                v
            })
            .collect()
    }

    #[test]
    fn blocks_are_longer_the_longer_a_series_remembers() {
        let mean = |keep| (0..20).map(|s| block_length(&walk(2000, keep, s))).sum::<usize>() / 20;
        let lengths = [mean(0.0), mean(0.5), mean(0.9)];
        // The optimum for an autoregression of 0.9 over 2,000 samples is (2 (2 x 0.9 / 0.19)^2 x 3/4 x 2000)^(1/3) = 64.
        assert!(
            lengths[0] <= 6 && (8..=30).contains(&lengths[1]) && (45..=100).contains(&lengths[2]),
            "{lengths:?}"
        );
        assert_eq!((block_length(&[]), block_length(&[3.0; 50])), (1, 1));
    }

    #[test]
    fn the_same_seed_gives_the_same_interval() {
        let side = |seed: u64| (0..8).map(|i| walk(100, 0.5, seed + i)).collect::<Vec<_>>();
        let run =
            |seed| hierarchical_bootstrap(&side(0), &side(50), Statistic::Mean, 0.95, 500, seed).unwrap();
        assert_eq!(run(1), run(1));
        assert!(run(1) != run(2));
        assert_eq!(run(1).ratio, None, "values around 0 have no ratio");
        let by_quantile = hierarchical_bootstrap(&side(0), &side(50), Statistic::Quantile(0.9), 0.95, 500, 1);
        assert!(by_quantile.is_some_and(|r| r.difference.low < r.difference.high));
    }

    proptest! {
        #[test]
        fn hostile_values_do_no_harm(
            a in prop::collection::vec(prop::collection::vec(prop::num::f64::ANY, 0..12), 0..6),
            b in prop::collection::vec(prop::collection::vec(prop::num::f64::ANY, 0..12), 0..6),
            q in prop::num::f64::ANY,
        ) {
            for statistic in [Statistic::Mean, Statistic::Quantile(q)] {
                if let Some(r) = hierarchical_bootstrap(&a, &b, statistic, 0.9, 20, 1) {
                    prop_assert!(r.difference.low <= r.difference.high);
                }
            }
        }

        #[test]
        fn blocks_fit_any_series(series in prop::collection::vec(-1e12..1e12f64, 0..200)) {
            let b = block_length(&series);
            prop_assert!(b >= 1 && (b <= series.len().div_ceil(3) || b == 1));
        }
    }
}
