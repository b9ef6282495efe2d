//! Finds how two clocks lie to each other from things that passed from one to the other, such as video frames.
//!
//! Each thing gives a point: the receiver's clock minus the sender's, at an instant. It is the clocks' difference plus
//! the delay on the way, and delays are only ever added. So the difference is a line below all points, and of all such
//! lines the one nearest to them: an edge of the points' lower convex hull (after Moon, Skelly and Towsley, "Estimation
//! and removal of clock skew from network delay measurements", 1999). O(n log n).
//!
//! What no such method can see is the delay of the quickest: the line is below the truth by it, always. A point that
//! lies far below its neighbours (two things taken for one) would pull the line down; such points are left out.

/// Largest drift that is believed, as a ratio; the same as for exchanges with the collector.
const MAX_DRIFT: f64 = 500e-6;
/// Fewest points from which a drift is found.
const FEWEST: usize = 8;
/// Parts of the time in each of which the quickest is looked at.
const PARTS: usize = 16;
/// A point this many typical deviations below the quickest of its surroundings is none of them.
const FAR: f64 = 8.0;
/// And by at least this much, in nanoseconds: the resolution of the clocks in question.
const FAR_LEAST: f64 = 20_000.0;
/// Largest part of the points that are left out: more of them would be no outliers.
const LEFT_OUT: f64 = 0.02;

/// A line below all points: `y = offset + drift · (x - reference)`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// At the reference.
    pub offset: i64,
    /// As a ratio; 0 where there were too few points.
    pub drift: f64,
    /// In the middle of the points' time.
    pub reference: i64,
    /// How far the line of the quickest may be from this one between the first and the last point: twice the most by
    /// which the quickest of any part of the time lies above it. Not in it is the delay of the quickest.
    pub uncertainty: i64,
    /// Points used.
    pub points: usize,
    /// Points left out because they lie far below the others.
    pub left_out: usize,
}

impl Line {
    /// The line at an instant.
    pub fn at(&self, x: i64) -> i64 {
        self.offset.saturating_add((self.drift * x.wrapping_sub(self.reference) as f64).round() as i64)
    }
}

/// A point relative to the reference and to a base, so that doubles keep their nanoseconds.
type Point = (f64, f64);

/// The line just below points `(x, y)` in any order, in nanoseconds; `None` without points.
pub fn line_below(points: &[(i64, i64)]) -> Option<Line> {
    let (first, last) = (points.iter().map(|p| p.0).min()?, points.iter().map(|p| p.0).max()?);
    let reference = first.saturating_add(last.saturating_sub(first) / 2);
    let mut middle: Vec<i64> = points.iter().map(|p| p.1).collect();
    let half = middle.len() / 2;
    let base = *middle.select_nth_unstable(half).1;
    let relative = |p: &(i64, i64)| {
        ((i128::from(p.0) - i128::from(reference)) as f64, (i128::from(p.1) - i128::from(base)) as f64)
    };
    let mut all: Vec<Point> = points.iter().map(relative).collect();
    all.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let kept = without_far_ones(&all);
    let left_out = all.len() - kept.len();
    let ends = (kept.first()?.0, kept.last()?.0);
    let (offset, drift, uncertainty) = if kept.len() < FEWEST || ends.1 <= ends.0 {
        let low = kept.iter().map(|p| p.1).fold(f64::INFINITY, f64::min);
        let high = kept.iter().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);
        (low, 0.0, high - low + MAX_DRIFT * (ends.1 - ends.0))
    } else {
        let drift = slope(&kept).clamp(-MAX_DRIFT, MAX_DRIFT);
        let offset = kept.iter().map(|p| p.1 - drift * p.0).fold(f64::INFINITY, f64::min);
        let above = |p: &Point| p.1 - (offset + drift * p.0);
        (offset, drift, 2.0 * quickest(&kept, PARTS).iter().map(above).fold(0.0, f64::max))
    };
    Some(Line {
        offset: base.saturating_add(offset.floor() as i64),
        drift,
        reference,
        // A nanosecond for the rounding of the offset.
        uncertainty: (uncertainty.ceil() as i64).saturating_add(1),
        points: kept.len(),
        left_out,
    })
}

/// The drift of the hull's edge below the points' mean instant: the line through it has the smallest sum of distances.
fn slope(points: &[Point]) -> f64 {
    let hull = lower_hull(points);
    let mean = points.iter().map(|p| p.0).sum::<f64>() / points.len() as f64;
    let edge = hull.windows(2).find(|w| w[1].0 >= mean);
    edge.map_or(0.0, |w| (w[1].1 - w[0].1) / (w[1].0 - w[0].0))
}

/// Andrew's monotone chain; `points` are sorted. No two of the result have the same instant.
fn lower_hull(points: &[Point]) -> Vec<Point> {
    let mut hull: Vec<Point> = Vec::new();
    for p in points {
        if hull.last().is_some_and(|last| last.0 == p.0) {
            continue;
        }
        while let [.., a, b] = hull[..] {
            if (b.0 - a.0) * (p.1 - a.1) > (b.1 - a.1) * (p.0 - a.0) {
                break;
            }
            hull.pop();
        }
        hull.push(*p);
    }
    hull
}

/// The lowest point of each of `parts` equal parts of the time that has one, relative to the drift between parts.
fn quickest(points: &[Point], parts: usize) -> Vec<Point> {
    let (Some(first), Some(last)) = (points.first(), points.last()) else { return Vec::new() };
    let width = (last.0 - first.0) / parts as f64;
    let part = |p: &Point| if width > 0.0 { (((p.0 - first.0) / width) as usize).min(parts - 1) } else { 0 };
    let chunks = points.chunk_by(|a, b| part(a) == part(b));
    chunks.filter_map(|c| c.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1))).collect()
}

