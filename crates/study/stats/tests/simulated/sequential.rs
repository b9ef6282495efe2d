//! Whether the sequence holds the truth at all looks, where Student's interval does not.

use stats::sequential::{BEST_AT, Sequence, Target};

use crate::draw::{Draw, Shape};

/// Shares of series that hold the mean at each look from 3 to 200 values: by the sequence, and by Student's interval.
fn always(shape: Shape, trials: usize) -> [f64; 2] {
    let mut draw = Draw::new(41);
    let sequence = Sequence::new(0.95, BEST_AT).unwrap();
    let truth = shape.mean();
    let mut held = [0usize; 2];
    for _ in 0..trials {
        let values: Vec<f64> = (0..200).map(|_| shape.draw(&mut draw)).collect();
        let all = |interval: &dyn Fn(&[f64]) -> Option<stats::Interval>| {
            (3..=200).all(|n| interval(&values[..n]).is_none_or(|i| i.low <= truth && truth <= i.high))
        };
        held[0] += usize::from(all(&|v| sequence.interval(v)));
        held[1] += usize::from(all(&|v| stats::student(v, 0.95)));
    }
    held.map(|h| h as f64 / trials as f64)
}

#[test]
fn the_sequence_holds_at_all_looks_where_student_does_not() {
    let [sequence, student] = always(Shape::Normal, 400);
    println!("normal: sequence {sequence:.3}, Student {student:.3}");
    assert!(sequence >= 0.94, "{sequence}");
    assert!(student < 0.8, "{student}");
}

#[test]
fn skewed_runs_cost_a_few_percent() {
    for (shape, least) in [(Shape::Lognormal(0.25), 0.92), (Shape::Exponential, 0.85)] {
        let [sequence, student] = always(shape, 300);
        println!("{shape:?}: sequence {sequence:.3}, Student {student:.3}");
        assert!(sequence >= least && sequence > student + 0.1, "{shape:?}: {sequence}");
    }
}

#[test]
fn a_campaign_that_stops_when_it_is_sure_is_right() {
    let sequence = Sequence::new(0.95, BEST_AT).unwrap();
    let mut draw = Draw::new(42);
    let (mut right, mut runs) = (0, 0);
    for _ in 0..400 {
        let mut values = Vec::new();
        let interval = loop {
            values.push(Shape::Normal.draw(&mut draw));
            let look = sequence.look(&values, Target::Relative(0.04)).unwrap();
            if let Some(i) = look.interval.filter(|_| look.enough) {
                break i;
            }
        };
        right += usize::from(interval.low <= 100.0 && 100.0 <= interval.high);
        runs += values.len();
    }
    println!("{right} of 400 right after {} runs on average", runs / 400);
    assert!(right >= 372, "{right}");
    assert!((10..=30).contains(&(runs / 400)), "{runs}");
}
