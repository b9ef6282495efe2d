//! What a hostile agent sends to a collector: a stream in pieces of any size.
#![no_main]

use libfuzzer_sys::fuzz_target;
use recording::wire::{Decoder, PREAMBLE};

fuzz_target!(|data: &[u8]| {
    let Some((piece, stream)) = data.split_first() else { return };
    let mut decoder = Decoder::new();
    decoder.push(&PREAMBLE);
    for chunk in stream.chunks(usize::from(*piece).max(1)) {
        decoder.push(chunk);
        // After an error the connection ends.
        loop {
            match decoder.next_message() {
                Ok(Some(message)) => {
                    let mut again = Decoder::new();
                    again.push(&PREAMBLE);
                    again.push(&message.encode());
                    let read = again.next_message().expect("our own words").expect("a whole message");
                    assert_eq!(std::mem::discriminant(&read), std::mem::discriminant(&message));
                }
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
});
