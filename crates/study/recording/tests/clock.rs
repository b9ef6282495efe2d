//! The clock estimate through a real collector, against clocks whose truth is known.
#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

mod clocks;

use clocks::{Outcome, Truth, half_delayed, record};

/// Exchanges of a test: the ten of the start and some seconds of two each.
const EXCHANGES: usize = 16;

#[test]
fn the_truth_is_never_outside_the_uncertainty_under_offset_drift_and_random_delays() {
    let truths = [(0, 0.0), (5_000_000_000_000, 80.0), (-1_000_000_000, -150.0), (123_456_789, 35.0)];
    let runs: Vec<_> = (0u64..)
        .zip(truths)
        .map(|(seed, (offset_ns, drift_ppm))| {
            let truth = Truth { offset_ns, drift_ppm };
            std::thread::spawn(move || (truth, record(truth, half_delayed, half_delayed, EXCHANGES, seed)))
        })
        .collect();
    for run in runs {
        let (truth, outcome) = run.join().unwrap();
        assert!(outcome.error_ns <= outcome.uncertainty_ns, "{truth:?}: {outcome:?}");
    }
}

#[test]
fn a_constant_asymmetry_is_within_the_uncertainty_and_that_within_half_of_the_round_trip() {
    let slow = |_| 4_000;
    let truth = Truth { offset_ns: 77_000_000, drift_ppm: 20.0 };
    let Outcome { error_ns, uncertainty_ns, .. } = record(truth, slow, |_| 0, EXCHANGES, 1);
    assert!((1_500_000..=uncertainty_ns).contains(&error_ns), "{error_ns} {uncertainty_ns}");
    // A round trip is 4 ms and what a loaded machine adds; the least of them bounds it, at the ends a little more.
    assert!(uncertainty_ns < 2_000_000 + 1_500_000, "{uncertainty_ns}");
}
