//! The link stage: how each channel's connection begins. Source: `spice/protocol.h` of spice-protocol.
//!
//! The client sends `REDQ`, version 2.2 and its capabilities; the server answers with its own and a public RSA key
//! (1024 bits, DER); the client chooses the authentication and sends the ticket encrypted to that key
//! (OAEP with SHA-1, as the protocol has fixed it); the server answers with a result.

use std::io::{Read, Write};

use rsa::pkcs8::DecodePublicKey;
use rsa::{Oaep, PublicKey};
use sha1::Sha1;

use crate::ProtocolError;
use crate::wire::{Reader, Writer};

/// First four bytes of every link message.
pub const MAGIC: [u8; 4] = *b"REDQ";
/// Version of the protocol: major and minor.
pub const VERSION: (u32, u32) = (2, 2);
/// Longest ticket, in bytes, without its final zero (`SPICE_MAX_PASSWORD_LENGTH`).
pub const MAX_TICKET: usize = 60;
/// Length of the DER-encoded public key (`SPICE_TICKET_PUBKEY_BYTES`).
pub const PUBKEY_LEN: usize = 162;
/// Most bytes of a link message that are accepted.
const MAX_LINK: u32 = 4096;
const HEADER_LEN: usize = 16;
const CAPS_OFFSET: u32 = 18;
const REPLY_CAPS_OFFSET: u32 = 178;

/// Types of channels that this crate knows (`SPICE_CHANNEL_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum ChannelType {
    /// Session, agent, migration.
    Main = 1,
    /// Pictures and streams.
    Display = 2,
}

/// Common capabilities (bits of the first word).
pub mod common_caps {
    /// The client says how it authenticates.
    pub const AUTH_SELECTION: u32 = 1 << 0;
    /// By ticket.
    pub const AUTH_SPICE: u32 = 1 << 1;
    /// Data messages have the short header.
    pub const MINI_HEADER: u32 = 1 << 3;
}

/// Display capabilities (bits of the first word).
pub mod display_caps {
    /// STREAM_DATA_SIZED is understood.
    pub const SIZED_STREAM: u32 = 1 << 0;
    /// STREAM_REPORT is sent.
    pub const STREAM_REPORT: u32 = 1 << 4;
    /// The codec bits below mean something.
    pub const MULTI_CODEC: u32 = 1 << 8;
    /// MJPEG.
    pub const MJPEG: u32 = 1 << 9;
    /// VP8.
    pub const VP8: u32 = 1 << 10;
    /// H.264.
    pub const H264: u32 = 1 << 11;
    /// VP9.
    pub const VP9: u32 = 1 << 13;
    /// H.265.
    pub const H265: u32 = 1 << 14;
}

/// The client's first message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkMessage {
    /// 0 for a new session, the session's number for its further channels.
    pub connection_id: u32,
    /// `SPICE_CHANNEL_*`.
    pub channel_type: u8,
    /// Number among channels of one type.
    pub channel_id: u8,
    /// Words of bits.
    pub common_caps: Vec<u32>,
    /// Words of bits.
    pub channel_caps: Vec<u32>,
}

impl LinkMessage {
    /// Header and message.
    pub fn encode(&self) -> Vec<u8> {
        let caps = self.common_caps.iter().chain(&self.channel_caps);
        let body = Writer::default()
            .u32(self.connection_id)
            .u8(self.channel_type)
            .u8(self.channel_id)
            .u32(self.common_caps.len() as u32)
            .u32(self.channel_caps.len() as u32)
            .u32(CAPS_OFFSET);
        with_header(caps.fold(body, |w, c| w.u32(*c)).0)
    }

    /// Decodes a message without its header; the server's side, for tests and tools.
    ///
    /// # Errors
    /// Too short, or capabilities outside the message.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut r = Reader::new(body, "link message");
        let (connection_id, channel_type, channel_id) = (r.u32()?, r.u8()?, r.u8()?);
        let (common, channel, offset) = (r.u32()?, r.u32()?, r.u32()?);
        let (common_caps, channel_caps) = capabilities(body, "link message", common, channel, offset)?;
        Ok(Self { connection_id, channel_type, channel_id, common_caps, channel_caps })
    }
}

/// The server's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReply {
    /// `SPICE_LINK_ERR_*`; 0 is good.
    pub error: u32,
    /// DER of the key that the ticket is encrypted to.
    pub public_key: Vec<u8>,
    /// Words of bits.
    pub common_caps: Vec<u32>,
    /// Words of bits.
    pub channel_caps: Vec<u32>,
}

