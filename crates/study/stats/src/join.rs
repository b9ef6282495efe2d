//! Finds which entries of several sequences tell of the same thing.
//!
//! Video frames carry no number through SPICE, but their sizes do not change on the way: each panel's sequence of
//! sizes is the same, except for what came before a panel began to look, after it ended, and what was lost in between.
//! Runs of neighbours that occur exactly once in both sequences are anchors; the longest chain of anchors in order is
//! kept (as in patience diff), and what lies between anchors is filled in from both sides. Where nothing is unique (a
//! still picture whose frames are all of one size), both are taken to begin with the same frame.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Neighbours that make an anchor: six sizes in a row are unique in all but constructed sequences.
const ANCHOR: usize = 6;
/// How far is looked ahead where an entry is missing on one side.
const LOOKAHEAD: usize = 24;

/// One sequence.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// What partners have in common (a frame's size in bytes).
    pub key: &'a [u64],
    /// A second such column, where this sequence has it; compared with neighbours that have it too. As long as `key`.
    pub also: Option<&'a [u64]>,
}

/// The result: one row for each thing, with its position in each part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Joined {
    /// Positions by part; `None` where the part does not have it.
    pub rows: Vec<Vec<Option<usize>>>,
    /// Rows that every part has.
    pub matched: usize,
    /// Entries without a partner in at least one other part, by part.
    pub unmatched: Vec<usize>,
    /// Places between partners where two parts hold equally many entries whose keys differ.
    pub mismatched: usize,
}

/// Joins sequences in the order in which things pass through them: each is compared with the one before.
pub fn align(parts: &[Part<'_>]) -> Joined {
    let pairs: Vec<_> = parts.windows(2).map(|w| pair(w[0], w[1])).collect();
    let mut joined = Joined { unmatched: vec![0; parts.len()], ..Joined::default() };
    // Rows begin with the first part's entries; entries of later parts without a partner before them start new rows.
    let mut at: Vec<Option<usize>> = Vec::new();
    for (p, part) in parts.iter().enumerate() {
        let before: HashMap<usize, usize> = match p.checked_sub(1) {
            Some(previous) => pairs[previous].iter().map(|(a, b)| (*b, *a)).collect(),
            None => HashMap::new(),
        };
        let mut here = vec![None; part.key.len()];
        for (i, row_of) in here.iter_mut().enumerate() {
            let row = match before.get(&i).and_then(|a| at.get(*a).copied().flatten()) {
                Some(row) => row,
                None => {
                    joined.rows.push(vec![None; parts.len()]);
                    joined.rows.len() - 1
                }
            };
            joined.rows[row][p] = Some(i);
            *row_of = Some(row);
        }
        at = here;
    }
    for row in &joined.rows {
        if row.iter().all(Option::is_some) {
            joined.matched += 1;
        } else {
            row.iter()
                .zip(&mut joined.unmatched)
                .for_each(|(entry, count)| *count += usize::from(entry.is_some()));
        }
    }
    joined.mismatched = pairs.iter().map(|p| mismatches(p)).sum();
    joined
}

fn mismatches(pairs: &[(usize, usize)]) -> usize {
    let gaps = pairs.windows(2).map(|w| (w[1].0 - w[0].0 - 1, w[1].1 - w[0].1 - 1));
    gaps.filter(|(a, b)| a == b).map(|(a, _)| a).sum()
}

/// Pairs of positions in order, both rising.
fn pair(a: Part<'_>, b: Part<'_>) -> Vec<(usize, usize)> {
    let also = a.also.zip(b.also);
    let same = |i: usize, j: usize| a.key[i] == b.key[j] && also.is_none_or(|(x, y)| x[i] == y[j]);
    let anchors = chain(&anchors(a, b, also.is_some()));
    let (mut pairs, mut start) = (Vec::with_capacity(a.key.len().min(b.key.len())), (0, 0));
    for anchor in anchors {
        if anchor.0 < start.0 || anchor.1 < start.1 {
            continue;
        }
        fill(start, anchor, !pairs.is_empty(), true, &same, &mut pairs);
        pairs.push(anchor);
        start = (anchor.0 + 1, anchor.1 + 1);
    }
    fill(start, (a.key.len(), b.key.len()), true, false, &same, &mut pairs);
    pairs
}

/// Positions whose next [`ANCHOR`] entries occur exactly once in both sequences.
fn anchors(a: Part<'_>, b: Part<'_>, both: bool) -> Vec<(usize, usize)> {
    // Windows are compared whole, not by hash alone: a collision must not make an anchor.
    type Window<'w> = (&'w [u64], Option<&'w [u64]>);
    fn unique<'w>(part: Part<'w>, both: bool) -> HashMap<Window<'w>, Option<usize>> {
        let mut seen = HashMap::with_capacity(part.key.len());
        for i in 0..(part.key.len() + 1).saturating_sub(ANCHOR) {
            let also = part.also.filter(|_| both).map(|also| &also[i..i + ANCHOR]);
            match seen.entry((&part.key[i..i + ANCHOR], also)) {
                Entry::Vacant(entry) => drop(entry.insert(Some(i))),
                Entry::Occupied(mut entry) => drop(entry.insert(None)),
            }
        }
        seen
    }
    let (in_a, in_b) = (unique(a, both), unique(b, both));
    let mut found: Vec<_> =
        in_a.iter().filter_map(|(window, i)| Some(((*i)?, in_b.get(window).copied().flatten()?))).collect();
    found.sort_unstable();
    found
}

