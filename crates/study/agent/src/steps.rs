//! Notices what happened to this machine's clocks between two looks at them: a suspend, and a wall clock that was set.
//!
//! `CLOCK_MONOTONIC` stands still while the machine is suspended, `CLOCK_BOOTTIME` goes on: what one gains on the other
//! was spent asleep. `CLOCK_REALTIME` is adjusted against both, slowly while it is slewed and at once when it is set
//! (`clock_gettime(2)`, `adjtimex(2)`). Samples are stamped with `CLOCK_MONOTONIC`, so a wall clock that was set harms
//! none of them; it is marked because logs of other programs jump.

use rustix::time::{ClockId, Timespec, clock_gettime};

/// Least time asleep that is told, in nanoseconds: the two clocks are read one after the other, and a thread may lose
/// its CPU in between. No machine sleeps and wakes that fast.
const SUSPEND_LEAST_NS: i64 = 100_000_000;
/// Least step of the wall clock that is told, in nanoseconds, beside what slewing explains.
const STEP_LEAST_NS: i64 = 10_000_000;
/// Fastest slewing, parts per million: `adjtimex` allows 500 for the frequency, and `adjtime` another 500.
const SLEW_PPM: i64 = 1_000;

/// The three clocks at one instant, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// `CLOCK_MONOTONIC`.
    pub monotonic_ns: i64,
    /// `CLOCK_BOOTTIME`.
    pub boottime_ns: i64,
    /// `CLOCK_REALTIME`.
    pub realtime_ns: i64,
}

impl Reading {
    /// Now.
    pub fn now() -> Self {
        let ns = |t: Timespec| t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec);
        Self {
            monotonic_ns: ns(clock_gettime(ClockId::Monotonic)),
            boottime_ns: ns(clock_gettime(ClockId::Boottime)),
            realtime_ns: ns(clock_gettime(ClockId::Realtime)),
        }
    }
}

/// Something to be marked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// When it was noticed, on `CLOCK_MONOTONIC`.
    pub t_ns: i64,
    /// `suspend` or `wall_clock_step`.
    pub kind: &'static str,
    /// By how much, nanoseconds; a wall clock set back is negative.
    pub amount_ns: i64,
    /// For people.
    pub text: String,
}

/// Compares each reading with the one before. To be asked about once a second.
#[derive(Clone, Copy, Debug, Default)]
pub struct Steps {
    last: Option<Reading>,
}

impl Steps {
    /// What happened since the reading before; nothing for the first one.
    pub fn look(&mut self, now: Reading) -> Vec<Mark> {
        let Some(last) = self.last.replace(now) else { return Vec::new() };
        let since = |now: i64, last: i64| now.saturating_sub(last);
        let awake = since(now.monotonic_ns, last.monotonic_ns);
        let passed = since(now.boottime_ns, last.boottime_ns);
        let wall = since(now.realtime_ns, last.realtime_ns);
        let (asleep, set) = (passed.saturating_sub(awake), wall.saturating_sub(passed));
        let slewed = passed.max(0) / 1_000_000 * SLEW_PPM;
        let mut marks = Vec::new();
        if asleep >= SUSPEND_LEAST_NS {
            let text = format!("the machine was suspended for {:.1} s", asleep as f64 / 1e9);
            marks.push(Mark { t_ns: now.monotonic_ns, kind: "suspend", amount_ns: asleep, text });
        }
        // After a suspend the wall clock comes from the hardware's, which counts whole seconds on some machines.
        let coarse = if asleep >= SUSPEND_LEAST_NS { 1_000_000_000 } else { 0 };
        if set.saturating_abs() > STEP_LEAST_NS.saturating_add(slewed).saturating_add(coarse) {
            let (way, seconds) = (if set > 0 { "ahead" } else { "back" }, set.saturating_abs() as f64 / 1e9);
            let text = format!("the wall clock was set {way} by {seconds:.3} s");
            marks.push(Mark { t_ns: now.monotonic_ns, kind: "wall_clock_step", amount_ns: set, text });
        }
        marks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const START: Reading =
        Reading { monotonic_ns: 100 * S, boottime_ns: 150 * S, realtime_ns: 1_700_000_000 * S };

    /// Marks after the clocks advanced by these seconds.
    #[track_caller]
    fn check(advance: (f64, f64, f64), expected: &[(&str, i64)]) -> Vec<Mark> {
        let ns = |s: f64| (s * 1e9) as i64;
        let mut steps = Steps::default();
        assert_eq!(steps.look(START), [], "the first reading has nothing before it");
        let now = Reading {
            monotonic_ns: START.monotonic_ns + ns(advance.0),
            boottime_ns: START.boottime_ns + ns(advance.1),
            realtime_ns: START.realtime_ns + ns(advance.2),
        };
        let marks = steps.look(now);
        assert_eq!(marks.iter().map(|m| (m.kind, m.amount_ns)).collect::<Vec<_>>(), expected);
        assert_eq!(steps.look(now), [], "each is told once");
        marks
    }

    #[test]
    fn clocks_that_run_together_tell_nothing() {
        check((1.0, 1.0, 1.0), &[]);
        check((1.0, 1.000_001, 1.000_002), &[]);
    }

    #[test]
    fn slewing_is_no_step_however_long_nobody_looked() {
        check((1.0, 1.0, 1.0005), &[]);
        check((3600.0, 3600.0, 3601.8), &[]);
    }

    #[test]
    fn a_suspend_is_told_with_its_length() {
        let marks = check((1.0, 31.0, 31.4), &[("suspend", 30 * S)]);
        assert_eq!(marks[0].text, "the machine was suspended for 30.0 s");
        assert_eq!(marks[0].t_ns, 101 * S);
    }

    #[test]
    fn a_wall_clock_that_was_set_is_told_with_its_way() {
        let marks = check((1.0, 1.0, 6.0), &[("wall_clock_step", 5 * S)]);
        assert_eq!(marks[0].text, "the wall clock was set ahead by 5.000 s");
        let marks = check((1.0, 1.0, 0.75), &[("wall_clock_step", -S / 4)]);
        assert!(marks[0].text.contains("back by 0.250 s"));
        check((1.0, 31.0, 91.0), &[("suspend", 30 * S), ("wall_clock_step", 60 * S)]);
    }

    #[test]
    fn the_clocks_of_this_machine_can_be_read_and_absurd_ones_do_no_harm() {
        let mut steps = Steps::default();
        steps.look(Reading::now());
        let now = Reading::now();
        assert!(now.boottime_ns >= now.monotonic_ns - SUSPEND_LEAST_NS && now.realtime_ns > 0);
        steps.look(Reading { monotonic_ns: i64::MIN, boottime_ns: i64::MAX, realtime_ns: i64::MIN });
        steps.look(Reading { monotonic_ns: i64::MAX, boottime_ns: i64::MIN, realtime_ns: i64::MAX });
    }
}
