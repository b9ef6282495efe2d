//! How long the rest will take, from how long runs took.

use std::time::Duration;

/// Remaining time of a study.
///
/// Until a run has been measured nothing is known but the time that must be recorded; [`Estimate::left`] then says so.
#[derive(Clone, Debug)]
pub struct Estimate {
    least: Duration,
    measured: Duration,
    runs: u32,
}

/// A remaining time and what it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    /// Time to go.
    pub time: Duration,
    /// False while no run was measured: then `time` is the least that is possible.
    pub measured: bool,
}

impl Estimate {
    /// `least` is what a run takes at least: warm-up and window.
    pub fn new(least: Duration) -> Self {
        Self { least, measured: Duration::ZERO, runs: 0 }
    }

    /// A run took `time`. Failed runs count too: the ones to come may fail as well.
    pub fn measured(&mut self, time: Duration) {
        self.measured += time;
        self.runs += 1;
    }

    /// Time to go when `runs` are left, the first of which has been going on for `elapsed`.
    pub fn left(&self, runs: u32, elapsed: Duration) -> Left {
        let each = if self.runs == 0 { self.least } else { self.measured / self.runs };
        let present = if runs == 0 { Duration::ZERO } else { each.saturating_sub(elapsed) };
        Left { time: each * runs.saturating_sub(1) + present, measured: self.runs > 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    #[test]
    fn before_the_first_run_the_least_is_given_as_such() {
        let estimate = Estimate::new(S(5));
        assert_eq!(estimate.left(24, S(2)), Left { time: S(118), measured: false });
    }

    #[test]
    fn afterwards_the_mean_of_measured_runs_counts() {
        let mut estimate = Estimate::new(S(5));
        estimate.measured(S(6));
        estimate.measured(S(8));
        assert_eq!(estimate.left(3, S(1)), Left { time: S(20), measured: true });
        assert_eq!(estimate.left(1, S(60)), Left { time: S(0), measured: true });
        assert_eq!(estimate.left(0, S(0)), Left { time: S(0), measured: true });
    }
}
