//! Messages out of a stream of bytes, in either direction.

use crate::wire::{MAX_MESSAGE, Message, PREAMBLE, WireError};

/// Puts messages together from chunks of any size. Memory grows with bytes received, never with bytes announced.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    start: usize,
    begun: bool,
}

impl Decoder {
    /// Empty.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a chunk in.
    pub fn push(&mut self, chunk: &[u8]) {
        if self.start > 0 && self.start == self.buffer.len() {
            self.buffer.clear();
            self.start = 0;
        } else if self.start > 1 << 20 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        // The preamble may lie across two chunks.
        let from = self.buffer.len().saturating_sub(PREAMBLE.len() - 1);
        self.buffer.extend_from_slice(chunk);
        let found = memchr::memmem::rfind(&self.buffer[from..], &PREAMBLE);
        if let Some(at) = found {
            self.buffer.drain(..from + at + PREAMBLE.len());
            self.start = 0;
            self.begun = true;
        }
    }

    /// True once when the other side has begun, or begun anew: messages from before are gone.
    pub fn take_begun(&mut self) -> bool {
        std::mem::take(&mut self.begun)
    }

    /// Throws away what came before a side has begun.
    pub fn forget(&mut self) {
        let keep = self.buffer.len().min(PREAMBLE.len() - 1);
        self.buffer.drain(..self.buffer.len() - keep);
        self.start = 0;
    }

    /// The next message, or `None` until more bytes have come.
    ///
    /// # Errors
    /// The bytes are not this protocol; nothing after an error means anything.
    pub fn next_message(&mut self) -> Result<Option<Message>, WireError> {
        let rest = &self.buffer[self.start..];
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > MAX_MESSAGE {
            return Err(WireError::Size(length));
        }
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = Message::decode(body[0], &body[1..])?;
        self.start += 4 + length;
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn absurd_lengths_are_refused_before_anything_is_kept() {
        let mut decoder = Decoder::new();
        decoder.push(&u32::MAX.to_le_bytes());
        assert!(matches!(decoder.next_message(), Err(WireError::Size(_))));
    }

    proptest! {
        #[test]
        fn whoever_begins_anew_is_understood_whatever_came_before(
            torn in prop::collection::vec(any::<u8>(), 0..200), step in 1usize..90,
        ) {
            let bytes = [&torn[..], &PREAMBLE, &Message::Ping { id: 7 }.encode()].concat();
            let (mut decoder, mut seen, mut begun) = (Decoder::new(), Vec::new(), 0);
            for chunk in bytes.chunks(step) {
                decoder.push(chunk);
                begun += u32::from(decoder.take_begun());
                if begun == 0 {
                    decoder.forget();
                    continue;
                }
                while let Some(message) = decoder.next_message().unwrap() {
                    seen.push(message);
                }
            }
            prop_assert_eq!((begun, seen), (1, vec![Message::Ping { id: 7 }]));
        }
    }
}
