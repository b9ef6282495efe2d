//! Messages of the channels: numbers, layouts, bounds-checked decoding. Source: `spice.proto` of spice-common.
//!
//! Only what a streaming client needs has a type; everything else is skipped by its length.

use crate::ProtocolError;
use crate::stream_device::{MAX_SIDE, VideoCodec};
use crate::wire::{Reader, Writer};

/// Numbers of messages from the server.
pub mod server {
    /// `{u32 generation, u32 window}`.
    pub const SET_ACK: u16 = 3;
    /// `{u32 id, u64 timestamp, u8 data[]}`.
    pub const PING: u16 = 4;
    /// `{u64 timestamp, u32 reason}`.
    pub const DISCONNECTING: u16 = 6;
    /// `{u64 timestamp, u32 severity, u32 visibility, u32 what, u32 length, u8 text[]}`.
    pub const NOTIFY: u16 = 7;
    /// Main: see [`super::MainInit`].
    pub const MAIN_INIT: u16 = 103;
    /// Main: see [`super::ChannelsList`].
    pub const MAIN_CHANNELS_LIST: u16 = 104;
    /// Main: `{u32 mm_time}`.
    pub const MAIN_MULTI_MEDIA_TIME: u16 = 106;
    /// Display: see [`super::StreamCreate`].
    pub const STREAM_CREATE: u16 = 122;
    /// Display: see [`super::StreamDataHeader`].
    pub const STREAM_DATA: u16 = 123;
    /// Display: `{u32 id}`.
    pub const STREAM_DESTROY: u16 = 125;
    /// Display: empty.
    pub const STREAM_DESTROY_ALL: u16 = 126;
    /// Display: see [`super::StreamDataHeader`].
    pub const STREAM_DATA_SIZED: u16 = 316;
    /// Display: see [`super::ActivateReport`].
    pub const STREAM_ACTIVATE_REPORT: u16 = 319;
}

/// Numbers of messages from the client.
pub mod client {
    /// `{u32 generation}`.
    pub const ACK_SYNC: u16 = 1;
    /// Empty.
    pub const ACK: u16 = 2;
    /// `{u32 id, u64 timestamp}`.
    pub const PONG: u16 = 3;
    /// Main: empty.
    pub const MAIN_ATTACH_CHANNELS: u16 = 104;
    /// Display: see [`super::display_init`].
    pub const DISPLAY_INIT: u16 = 101;
    /// Display: see [`super::StreamReport`].
    pub const STREAM_REPORT: u16 = 102;
}

/// Length of the short header: `u16 type, u32 size`.
pub const MINI_HEADER_LEN: usize = 6;

/// A message with its short header.
pub fn frame(kind: u16, payload: &[u8]) -> Vec<u8> {
    Writer::default().u16(kind).u32(payload.len() as u32).bytes(payload).0
}

/// Type and size from a short header.
pub fn parse_header(header: &[u8; MINI_HEADER_LEN]) -> (u16, u32) {
    let kind = u16::from_le_bytes([header[0], header[1]]);
    (kind, u32::from_le_bytes([header[2], header[3], header[4], header[5]]))
}

macro_rules! plain {
    ($(#[$meta:meta])* $name:ident, $what:literal { $($(#[$fmeta:meta])* $field:ident: $kind:ident,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $kind,)* }
        impl $name {
            /// The payload, little-endian, in the order of the fields.
            pub fn encode(&self) -> Vec<u8> {
                Writer::default()$(.$kind(self.$field))*.0
            }
            /// Decodes a payload; bytes after the last field are ignored.
            ///
            /// # Errors
            /// Too short.
            pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
                let mut r = Reader::new(payload, $what);
                Ok(Self { $($field: r.$kind()?,)* })
            }
        }
    };
}

