//! A ring that a hostile program left for the agent.
#![no_main]

use std::fs;

use libfuzzer_sys::fuzz_target;
use probe::reader::RingReader;

fuzz_target!(|data: &[u8]| {
    // Memory, not a disk, and a name of this process.
    let path = format!("/dev/shm/triptych-fuzz-{}.ring", std::process::id());
    fs::write(&path, data).expect("room in /dev/shm");
    if let Ok(mut ring) = RingReader::open(path.as_ref()) {
        let width = ring.facts().table.columns.len() + 1;
        let capacity = u64::from(ring.facts().capacity);
        let mut rows = 0;
        let read = ring.read(|words, _| {
            assert_eq!(words.len() % width, 0);
            rows += (words.len() / width) as u64;
        });
        assert!(rows <= capacity, "{rows} rows from a ring of {capacity}");
        let _ = (read, ring.lost(), ring.abandoned());
    }
    let _ = fs::remove_file(&path);
});
