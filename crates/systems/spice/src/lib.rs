//! The SPICE protocol, written from the protocol: link, messages, client channels, and the stream device of guests.
//!
//! Encodes and decodes; a client on blocking sockets. Decodes no video and knows no study.

pub mod client;
mod error;
pub mod link;
pub mod messages;
pub mod stream_device;
mod wire;

pub use error::ProtocolError;
