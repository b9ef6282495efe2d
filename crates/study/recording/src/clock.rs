//! Estimates a panel's clock from repeated exchanges with the collector.
//!
//! Each exchange bounds the offset: the panel read its clock after the question left and before the answer came, so
//! `collector - panel` lies between the two. Over a run the offset is taken to be a line (offset and drift); every line
//! that passes through all bounds is possible. The estimate is the middle of these lines, its uncertainty the farthest
//! that any of them is from it between the first and the last exchange. Nothing is assumed about how the round trip
//! divides into there and back. After D. Mills, RFC 5905 (bounds) and Marzullo's intersection of intervals.
//!
//! A clock that steps against the collector's (a machine that was suspended or paused) cannot pass through the bounds
//! before and after it: a new line begins, and the step is told.

use crate::facts::ClockFacts;

/// Largest drift of a clock that is believed, in parts per million. Crystals are within 100, virtual machines within
/// what `adjtimex` allows (500).
const MAX_DRIFT_PPM: f64 = 500.0;
/// Exchanges with which a new one is compared.
const RECENT: usize = 64;
/// How far before the first and after the last exchange the uncertainty is to hold: what is recorded lies between the
/// two, or less than the time between exchanges outside.
const MARGIN_NS: i64 = 500_000_000;
/// Steps of a search for the maximum of a concave function; each leaves two thirds of the interval.
const STEPS: usize = 80;

/// One question and its answer. All in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// Collector's clock before the question left.
    pub sent_ns: i64,
    /// Panel's clock when it answered.
    pub panel_ns: i64,
    /// Collector's clock after the answer came.
    pub received_ns: i64,
}

/// Collects exchanges and estimates.
#[derive(Clone, Debug, Default)]
pub struct Estimator {
    /// Exchanges between two steps; the last one is under way.
    segments: Vec<Vec<Exchange>>,
}

impl Estimator {
    /// Without exchanges.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an exchange; one that ended before it began (a clock that was set) is left out. When no clock that drifts as
    /// clocks do can have been within this exchange's bounds and those of the ones before, it has stepped: gives a text
    /// that says by how much at the least.
    pub fn add(&mut self, exchange: Exchange) -> Option<String> {
        if exchange.received_ns < exchange.sent_ns {
            return None;
        }
        let Some(segment) = self.segments.last_mut() else {
            self.segments.push(vec![exchange]);
            return None;
        };
        let step =
            segment.iter().rev().take(RECENT).map(|before| step(before, &exchange)).max_by_key(|s| s.abs());
        match step {
            Some(step) if step != 0 => {
                self.segments.push(vec![exchange]);
                let (verb, ms) =
                    (if step > 0 { "stood still for" } else { "jumped ahead by" }, step.abs() as f64 / 1e6);
                Some(format!("its clock {verb} at least {ms:.1} ms against the collector's"))
            }
            _ => {
                segment.push(exchange);
                None
            }
        }
    }

    /// The estimate, once there are three exchanges.
    pub fn estimate(&self) -> Option<ClockFacts> {
        let mut segments = self.segments.iter();
        let mut facts =
            segments.next().filter(|s| s.len() >= 3 || self.segments.len() > 1).and_then(|s| line(s))?;
        facts.later = segments
            .filter_map(|segment| {
                let from_ns = Some(segment.first()?.panel_ns);
                Some(ClockFacts { from_ns, ..line(segment)? })
            })
            .collect();
        Some(facts)
    }
}

/// How far the offset has moved at least between two exchanges, beyond all that a drift explains; 0 when that explains
/// it. Positive: the panel's clock stood still.
fn step(before: &Exchange, after: &Exchange) -> i64 {
    let offset = |collector: i64, e: &Exchange| i128::from(collector) - i128::from(e.panel_ns);
    let apart = (i128::from(after.received_ns) - i128::from(before.sent_ns)).max(0);
    let drift = apart * MAX_DRIFT_PPM as i128 / 1_000_000 + 1;
    let up = offset(after.sent_ns, after) - offset(before.received_ns, before) - drift;
    let down = offset(before.sent_ns, before) - offset(after.received_ns, after) - drift;
    let clamp = |n: i128| n.clamp(0, i64::MAX.into()) as i64;
    clamp(up) - clamp(down)
}