plain! {
    /// SET_ACK: acknowledge every `window` messages from now on.
    SetAck, "SET_ACK" {
        /// To be repeated in ACK_SYNC.
        generation: u32,
        /// Messages; 0 is no acknowledgement.
        window: u32,
    }
}
plain! {
    /// PING, without the ballast that may follow; PONG repeats it.
    Ping, "PING" {
        /// Number.
        id: u32,
        /// The server's clock.
        timestamp: u64,
    }
}
plain! {
    /// MAIN_INIT.
    MainInit, "MAIN_INIT" {
        /// Goes into the link message of further channels.
        session_id: u32,
        /// How many displays there may be.
        display_channels_hint: u32,
        /// Bits.
        supported_mouse_modes: u32,
        /// One of them.
        current_mouse_mode: u32,
        /// 0 or 1.
        agent_connected: u32,
        /// How many agent messages may be sent.
        agent_tokens: u32,
        /// The server's multimedia clock, in milliseconds.
        multi_media_time: u32,
        /// Bytes of video memory.
        ram_hint: u32,
    }
}
plain! {
    /// STREAM_ACTIVATE_REPORT: the server wants a report on a stream.
    ActivateReport, "STREAM_ACTIVATE_REPORT" {
        /// Stream.
        stream_id: u32,
        /// To be repeated in reports.
        unique_id: u32,
        /// Report after so many frames at the latest.
        max_window_size: u32,
        /// Report after so many milliseconds at the latest.
        timeout_ms: u32,
    }
}
plain! {
    /// STREAM_REPORT: how a stream arrived.
    StreamReport, "STREAM_REPORT" {
        /// Stream.
        stream_id: u32,
        /// From the activation.
        unique_id: u32,
        /// mm_time of the first frame reported on, in milliseconds.
        start_frame_mm_time: u32,
        /// mm_time of the last one.
        end_frame_mm_time: u32,
        /// Frames in between, both included.
        num_frames: u32,
        /// Frames that were not shown.
        num_drops: u32,
        /// How early (positive) or late (negative) the last frame came, in milliseconds.
        last_frame_delay: i32,
        /// Of the audio; `u32::MAX` without audio.
        audio_delay: u32,
    }
}

/// CHANNELS_LIST: `u32 count`, then `u8 type, u8 id` each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelsList(pub Vec<(u8, u8)>);

impl ChannelsList {
    /// The payload.
    pub fn encode(&self) -> Vec<u8> {
        self.0.iter().fold(Writer::default().u32(self.0.len() as u32), |w, (kind, id)| w.u8(*kind).u8(*id)).0
    }

    /// Decodes a payload.
    ///
    /// # Errors
    /// Fewer channels than announced.
    pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        let mut r = Reader::new(payload, "CHANNELS_LIST");
        let count = r.u32()? as usize;
        let pairs = r.take(count.saturating_mul(2))?;
        Ok(Self(pairs.chunks_exact(2).map(|p| (p[0], p[1])).collect()))
    }
}

/// DISPLAY_INIT: `u8 cache_id, i64 cache_size, u8 dictionary_id, i32 dictionary_size`. A client that decodes streams
/// only has no use for either, and says so with size 0.
pub fn display_init() -> Vec<u8> {
    Writer::default().u8(1).u64(0).u8(1).i32(0).0
}

/// A rectangle: `i32 top, left, bottom, right`, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rect {
    /// First row.
    pub top: i32,
    /// First column.
    pub left: i32,
    /// Row after the last.
    pub bottom: i32,
    /// Column after the last.
    pub right: i32,
}

impl Rect {
    fn read(r: &mut Reader<'_>) -> Result<Self, ProtocolError> {
        Ok(Self { top: r.i32()?, left: r.i32()?, bottom: r.i32()?, right: r.i32()? })
    }

    fn write(self, w: Writer) -> Writer {
        w.i32(self.top).i32(self.left).i32(self.bottom).i32(self.right)
    }
}

/// STREAM_CREATE, without its clip (which only says where the stream is covered).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamCreate {
    /// Surface that it is drawn on.
    pub surface_id: u32,
    /// Number of the stream.
    pub id: u32,
    /// Bit 0: top down.
    pub flags: u8,
    /// How its data is encoded.
    pub codec: VideoCodec,
    /// Not used.
    pub stamp: u64,
    /// Width of the stream, in pixels.
    pub width: u32,
    /// Height of the stream, in pixels.
    pub height: u32,
    /// Width of what was encoded.
    pub source_width: u32,
    /// Height of what was encoded.
    pub source_height: u32,
    /// Where it is shown.
    pub dest: Rect,
}

