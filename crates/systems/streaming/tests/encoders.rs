//! Every installed encoder keeps the contract: a unit for each frame, keyframes in time, about the bit rate asked for.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use streaming::codec::Codec;
use streaming::encode::{EncodeError, Encoder, EncoderSettings, Output, Rates, Unit, check, encoders};
use streaming::frame::FrameSize;
use streaming::scene::{Painter, Scene, TICKS_PER_SECOND};

const DEADLINE: Duration = Duration::from_secs(20);

fn settings(codec: Codec, element: &str) -> EncoderSettings {
    EncoderSettings {
        codec,
        element: Some(element.into()),
        size: FrameSize::new(640, 360).unwrap(),
        fps: 30.0,
        bitrate_kbps: 2000,
        gop: 10,
        set: Vec::new(),
    }
}

struct Run {
    encoder: Encoder,
    outputs: Receiver<Output>,
    painter: Painter,
    frame: Vec<u8>,
}

impl Run {
    fn start(settings: &EncoderSettings, scene: Scene) -> Self {
        let (sender, outputs) = channel();
        let encoder = Encoder::open(settings, move |output| drop(sender.send(output))).unwrap();
        let painter = Painter::new(scene, settings.size);
        Self { encoder, outputs, painter, frame: vec![0; settings.size.bytes()] }
    }

    fn encode(&mut self, id: u64, force: bool) -> Unit {
        self.painter.paint(id * TICKS_PER_SECOND / 30, &mut self.frame);
        self.encoder.push(id, force, |into| into.copy_from_slice(&self.frame)).unwrap();
        match self.outputs.recv_timeout(DEADLINE).expect("no unit") {
            Output::Unit(unit) => unit,
            Output::Failed(reason) => panic!("{reason}"),
        }
    }
}

#[test]
fn a_forced_keyframe_comes_at_once_far_from_the_gops_end() {
    for (codec, element) in installed() {
        for first in [0, 12] {
            let mut settings = settings(codec, element);
            settings.gop = 1000;
            let mut run = Run::start(&settings, Scene::Video);
            for id in first..first + 30 {
                let forced = id == first || id % 9 == 8;
                let unit = run.encode(id, forced);
                let expected = forced || codec == Codec::Mjpeg;
                assert_eq!(unit.keyframe, expected, "{element}: frame {id} after {first}");
            }
        }
    }
}

/// Types of the NAL units in an Annex B stream.
fn nal_types(codec: Codec, data: &[u8]) -> Vec<u8> {
    data.windows(4)
        .filter(|w| w[..3] == [0, 0, 1])
        .map(|w| if codec == Codec::H264 { w[3] & 0x1f } else { w[3] >> 1 & 0x3f })
        .collect()
}

fn installed() -> Vec<(Codec, &'static str)> {
    let (here, missing): (Vec<_>, Vec<_>) = encoders().unwrap().into_iter().partition(|e| e.installed);
    for entry in missing {
        eprintln!("skipped {}: not installed, package {}", entry.element, entry.package);
    }
    assert!(!here.is_empty(), "no encoder is installed: apt install gstreamer1.0-plugins-good");
    here.into_iter().map(|e| (e.codec, e.element)).collect()
}

#[test]
fn each_frame_gives_its_unit_at_once_and_keyframes_come_within_the_gop() {
    for (codec, element) in installed() {
        let mut run = Run::start(&settings(codec, element), Scene::Video);
        let mut since_key = 0;
        for id in 0..35 {
            let unit = run.encode(id, id == 17);
            assert_eq!(unit.id, id, "{element}");
            assert!(!unit.data.is_empty(), "{element}");
            since_key = if unit.keyframe { 0 } else { since_key + 1 };
            assert!(since_key < 10, "{element}: no keyframe for {since_key} frames at {id}");
            if id == 0 || id == 17 {
                assert!(unit.keyframe, "{element}: frame {id} was forced");
            }
            if unit.keyframe && matches!(codec, Codec::H264 | Codec::H265) {
                let types = nal_types(codec, &unit.data);
                let headers: &[u8] = if codec == Codec::H264 { &[7, 8, 5] } else { &[32, 33, 34] };
                assert!(headers.iter().all(|h| types.contains(h)), "{element} {id}: {types:?}");
            }
        }
    }
}

