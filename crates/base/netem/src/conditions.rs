//! The conditions of one direction, and how they change over time.
//!
//! Plain data with ranges that are checked before anything starts. Pure.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use units::Nanos;

use crate::trace::Trace;

/// Smallest and largest rate, in bit/s: at 8 kbit/s a full packet takes 1.5 s; 100 Gbit/s is beyond any process.
pub const RATE_BITS_PER_S: (u64, u64) = (8_000, 100_000_000_000);
/// Longest delay, jitter and extra delay, in milliseconds: what is longer is an outage.
pub const MAX_DELAY_MS: f64 = 60_000.0;
/// Largest queue in packets.
pub const MAX_QUEUE_PACKETS: u32 = 100_000;
/// Smallest and largest queue in bytes: one full packet, and what a machine's memory bears.
pub const QUEUE_BYTES: (u32, u32) = (1_500, 1 << 28);
/// Latest change of a schedule, in seconds: one week.
pub const MAX_AT_S: f64 = 604_800.0;
/// A normal jitter is cut off at so many standard deviations.
pub const NORMAL_CUT: f64 = 3.0;

/// How fast a direction sends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rate {
    /// As fast as the machine can.
    #[default]
    Unlimited,
    /// A fixed rate, in bit/s of whole IP packets; see [`RATE_BITS_PER_S`].
    BitsPerS(u64),
    /// The opportunities of a trace, which starts when it comes into force.
    Trace(Arc<Trace>),
}

impl Rate {
    /// The rate in bit/s, of a trace its mean; `None` when unlimited.
    pub fn bits_per_s(&self) -> Option<f64> {
        match self {
            Self::Unlimited => None,
            Self::BitsPerS(rate) => Some(*rate as f64),
            Self::Trace(trace) => Some(trace.mean_bits_per_s()),
        }
    }
}

/// How delays spread about their mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum JitterShape {
    /// Evenly between `delay - jitter` and `delay + jitter`.
    #[default]
    Uniform,
    /// Normal, with the jitter as its standard deviation; cut off at [`NORMAL_CUT`] of them on both sides.
    Normal,
}

/// Which packets get lost on the way. A lost packet has used the link's bandwidth and place in the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// None.
    #[default]
    None,
    /// Each packet with this probability, 0 to 1, whatever happened to the others.
    Independent(f64),
    /// In bursts, by the model of Gilbert and Elliott: two states, and a change of state may follow each packet.
    Bursts {
        /// Probability that a packet in the good state is followed by the bad state, 0 to 1.
        good_to_bad: f64,
        /// Probability that a packet in the bad state is followed by the good state, above 0 to 1.
        bad_to_good: f64,
        /// Probability that a packet gets lost in the bad state, 0 to 1.
        bad: f64,
        /// Probability that a packet gets lost in the good state, 0 to 1.
        #[serde(default)]
        good: f64,
    },
}

/// How much may wait for its turn to be sent; what comes when it is full is dropped (drop-tail). The packet that is
/// being sent counts. Without a rate nothing waits, and the limit has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Queue {
    /// A number of packets, 1 to [`MAX_QUEUE_PACKETS`].
    Packets(u32),
    /// A number of bytes of whole IP packets; see [`QUEUE_BYTES`].
    Bytes(u32),
}

impl Default for Queue {
    /// 1000 packets, as Linux' netem has it.
    fn default() -> Self {
        Self::Packets(1_000)
    }
}

/// Packets that arrive later than others sent after them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reordering {
    /// Probability that a packet is held back, 0 to 1.
    pub probability: f64,
    /// How much longer it is held back, in milliseconds, above 0; what follows within that time passes it.
    pub extra_ms: f64,
}