impl StreamCreate {
    /// The payload, with no clip.
    pub fn encode(&self) -> Vec<u8> {
        let w = Writer::default().u32(self.surface_id).u32(self.id).u8(self.flags).u8(self.codec.to_wire());
        let w =
            w.u64(self.stamp).u32(self.width).u32(self.height).u32(self.source_width).u32(self.source_height);
        self.dest.write(w).u8(0).0
    }

    /// Decodes a payload.
    ///
    /// # Errors
    /// Too short, an unknown codec, or a size that no codec has.
    pub fn decode(payload: &[u8]) -> Result<Self, ProtocolError> {
        let what = "STREAM_CREATE";
        let mut r = Reader::new(payload, what);
        let (surface_id, id, flags, codec) = (r.u32()?, r.u32()?, r.u8()?, r.u8()?);
        let codec = VideoCodec::from_wire(codec).ok_or(ProtocolError::Field {
            what,
            field: "codec",
            value: codec.into(),
        })?;
        let stamp = r.u64()?;
        let (width, height) = (side(what, "width", r.u32()?)?, side(what, "height", r.u32()?)?);
        let (source_width, source_height) = (r.u32()?, r.u32()?);
        Ok(Self {
            surface_id,
            id,
            flags,
            codec,
            stamp,
            width,
            height,
            source_width,
            source_height,
            dest: Rect::read(&mut r)?,
        })
    }
}

fn side(what: &'static str, field: &'static str, value: u32) -> Result<u32, ProtocolError> {
    if (1..=MAX_SIDE).contains(&value) {
        Ok(value)
    } else {
        Err(ProtocolError::Field { what, field, value: value.into() })
    }
}

/// What comes before the access unit in STREAM_DATA (12 bytes) and STREAM_DATA_SIZED (36 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamDataHeader {
    /// Number of the stream.
    pub id: u32,
    /// When to show it, on the server's multimedia clock, in milliseconds.
    pub mm_time: u32,
    /// Sized data only: width, height and place of this frame.
    pub sized: Option<(u32, u32, Rect)>,
    /// Bytes of the access unit.
    pub size: u32,
}

impl StreamDataHeader {
    /// Length before the access unit, in bytes.
    pub fn len(sized: bool) -> usize {
        if sized { 36 } else { 12 }
    }

    /// The fields before the access unit.
    pub fn encode(&self) -> Vec<u8> {
        let w = Writer::default().u32(self.id).u32(self.mm_time);
        let w = match self.sized {
            Some((width, height, dest)) => dest.write(w.u32(width).u32(height)),
            None => w,
        };
        w.u32(self.size).0
    }

