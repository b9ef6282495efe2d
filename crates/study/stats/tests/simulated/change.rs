//! False alarms and power of change points.

use stats::change::{How, changes};

use crate::draw::Draw;

/// A series of studies of three runs: studies differ by a standard deviation of 1, runs within them too.
fn series(draw: &mut Draw, studies: usize, skewed: bool, shift: impl Fn(usize) -> f64) -> Vec<Vec<f64>> {
    (0..studies)
        .map(|i| {
            let study = if skewed { draw.exponential() } else { draw.normal() };
            (0..3).map(|_| 50.0 + shift(i) + study + draw.normal()).collect()
        })
        .collect()
}

/// Standard deviation of a study's mean.
const SIGMA: f64 = 1.154_7;

#[test]
fn a_series_without_a_change_gives_alarms_as_rarely_as_said() {
    let mut draw = Draw::new(51);
    for (studies, skewed) in [(10, false), (30, false), (30, true)] {
        let how = How { permutations: 199, ..How::default() };
        let trials = 400;
        let alarms = (0..trials)
            .filter(|seed| {
                let s = series(&mut draw, studies, skewed, |_| 0.0);
                !changes(&s, &How { seed: *seed, ..how }).unwrap().changes.is_empty()
            })
            .count();
        println!("{studies} studies, skewed {skewed}: {alarms} alarms in {trials}");
        // 5 % and three standard errors of 1.1 %.
        assert!(alarms <= 33, "{studies}: {alarms} of {trials}");
    }
}

#[test]
fn a_shift_of_one_standard_deviation_of_a_study_is_found_near_its_place() {
    let mut draw = Draw::new(52);
    let how = How { permutations: 199, ..How::default() };
    for (studies, shift, least) in [(80, 1.0, 80), (30, 2.0, 90)] {
        let half = studies / 2;
        let found = (0..100).filter(|seed| {
            let s = series(&mut draw, studies, false, |i| if i < half { 0.0 } else { shift * SIGMA });
            let found = changes(&s, &How { seed: *seed, ..how }).unwrap().changes;
            found.iter().any(|c| c.at.abs_diff(half) <= studies / 8 && c.difference > 0.0)
        });
        let found = found.count();
        println!("{studies} studies, shift {shift}: found {found} of 100");
        assert!(found >= least, "{studies}: {found} of 100");
    }
}

#[test]
fn a_regression_that_was_mended_is_found() {
    let mut draw = Draw::new(53);
    let how = How { permutations: 199, ..How::default() };
    let found = (0..100).filter(|seed| {
        let s = series(&mut draw, 30, false, |i| if (12..18).contains(&i) { 3.0 * SIGMA } else { 0.0 });
        changes(&s, &How { seed: *seed, ..how }).unwrap().changes.len() == 2
    });
    let found = found.count();
    println!("mended: {found} of 100");
    assert!(found >= 80, "{found} of 100");
}
