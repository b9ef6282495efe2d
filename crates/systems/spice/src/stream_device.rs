//! The stream-device protocol: how a guest program hands an encoded video stream to a SPICE server.
//!
//! It runs over the port `org.spice-space.stream.0`. Every message is a header of eight bytes, little-endian
//! (`u8 version = 1, u8 0, u16 type, u32 size`), and `size` bytes. Source: `spice/stream-device.h` of spice-protocol.
//! [`Boundaries`] follows messages in passing bytes without keeping them, [`Parser`] keeps them and decodes them.

use thiserror::Error;

/// Version in every header.
pub const VERSION: u8 = 1;
/// Length of a header, in bytes.
pub const HEADER_LEN: usize = 8;
/// Name of the port in a virtual machine and in the server.
pub const PORT_NAME: &str = "org.spice-space.stream.0";
/// Most bytes in one DATA message: libspice-server 0.15.1 closes the port above 32 MiB (`red-stream-device.cpp`).
pub const MAX_DATA: u32 = 32 << 20;
/// Most bytes of CAPABILITIES (`STREAM_MSG_CAPABILITIES_MAX_BYTES`).
pub const MAX_CAPABILITIES: u32 = 1024;
/// Most bytes of any other message: a cursor of 1024 × 1024 pixels of four bytes and its header.
pub const MAX_OTHER: u32 = 4 * 1024 * 1024 + 16;

/// What was wrong with bytes from the other side.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StreamDeviceError {
    /// A header with another version: not this protocol, or out of step.
    #[error(
        "stream device: header with version {0}, expected {VERSION}: the other side speaks something else"
    )]
    Version(u8),
    /// A message above its limit.
    #[error("stream device: {kind} message of {size} bytes, at most {max} are allowed")]
    TooLarge {
        /// The message's type.
        kind: Kind,
        /// Bytes announced.
        size: u32,
        /// Bytes allowed.
        max: u32,
    },
    /// A type that no version of the protocol has.
    #[error("stream device: unknown message type {0}")]
    Unknown(u16),
    /// A payload that is not what its type demands.
    #[error("stream device: {kind} message of {size} bytes: {what}")]
    Malformed {
        /// The message's type.
        kind: Kind,
        /// Its length.
        size: usize,
        /// What is wrong.
        what: &'static str,
    },
}

macro_rules! numbered {
    ($(#[$meta:meta])* $name:ident: $repr:ty { $($(#[$vmeta:meta])* $variant:ident = $value:literal $text:literal,)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr($repr)]
        pub enum $name { $($(#[$vmeta])* $variant = $value,)* }
        impl $name {
            /// All of them, by number.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];
            /// From its number on the wire.
            pub fn from_wire(number: $repr) -> Option<Self> {
                match number { $($value => Some(Self::$variant),)* _ => None }
            }
            /// Its number on the wire.
            pub fn to_wire(self) -> $repr { self as $repr }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text,)* })
            }
        }
    };
}

numbered! {
    /// `SpiceVideoCodecType`.
    VideoCodec: u8 {
        /// A JPEG picture per access unit.
        Mjpeg = 1 "mjpeg",
        /// VP8.
        Vp8 = 2 "vp8",
        /// H.264, Annex B.
        H264 = 3 "h264",
        /// VP9.
        Vp9 = 4 "vp9",
        /// H.265, Annex B.
        H265 = 5 "h265",
    }
}

numbered! {
    /// `StreamMsgType`.
    Kind: u16 {
        /// Both ways, first.
        Capabilities = 1 "CAPABILITIES",
        /// Guest to server: a new stream.
        Format = 2 "FORMAT",
        /// Guest to server: an access unit.
        Data = 3 "DATA",
        /// Server to guest: which codecs, or stop.
        StartStop = 4 "START_STOP",
        /// Server to guest: a complaint.
        NotifyError = 5 "NOTIFY_ERROR",
        /// Guest to server: cursor shape.
        CursorSet = 6 "CURSOR_SET",
        /// Guest to server: cursor position.
        CursorMove = 7 "CURSOR_MOVE",
        /// Guest to server: which display this is.
        DeviceDisplayInfo = 8 "DEVICE_DISPLAY_INFO",
        /// Server to guest: a word on quality.
        QualityIndicator = 9 "QUALITY_INDICATOR",
    }
}

