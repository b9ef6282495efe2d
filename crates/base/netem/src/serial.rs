//! The wire's clock: when a packet that starts to be sent has been sent.
//!
//! Exact over time: what a division leaves over is carried to the next packet, so that a rate never drifts. Pure.

use std::sync::Arc;

use units::Nanos;

use crate::conditions::Rate;
use crate::trace::{OPPORTUNITY_BYTES, Trace};

const NANOS_PER_S: u128 = 1_000_000_000;

/// Sends one packet after the other at a [`Rate`].
#[derive(Debug)]
pub(crate) struct Serializer {
    rate: Rate,
    wire: Wire,
}

#[derive(Debug)]
enum Wire {
    Unlimited,
    /// `rest` is the part of a nanosecond by which the last packet was rounded down, in parts of `1 / bits_per_s` ns.
    Fixed {
        bits_per_s: u64,
        last: Nanos,
        rest: u64,
    },
    Trace {
        trace: Arc<Trace>,
        origin: Nanos,
        /// The next opportunity that nobody has used.
        next: u64,
        /// What is left of the one before, and when that was.
        left: u32,
        last: Nanos,
    },
}

impl Serializer {
    /// A wire that is free; a trace starts at `now`.
    pub(crate) fn new(rate: &Rate, now: Nanos) -> Self {
        let wire = match rate {
            Rate::Unlimited => Wire::Unlimited,
            Rate::BitsPerS(bits_per_s) => Wire::Fixed { bits_per_s: *bits_per_s, last: now, rest: 0 },
            Rate::Trace(trace) => {
                Wire::Trace { trace: Arc::clone(trace), origin: now, next: 0, left: 0, last: now }
            }
        };
        Self { rate: rate.clone(), wire }
    }

    pub(crate) fn rate(&self) -> &Rate {
        &self.rate
    }

    /// Sends `bytes` from `start`, which is not before the end of what was sent last, and gives the end.
    pub(crate) fn send(&mut self, start: Nanos, bytes: u32) -> Nanos {
        match &mut self.wire {
            Wire::Unlimited => start,
            Wire::Fixed { bits_per_s, last, rest } => {
                // A wire that stood still starts on the nanosecond.
                let carried = if start == *last { *rest } else { 0 };
                let rate = u128::from(*bits_per_s);
                let work = u128::from(bytes) * 8 * NANOS_PER_S + u128::from(carried);
                *rest = (work % rate) as u64;
                *last = Nanos(start.0.saturating_add(i64::try_from(work / rate).unwrap_or(i64::MAX)));
                *last
            }
            Wire::Trace { trace, origin, next, left, last } => {
                if *last < start {
                    *left = 0;
                    *next = (*next).max(trace.first_at(start - *origin));
                }
                let mut bytes = bytes;
                while bytes > 0 {
                    if *left == 0 {
                        *left = OPPORTUNITY_BYTES;
                        *last = *origin + trace.instant(*next);
                        *next += 1;
                    }
                    let taken = bytes.min(*left);
                    bytes -= taken;
                    *left -= taken;
                }
                *last
            }
        }
    }

    /// The bytes, rounded up, that are still to be sent at `now` of a packet of `bytes` that ends at `end`.
    ///
    /// With a trace the opportunities are counted as whole, so that the packet at the change may be sent at most one
    /// opportunity's worth too much.
    pub(crate) fn unsent(&self, now: Nanos, end: Nanos, bytes: u32) -> u32 {
        let left = (end - now).0.max(0) as u128;
        match &self.wire {
            Wire::Unlimited => 0,
            Wire::Fixed { bits_per_s, .. } => {
                let bits = (left * u128::from(*bits_per_s)).div_ceil(NANOS_PER_S);
                u32::try_from(bits.div_ceil(8)).unwrap_or(u32::MAX).min(bytes)
            }
            Wire::Trace { trace, origin, next, .. } => {
                let count = next.saturating_sub(trace.first_at(Nanos(now.0 + 1) - *origin));
                u32::try_from(count).unwrap_or(u32::MAX).saturating_mul(OPPORTUNITY_BYTES).min(bytes)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_that_divides_badly_does_not_drift() {
        // 7 bit/ms: no packet ends on a nanosecond.
        let mut serializer = Serializer::new(&Rate::BitsPerS(9_999_991), Nanos(5));
        let mut end = Nanos(5);
        for _ in 0..1_000_000 {
            end = serializer.send(end, 1_500);
        }
        let exact = 1_000_000u128 * 12_000 * NANOS_PER_S / 9_999_991 + 5;
        assert_eq!(end.0 as u128, exact);
    }

    #[test]
    fn small_packets_share_an_opportunity_and_large_ones_take_several() {
        let trace = Arc::new(Trace::parse("1\n2\n5\n").unwrap());
        let mut serializer = Serializer::new(&Rate::Trace(trace), Nanos::from_millis(100));
        let mut end = Nanos::from_millis(100);
        let mut ends = Vec::new();
        for bytes in [700, 700, 200, 3_000, 1_400] {
            end = serializer.send(end, bytes);
            ends.push(end.0 / 1_000_000 - 100);
        }
        // The third has 100 bytes at 1 and 100 at 2; the fourth 1400 at 2, 1500 at 5, 100 at 6.
        assert_eq!(ends, [1, 1, 2, 6, 6]);
        // After a pause what was left over is gone.
        assert_eq!(serializer.send(Nanos::from_millis(107), 1).0 / 1_000_000, 107);
        assert_eq!(serializer.send(Nanos::from_millis(108), 1).0 / 1_000_000, 110);
    }

    #[test]
    fn what_is_unsent_shrinks_with_time() {
        let mut serializer = Serializer::new(&Rate::BitsPerS(8_000_000), Nanos::ZERO);
        let end = serializer.send(Nanos::ZERO, 1_000);
        assert_eq!(end, Nanos::from_millis(1));
        assert_eq!(serializer.unsent(Nanos::from_micros(250), end, 1_000), 750);
        assert_eq!(serializer.unsent(end, end, 1_000), 0);
    }
}
