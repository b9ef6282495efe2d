//! Capture of a real X server (Xvfb) with the painter's window on it.
#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use recording::Address;
use recording::collector::{Collector, CollectorEvent, CollectorOptions};
use rustix::process::{Pid, Signal, kill_process};
use spice::stream_device::{Message, Parser, VideoCodec};
use streaming::frame::{FramePool, FrameSize};
use streaming::scene::{Painter, Scene};
use streaming::source::SourceSpec;
use units::Nanos;
use x11rb::connection::Connection;
use x11rb::protocol::randr::ConnectionExt as _;

const DEADLINE: Duration = Duration::from_secs(20);

/// A child that is gone when the test is.
struct Kept(Child);

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An X server of 800x600 on a free display, and its name.
fn xvfb() -> Option<(Kept, String)> {
    let spawned = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let mut child = match spawned {
        Ok(child) => Kept(child),
        Err(error) => {
            eprintln!("skipped: Xvfb cannot be started ({error}): apt install xvfb");
            return None;
        }
    };
    // Ends with the number when the server is ready, or with nothing when it died.
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.trim().is_empty(), "Xvfb did not start");
    Some((child, format!(":{}", line.trim())))
}

fn paint(display: &str, scene: &str) -> Kept {
    let child = Command::new(env!("CARGO_BIN_EXE_triptych-guest"))
        .args(["paint", "--display", display, "--scene", scene, "--size", "640x360", "--fps", "60"])
        .spawn();
    Kept(child.unwrap())
}

/// Captures until the picture satisfies; fails at the deadline.
fn capture_until(display: &str, size: &str, mut satisfied: impl FnMut(&[u8]) -> bool) {
    let size: FrameSize = size.parse().unwrap();
    let mut source = SourceSpec::X11(display.into()).open(Some(size)).unwrap();
    let mut pool = FramePool::new(size, 3).unwrap();
    let mut frame = vec![0; size.bytes()];
    let start = Instant::now();
    for slot in (0..3).cycle() {
        source.capture(&mut pool, slot, Nanos::ZERO).unwrap();
        pool.read(slot, &mut frame);
        if satisfied(&frame) {
            return;
        }
        assert!(start.elapsed() < DEADLINE, "the picture did not come");
    }
}

/// Whether two pictures are the same but for the fourth byte, which no one uses.
fn same_picture(a: &[u8], b: &[u8]) -> bool {
    a.chunks_exact(4).zip(b.chunks_exact(4)).all(|(a, b)| a[..3] == b[..3])
}

#[test]
fn what_is_painted_is_captured_pixel_by_pixel() {
    let Some((_server, display)) = xvfb() else { return };
    let size: FrameSize = "640x360".parse().unwrap();
    let mut page = vec![0; size.bytes()];
    Painter::new(Scene::Still, size).paint(0, &mut page);
    let mut painter = paint(&display, "still");
    capture_until(&display, "640x360", |frame| same_picture(frame, &page));
    // A smaller capture is the top left corner.
    let corner: Vec<u8> =
        page.chunks_exact(640 * 4).take(100).flat_map(|row| &row[..200 * 4]).copied().collect();
    capture_until(&display, "200x100", |frame| same_picture(frame, &corner));
    kill_process(Pid::from_child(&painter.0), Signal::TERM).unwrap();
    assert!(painter.0.wait().unwrap().success());
}

#[test]
fn a_moving_scene_keeps_changing() {
    let Some((_server, display)) = xvfb() else { return };
    let _painter = paint(&display, "video");
    let (mut last, mut changes) = (Vec::new(), 0);
    capture_until(&display, "640x360", |frame| {
        if !last.is_empty() && !same_picture(&last, frame) {
            changes += 1;
        }
        last = frame.to_vec();
        changes >= 5
    });
}

#[test]
fn a_size_beyond_the_display_and_a_dead_display_are_told() {
    let Some((server, display)) = xvfb() else { return };
    let spec = SourceSpec::X11(display.clone());
    let error = spec.open("1024x600".parse().ok()).err().unwrap().to_string();
    assert!(error.contains("is 800x600, too small for --size 1024x600"), "{error}");
    let mut source = spec.open(None).unwrap();
    assert_eq!(source.size().to_string(), "800x600");
    let mut pool = FramePool::new(source.size(), 1).unwrap();
    source.capture(&mut pool, 0, Nanos::ZERO).unwrap();
    drop(server);
    let error = source.capture(&mut pool, 0, Nanos::ZERO).unwrap_err().to_string();
    assert!(error.contains("is lost"), "{error}");
}

