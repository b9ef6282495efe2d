//! Real streams over an emulated network.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

mod campaign;

use campaign::Bench;
use store::Study;

/// Whether this machine lets us have namespaces and TUN devices.
fn refused() -> bool {
    match netem::Emulator::start(netem::Options::default()) {
        Ok(_) => false,
        Err(error) if error.is_refused() => {
            eprintln!("skipped: {}", bench::chain(&error));
            true
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn delay_and_bandwidth_of_the_path_are_what_the_stream_feels() {
    if refused() {
        return;
    }
    let study = "subject = \"streaming\"\nrepeats = 1\nwarmup_s = 1\nrecord_s = 2\n[factors]\nnet_delay = [0, 60]\n\
                 [fixed]\nnetwork = \"emulated\"\nsource = \"scene\"\ncodec = \"mjpeg\"\nfps = 10\nscene = \"scroll\"\n";
    let bench = Bench::new(study);
    bench.run(&["run", "small.toml", "--json"]).assert_code(0);
    bench.nothing_is_left();
    let study = Study::open(&bench.study().unwrap()).unwrap();
    let mut latency = [0.0; 2];
    for run in study.runs().unwrap() {
        let at = usize::from(run.facts.asked["net_delay"].as_f64() == Some(60.0));
        latency[at] = run.responses["latency_p50"];
        assert!(run.responses["delivered_fps"] > 8.0, "{:?}", run.responses);
        let marker = run.facts.markers.iter().find(|marker| marker.kind == "network").unwrap();
        assert!(marker.text.contains(" packets; 0 dropped, 0 lost; "), "{}", marker.text);
        let file = study.dir.join("runs").join(&run.facts.id).join("network.json");
        let report: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
        assert_eq!(report["level"], "packets");
        assert!(report["forward"]["counters"]["bytes_out"].as_u64().unwrap() > 10_000, "{report}");
    }
    let added = latency[1] - latency[0];
    assert!((50.0..90.0).contains(&added), "60 ms more each way gave {added} ms: {latency:?}");
}

#[test]
fn a_path_that_is_too_narrow_drops_frames_before_the_client() {
    if refused() {
        return;
    }
    let study = "subject = \"streaming\"\nrepeats = 1\nwarmup_s = 1\nrecord_s = 3\n[fixed]\nnetwork = \"emulated\"\n\
                 net_rate = 4\nsource = \"scene\"\ncodec = \"mjpeg\"\nfps = 30\nscene = \"noise\"\n";
    let bench = Bench::new(study);
    bench.run(&["run", "small.toml", "--json"]).assert_code(0);
    bench.nothing_is_left();
    let study = Study::open(&bench.study().unwrap()).unwrap();
    let responses = &study.runs().unwrap()[0].responses;
    // 30 frames of noise a second are more than 4 Mbit/s, which are 500 kB/s, headers included: the path is full.
    assert!((400.0..505.0).contains(&responses["host_kbps"]), "{responses:?}");
    assert!(responses["delivered_fps"] < 27.0, "{responses:?}");
}
