//! Two-level fractional factorial designs.

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Most factors: points and words are bits of an integer.
const FACTORS_MOST: usize = 24;

/// Minimum-aberration generators by number of factors and of base factors: the words of the factors beyond the base, in
/// order. Up to 11 factors as in Box, Hunter and Hunter 2005, table 6.22, and the NIST/SEMATECH e-Handbook of Statistical
/// Methods, section 5.3.3.4.7, each checked by trying all other designs; beyond, all words of odd length (resolution 4)
/// or all words there are.
const TABLE: [(usize, usize, &[&str]); 36] = [
    (3, 2, &["AB"]),
    (4, 3, &["ABC"]),
    (5, 3, &["AB", "AC"]),
    (5, 4, &["ABCD"]),
    (6, 3, &["AB", "AC", "BC"]),
    (6, 4, &["ABC", "BCD"]),
    (6, 5, &["ABCDE"]),
    (7, 3, &["AB", "AC", "BC", "ABC"]),
    (7, 4, &["ABC", "BCD", "ACD"]),
    (7, 5, &["ABCD", "ABDE"]),
    (7, 6, &["ABCDEF"]),
    (8, 4, &["BCD", "ACD", "ABC", "ABD"]),
    (8, 5, &["ABC", "ABD", "BCDE"]),
    (8, 6, &["ABCD", "ABEF"]),
    (8, 7, &["ABCDEFG"]),
    (9, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD"]),
    (9, 5, &["BCDE", "ACDE", "ABDE", "ABCE"]),
    (9, 6, &["ABCD", "ACEF", "CDEF"]),
    (9, 7, &["ACDFG", "BCEFG"]),
    (10, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD", "AB"]),
    (10, 5, &["ABCD", "ABCE", "ABDE", "ACDE", "BCDE"]),
    (10, 6, &["BCDF", "ACDF", "ABDE", "ABCE"]),
    (10, 7, &["ABCG", "BCDE", "ACDF"]),
    (11, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD", "AB", "AC"]),
    (11, 5, &["ABC", "BCD", "CDE", "ACD", "ADE", "BDE"]),
    (11, 6, &["CDE", "ABCD", "ABF", "BDEF", "ADEF"]),
    (11, 7, &["ABCG", "BCDE", "ACDF", "ABCDEFG"]),
    (12, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD", "AB", "AC", "AD"]),
    (13, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD", "AB", "AC", "AD", "BC"]),
    (14, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD", "AB", "AC", "AD", "BC", "BD"]),
    (15, 4, &["ABC", "BCD", "ACD", "ABD", "ABCD", "AB", "AC", "AD", "BC", "BD", "CD"]),
    (12, 5, &["ABC", "ABD", "ACD", "BCD", "ABE", "ACE", "ADE"]),
    (13, 5, &["ABC", "ABD", "ACD", "BCD", "ABE", "ACE", "BCE", "ADE"]),
    (14, 5, &["ABC", "ABD", "ACD", "BCD", "ABE", "ACE", "BCE", "ADE", "BDE"]),
    (15, 5, &["ABC", "ABD", "ACD", "BCD", "ABE", "ACE", "BCE", "ADE", "BDE", "CDE"]),
    (16, 5, &["ABC", "ABD", "ACD", "BCD", "ABE", "ACE", "BCE", "ADE", "BDE", "CDE", "ABCDE"]),
];

/// A fraction of the product of two-level factors: the base factors in all combinations, each further one the product
/// (in signs) of some of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fraction {
    factors: usize,
    base: usize,
    /// Of each further factor: which base factors are multiplied, as bits.
    generators: Vec<u32>,
}

/// An effect and those that no run can tell from it; each is the set of its factors, counted from 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The effect: one factor is a main effect, two are their interaction.
    pub effect: Vec<usize>,
    /// Its aliases, fewest factors first.
    pub with: Vec<Vec<usize>>,
}

impl Fraction {
    /// The standard design of `factors` factors in `runs` runs (a power of two): the one of least aberration, or all
    /// combinations when `runs` is 2^factors.
    ///
    /// # Errors
    ///
    /// A number of runs that is no power of two, or a design that the table does not have; the error names those there
    /// are.
    pub fn standard(factors: usize, runs: usize) -> Result<Self, Error> {
        let base = runs.checked_ilog2().filter(|_| runs.is_power_of_two()).map(|b| b as usize);
        if base == Some(factors) && (1..=FACTORS_MOST).contains(&factors) {
            return Self::new(factors, &[]);
        }
        let row = TABLE.iter().find(|(f, b, _)| *f == factors && Some(*b) == base);
        let refused = || {
            let runs_there_are: Vec<String> =
                TABLE.iter().filter(|r| r.0 == factors).map(|r| (1usize << r.1).to_string()).collect();
            let there_are = match runs_there_are.as_slice() {
                [] => "none".to_owned(),
                some => format!("those in {} runs", some.join(", ")),
            };
            Error::Design {
                why: format!(
                    "{factors} factors in {runs} runs; of fractions of {factors} factors there are {there_are}"
                ),
            }
        };
        let (_, base, words) = row.ok_or_else(refused)?;
        let word = |w: &&str| w.bytes().map(|c| usize::from(c - b'A')).collect::<Vec<_>>();
        Self::new(*base, &words.iter().map(word).collect::<Vec<_>>())
    }

    /// The smallest standard design of at least this resolution; all combinations when there is no fraction.
    ///
    /// # Errors
    ///
    /// No factor, or more than 24.
    pub fn of_resolution(factors: usize, resolution: usize) -> Result<Self, Error> {
        let mut bases: Vec<usize> = TABLE.iter().filter(|r| r.0 == factors).map(|r| r.1).collect();
        bases.sort_unstable();
        for base in bases {
            let design = Self::standard(factors, 1 << base)?;
            if design.resolution().is_none_or(|r| r >= resolution) {
                return Ok(design);
            }
        }
        Self::new(factors, &[])
    }

    /// `base` factors in all combinations, and one more factor for each generator: the base factors (from 0) that it is
    /// the product of.
    ///
    /// # Errors
    ///
    /// More than 24 factors; a generator of fewer than two factors, of one twice, or not of base factors;
    /// two that are alike.
    pub fn new(base: usize, generators: &[Vec<usize>]) -> Result<Self, Error> {
        let refuse = |why: String| Err(Error::Design { why });
        let factors = base.saturating_add(generators.len());
        if base == 0 || factors > FACTORS_MOST {
            return refuse(format!("{factors} factors; 1 to {FACTORS_MOST} are possible"));
        }
        let mut words = Vec::with_capacity(generators.len());
        for generator in generators {
            let word = generator.iter().filter(|f| **f < base).fold(0u32, |w, f| w | 1 << f);
            if generator.len() < 2 || word.count_ones() as usize != generator.len() {
                return refuse(format!(
                    "the generator {generator:?} must name two or more of the {base} base factors"
                ));
            }
            if words.contains(&word) {
                return refuse(format!("the generator {generator:?} is there twice"));
            }
            words.push(word);
        }
        Ok(Self { factors, base, generators: words })
    }

    /// Number of factors.
    pub fn factors(&self) -> usize {
        self.factors
    }

    /// Number of runs.
    pub fn runs(&self) -> usize {
        1 << self.base
    }

    /// The points: for each the level, 0 or 1, of each factor, in standard order (the first factor varies fastest).
    pub fn points(&self) -> impl Iterator<Item = Vec<usize>> + '_ {
        (0..1u32 << self.base).map(|point| {
            let base = (0..self.base).map(|f| (point >> f & 1) as usize);
            // The product of signs is low where an odd number of factors is low.
            let further = self.generators.iter().map(|w| ((!point & w).count_ones() + 1) as usize % 2);
            base.chain(further).collect()
        })
    }

    /// The defining words: sets of factors, as bits, whose product is the same in all runs. All products of the
    /// generators, without the empty one.
    fn words(&self) -> Vec<u32> {
        let mut words = vec![0u32];
        for (i, generator) in self.generators.iter().enumerate() {
            let word = generator | 1 << (self.base + i);
            words.extend(words.clone().iter().map(|w| w ^ word));
        }
        words.split_off(1)
    }

    /// The resolution: the length of the shortest defining word. At 3 main effects are aliased with interactions of two
    /// factors, at 4 with those of three, at 5 interactions of two with those of three. `None`: nothing is aliased.
    pub fn resolution(&self) -> Option<usize> {
        self.words().iter().map(|w| w.count_ones() as usize).min()
    }

    /// Numbers of defining words by length, from 3 up to the number of factors: of two designs the one with fewer
    /// words of the first length in which they differ has less aberration (Fries and Hunter 1980).
    pub fn word_lengths(&self) -> Vec<usize> {
        let mut lengths = vec![0; self.factors.saturating_sub(2)];
        self.words().iter().for_each(|w| lengths[w.count_ones() as usize - 3] += 1);
        lengths
    }

    /// Effects of up to `order` factors (1: main effects, 2: interactions of two too) that have aliases of up to `order`
    /// factors, or of up to `other` where that is more. Each set of aliases is told once, under the first of its
    /// effects with the fewest factors.
    pub fn aliases(&self, order: usize, other: usize) -> Vec<Alias> {
        let (words, most) = (self.words(), order.max(other) as u32);
        let mut effects: Vec<u32> = Vec::new();
        // Sets of up to `order` factors, built from smaller ones.
        let mut sets = vec![0u32];
        for _ in 0..order.min(self.factors) {
            let larger = |s: &u32| {
                (32 - s.leading_zeros()..self.factors as u32).map(move |f| s | 1 << f).collect::<Vec<_>>()
            };
            let grown: Vec<u32> = sets.iter().flat_map(larger).collect();
            effects.extend(&grown);
            sets = grown;
        }
        let order_of = |s: u32| (s.count_ones(), !s.reverse_bits());
        let names = |s: u32| (0..self.factors).filter(|f| s >> f & 1 == 1).collect::<Vec<_>>();
        let mut told = Vec::new();
        for effect in effects {
            let mut with: Vec<u32> =
                words.iter().map(|w| w ^ effect).filter(|s| *s != 0 && s.count_ones() <= most).collect();
            with.sort_by_key(|s| order_of(*s));
            let first = with.first().is_some_and(|s| order_of(*s) > order_of(effect));
            if first {
                told.push(Alias { effect: names(effect), with: with.into_iter().map(names).collect() });
            }
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The least aberration of all designs of so many factors and base factors, by trying them all.
    fn least_aberration(factors: usize, base: usize) -> Vec<usize> {
        let words: Vec<u32> = (1u32..1 << base).filter(|w| w.count_ones() > 1).collect();
        let choose = factors - base;
        let mut best: Option<Vec<usize>> = None;
        let mut picked: Vec<usize> = (0..choose).collect();
        loop {
            let generators = picked.iter().map(|i| words[*i]).collect();
            let lengths = Fraction { factors, base, generators }.word_lengths();
            if best.as_ref().is_none_or(|b| lengths < *b) {
                best = Some(lengths);
            }
            let Some(k) = (0..choose).rev().find(|k| picked[*k] < words.len() - choose + k) else { break };
            picked[k] += 1;
            (k + 1..choose).for_each(|j| picked[j] = picked[j - 1] + 1);
        }
        best.unwrap()
    }

    #[test]
    fn designs_of_the_table_have_the_resolution_that_books_say() {
        // Rows of NIST 5.3.3.4.7 by base factors.
        let books = [
            (3, 2, 3),
            (4, 3, 4),
            (5, 4, 5),
            (5, 3, 3),
            (6, 5, 6),
            (6, 4, 4),
            (6, 3, 3),
            (7, 6, 7),
            (7, 5, 4),
            (7, 4, 4),
            (7, 3, 3),
            (8, 7, 8),
            (8, 6, 5),
            (8, 5, 4),
            (8, 4, 4),
            (9, 7, 6),
            (9, 6, 4),
            (9, 5, 4),
            (9, 4, 3),
            (10, 7, 5),
            (10, 6, 4),
            (10, 5, 4),
            (10, 4, 3),
            (11, 7, 5),
            (11, 6, 4),
            (11, 5, 4),
            (11, 4, 3),
            (15, 4, 3),
        ];
        for (factors, base, resolution) in books {
            let design = Fraction::standard(factors, 1 << base).unwrap();
            assert_eq!(design.resolution(), Some(resolution), "{factors} in 2^{base}");
            assert_eq!(design.factors(), factors);
        }
    }

    #[test]
    fn designs_of_the_table_have_least_aberration() {
        for (factors, base, _) in TABLE {
            // Trying all ways takes half a minute for the rest up to 11 factors (done once, to 9 million ways).
            let ways = crate::permute::choose((1 << base) - base - 1, factors - base);
            if ways > 700_000 {
                continue;
            }
            let lengths = Fraction::standard(factors, 1 << base).unwrap().word_lengths();
            assert_eq!(lengths, least_aberration(factors, base), "{factors} in 2^{base}");
        }
    }

    #[test]
    fn columns_are_balanced_and_orthogonal() {
        for (factors, base, _) in TABLE {
            let design = Fraction::standard(factors, 1 << base).unwrap();
            let points: Vec<_> = design.points().collect();
            assert_eq!(points.len(), design.runs());
            for i in 0..factors {
                for j in 0..=i {
                    let same = points.iter().filter(|p| p[i] == p[j]).count();
                    assert_eq!(
                        same,
                        if i == j { points.len() } else { points.len() / 2 },
                        "{factors} {base}"
                    );
                }
                assert_eq!(points.iter().filter(|p| p[i] == 1).count(), points.len() / 2);
            }
        }
    }

    #[test]
    fn a_half_fraction_has_the_signs_and_aliases_of_the_book() {
        let half = Fraction::standard(3, 4).unwrap();
        // C = AB in signs: - - +, + - -, - + -, + + +.
        assert_eq!(half.points().collect::<Vec<_>>(), [[0, 0, 1], [1, 0, 0], [0, 1, 0], [1, 1, 1]]);
        let alias =
            |effect: usize, with: [usize; 2]| Alias { effect: vec![effect], with: vec![with.to_vec()] };
        assert_eq!(half.aliases(1, 2), [alias(0, [1, 2]), alias(1, [0, 2]), alias(2, [0, 1])]);
        let four = Fraction::standard(4, 8).unwrap();
        assert_eq!(four.aliases(1, 2), []);
        let pairs = four.aliases(2, 2);
        assert_eq!(pairs.len(), 3, "AB = CD, AC = BD, AD = BC: {pairs:?}");
        assert_eq!(pairs[0], Alias { effect: vec![0, 1], with: vec![vec![2, 3]] });
        assert_eq!(Fraction::standard(3, 8).unwrap().aliases(3, 3), []);
    }

    #[test]
    fn a_wanted_resolution_gives_the_smallest_design() {
        let of = |factors, resolution| Fraction::of_resolution(factors, resolution).unwrap().runs();
        assert_eq!([of(7, 3), of(7, 4), of(7, 5), of(7, 8)], [8, 16, 64, 128]);
        assert_eq!((of(2, 5), of(11, 5)), (4, 128));
    }

    #[test]
    fn designs_that_do_not_exist_are_refused_with_those_that_do() {
        let text = Fraction::standard(7, 12).unwrap_err().to_string();
        assert!(text.contains("8, 16, 32, 64"), "{text}");
        assert!(Fraction::standard(0, 1).is_err() && Fraction::standard(40, 64).is_err());
        for bad in [vec![0], vec![0, 0], vec![0, 5], vec![]] {
            assert!(Fraction::new(3, &[bad]).is_err());
        }
        assert!(Fraction::new(3, &[vec![0, 1], vec![1, 0]]).is_err() && Fraction::new(99, &[]).is_err());
        assert!(Fraction::of_resolution(0, 3).is_err() && Fraction::of_resolution(99, 3).is_err());
    }
}
