//! What a set of values is like.

use serde::{Deserialize, Serialize};

/// Number, centre and spread of values. Values that are not finite are left out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Values.
    pub n: usize,
    /// Arithmetic mean.
    pub mean: f64,
    /// Standard deviation of the sample (n - 1); 0 for a single value.
    pub sd: f64,
    /// Smallest.
    pub min: f64,
    /// Largest.
    pub max: f64,
}

impl Summary {
    /// Of some values; `None` when none of them is finite.
    pub fn of(values: &[f64]) -> Option<Self> {
        let (mut n, mut mean, mut squares) = (0usize, 0.0, 0.0);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        // Welford's recurrence: stable where the mean is large beside the spread.
        for v in values.iter().copied().filter(|v| v.is_finite()) {
            n += 1;
            let d = v - mean;
            mean += d / n as f64;
            squares += d * (v - mean);
            (min, max) = (v.min(min), v.max(max));
        }
        let sd = if n > 1 { (squares / (n - 1) as f64).sqrt() } else { 0.0 };
        (n > 0).then_some(Self { n, mean, sd, min, max })
    }
}

/// The quantile `q` (0 to 1) by linear interpolation between order statistics (Hyndman and Fan's type 7, the default of
/// R and NumPy). `None` when no value is finite. Reorders the values.
pub fn quantile(values: &mut Vec<f64>, q: f64) -> Option<f64> {
    values.retain(|v| v.is_finite());
    let last = values.len().checked_sub(1)?;
    let at = q.clamp(0.0, 1.0) * last as f64;
    let (low, part) = (at.floor() as usize, at.fract());
    let (_, below, above) = values.select_nth_unstable_by(low, f64::total_cmp);
    let below = *below;
    if part == 0.0 {
        return Some(below);
    }
    let next = above.iter().copied().fold(f64::INFINITY, f64::min);
    Some(below + (next - below) * part)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values_have_known_summaries() {
        let s = Summary::of(&[2.0, 4.0, f64::NAN, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]).unwrap();
        assert_eq!((s.n, s.mean, s.min, s.max), (8, 5.0, 2.0, 9.0));
        assert!((s.sd - 2.138_089_935).abs() < 1e-9);
        assert_eq!(Summary::of(&[f64::NAN]), None);
        assert_eq!(quantile(&mut vec![1.0, 2.0, 3.0, 4.0], 0.5), Some(2.5));
        assert!((quantile(&mut vec![4.0, 1.0, 3.0, 2.0], 0.95).unwrap() - 3.85).abs() < 1e-12);
        assert_eq!(quantile(&mut vec![], 0.5), None);
    }

    proptest! {
        #[test]
        fn quantiles_agree_with_sorting(mut values in prop::collection::vec(-1e6..1e6, 1..200), q in 0.0..=1.0f64) {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let at = q * (sorted.len() - 1) as f64;
            let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
            let expected = low + (high - low) * at.fract();
            prop_assert!((quantile(&mut values, q).unwrap() - expected).abs() <= 1e-9 * expected.abs().max(1.0));
        }
    }
}
