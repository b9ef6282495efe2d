//! Permutation tests: what the difference would be had the runs been dealt to the sides by chance.

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

/// So many ways to deal the runs are all tried: 8 runs against 8 are 12,870.
pub const EXACT_MOST: u64 = 20_000;

/// All ways to choose `k` of `n` things, as bits, in rising order.
pub(crate) struct Choices {
    next: Option<u64>,
    end: u64,
}

impl Choices {
    /// `n` at most 62; nothing for `k` of 0 or above `n`.
    pub(crate) fn new(n: usize, k: usize) -> Self {
        let possible = n <= 62 && (1..=n).contains(&k);
        Self { next: possible.then(|| (1 << k) - 1), end: 1 << n.min(62) }
    }
}

impl Iterator for Choices {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        let now = self.next.filter(|x| *x < self.end)?;
        // Gosper's hack (HAKMEM 175): the next larger number with as many bits.
        let low = now & now.wrapping_neg();
        let carried = now + low;
        self.next = Some((((carried ^ now) >> 2) / low) | carried);
        Some(now)
    }
}

/// Number of ways to choose `k` of `n`; `u64::MAX` when it does not fit.
pub(crate) fn choose(n: usize, k: usize) -> u64 {
    let k = k.min(n.saturating_sub(k));
    let ways = (0..k).try_fold(1u128, |ways, i| {
        let next = ways.checked_mul((n - i) as u128)? / (i + 1) as u128;
        (next <= u128::from(u64::MAX)).then_some(next)
    });
    ways.map_or(u64::MAX, |w| w as u64)
}

/// The two-sided p-value of a permutation test on Welch's t between the values of two sides: the share of the ways to
/// deal all values to the sides that give as large a |t| (Janssen 1997: studentised, so that it holds for unequal
/// spreads too when there are many values). Exact up to [`EXACT_MOST`] ways, otherwise by `draws` seeded ones with the
/// one seen counted in (Phipson and Smyth 2010), so that it is never 0. With three runs against three it is never below
/// 0.1.
///
/// `None` below two values on a side, when one is not finite, or when `draws` is 0 and they were needed.
pub fn permutation_p(a: &[f64], b: &[f64], draws: usize, seed: u64) -> Option<f64> {
    let (n, k) = (a.len() + b.len(), b.len());
    if a.len() < 2 || k < 2 || !a.iter().chain(b).all(|v| v.is_finite()) {
        return None;
    }
    let mean = a.iter().chain(b).map(|v| v / n as f64).sum::<f64>();
    let mut all: Vec<f64> = a.iter().chain(b).map(|v| v - mean).collect();
    // In units of the largest: squares neither overflow nor vanish.
    let scale = all.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    if !scale.is_finite() {
        return None;
    }
    if scale == 0.0 {
        return Some(1.0);
    }
    all.iter_mut().for_each(|v| *v /= scale);
    let total = all.iter().fold((0.0, 0.0), |s, v| (s.0 + v, s.1 + v * v));
    let t2 = |chosen: (f64, f64)| t_squared((total.0 - chosen.0, total.1 - chosen.1), n - k, chosen, k);
    let seen = t2(sums(&all[a.len()..])) * (1.0 - 1e-9);
    if choose(n, k) <= EXACT_MOST && n <= 62 {
        let mut ways = 0u64;
        let as_large = Choices::new(n, k).filter(|bits| {
            ways += 1;
            let chosen = (0..n).filter(|i| bits >> i & 1 == 1).map(|i| all[i]);
            t2(chosen.fold((0.0, 0.0), |s, v| (s.0 + v, s.1 + v * v))) >= seen
        });
        let as_large = as_large.count();
        return Some(as_large as f64 / ways as f64);
    }
    if draws == 0 {
        return None;
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let as_large = (0..draws).filter(|_| t2(sums(all.partial_shuffle(&mut rng, k).0)) >= seen).count();
    Some((1 + as_large) as f64 / (1 + draws) as f64)
}

fn sums(values: &[f64]) -> (f64, f64) {
    values.iter().fold((0.0, 0.0), |s, v| (s.0 + v, s.1 + v * v))
}

/// Welch's t squared from sums and sums of squares; infinite when sides differ without any spread.
fn t_squared(a: (f64, f64), na: usize, b: (f64, f64), nb: usize) -> f64 {
    let part = |(sum, squares): (f64, f64), n: usize| {
        let n = n as f64;
        let spread = squares - sum * sum / n;
        // Rounding leaves about 1e-16 of the squares where all values are equal.
        let spread = if spread < 1e-13 * squares { 0.0 } else { spread };
        (sum / n, spread / (n - 1.0) / n)
    };
    let ((ma, va), (mb, vb)) = (part(a, na), part(b, nb));
    let d = (ma - mb).abs();
    if d < 1e-13 { 0.0 } else { d * d / (va + vb) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn choices_are_as_many_as_the_binomial_says() {
        assert_eq!(Choices::new(4, 2).collect::<Vec<_>>(), [3, 5, 6, 9, 10, 12]);
        assert_eq!(Choices::new(16, 8).count() as u64, choose(16, 8));
        assert_eq!((choose(16, 8), choose(3, 0), choose(200, 100)), (12_870, 1, u64::MAX));
        assert_eq!((Choices::new(3, 4).count(), Choices::new(3, 0).count()), (0, 0));
        assert_eq!(Choices::new(62, 62).count(), 1);
    }

    #[test]
    fn sides_apart_have_the_smallest_p_value_there_is() {
        assert_eq!(permutation_p(&[1.0, 2.0, 3.0], &[11.0, 12.0, 13.0], 0, 1), Some(0.1));
        assert_eq!(permutation_p(&[5.0; 4], &[6.0; 4], 0, 1), Some(2.0 / 70.0), "no spread at all");
        assert_eq!(permutation_p(&[5.0; 4], &[5.0; 3], 0, 1), Some(1.0));
        assert_eq!(permutation_p(&[5.0], &[5.0; 3], 0, 1), None);
        let a: Vec<f64> = (0..20).map(f64::from).collect();
        let b: Vec<f64> = (0..20).map(|i| f64::from(i) + 100.0).collect();
        assert_eq!(permutation_p(&a, &b, 999, 1), Some(0.001));
        assert_eq!(permutation_p(&a, &b, 0, 1), None);
    }

    proptest! {
        #[test]
        fn hostile_values_do_no_harm(
            a in prop::collection::vec(prop::num::f64::ANY, 0..6),
            b in prop::collection::vec(prop::num::f64::ANY, 0..6),
        ) {
            if let Some(p) = permutation_p(&a, &b, 50, 1) {
                prop_assert!(p > 0.0 && p <= 1.0, "{p}");
            }
        }

        #[test]
        fn the_sides_may_be_swapped(
            a in prop::collection::vec(-1e3..1e3f64, 2..6),
            b in prop::collection::vec(-1e3..1e3f64, 2..6),
        ) {
            prop_assert_eq!(permutation_p(&a, &b, 0, 1), permutation_p(&b, &a, 0, 1));
        }
    }
}
