//! Whether designs see the effects that they promise to see.

use stats::design::{Fraction, Precision, resolvable_effect};

use crate::draw::Draw;

/// Share of simulated studies of a design of resolution 3 in which the main effect of factor 0 is seen at 95 %, by the
/// least-squares fit of all main effects (in an orthogonal design: differences of means).
fn seen(design: &Fraction, repeats: usize, effect: f64, trials: usize) -> f64 {
    let mut draw = Draw::new(81);
    let points: Vec<Vec<usize>> = design.points().collect();
    let (n, terms) = (points.len() * repeats, 1 + design.factors());
    let signs = |f: usize| points.iter().map(move |p| if p[f] == 1 { 1.0 } else { -1.0 }).cycle().take(n);
    let hits = (0..trials).filter(|_| {
        // Half the effect up, half down; the second factor has one too.
        let values: Vec<f64> =
            signs(0).zip(signs(1)).map(|(x, y)| 7.0 + effect / 2.0 * x + 3.0 * y + draw.normal()).collect();
        let half = |f: usize| signs(f).zip(&values).map(|(s, v)| s * v).sum::<f64>() / n as f64;
        let mean = values.iter().sum::<f64>() / n as f64;
        let fitted: f64 = mean * mean + (0..design.factors()).map(|f| half(f) * half(f)).sum::<f64>();
        let left = values.iter().map(|v| v * v).sum::<f64>() - n as f64 * fitted;
        let sd = (left / (n - terms) as f64).sqrt();
        (2.0 * half(0)).abs() > T_OF_9 * 2.0 * sd / (n as f64).sqrt()
    });
    hits.count() as f64 / trials as f64
}

/// The quantile 0.975 of Student's t with 16 runs less 7 terms.
const T_OF_9: f64 = 2.262_157;

#[test]
fn the_resolvable_effect_is_seen_in_four_of_five_studies() {
    let design = Fraction::standard(6, 8).unwrap();
    let effect = resolvable_effect(8, 2, 7, 1.0, Precision::default()).unwrap();
    let share = seen(&design, 2, effect, 3000);
    println!("effect {effect:.3} sd: seen in {share:.3}");
    assert!((0.775..=0.825).contains(&share), "{share}");
    let none = seen(&design, 2, 0.0, 3000);
    assert!((0.037..=0.063).contains(&none), "{none}");
}
