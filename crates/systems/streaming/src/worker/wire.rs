//! Messages between the guest and its encoder's process over a Unix stream socket.
//!
//! `u32 length of what follows | u8 type | payload`, little-endian. Both ends are one program, but an encoder that
//! overruns its memory may write anything here, so everything is capped and checked.

use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::encode::{EncoderSettings, InForce, Rates, Unit};
use crate::frame::FrameSize;

/// Largest access unit: what one DATA message of the stream device may carry (`spice/stream-device.h` users cap it
/// at 32 MiB).
pub(super) const MAX_UNIT: usize = 32 << 20;
/// Largest description of settings, ready or failure.
const MAX_TEXT: usize = 1 << 20;

const CONFIGURE: u8 = 1;
const FRAME: u8 = 2;
const READY: u8 = 3;
const UNIT: u8 = 4;
const FAILED: u8 = 5;
const CHANGE: u8 = 6;

/// What the guest says first, together with the descriptor of the frame pool.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Configure {
    pub settings: EncoderSettings,
    pub size: FrameSize,
    pub slots: usize,
}

/// Why the encoder could not start or go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub reason: String,
    pub missing: bool,
    pub usage: bool,
}

/// Any message.
#[derive(Debug)]
pub(super) enum Message {
    Configure(Box<Configure>),
    Frame {
        slot: u32,
        id: u64,
        force_keyframe: bool,
    },
    /// From the guest; answered with `Ready` or `Failed`.
    Change(Rates),
    Ready(InForce),
    Unit(Unit),
    Failed(Failure),
}

/// What cannot have been said by a sound peer.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum WireError {
    /// Larger than any message of its type.
    #[error("a message of {0} bytes")]
    TooLong(usize),
    /// No such type.
    #[error("a message of unknown type {0}")]
    Type(u8),
    /// Payload does not fit the type.
    #[error("a garbled message of type {0}")]
    Garbled(u8),
}

impl Message {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; 5];
        let json =
            |out: &mut Vec<u8>, result: serde_json::Result<Vec<u8>>| out.extend(result.unwrap_or_default());
        out[4] = match self {
            Self::Configure(configure) => {
                json(&mut out, serde_json::to_vec(configure));
                CONFIGURE
            }
            Self::Frame { slot, id, force_keyframe } => {
                out.extend(slot.to_le_bytes());
                out.extend(id.to_le_bytes());
                out.push((*force_keyframe).into());
                FRAME
            }
            Self::Change(rates) => {
                json(&mut out, serde_json::to_vec(rates));
                CHANGE
            }
            Self::Ready(in_force) => {
                json(&mut out, serde_json::to_vec(in_force));
                READY
            }
            Self::Unit(unit) => {
                out.reserve(9 + unit.data.len());
                out.extend(unit.id.to_le_bytes());
                out.push(unit.keyframe.into());
                out.extend(&unit.data);
                UNIT
            }
            Self::Failed(failure) => {
                json(&mut out, serde_json::to_vec(failure));
                FAILED
            }
        };
        let length = (out.len() - 4) as u32;
        out[..4].copy_from_slice(&length.to_le_bytes());
        out
    }

    fn decode(kind: u8, payload: &[u8]) -> Result<Self, WireError> {
        let garbled = WireError::Garbled(kind);
        let from_json = |_| WireError::Garbled(kind);
        match (kind, payload) {
            (CONFIGURE, _) => Ok(Self::Configure(serde_json::from_slice(payload).map_err(from_json)?)),
            (READY, _) => Ok(Self::Ready(serde_json::from_slice(payload).map_err(from_json)?)),
            (CHANGE, _) => Ok(Self::Change(serde_json::from_slice(payload).map_err(from_json)?)),
            (FAILED, _) => Ok(Self::Failed(serde_json::from_slice(payload).map_err(from_json)?)),
            (FRAME, [s0, s1, s2, s3, id @ .., flag @ (0 | 1)]) => Ok(Self::Frame {
                slot: u32::from_le_bytes([*s0, *s1, *s2, *s3]),
                id: u64::from_le_bytes(id.try_into().map_err(|_| garbled)?),
                force_keyframe: *flag == 1,
            }),
            (UNIT, _) => {
                let (id, rest) = payload.split_first_chunk::<8>().ok_or(WireError::Garbled(kind))?;
                let (flag @ (0 | 1), data) = rest.split_first().ok_or(WireError::Garbled(kind))? else {
                    return Err(garbled);
                };
                Ok(Self::Unit(Unit {
                    id: u64::from_le_bytes(*id),
                    keyframe: *flag == 1,
                    data: data.to_vec(),
                }))
            }
            (CONFIGURE..=CHANGE, _) => Err(garbled),
            (other, _) => Err(WireError::Type(other)),
        }
    }
}

