//! Traces of a link's bandwidth in Mahimahi's format: one line for each moment at which 1500 bytes may pass.
//!
//! The format is described in Mahimahi's `mm-link(1)`: a line is a number of milliseconds since the start, numbers
//! never fall, a number may stand several times, and the whole starts again at the last number. Pure: the text comes
//! from the caller.

use serde::{Deserialize, Serialize};
use units::Nanos;

/// Bytes that one line of a trace lets pass: the packet size of Mahimahi's `mm-link(1)`.
pub const OPPORTUNITY_BYTES: u32 = 1_500;

/// Largest number of lines of a trace: at 100 Mbit/s these last ten minutes.
pub const MAX_LINES: usize = 5_000_000;

/// Largest number that a line may hold, in milliseconds: one day.
pub const MAX_MILLIS: u32 = 86_400_000;

const NANOS_PER_MILLI: i64 = 1_000_000;

/// What is wrong with a trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TraceError {
    /// A line is not a whole number of milliseconds. Lines count from 1.
    #[error(
        "line {line} of the trace is {found:?}: it must be a whole number of milliseconds, 0 to {MAX_MILLIS}"
    )]
    Number {
        /// The line, from 1.
        line: usize,
        /// Its beginning.
        found: String,
    },
    /// A line is earlier than the one before.
    #[error("line {line} of the trace is earlier than the line before: times must not fall")]
    Falls {
        /// The line, from 1.
        line: usize,
    },
    /// There are more than [`MAX_LINES`] lines.
    #[error("the trace has more than {MAX_LINES} lines")]
    TooLong,
    /// There is no line, or the last one is 0: a trace of no length cannot be repeated.
    #[error("the trace lasts 0 ms: its last line must be 1 or more, since it starts again there")]
    Empty,
}

/// Moments at which [`OPPORTUNITY_BYTES`] may pass, repeated for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<u32>", into = "Vec<u32>")]
pub struct Trace {
    millis: Vec<u32>,
}

impl Trace {
    /// Reads a trace from text: one number a line, in milliseconds. Blank lines at the end are let pass.
    ///
    /// # Errors
    /// Names the first line that is wrong.
    pub fn parse(text: &str) -> Result<Self, TraceError> {
        let mut millis = Vec::new();
        for (index, line) in text.trim_end().lines().enumerate() {
            if index >= MAX_LINES {
                return Err(TraceError::TooLong);
            }
            let line = line.trim();
            // `u32::from_str` would take a sign.
            let digits = line.bytes().all(|b| b.is_ascii_digit());
            let value = line.parse().ok().filter(|v| digits && *v <= MAX_MILLIS);
            millis.push(value.ok_or_else(|| TraceError::Number {
                line: index + 1,
                found: line.chars().take(32).collect(),
            })?);
        }
        Self::try_from(millis)
    }

    /// Number of opportunities in one round; at least 1.
    pub fn len(&self) -> usize {
        self.millis.len()
    }

    /// Never true: an empty trace cannot be made. Here because of [`Trace::len`].
    pub fn is_empty(&self) -> bool {
        self.millis.is_empty()
    }

    /// Length of one round: the last line.
    pub fn period(&self) -> Nanos {
        Nanos::from_millis(i64::from(self.millis.last().copied().unwrap_or(1)))
    }

    /// Mean rate over one round, in bit/s.
    pub fn mean_bits_per_s(&self) -> f64 {
        self.millis.len() as f64 * f64::from(OPPORTUNITY_BYTES) * 8.0 / self.period().as_secs_f64()
    }

    /// The instant of an opportunity, counted from 0 over all rounds, since the start of the trace.
    pub(crate) fn instant(&self, index: u64) -> Nanos {
        let lines = self.millis.len() as u64;
        let (round, line) = (index / lines, index % lines);
        let start = i64::try_from(round).unwrap_or(i64::MAX).saturating_mul(self.period().0);
        Nanos(start.saturating_add(i64::from(self.millis[line as usize]) * NANOS_PER_MILLI))
    }

