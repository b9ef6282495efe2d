//! What was left out of an import, how often, and where it was first.

use std::collections::BTreeMap;

/// Kinds that are told apart; a hostile file could make any number of them.
const MAX_KINDS: usize = 200;
const OTHERS: &str = "others";

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skips(BTreeMap<String, (u64, String)>);

impl Skips {
    /// Counts `n` of a kind; `place` is asked for once, by the first.
    pub fn add(&mut self, kind: impl Into<String>, n: u64, place: impl FnOnce() -> String) {
        if n == 0 {
            return;
        }
        let mut kind = kind.into();
        if self.0.len() >= MAX_KINDS && !self.0.contains_key(&kind) {
            kind = OTHERS.into();
        }
        self.0.entry(kind).or_insert_with(|| (0, place())).0 += n;
    }

    /// Takes over what another has counted.
    pub fn merge(&mut self, other: Self) {
        for (kind, (n, place)) in other.0 {
            self.add(kind, n, || place);
        }
    }

    /// Nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How often a kind was counted.
    pub fn count(&self, kind: &str) -> u64 {
        self.0.get(kind).map_or(0, |(n, _)| *n)
    }

    /// The kinds, and how often each was counted.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(kind, (n, _))| (kind.as_str(), *n))
    }

    /// By kind with the place of the first, as [`crate::facts::ImportFacts::skipped`] has it.
    pub fn into_facts(self) -> BTreeMap<String, u64> {
        let said = |kind: String, place: String| {
            if place.is_empty() { kind } else { format!("{kind} (first: {place})") }
        };
        self.0.into_iter().map(|(kind, (n, place))| (said(kind, place), n)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_place_of_each_kind_is_kept_and_kinds_are_bounded() {
        let mut skips = Skips::default();
        skips.add("row", 1, || "line 3".into());
        skips.add("row", 2, || "line 9".into());
        for i in 0..1_000 {
            skips.add(format!("kind {i}"), 1, String::new);
        }
        assert_eq!(skips.count("row"), 3);
        let facts = skips.into_facts();
        assert_eq!(facts["row (first: line 3)"], 3);
        assert_eq!((facts.len(), facts.values().sum::<u64>()), (MAX_KINDS + 1, 1_003));
    }
}
