//! Covering arrays of strength two: few points in which each pair of levels of two factors occurs.

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use crate::error::Error;

/// Pairs of levels in all; more are no design that anyone would run.
const PAIRS_MOST: usize = 4_000_000;
/// Points made for each point kept: the one that covers most is taken (AETG gives 50 and little gain beyond 10).
const CANDIDATES: usize = 12;
/// Steps to complete a pair, beyond which it is given up. A predicate that leaves only few points may need more.
const STEPS_MOST: usize = 20_000;
/// Steps that led to nothing, over all pairs, beyond which the rest is given up: a second or so.
const LOST_MOST: usize = 400_000;

/// Two factors with a level each, the first factor first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Pair {
    /// The factors.
    pub factors: [usize; 2],
    /// Their levels.
    pub levels: [usize; 2],
}

/// A covering array.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Covering {
    /// Points: the level index of each factor. None is forbidden.
    pub points: Vec<Vec<usize>>,
    /// Pairs that no allowed point contains.
    pub impossible: Vec<Pair>,
    /// Pairs for which no allowed point was found in time, though there may be one. Empty unless nearly all points are
    /// forbidden.
    pub given_up: Vec<Pair>,
}

/// A covering array over factors with these numbers of levels, by the greedy method of AETG (Cohen, Dalal, Fredman and
/// Patton 1997) with backtracking: each pair that some allowed point contains is in one of the points. A single factor
/// has each of its levels once.
///
/// `allowed` says whether a point, of which some factors may still be open (`None`), is allowed: false only when it is
/// forbidden whatever the open ones become. It is asked often; the same seed gives the same points.
///
/// # Errors
///
/// A factor without levels; more than four million pairs.
pub fn pairwise(
    levels: &[usize],
    allowed: impl Fn(&[Option<usize>]) -> bool,
    seed: u64,
) -> Result<Covering, Error> {
    if levels.contains(&0) {
        return Err(Error::Design { why: "a factor has no levels; leave the factor out".to_owned() });
    }
    if levels.len() < 2 {
        let points =
            super::product(levels).filter(|p| allowed(&p.iter().map(|l| Some(*l)).collect::<Vec<_>>()));
        return Ok(Covering { points: points.collect(), ..Covering::default() });
    }
    let mut search = Search::new(levels, &allowed, seed)?;
    let mut covering = Covering::default();
    let mut open: Vec<Pair> = search.pairs();
    open.shuffle(&mut search.rng);
    for pair in open {
        if search.seen[search.index(pair)] > 0 {
            continue;
        }
        match search.best_with(pair) {
            Completed::Point(point) => {
                search.count(&point, 1);
                covering.points.push(point);
            }
            Completed::Impossible => covering.impossible.push(pair),
            Completed::GivenUp => covering.given_up.push(pair),
        }
    }
    search.thin(&mut covering.points);
    let order = |p: &Pair| (p.factors, p.levels);
    covering.impossible.sort_by_key(order);
    covering.given_up.sort_by_key(order);
    Ok(covering)
}

enum Completed {
    Point(Vec<usize>),
    Impossible,
    GivenUp,
}

struct Search<'a, F> {
    levels: &'a [usize],
    allowed: &'a F,
    rng: ChaCha8Rng,
    /// Where the pairs of two factors begin in `seen`: by first factor times factors, plus second.
    start: Vec<usize>,
    /// Points that contain a pair.
    seen: Vec<u32>,
    /// Steps that led to nothing.
    lost: usize,
}

impl<'a, F: Fn(&[Option<usize>]) -> bool> Search<'a, F> {
    fn new(levels: &'a [usize], allowed: &'a F, seed: u64) -> Result<Self, Error> {
        let k = levels.len();
        let mut start = vec![0; k.saturating_mul(k)];
        let mut pairs = 0usize;
        for i in 0..k {
            for j in i + 1..k {
                start[i * k + j] = pairs;
                pairs = pairs.saturating_add(levels[i].saturating_mul(levels[j]));
                if pairs > PAIRS_MOST {
                    let why = format!("more than {PAIRS_MOST} pairs of levels; use fewer factors or levels");
                    return Err(Error::Design { why });
                }
            }
        }
        let rng = ChaCha8Rng::seed_from_u64(seed);
        Ok(Self { levels, allowed, rng, start, seen: vec![0; pairs], lost: 0 })
    }

    fn pairs(&self) -> Vec<Pair> {
        let k = self.levels.len();
        let factors = (0..k).flat_map(|i| (i + 1..k).map(move |j| [i, j]));
        let pair = |f: [usize; 2]| {
            let levels = super::product(&[self.levels[f[0]], self.levels[f[1]]]);
            levels.map(move |l| Pair { factors: f, levels: [l[0], l[1]] })
        };
        factors.flat_map(pair).collect()
    }

