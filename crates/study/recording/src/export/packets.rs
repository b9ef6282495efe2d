//! Writes the few messages of a Perfetto trace that are needed here.
//!
//! Fields and numbers are those of `perfetto.protos.Trace` (protos/perfetto/trace/trace_packet.proto and
//! track_event/*.proto of Perfetto), which are kept stable. All packets are one sequence, nothing is interned, and
//! time stamps are nanoseconds of the collector's clock.

use std::io::{self, Write};
use std::path::Path;

use super::output::Output;

/// Packets are handed to the operating system in pieces of this size.
const PIECE: usize = 256 << 10;

/// A message of Protocol Buffers.
#[derive(Default)]
struct Message(Vec<u8>);

fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

impl Message {
    fn number(&mut self, field: u32, value: u64) -> &mut Self {
        varint(&mut self.0, u64::from(field) << 3);
        varint(&mut self.0, value);
        self
    }

    fn fixed(&mut self, field: u32, value: u64) -> &mut Self {
        varint(&mut self.0, u64::from(field) << 3 | 1);
        self.0.extend(value.to_le_bytes());
        self
    }

    fn bytes(&mut self, field: u32, value: &[u8]) -> &mut Self {
        varint(&mut self.0, u64::from(field) << 3 | 2);
        varint(&mut self.0, value.len() as u64);
        self.0.extend(value);
        self
    }

    fn text(&mut self, field: u32, value: &str) -> &mut Self {
        self.bytes(field, value.as_bytes())
    }

    fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }
}

/// A value of a counter.
#[derive(Clone, Copy, Debug)]
pub(super) enum Value {
    I64(i64),
    F64(f64),
}

/// What happens on a track.
pub(super) enum What<'a> {
    /// A slice begins: its name, what is known of it, and the flow that it is part of.
    Begin(&'a str, &'a [(String, String)], Option<u64>),
    /// The slice that began last on this track ends.
    End,
    /// Something without a duration.
    Instant(&'a str, &'a [(String, String)]),
    Counter(Value),
}

/// A track, by its number in the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Track(u64);

/// A trace being written.
pub(super) struct Packets {
    output: Output,
    waiting: Vec<u8>,
    count: u64,
    tracks: u64,
    processes: u64,
}

impl Packets {
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        Ok(Self { output: Output::create(path)?, waiting: Vec::new(), count: 0, tracks: 0, processes: 0 })
    }

    fn packet(&mut self, packet: &mut Message) -> io::Result<()> {
        // trusted_packet_sequence_id; the first of a sequence clears what was known of it before.
        packet.number(10, 1);
        if self.count == 0 {
            packet.number(13, 1);
        }
        self.count += 1;
        varint(&mut self.waiting, 1 << 3 | 2);
        varint(&mut self.waiting, packet.0.len() as u64);
        self.waiting.extend(&packet.0);
        if self.waiting.len() >= PIECE {
            self.output.write_all(&self.waiting)?;
            self.waiting.clear();
        }
        Ok(())
    }

    fn describe(&mut self, descriptor: &mut Message) -> io::Result<Track> {
        self.tracks += 1;
        descriptor.number(1, self.tracks);
        let mut packet = Message::default();
        packet.message(60, descriptor);
        self.packet(&mut packet)?;
        Ok(Track(self.tracks))
    }

    /// A group of tracks, shown as a process with labels.
    pub(super) fn process(&mut self, name: &str, labels: &[String]) -> io::Result<Track> {
        self.processes += 1;
        let mut process = Message::default();
        process.number(1, self.processes).text(6, name);
        for label in labels {
            process.text(8, label);
        }
        let mut descriptor = Message::default();
        self.describe(descriptor.text(2, name).message(3, &process))
    }

    /// A track of slices and instants.
    pub(super) fn track(&mut self, parent: Track, name: &str, description: &str) -> io::Result<Track> {
        let mut descriptor = Message::default();
        self.describe(descriptor.text(2, name).number(5, parent.0).text(14, description))
    }

    /// A track of numbers.
    pub(super) fn counter(
        &mut self,
        parent: Track,
        name: &str,
        unit: &str,
        description: &str,
    ) -> io::Result<Track> {
        let mut counter = Message::default();
        match unit {
            "ns" => counter.number(3, 1),
            "1" => counter.number(3, 2),
            "B" => counter.number(3, 3),
            "" => &mut counter,
            other => counter.text(6, other),
        };
        let mut descriptor = Message::default();
        self.describe(descriptor.text(2, name).number(5, parent.0).message(8, &counter).text(14, description))
    }

    /// Something on a track.
    pub(super) fn event(&mut self, track: Track, t_ns: u64, what: &What<'_>) -> io::Result<()> {
        let mut event = Message::default();
        event.number(11, track.0);
        let notes = match what {
            What::Begin(name, notes, flow) => {
                event.number(9, 1).text(23, name);
                if let Some(flow) = flow {
                    event.fixed(47, *flow);
                }
                *notes
            }
            What::End => {
                event.number(9, 2);
                &[]
            }
            What::Instant(name, notes) => {
                event.number(9, 3).text(23, name);
                *notes
            }
            What::Counter(value) => {
                match value {
                    Value::I64(v) => event.number(9, 4).number(30, *v as u64),
                    Value::F64(v) => event.number(9, 4).fixed(44, v.to_bits()),
                };
                &[]
            }
        };
        for (name, value) in notes {
            let mut note = Message::default();
            event.message(4, note.text(10, name).text(6, value));
        }
        let mut packet = Message::default();
        self.packet(packet.number(8, t_ns).message(11, &event))
    }

    /// Puts the trace on the disk; gives packets and bytes.
    pub(super) fn finish(mut self) -> io::Result<(u64, u64)> {
        self.output.write_all(&self.waiting)?;
        Ok((self.count, self.output.finish()?))
    }
}
