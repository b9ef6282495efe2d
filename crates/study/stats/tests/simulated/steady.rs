//! Whether starts are cut where they end, and little of what is steady.

use stats::steady::{Steadiness, Why, steadiness};

use crate::draw::Draw;

/// Judges 100 series of 1,200 samples at 60 a second: this shape, and noise of standard deviation 1 that keeps so much
/// of itself from sample to sample.
fn judged(keep: f64, shape: impl Fn(f64) -> f64) -> Vec<Steadiness> {
    let mut draw = Draw::new(61);
    let one = |_| {
        let noise = draw.autoregression(1200, keep);
        let samples: Vec<_> = (0..1200).map(|i| f64::from(i) / 60.0).map(|t| (t, shape(t))).collect();
        let samples: Vec<_> = samples.iter().zip(noise).map(|(s, v)| (s.0, s.1 + v)).collect();
        steadiness(&samples, 0.01).unwrap()
    };
    (0..100).map(one).collect()
}

fn steady(all: &[Steadiness]) -> usize {
    all.iter().filter(|s| s.steady).count()
}

#[test]
fn noise_is_steady_and_little_of_it_is_cut() {
    for keep in [0.0, 0.5, 0.8] {
        let all = judged(keep, |_| 20.0);
        let cut = all.iter().filter(|s| s.cut_samples > 0).count();
        println!("noise {keep}: {} steady, {cut} cut", steady(&all));
        assert!(steady(&all) >= 94 && cut <= 10, "{keep}: {} steady, {cut} cut", steady(&all));
    }
}

#[test]
fn starts_that_settle_are_cut_where_their_rest_no_longer_matters() {
    for (tau, after, before) in [(0.5, 0.3, 3.5), (1.5, 1.5, 8.5)] {
        let all = judged(0.5, |t| 20.0 + 20.0 * (-t / tau).exp());
        let cuts = all.iter().filter(|s| (after..before).contains(&s.cut)).count();
        println!("start {tau} s: {} steady, {cuts} well cut", steady(&all));
        assert!(steady(&all) >= 90 && cuts >= 90, "{tau}: {} steady, {cuts} well cut", steady(&all));
    }
}

#[test]
fn an_early_shift_is_cut_and_a_late_one_is_told() {
    let all = judged(0.5, |t| if t < 4.0 { 23.0 } else { 20.0 });
    let cuts = all.iter().filter(|s| s.steady && (s.cut - 4.0).abs() < 0.5).count();
    assert!(cuts >= 90, "{cuts}");
    let all = judged(0.5, |t| if t < 14.0 { 20.0 } else { 23.0 });
    let told =
        all.iter().filter(|s| matches!(s.why, Why::StillChanging { at, .. } if (at - 14.0).abs() < 1.5));
    let told = told.count();
    println!("shifts: {cuts} cut, {told} told");
    assert!(told >= 90, "{told}");
}

#[test]
fn a_ramp_never_becomes_steady() {
    let all = judged(0.5, |t| 20.0 + 0.3 * t);
    println!("ramp: {} steady", steady(&all));
    assert!(steady(&all) <= 3, "{}", steady(&all));
}
