//! Coverage of intervals and error rates of comparisons.

use stats::compare::{Comparison, How, Method, Verdict, compare, compare_values};
use stats::resample::Statistic;

use crate::draw::{Draw, Shape};

/// Share of intervals of 90 % that hold the truth: of the difference, and of the ratio. B is A's distribution times
/// `scale`.
fn coverage(shape: Shape, runs: [usize; 2], scale: f64, method: Method, trials: usize) -> [f64; 2] {
    let mut draw = Draw::new(11);
    let how = How { level: 0.9, method, resamples: 600, permutations: 0, ..How::default() };
    let mut hits = [0usize; 2];
    for seed in 0..trials {
        let mut side =
            |n: usize, scale: f64| (0..n).map(|_| scale * shape.draw(&mut draw)).collect::<Vec<_>>();
        let (a, b) = (side(runs[0], 1.0), side(runs[1], scale));
        let c = compare_values(&a, &b, &How { seed: seed as u64, ..how }).unwrap();
        let holds = |i: stats::Interval, truth: f64| usize::from(i.low <= truth && truth <= i.high);
        hits[0] += c.difference.interval.map_or(0, |i| holds(i, (scale - 1.0) * shape.mean()));
        hits[1] += c.ratio.and_then(|r| r.interval).map_or(0, |i| holds(i, scale));
    }
    hits.map(|h| h as f64 / trials as f64)
}

/// Runs as a study has them: each has its own level (standard deviation `between`) and samples that depend on their
/// neighbours.
fn study(draw: &mut Draw, runs: usize, mean: f64, between: f64) -> Vec<Vec<f64>> {
    let run = |draw: &mut Draw| {
        let level = mean + between * draw.normal();
        draw.autoregression(120, 0.8).into_iter().map(|v| level + v).collect()
    };
    (0..runs).map(|_| run(draw)).collect()
}

fn compared(a: &[Vec<f64>], b: &[Vec<f64>], seed: u64) -> Comparison {
    let how = How { level: 0.9, resamples: 600, permutations: 0, seed, ..How::default() };
    compare(a, b, &how).unwrap()
}

#[test]
fn intervals_of_ninety_percent_cover_for_normal_and_skewed_runs() {
    for shape in [Shape::Normal, Shape::Lognormal(0.5), Shape::Exponential] {
        for n in [3, 5, 10] {
            for share in coverage(shape, [n, n], 1.1, Method::Auto, if n < 8 { 2000 } else { 800 }) {
                println!("{shape:?}, {n} runs: {share:.3}");
                assert!((0.85..=0.95).contains(&share), "{shape:?}, {n} runs: {share}");
            }
        }
    }
}

#[test]
fn intervals_cover_where_one_side_has_more_runs_or_spreads_more() {
    for (runs, scale) in [([3, 10], 1.1), ([10, 3], 1.1), ([3, 3], 3.0), ([5, 5], 3.0), ([10, 10], 3.0)] {
        for shape in [Shape::Normal, Shape::Lognormal(0.25)] {
            for share in coverage(shape, runs, scale, Method::Auto, 1000) {
                println!("{shape:?}, {runs:?} runs, scale {scale}: {share:.3}");
                assert!((0.85..=0.95).contains(&share), "{shape:?}, {runs:?} runs, scale {scale}: {share}");
            }
        }
    }
}

#[test]
fn outliers_of_runs_do_not_make_intervals_too_narrow() {
    for n in [3, 5, 10] {
        for share in coverage(Shape::Outliers, [n, n], 1.1, Method::Auto, 800) {
            println!("outliers, {n} runs: {share:.3}");
            assert!((0.85..=0.97).contains(&share), "{n} runs: {share}");
        }
    }
}

#[test]
fn plain_percentiles_of_three_runs_would_not_cover() {
    let mut draw = Draw::new(5);
    let mean = |v: &[f64]| v.iter().sum::<f64>() / v.len() as f64;
    let hits = (0..500).filter(|seed| {
        let values: Vec<f64> = (0..3).map(|_| draw.normal()).collect();
        stats::bootstrap(&values, mean, 0.9, 300, *seed).is_some_and(|i| i.low <= 0.0 && 0.0 <= i.high)
    });
    assert!(hits.count() < 400);
}