/// The line through the bounds of exchanges without a step; `None` without exchanges.
fn line(exchanges: &[Exchange]) -> Option<ClockFacts> {
    let (first, last) = (exchanges.first()?, exchanges.last()?);
    // Anchored in the middle of the run, where a wrong drift does the least harm; offsets are relative to the
    // first exchange's, so that doubles keep their nanoseconds.
    let reference_ns = first.panel_ns + (last.panel_ns - first.panel_ns) / 2;
    let base = i128::from(first.sent_ns) - i128::from(first.panel_ns);
    let bounds: Vec<Bound> = exchanges.iter().map(|e| Bound::of(e, reference_ns, base)).collect();

    let gap = |drift: f64| upper(&bounds, drift, 0.0) - lower(&bounds, drift, 0.0);
    let limits = (-MAX_DRIFT_PPM * 1e-6, MAX_DRIFT_PPM * 1e-6);
    let drift = argmax(limits, gap);
    let offset = (upper(&bounds, drift, 0.0) + lower(&bounds, drift, 0.0)) / 2.0;
    let width = gap(drift);
    let uncertainty = if width >= 0.0 {
        let possible = (edge(gap, drift, limits.0), edge(gap, drift, limits.1));
        let (start, end) =
            (first.panel_ns.saturating_sub(MARGIN_NS), last.panel_ns.saturating_add(MARGIN_NS));
        let ends = [Bound::at(start, reference_ns), Bound::at(end, reference_ns)];
        let estimate = |x: f64| offset + drift * x;
        ends.iter().map(|x| farthest(&bounds, possible, estimate(*x), *x)).fold(0.0, f64::max)
    } else {
        // No line passes through all bounds: the drift changed, or a step was too small to be told from it.
        let widest = bounds.iter().map(|b| b.high - b.low).fold(0.0, f64::max);
        -width + widest
    };
    Some(ClockFacts {
        offset_ns: (base + offset.round() as i128) as i64,
        drift_ppm: drift * 1e6,
        reference_ns,
        uncertainty_ns: uncertainty.ceil() as i64,
        exchanges: exchanges.len().try_into().unwrap_or(u32::MAX),
        ..ClockFacts::default()
    })
}

/// The offset at `x` lies within `low..=high`; `x` in nanoseconds from the reference.
struct Bound {
    x: f64,
    low: f64,
    high: f64,
}

impl Bound {
    fn at(panel_ns: i64, reference_ns: i64) -> f64 {
        (panel_ns - reference_ns) as f64
    }

    fn of(e: &Exchange, reference_ns: i64, base: i128) -> Self {
        let relative = |collector: i64| (i128::from(collector) - i128::from(e.panel_ns) - base) as f64;
        Self {
            x: Self::at(e.panel_ns, reference_ns),
            low: relative(e.sent_ns),
            high: relative(e.received_ns),
        }
    }
}

/// The largest offset that a line of this drift may have at `at`: concave in the drift.
fn upper(bounds: &[Bound], drift: f64, at: f64) -> f64 {
    bounds.iter().map(|b| b.high + drift * (at - b.x)).fold(f64::INFINITY, f64::min)
}

/// The smallest: convex in the drift.
fn lower(bounds: &[Bound], drift: f64, at: f64) -> f64 {
    bounds.iter().map(|b| b.low + drift * (at - b.x)).fold(f64::NEG_INFINITY, f64::max)
}

/// How far the farthest possible line is from the estimate at `at`, with a drift between `possible.0` and `.1`.
fn farthest(bounds: &[Bound], possible: (f64, f64), estimate: f64, at: f64) -> f64 {
    let highest = argmax(possible, |d| upper(bounds, d, at));
    let lowest = argmax(possible, |d| -lower(bounds, d, at));
    (upper(bounds, highest, at) - estimate).max(estimate - lower(bounds, lowest, at))
}

