//! Control of the false discovery rate: of many indicators that are tested at once, some look different by chance.
//!
//! An adjusted p-value is the smallest rate at which its test would still be called a discovery: compare it with the
//! rate wanted (0.05: at most a twentieth of what is called different is not, on average).

use serde::{Deserialize, Serialize};

/// How p-values are adjusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Adjustment {
    /// Benjamini and Hochberg 1995: for tests that are independent or depend positively, as indicators of the same
    /// runs mostly do.
    #[default]
    BenjaminiHochberg,
    /// Benjamini and Yekutieli 2001: however tests depend; costs a factor of the sum of 1/i.
    BenjaminiYekutieli,
    /// Each test on its own.
    None,
}

impl Adjustment {
    /// Adjusted p-values, 0 to 1, in the order given. What is no p-value (outside 0 to 1, not a number) gives `None`
    /// and does not count as a test.
    pub fn adjust(self, p: &[f64]) -> Vec<Option<f64>> {
        let mut order: Vec<usize> = (0..p.len()).filter(|i| (0.0..=1.0).contains(&p[*i])).collect();
        order.sort_by(|x, y| p[*y].total_cmp(&p[*x]));
        let tests = order.len();
        let factor = match self {
            Self::BenjaminiHochberg => tests as f64,
            Self::BenjaminiYekutieli => tests as f64 * (1..=tests).map(|i| 1.0 / i as f64).sum::<f64>(),
            Self::None => 1.0,
        };
        let mut adjusted = vec![None; p.len()];
        // From the largest down: a test is never adjusted above one with a larger p-value (the step-up procedure).
        let mut least = 1.0f64;
        for (above, i) in order.into_iter().enumerate() {
            let rank = if self == Self::None { 1 } else { tests - above };
            let own = p[i] * factor / rank as f64;
            least = if self == Self::None { own } else { least.min(own) };
            adjusted[i] = Some(least);
        }
        adjusted
    }
}

/// Adjusted by the procedure of Benjamini and Hochberg 1995; see [`Adjustment::adjust`].
pub fn benjamini_hochberg(p: &[f64]) -> Vec<Option<f64>> {
    Adjustment::BenjaminiHochberg.adjust(p)
}

/// Adjusted by the procedure of Benjamini and Yekutieli 2001; see [`Adjustment::adjust`].
pub fn benjamini_yekutieli(p: &[f64]) -> Vec<Option<f64>> {
    Adjustment::BenjaminiYekutieli.adjust(p)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The worked example of Benjamini and Hochberg 1995, section 4.1: treatments after a heart attack.
    const PAPER: [f64; 15] = [
        0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.3240, 0.4262, 0.5719,
        0.6528, 0.7590, 1.000,
    ];

    #[track_caller]
    fn check(seen: Vec<Option<f64>>, expected: &[f64]) {
        assert_eq!(seen.len(), expected.len());
        for (i, (s, e)) in seen.iter().zip(expected).enumerate() {
            assert!((s.unwrap() - e).abs() < 1e-9, "{i}: {s:?}, expected {e}");
        }
    }

    #[test]
    fn the_example_of_the_paper_gives_four_discoveries_at_a_twentieth() {
        let adjusted = benjamini_hochberg(&PAPER);
        assert_eq!(adjusted.iter().filter(|p| p.unwrap() <= 0.05).count(), 4);
        check(adjusted[..5].to_vec(), &[0.0015, 0.003, 0.0095, 0.035625, 0.0603]);
        // The sixth takes the seventh's: 0.0298 x 15 / 7.
        check(adjusted[5..8].to_vec(), &[0.447 / 7.0, 0.447 / 7.0, 0.0645]);
    }

    #[test]
    fn yekutielis_factor_is_the_harmonic_sum() {
        // p.adjust(c(0.01, 0.02, 0.03, 0.04), "BY") of R: all 0.04 x 25/12.
        check(benjamini_yekutieli(&[0.01, 0.02, 0.03, 0.04]), &[1.0 / 12.0; 4]);
        assert_eq!(benjamini_yekutieli(&PAPER).iter().filter(|p| p.unwrap() <= 0.05).count(), 3);
    }

    #[test]
    fn order_is_kept_and_what_is_no_p_value_is_left_out() {
        let adjusted = benjamini_hochberg(&[0.04, f64::NAN, 0.01, -1.0, 2.0]);
        assert_eq!(adjusted, [Some(0.04), None, Some(0.02), None, None]);
        assert_eq!(benjamini_hochberg(&[]), []);
        assert_eq!(Adjustment::None.adjust(&[0.3, 0.01]), [Some(0.3), Some(0.01)]);
    }

    proptest! {
        #[test]
        fn adjusting_keeps_the_order_and_never_lowers(p in prop::collection::vec(0.0..=1.0f64, 0..40)) {
            let (bh, by) = (benjamini_hochberg(&p), benjamini_yekutieli(&p));
            for i in 0..p.len() {
                let own = bh[i].unwrap();
                prop_assert!(own >= p[i] - 1e-12 && own <= 1.0 && by[i].unwrap() >= own - 1e-12);
                for j in 0..p.len() {
                    prop_assert!(p[i] > p[j] || own <= bh[j].unwrap());
                }
            }
        }

        #[test]
        fn hostile_values_do_no_harm(p in prop::collection::vec(prop::num::f64::ANY, 0..20)) {
            prop_assert_eq!(benjamini_hochberg(&p).len(), p.len());
        }
    }
}
