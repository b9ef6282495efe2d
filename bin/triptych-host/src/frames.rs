//! The tables `frames` and `traffic` of the host's panel, and the frames whose fate is not known yet.

use std::collections::VecDeque;

use anyhow::Result;
use probe::{ColumnType, DEFAULT_CAPACITY, Emitter, Probe, Table, Value};
use units::Nanos;

/// Frames that may wait for "in the socket" before they are written down without it: far more than
/// libspice-server queues for a client.
const MAX_WAITING: usize = 256;

/// A frame that libspice-server has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Pushed {
    /// The message's first byte was there.
    pub(crate) first_byte: Nanos,
    /// The message's last byte was there.
    pub(crate) received: Nanos,
    /// The first `read()` of its payload.
    pub(crate) pushed: Nanos,
    /// Bytes of payload.
    pub(crate) size: u32,
}

impl Pushed {
    /// As libspice-server stamps it: CLOCK_MONOTONIC in whole milliseconds, 32 bits on the wire.
    pub(crate) fn mm_time_ms(&self) -> u64 {
        (self.pushed.0 / 1_000_000) as u64 & u64::from(u32::MAX)
    }
}

/// Writes a row for each frame once its fate is known.
pub(crate) struct FrameLog {
    emitter: Emitter,
    waiting: VecDeque<Pushed>,
    seq: u64,
}

impl FrameLog {
    /// Declares the table.
    pub(crate) fn declare(probe: &Probe) -> Result<Self> {
        use ColumnType::{I64, U64};
        let table = Table::new(
            "frames",
            "Each frame that went from the guest into libspice-server, when its last byte arrived",
        )
        .column("seq", U64, "1", "Frames before this one since the program started")
        .column(
            "first_byte_ns",
            I64,
            "ns",
            "Instant at which the message's first bytes were read from the guest",
        )
        .column("received_ns", I64, "ns", "Instant at which the message's last byte was read from the guest")
        .column("pushed_ns", I64, "ns", "Instant at which libspice-server first read from the payload")
        .column(
            "socket_ns",
            I64,
            "ns",
            "Instant at which all its bytes were in the client's socket; 0 when there was no client",
        )
        .column(
            "mm_time_ms",
            U64,
            "ms",
            "Time stamp given by libspice-server, by which the client knows the frame",
        )
        .column("size_bytes", U64, "B", "Size of the access unit");
        Ok(Self { emitter: probe.declare(table, DEFAULT_CAPACITY)?, waiting: VecDeque::new(), seq: 0 })
    }

    /// A frame went in.
    pub(crate) fn pushed(&mut self, frame: Pushed) {
        if self.waiting.len() == MAX_WAITING {
            self.write_first(Nanos::ZERO);
        }
        self.waiting.push_back(frame);
    }

    /// All waiting frames are in the client's socket since `at`; zero when there is no client.
    pub(crate) fn settle(&mut self, at: Nanos) {
        while !self.waiting.is_empty() {
            self.write_first(at);
        }
    }

    /// Whether a frame waits for its fate.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Frames so far.
    pub(crate) fn count(&self) -> u64 {
        self.seq + self.waiting.len() as u64
    }

    fn write_first(&mut self, socket: Nanos) {
        let Some(frame) = self.waiting.pop_front() else { return };
        self.emitter.emit(
            frame.received,
            &[
                Value::U64(self.seq),
                Value::I64(frame.first_byte.0),
                Value::I64(frame.received.0),
                Value::I64(frame.pushed.0),
                Value::I64(socket.0),
                Value::U64(frame.mm_time_ms()),
                Value::U64(frame.size.into()),
            ],
        );
        self.seq += 1;
    }
}

/// Declares the table `traffic`; its rows are [`traffic_row`].
pub(crate) fn declare_traffic(probe: &Probe) -> Result<Emitter> {
    let table = Table::new("traffic", "Bytes that passed, once a second")
        .column("from_guest_bytes", ColumnType::U64, "B", "Bytes read from guests since the program started")
        .column(
            "to_client_bytes",
            ColumnType::U64,
            "B",
            "Bytes sent to clients over all channels since the program started, without retransmissions",
        );
    Ok(probe.declare(table, DEFAULT_CAPACITY)?)
}

/// A row of the table `traffic`.
pub(crate) fn traffic_row(from_guest: u64, to_client: u64) -> [Value; 2] {
    [Value::U64(from_guest), Value::U64(to_client)]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(probe: &Probe) -> Vec<Vec<i64>> {
        let mut rows = Vec::new();
        probe.drain().poll(|b| {
            let width = b.table.columns.len() + 1;
            rows.extend(b.words.chunks_exact(width).map(|r| r.iter().map(|w| *w as i64).collect::<Vec<_>>()));
        });
        rows
    }

    fn frame(at: i64) -> Pushed {
        Pushed { first_byte: Nanos(at), received: Nanos(at + 1), pushed: Nanos(at + 2), size: 10 }
    }

    #[test]
    fn frames_are_written_in_order_once_they_are_in_the_socket() {
        let probe = Probe::new();
        let mut log = FrameLog::declare(&probe).unwrap();
        log.pushed(frame(5_000_000));
        log.pushed(frame(7_000_000));
        assert_eq!((rows(&probe).len(), log.is_waiting(), log.count()), (0, true, 2));
        log.settle(Nanos(9_000_000));
        assert_eq!(
            rows(&probe),
            [
                vec![5_000_001, 0, 5_000_000, 5_000_001, 5_000_002, 9_000_000, 5, 10],
                vec![7_000_001, 1, 7_000_000, 7_000_001, 7_000_002, 9_000_000, 7, 10]
            ]
        );
    }

    #[test]
    fn frames_for_a_client_that_stands_still_are_bounded() {
        let probe = Probe::new();
        let mut log = FrameLog::declare(&probe).unwrap();
        for i in 0..MAX_WAITING as i64 + 3 {
            log.pushed(frame(i));
        }
        let rows = rows(&probe);
        assert_eq!((rows.len(), rows[0][5]), (3, 0));
    }

    #[test]
    fn the_time_stamp_wraps_as_on_the_wire() {
        let frame = Pushed { pushed: Nanos::from_millis((1 << 32) + 7), ..frame(0) };
        assert_eq!(frame.mm_time_ms(), 7);
    }
}
