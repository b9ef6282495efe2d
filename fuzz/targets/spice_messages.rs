//! Messages of the main and display channels from a hostile server.
#![no_main]

use libfuzzer_sys::fuzz_target;
use spice::messages::{ActivateReport, ChannelsList, MainInit, Ping, SetAck, StreamCreate, StreamDataHeader};

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else { return };
    match kind % 8 {
        0 => drop(SetAck::decode(body)),
        1 => drop(Ping::decode(body)),
        2 => drop(MainInit::decode(body)),
        3 => drop(ActivateReport::decode(body)),
        4 => {
            if let Ok(list) = ChannelsList::decode(body) {
                assert_eq!(ChannelsList::decode(&list.encode()).expect("our own words"), list);
            }
        }
        5 => {
            if let Ok(create) = StreamCreate::decode(body) {
                assert_eq!(StreamCreate::decode(&create.encode()).expect("our own words"), create);
            }
        }
        sized => {
            let size = body.len() as u32;
            if let Ok(header) = StreamDataHeader::decode(body, sized == 6, size) {
                assert!(header.size <= size);
            }
        }
    }
});
