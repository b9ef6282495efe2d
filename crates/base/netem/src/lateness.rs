//! How late packets were sent: a histogram of fixed size, so that a run of any length costs the same.

use units::Nanos;

/// Values below are exact; above, a bucket is at most 1/32 of its value wide.
const PARTS: u64 = 64;
/// Room for 30 doublings: values from 2^36 ns (68 s) on share the last bucket.
const BUCKETS: usize = (PARTS + 30 * PARTS / 2) as usize;

/// Counts of durations in nanoseconds, to 1/32 of their value.
#[derive(Clone, Debug)]
pub(crate) struct Histogram {
    counts: Vec<u64>,
    total: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], total: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one; what is below 0 counts as 0.
    pub(crate) fn add(&mut self, value: Nanos) {
        let value = u64::try_from(value.0).unwrap_or(0);
        self.counts[bucket(value)] += 1;
        self.total += 1;
        self.max = self.max.max(value);
    }

    /// The value that a share of `q` (0 to 1) of the counted does not exceed, rounded up to its bucket's end; `None`
    /// when nothing was counted.
    pub(crate) fn quantile(&self, q: f64) -> Option<Nanos> {
        let rank = ((self.total as f64 * q).ceil() as u64).max(1);
        let mut below = 0;
        let index = self.counts.iter().position(|count| {
            below += count;
            below >= rank
        })?;
        Some(Nanos(i64::try_from(upper(index as u64).min(self.max)).unwrap_or(i64::MAX)))
    }

    /// The largest counted, exactly.
    pub(crate) fn max(&self) -> Option<Nanos> {
        (self.total > 0).then(|| Nanos(i64::try_from(self.max).unwrap_or(i64::MAX)))
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

/// Below [`PARTS`] a value is its own bucket; each doubling after it has `PARTS / 2` buckets.
fn bucket(value: u64) -> usize {
    let octave = (u64::from(value.max(1).ilog2()) + 1).saturating_sub(u64::from(PARTS.ilog2()));
    let index = octave * (PARTS / 2) + (value >> octave);
    (index as usize).min(BUCKETS - 1)
}

/// The largest value of a bucket.
fn upper(index: u64) -> u64 {
    if index < PARTS {
        return index;
    }
    let octave = index / (PARTS / 2) - 1;
    let part = index % (PARTS / 2) + PARTS / 2;
    ((part + 1) << octave) - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_values_to_a_part_in_32(value in 0u64..(1 << 33)) {
            let end = upper(bucket(value) as u64);
            prop_assert!(end >= value && end - value <= value / 32, "{value} in a bucket to {end}");
        }
    }

    #[test]
    fn quantiles_of_a_ramp_are_its_values() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.quantile(0.5), histogram.max()), (None, None));
        for i in 1..=1_000 {
            histogram.add(Nanos(i * 1_000));
        }
        for (q, expected) in [(0.5, 500_000.0), (0.99, 990_000.0)] {
            let found = histogram.quantile(q).unwrap().0 as f64;
            assert!((found / expected - 1.0).abs() < 0.04, "{q}: {found}");
        }
        assert_eq!(histogram.quantile(1.0), Some(Nanos(1_000_000)));
        assert_eq!(histogram.max(), Some(Nanos(1_000_000)));
    }
}
