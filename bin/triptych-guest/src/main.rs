//! Streaming guest: source, encoder, stream device.

fn main() {}