/// The longest chain that rises in both positions (patience sorting); `pairs` are sorted by the first.
fn chain(pairs: &[(usize, usize)]) -> Vec<(usize, usize)> {
    let mut tops: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; pairs.len()];
    for (n, pair) in pairs.iter().enumerate() {
        let pile = tops.partition_point(|t| pairs[*t].1 < pair.1);
        before[n] = pile.checked_sub(1).map(|p| tops[p]);
        if pile == tops.len() { tops.push(n) } else { tops[pile] = n }
    }
    let (mut chain, mut at) = (Vec::with_capacity(tops.len()), tops.last().copied());
    while let Some(n) = at {
        chain.push(pairs[n]);
        at = before[n];
    }
    chain.reverse();
    chain
}

/// Pairs what lies between `start` and `end` (exclusive): back from the end where only that is known to match, else
/// forward from the start.
fn fill(
    start: (usize, usize),
    end: (usize, usize),
    from_start: bool,
    from_end: bool,
    same: &impl Fn(usize, usize) -> bool,
    pairs: &mut Vec<(usize, usize)>,
) {
    if from_end && !from_start {
        let size = (end.0 - start.0, end.1 - start.1);
        let mut found = Vec::new();
        walk(size, &|i, j| same(end.0 - 1 - i, end.1 - 1 - j), &mut |i, j| {
            found.push((end.0 - 1 - i, end.1 - 1 - j))
        });
        pairs.extend(found.into_iter().rev());
    } else {
        let size = (end.0 - start.0, end.1 - start.1);
        walk(size, &|i, j| same(start.0 + i, start.1 + j), &mut |i, j| {
            pairs.push((start.0 + i, start.1 + j))
        });
    }
}