/// Puts messages together from bytes as they come.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    start: usize,
}

impl Inbox {
    /// Reads once from `source`; `Ok(0)` is its end.
    pub(super) fn fill(&mut self, mut source: impl Read) -> io::Result<usize> {
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
        }
        let mut chunk = [0; 65_536];
        let n = source.read(&mut chunk)?;
        self.bytes.extend_from_slice(&chunk[..n]);
        Ok(n)
    }

    /// The next whole message, when it is there.
    ///
    /// # Errors
    /// What came is no message; nothing more can be understood.
    pub(super) fn next(&mut self) -> Result<Option<Message>, WireError> {
        let waiting = &self.bytes[self.start..];
        let Some((header, rest)) = waiting.split_first_chunk::<5>() else { return Ok(None) };
        let [a, b, c, d, kind] = *header;
        let length = u32::from_le_bytes([a, b, c, d]) as usize;
        let most = match kind {
            UNIT => MAX_UNIT + 10,
            FRAME => 14,
            CONFIGURE | READY | FAILED | CHANGE => MAX_TEXT,
            other => return Err(WireError::Type(other)),
        };
        if length == 0 || length > most {
            return Err(WireError::TooLong(length));
        }
        let Some(payload) = rest.get(..length - 1) else { return Ok(None) };
        let message = Message::decode(kind, payload)?;
        self.start += 4 + length;
        if self.start > 1 << 20 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(mut inbox: Inbox, mut bytes: &[u8], step: usize) -> Result<Vec<Message>, WireError> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(step.min(bytes.len()));
            inbox.fill(now).unwrap();
            bytes = later;
            while let Some(message) = inbox.next()? {
                messages.push(message);
            }
        }
        Ok(messages)
    }

    proptest! {
        #[test]
        fn messages_come_back_whole_however_they_are_cut(
            id: u64, key: bool, slot: u32, data in proptest::collection::vec(any::<u8>(), 0..300), step in 1usize..70,
        ) {
            let unit = Unit { id, keyframe: key, data };
            let mut bytes = Message::Unit(unit.clone()).encode();
            bytes.extend(Message::Frame { slot, id, force_keyframe: key }.encode());
            let messages = all(Inbox::default(), &bytes, step).unwrap();
            prop_assert_eq!(messages.len(), 2);
            prop_assert!(matches!(&messages[0], Message::Unit(u) if *u == unit));
            let Message::Frame { slot: s, id: i, force_keyframe: k } = messages[1] else {
                return Err(TestCaseError::fail("not a frame"));
            };
            prop_assert_eq!((s, i, k), (slot, id, key));
        }

        #[test]
        fn any_bytes_give_messages_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = all(Inbox::default(), &bytes, 50);
        }
    }

    #[test]
    fn lengths_beyond_the_caps_are_refused_before_anything_is_kept() {
        for (length, kind) in [(u32::MAX, UNIT), (0, UNIT), (100, FRAME), (2 << 20, READY), (5, 77)] {
            let mut bytes = length.to_le_bytes().to_vec();
            bytes.push(kind);
            assert!(all(Inbox::default(), &bytes, 5).is_err(), "{length} {kind}");
        }
    }
}
