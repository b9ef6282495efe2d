//! The SPICE protocol, written from the protocol: link, messages, client channels, and the stream device of guests.
//!
//! Encodes and decodes; a client on blocking sockets. Decodes no video and knows no study.

pub mod stream_device;