#[test]
fn the_guest_streams_a_display_and_faults_when_it_goes() {
    let Some((server, display)) = xvfb() else { return };
    let _painter = paint(&display, "video");
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let port = format!("unix:{}", folder.path().join("s").display());
    let mut guest = Kept(
        Command::new(env!("CARGO_BIN_EXE_triptych-guest"))
            .args([
                "--port",
                &port,
                "--source",
                &format!("x11:{display}"),
                "--size",
                "640x360",
                "--codec",
                "mjpeg",
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap(),
    );
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&Message::StartStop(vec![VideoCodec::Mjpeg]).encode()).unwrap();
    let (mut parser, mut frames, mut buffer) = (Parser::new(), 0, [0; 65_536]);
    while frames < 10 {
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0);
        let messages = parser.push(&buffer[..n]).unwrap();
        frames += messages.iter().filter(|m| matches!(m, Message::Data(_))).count();
    }
    drop(server);
    while socket.read(&mut buffer).is_ok_and(|n| n > 0) {}
    assert_eq!(guest.0.wait().unwrap().code(), Some(1));
    let mut log = String::new();
    guest.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
    assert!(log.contains(&format!("display '{display}' is lost")), "{log}");
}

/// Makes the display's root window smaller, as a person or a virtual graphics card does.
fn resize(display: &str, width: u16, height: u16) {
    let (connection, screen) = x11rb::connect(Some(display)).unwrap();
    let root = connection.setup().roots[screen].root;
    let found = connection.randr_get_screen_resources(root).unwrap().reply().unwrap();
    for crtc in &found.crtcs {
        let off = connection.randr_set_crtc_config(*crtc, 0, 0, 0, 0, 0, 1u16.into(), &[]);
        off.unwrap().reply().unwrap();
    }
    let (mm_width, mm_height) = (u32::from(width) / 4, u32::from(height) / 4);
    connection.randr_set_screen_size(root, width, height, mm_width, mm_height).unwrap().check().unwrap();
}

#[test]
fn a_guest_of_a_whole_display_follows_its_size_and_marks_it() {
    let Some((_server, display)) = xvfb() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    let address = Address::Unix(folder.path().join("collector"));
    let to = address.to_string();
    let collector = Collector::start(CollectorOptions::new(address, folder.path().join("run"))).unwrap();
    let listener = UnixListener::bind(folder.path().join("s")).unwrap();
    let port = format!("unix:{}", folder.path().join("s").display());
    let source = format!("x11:{display}");
    let guest = Command::new(env!("CARGO_BIN_EXE_triptych-guest"))
        .args(["--port", &port, "--source", &source, "--codec", "vp8", "--collector", &to])
        .stderr(Stdio::null())
        .spawn();
    let _guest = Kept(guest.unwrap());
    let (mut socket, _) = listener.accept().unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    socket.write_all(&Message::StartStop(vec![VideoCodec::Vp8]).encode()).unwrap();
    let (mut parser, mut waiting) = (Parser::new(), std::collections::VecDeque::new());
    let mut next = || loop {
        if let Some(message) = waiting.pop_front() {
            return message;
        }
        let mut buffer = [0; 65_536];
        let n = socket.read(&mut buffer).unwrap();
        assert!(n > 0, "the guest is gone");
        waiting.extend(parser.push(&buffer[..n]).unwrap());
    };
    for (width, height) in [(800, 600), (640, 480)] {
        let start = Instant::now();
        let format = Message::Format { width, height, codec: VideoCodec::Vp8 };
        while next() != format {
            assert!(start.elapsed() < DEADLINE, "{width}x{height} did not come");
        }
        // Decoding can start with the first frame of each size, which says its size.
        let Message::Data(frame) = next() else { panic!("no frame after the format") };
        assert_eq!(frame[0] & 1, 0, "a keyframe");
        let side = |at: usize| u32::from(u16::from_le_bytes([frame[at], frame[at + 1]]) & 0x3fff);
        assert_eq!((side(6), side(8)), (width, height));
        if width == 800 {
            resize(&display, 640, 480);
        }
    }
    let (mut marks, start) = (Vec::new(), Instant::now());
    while marks.len() < 2 && start.elapsed() < DEADLINE {
        if let Some(CollectorEvent::Mark { kind, text, .. }) = collector.next_event(DEADLINE) {
            marks.push((kind, text));
        }
    }
    assert_eq!(marks[0], ("resolution_changed".to_owned(), "800x600 -> 640x480".to_owned()));
    assert!(marks[1].0 == "encoder_restarted" && marks[1].1.starts_with("vp8enc, after "), "{marks:?}");
}
