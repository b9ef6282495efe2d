use proptest::prelude::*;

use super::*;

const A: [f64; 5] = [100.0, 101.0, 99.0, 100.5, 99.5];

fn how(direction: Direction, margin: Option<Margin>) -> How {
    How { direction, margin, ..How::default() }
}

#[track_caller]
fn check_verdict(b: &[f64], how: How, expected: Verdict) -> Comparison {
    let c = compare_values(&A, b, &how).unwrap();
    assert_eq!(c.verdict, expected, "{c:?}");
    c
}

#[test]
fn a_difference_is_better_worse_or_different_by_direction() {
    let b = A.map(|v| v + 10.0);
    check_verdict(&b, how(Direction::Higher, None), Verdict::Better);
    check_verdict(&b, how(Direction::Lower, None), Verdict::Worse);
    let c = check_verdict(&b, how(Direction::Neutral, None), Verdict::Differs);
    assert_eq!((c.difference.estimate, c.method), (10.0, Method::Welch));
    let percent = c.ratio.unwrap().percent();
    assert!((percent.estimate - 10.0).abs() < 1e-9);
    let i = percent.interval.unwrap();
    assert!(i.low > 8.5 && i.high < 11.5, "{i:?}");
    // sd = 0.790569 on both sides, df = 8: 10 / 0.790569 x (1 - 3/31).
    assert!((c.hedges_g.unwrap() - 11.425).abs() < 1e-2, "{c:?}");
    assert_eq!(c.p_permutation, Some(2.0 / 252.0));
}

#[test]
fn an_interval_within_the_margin_is_no_difference_that_matters() {
    let b = A.map(|v| v + 0.1);
    let c = check_verdict(
        &b,
        how(Direction::Lower, Some(Margin::Relative(0.02))),
        Verdict::NoDifferenceThatMatters,
    );
    assert!(c.p_equivalence.unwrap() < 0.01, "{c:?}");
    check_verdict(&b, how(Direction::Lower, Some(Margin::Absolute(2.0))), Verdict::NoDifferenceThatMatters);
    // A difference that is surely there but too small to matter.
    let b = A.map(|v| v + 3.0);
    let c = check_verdict(
        &b,
        how(Direction::Lower, Some(Margin::Relative(0.1))),
        Verdict::NoDifferenceThatMatters,
    );
    assert!(c.p.unwrap() < 0.01);
    check_verdict(&b, how(Direction::Lower, Some(Margin::Relative(0.0))), Verdict::Worse);
}

#[test]
fn too_few_runs_are_unclear_and_say_how_many_would_tell() {
    let c = compare_values(&[100.0, 102.0, 98.0], &[101.0, 103.0, 99.0], &How::default()).unwrap();
    let Verdict::Unclear { runs: Some(runs) } = c.verdict else { panic!("{c:?}") };
    // 16 x (sd / d)^2 = 64 by Lehr's rule.
    assert!((60..=70).contains(&runs), "{runs}");
    // Showing that 1 does not matter beside a margin of 5 takes fewer.
    let near = how(Direction::Neutral, Some(Margin::Absolute(5.0)));
    let c = compare_values(&[100.0, 102.0, 98.0], &[101.0, 103.0, 99.0], &near).unwrap();
    let Verdict::Unclear { runs: Some(fewer) } = c.verdict else { panic!("{c:?}") };
    assert!((4..=6).contains(&fewer), "{fewer}");
    check_verdict(&[100.0], How::default(), Verdict::Unclear { runs: None });
}

#[test]
fn values_without_spread_are_told_apart_only_when_chance_is_unlikely() {
    let run = |n: usize, b: f64| compare_values(&vec![5.0; n], &vec![b; n], &How::default()).unwrap();
    assert_eq!(run(3, 6.0).verdict, Verdict::Unclear { runs: None });
    assert_eq!(run(5, 6.0).verdict, Verdict::Differs);
    assert_eq!(run(3, 5.0).verdict, Verdict::NoDifferenceThatMatters);
    assert_eq!(run(1, 5.0).verdict, Verdict::Unclear { runs: None });
    let near = how(Direction::Neutral, Some(Margin::Relative(0.02)));
    let c = compare_values(&[5.0; 3], &[5.01; 3], &near).unwrap();
    assert_eq!(c.verdict, Verdict::NoDifferenceThatMatters, "{c:?}");
}