impl LinkReply {
    /// Header and message; the server's side, for tests and tools.
    ///
    /// # Panics
    /// The key is not [`PUBKEY_LEN`] bytes long.
    pub fn encode(&self) -> Vec<u8> {
        assert_eq!(self.public_key.len(), PUBKEY_LEN, "the length of the key is fixed");
        let body = Writer::default()
            .u32(self.error)
            .bytes(&self.public_key)
            .u32(self.common_caps.len() as u32)
            .u32(self.channel_caps.len() as u32)
            .u32(REPLY_CAPS_OFFSET);
        with_header(self.common_caps.iter().chain(&self.channel_caps).fold(body, |w, c| w.u32(*c)).0)
    }

    /// Decodes a reply without its header. A reply that only reports an error may be shorter.
    ///
    /// # Errors
    /// Too short, or capabilities outside the message.
    pub fn decode(body: &[u8]) -> Result<Self, ProtocolError> {
        let mut r = Reader::new(body, "link reply");
        let error = r.u32()?;
        if error != 0 && body.len() < REPLY_CAPS_OFFSET as usize {
            return Ok(Self {
                error,
                public_key: Vec::new(),
                common_caps: Vec::new(),
                channel_caps: Vec::new(),
            });
        }
        let public_key = r.take(PUBKEY_LEN)?.to_vec();
        let (common, channel, offset) = (r.u32()?, r.u32()?, r.u32()?);
        let (common_caps, channel_caps) = capabilities(body, "link reply", common, channel, offset)?;
        Ok(Self { error, public_key, common_caps, channel_caps })
    }
}

fn capabilities(
    body: &[u8],
    what: &'static str,
    common: u32,
    channel: u32,
    offset: u32,
) -> Result<(Vec<u32>, Vec<u32>), ProtocolError> {
    let rest = body.get(offset as usize..).unwrap_or_default();
    let words = common as u64 + channel as u64;
    if words * 4 > rest.len() as u64 {
        return Err(ProtocolError::Short {
            what,
            size: body.len(),
            needed: offset as usize + (words as usize).saturating_mul(4),
        });
    }
    let mut r = Reader::new(rest, what);
    let mut list = |count| (0..count).map(|_| r.u32()).collect::<Result<Vec<_>, _>>();
    Ok((list(common)?, list(channel)?))
}

fn with_header(body: Vec<u8>) -> Vec<u8> {
    let header = Writer::default().bytes(&MAGIC).u32(VERSION.0).u32(VERSION.1).u32(body.len() as u32);
    header.bytes(&body).0
}

/// Checks a link header and gives the length of what follows it.
///
/// # Errors
/// Not SPICE, another major version, or absurdly long.
pub fn check_header(header: &[u8; HEADER_LEN]) -> Result<usize, ProtocolError> {
    let mut r = Reader::new(header, "link header");
    let magic = r.take(4)?;
    if magic != MAGIC {
        return Err(ProtocolError::NotSpice);
    }
    let (major, minor, size) = (r.u32()?, r.u32()?, r.u32()?);
    if major != VERSION.0 {
        return Err(ProtocolError::Version { major, minor });
    }
    if size > MAX_LINK {
        return Err(ProtocolError::TooLarge { what: "link message", size, max: MAX_LINK });
    }
    Ok(size as usize)
}

/// Does the link stage on a fresh connection.
///
/// # Errors
/// The other side is no SPICE server, refuses the channel or the ticket, or closes the connection.
pub fn link(
    stream: &mut (impl Read + Write),
    message: &LinkMessage,
    ticket: &str,
) -> Result<LinkReply, ProtocolError> {
    if ticket.len() > MAX_TICKET {
        return Err(ProtocolError::TicketTooLong(ticket.len()));
    }
    stream.write_all(&message.encode())?;
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).map_err(closed)?;
    let mut body = vec![0; check_header(&header)?];
    stream.read_exact(&mut body).map_err(closed)?;
    let reply = LinkReply::decode(&body)?;
    if reply.error != 0 {
        return Err(ProtocolError::from_link(reply.error));
    }
    if reply.common_caps.first().is_some_and(|c| c & common_caps::AUTH_SELECTION != 0) {
        stream.write_all(&1u32.to_le_bytes())?;
    }
    let key = PublicKey::from_public_key_der(&reply.public_key).map_err(|_| ProtocolError::BadKey)?;
    let mut secret = ticket.as_bytes().to_vec();
    secret.push(0);
    let sealed =
        key.encrypt(&mut rand::rng(), Oaep::<Sha1>::new(), &secret).map_err(|_| ProtocolError::BadKey)?;
    stream.write_all(&sealed)?;
    let mut result = [0; 4];
    stream.read_exact(&mut result).map_err(closed)?;
    match u32::from_le_bytes(result) {
        0 => Ok(reply),
        error => Err(ProtocolError::from_link(error)),
    }
}

fn closed(error: std::io::Error) -> ProtocolError {
    match error.kind() {
        std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset => {
            ProtocolError::ClosedDuringLink
        }
        _ => error.into(),
    }
}
