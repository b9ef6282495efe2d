//! Raw frames: size, layout in memory, and the slots they pass through on their way to the encoder.
//!
//! A raw frame is always BGRx: 4 bytes a pixel (blue, green, red, unused), rows from the top without padding.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::memory::{MemoryError, SharedMemory};

/// Bytes of one BGRx pixel.
pub const BYTES_PER_PIXEL: usize = 4;
/// Smallest width and height: encoders refuse less than 16 (`x265enc`, `x264enc` pad templates).
pub const MIN_SIDE: u32 = 16;
/// Largest width and height: a 7680x4320 screen fits; with 4 slots the pool stays below 1 GiB.
pub const MAX_SIDE: u32 = 8192;

/// Width and height of a frame in pixels; both even (4:2:0 chroma) and within [`MIN_SIDE`]..=[`MAX_SIDE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawSize", into = "RawSize")]
pub struct FrameSize {
    width: u32,
    height: u32,
}

#[derive(Serialize, Deserialize)]
struct RawSize {
    width: u32,
    height: u32,
}

impl TryFrom<RawSize> for FrameSize {
    type Error = SizeError;
    fn try_from(raw: RawSize) -> Result<Self, SizeError> {
        Self::new(raw.width, raw.height)
    }
}

impl From<FrameSize> for RawSize {
    fn from(size: FrameSize) -> Self {
        Self { width: size.width, height: size.height }
    }
}

impl FrameSize {
    /// A checked size.
    ///
    /// # Errors
    /// A side is odd or out of range.
    pub fn new(width: u32, height: u32) -> Result<Self, SizeError> {
        let valid = |side: u32| (MIN_SIDE..=MAX_SIDE).contains(&side) && side.is_multiple_of(2);
        if valid(width) && valid(height) {
            Ok(Self { width, height })
        } else {
            Err(SizeError::Range(width, height))
        }
    }

    /// Pixels in a row.
    pub fn width(self) -> u32 {
        self.width
    }

    /// Rows.
    pub fn height(self) -> u32 {
        self.height
    }

    /// Bytes of one row.
    pub fn stride(self) -> usize {
        self.width as usize * BYTES_PER_PIXEL
    }

    /// Bytes of one frame.
    pub fn bytes(self) -> usize {
        self.stride() * self.height as usize
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.width, self.height)
    }
}

impl FromStr for FrameSize {
    type Err = SizeError;

    fn from_str(s: &str) -> Result<Self, SizeError> {
        let (width, height) = s.split_once('x').ok_or_else(|| SizeError::Syntax(s.into()))?;
        match (width.parse(), height.parse()) {
            (Ok(width), Ok(height)) => Self::new(width, height),
            _ => Err(SizeError::Syntax(s.into())),
        }
    }
}

/// Why something is no frame size.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SizeError {
    /// Not `WxH`.
    #[error("'{0}' is not a size: write it as WIDTHxHEIGHT, for instance 640x360")]
    Syntax(String),
    /// Odd or out of range.
    #[error("size {0}x{1} cannot be encoded: both sides must be even and from {MIN_SIDE} to {MAX_SIDE}")]
    Range(u32, u32),
}

/// Frames in shared memory: written by a source, read by the encoder's process.
///
/// Who may touch a slot is decided by messages, not by the pool: a slot belongs to the guest until it hands it over,
/// and again once the encoder has given the unit of that frame.
#[derive(Debug)]
pub struct FramePool {
    memory: SharedMemory,
    size: FrameSize,
    slots: usize,
}

impl FramePool {
    /// Allocates `slots` frames of `size` in a sealed memory file.
    ///
    /// # Errors
    /// The kernel has no memory to give.
    pub fn new(size: FrameSize, slots: usize) -> Result<Self, MemoryError> {
        Ok(Self { memory: SharedMemory::create("triptych-frames", size.bytes() * slots)?, size, slots })
    }

    /// Maps a pool that another process made, for reading.
    ///
    /// # Errors
    /// The file is smaller than the pool it is said to be, or not sealed.
    pub fn open(fd: std::os::fd::OwnedFd, size: FrameSize, slots: usize) -> Result<Self, MemoryError> {
        Ok(Self { memory: SharedMemory::open(fd, size.bytes().saturating_mul(slots))?, size, slots })
    }

    /// Size of each frame.
    pub fn size(&self) -> FrameSize {
        self.size
    }

    /// Number of slots.
    pub fn slots(&self) -> usize {
        self.slots
    }

    /// The memory below, to hand to another process.
    pub fn memory(&self) -> &SharedMemory {
        &self.memory
    }

    /// Where slot `slot` starts in [`FramePool::memory`].
    ///
    /// # Panics
    /// There is no such slot.
    pub fn offset(&self, slot: usize) -> usize {
        assert!(slot < self.slots, "slot {slot} of {}", self.slots);
        slot * self.size.bytes()
    }

    /// Copies a whole frame into a slot.
    ///
    /// # Panics
    /// There is no such slot, or `frame` is not one frame long.
    pub fn write(&mut self, slot: usize, frame: &[u8]) {
        assert_eq!(frame.len(), self.size.bytes());
        self.memory.write(self.offset(slot), frame);
    }

    /// Copies a whole frame out of a slot.
    ///
    /// # Panics
    /// There is no such slot, or `frame` is not one frame long.
    pub fn read(&self, slot: usize, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.size.bytes());
        self.memory.read(self.offset(slot), frame);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_parse_or_say_what_is_wrong() {
        assert_eq!("640x360".parse::<FrameSize>().unwrap().to_string(), "640x360");
        for (text, part) in [
            ("640", "not a size"),
            ("640x", "not a size"),
            ("-2x4", "not a size"),
            ("641x360", "even"),
            ("8x8", "from 16"),
            ("640x9000", "8192"),
        ] {
            let message = text.parse::<FrameSize>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }

    #[test]
    fn a_size_out_of_range_is_refused_from_json_too() {
        assert!(serde_json::from_str::<FrameSize>(r#"{"width":64,"height":64}"#).is_ok());
        assert!(serde_json::from_str::<FrameSize>(r#"{"width":4294967295,"height":64}"#).is_err());
    }

    #[test]
    fn another_mapping_of_the_pool_sees_the_frame() {
        let size = FrameSize::new(16, 16).unwrap();
        let mut pool = FramePool::new(size, 2).unwrap();
        let frame: Vec<u8> = (0..size.bytes()).map(|i| i as u8).collect();
        pool.write(1, &frame);
        let other = FramePool::open(pool.memory().duplicate().unwrap(), size, 2).unwrap();
        let mut seen = vec![0; size.bytes()];
        other.read(1, &mut seen);
        assert_eq!(seen, frame);
        assert!(FramePool::open(pool.memory().duplicate().unwrap(), size, 3).is_err());
    }
}
