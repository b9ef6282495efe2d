//! The stream-device protocol from a hostile guest or host: parser and boundary tracker agree, whatever the chunks.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spice::stream_device::{Boundaries, Boundary, Parser};

fuzz_target!(|data: &[u8]| {
    let Some((step, bytes)) = data.split_first() else { return };
    let (mut parser, mut boundaries) = (Parser::new(), Boundaries::new());
    for chunk in bytes.chunks(usize::from(*step).max(1)) {
        let mut ends = Vec::new();
        let followed = boundaries.follow(chunk, |b| {
            if let Boundary::End { kind, .. } = b {
                ends.push(kind);
            }
        });
        match parser.push(chunk) {
            Ok(messages) => {
                assert!(followed.is_ok());
                assert!(messages.iter().map(|m| m.kind()).eq(ends));
                for message in messages {
                    // What was understood can be said again and is understood the same.
                    let again = Parser::new().push(&message.encode()).expect("our own words");
                    assert_eq!(again, [message]);
                }
            }
            Err(_) => return,
        }
    }
});
