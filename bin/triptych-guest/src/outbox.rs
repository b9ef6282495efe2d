//! Messages on their way into the port: whole, in order, and never many.

use std::collections::VecDeque;

use spice::stream_device::{Kind, Message, header};
use streaming::encode::Unit;
use units::{Clock, MonotonicClock, Nanos};

use crate::frames::Shot;
use crate::port::Port;

/// A frame whose last byte went into the port.
pub(crate) struct Sent {
    /// What is known of it from before.
    pub(crate) shot: Shot,
    /// Whether decoding can start there.
    pub(crate) keyframe: bool,
    /// Bytes of the access unit.
    pub(crate) size: usize,
    /// When the first byte was written.
    pub(crate) start: Nanos,
    /// When the last byte was written.
    pub(crate) end: Nanos,
}

struct Letter {
    bytes: Vec<u8>,
    written: usize,
    start: Nanos,
    frame: Option<(Shot, bool, usize)>,
}

/// The queue. A message of which a byte is written is always finished.
#[derive(Default)]
pub(crate) struct Outbox(VecDeque<Letter>);

impl Outbox {
    /// Puts a message behind the others.
    pub(crate) fn push(&mut self, message: &Message) {
        self.0.push_back(Letter { bytes: message.encode(), written: 0, start: Nanos::ZERO, frame: None });
    }

    /// Puts an encoded frame behind the others.
    pub(crate) fn push_frame(&mut self, shot: Shot, unit: Unit) {
        let mut bytes = header(Kind::Data, unit.data.len() as u32).to_vec();
        bytes.extend_from_slice(&unit.data);
        let frame = Some((shot, unit.keyframe, unit.data.len()));
        self.0.push_back(Letter { bytes, written: 0, start: Nanos::ZERO, frame });
    }

    /// Frames waiting or half written.
    pub(crate) fn frames(&self) -> usize {
        self.0.iter().filter(|letter| letter.frame.is_some()).count()
    }

    /// Whether there is nothing to write.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a message has been written in part.
    pub(crate) fn is_halfway(&self) -> bool {
        self.0.front().is_some_and(|letter| letter.written > 0)
    }

    /// Takes back the frames of which nothing is written; gives the ticks without a frame that come of it.
    pub(crate) fn withdraw_frames(&mut self) -> u64 {
        let mut ticks = 0;
        self.0.retain(|letter| {
            let kept = letter.frame.is_none() || letter.written > 0;
            ticks += if kept { 0 } else { letter.frame.as_ref().map_or(0, |(shot, ..)| 1 + shot.skipped) };
            kept
        });
        ticks
    }

    /// Takes back everything of which nothing is written.
    pub(crate) fn withdraw_all(&mut self) {
        self.0.retain(|letter| letter.written > 0);
    }

    /// Writes until the port is blocked or nothing is left; tells each frame that is through.
    pub(crate) fn flush(&mut self, port: &mut Port, mut each: impl FnMut(Sent)) -> anyhow::Result<()> {
        while let Some(letter) = self.0.front_mut() {
            if letter.written == 0 {
                letter.start = MonotonicClock.now();
            }
            let Some(n) = port.write(&letter.bytes[letter.written..])? else { return Ok(()) };
            letter.written += n;
            if letter.written < letter.bytes.len() {
                continue;
            }
            if let Some(Letter { start, frame: Some((shot, keyframe, size)), .. }) = self.0.pop_front() {
                each(Sent { shot, keyframe, size, start, end: MonotonicClock.now() });
            }
        }
        Ok(())
    }
}