    /// The first opportunity at `since` (from the start of the trace) or later.
    pub(crate) fn first_at(&self, since: Nanos) -> u64 {
        let (since, period) = (since.0.max(0), self.period().0);
        let (round, rest) = (since / period, since % period);
        // The last line of a round lies at the same instant as the start of the next: rest 0 must find it too.
        let round_before = if rest == 0 && round > 0 { round - 1 } else { round };
        let rest = since - round_before * period;
        let line = self.millis.partition_point(|m| i64::from(*m) * NANOS_PER_MILLI < rest);
        round_before as u64 * self.millis.len() as u64 + line as u64
    }
}

impl TryFrom<Vec<u32>> for Trace {
    type Error = TraceError;

    fn try_from(millis: Vec<u32>) -> Result<Self, TraceError> {
        if millis.len() > MAX_LINES {
            return Err(TraceError::TooLong);
        }
        if let Some(index) = millis.iter().position(|m| *m > MAX_MILLIS) {
            return Err(TraceError::Number { line: index + 1, found: millis[index].to_string() });
        }
        if let Some(index) = millis.windows(2).position(|pair| pair[1] < pair[0]) {
            return Err(TraceError::Falls { line: index + 2 });
        }
        if millis.last().is_none_or(|last| *last == 0) {
            return Err(TraceError::Empty);
        }
        Ok(Self { millis })
    }
}

impl From<Trace> for Vec<u32> {
    fn from(trace: Trace) -> Self {
        trace.millis
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_wrong_line_is_named() {
        let check =
            |text: &str, expected: TraceError| assert_eq!(Trace::parse(text), Err(expected), "{text:?}");
        let number = |line, found: &str| TraceError::Number { line, found: found.into() };
        check("", TraceError::Empty);
        check("0\n0\n", TraceError::Empty);
        check("1\nx\n", number(2, "x"));
        check("1\n\n2\n", number(2, ""));
        check("+1\n", number(1, "+1"));
        check("-1\n", number(1, "-1"));
        check("1.5\n", number(1, "1.5"));
        check("1 2\n", number(1, "1 2"));
        check("99999999999999999999\n", number(1, "99999999999999999999"));
        check("86400001\n", number(1, "86400001"));
        check("5\n7\n6\n", TraceError::Falls { line: 3 });
    }

    #[test]
    fn the_last_line_starts_the_next_round() {
        let trace = Trace::parse("0\r\n0\n5\n10\n").unwrap();
        let at: Vec<_> = (0..9).map(|i| trace.instant(i).0 / NANOS_PER_MILLI).collect();
        assert_eq!(at, [0, 0, 5, 10, 10, 10, 15, 20, 20]);
        assert_eq!(trace.mean_bits_per_s(), 4.0 * 12_000.0 / 0.01);
    }

    #[test]
    fn a_trace_is_a_list_of_numbers_in_a_file() {
        let trace: Trace = serde_json::from_str("[1, 1, 4]").unwrap();
        assert_eq!(serde_json::to_string(&trace).unwrap(), "[1,1,4]");
        let error = serde_json::from_str::<Trace>("[2, 1]").unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[0-9\n\r +x.é-]{0,200}") {
            if let Ok(trace) = Trace::parse(&text) {
                prop_assert!(!trace.is_empty() && trace.period() > Nanos::ZERO);
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Trace::parse(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn the_first_opportunity_is_the_first(
            mut millis in proptest::collection::vec(0u32..50, 1..20), last in 1u32..60, at in 0i64..400_000_000,
        ) {
            millis.sort_unstable();
            millis.push(last.max(*millis.last().unwrap()));
            let trace = Trace::try_from(millis).unwrap();
            let first = trace.first_at(Nanos(at));
            prop_assert!(trace.instant(first) >= Nanos(at));
            prop_assert!(first == 0 || trace.instant(first - 1) < Nanos(at));
        }
    }
}