    fn index(&self, pair: Pair) -> usize {
        let [i, j] = pair.factors;
        self.start[i * self.levels.len() + j] + pair.levels[0] * self.levels[j] + pair.levels[1]
    }

    /// The place in `seen` of two factors' levels, in either order.
    fn place(&self, a: (usize, usize), b: (usize, usize)) -> usize {
        let (a, b) = if a.0 < b.0 { (a, b) } else { (b, a) };
        self.index(Pair { factors: [a.0, b.0], levels: [a.1, b.1] })
    }

    fn places(&self, point: &[usize]) -> Vec<usize> {
        let k = point.len();
        let pairs = (0..k).flat_map(|i| (i + 1..k).map(move |j| (i, j)));
        pairs.map(|(i, j)| self.place((i, point[i]), (j, point[j]))).collect()
    }

    fn count(&mut self, point: &[usize], by: i32) {
        for place in self.places(point) {
            self.seen[place] = self.seen[place].saturating_add_signed(by);
        }
    }

    /// Of some points that contain a pair, the one that covers most that is open.
    fn best_with(&mut self, pair: Pair) -> Completed {
        let mut best: Option<(usize, Vec<usize>)> = None;
        for _ in 0..if self.lost > LOST_MOST { 0 } else { CANDIDATES } {
            match self.complete(pair) {
                Completed::Point(point) => {
                    let gain = self.places(&point).into_iter().filter(|p| self.seen[*p] == 0).count();
                    if best.as_ref().is_none_or(|b| gain > b.0) {
                        best = Some((gain, point));
                    }
                }
                // No other order of factors would find one.
                Completed::Impossible => return Completed::Impossible,
                Completed::GivenUp => break,
            }
        }
        best.map_or(Completed::GivenUp, |b| Completed::Point(b.1))
    }

    /// Completes a pair to an allowed point, factor by factor in random order, each with the level that covers most;
    /// goes back where that leads to nothing.
    fn complete(&mut self, pair: Pair) -> Completed {
        let mut point: Vec<Option<usize>> = vec![None; self.levels.len()];
        for (f, l) in pair.factors.into_iter().zip(pair.levels) {
            point[f] = Some(l);
        }
        if !(self.allowed)(&point) {
            return Completed::Impossible;
        }
        let mut order: Vec<usize> = (0..self.levels.len()).filter(|f| !pair.factors.contains(f)).collect();
        order.shuffle(&mut self.rng);
        // For each factor set so far, the levels that are left to try, best last.
        let mut left: Vec<Vec<usize>> = Vec::with_capacity(order.len());
        for step in 0..STEPS_MOST {
            let Some(factor) = order.get(left.len()) else {
                self.lost += step - order.len();
                return Completed::Point(point.into_iter().flatten().collect());
            };
            left.push(self.ranked(&point, *factor));
            // The next level of the last factor that has one.
            loop {
                let Some(factor) = left.len().checked_sub(1).map(|last| order[last]) else {
                    self.lost += step;
                    return Completed::Impossible;
                };
                match left.last_mut().and_then(Vec::pop) {
                    Some(level) => {
                        point[factor] = Some(level);
                        if (self.allowed)(&point) {
                            break;
                        }
                    }
                    None => {
                        point[factor] = None;
                        left.pop();
                    }
                }
            }
        }
        self.lost += STEPS_MOST;
        Completed::GivenUp
    }

    /// Levels of a factor, by the open pairs that each covers with the levels set; the best last, ties at random.
    fn ranked(&mut self, point: &[Option<usize>], factor: usize) -> Vec<usize> {
        let gain = |level: usize| {
            let set = point.iter().enumerate().filter_map(|(f, l)| l.map(|l| (f, l)));
            set.filter(|s| s.0 != factor && self.seen[self.place(*s, (factor, level))] == 0).count()
        };
        let gains: Vec<usize> = (0..self.levels[factor]).map(gain).collect();
        let mut ranked: Vec<(usize, u32, usize)> =
            gains.into_iter().enumerate().map(|(level, gain)| (gain, self.rng.random(), level)).collect();
        ranked.sort_unstable();
        ranked.into_iter().map(|r| r.2).collect()
    }

