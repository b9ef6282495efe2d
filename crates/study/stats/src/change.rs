//! Where a response changed over a series of studies.
//!
//! Circular binary segmentation (Olshen, Venkatraman, Lucito and Wigler 2004): of all stretches of the series, the one
//! whose mean differs most from the rest, so that a regression that was mended later is found too, tested by permuting
//! (no distribution is assumed, and the many places looked at are allowed for), then the same within each part. At the
//! end changes that do not hold between their neighbours are taken back (Student's t).

use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, share};
use crate::welch::{finite, t_above, t_quantile};
use crate::{Interval, Summary, student};

/// Stretches tried in one segment: all of a series of 280 studies; of longer ones all that reach an end, and shorter
/// ones inside.
const STRETCHES_MOST: usize = 40_000;

/// What is dealt anew by the permutation test.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Whole studies, by the mean of their runs: right whatever differs from study to study (the machine's mood, a
    /// reboot). Needs about eight studies to see anything.
    #[default]
    Study,
    /// Single runs: sees changes in a few studies of many runs, but takes for a change whatever else sets a study apart.
    Run,
}

/// How to look for changes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct How {
    /// Rate of false alarms in a series without a change, 0 to 1.
    pub alpha: f64,
    /// Of intervals.
    pub level: f64,
    /// What is dealt anew.
    pub unit: Unit,
    /// Fewest studies between two changes; 1 lets a single study be a level of its own.
    pub least: usize,
    /// Permutations of each test; more than 1 / alpha, or nothing is ever found.
    pub permutations: usize,
    /// Of the permutations.
    pub seed: u64,
}

impl Default for How {
    /// Alarms in 5 % of series, intervals of 95 %, whole studies, 2 apart, 999 permutations.
    fn default() -> Self {
        Self { alpha: 0.05, level: 0.95, unit: Unit::Study, least: 2, permutations: 999, seed: 1 }
    }
}

/// Studies in a row with one mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// First study.
    pub from: usize,
    /// The study after the last.
    pub to: usize,
    /// Mean of the units.
    pub mean: f64,
    /// Of the mean (Student); `None` for a single unit. As the bounds were chosen by the values, slightly too narrow.
    pub interval: Option<Interval>,
}

/// A change of the mean.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// First study after it.
    pub at: usize,
    /// Up to it, from the change before.
    pub before: Segment,
    /// From it on, to the next change.
    pub after: Segment,
    /// Mean after less mean before.
    pub difference: f64,
    /// Of the difference (Student, pooled); `None` without spread.
    pub interval: Option<Interval>,
    /// Of the test that found it: the chance of so large a change anywhere in the part of the series that was tested.
    pub p: f64,
}

/// Changes of a series, in order.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Changes {
    /// The changes; none is the usual result.
    pub changes: Vec<Change>,
    /// The levels between them: one more than there are changes.
    pub segments: Vec<Segment>,
    /// Positions among the studies given of those that had a finite value; positions in the result count all given.
    pub used: Vec<usize>,
}