#[test]
fn frames_that_were_skipped_leave_no_confusion() {
    for (codec, element) in installed() {
        let mut run = Run::start(&settings(codec, element), Scene::Scroll);
        for id in [5, 6, 9, 30, 31, 90] {
            assert_eq!(run.encode(id, false).id, id, "{element}");
        }
    }
}

#[test]
fn the_bit_rate_is_about_what_was_asked_for() {
    for (codec, element) in installed() {
        let mut rates = Vec::new();
        for kbps in [1000, 4000] {
            let mut settings = settings(codec, element);
            settings.bitrate_kbps = kbps;
            settings.gop = 60;
            let mut run = Run::start(&settings, Scene::Video);
            let warmup = 30;
            let bytes: usize = (0..120)
                .map(|id| (id, run.encode(id, false).data.len()))
                .filter(|(id, _)| *id >= warmup)
                .map(|(_, len)| len)
                .sum();
            let got = bytes as f64 * 8.0 / 1000.0 / 3.0;
            let ratio = got / f64::from(kbps);
            eprintln!("{element} {kbps} kbit/s: got {got:.0}");
            assert!((0.3..1.6).contains(&ratio), "{element}: {got:.0} kbit/s where {kbps} were asked for");
            rates.push(got);
        }
        assert!(rates[1] > rates[0] * 1.5, "{element}: {rates:?}");
    }
}

#[test]
fn rates_are_changed_while_frames_go_in() {
    for (codec, element) in installed() {
        let settings = EncoderSettings { gop: 1000, ..settings(codec, element) };
        let mut run = Run::start(&settings, Scene::Video);
        // Frames 15 and later of each stretch: the rate control has settled.
        let stretch = |run: &mut Run, first: u64| -> f64 {
            let sizes: Vec<_> = (first..first + 45).map(|id| run.encode(id, false).data.len()).collect();
            sizes[15..].iter().sum::<usize>() as f64 * 8.0 / 30.0 / 1000.0
        };
        let before = stretch(&mut run, 0);
        let changed = run.encoder.change(Rates { bitrate_kbps: 500, fps: 30.0 });
        assert_eq!(changed.is_ok(), settings.is_live(), "{element}");
        if changed.is_ok() {
            let after = stretch(&mut run, 45);
            eprintln!("{element}: {before:.1} kbit a frame, then {after:.1}");
            assert!(after < before * 0.6, "{element}: {before} kbit a frame, then {after}");
            assert!(
                run.encoder.in_force().bitrate_kbps(element).is_none_or(|kbps| kbps == 500.0),
                "{element}"
            );
        }
        // Another frame rate, which every element takes: the numbers stay, and each frame has its unit.
        let kbps = if settings.is_live() { 500 } else { settings.bitrate_kbps };
        for (fps, ids) in [(10.0, 180..200), (60.0, 200..220), (0.5, 220..224)] {
            run.encoder.change(Rates { bitrate_kbps: kbps, fps }).unwrap();
            for id in ids {
                assert_eq!(run.encode(id, id % 7 == 0).id, id, "{element} at {fps} Hz");
            }
        }
    }
}