impl Kind {
    /// Most bytes of payload.
    pub fn max_size(self) -> u32 {
        match self {
            Self::Data => MAX_DATA,
            Self::Capabilities => MAX_CAPABILITIES,
            Self::Format => 12,
            Self::StartStop => 256,
            Self::CursorMove => 8,
            Self::CursorSet => MAX_OTHER,
            Self::NotifyError | Self::DeviceDisplayInfo | Self::QualityIndicator => 4096,
        }
    }
}

/// One message, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Bit set of capabilities.
    Capabilities(Vec<u8>),
    /// A new stream begins; DATA of this codec and size follows, first a keyframe.
    Format {
        /// Pixels.
        width: u32,
        /// Pixels.
        height: u32,
        /// How DATA is encoded.
        codec: VideoCodec,
    },
    /// One access unit.
    Data(Vec<u8>),
    /// Start with one of these codecs (numbers that are not in [`VideoCodec`] are left out), or stop when there are none.
    StartStop(Vec<VideoCodec>),
    /// The server complains, and ignores the port from now on.
    NotifyError {
        /// Not defined; 0.
        code: u32,
        /// For people.
        text: String,
    },
    /// Cursor shape, undecoded: `u16 width, height, hot_x, hot_y, u8 type, pad[3]`, pixels.
    CursorSet(Vec<u8>),
    /// Cursor position, in pixels.
    CursorMove {
        /// To the right.
        x: i32,
        /// Down.
        y: i32,
    },
    /// Which display of which device this is.
    DeviceDisplayInfo {
        /// Of the stream.
        stream_id: u32,
        /// Of the display within the device.
        display_id: u32,
        /// Such as `pci/0000/02.0`.
        address: String,
    },
    /// A string for the quality.
    QualityIndicator(String),
}

