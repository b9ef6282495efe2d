//! The link stage with a hostile server: whatever it answers, the client gives an error or goes on.
#![no_main]

use std::io::{Cursor, Read, Write};

use libfuzzer_sys::fuzz_target;
use spice::link::{LinkMessage, LinkReply, link};

/// Gives the fuzzer's bytes and swallows what the client writes.
struct Server<'a>(Cursor<&'a [u8]>);

impl Read for Server<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Server<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fuzz_target!(|data: &[u8]| {
    let message = LinkMessage {
        connection_id: 0,
        channel_type: 1,
        channel_id: 0,
        common_caps: vec![9],
        channel_caps: vec![0],
    };
    let _ = link(&mut Server(Cursor::new(data)), &message, "ticket");
    let _ = LinkReply::decode(data);
    let _ = LinkMessage::decode(data);
});