/// The drift farthest from `inside` towards `limit` at which a concave function, not negative at `inside`, is not
/// negative.
fn edge(f: impl Fn(f64) -> f64, inside: f64, limit: f64) -> f64 {
    if f(limit) >= 0.0 {
        return limit;
    }
    let (mut good, mut bad) = (inside, limit);
    for _ in 0..STEPS {
        let middle = f64::midpoint(good, bad);
        if f(middle) >= 0.0 { good = middle } else { bad = middle }
    }
    // On the far side, so that rounding never makes the uncertainty too small.
    bad
}

/// The drift (as a ratio) within `limits` at which a concave function is largest.
fn argmax(limits: (f64, f64), f: impl Fn(f64) -> f64) -> f64 {
    let (mut low, mut high) = limits;
    for _ in 0..STEPS {
        let (a, b) = (low + (high - low) / 3.0, high - (high - low) / 3.0);
        // Where both are equal, the maximum lies between them.
        match f(a).total_cmp(&f(b)) {
            std::cmp::Ordering::Less => low = a,
            std::cmp::Ordering::Greater => high = b,
            std::cmp::Ordering::Equal => (low, high) = (a, b),
        }
    }
    f64::midpoint(low, high)
}

impl ClockFacts {
    /// The line that holds at an instant of the panel's clock.
    fn at(&self, panel_ns: i64) -> &Self {
        self.later.iter().rev().find(|l| l.from_ns.is_some_and(|from| panel_ns >= from)).unwrap_or(self)
    }

    /// An instant of the panel's clock on the collector's.
    pub fn to_collector(&self, panel_ns: i64) -> i64 {
        let line = self.at(panel_ns);
        let drift = line.drift_ppm * 1e-6 * (panel_ns.wrapping_sub(line.reference_ns)) as f64;
        panel_ns.wrapping_add(line.offset_ns).wrapping_add(drift.round() as i64)
    }

