//! The table of frames: one row for each frame received, once its fate is known.

use std::collections::VecDeque;

use probe::{ColumnType, Emitter, Probe, Table, TableError, Value};
use units::Nanos;

use crate::summary::Summary;

/// Rows that the ring holds: two minutes at 60 frames a second.
const CAPACITY: usize = 8192;

/// A frame whose fate is not known yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Arrival {
    pub(crate) seq: u64,
    pub(crate) received: Nanos,
    pub(crate) mm_time_ms: u32,
    pub(crate) size_bytes: usize,
    pub(crate) keyframe: bool,
    /// Frames that waited for the decoder when it arrived.
    pub(crate) queue_before: usize,
}

/// What became of a frame that was decoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fate {
    pub(crate) decode_start: Nanos,
    pub(crate) decoded: Nanos,
    /// Frames that waited when it was decoded.
    pub(crate) queue_after: usize,
    pub(crate) presented: Nanos,
}

/// Frames on their way, and where their rows go.
pub(crate) struct Frames {
    emitter: Emitter,
    pending: VecDeque<Arrival>,
    pub(crate) summary: Summary,
}

impl Frames {
    pub(crate) fn declare(probe: &Probe) -> Result<Self, TableError> {
        use ColumnType::{Bool, I64, U64};
        let table = Table::new("frames", "each frame received; t_ns is the instant of its last byte")
            .column("seq", U64, "1", "number of the frame since the start of the client")
            .column("received_ns", I64, "ns", "instant after the last byte was read from the socket")
            .column("mm_time_ms", U64, "ms", "the server's multimedia clock in the frame's header")
            .column("size_bytes", U64, "B", "the access unit, without headers")
            .column("keyframe", Bool, "", "decoding can start here, as far as the first bytes tell")
            .column("decode_start_ns", I64, "ns", "instant at which the decoder took it; 0 if it never did")
            .column("decode_ns", I64, "ns", "time in the decoder")
            .column("queue_before", U64, "1", "frames that waited for the decoder when it arrived")
            .column("queue_after", U64, "1", "frames that waited when it was decoded")
            .column("presented_ns", I64, "ns", "instant at which the picture was there (headless: decoded; window: taken by the X server); 0 if never")
            .column("dropped", Bool, "", "it was never presented");
        Ok(Self {
            emitter: probe.declare(table, CAPACITY)?,
            pending: VecDeque::new(),
            summary: Summary::default(),
        })
    }

    /// A frame came.
    pub(crate) fn arrived(&mut self, arrival: Arrival) {
        self.summary.received(arrival.received);
        self.pending.push_back(arrival);
    }

    /// A frame was presented; those before it whose pictures never came are dropped.
    pub(crate) fn presented(&mut self, seq: u64, fate: Fate) {
        while let Some(arrival) = self.pending.pop_front_if(|a| a.seq <= seq) {
            let fate = (arrival.seq == seq).then_some(fate);
            self.emit(&arrival, fate);
        }
    }

    /// Whatever is still on its way will not be presented.
    pub(crate) fn drop_pending(&mut self) {
        while let Some(arrival) = self.pending.pop_front() {
            self.emit(&arrival, None);
        }
    }

    /// A frame that was not even handed to a decoder.
    pub(crate) fn drop_now(&mut self, arrival: Arrival) {
        self.drop_pending();
        self.summary.received(arrival.received);
        self.emit(&arrival, None);
    }

    fn emit(&mut self, arrival: &Arrival, fate: Option<Fate>) {
        let (start, decode, after, presented) = fate.map_or((0, 0, 0, 0), |f| {
            (f.decode_start.0, f.decoded.0 - f.decode_start.0, f.queue_after as u64, f.presented.0)
        });
        match fate {
            Some(f) => self.summary.presented(arrival.received, f.decode_start, f.decoded, f.presented),
            None => self.summary.dropped(),
        }
        self.emitter.emit(
            arrival.received,
            &[
                Value::U64(arrival.seq),
                Value::I64(arrival.received.0),
                Value::U64(arrival.mm_time_ms.into()),
                Value::U64(arrival.size_bytes as u64),
                Value::Bool(arrival.keyframe),
                Value::I64(start),
                Value::I64(decode),
                Value::U64(arrival.queue_before as u64),
                Value::U64(after),
                Value::I64(presented),
                Value::Bool(fate.is_none()),
            ],
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival(seq: u64) -> Arrival {
        Arrival {
            seq,
            received: Nanos(seq as i64 * 10),
            mm_time_ms: 0,
            size_bytes: 5,
            keyframe: false,
            queue_before: 0,
        }
    }

    #[test]
    fn every_frame_gets_one_row_in_order_whatever_becomes_of_it() {
        let probe = Probe::new();
        let mut frames = Frames::declare(&probe).unwrap();
        for seq in 0..4 {
            frames.arrived(arrival(seq));
        }
        let at = Nanos(100);
        frames.presented(1, Fate { decode_start: at, decoded: at, queue_after: 0, presented: at });
        frames.presented(1, Fate { decode_start: at, decoded: at, queue_after: 0, presented: at });
        frames.drop_now(arrival(4));
        frames.drop_pending();
        let mut rows = Vec::new();
        probe
            .drain()
            .poll(|b| rows.extend(b.words.chunks(12).map(|r| (r[1], r[11] != 0)).collect::<Vec<_>>()));
        assert_eq!(rows, [(0, true), (1, false), (2, true), (3, true), (4, true)]);
    }
}
