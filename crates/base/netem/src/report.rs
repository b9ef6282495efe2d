//! What an emulator did, and how precisely.

use serde::Serialize;
use units::Nanos;

use crate::conditions::Conditions;
use crate::lateness::Histogram;
use crate::link::{Counters, Due};

/// At which level conditions were emulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Level {
    /// IP packets: the real TCP of both sides reacts to what happens to them.
    #[serde(rename = "packets")]
    Packets,
    /// The stream of bytes of a relayed TCP connection: the real TCP sees loopback.
    #[serde(rename = "byte stream")]
    ByteStream,
}

/// What an emulator did since its start.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// At which level.
    pub level: Level,
    /// Conditions that this level does not emulate, asked for or not, by name; empty at the level of packets.
    pub not_emulated: Vec<&'static str>,
    /// Whether the threads that move packets had real-time priority; without it, a busy machine makes them late.
    pub real_time: bool,
    /// The seed of losses, jitter and reordering.
    pub seed: u64,
    /// Seconds since the start.
    pub elapsed_s: f64,
    /// From side A to side B.
    pub forward: DirectionReport,
    /// From side B to side A.
    pub backward: DirectionReport,
}

/// One direction of a [`Report`].
#[derive(Clone, Debug, Serialize)]
pub struct DirectionReport {
    /// The conditions in force now.
    pub conditions: Conditions,
    /// What happened to packets; of a relay, a packet is a piece of the stream.
    pub counters: Counters,
    /// Packets inside now.
    pub held: u64,
    /// Packets that are not IPv4, which were thrown away.
    pub ignored: u64,
    /// Packets that the other side's device did not take.
    pub not_written: u64,
    /// Packets that the sending side's device dropped before they were read, for which the emulator was too slow;
    /// `None` when it could not be told, and for a relay.
    pub device_dropped: Option<u64>,
    /// How late packets were handed over; `None` when there was none.
    pub lateness: Option<Lateness>,
    /// The rate of periods in which the wire never stood still; `None` when there was none.
    pub rate: Option<RateReport>,
}

/// The instant at which packets were handed over less that at which they were due, in nanoseconds.
///
/// Quantiles are rounded up, by at most 1/32. What passes between a packet's leaving its sender and the emulator's
/// reading it comes on top, and cannot be seen from inside; `docs/netem.md` says how large it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Lateness {
    /// Packets counted.
    pub packets: u64,
    /// Half are not later.
    pub p50_ns: i64,
    /// 99 in 100 are not later.
    pub p99_ns: i64,
    /// The latest.
    pub max_ns: i64,
}

/// The rate at which packets were really handed over, against the one asked for, while packets waited for the wire.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RateReport {
    /// Length of those periods together, in seconds.
    pub busy_s: f64,
    /// Rate asked for in them, in bit/s.
    pub asked_bits_per_s: f64,
    /// Rate had, in bit/s.
    pub achieved_bits_per_s: f64,
    /// Achieved over asked, less 1.
    pub error: f64,
}

/// Gathers lateness and rate of one direction.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meter {
    lateness: Histogram,
    last: Option<Last>,
    bits: u64,
    asked: i64,
    actual: i64,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    busy: u64,
    busy_bytes: u64,
    due: Nanos,
    actual: Nanos,
}

impl Meter {
    /// A packet was handed over at `actual`; `limited` says that there is a rate.
    pub(crate) fn add<P>(&mut self, packet: &Due<P>, actual: Nanos, limited: bool) {
        self.lateness.add(actual - packet.due);
        let Due { busy, busy_bytes, due, .. } = *packet;
        match self.last {
            Some(last) if limited && last.busy == busy => {
                // One that was held back has been counted by the packet that passed it.
                let Some(bytes) = busy_bytes.checked_sub(last.busy_bytes) else { return };
                self.bits += bytes * 8;
                self.asked += (due - last.due).0;
                self.actual += (actual - last.actual).0;
            }
            _ => {}
        }
        self.last = Some(Last { busy, busy_bytes, due, actual });
    }

    pub(crate) fn lateness(&self) -> Option<Lateness> {
        Some(Lateness {
            packets: self.lateness.total(),
            p50_ns: self.lateness.quantile(0.5)?.0,
            p99_ns: self.lateness.quantile(0.99)?.0,
            max_ns: self.lateness.max()?.0,
        })
    }

    pub(crate) fn rate(&self) -> Option<RateReport> {
        if self.bits == 0 || self.asked <= 0 || self.actual <= 0 {
            return None;
        }
        let per_s = |nanos: i64| self.bits as f64 * 1e9 / nanos as f64;
        Some(RateReport {
            busy_s: Nanos(self.actual).as_secs_f64(),
            asked_bits_per_s: per_s(self.asked),
            achieved_bits_per_s: per_s(self.actual),
            error: self.asked as f64 / self.actual as f64 - 1.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(busy: u64, busy_bytes: u64, due_us: i64) -> Due<()> {
        let due = Nanos::from_micros(due_us);
        Due { packet: (), bytes: 1_500, due, sent: due, busy, busy_bytes }
    }

    #[test]
    fn a_pause_counts_in_no_rate_and_a_lost_packet_counts() {
        let mut meter = Meter::default();
        // 1500 bytes a millisecond; the third of the first period got lost, and there is a pause of a second.
        for (busy, busy_bytes, at) in [
            (1, 1_500, 1_000),
            (1, 3_000, 2_000),
            (1, 6_000, 4_000),
            (2, 1_500, 1_004_000),
            (2, 3_000, 1_005_000),
        ] {
            meter.add(&due(busy, busy_bytes, at), Nanos::from_micros(at + 50), true);
        }
        let rate = meter.rate().unwrap();
        assert_eq!((rate.asked_bits_per_s, rate.achieved_bits_per_s, rate.error), (12e6, 12e6, 0.0));
        assert_eq!(rate.busy_s, 0.004);
        let lateness = meter.lateness().unwrap();
        assert_eq!((lateness.packets, lateness.max_ns), (5, 50_000));
    }

    #[test]
    fn a_wire_that_falls_behind_shows_in_the_error() {
        let mut meter = Meter::default();
        for i in 1..=101i64 {
            meter.add(&due(1, i as u64 * 1_500, i * 1_000), Nanos::from_micros(i * 1_100), true);
        }
        let error = meter.rate().unwrap().error;
        assert!((error - (1.0 / 1.1 - 1.0)).abs() < 1e-9, "{error}");
    }
}
