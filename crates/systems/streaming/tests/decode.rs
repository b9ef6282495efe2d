//! Every installed decoder gives the picture of each access unit at once, and goes on after a unit that is broken.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use streaming::codec::Codec;
use streaming::decode::{DecodeError, Decoder, MAX_WAITING, Pixels};
use streaming::encode::{Encoder, EncoderSettings, Output, encoders};
use streaming::frame::FrameSize;
use streaming::scene::{Painter, Scene, TICKS_PER_SECOND};

const DEADLINE: Duration = Duration::from_secs(20);
const GOP: u32 = 8;
/// Least PSNR in dB of a picture that shows its frame: small sharp text in 4:2:0; another frame has about 12.
const CLEAR: f64 = 20.0;

fn size() -> FrameSize {
    FrameSize::new(640, 360).unwrap()
}

/// One encoder for each codec that is installed here.
fn codecs() -> Vec<(Codec, &'static str)> {
    let mut here: Vec<_> = encoders().unwrap().into_iter().filter(|e| e.installed).collect();
    here.dedup_by_key(|e| e.codec);
    assert!(!here.is_empty(), "no encoder is installed: apt install gstreamer1.0-plugins-good");
    here.into_iter().map(|e| (e.codec, e.element)).collect()
}

/// Frame `id` of the scene, 32 bits a pixel.
fn page(id: u64) -> Vec<u8> {
    let mut page = vec![0; size().bytes()];
    Painter::new(Scene::Scroll, size()).paint(id * TICKS_PER_SECOND / 30, &mut page);
    page
}

/// Access units of the first `count` frames.
fn units_of(codec: Codec, element: &str, count: u64) -> Vec<Vec<u8>> {
    let settings = EncoderSettings {
        codec,
        element: Some(element.into()),
        size: size(),
        fps: 30.0,
        // Enough for MJPEG to show sharp text.
        bitrate_kbps: 30_000,
        gop: GOP,
        set: Vec::new(),
    };
    let (sender, outputs) = channel();
    let mut encoder = Encoder::open(&settings, move |output| drop(sender.send(output))).unwrap();
    (0..count)
        .map(|id| {
            encoder.push(id, false, |into| into.copy_from_slice(&page(id))).unwrap();
            match outputs.recv_timeout(DEADLINE).expect("no unit") {
                Output::Unit(unit) => unit.data,
                Output::Failed(reason) => panic!("{element}: {reason}"),
            }
        })
        .collect()
}

/// A decoder whose pictures arrive as number and pixels without padding.
fn decoder(codec: Codec) -> (Decoder, Receiver<(u64, Vec<u8>)>) {
    let (sender, pictures) = channel();
    let on_picture = move |picture: streaming::decode::Decoded<'_>| {
        assert_eq!(picture.size(), (size().width(), size().height()));
        assert!(picture.decode_start <= picture.decoded_at);
        let (plane, stride) = picture.plane().unwrap();
        let row = size().width() as usize * 4;
        let pixels = plane.chunks(stride).flat_map(|r| &r[..row]).copied().collect();
        drop(sender.send((picture.id, pixels)));
    };
    let open = Decoder::open(codec, (size().width(), size().height()), Pixels::Bgrx, on_picture);
    (open.unwrap(), pictures)
}

/// Peak signal-to-noise ratio over blue, green and red, in dB.
fn psnr(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    let colours = || a.chunks_exact(4).zip(b.chunks_exact(4)).flat_map(|(a, b)| a[..3].iter().zip(&b[..3]));
    let sum: f64 = colours().map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum();
    let mean = sum / colours().count() as f64;
    10.0 * (255.0_f64.powi(2) / mean.max(1e-9)).log10()
}

#[test]
fn each_unit_gives_its_picture_before_the_next_goes_in() {
    for (codec, element) in codecs() {
        let (decoder, pictures) = decoder(codec);
        let mut worst = f64::INFINITY;
        for (id, unit) in (0..).zip(units_of(codec, element, 20)) {
            decoder.push(id, unit).unwrap();
            let (got, pixels) =
                pictures.recv_timeout(DEADLINE).unwrap_or_else(|_| panic!("{codec}: no picture of {id}"));
            assert_eq!(got, id, "{codec}");
            // The picture of this frame, not of its neighbour.
            let (own, next) = (psnr(&pixels, &page(id)), psnr(&pixels, &page(id + 1)));
            assert!(own > next + 3.0, "{codec}: frame {id} has {own:.1} dB to itself, {next:.1} to the next");
            worst = worst.min(own);
        }
        eprintln!("{codec} by {element}: at least {worst:.1} dB");
        assert!(worst > CLEAR, "{codec}: {worst:.1} dB");
        assert_eq!(decoder.waiting(), 0, "{codec}");
    }
}

#[test]
fn broken_units_cost_pictures_but_never_the_stream() {
    for (codec, element) in codecs() {
        let units = units_of(codec, element, u64::from(GOP) * 4);
        let (decoder, pictures) = decoder(codec);
        let broken = |id: u64, unit: &[u8]| match id {
            9 => unit[..unit.len() / 2].to_vec(),
            10 => unit.iter().enumerate().map(|(i, b)| if i % 7 == 3 { !b } else { *b }).collect(),
            11 => vec![0],
            12 => (0..4000_u32).map(|i| u8::try_from(i * i % 251).unwrap()).collect(),
            // A whole group of pictures without its head.
            16 => unit[unit.len() - 3..].to_vec(),
            _ => unit.to_vec(),
        };
        let last = units.len() as u64 - 1;
        for (id, unit) in (0..).zip(&units) {
            decoder.push(id, broken(id, unit)).unwrap_or_else(|e| panic!("{codec}: frame {id}: {e}"));
        }
        let mut seen = Vec::new();
        let pixels = loop {
            match pictures.recv_timeout(DEADLINE) {
                Ok((id, pixels)) if id == last => break pixels,
                Ok((id, _)) => seen.push(id),
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{codec}: ended after {seen:?}: {:?}", decoder.failure())
                }
                Err(RecvTimeoutError::Disconnected) => panic!("{codec}: gone after {seen:?}"),
            }
        };
        eprintln!("{codec}: pictures of {} of {} units", seen.len() + 1, units.len());
        assert!(seen.is_sorted() && (0..9).all(|id| seen.contains(&id)), "{codec}: {seen:?}");
        let own = psnr(&pixels, &page(last));
        assert!(own > CLEAR, "{codec}: {own:.1} dB after the damage");
    }
}

#[test]
fn who_sends_more_than_can_wait_is_refused_and_nothing_grows() {
    // A decoder that is stuck: its callback does not return until the end.
    let (release, gate) = channel::<()>();
    let (codec, element) = codecs()[0];
    let unit = units_of(codec, element, 1).remove(0);
    let stuck = move |_: streaming::decode::Decoded<'_>| {
        let _ = gate.recv();
    };
    let decoder = Decoder::open(codec, (640, 360), Pixels::AsDecoded, stuck).unwrap();
    let refused = (0..2 * MAX_WAITING as u64).find_map(|id| decoder.push(id, unit.clone()).err());
    assert!(matches!(refused, Some(DecodeError::Behind(n)) if n >= MAX_WAITING), "{refused:?}");
    assert!(decoder.waiting() <= MAX_WAITING);
    drop(release);
}