/// The conditions of one direction. The default is none: a path without limits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Conditions {
    /// How fast packets are sent, one after the other.
    pub rate: Rate,
    /// Time on the way once a packet is sent, in milliseconds, 0 to [`MAX_DELAY_MS`].
    pub delay_ms: f64,
    /// Spread of the delay, in milliseconds; not so wide that a delay could be negative. Jitter alone never lets a
    /// packet pass another: one that would is held until the other arrives.
    pub jitter_ms: f64,
    /// How the jitter is spread.
    pub jitter_shape: JitterShape,
    /// Which packets get lost.
    pub loss: Loss,
    /// Which packets are passed by others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reordering: Option<Reordering>,
    /// How much may wait to be sent.
    pub queue: Queue,
}

/// A change of some conditions at a moment; those not named stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Change {
    /// When, in seconds since the start of the schedule, above 0 to [`MAX_AT_S`].
    pub at_s: f64,
    /// See [`Conditions::rate`]. A trace starts from its beginning, unless it is already in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// See [`Conditions::delay_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<f64>,
    /// See [`Conditions::jitter_ms`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ms: Option<f64>,
    /// See [`Conditions::jitter_shape`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_shape: Option<JitterShape>,
    /// See [`Conditions::loss`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<Loss>,
    /// See [`Conditions::reordering`]; probability 0 ends it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reordering: Option<Reordering>,
    /// See [`Conditions::queue`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<Queue>,
}

/// The conditions of one direction over a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    /// Those in force from the start.
    #[serde(default)]
    pub start: Conditions,
    /// Changes, in order of time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
}

/// A condition out of its range.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{place}{field} is {found}: {expected}")]
pub struct ConditionsError {
    /// Which change of a schedule, or nothing.
    place: String,
    /// The field as it stands in a file.
    pub field: &'static str,
    /// What was found.
    pub found: String,
    /// What may stand there.
    pub expected: String,
}

fn fault(field: &'static str, found: impl ToString, expected: impl Into<String>) -> ConditionsError {
    ConditionsError { place: String::new(), field, found: found.to_string(), expected: expected.into() }
}

fn probability(field: &'static str, value: f64) -> Result<(), ConditionsError> {
    // Not a number lies in no range.
    if (0.0..=1.0).contains(&value) {
        Ok(())
    } else {
        Err(fault(field, value, "a probability lies in 0 to 1"))
    }
}

fn millis(field: &'static str, value: f64) -> Result<(), ConditionsError> {
    if (0.0..=MAX_DELAY_MS).contains(&value) {
        Ok(())
    } else {
        Err(fault(field, value, format!("it lies in 0 to {MAX_DELAY_MS} ms")))
    }
}

pub(crate) fn nanos(ms: f64) -> Nanos {
    Nanos((ms * 1e6).round() as i64)
}