#[test]
fn intervals_cover_whether_runs_or_samples_vary_most() {
    let mut draw = Draw::new(21);
    for between in [0.0, 0.3, 2.0] {
        let mut hits = 0;
        for seed in 0..300 {
            let (a, b) = (study(&mut draw, 10, 20.0, between), study(&mut draw, 10, 21.0, between));
            let i = compared(&a, &b, seed).difference.interval.unwrap();
            hits += usize::from(i.low <= 1.0 && 1.0 <= i.high);
        }
        // 90 % of 300, and three standard errors of 5.2; wider ones by a few percent.
        println!("between {between}: {hits} of 300");
        assert!((254..=292).contains(&hits), "{between}: {hits} of 300");
    }
}

#[test]
fn intervals_of_tails_cover() {
    // The 95th percentile of normal samples around each run's level.
    let truth = 1.0;
    let mut draw = Draw::new(22);
    let hits = (0..200).filter(|seed| {
        let mut side = |mean: f64| -> Vec<Vec<f64>> {
            let run = |draw: &mut Draw| {
                let level = mean + 0.3 * draw.normal();
                (0..100).map(|_| level + draw.normal()).collect()
            };
            (0..8).map(|_| run(&mut draw)).collect()
        };
        let (a, b) = (side(20.0), side(21.0));
        let statistic = Statistic::Quantile(0.95);
        let how =
            How { level: 0.9, statistic, resamples: 400, permutations: 0, seed: *seed, ..How::default() };
        let i = compare(&a, &b, &how).unwrap().difference.interval.unwrap();
        i.low <= truth && truth <= i.high
    });
    let hits = hits.count();
    assert!((166..=196).contains(&hits), "{hits} of 200");
}

/// Share of comparisons with this verdict, at 95 %.
fn share_of(wanted: impl Fn(Verdict) -> bool, shape: Shape, n: usize, shift: f64, how: How) -> f64 {
    let mut draw = Draw::new(31);
    let trials = 1500;
    let hits = (0..trials).filter(|_| {
        let mut side = |shift: f64| (0..n).map(|_| shift + shape.draw(&mut draw)).collect::<Vec<_>>();
        let (a, b) = (side(0.0), side(shift));
        wanted(compare_values(&a, &b, &how).unwrap().verdict)
    });
    hits.count() as f64 / f64::from(trials)
}

#[test]
fn differences_that_are_none_are_seen_in_a_twentieth_at_most() {
    let how = How { permutations: 0, resamples: 300, ..How::default() };
    for shape in [Shape::Normal, Shape::Lognormal(0.5), Shape::Outliers] {
        for n in [3, 5, 10] {
            let share = share_of(|v| v == Verdict::Differs, shape, n, 0.0, how);
            println!("{shape:?}, {n} runs: false {share:.3}");
            assert!(share <= 0.067, "{shape:?}, {n} runs: {share}");
        }
    }
}

#[test]
fn differences_as_large_as_the_margin_are_rarely_called_none() {
    // Exactly on the margin; 1 - level / 2 is the rate of a wrong claim.
    let margin = Some(stats::compare::Margin::Absolute(5.0));
    let how = How { margin, permutations: 0, method: Method::Welch, ..How::default() };
    let none = |v| v == Verdict::NoDifferenceThatMatters;
    for n in [5, 20] {
        let share = share_of(none, Shape::Normal, n, 5.0, how);
        assert!(share <= 0.025 + 0.0121, "{n} runs: {share}");
    }
    let share = share_of(none, Shape::Normal, 20, 0.0, How { level: 0.9, ..how });
    assert!(share > 0.8, "power: {share}");
}

#[test]
fn the_advised_number_of_runs_tells() {
    let how = How { permutations: 0, method: Method::Welch, ..How::default() };
    // One standard deviation apart: 17 runs a side for a power of 80 %.
    let share = share_of(|v| v == Verdict::Differs, Shape::Normal, 17, 5.0, how);
    assert!((0.74..=0.87).contains(&share), "{share}");
}