    /// The largest uncertainty of its lines, nanoseconds.
    pub fn worst_uncertainty_ns(&self) -> i64 {
        self.later.iter().map(|l| l.uncertainty_ns).fold(self.uncertainty_ns, i64::max)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Truth {
        offset_ns: i64,
        drift_ppm: f64,
        start_ns: i64,
    }

    impl Truth {
        fn collector(&self, panel_ns: i64) -> i64 {
            let drift = self.drift_ppm * 1e-6 * (panel_ns - self.start_ns) as f64;
            panel_ns + self.offset_ns + drift.round() as i64
        }
    }

    /// Worst error of the estimate over the run, and its uncertainty.
    fn run(truth: &Truth, delays: &[(i64, i64)], every_ns: i64) -> (i64, i64) {
        let mut estimator = Estimator::new();
        for (i, (there, back)) in delays.iter().enumerate() {
            let panel_ns = truth.start_ns + i as i64 * every_ns;
            let at = truth.collector(panel_ns);
            estimator.add(Exchange { sent_ns: at - there, panel_ns, received_ns: at + back });
        }
        let clock = estimator.estimate().unwrap();
        let end = truth.start_ns + (delays.len() as i64 - 1) * every_ns;
        let error = |t| (clock.to_collector(t) - truth.collector(t)).abs();
        (error(truth.start_ns - MARGIN_NS).max(error(end + MARGIN_NS)), clock.uncertainty_ns)
    }

    proptest! {
        #[test]
        fn the_truth_is_never_outside_the_uncertainty(
            offset_ns in -1_000_000_000_000i64..1_000_000_000_000, drift_ppm in -200.0..200.0,
            start_ns in 0i64..1_000_000_000_000,
            delays in prop::collection::vec((1_000i64..3_000_000, 1_000i64..3_000_000), 3..60),
        ) {
            let (error, uncertainty) = run(&Truth { offset_ns, drift_ppm, start_ns }, &delays, 500_000_000);
            prop_assert!(error <= uncertainty + 2, "error {error} > uncertainty {uncertainty}");
        }

        #[test]
        fn a_few_quick_exchanges_make_the_estimate_good(seed in any::<u64>()) {
            // One-sided delays at random, but every fourth exchange is quick, as on loopback.
            let delays: Vec<_> = (0..40u64)
                .map(|i| {
                    let r = (seed ^ i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xff51_afd7_ed55_8ccd) >> 40;
                    let late = (r % 2_000_000) as i64;
                    match (i % 4, r & 1) { (0, _) => (20_000, 20_000), (_, 0) => (20_000 + late, 20_000), _ => (20_000, 20_000 + late) }
                })
                .collect();
            let (error, uncertainty) = run(&Truth { offset_ns: 5_000, drift_ppm: 40.0, start_ns: 0 }, &delays, 500_000_000);
            prop_assert!(error <= 100_000 && uncertainty <= 100_000, "error {error}, uncertainty {uncertainty}");
        }
    }

    #[test]
    fn a_constant_asymmetry_is_within_the_stated_uncertainty() {
        let (error, uncertainty) =
            run(&Truth { offset_ns: 0, drift_ppm: 0.0, start_ns: 0 }, &[(900_000, 100_000); 20], 1_000_000);
        assert!((390_000..=410_000).contains(&error) && error <= uncertainty, "{error} {uncertainty}");
    }

    #[test]
    fn too_few_exchanges_give_no_estimate() {
        let mut estimator = Estimator::new();
        estimator.add(Exchange { sent_ns: 0, panel_ns: 5, received_ns: 10 });
        assert_eq!(estimator.estimate(), None);
    }

    fn exchanges(from: i64, count: i64, offset_ns: i64) -> impl Iterator<Item = Exchange> {
        (0..count).map(move |i| {
            let panel_ns = from + i * 500_000_000;
            let at = panel_ns + offset_ns;
            Exchange { sent_ns: at - 50_000, panel_ns, received_ns: at + 50_000 }
        })
    }

    #[test]
    fn a_clock_that_stood_still_is_noticed_and_right_on_both_sides() {
        let mut estimator = Estimator::new();
        assert!(exchanges(0, 20, 7_000).all(|e| estimator.add(e).is_none()));
        // Paused for three seconds: the panel's clock goes on as if nothing had been.
        let mut after = exchanges(10_000_000_000, 20, 3_000_007_000);
        let told = estimator.add(after.next().unwrap()).unwrap();
        assert!(told.contains("stood still for at least 2998."), "{told}");
        assert!(after.all(|e| estimator.add(e).is_none()));
        let clock = estimator.estimate().unwrap();
        assert_eq!(clock.later.len(), 1);
        for (panel_ns, collector_ns) in [(5_000_000_000, 5_000_007_000), (15_000_000_000, 18_000_007_000)] {
            let error = (clock.to_collector(panel_ns) - collector_ns).abs();
            assert!(error <= clock.worst_uncertainty_ns() && error < 60_000, "{error}");
        }
    }

    #[test]
    fn a_clock_that_jumps_ahead_is_noticed_even_by_a_millisecond() {
        let mut estimator = Estimator::new();
        assert!(exchanges(0, 5, 0).all(|e| estimator.add(e).is_none()));
        let told = exchanges(2_500_000_000, 1, -1_000_000).find_map(|e| estimator.add(e)).unwrap();
        assert!(told.contains("jumped ahead by at least 0."), "{told}");
    }

    proptest! {
        #[test]
        fn a_clock_that_only_drifts_is_never_said_to_step(
            drift_ppm in -400.0..400.0,
            delays in prop::collection::vec((1_000i64..30_000_000, 1_000i64..30_000_000), 3..200),
        ) {
            let truth = Truth { offset_ns: 12_345, drift_ppm, start_ns: 0 };
            let mut estimator = Estimator::new();
            for (i, (there, back)) in delays.iter().enumerate() {
                let panel_ns = i as i64 * 500_000_000;
                let at = truth.collector(panel_ns);
                prop_assert_eq!(estimator.add(Exchange { sent_ns: at - there, panel_ns, received_ns: at + back }), None);
            }
        }
    }
}