    /// Leaves out points all of whose pairs are in others.
    fn thin(&mut self, points: &mut Vec<Vec<usize>>) {
        let mut kept = Vec::with_capacity(points.len());
        for point in points.drain(..) {
            if self.places(&point).iter().all(|p| self.seen[*p] > 1) {
                self.count(&point, -1);
            } else {
                kept.push(point);
            }
        }
        *points = kept;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    fn pairs_of(point: &[usize]) -> Vec<(usize, usize, usize, usize)> {
        let k = point.len();
        (0..k)
            .flat_map(|i| (i + 1..k).map(move |j| (i, j)))
            .map(|(i, j)| (i, j, point[i], point[j]))
            .collect()
    }

    #[test]
    fn sizes_are_near_the_known_optimum() {
        // Best known sizes: 9 for 3^4, 10 for 2^10 is 6, 4^5: 16, 10^4: 100 (a product of two factors is the bound).
        for (levels, most) in [(vec![3; 4], 11), (vec![2; 10], 9), (vec![4; 5], 26), (vec![10; 4], 150)] {
            let n = pairwise(&levels, |_| true, 1).unwrap().points.len();
            assert!(n <= most, "{levels:?}: {n}");
        }
        let mixed = pairwise(&[5, 3, 2, 2, 2, 2], |_| true, 1).unwrap().points.len();
        assert!((15..=18).contains(&mixed), "{mixed}");
    }

    #[test]
    fn forbidden_pairs_are_told_and_never_made() {
        // The first factor's 1 needs the second's 1, which excludes the third's 2: so does the first's 1.
        let forbidden = |p: &[Option<usize>]| matches!(p, [Some(1), Some(0), _] | [_, Some(1), Some(2)]);
        let allowed = |p: &[Option<usize>]| !forbidden(p);
        let c = pairwise(&[2, 2, 3], allowed, 1).unwrap();
        assert_eq!(
            c.impossible,
            [
                Pair { factors: [0, 1], levels: [1, 0] },
                Pair { factors: [0, 2], levels: [1, 2] },
                Pair { factors: [1, 2], levels: [1, 2] },
            ]
        );
        assert!(c.given_up.is_empty());
        assert!(c.points.iter().all(|p| allowed(&p.iter().map(|l| Some(*l)).collect::<Vec<_>>())));
        let none = pairwise(&[2, 2], |_| false, 1).unwrap();
        assert_eq!((none.points.len(), none.impossible.len()), (0, 4));
    }

    #[test]
    fn small_and_impossible_designs_have_plain_answers() {
        assert_eq!(pairwise(&[3], |_| true, 1).unwrap().points, [[0], [1], [2]]);
        assert_eq!(pairwise(&[], |_| true, 1).unwrap().points, [[0usize; 0]]);
        assert!(
            pairwise(&[3, 0], |_| true, 1).is_err() && pairwise(&[1 << 40, 1 << 40], |_| true, 1).is_err()
        );
        assert_eq!(pairwise(&[3; 6], |_| true, 4), pairwise(&[3; 6], |_| true, 4));
    }

    #[test]
    fn a_predicate_that_leaves_nearly_nothing_ends_in_bounded_time() {
        // Only when all factors are set does it say no: the worst kind.
        let c = pairwise(&[3; 12], |p| !p.iter().all(Option::is_some), 1);
        assert!(c.is_ok_and(|c| c.points.is_empty() && c.given_up.len() + c.impossible.len() == 66 * 9));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn each_allowed_pair_is_covered(
            levels in prop::collection::vec(1..4usize, 2..6),
            forbidden in prop::collection::vec((0..6usize, 0..4usize, 0..6usize, 0..4usize), 0..6),
            seed: u64,
        ) {
            let holds = |p: &[Option<usize>], f: usize, l: usize| p.get(f).copied().flatten() == Some(l);
            let allowed = |p: &[Option<usize>]| {
                forbidden.iter().all(|(f, l, g, m)| f == g || !(holds(p, *f, *l) && holds(p, *g, *m)))
            };
            let c = pairwise(&levels, allowed, seed).unwrap();
            let whole = |p: &Vec<usize>| allowed(&p.iter().map(|l| Some(*l)).collect::<Vec<_>>());
            prop_assert!(c.points.iter().all(whole) && c.given_up.is_empty());
            // By trying all points.
            let possible: HashSet<_> =
                super::super::product(&levels).filter(whole).flat_map(|p| pairs_of(&p)).collect();
            let covered: HashSet<_> = c.points.iter().flat_map(|p| pairs_of(p)).collect();
            prop_assert_eq!(&covered, &possible);
            let all: usize = (0..levels.len()).flat_map(|i| (i + 1..levels.len()).map(move |j| (i, j)))
                .map(|(i, j)| levels[i] * levels[j]).sum();
            prop_assert_eq!(c.impossible.len(), all - possible.len());
        }
    }
}