/// Changes in a series of studies in order of time, each with the values of its runs. Values that are not finite are
/// left out, and so are studies without any other.
///
/// # Errors
///
/// Shares out of range, no finite value, values too large to be summed.
pub fn changes<S: AsRef<[f64]>>(studies: &[S], how: &How) -> Result<Changes, Error> {
    share("alpha", how.alpha)?;
    share("the level", how.level)?;
    let finite: Vec<Vec<f64>> =
        studies.iter().map(|s| s.as_ref().iter().copied().filter(|v| v.is_finite()).collect()).collect();
    let used: Vec<usize> = (0..finite.len()).filter(|i| !finite[*i].is_empty()).collect();
    let all: Vec<f64> = used.iter().flat_map(|i| finite[*i].iter().copied()).collect();
    let s = Summary::of(&all).ok_or(Error::Empty { name: "the series" })?;
    if !s.mean.is_finite() || !s.sd.is_finite() {
        return Err(Error::TooLarge { name: "the series" });
    }
    let units = |i: &usize| match how.unit {
        Unit::Study => vec![Summary::of(&finite[*i]).map_or(0.0, |s| s.mean)],
        Unit::Run => finite[*i].clone(),
    };
    let series = Series { units: used.iter().map(units).collect(), least: how.least.max(1) };
    let mut cuts = Vec::new();
    let mut rng = ChaCha8Rng::seed_from_u64(how.seed);
    let mut parts = vec![(0, series.units.len())];
    while let Some((from, to)) = parts.pop() {
        let Some(found) = series.strongest(from, to, how.alpha, how.permutations, &mut rng) else { continue };
        let mut bounds = vec![from];
        for at in [found.from, found.to].into_iter().filter(|at| *at > from && *at < to) {
            cuts.push((at, found.p));
            bounds.push(at);
        }
        bounds.push(to);
        parts.extend(bounds.windows(2).rev().map(|w| (w[0], w[1])));
    }
    cuts.sort_by_key(|c| c.0);
    series.prune(&mut cuts, how.alpha);
    Ok(series.told(&cuts, how.level, used, studies.len()))
}

/// The most different stretch of a series of values, the chance of one so different, and by how much; `None` below four
/// values or without spread.
pub(crate) fn strongest(values: &[f64], permutations: usize, seed: u64) -> Option<(usize, usize, f64)> {
    let series = Series { units: values.iter().map(|v| vec![*v]).collect(), least: 1 };
    // An alpha of 1 tells the p-value whatever it is.
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    series.strongest(0, values.len(), 1.0, permutations, &mut rng).map(|f| (f.from, f.to, f.p))
}

struct Series {
    units: Vec<Vec<f64>>,
    least: usize,
}

struct Found {
    from: usize,
    to: usize,
    p: f64,
}

impl Series {
    fn flat(&self, from: usize, to: usize) -> Vec<f64> {
        self.units[from..to].concat()
    }

    /// The stretch of studies whose mean differs most from the rest of `from..to`, when the test says so.
    fn strongest(
        &self,
        from: usize,
        to: usize,
        alpha: f64,
        permutations: usize,
        rng: &mut ChaCha8Rng,
    ) -> Option<Found> {
        let mut units = self.flat(from, to);
        let s = Summary::of(&units).filter(|s| s.sd > 0.0)?;
        units.iter_mut().for_each(|v| *v = (*v - s.mean) / s.sd);
        let mut ends = vec![0];
        ends.extend(self.units[from..to].iter().scan(0, |sum, u| {
            *sum += u.len();
            Some(*sum)
        }));
        let stretches = self.stretches(to - from);
        if stretches.is_empty() {
            return None;
        }
        let mut sums = Vec::with_capacity(units.len() + 1);
        let mut most = |units: &[f64]| {
            sums.clear();
            sums.push(0.0);
            sums.extend(units.iter().scan(0.0, |sum, v| {
                *sum += v;
                Some(*sum)
            }));
            let n = units.len() as f64;
            // Sum of squares between the stretch and the rest: the total is the same in all permutations.
            let between = |(i, j): (usize, usize)| {
                let (sum, w) = (sums[ends[j]] - sums[ends[i]], (ends[j] - ends[i]) as f64);
                sum * sum * n / (w * (n - w))
            };
            let first = (f64::MIN, (0, 0));
            stretches.iter().fold(first, |best, s| {
                let b = between(*s);
                if b > best.0 { (b, *s) } else { best }
            })
        };
        let (seen, (i, j)) = most(&units);
        let seen = seen * (1.0 - 1e-9);
        // Sequential Monte Carlo (Besag and Clifford 1991): once too many are as large, it stays that way.
        let enough = (alpha * (permutations + 1) as f64).floor() as usize;
        let (mut as_large, mut done) = (0, 0);
        while done < permutations && as_large < enough.max(1) {
            units.shuffle(rng);
            as_large += usize::from(most(&units).0 >= seen);
            done += 1;
        }
        let p = (1 + as_large) as f64 / (1 + done) as f64;
        (p <= alpha).then_some(Found { from: from + i, to: from + j, p })
    }

