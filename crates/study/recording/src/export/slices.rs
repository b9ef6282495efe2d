//! Slices that overlap: a track of a trace holds only slices that are nested, so each goes where there is room.

use std::io;

use super::packets::{Packets, Track};

/// Most tracks for slices of one kind: more frames than this are never under way at once.
const MAX_LANES: usize = 64;

/// Tracks of one name, shown as one group.
pub(super) struct Lanes {
    parent: Track,
    name: String,
    description: String,
    /// Each with the end of its last slice.
    lanes: Vec<(Track, u64)>,
    /// Slices for which there was no room.
    pub(super) dropped: u64,
}

impl Lanes {
    pub(super) fn new(parent: Track, name: &str, description: &str) -> Self {
        let (name, description) = (name.to_owned(), description.to_owned());
        Self { parent, name, description, lanes: Vec::new(), dropped: 0 }
    }

    /// The track that is free from `start` to `end`, nanoseconds; made where there is none.
    pub(super) fn place(&mut self, packets: &mut Packets, start: u64, end: u64) -> io::Result<Option<Track>> {
        if let Some((track, last)) = self.lanes.iter_mut().find(|(_, last)| *last <= start) {
            *last = end;
            return Ok(Some(*track));
        }
        if self.lanes.len() >= MAX_LANES {
            self.dropped += 1;
            return Ok(None);
        }
        let track = packets.track(self.parent, &self.name, &self.description)?;
        self.lanes.push((track, end));
        Ok(Some(track))
    }
}
