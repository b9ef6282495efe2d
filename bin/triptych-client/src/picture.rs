//! One stream's way from the access unit to the picture: decoder, window, rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use spice::client::StreamFrame;
use spice::messages::StreamCreate;
use streaming::bitstream::is_keyframe;
use streaming::codec::Codec;
use streaming::decode::{DecodeError, Decoded, Decoder, Pixels};
use streaming::present::{PresentError, Window, WindowEvent};
use units::{Clock, MonotonicClock};

use crate::frames::{Arrival, Fate, Frames};

/// What the decoder's thread and the receiving thread share.
pub(crate) struct Shared {
    pub(crate) frames: Frames,
    window: Option<Window>,
    window_lost: Option<PresentError>,
    presented: u64,
}

pub(crate) fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn new(frames: Frames) -> Arc<Mutex<Self>> {
        Arc::new(Mutex::new(Self { frames, window: None, window_lost: None, presented: 0 }))
    }

    /// Looks at the window: closed by the person, or lost?
    pub(crate) fn poll_window(&mut self) -> Result<Option<WindowEvent>, PresentError> {
        match (self.window_lost.take(), &mut self.window) {
            (Some(error), _) => Err(error),
            (None, Some(window)) => window.poll(),
            (None, None) => Ok(None),
        }
    }

    /// Frames presented so far.
    pub(crate) fn presented(&self) -> u64 {
        self.presented
    }

    fn show(&mut self, picture: &Decoded<'_>) {
        let presented = match &mut self.window {
            None => MonotonicClock.now(),
            Some(window) => {
                let shown = picture
                    .plane()
                    .map_err(|e| PresentError::Lost(e.to_string()))
                    .and_then(|(pixels, stride)| window.show(picture.size(), pixels, stride));
                match shown {
                    Ok(at) => at,
                    Err(error) => {
                        self.window_lost.get_or_insert(error);
                        return;
                    }
                }
            }
        };
        self.presented += 1;
        let (decode_start, decoded, queue_after) =
            (picture.decode_start, picture.decoded_at, picture.waiting);
        self.frames.presented(picture.id, Fate { decode_start, decoded, queue_after, presented });
    }
}

/// A stream being decoded.
pub(crate) struct Picture {
    pub(crate) create: StreamCreate,
    codec: Codec,
    pixels: Pixels,
    decoder: Decoder,
    shared: Arc<Mutex<Shared>>,
    awaits_keyframe: bool,
    restarts: u32,
}

impl Picture {
    /// Starts a decoder for a stream, and the window when there is to be one and it is not open yet.
    pub(crate) fn open(
        create: StreamCreate,
        display: Option<&str>,
        shared: &Arc<Mutex<Shared>>,
    ) -> anyhow::Result<Self> {
        let number = create.codec.to_wire();
        let codec =
            Codec::from_spice_type(number).ok_or_else(|| anyhow::anyhow!("stream with codec {number}"))?;
        let pixels = if display.is_some() { Pixels::Bgrx } else { Pixels::AsDecoded };
        if let Some(display) = display {
            let mut shared = locked(shared);
            if shared.window.is_none() {
                shared.window = Some(Window::open(display, "triptych", (create.width, create.height))?);
            }
        }
        let decoder = decoder(codec, &create, pixels, shared)?;
        let shared = Arc::clone(shared);
        Ok(Self { create, codec, pixels, decoder, shared, awaits_keyframe: true, restarts: 0 })
    }

    /// A frame came: hands it to the decoder, or drops it while a keyframe is awaited. False when it was dropped.
    pub(crate) fn take(&mut self, seq: u64, frame: StreamFrame) -> Result<bool, DecodeError> {
        let arrival = Arrival {
            seq,
            received: frame.received_at,
            mm_time_ms: frame.mm_time,
            size_bytes: frame.data.len(),
            keyframe: is_keyframe(self.codec, &frame.data),
            queue_before: self.decoder.waiting(),
        };
        if let Some(reason) = self.decoder.failure() {
            // A broken stream must not end the session: a new decoder goes on at the next keyframe.
            self.restarts += 1;
            tracing::warn!("the decoder failed ({reason}); starting another, number {}", self.restarts + 1);
            locked(&self.shared).frames.drop_pending();
            self.decoder = decoder(self.codec, &self.create, self.pixels, &self.shared)?;
            self.awaits_keyframe = true;
        }
        if self.awaits_keyframe && !arrival.keyframe {
            locked(&self.shared).frames.drop_now(arrival);
            return Ok(false);
        }
        self.awaits_keyframe = false;
        locked(&self.shared).frames.arrived(arrival);
        match self.decoder.push(seq, frame.data) {
            Ok(()) => Ok(true),
            Err(error) => {
                tracing::debug!("frame {seq}: {error}");
                self.awaits_keyframe = true;
                Ok(false)
            }
        }
    }

    /// Frames in the decoder.
    pub(crate) fn waiting(&self) -> usize {
        if self.decoder.failure().is_some() { 0 } else { self.decoder.waiting() }
    }

    /// The decoder's element and the versions of its parts.
    pub(crate) fn versions(&self) -> (String, std::collections::BTreeMap<String, String>) {
        self.decoder.versions()
    }
}

fn decoder(
    codec: Codec,
    create: &StreamCreate,
    pixels: Pixels,
    shared: &Arc<Mutex<Shared>>,
) -> Result<Decoder, DecodeError> {
    let shared = Arc::clone(shared);
    Decoder::open(codec, (create.width, create.height), pixels, move |picture| locked(&shared).show(&picture))
}