/// A header for a message of `size` bytes.
pub fn header(kind: Kind, size: u32) -> [u8; HEADER_LEN] {
    let (k, s) = (kind.to_wire().to_le_bytes(), size.to_le_bytes());
    [VERSION, 0, k[0], k[1], s[0], s[1], s[2], s[3]]
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

impl Message {
    /// The message's type.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Capabilities(_) => Kind::Capabilities,
            Self::Format { .. } => Kind::Format,
            Self::Data(_) => Kind::Data,
            Self::StartStop(_) => Kind::StartStop,
            Self::NotifyError { .. } => Kind::NotifyError,
            Self::CursorSet(_) => Kind::CursorSet,
            Self::CursorMove { .. } => Kind::CursorMove,
            Self::DeviceDisplayInfo { .. } => Kind::DeviceDisplayInfo,
            Self::QualityIndicator(_) => Kind::QualityIndicator,
        }
    }

    /// Header and payload. A payload above the type's limit is for the receiver to refuse.
    pub fn encode(&self) -> Vec<u8> {
        let mut payload = Vec::new();
        match self {
            Self::Capabilities(bytes) | Self::Data(bytes) | Self::CursorSet(bytes) => {
                payload.extend_from_slice(bytes)
            }
            Self::Format { width, height, codec } => {
                payload.extend(width.to_le_bytes());
                payload.extend(height.to_le_bytes());
                payload.extend([codec.to_wire(), 0, 0, 0]);
            }
            Self::StartStop(codecs) => {
                payload.push(codecs.len() as u8);
                payload.extend(codecs.iter().map(|c| c.to_wire()));
            }
            Self::NotifyError { code, text } => {
                payload.extend(code.to_le_bytes());
                payload.extend(text.as_bytes());
            }
            Self::CursorMove { x, y } => {
                payload.extend(x.to_le_bytes());
                payload.extend(y.to_le_bytes());
            }
            Self::DeviceDisplayInfo { stream_id, display_id, address } => {
                payload.extend(stream_id.to_le_bytes());
                payload.extend(display_id.to_le_bytes());
                payload.extend((address.len() as u32 + 1).to_le_bytes());
                payload.extend(address.as_bytes());
                payload.push(0);
            }
            Self::QualityIndicator(quality) => {
                payload.extend(quality.as_bytes());
                payload.push(0);
            }
        }
        let mut bytes = header(self.kind(), payload.len() as u32).to_vec();
        bytes.append(&mut payload);
        bytes
    }

    /// Decodes one payload.
    ///
    /// # Errors
    /// The payload is not what the type demands.
    pub fn decode(kind: Kind, payload: Vec<u8>) -> Result<Self, StreamDeviceError> {
        let size = payload.len();
        let bad = |what| StreamDeviceError::Malformed { kind, size, what };
        let word = |at| u32_at(&payload, at).ok_or_else(|| bad("too short"));
        Ok(match kind {
            Kind::Capabilities => Self::Capabilities(payload),
            Kind::Data => Self::Data(payload),
            Kind::CursorSet if size < 12 => return Err(bad("too short")),
            Kind::CursorSet => Self::CursorSet(payload),
            Kind::Format => {
                let (width, height) = (word(0)?, word(4)?);
                let codec = payload
                    .get(8)
                    .and_then(|c| VideoCodec::from_wire(*c))
                    .ok_or_else(|| bad("unknown codec"))?;
                if !(1..=MAX_SIDE).contains(&width) || !(1..=MAX_SIDE).contains(&height) {
                    return Err(bad("the picture has no size, or more than 16384 pixels on a side"));
                }
                Self::Format { width, height, codec }
            }
            Kind::StartStop => {
                let count = usize::from(*payload.first().ok_or_else(|| bad("too short"))?);
                let codecs = payload.get(1..=count).ok_or_else(|| bad("fewer codecs than announced"))?;
                Self::StartStop(codecs.iter().filter_map(|c| VideoCodec::from_wire(*c)).collect())
            }
            Kind::NotifyError => Self::NotifyError { code: word(0)?, text: text(&payload[4..]) },
            Kind::CursorMove => Self::CursorMove { x: word(0)? as i32, y: word(4)? as i32 },
            Kind::DeviceDisplayInfo => {
                let length = word(8)? as usize;
                let address =
                    payload.get(12..).and_then(|a| a.get(..length)).ok_or_else(|| bad("address cut off"))?;
                Self::DeviceDisplayInfo { stream_id: word(0)?, display_id: word(4)?, address: text(address) }
            }
            Kind::QualityIndicator => Self::QualityIndicator(text(&payload)),
        })
    }
}

/// Largest side of a picture, in pixels: what H.265 level 6.2 and libvpx go to.
pub const MAX_SIDE: u32 = 16_384;

/// What [`Boundaries::follow`] met in the bytes that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boundary {
    /// A header ended `at` bytes into the chunk; `size` bytes of payload follow.
    Header {
        /// The message's type.
        kind: Kind,
        /// Bytes of payload.
        size: u32,
        /// Bytes of the chunk up to here.
        at: usize,
    },
    /// The message's last byte was the one before `at` (a message without payload ends with its header).
    End {
        /// The message's type.
        kind: Kind,
        /// Bytes of payload.
        size: u32,
        /// Bytes of the chunk up to here.
        at: usize,
    },
}

/// Follows messages through bytes that pass in chunks of any size, without keeping payloads.
#[derive(Clone, Debug, Default)]
pub struct Boundaries {
    header: [u8; HEADER_LEN],
    filled: usize,
    message: Option<(Kind, u32)>,
    remaining: u32,
}

