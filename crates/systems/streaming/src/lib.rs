//! Real-time video: frame sources and encoders of the guest, decoders and presentation of the client.
//!
//! Knows frames, not protocols: bytes reach the other side through whoever uses this crate.

pub mod bitstream;
pub mod canvas;
pub mod codec;
pub mod decode;
pub mod encode;
mod font;
pub mod frame;
pub mod memory;
pub mod pace;
pub mod present;
pub mod scene;
pub mod source;
pub mod worker;
