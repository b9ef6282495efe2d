//! A/A: comparisons of runs of one condition.

use stats::compare::{How, Method};
use stats::fdr::Adjustment;
use stats::self_test::{Outcome, Trial, self_test};

use crate::draw::{Draw, Shape};

/// Indicators of so many runs; some share the run's luck.
fn indicators(draw: &mut Draw, runs: usize, many: usize) -> Vec<Vec<f64>> {
    let luck: Vec<f64> = (0..runs).map(|_| 2.0 * draw.normal()).collect();
    let shapes = [Shape::Normal, Shape::Lognormal(0.5), Shape::Exponential, Shape::Normal, Shape::Outliers];
    let one = |i: usize| {
        let value =
            |l: &f64| shapes[i % shapes.len()].draw(draw) + if i.is_multiple_of(2) { *l } else { 0.0 };
        luck.iter().map(value).collect()
    };
    (0..many).map(one).collect()
}

#[test]
fn comparisons_of_one_condition_find_nothing_more_often_than_said() {
    let mut draw = Draw::new(71);
    let how = How { resamples: 300, ..How::default() };
    let mut wolves = 0;
    let (mut share, mut alone) = (0.0, 0.0);
    for seed in 0..40 {
        let values = indicators(&mut draw, 10, 20);
        let test = self_test(&values, &Trial { how, splits: 60, seed, ..Trial::default() }).unwrap();
        assert_eq!(test.splits, 60);
        share += test.any_false / 40.0;
        alone += test.indicators.iter().map(|r| r.alone).sum::<f64>() / 20.0 / 40.0;
        wolves += usize::from(test.outcome == Outcome::CriesWolf);
    }
    println!("20 indicators, 10 runs: any false {share:.3}, each alone {alone:.3}, wolves {wolves} of 40");
    assert!(share <= 0.06 && alone <= 0.06, "any {share}, alone {alone}");
    assert!(wolves <= 4, "{wolves} of 40");
}

#[test]
fn many_indicators_without_control_are_caught_crying_wolf() {
    let mut draw = Draw::new(72);
    let values = indicators(&mut draw, 16, 40);
    let how = How { method: Method::Welch, ..How::default() };
    let trial = Trial { how, splits: 200, ..Trial::default() };
    let test = self_test(&values, &Trial { adjustment: Adjustment::None, ..trial }).unwrap();
    println!("without control: any false {:.3}", test.any_false);
    assert!(test.any_false > 0.5 && test.outcome == Outcome::CriesWolf, "{test:?}");
    assert_eq!(self_test(&values, &trial).unwrap().outcome, Outcome::Honest);
}