impl Conditions {
    /// A rate in bit/s and a one-way delay in milliseconds, and nothing else.
    pub fn path(bits_per_s: u64, delay_ms: f64) -> Self {
        Self { rate: Rate::BitsPerS(bits_per_s), delay_ms, ..Self::default() }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// Names the first field that is out of its range, and the range.
    pub fn check(&self) -> Result<(), ConditionsError> {
        if let Rate::BitsPerS(rate) = self.rate {
            let (least, most) = RATE_BITS_PER_S;
            if !(least..=most).contains(&rate) {
                return Err(fault("rate.bits_per_s", rate, format!("it lies in {least} to {most} bit/s")));
            }
        }
        millis("delay_ms", self.delay_ms)?;
        millis("jitter_ms", self.jitter_ms)?;
        if self.jitter_bound_ms() > self.delay_ms {
            let most = self.delay_ms / (self.jitter_bound_ms() / self.jitter_ms);
            let why = format!(
                "with delay_ms {} it may be {most} at most, or delays would be negative",
                self.delay_ms
            );
            return Err(fault("jitter_ms", self.jitter_ms, why));
        }
        match self.loss {
            Loss::None => {}
            Loss::Independent(p) => probability("loss.independent", p)?,
            Loss::Bursts { good_to_bad, bad_to_good, bad, good } => {
                probability("loss.bursts.good_to_bad", good_to_bad)?;
                probability("loss.bursts.bad_to_good", bad_to_good)?;
                probability("loss.bursts.bad", bad)?;
                probability("loss.bursts.good", good)?;
                if bad_to_good == 0.0 {
                    return Err(fault(
                        "loss.bursts.bad_to_good",
                        0,
                        "above 0, or the first burst never ends",
                    ));
                }
            }
        }
        if let Some(reordering) = self.reordering {
            probability("reordering.probability", reordering.probability)?;
            millis("reordering.extra_ms", reordering.extra_ms)?;
            if reordering.probability > 0.0 && reordering.extra_ms == 0.0 {
                return Err(fault("reordering.extra_ms", 0, "above 0, or nothing is passed by anything"));
            }
        }
        match self.queue {
            Queue::Packets(n) if !(1..=MAX_QUEUE_PACKETS).contains(&n) => {
                Err(fault("queue.packets", n, format!("it lies in 1 to {MAX_QUEUE_PACKETS}")))
            }
            Queue::Bytes(n) if !(QUEUE_BYTES.0..=QUEUE_BYTES.1).contains(&n) => {
                Err(fault("queue.bytes", n, format!("it lies in {} to {}", QUEUE_BYTES.0, QUEUE_BYTES.1)))
            }
            _ => Ok(()),
        }
    }

    /// The furthest that a delay may lie from its mean, in milliseconds.
    pub(crate) fn jitter_bound_ms(&self) -> f64 {
        match self.jitter_shape {
            JitterShape::Uniform => self.jitter_ms,
            JitterShape::Normal => self.jitter_ms * NORMAL_CUT,
        }
    }

    /// These conditions with a change applied.
    #[must_use]
    pub fn with(&self, change: &Change) -> Self {
        Self {
            rate: change.rate.clone().unwrap_or_else(|| self.rate.clone()),
            delay_ms: change.delay_ms.unwrap_or(self.delay_ms),
            jitter_ms: change.jitter_ms.unwrap_or(self.jitter_ms),
            jitter_shape: change.jitter_shape.unwrap_or(self.jitter_shape),
            loss: change.loss.unwrap_or(self.loss),
            reordering: change.reordering.or(self.reordering),
            queue: change.queue.unwrap_or(self.queue),
        }
    }
}

impl From<Conditions> for Schedule {
    /// Conditions that never change.
    fn from(start: Conditions) -> Self {
        Self { start, changes: Vec::new() }
    }
}

impl Schedule {
    /// Checks every range, and that times rise.
    ///
    /// # Errors
    /// Names the first change and field that is wrong. Changes count from 1.
    pub fn check(&self) -> Result<(), ConditionsError> {
        self.start.check()?;
        let mut before = 0.0;
        for (index, (change, conditions)) in self.changes.iter().zip(self.steps()).enumerate() {
            let place =
                |e: ConditionsError| ConditionsError { place: format!("change {}: ", index + 1), ..e };
            // Written so that not a number is refused.
            if !(change.at_s > before && change.at_s <= MAX_AT_S) {
                let expected =
                    format!("it lies above {before} s, the time of what stands before, to {MAX_AT_S} s");
                return Err(place(fault("at_s", change.at_s, expected)));
            }
            before = change.at_s;
            conditions.1.check().map_err(place)?;
        }
        Ok(())
    }