#[test]
fn rates_out_of_range_or_held_by_a_property_are_refused() {
    let mut settings = settings(Codec::Vp8, "vp8enc");
    let rates = settings.rates();
    for (rates, expected) in [
        (Rates { bitrate_kbps: 0, ..rates }, "1 to 2000000"),
        (Rates { fps: 0.0, ..rates }, "0.001 to 1000"),
        (Rates { fps: f64::NAN, ..rates }, "0.001 to 1000"),
    ] {
        let error = settings.with(rates).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains(expected), "{error}");
    }
    settings.set = vec![("target-bitrate".into(), "300000".into())];
    let error = settings.with(Rates { bitrate_kbps: 500, ..rates }).unwrap_err();
    assert!(error.to_string().contains("held by --set target-bitrate=300000"), "{error}");
    assert!(settings.with(Rates { fps: 5.0, ..rates }).is_ok());
}

#[test]
fn settings_are_read_back_from_the_element() {
    for (codec, element) in installed() {
        let in_force = check(&settings(codec, element)).unwrap();
        assert!(in_force.versions.contains_key("gstreamer") && in_force.versions.contains_key(element));
        let rate = match element {
            "x264enc" | "x265enc" => Some(("bitrate", "2000")),
            "openh264enc" => Some(("bitrate", "2000000")),
            "vp8enc" | "vp9enc" => Some(("target-bitrate", "2000000")),
            _ => None,
        };
        if let Some((name, value)) = rate {
            assert_eq!(in_force.properties.get(name).map(String::as_str), Some(value), "{element}");
        }
    }
}

#[test]
fn a_property_set_by_the_person_wins_over_the_default() {
    let mut settings = settings(Codec::Vp8, "vp8enc");
    settings.set = vec![("cpu-used".into(), "4".into()), ("end-usage".into(), "vbr".into())];
    let in_force = check(&settings).unwrap();
    assert_eq!(in_force.properties["cpu-used"], "4");
    assert_eq!(in_force.properties["end-usage"], "vbr");
}

#[test]
fn wrong_settings_name_what_is_wrong_and_the_nearest_valid_value() {
    for (name, value, parts) in [
        ("cpu-usde", "4", &["no property 'cpu-usde'", "'cpu-used'"][..]),
        ("cpu-used", "40", &["-16 to 16", "nearest valid value is 16"]),
        ("cpu-used", "1.5", &["-16 to 16", "nearest valid value is 2"]),
        ("cpu-used", "fast", &["-16 to 16"]),
        ("end-usage", "cbrr", &["one of vbr, cbr, cq", "nearest valid value is cbr"]),
        ("auto-alt-ref", "maybe", &["true or false"]),
        ("name", "x", &["can be set"]),
    ] {
        let mut settings = settings(Codec::Vp8, "vp8enc");
        settings.set = vec![(name.into(), value.into())];
        let error = check(&settings).unwrap_err();
        assert!(error.is_usage(), "{error}");
        for part in parts {
            assert!(error.to_string().contains(part), "{name}={value}: {error}");
        }
    }
}

#[test]
fn a_missing_encoder_is_a_missing_component_with_a_remedy() {
    let error = check(&settings(Codec::H264, "nosuchenc")).unwrap_err();
    assert!(error.is_missing_component());
    assert!(error.to_string().contains("nosuchenc") && error.to_string().contains("triptych-guest encoders"));
    assert!(matches!(check(&settings(Codec::H264, "vp8enc")), Err(EncodeError::WrongCodec { .. })));
    assert_eq!(streaming::encode::package_of("x264enc"), Some("gstreamer1.0-plugins-ugly"));
}

#[test]
fn encoding_a_frame_takes_a_fraction_of_its_period() {
    // Not a benchmark: only that nothing waits for a clock or a queue. The bound is a whole second.
    for (codec, element) in installed() {
        let mut run = Run::start(&settings(codec, element), Scene::Video);
        let mut times: Vec<Duration> = (0..20)
            .map(|id| {
                let start = Instant::now();
                run.encode(id, false);
                start.elapsed()
            })
            .collect();
        times.sort();
        eprintln!("{element}: median {:?}", times[10]);
        assert!(times[10] < Duration::from_secs(1), "{element}: {times:?}");
    }
}
