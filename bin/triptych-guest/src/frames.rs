//! The table `frames`: one row per frame that went into the port.

use std::collections::VecDeque;

use probe::{ColumnType, DEFAULT_CAPACITY, Emitter, Probe, Table, TableError, Value};
use units::Nanos;

use crate::outbox::Sent;

/// The window of `actual_fps`.
const RATE_WINDOW: Nanos = Nanos(1_000_000_000);

/// What is known of a frame before it is encoded, and then how long that took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shot {
    /// Number of the tick.
    pub(crate) id: u64,
    /// When capture started.
    pub(crate) start: Nanos,
    /// When capture finished.
    pub(crate) captured: Nanos,
    /// When the encoder was given the frame.
    pub(crate) submitted: Nanos,
    /// Encoding, hand-over included.
    pub(crate) encode: Nanos,
    /// Ticks skipped since the frame before.
    pub(crate) skipped: u64,
    /// Frame rate asked for when it was captured.
    pub(crate) requested_fps: f64,
}

/// Writes the table.
pub(crate) struct FrameTable {
    emitter: Emitter,
    sequence: u64,
    recent: VecDeque<Nanos>,
}

impl FrameTable {
    /// Declares the table.
    pub(crate) fn declare(probe: &Probe) -> Result<Self, TableError> {
        use ColumnType::{Bool, F64, I64, U64};
        let table = Table::new("frames", "Frames sent; stamped at the start of capture")
            .column("seq", U64, "1", "Number of the frame among those sent, from 0")
            .column("captured_ns", I64, "ns", "Instant at which capture finished")
            .column("capture_ns", I64, "ns", "From the start of capture to its end")
            .column(
                "encode_ns",
                I64,
                "ns",
                "From the hand-over to the encoder's process to the encoded unit's arrival",
            )
            .column("send_start_ns", I64, "ns", "Instant at which the first byte was written to the port")
            .column("sent_ns", I64, "ns", "Instant at which the last byte was written to the port")
            .column("send_ns", I64, "ns", "From the first byte written to the last")
            .column("size_bytes", U64, "B", "Size of the access unit")
            .column("keyframe", Bool, "", "Whether decoding can start at this frame")
            .column("requested_fps", F64, "Hz", "Frame rate asked for")
            .column("actual_fps", F64, "Hz", "Frames captured (and sent) within the last second")
            .column("skipped", U64, "1", "Ticks skipped since the frame before: encoder or port were busy");
        let emitter = probe.declare(table, DEFAULT_CAPACITY)?;
        Ok(Self { emitter, sequence: 0, recent: VecDeque::new() })
    }

    /// Frames so far.
    pub(crate) fn rows(&self) -> u64 {
        self.sequence
    }

    /// Writes one row.
    pub(crate) fn sent(&mut self, sent: &Sent) {
        let shot = &sent.shot;
        self.recent.push_back(shot.start);
        while self.recent.front().is_some_and(|at| shot.start - *at >= RATE_WINDOW) {
            self.recent.pop_front();
        }
        let row = [
            Value::U64(self.sequence),
            Value::I64(shot.captured.0),
            Value::I64((shot.captured - shot.start).0),
            Value::I64(shot.encode.0),
            Value::I64(sent.start.0),
            Value::I64(sent.end.0),
            Value::I64((sent.end - sent.start).0),
            Value::U64(sent.size as u64),
            Value::Bool(sent.keyframe),
            Value::F64(shot.requested_fps),
            Value::F64(self.recent.len() as f64),
            Value::U64(shot.skipped),
        ];
        self.emitter.emit(shot.start, &row);
        self.sequence += 1;
    }
}
