//! Clients that we did not write watch our stream: what they paint on an X display is the proof.
#![allow(clippy::unwrap_used)] // also in the tests' helpers

use std::process::{Command, Stdio};
use std::time::Duration;

use system_tests::{Host, Running, Screenshot, Xvfb, peer, program, wait_for};

const DEADLINE: Duration = Duration::from_secs(60);
/// Pixels of the streamed picture.
const PICTURE: usize = 640 * 360;
/// Difference in a colour that no lossy codec makes in a picture that stands still.
const MOVED: u8 = 40;

/// Streams a moving scene to a client and waits until the client's screen shows it moving.
fn shows(name: &str, package: &str, arguments: impl Fn(u16) -> Vec<String>, codec: &str) {
    let Some(client) = peer(name, package) else { return };
    let Some(_) = peer("Xvfb", "xvfb") else { return };
    let (display, host) = (Xvfb::start().unwrap(), Host::start(&[]).unwrap());
    let empty = display.screenshot().unwrap();

    let mut guest = Command::new(program("triptych-guest"));
    guest.arg("--port").arg(format!("unix:{}", host.stream_socket().display()));
    guest.args(["--source", "scene:video", "--size", "640x360", "--fps", "20", "--codec", codec]);
    let _guest = Running::spawn(guest).unwrap();
    host.event("guest-connected").unwrap();

    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(client);
    command.args(arguments(host.spice_port())).env("DISPLAY", display.name());
    command.env("HOME", home.path()).env("XDG_RUNTIME_DIR", home.path()).env("NO_AT_BRIDGE", "1");
    command.env_remove("WAYLAND_DISPLAY").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let client = Running::spawn(command).unwrap();
    let codecs = host.event("start").unwrap();
    assert!(codecs.split(' ').any(|c| c == codec), "{name} offers {codecs}, not {codec}");

    let mut first = None;
    wait_for(DEADLINE, &format!("{name} to show {codec} moving"), || {
        let now = display.screenshot().unwrap();
        // A picture with many colours, not a window that opens or a spinner.
        if now.differing(&empty, MOVED) < PICTURE / 2 || colours(&now) < 1000 {
            return false;
        }
        let first = first.get_or_insert_with(|| now.clone());
        now.differing(first, MOVED) > PICTURE / 20
    })
    .unwrap();
    let totals = host.totals().unwrap();
    assert!(totals.frames >= 2 && totals.viewers == 1, "{totals:?}");
    assert!(totals.to_client_bytes > totals.from_guest_bytes / 2, "{totals:?}");

    drop(client);
    host.event("stop").unwrap();
    host.stop().unwrap();
}

/// Number of different colours, of five bits a channel.
fn colours(picture: &Screenshot) -> usize {
    let mut seen = vec![false; 1 << 15];
    for p in picture.rgb.chunks_exact(3) {
        seen[usize::from(p[0] >> 3) << 10 | usize::from(p[1] >> 3) << 5 | usize::from(p[2] >> 3)] = true;
    }
    seen.into_iter().filter(|s| *s).count()
}

fn spicy(codec: &str) {
    let arguments = |port| vec!["-h".into(), "127.0.0.1".into(), "-p".into(), format!("{port}")];
    shows("spicy", "spice-client-gtk", arguments, codec);
}

#[test]
fn spicy_shows_mjpeg() {
    spicy("mjpeg");
}

#[test]
fn spicy_shows_h264() {
    spicy("h264");
}

#[test]
fn spicy_shows_vp8() {
    spicy("vp8");
}

#[test]
fn remote_viewer_shows_h264() {
    shows("remote-viewer", "virt-viewer", |port| vec![format!("spice://127.0.0.1:{port}")], "h264");
}
