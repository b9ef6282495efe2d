//! Quantities with their unit in the type, and the clocks that stamp them.
//!
//! Knows no study and no system; every other crate may depend on it. Only what is used stands here.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// An instant on some panel's monotonic clock, or a difference of two such instants, in nanoseconds.
///
/// Signed, because differences between panels' clocks are. `i64` spans 292 years.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nanos(pub i64);

impl Nanos {
    /// Zero nanoseconds.
    pub const ZERO: Self = Self(0);

    /// From whole microseconds, saturating.
    pub const fn from_micros(us: i64) -> Self {
        Self(us.saturating_mul(1_000))
    }

    /// From whole milliseconds, saturating.
    pub const fn from_millis(ms: i64) -> Self {
        Self(ms.saturating_mul(1_000_000))
    }

    /// From seconds; out-of-range values saturate and NaN gives zero.
    pub fn from_secs_f64(s: f64) -> Self {
        Self((s * 1e9) as i64)
    }

    /// In milliseconds.
    pub fn as_millis_f64(self) -> f64 {
        self.0 as f64 / 1e6
    }

    /// In seconds.
    pub fn as_secs_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }

    /// As a [`Duration`]; negative values give zero.
    pub fn to_duration(self) -> Duration {
        Duration::from_nanos(u64::try_from(self.0).unwrap_or(0))
    }
}

impl From<Duration> for Nanos {
    fn from(d: Duration) -> Self {
        Self(i64::try_from(d.as_nanos()).unwrap_or(i64::MAX))
    }
}

impl Add for Nanos {
    type Output = Self;
    fn add(self, rhs: Self) -> Self {
        Self(self.0.saturating_add(rhs.0))
    }
}

impl AddAssign for Nanos {
    fn add_assign(&mut self, rhs: Self) {
        *self = *self + rhs;
    }
}

impl Sub for Nanos {
    type Output = Self;
    fn sub(self, rhs: Self) -> Self {
        Self(self.0.saturating_sub(rhs.0))
    }
}

impl fmt::Display for Nanos {
    /// In the unit a person would choose: `850 ns`, `12.3 µs`, `4.56 ms`, `7.89 s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let abs = self.0.unsigned_abs();
        let v = self.0 as f64;
        match abs {
            0..1_000 => write!(f, "{} ns", self.0),
            1_000..1_000_000 => write!(f, "{:.1} µs", v / 1e3),
            1_000_000..1_000_000_000 => write!(f, "{:.2} ms", v / 1e6),
            _ => write!(f, "{:.2} s", v / 1e9),
        }
    }
}

/// A clock that never goes back. Each panel stamps with its own.
pub trait Clock: Send + Sync {
    /// The present instant on this clock.
    fn now(&self) -> Nanos;
}

/// `CLOCK_MONOTONIC` of this machine: nanoseconds since an arbitrary start (on Linux: boot, without suspends).
///
/// Instants are comparable between processes of one machine, which `std::time::Instant` does not promise.
#[derive(Clone, Copy, Debug, Default)]
pub struct MonotonicClock;

impl Clock for MonotonicClock {
    fn now(&self) -> Nanos {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        Nanos(t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec))
    }
}

/// A clock that stands still until told to advance, for tests.
#[derive(Debug, Default)]
pub struct VirtualClock(AtomicI64);

impl VirtualClock {
    /// A clock standing at `start`.
    pub fn new(start: Nanos) -> Self {
        Self(AtomicI64::new(start.0))
    }

    /// Moves the clock forward; a negative step is ignored, since a [`Clock`] never goes back.
    pub fn advance(&self, by: Nanos) {
        self.0.fetch_add(by.0.max(0), Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now(&self) -> Nanos {
        Nanos(self.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nanos_display_chooses_a_readable_unit() {
        for (ns, expected) in [
            (850, "850 ns"),
            (-850, "-850 ns"),
            (12_345, "12.3 µs"),
            (4_560_000, "4.56 ms"),
            (7_890_000_000, "7.89 s"),
        ] {
            assert_eq!(Nanos(ns).to_string(), expected);
        }
    }

    #[test]
    fn nanos_arithmetic_saturates() {
        assert_eq!(Nanos(i64::MAX) + Nanos(1), Nanos(i64::MAX));
        assert_eq!(Nanos(i64::MIN) - Nanos(1), Nanos(i64::MIN));
        assert_eq!(Nanos::from_millis(i64::MAX), Nanos(i64::MAX));
    }

    #[test]
    fn virtual_clock_never_goes_back() {
        let clock = VirtualClock::new(Nanos(10));
        clock.advance(Nanos(-5));
        clock.advance(Nanos(7));
        assert_eq!(clock.now(), Nanos(17));
    }

    #[test]
    fn monotonic_clock_advances() {
        let a = MonotonicClock.now();
        while MonotonicClock.now() == a {}
        assert!(MonotonicClock.now() > a);
    }
}