/// Sorted points without those far below a robust line through the quickest of each part of the time. The line is that
/// of Theil and Sen: the median of the slopes between all of these, which a quarter of wrong ones does not move.
fn without_far_ones(points: &[Point]) -> Vec<Point> {
    let low = quickest(points, 4 * PARTS);
    let slopes =
        low.iter().enumerate().flat_map(|(i, a)| low[i + 1..].iter().map(move |b| (b.1 - a.1) / (b.0 - a.0)));
    let Some(slope) = crate::quantile(&mut slopes.collect(), 0.5) else { return points.to_vec() };
    let slope = slope.clamp(-MAX_DRIFT, MAX_DRIFT);
    let residual = |p: &Point| p.1 - slope * p.0;
    let mut residuals: Vec<f64> = low.iter().map(residual).collect();
    let Some(centre) = crate::quantile(&mut residuals, 0.5) else { return points.to_vec() };
    let mut deviations = residuals.iter().map(|r| (r - centre).abs()).collect();
    let spread = crate::quantile(&mut deviations, 0.5).unwrap_or(0.0);
    let least = centre - (FAR * spread).max(FAR_LEAST);
    let kept: Vec<Point> = points.iter().copied().filter(|p| residual(p) >= least).collect();
    let allowed = ((points.len() as f64 * LEFT_OUT) as usize).max(1);
    if kept.len() >= 2 && points.len() - kept.len() <= allowed { kept } else { points.to_vec() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    const FRAME: i64 = 33_333_333;

    /// Frames at 30 a second with a constant delay of 2 ms and a queueing delay from `queue`.
    fn frames(n: i64, offset: i64, drift: f64, queue: impl Fn(i64) -> i64) -> Vec<(i64, i64)> {
        (0..n)
            .map(|i| (i * FRAME, offset + (drift * (i * FRAME) as f64) as i64 + 2_000_000 + queue(i)))
            .collect()
    }

    fn error(line: &Line, offset: i64, drift: f64, n: i64) -> i64 {
        let truth = |x: i64| offset + 2_000_000 + (drift * x as f64) as i64;
        [0, (n - 1) * FRAME].map(|x| (line.at(x) - truth(x)).abs()).into_iter().max().unwrap()
    }

    proptest! {
        #[test]
        fn offset_and_drift_are_found_through_queueing_delays(
            seed in any::<u64>(), offset in -10_000_000_000i64..10_000_000_000, ppm in -100.0..100.0, n in 60i64..2_000,
        ) {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            let queues: Vec<i64> = (0..n).map(|_| (-rng.random::<f64>().max(1e-9).ln() * 3e6) as i64).collect();
            let line = line_below(&frames(n, offset, ppm * 1e-6, |i| queues[i as usize])).unwrap();
            let error = error(&line, offset, ppm * 1e-6, n);
            // The quickest of all is the truth; it was delayed by this.
            let quickest = queues.iter().min().unwrap();
            prop_assert!(error - quickest <= line.uncertainty, "error {error}, uncertainty {}", line.uncertainty);
            prop_assert!(line.uncertainty < 12_000_000);
        }
    }

    #[test]
    fn without_queueing_the_line_is_exact() {
        for drift in [-80e-6, 0.0, 35e-6] {
            let line =
                line_below(&frames(900, 5_941_000_000, drift, |i| (i * 7_919) % 4 * 1_500_000)).unwrap();
            let error = error(&line, 5_941_000_000, drift, 900);
            assert!(error <= 5 && line.left_out == 0, "{error} {line:?}");
        }
    }

    #[test]
    fn queueing_that_grows_is_not_taken_for_a_drift() {
        // The queue builds up for nine seconds of ten, but now and then a frame finds it empty.
        let queue = |i: i64| if i % 50 == 0 { 0 } else { i % 300 * 100_000 };
        let line = line_below(&frames(1_500, 0, 20e-6, queue)).unwrap();
        assert!((line.drift - 20e-6).abs() < 1e-8 && error(&line, 0, 20e-6, 1_500) < 100, "{line:?}");
    }

    #[test]
    fn frames_taken_for_others_do_not_pull_the_line_down() {
        let mut points = frames(600, 1_000, 10e-6, |i| (i * 31) % 17 * 40_000);
        for i in [100, 101, 400] {
            points[i].1 -= FRAME;
        }
        let line = line_below(&points).unwrap();
        assert_eq!(line.left_out, 3);
        assert!(error(&line, 1_000, 10e-6, 600) <= line.uncertainty, "{line:?}");
    }

    #[test]
    fn few_frames_say_how_little_they_tell() {
        assert_eq!(line_below(&[]), None);
        let one = line_below(&[(5, 70)]).unwrap();
        assert_eq!((one.offset, one.drift, one.points), (70, 0.0, 1));
        let few = line_below(&frames(5, 0, 100e-6, |i| i % 2 * 1_000_000)).unwrap();
        assert!(
            few.drift == 0.0 && few.uncertainty >= 1_000_000 && error(&few, 0, 100e-6, 5) <= few.uncertainty
        );
        let same = line_below(&[(5, 70); 20]).unwrap();
        assert_eq!((same.offset, same.drift), (70, 0.0));
    }

    #[test]
    fn absurd_instants_do_no_harm() {
        let ends = [(i64::MIN, i64::MAX), (i64::MAX, i64::MIN), (0, 0)];
        let points: Vec<_> = ends.into_iter().cycle().take(30).collect();
        assert!(line_below(&points).is_some());
    }
}
