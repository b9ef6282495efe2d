//! Streaming host: embeds libspice-server.

fn main() {}