#[test]
fn many_runs_are_bootstrapped_and_samples_make_a_runs_value() {
    let side = |shift: f64| -> Vec<Vec<f64>> {
        (0..10).map(|r| (0..60).map(|i| shift + f64::from((r * 7 + i * 13) % 11)).collect()).collect()
    };
    let c = compare(&side(10.0), &side(30.0), &How::default()).unwrap();
    assert_eq!((c.method, c.verdict, c.a.n), (Method::Wider, Verdict::Differs, 10));
    assert!((c.difference.estimate - 20.0).abs() < 0.5 && c.ratio.unwrap().interval.is_some());
    let welch = How { method: Method::Welch, ..How::default() };
    assert_eq!(compare(&side(10.0), &side(30.0), &welch).unwrap().method, Method::Welch);
}

#[test]
fn discoveries_among_many_need_a_smaller_p_value() {
    let b = [101.5, 102.5, 100.4, 101.4, 101.2];
    let mut alone = [compare_values(&A, &b, &How::default()).unwrap()];
    assert_eq!(alone[0].verdict, Verdict::Differs, "{alone:?}");
    control(&mut alone, Adjustment::BenjaminiHochberg);
    assert_eq!(alone[0].verdict, Verdict::Differs);
    let same = compare_values(&A, &[100.1, 101.2, 98.7, 100.3, 99.9], &How::default()).unwrap();
    let mut many = vec![same; 20];
    many.push(alone[0].clone());
    control(&mut many, Adjustment::BenjaminiHochberg);
    assert!(matches!(many[20].verdict, Verdict::Unclear { .. }), "{:?}", many[20]);
    assert!(many[20].p_adjusted > many[20].p);
}

#[test]
fn questions_without_sense_are_refused() {
    let bad = |how: How| compare_values(&A, &A, &how).unwrap_err();
    assert!(matches!(bad(How { level: 1.0, ..How::default() }), Error::Share { .. }));
    assert!(matches!(
        bad(How { statistic: Statistic::Quantile(2.0), ..How::default() }),
        Error::Share { .. }
    ));
    assert!(matches!(bad(how(Direction::Lower, Some(Margin::Absolute(f64::NAN)))), Error::Negative { .. }));
    assert_eq!(compare_values(&[f64::NAN], &A, &How::default()), Err(Error::Empty { name: "A" }));
    assert_eq!(compare_values(&A, &[], &How::default()), Err(Error::Empty { name: "B" }));
    assert_eq!(
        compare_values(&A, &[1e308, -1e308, 1e308], &How::default()),
        Err(Error::TooLarge { name: "B" })
    );
}

fn hostile() -> impl Strategy<Value = Vec<f64>> {
    let value = prop_oneof![
        prop::num::f64::ANY,
        Just(0.0),
        Just(1.0),
        Just(f64::NAN),
        Just(f64::INFINITY),
        Just(f64::MAX),
        Just(-1e-300),
        -10.0..10.0f64,
    ];
    prop::collection::vec(value, 0..12)
}

proptest! {
    #[test]
    fn hostile_values_give_an_answer_or_an_error(a in hostile(), b in hostile(), m in prop::num::f64::ANY, relative: bool) {
        let margin = if relative { Margin::Relative(m) } else { Margin::Absolute(m) };
        for margin in [None, Some(margin)] {
            let how = How { margin, resamples: 50, permutations: 20, ..How::default() };
            let Ok(c) = compare_values(&a, &b, &how) else { continue };
            prop_assert!(c.difference.estimate.is_finite());
            for i in [c.difference.interval, c.ratio.and_then(|r| r.interval)].into_iter().flatten() {
                prop_assert!(i.low <= i.high, "{c:?}");
            }
            for p in [c.p, c.p_permutation, c.p_equivalence].into_iter().flatten() {
                prop_assert!((0.0..=1.0).contains(&p), "{c:?}");
            }
            prop_assert!(c.hedges_g.is_none_or(f64::is_finite));
        }
    }

    #[test]
    fn swapping_the_sides_swaps_the_verdict(
        a in prop::collection::vec(1.0..100.0f64, 2..7),
        b in prop::collection::vec(1.0..100.0f64, 2..7),
    ) {
        let how = how(Direction::Lower, None);
        let (x, y) = (compare_values(&a, &b, &how).unwrap(), compare_values(&b, &a, &how).unwrap());
        let swapped = match x.verdict {
            Verdict::Better => Verdict::Worse,
            Verdict::Worse => Verdict::Better,
            same => same,
        };
        prop_assert_eq!(swapped, y.verdict);
        prop_assert!((x.p.unwrap() - y.p.unwrap()).abs() < 1e-9);
    }
}