impl Boundaries {
    /// At the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// The message whose payload is passing, and how many of its bytes are still to come.
    pub fn within(&self) -> Option<(Kind, u32)> {
        self.message.map(|(kind, _)| (kind, self.remaining))
    }

    /// True between two messages.
    pub fn between_messages(&self) -> bool {
        self.message.is_none() && self.filled == 0
    }

    /// How many bytes are needed to complete the header or the payload that is passing; at least 1.
    pub fn wanted(&self) -> usize {
        if self.message.is_some() { self.remaining as usize } else { HEADER_LEN - self.filled }
    }

    /// Follows a chunk and tells each boundary in it.
    ///
    /// # Errors
    /// The bytes are not this protocol; nothing after an error means anything.
    pub fn follow(&mut self, chunk: &[u8], mut each: impl FnMut(Boundary)) -> Result<(), StreamDeviceError> {
        let mut at = 0;
        while at < chunk.len() {
            match self.message {
                None => {
                    let take = (HEADER_LEN - self.filled).min(chunk.len() - at);
                    self.header[self.filled..self.filled + take].copy_from_slice(&chunk[at..at + take]);
                    (self.filled, at) = (self.filled + take, at + take);
                    if self.filled == HEADER_LEN {
                        let (kind, size) = check_header(self.header)?;
                        (self.filled, self.remaining, self.message) = (0, size, Some((kind, size)));
                        each(Boundary::Header { kind, size, at });
                    }
                }
                Some(_) => {
                    let take = (self.remaining as usize).min(chunk.len() - at);
                    (self.remaining, at) = (self.remaining - take as u32, at + take);
                }
            }
            if let (Some((kind, size)), 0) = (self.message, self.remaining) {
                self.message = None;
                each(Boundary::End { kind, size, at });
            }
        }
        Ok(())
    }
}

fn check_header(header: [u8; HEADER_LEN]) -> Result<(Kind, u32), StreamDeviceError> {
    if header[0] != VERSION {
        return Err(StreamDeviceError::Version(header[0]));
    }
    let number = u16::from_le_bytes([header[2], header[3]]);
    let kind = Kind::from_wire(number).ok_or(StreamDeviceError::Unknown(number))?;
    let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
    let max = kind.max_size();
    if size > max { Err(StreamDeviceError::TooLarge { kind, size, max }) } else { Ok((kind, size)) }
}

/// Puts messages together from chunks of any size. Keeps at most one message.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    boundaries: Boundaries,
    payload: Vec<u8>,
}

impl Parser {
    /// At the start of a message.
    pub fn new() -> Self {
        Self::default()
    }

    /// Feeds a chunk and gives the messages that it completes.
    ///
    /// # Errors
    /// The bytes are not this protocol; the connection is of no more use. Memory grows with bytes received, never
    /// with bytes announced.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Vec<Message>, StreamDeviceError> {
        let (mut messages, mut start, mut fault) = (Vec::new(), 0, None);
        let payload = &mut self.payload;
        self.boundaries.follow(chunk, |boundary| match boundary {
            Boundary::Header { at, .. } => start = at,
            Boundary::End { kind, at, .. } => {
                payload.extend_from_slice(&chunk[start..at]);
                start = at;
                match Message::decode(kind, std::mem::take(payload)) {
                    Ok(message) => messages.push(message),
                    Err(error) => fault = fault.take().or(Some(error)),
                }
            }
        })?;
        if self.boundaries.within().is_some() {
            self.payload.extend_from_slice(&chunk[start..]);
        }
        fault.map_or(Ok(messages), Err)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_message() -> impl Strategy<Value = Message> {
        let codec = || prop::sample::select(VideoCodec::ALL);
        let bytes = |most| prop::collection::vec(any::<u8>(), 0..most);
        prop_oneof![
            bytes(64).prop_map(Message::Capabilities),
            (1..=MAX_SIDE, 1..=MAX_SIDE, codec()).prop_map(|(width, height, codec)| Message::Format {
                width,
                height,
                codec
            }),
            bytes(5000).prop_map(Message::Data),
            prop::collection::vec(codec(), 0..6).prop_map(Message::StartStop),
            (any::<u32>(), "[a-z ]{0,40}").prop_map(|(code, text)| Message::NotifyError { code, text }),
            prop::collection::vec(any::<u8>(), 12..200).prop_map(Message::CursorSet),
            (any::<i32>(), any::<i32>()).prop_map(|(x, y)| Message::CursorMove { x, y }),
            (any::<u32>(), any::<u32>(), "[a-z/0-9.]{0,40}").prop_map(|(stream_id, display_id, address)| {
                Message::DeviceDisplayInfo { stream_id, display_id, address }
            }),
            "[a-z ]{0,40}".prop_map(Message::QualityIndicator),
        ]
    }

