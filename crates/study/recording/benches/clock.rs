//! How far the clock estimate is from the truth on loopback, under injected offset, drift and random one-sided delays:
//! `cargo bench --workspace --bench clock [-- RUNS]`. Prints each run and the distribution; asserts nothing.

#[path = "../tests/clocks/mod.rs"]
mod clocks;

use clocks::{Truth, half_delayed, record};

/// Exchanges of a run: the ten of the start, and ten seconds of two each.
const EXCHANGES: usize = 30;
/// Runs at once: each sleeps nearly all of the time.
const AT_ONCE: u64 = 8;

fn main() {
    // Cargo hands `--bench` through.
    let runs = std::env::args().skip(1).find_map(|a| a.parse().ok()).unwrap_or(2 * AT_ONCE);
    let mut outcomes = Vec::new();
    println!("   offset s   drift ppm   exchanges   error us   uncertainty us");
    for first in (0..runs).step_by(AT_ONCE as usize) {
        let started: Vec<_> = (first..runs.min(first + AT_ONCE))
            .map(|n| {
                let truth = Truth {
                    offset_ns: (n as i64 - runs as i64 / 2) * 1_234_567_890,
                    drift_ppm: (n as f64 * 37.0) % 300.0 - 150.0,
                };
                std::thread::spawn(move || (truth, record(truth, half_delayed, half_delayed, EXCHANGES, n)))
            })
            .collect();
        for run in started {
            let Ok((truth, outcome)) = run.join() else { continue };
            println!(
                "{:11.3} {:11.1} {:11} {:10.1} {:16.1}",
                truth.offset_ns as f64 / 1e9,
                truth.drift_ppm,
                outcome.exchanges,
                outcome.error_ns as f64 / 1e3,
                outcome.uncertainty_ns as f64 / 1e3
            );
            outcomes.push(outcome);
        }
    }
    let mut errors: Vec<_> = outcomes.iter().map(|o| o.error_ns).collect();
    let mut uncertainties: Vec<_> = outcomes.iter().map(|o| o.uncertainty_ns).collect();
    let outside = outcomes.iter().filter(|o| o.error_ns > o.uncertainty_ns).count();
    errors.sort_unstable();
    uncertainties.sort_unstable();
    let at = |of: &[i64], q: f64| {
        of.get(((of.len().max(1) - 1) as f64 * q) as usize).map_or(f64::NAN, |ns| *ns as f64 / 1e3)
    };
    println!(
        "error: median {:.1} us, 90 % {:.1} us, largest {:.1} us; uncertainty: median {:.1} us, largest {:.1} us; \
         outside their uncertainty: {outside} of {}",
        at(&errors, 0.5),
        at(&errors, 0.9),
        at(&errors, 1.0),
        at(&uncertainties, 0.5),
        at(&uncertainties, 1.0),
        outcomes.len()
    );
}
