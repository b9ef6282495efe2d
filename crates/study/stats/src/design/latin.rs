//! Points spread over continuous dimensions.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// A Latin hypercube (McKay, Beckman and Conover 1979): `points` points in `dimensions` dimensions, each coordinate 0 to
/// below 1, such that each of `points` equal slices of each dimension holds exactly one, at a random place in it. Of
/// `candidates` (at least one) such designs the one is taken whose two nearest points are farthest apart (maximin,
/// Johnson, Moore and Ylvisaker 1990). The same seed gives the same points. Cost: candidates x points^2 x dimensions.
pub fn latin_hypercube(points: usize, dimensions: usize, candidates: usize, seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut best: Option<(f64, Vec<Vec<f64>>)> = None;
    for _ in 0..candidates.max(1) {
        let design = one(points, dimensions, &mut rng);
        let apart = nearest(&design);
        if best.as_ref().is_none_or(|b| apart > b.0) {
            best = Some((apart, design));
        }
    }
    best.map(|b| b.1).unwrap_or_default()
}

fn one(points: usize, dimensions: usize, rng: &mut ChaCha8Rng) -> Vec<Vec<f64>> {
    let mut design = vec![Vec::with_capacity(dimensions); points];
    let mut slices: Vec<usize> = (0..points).collect();
    for _ in 0..dimensions {
        slices.shuffle(rng);
        for (point, slice) in design.iter_mut().zip(&slices) {
            // Rounding must not carry a point into the next slice, or to 1.
            let end = ((slice + 1) as f64 / points as f64).next_down();
            point.push(((*slice as f64 + rng.random::<f64>()) / points as f64).min(end));
        }
    }
    design
}

/// Square of the distance of the two nearest points.
fn nearest(design: &[Vec<f64>]) -> f64 {
    let distance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| (x - y) * (x - y)).sum::<f64>();
    let pairs = design.iter().enumerate().flat_map(|(i, a)| design[..i].iter().map(move |b| (a, b)));
    pairs.map(|(a, b)| distance(a, b)).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn more_candidates_spread_points_farther_apart() {
        let apart = |candidates| nearest(&latin_hypercube(20, 3, candidates, 5));
        assert!(apart(200) > apart(1));
        assert_eq!(latin_hypercube(9, 2, 5, 1), latin_hypercube(9, 2, 5, 1));
        assert!(latin_hypercube(9, 2, 5, 1) != latin_hypercube(9, 2, 5, 2));
    }

    proptest! {
        #[test]
        fn each_slice_of_each_dimension_holds_one_point(points in 0..40usize, dimensions in 0..5usize, seed: u64) {
            let design = latin_hypercube(points, dimensions, 3, seed);
            prop_assert_eq!(design.len(), points);
            for d in 0..dimensions {
                let mut values: Vec<f64> = design.iter().map(|p| p[d]).collect();
                values.sort_by(f64::total_cmp);
                for (i, v) in values.iter().enumerate() {
                    prop_assert!((i as f64 / points as f64..(i + 1) as f64 / points as f64).contains(v));
                }
            }
        }
    }
}