    fn chunks(bytes: &[u8], cuts: &[usize]) -> Vec<Vec<u8>> {
        let (mut parts, mut rest) = (Vec::new(), bytes);
        for cut in cuts {
            let (a, b) = rest.split_at((*cut).min(rest.len()));
            parts.push(a.to_vec());
            rest = b;
        }
        parts.push(rest.to_vec());
        parts
    }

    proptest! {
        #[test]
        fn messages_survive_the_wire_in_chunks_of_any_size(
            messages in prop::collection::vec(any_message(), 0..6),
            cuts in prop::collection::vec(0usize..300, 0..60),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
            let mut parser = Parser::new();
            let mut seen = Vec::new();
            for chunk in chunks(&bytes, &cuts) {
                seen.extend(parser.push(&chunk).unwrap());
            }
            prop_assert_eq!(seen, messages);
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cuts in prop::collection::vec(0usize..40, 0..20)) {
            let mut parser = Parser::new();
            for chunk in chunks(&bytes, &cuts) {
                if parser.push(&chunk).is_err() { break; }
            }
        }

        #[test]
        fn boundaries_tell_each_message_once(
            messages in prop::collection::vec(any_message(), 1..6),
            cuts in prop::collection::vec(0usize..300, 0..60),
        ) {
            let bytes: Vec<u8> = messages.iter().flat_map(Message::encode).collect();
            let (mut follow, mut ends) = (Boundaries::new(), Vec::new());
            for chunk in chunks(&bytes, &cuts) {
                follow.follow(&chunk, |b| if let Boundary::End { kind, size, .. } = b { ends.push((kind, size)) }).unwrap();
            }
            let expected: Vec<_> = messages.iter().map(|m| (m.kind(), (m.encode().len() - HEADER_LEN) as u32)).collect();
            prop_assert_eq!(ends, expected);
            prop_assert!(follow.between_messages());
        }
    }

    #[test]
    fn format_has_the_layout_of_the_header_file() {
        let bytes = Message::Format { width: 640, height: 360, codec: VideoCodec::H264 }.encode();
        assert_eq!(bytes, [1, 0, 2, 0, 12, 0, 0, 0, 0x80, 2, 0, 0, 0x68, 1, 0, 0, 3, 0, 0, 0]);
    }

    #[track_caller]
    fn refused(bytes: &[u8], expected: &str) {
        let error = Parser::new().push(bytes).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }

    #[test]
    fn what_is_not_the_protocol_is_refused_with_its_reason() {
        refused(b"GET / HTTP/1.1\r\n", "version 71");
        refused(&[1, 0, 99, 0, 0, 0, 0, 0], "unknown message type 99");
        refused(&[1, 0, 3, 0, 0, 0, 0, 3], "DATA message of 50331648 bytes, at most 33554432");
        refused(&[1, 0, 4, 0, 1, 0, 0, 0, 3], "fewer codecs than announced");
        refused(&[1, 0, 2, 0, 4, 0, 0, 0, 1, 0, 0, 0], "too short");
    }
}