/// Walks both sides from 0; where they differ, skips the fewest entries after which they agree again.
fn walk(size: (usize, usize), same: &impl Fn(usize, usize) -> bool, found: &mut impl FnMut(usize, usize)) {
    let (mut i, mut j) = (0, 0);
    while i < size.0 && j < size.1 {
        if same(i, j) {
            found(i, j);
            (i, j) = (i + 1, j + 1);
            continue;
        }
        let skips = (1..=2 * LOOKAHEAD).flat_map(|sum| (0..=sum).map(move |da| (da, sum - da)));
        let near = skips
            .filter(|(da, db)| *da <= LOOKAHEAD && *db <= LOOKAHEAD && i + da < size.0 && j + db < size.1);
        match near.into_iter().find(|(da, db)| same(i + da, j + db)) {
            Some((da, db)) => (i, j) = (i + da, j + db),
            None => (i, j) = (i + 1, j + 1),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn part(key: &[u64]) -> Part<'_> {
        Part { key, also: None }
    }

    /// Sizes as an encoder makes them: all different enough.
    fn sizes(n: usize, seed: u64) -> Vec<u64> {
        (0..n as u64).map(|i| 1000 + (i ^ seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) % 20_000).collect()
    }

    #[test]
    fn equal_sequences_match_entirely() {
        let s = sizes(200, 1);
        let joined = align(&[part(&s), part(&s), part(&s)]);
        assert_eq!((joined.matched, joined.rows.len(), joined.mismatched), (200, 200, 0));
        assert!(joined.rows.iter().enumerate().all(|(i, row)| row.iter().all(|e| *e == Some(i))));
    }

    #[test]
    fn a_late_start_and_an_early_end_are_found() {
        let s = sizes(300, 2);
        let joined = align(&[part(&s), part(&s[50..]), part(&s[70..280])]);
        assert_eq!((joined.matched, joined.mismatched), (210, 0));
        assert_eq!(joined.unmatched, [90, 40, 0]);
    }

    #[test]
    fn frames_of_one_size_are_paired_from_the_start() {
        let joined = align(&[part(&[500; 90]), part(&[500; 88])]);
        assert_eq!((joined.matched, joined.rows[0].clone()), (88, vec![Some(0), Some(0)]));
    }

    #[test]
    fn a_frame_whose_size_changed_is_a_mismatch() {
        let (a, mut b) = (sizes(100, 3), sizes(100, 3));
        b[40] += 1;
        let joined = align(&[part(&a), part(&b)]);
        assert_eq!((joined.matched, joined.mismatched), (99, 1));
    }

    #[test]
    fn the_second_column_tells_equal_sizes_apart() {
        let (sizes, times): (Vec<u64>, Vec<u64>) = (0..50).map(|i| (700, 1000 + i * 33)).unzip();
        let a = Part { key: &sizes, also: Some(&times) };
        let b = Part { key: &sizes[20..], also: Some(&times[20..]) };
        let joined = align(&[a, b]);
        assert_eq!(joined.matched, 30);
        assert!(joined.rows.iter().all(|r| r[1].is_none() || r[0] == r[1].map(|j| j + 20)));
    }

    #[test]
    fn empty_and_tiny_sequences_are_no_trouble() {
        assert_eq!(align(&[part(&[]), part(&[])]).matched, 0);
        assert_eq!(align(&[part(&[1, 2]), part(&[2])]).matched, 1);
        assert_eq!(align(&[]).rows.len(), 0);
    }

    proptest! {
        #[test]
        fn frames_lost_anywhere_do_not_disturb_the_others(
            seed in any::<u64>(), lost_a in prop::collection::btree_set(0usize..400, 0..30), lost_b in prop::collection::btree_set(0usize..400, 0..30),
        ) {
            let s = sizes(400, seed);
            let keep = |lost: &std::collections::BTreeSet<usize>| (0..400).filter(|i| !lost.contains(i)).collect::<Vec<_>>();
            let (ia, ib) = (keep(&lost_a), keep(&lost_b));
            let (a, b): (Vec<u64>, Vec<u64>) = (ia.iter().map(|i| s[*i]).collect(), ib.iter().map(|i| s[*i]).collect());
            let joined = align(&[part(&a), part(&b)]);
            let (mut right, mut wrong) = (0, 0);
            for row in &joined.rows {
                if let [Some(x), Some(y)] = row[..] {
                    if ia[x] == ib[y] { right += 1 } else { wrong += 1 }
                }
            }
            let possible = (0..400).filter(|i| !lost_a.contains(i) && !lost_b.contains(i)).count();
            prop_assert!(wrong == 0, "{wrong} wrong");
            prop_assert!(right * 100 >= possible * 97, "{right} of {possible}");
        }

        #[test]
        fn any_sequences_give_each_entry_exactly_one_row(
            a in prop::collection::vec(0u64..6, 0..120), b in prop::collection::vec(0u64..6, 0..120), c in prop::collection::vec(0u64..6, 0..120),
        ) {
            let joined = align(&[part(&a), part(&b), part(&c)]);
            for (p, part) in [&a, &b, &c].into_iter().enumerate() {
                let mut seen: Vec<_> = joined.rows.iter().filter_map(|r| r[p]).collect();
                seen.sort_unstable();
                prop_assert!(seen.into_iter().eq(0..part.len()));
            }
            for row in &joined.rows {
                if let [Some(x), Some(y), _] = row[..] { prop_assert_eq!(a[x], b[y]); }
            }
        }
    }
}
