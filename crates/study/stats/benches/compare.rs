//! What a comparison costs: studies have hundreds of indicators, and `compare` answers while a person waits.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use stats::compare::{How, compare, compare_values};
use stats::resample::{Statistic, hierarchical_bootstrap};

/// 10 runs of 2,000 samples, each a little off the others.
fn side(seed: u64) -> Vec<Vec<f64>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let run = |rng: &mut ChaCha8Rng| {
        let (level, mut v) = (20.0 + rng.random::<f64>(), 0.0);
        let mut sample = || {
            v = 0.8 * v + rng.random::<f64>() - 0.5;
            level + v
        };
        (0..2000).map(|_| sample()).collect()
    };
    (0..10).map(|_| run(&mut rng)).collect()
}

fn comparisons(c: &mut Criterion) {
    let (a, b) = (side(1), side(2));
    for (name, statistic) in [("mean", Statistic::Mean), ("p99", Statistic::Quantile(0.99))] {
        c.bench_function(&format!("bootstrap_10x2000x2_{name}"), |bench| {
            bench.iter(|| hierarchical_bootstrap(black_box(&a), black_box(&b), statistic, 0.95, 2000, 1));
        });
    }
    c.bench_function("compare_10x2000x2", |bench| {
        bench.iter(|| compare(black_box(&a), black_box(&b), &How::default()));
    });
    let values = |side: &[Vec<f64>]| side.iter().map(|r| r[0]).collect::<Vec<_>>();
    let (a, b) = (values(&a), values(&b));
    c.bench_function("compare_values_5x2", |bench| {
        bench.iter(|| compare_values(black_box(&a[..5]), black_box(&b[..5]), &How::default()));
    });
}

criterion_group!(benches, comparisons);
criterion_main!(benches);
