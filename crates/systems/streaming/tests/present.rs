//! A window on a real X server (Xvfb) shows the pictures it is given, pixel by pixel.

#![allow(clippy::unwrap_used)] // helpers of tests

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use streaming::present::{PresentError, Window, WindowEvent};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ClientMessageEvent, ConnectionExt, EventMask, ImageFormat};
use x11rb::rust_connection::RustConnection;

const DEADLINE: Duration = Duration::from_secs(20);

struct Server(Child, String);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn xvfb() -> Option<Server> {
    let spawned = Command::new("Xvfb")
        .args(["-displayfd", "1", "-screen", "0", "800x600x24", "-nolisten", "tcp", "-noreset"])
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut child) = spawned else {
        eprintln!("skipped: Xvfb cannot be started: apt install xvfb");
        return None;
    };
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let server = Server(child, format!(":{}", line.trim()));
    assert!(!line.trim().is_empty(), "Xvfb did not start");
    Some(server)
}

/// The X server as any other program sees it.
struct Onlooker {
    connection: RustConnection,
    root: u32,
}

impl Onlooker {
    fn new(display: &str) -> Self {
        let (connection, screen) = RustConnection::connect(Some(display)).unwrap();
        let root = connection.setup().roots[screen].root;
        Self { connection, root }
    }

    /// What is on the screen's top left corner, blue, green, red of each pixel.
    fn see(&self, width: u16, height: u16) -> Vec<u8> {
        let image = self.connection.get_image(ImageFormat::Z_PIXMAP, self.root, 0, 0, width, height, !0);
        let image = image.unwrap().reply().unwrap();
        image.data.chunks_exact(4).flat_map(|p| &p[..3]).copied().collect()
    }

    /// The only window.
    fn window(&self) -> u32 {
        self.connection.query_tree(self.root).unwrap().reply().unwrap().children[0]
    }
}

/// A picture in which each pixel tells its place; rows end with `padding` bytes that are no pixels.
fn picture(width: u16, height: u16, salt: u8, padding: usize) -> Vec<u8> {
    (0..height)
        .flat_map(|y| {
            let pixels = (0..width).flat_map(move |x| [x as u8, y as u8, (x / 7) as u8 ^ salt, 0]);
            pixels.chain(std::iter::repeat_n(0xee, padding))
        })
        .collect()
}

fn colours(picture: &[u8]) -> Vec<u8> {
    picture.chunks_exact(4).flat_map(|p| &p[..3]).copied().collect()
}

#[test]
fn pictures_are_on_the_screen_when_show_returns_at_any_size_and_stride() {
    let Some(server) = xvfb() else { return };
    let onlooker = Onlooker::new(&server.1);
    let mut window = Window::open(&server.1, "test", (320, 200)).unwrap();
    let mut before = None;
    for (width, height, salt, padding) in
        [(320, 200, 1, 0), (320, 200, 2, 64), (401, 299, 3, 12), (9, 1, 4, 0), (64, 64, 5, 0)]
    {
        let stride = usize::from(width) * 4 + padding;
        let size = (u32::from(width), u32::from(height));
        let at = window.show(size, &picture(width, height, salt, padding), stride).unwrap();
        assert!(before.is_none_or(|b| at > b), "the clock goes on");
        before = Some(at);
        let expected = colours(&picture(width, height, salt, 0));
        assert!(onlooker.see(width, height) == expected, "{width}x{height}, {padding} bytes of padding");
    }
}

#[test]
fn a_picture_shorter_than_it_says_is_refused_and_the_window_stays() {
    let Some(server) = xvfb() else { return };
    let mut window = Window::open(&server.1, "test", (320, 200)).unwrap();
    let whole = picture(320, 200, 0, 0);
    for (size, pixels, stride) in [
        ((320, 200), &whole[..whole.len() - 1], 1280),
        ((320, 200), &whole[..], 1200),
        ((320, 200), &[][..], 0),
        ((0, 200), &whole[..], 1280),
        ((100_000, 200), &whole[..], 1280),
        ((320, 200), &whole[..], usize::MAX),
    ] {
        let refused = window.show(size, pixels, stride);
        assert!(matches!(refused, Err(PresentError::Size(..))), "{size:?} {stride}: {refused:?}");
    }
    window.show((320, 200), &whole, 1280).unwrap();
    assert!(Onlooker::new(&server.1).see(320, 200) == colours(&whole));
}

#[test]
fn what_was_covered_is_painted_again_and_a_closed_window_says_so() {
    let Some(server) = xvfb() else { return };
    let onlooker = Onlooker::new(&server.1);
    let mut window = Window::open(&server.1, "test", (320, 200)).unwrap();
    let shown = picture(320, 200, 9, 0);
    window.show((320, 200), &shown, 1280).unwrap();
    assert_eq!(window.poll().unwrap(), None);

    let wiped = onlooker.connection.clear_area(true, onlooker.window(), 0, 0, 320, 200).unwrap();
    wiped.check().unwrap();
    assert!(onlooker.see(320, 200) != colours(&shown), "the picture was wiped");
    let start = Instant::now();
    while onlooker.see(320, 200) != colours(&shown) {
        assert_eq!(window.poll().unwrap(), None);
        assert!(start.elapsed() < DEADLINE, "the picture did not come back");
    }

    let atom =
        |name: &str| onlooker.connection.intern_atom(false, name.as_bytes()).unwrap().reply().unwrap().atom;
    let close = ClientMessageEvent::new(
        32,
        onlooker.window(),
        atom("WM_PROTOCOLS"),
        [atom("WM_DELETE_WINDOW"), 0, 0, 0, 0],
    );
    onlooker
        .connection
        .send_event(false, onlooker.window(), EventMask::NO_EVENT, close)
        .unwrap()
        .check()
        .unwrap();
    let start = Instant::now();
    while window.poll().unwrap() != Some(WindowEvent::Closed) {
        assert!(start.elapsed() < DEADLINE, "the window was not closed");
    }
}

#[test]
fn a_display_that_dies_and_one_that_is_none_are_told() {
    let Some(mut server) = xvfb() else { return };
    let mut window = Window::open(&server.1, "test", (320, 200)).unwrap();
    server.0.kill().unwrap();
    server.0.wait().unwrap();
    let lost = window.show((320, 200), &picture(320, 200, 0, 0), 1280).unwrap_err();
    assert!(matches!(lost, PresentError::Lost(_)), "{lost}");
    let none = Window::open(":987", "test", (320, 200)).err().unwrap();
    assert!(none.to_string().contains(":987"), "{none}");
}