    /// The changes as instants since the start and the whole conditions from then on.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (Nanos, Conditions)> + '_ {
        self.changes.iter().scan(self.start.clone(), |conditions, change| {
            *conditions = conditions.with(change);
            Some((Nanos::from_secs_f64(change.at_s), conditions.clone()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_out_of_range_is_named_with_its_range() {
        let good = Conditions { delay_ms: 10.0, ..Conditions::default() };
        let check = |conditions: Conditions, words: &[&str]| {
            let error = conditions.check().unwrap_err().to_string();
            for word in words {
                assert!(error.contains(word), "{error:?} does not say {word:?}");
            }
        };
        check(Conditions { rate: Rate::BitsPerS(0), ..good.clone() }, &["rate.bits_per_s is 0", "8000"]);
        check(Conditions { delay_ms: -1.0, ..good.clone() }, &["delay_ms is -1", "0 to 60000"]);
        check(Conditions { delay_ms: f64::NAN, ..good.clone() }, &["delay_ms is NaN"]);
        check(Conditions { jitter_ms: 11.0, ..good.clone() }, &["jitter_ms is 11", "10 at most"]);
        check(
            Conditions { jitter_ms: 4.0, jitter_shape: JitterShape::Normal, delay_ms: 9.0, ..good.clone() },
            &["jitter_ms is 4", "3 at most"],
        );
        check(Conditions { loss: Loss::Independent(1.5), ..good.clone() }, &["loss.independent", "0 to 1"]);
        let bursts = Loss::Bursts { good_to_bad: 0.1, bad_to_good: 0.0, bad: 1.0, good: 0.0 };
        check(Conditions { loss: bursts, ..good.clone() }, &["bad_to_good", "above 0"]);
        let reordering = Some(Reordering { probability: 0.5, extra_ms: 0.0 });
        check(Conditions { reordering, ..good.clone() }, &["reordering.extra_ms", "above 0"]);
        check(Conditions { queue: Queue::Packets(0), ..good.clone() }, &["queue.packets", "1 to"]);
        check(Conditions { queue: Queue::Bytes(1_499), ..good.clone() }, &["queue.bytes", "1500"]);
        good.check().unwrap();
    }

    #[test]
    fn a_schedule_names_the_change_that_is_wrong() {
        let at = |at_s| Change { at_s, ..Change::default() };
        let check = |changes: Vec<Change>, words: &str| {
            let error = Schedule { start: Conditions::default(), changes }.check().unwrap_err().to_string();
            assert!(error.starts_with(words), "{error:?} does not start with {words:?}");
        };
        check(vec![at(0.0)], "change 1: at_s is 0");
        check(vec![at(2.0), at(2.0)], "change 2: at_s is 2");
        check(vec![at(f64::NAN)], "change 1: at_s is NaN");
        check(vec![Change { jitter_ms: Some(5.0), ..at(1.0) }], "change 1: jitter_ms is 5");
    }

    #[test]
    fn a_change_leaves_the_rest_as_it_was() {
        let schedule = Schedule {
            start: Conditions::path(1_000_000, 20.0),
            changes: vec![
                Change { at_s: 1.0, delay_ms: Some(40.0), ..Change::default() },
                Change { at_s: 2.0, loss: Some(Loss::Independent(0.1)), ..Change::default() },
            ],
        };
        schedule.check().unwrap();
        let steps: Vec<_> = schedule.steps().collect();
        assert_eq!(steps[0], (Nanos(1_000_000_000), Conditions::path(1_000_000, 40.0)));
        let last = Conditions { loss: Loss::Independent(0.1), ..Conditions::path(1_000_000, 40.0) };
        assert_eq!(steps[1].1, last);
    }

    #[test]
    fn a_schedule_reads_from_a_file_and_unknown_fields_are_refused() {
        let text = "
            [start]
            rate = { bits_per_s = 5000000 }
            delay_ms = 20
            jitter_ms = 2
            jitter_shape = \"normal\"
            loss = { bursts = { good_to_bad = 0.01, bad_to_good = 0.3, bad = 0.8 } }
            queue = { bytes = 60000 }
            [[changes]]
            at_s = 2.5
            rate = { trace = [0, 3, 3, 9] }
            [[changes]]
            at_s = 5
            rate = \"unlimited\"
        ";
        let schedule: Schedule = toml::from_str(text).unwrap();
        schedule.check().unwrap();
        assert_eq!(schedule.start.queue, Queue::Bytes(60_000));
        assert_eq!(schedule.changes[1].rate, Some(Rate::Unlimited));
        let again: Schedule = toml::from_str(&toml::to_string(&schedule).unwrap()).unwrap();
        assert_eq!(again, schedule);
        assert!(toml::from_str::<Schedule>("[start]\ndelay = 3").is_err());
    }
}