    /// Decodes the fields; `message_size` is that of the header of the message.
    ///
    /// # Errors
    /// Too short, or an access unit that is not the rest of the message.
    pub fn decode(bytes: &[u8], sized: bool, message_size: u32) -> Result<Self, ProtocolError> {
        let what = if sized { "STREAM_DATA_SIZED" } else { "STREAM_DATA" };
        let mut r = Reader::new(bytes, what);
        let (id, mm_time) = (r.u32()?, r.u32()?);
        let sized = if sized {
            let (width, height) = (side(what, "width", r.u32()?)?, side(what, "height", r.u32()?)?);
            Some((width, height, Rect::read(&mut r)?))
        } else {
            None
        };
        let size = r.u32()?;
        if u64::from(size) + r.position() as u64 > u64::from(message_size) {
            return Err(ProtocolError::Field { what, field: "data_size", value: size.into() });
        }
        Ok(Self { id, mm_time, sized, size })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn plain_messages_survive_the_wire(a in any::<[u32; 8]>(), t in any::<u64>()) {
            let set_ack = SetAck { generation: a[0], window: a[1] };
            prop_assert_eq!(SetAck::decode(&set_ack.encode()).unwrap(), set_ack);
            let ping = Ping { id: a[0], timestamp: t };
            prop_assert_eq!(Ping::decode(&ping.encode()).unwrap(), ping);
            let activate = ActivateReport { stream_id: a[0], unique_id: a[1], max_window_size: a[2], timeout_ms: a[3] };
            prop_assert_eq!(ActivateReport::decode(&activate.encode()).unwrap(), activate);
            let report = StreamReport {
                stream_id: a[0], unique_id: a[1], start_frame_mm_time: a[2], end_frame_mm_time: a[3],
                num_frames: a[4], num_drops: a[5], last_frame_delay: a[6] as i32, audio_delay: a[7],
            };
            prop_assert_eq!(StreamReport::decode(&report.encode()).unwrap(), report);
            let init = MainInit {
                session_id: a[0], display_channels_hint: a[1], supported_mouse_modes: a[2], current_mouse_mode: a[3],
                agent_connected: a[4], agent_tokens: a[5], multi_media_time: a[6], ram_hint: a[7],
            };
            prop_assert_eq!(MainInit::decode(&init.encode()).unwrap(), init);
        }

        #[test]
        fn streams_survive_the_wire(
            ids in any::<(u32, u32, u8, u64, u32)>(), sizes in (1..=MAX_SIDE, 1..=MAX_SIDE), place in any::<(i32, i32, i32, i32)>(),
            codec in prop::sample::select(VideoCodec::ALL), sized in any::<bool>(), size in 0u32..1 << 25,
        ) {
            let dest = Rect { top: place.0, left: place.1, bottom: place.2, right: place.3 };
            let create = StreamCreate {
                surface_id: ids.0, id: ids.1, flags: ids.2, codec, stamp: ids.3, width: sizes.0, height: sizes.1,
                source_width: ids.4, source_height: ids.4, dest,
            };
            prop_assert_eq!(StreamCreate::decode(&create.encode()).unwrap(), create);
            let data = StreamDataHeader { id: ids.0, mm_time: ids.1, sized: sized.then_some((sizes.0, sizes.1, dest)), size };
            let bytes = data.encode();
            prop_assert_eq!(bytes.len(), StreamDataHeader::len(sized));
            let whole = size + bytes.len() as u32;
            prop_assert_eq!(StreamDataHeader::decode(&bytes, sized, whole).unwrap(), data);
            prop_assert!(StreamDataHeader::decode(&bytes, sized, whole - 1).is_err());
        }

        #[test]
        fn channel_lists_survive_the_wire(list in prop::collection::vec(any::<(u8, u8)>(), 0..20)) {
            let list = ChannelsList(list);
            prop_assert_eq!(ChannelsList::decode(&list.encode()).unwrap(), list);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..120), size in any::<u32>()) {
            let _ = SetAck::decode(&bytes);
            let _ = MainInit::decode(&bytes);
            let _ = ChannelsList::decode(&bytes);
            let _ = StreamCreate::decode(&bytes);
            let _ = ActivateReport::decode(&bytes);
            let _ = StreamDataHeader::decode(&bytes, false, size);
            let _ = StreamDataHeader::decode(&bytes, true, size);
        }
    }

    #[test]
    fn fields_lie_where_real_servers_put_them() {
        let dest = Rect { top: 0, left: 0, bottom: 360, right: 640 };
        let create = StreamCreate {
            surface_id: 0,
            id: 7,
            flags: 0,
            codec: VideoCodec::Vp8,
            stamp: 0,
            width: 640,
            height: 360,
            source_width: 640,
            source_height: 360,
            dest,
        };
        let bytes = create.encode();
        assert_eq!((bytes[4], bytes[9], &bytes[18..22]), (7, 2, &640u32.to_le_bytes()[..]));
        assert_eq!(bytes[42..46], 360u32.to_le_bytes());
        assert_eq!(display_init().len(), 14);
        assert_eq!(frame(client::ACK, &[]), [2, 0, 0, 0, 0, 0]);
    }
}