    /// All stretches of `n` studies that leave enough on each side. One that starts at 0 stands for its rest too.
    fn stretches(&self, n: usize) -> Vec<(usize, usize)> {
        let least = self.least;
        let ends = (least..=n.saturating_sub(least)).map(|j| (0, j)).filter(|_| n >= 2 * least);
        let mut stretches: Vec<_> = ends.collect();
        let longest = STRETCHES_MOST / n.max(1);
        for i in least..n.saturating_sub(2 * least - 1) {
            let last = (n - least).min(i.saturating_add(longest));
            stretches.extend((i + least..=last).map(|j| (i, j)));
        }
        stretches
    }

    /// Student's t between the parts before and after a cut: estimate, standard error, degrees of freedom.
    fn t(&self, from: usize, at: usize, to: usize) -> Option<(f64, f64, f64)> {
        let (a, b) = (Summary::of(&self.flat(from, at))?, Summary::of(&self.flat(at, to))?);
        let df = (a.n + b.n).checked_sub(2).filter(|df| *df > 0)? as f64;
        let squares = |s: &Summary| s.sd * s.sd * (s.n - 1) as f64;
        let variance = (squares(&a) + squares(&b)) / df;
        Some((b.mean - a.mean, (variance * (1.0 / a.n as f64 + 1.0 / b.n as f64)).sqrt(), df))
    }

    /// Takes back the least sure cut until all hold between their neighbours.
    fn prune(&self, cuts: &mut Vec<(usize, f64)>, alpha: f64) {
        loop {
            let p = |k: usize| {
                let from = if k == 0 { 0 } else { cuts[k - 1].0 };
                let to = cuts.get(k + 1).map_or(self.units.len(), |c| c.0);
                let Some((d, se, df)) = self.t(from, cuts[k].0, to) else { return 0.0 };
                // Without spread t says nothing against the cut.
                if se == 0.0 { f64::from(d == 0.0) } else { 2.0 * t_above(df, (d / se).abs()).unwrap_or(0.0) }
            };
            let worst = (0..cuts.len()).map(|k| (p(k), k)).max_by(|x, y| x.0.total_cmp(&y.0));
            match worst {
                Some((p, k)) if p > alpha => drop(cuts.remove(k)),
                _ => return,
            }
        }
    }

    fn told(&self, cuts: &[(usize, f64)], level: f64, used: Vec<usize>, given: usize) -> Changes {
        let mut bounds = vec![0];
        bounds.extend(cuts.iter().map(|c| c.0));
        bounds.push(self.units.len());
        let position = |i: usize| used.get(i).copied().unwrap_or(given);
        let segments: Vec<Segment> = bounds
            .windows(2)
            .map(|w| {
                let units = self.flat(w[0], w[1]);
                let (mean, interval) = (Summary::of(&units).map_or(0.0, |s| s.mean), student(&units, level));
                let from = if w[0] == 0 { 0 } else { position(w[0]) };
                Segment {
                    from,
                    to: position(w[1]),
                    mean,
                    interval: interval.and_then(|i| finite(i.low, i.high)),
                }
            })
            .collect();
        let change = |(k, (cut, p)): (usize, &(usize, f64))| {
            let (before, after) = (segments[k], segments[k + 1]);
            let interval =
                self.t(bounds[k], *cut, bounds[k + 2]).filter(|t| t.1 > 0.0).and_then(|(d, se, df)| {
                    let half = t_quantile(df, 0.5 + level / 2.0)? * se;
                    finite(d - half, d + half)
                });
            Change { at: after.from, before, after, difference: after.mean - before.mean, interval, p: *p }
        };
        let changes = cuts.iter().enumerate().map(change).collect();
        Changes { changes, segments, used }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Studies of three runs with these means.
    fn series(means: &[f64]) -> Vec<Vec<f64>> {
        let noise = |i: usize, k: usize| ((i * 7 + k * 5) % 11) as f64 / 10.0 - 0.5;
        means.iter().enumerate().map(|(i, m)| (0..3).map(|k| m + noise(i, k)).collect()).collect()
    }

    #[track_caller]
    fn check(means: &[f64], how: How, expected: &[usize]) -> Changes {
        let found = changes(&series(means), &how).unwrap();
        assert_eq!(found.changes.iter().map(|c| c.at).collect::<Vec<_>>(), expected, "{found:?}");
        assert_eq!(found.segments.len(), expected.len() + 1);
        found
    }

    #[test]
    fn a_step_is_found_where_it_is_with_its_size() {
        let mut means = vec![10.0; 8];
        means.extend([12.0; 8]);
        let found = check(&means, How::default(), &[8]);
        let c = found.changes[0];
        assert!((c.difference - 2.0).abs() < 0.3 && c.p < 0.01, "{c:?}");
        assert!(c.interval.is_some_and(|i| i.low > 1.5 && i.high < 2.5));
        assert_eq!((c.before.from, c.before.to, c.after.to), (0, 8, 16));
        check(&[10.0; 16], How::default(), &[]);
    }

    #[test]
    fn a_regression_that_was_mended_is_two_changes() {
        let mut means = vec![10.0; 20];
        means[8..12].fill(12.0);
        check(&means, How::default(), &[8, 12]);
    }

    #[test]
    fn few_studies_of_many_runs_need_the_run_as_unit() {
        let means = [10.0, 10.0, 12.0, 12.0];
        check(&means, How::default(), &[]);
        check(&means, How { unit: Unit::Run, ..How::default() }, &[2]);
    }

    #[test]
    fn studies_without_values_keep_their_place() {
        let mut means = vec![10.0; 8];
        means.extend([12.0; 8]);
        let mut studies = series(&means);
        studies.insert(3, vec![f64::NAN]);
        let found = changes(&studies, &How::default()).unwrap();
        assert_eq!((found.changes[0].at, found.used.len(), found.segments[1].to), (9, 16, 17));
        assert_eq!(changes::<Vec<f64>>(&[], &How::default()), Err(Error::Empty { name: "the series" }));
    }

    #[test]
    fn steps_without_any_noise_are_found() {
        let studies: Vec<[f64; 1]> = (0..12).map(|i| [if i < 6 { 1.0 } else { 2.0 }]).collect();
        let found = changes(&studies, &How::default()).unwrap();
        assert_eq!((found.changes.len(), found.changes[0].at, found.changes[0].interval), (1, 6, None));
    }

    #[test]
    fn a_long_series_is_looked_at_in_bounded_time() {
        let means: Vec<f64> = (0..600).map(|i| if i < 300 { 10.0 } else { 11.0 }).collect();
        check(&means, How { permutations: 99, ..How::default() }, &[300]);
    }

    proptest! {
        #[test]
        fn hostile_values_do_no_harm(
            studies in prop::collection::vec(prop::collection::vec(prop::num::f64::ANY, 0..4), 0..12),
            least in 0..9usize,
            permutations in 0..60usize,
            run: bool,
        ) {
            let unit = if run { Unit::Run } else { Unit::Study };
            if let Ok(found) = changes(&studies, &How { least, permutations, unit, ..How::default() }) {
                prop_assert_eq!(found.segments.len(), found.changes.len() + 1);
                prop_assert!(found.segments.windows(2).all(|w| w[0].to == w[1].from && w[0].from < w[0].to));
            }
        }
    }
}
