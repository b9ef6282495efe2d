//! Generated pictures: what the guest streams when no display is captured, and what the demo paints.
//!
//! A frame depends on nothing but (scene, size, instant), so two programs on two machines make the same picture. Time
//! in a scene is counted in ticks of [`TICKS_PER_SECOND`]; motion is per second, so it is as fast at 15 frames/s as at
//! 60. Whatever is costly is drawn once when the painter is made; a frame is then mostly copies of rows.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use units::Nanos;

use crate::font;
use crate::frame::{BYTES_PER_PIXEL, FrameSize};

/// Ticks of scene time in a second: whole numbers of ticks fit a frame at 24, 30, 40, 48, 60, 80 and 120 Hz.
pub const TICKS_PER_SECOND: u64 = 240;

/// Which picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scene {
    /// A page of text and boxes that never changes: what encoders should spend nothing on.
    Still,
    /// Text that scrolls up at 60 pixels a second.
    Scroll,
    /// A textured background that pans, with textured discs moving over it.
    Video,
    /// Every pixel random in every frame: the worst case for any encoder.
    Noise,
}

impl Scene {
    /// Every scene.
    pub const ALL: [Self; 4] = [Self::Still, Self::Scroll, Self::Video, Self::Noise];

    /// Name in options and study files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Still => "still",
            Self::Scroll => "scroll",
            Self::Video => "video",
            Self::Noise => "noise",
        }
    }
}

impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no scene.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{0}' is not a scene: use still, scroll, video or noise")]
pub struct UnknownScene(String);

impl FromStr for Scene {
    type Err = UnknownScene;

    fn from_str(s: &str) -> Result<Self, UnknownScene> {
        Self::ALL.into_iter().find(|scene| scene.name() == s).ok_or_else(|| UnknownScene(s.into()))
    }
}

/// The tick of scene time at `elapsed` since the scene began, to the nearest.
pub fn tick_at(elapsed: Nanos) -> u64 {
    let ns = u128::try_from(elapsed.0).unwrap_or(0);
    ((ns * u128::from(TICKS_PER_SECOND) + 500_000_000) / 1_000_000_000) as u64
}

/// Draws the frames of one scene at one size.
pub struct Painter {
    size: FrameSize,
    kind: Kind,
}

enum Kind {
    Still(Picture),
    Scroll(Picture),
    Video { background: Picture, discs: Vec<Disc> },
    Noise,
}

/// Pixels as words `0x00RRGGBB`, which are BGRx in little-endian memory.
struct Picture {
    width: usize,
    height: usize,
    pixels: Vec<u32>,
}

struct Disc {
    radius: usize,
    /// Pixels a second.
    speed: (usize, usize),
    start: (usize, usize),
    texture: Picture,
}

impl Painter {
    /// Draws once what all frames share.
    pub fn new(scene: Scene, size: FrameSize) -> Self {
        let (width, height) = (size.width() as usize, size.height() as usize);
        let kind = match scene {
            Scene::Still => Kind::Still(page(width, height)),
            Scene::Scroll => Kind::Scroll(text_strip(width, height)),
            Scene::Video => Kind::Video {
                background: texture(width + width / 2, height + height / 2, 1),
                discs: (0..6).map(|n| disc(n, width, height)).collect(),
            },
            Scene::Noise => Kind::Noise,
        };
        Self { size, kind }
    }

    /// The frames' size.
    pub fn size(&self) -> FrameSize {
        self.size
    }

    /// Draws the frame at `tick` into `frame` (BGRx, rows without padding).
    ///
    /// # Panics
    /// `frame` is not `size.bytes()` long.
    pub fn paint(&self, tick: u64, frame: &mut [u8]) {
        assert_eq!(frame.len(), self.size.bytes());
        match &self.kind {
            Kind::Still(page) => copy_window(page, 0, 0, self.size, frame),
            Kind::Scroll(strip) => {
                let down = (tick / 4) as usize % strip.height;
                copy_window(strip, 0, down, self.size, frame);
            }
            Kind::Video { background, discs } => {
                let seconds = tick as f64 / TICKS_PER_SECOND as f64;
                let x = (background.width as f64 * (0.5 + 0.5 * (seconds * 0.35).sin())) as usize;
                let y = (background.height as f64 * (0.5 + 0.5 * (seconds * 0.23).cos())) as usize;
                copy_window(background, x, y, self.size, frame);
                for disc in discs {
                    disc.paint(tick, self.size, frame);
                }
            }
            Kind::Noise => {
                let seed = mix(tick.wrapping_mul(0x9e37_79b9_7f4a_7c15));
                for (i, pair) in frame.chunks_exact_mut(2 * BYTES_PER_PIXEL).enumerate() {
                    pair.copy_from_slice(&mix(seed.wrapping_add(i as u64)).to_le_bytes());
                }
            }
        }
    }
}

impl Picture {
    fn filled(width: usize, height: usize, colour: u32) -> Self {
        Self { width, height, pixels: vec![colour; width * height] }
    }

    /// Fills the part of the rectangle that is within the picture.
    fn rectangle(&mut self, x: usize, y: usize, width: usize, height: usize, colour: u32) {
        let right = (x + width).min(self.width);
        for row in y.min(self.height)..(y + height).min(self.height) {
            self.pixels[row * self.width + x.min(right)..row * self.width + right].fill(colour);
        }
    }

    fn text(&mut self, x: usize, y: usize, scale: usize, colour: u32, text: &str) {
        for (i, character) in text.chars().enumerate() {
            let left = x + i * font::CELL_WIDTH * scale;
            for (column, bits) in font::glyph(character).iter().enumerate() {
                for row in (0..8).filter(|row| bits >> row & 1 == 1) {
                    self.rectangle(left + column * scale, y + row * scale, scale, scale, colour);
                }
            }
        }
    }
}

impl Disc {
    fn paint(&self, tick: u64, size: FrameSize, frame: &mut [u8]) {
        let (width, height) = (size.width() as usize, size.height() as usize);
        let diameter = 2 * self.radius;
        let place = |start: usize, speed: usize, room: usize| {
            // There and back again between the edges.
            let room = room.max(1);
            let way = (start as u64 + tick * speed as u64 / TICKS_PER_SECOND) % (2 * room as u64);
            (room as i64 - (way as i64 - room as i64).abs()) as usize
        };
        let left = place(self.start.0, self.speed.0, width.saturating_sub(diameter));
        let top = place(self.start.1, self.speed.1, height.saturating_sub(diameter));
        let turn = (tick / 2) as usize;
        for row in 0..diameter.min(height - top.min(height)) {
            let away = row.abs_diff(self.radius);
            let half = ((self.radius * self.radius).saturating_sub(away * away)).isqrt();
            let from = left + self.radius - half;
            let to = (left + self.radius + half).min(width);
            if from >= to {
                continue;
            }
            let source = (row + turn) % self.texture.height * self.texture.width;
            let pixels = &self.texture.pixels[source..source + (to - from).min(self.texture.width)];
            put_row(frame, (top + row) * width + from, pixels);
        }
    }
}

fn put_row(frame: &mut [u8], pixel: usize, pixels: &[u32]) {
    let start = pixel * BYTES_PER_PIXEL;
    let row = &mut frame[start..start + pixels.len() * BYTES_PER_PIXEL];
    for (out, word) in row.as_chunks_mut::<BYTES_PER_PIXEL>().0.iter_mut().zip(pixels) {
        *out = word.to_le_bytes();
    }
}

/// Copies a frame out of a picture from (`x`, `y`), going round at its edges.
fn copy_window(picture: &Picture, x: usize, y: usize, size: FrameSize, frame: &mut [u8]) {
    let width = size.width() as usize;
    let x = x % picture.width;
    let first = (picture.width - x).min(width);
    for row in 0..size.height() as usize {
        let source = (y + row) % picture.height * picture.width;
        put_row(frame, row * width, &picture.pixels[source + x..source + x + first]);
        put_row(frame, row * width + first, &picture.pixels[source..source + width - first]);
    }
}

/// The finaliser of SplitMix64: a good scrambler of counters.
fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// A random value in 0..=255 at a grid point.
fn lattice(x: usize, y: usize, seed: u64) -> i64 {
    (mix(seed << 48 ^ (x as u64) << 24 ^ y as u64) & 0xff) as i64
}

/// Smooth noise at (`x`, `y`) with a grid of `step` pixels that repeats after `period` grid points.
fn smooth(x: usize, y: usize, step: usize, period: (usize, usize), seed: u64) -> i64 {
    let (gx, gy, fx, fy) = (x / step, y / step, (x % step) as i64, (y % step) as i64);
    let at = |dx, dy| lattice((gx + dx) % period.0, (gy + dy) % period.1, seed);
    let s = step as i64;
    let top = at(0, 0) * (s - fx) + at(1, 0) * fx;
    let bottom = at(0, 1) * (s - fx) + at(1, 1) * fx;
    (top * (s - fy) + bottom * fy) / (s * s)
}

/// A texture of coarse and fine noise in colour: the statistics of a natural picture more than of a desktop.
fn texture(width: usize, height: usize, seed: u64) -> Picture {
    let mut picture = Picture::filled(width, height, 0);
    for y in 0..height {
        for x in 0..width {
            let octave =
                |step: usize, seed| smooth(x, y, step, (width.div_ceil(step), height.div_ceil(step)), seed);
            let shade = (octave(64, seed) * 4 + octave(16, seed + 1) * 2 + octave(4, seed + 2)) / 7;
            let hue = octave(96, seed + 3);
            let red = (shade * (128 + hue / 2) / 255).clamp(0, 255) as u32;
            let green = (shade * 220 / 255).clamp(0, 255) as u32;
            let blue = (shade * (255 - hue / 2) / 255 + 20).clamp(0, 255) as u32;
            picture.pixels[y * width + x] = red << 16 | green << 8 | blue;
        }
    }
    picture
}

fn disc(n: u64, width: usize, height: usize) -> Disc {
    let radius = (height.min(width) / 12 + (n as usize * height / 80)).max(2);
    let random = mix(n + 77);
    let mut surface = texture(2 * radius, 2 * radius, 10 + n * 4);
    let tint = [0x0040_0000, 0x0000_4000, 0x0000_0040, 0x0040_4000, 0x0000_4040, 0x0040_0040][n as usize % 6];
    for pixel in &mut surface.pixels {
        *pixel |= tint;
    }
    Disc {
        radius,
        speed: (40 + (random & 0x7f) as usize, 30 + (random >> 8 & 0x5f) as usize),
        start: ((random >> 16 & 0x3ff) as usize % width, (random >> 32 & 0x3ff) as usize % height),
        texture: surface,
    }
}

const WORDS: [&str; 24] = [
    "frame", "guest", "host", "client", "the", "stream", "of", "a", "display", "encodes", "latency", "and",
    "rate", "codec", "shows", "queue", "pixel", "that", "measured", "between", "when", "panel", "sends",
    "memory",
];

/// One line of about `columns` characters of made-up prose.
fn prose(line: u64, columns: usize) -> String {
    let mut text = format!("{line:03}  ");
    let mut n = 0;
    while text.len() < columns {
        text.push_str(WORDS[(mix(line << 16 | n) % WORDS.len() as u64) as usize]);
        text.push(' ');
        n += 1;
    }
    text.truncate(columns);
    text
}

/// Text as high as two frames (or a little more), to be scrolled round.
fn text_strip(width: usize, height: usize) -> Picture {
    const LINE: usize = font::CELL_HEIGHT * 2 + 2;
    let lines = (2 * height).div_ceil(LINE);
    let mut strip = Picture::filled(width, lines * LINE, 0x00f8_f8f4);
    let columns = width / (font::CELL_WIDTH * 2);
    for line in 0..lines {
        let colour = if line % 7 == 0 { 0x0010_4080 } else { 0x0020_2020 };
        strip.text(4, line * LINE + 2, 2, colour, &prose(line as u64, columns));
    }
    strip
}

/// A page with a heading, three boxes and text below.
fn page(width: usize, height: usize) -> Picture {
    let mut page = Picture::filled(width, height, 0x00ff_ffff);
    page.rectangle(0, 0, width, height / 8, 0x0026_3a56);
    page.text(8, height / 32, (height / 120).max(1), 0x00ff_ffff, "Three panels, one clock");
    for (n, colour) in [0x00d7_e3f4, 0x00f6_e3cf, 0x00dc_efdc].into_iter().enumerate() {
        let x = width / 16 + n * width * 5 / 16;
        page.rectangle(x, height / 5, width / 4, height / 4, 0x0080_8890);
        page.rectangle(
            x + 2,
            height / 5 + 2,
            (width / 4).saturating_sub(4),
            (height / 4).saturating_sub(4),
            colour,
        );
        page.text(x + 8, height / 5 + 8, 2, 0x0026_3a56, ["guest", "host", "client"][n]);
    }
    let mut y = height / 2;
    let mut line = 0;
    while y + font::CELL_HEIGHT < height {
        page.text(width / 16, y, 1, 0x0030_3030, &prose(line, width * 7 / 8 / font::CELL_WIDTH));
        y += font::CELL_HEIGHT + 4;
        line += 1;
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(scene: Scene, size: &str, tick: u64) -> Vec<u8> {
        let size: FrameSize = size.parse().unwrap();
        let mut frame = vec![0xaa; size.bytes()];
        Painter::new(scene, size).paint(tick, &mut frame);
        frame
    }

    fn changed_pixels(a: &[u8], b: &[u8]) -> f64 {
        let differ = a.chunks_exact(4).zip(b.chunks_exact(4)).filter(|(a, b)| a != b).count();
        differ as f64 / (a.len() / 4) as f64
    }

    #[test]
    fn frames_depend_on_scene_size_and_tick_only() {
        for scene in Scene::ALL {
            for tick in [0, 8, 1_000_000_007] {
                assert_eq!(frame(scene, "320x180", tick), frame(scene, "320x180", tick), "{scene} {tick}");
            }
        }
    }

    #[test]
    fn scenes_move_as_much_as_they_say() {
        for (scene, low, high) in [
            (Scene::Still, 0.0, 0.0),
            (Scene::Scroll, 0.05, 0.6),
            (Scene::Video, 0.5, 1.0),
            (Scene::Noise, 0.999, 1.0),
        ] {
            let share = changed_pixels(&frame(scene, "640x360", 800), &frame(scene, "640x360", 832));
            assert!((low..=high).contains(&share), "{scene} changed {share}");
        }
    }

    #[test]
    fn scenes_differ_from_each_other() {
        for a in Scene::ALL {
            for b in Scene::ALL {
                let share = changed_pixels(&frame(a, "320x180", 40), &frame(b, "320x180", 40));
                assert_eq!(share > 0.1, a != b, "{a} {b} {share}");
            }
        }
    }

    #[test]
    fn every_size_can_be_painted_at_any_tick() {
        for size in ["16x16", "16x2160", "4096x16", "1278x718"] {
            for scene in Scene::ALL {
                for tick in [0, 1, 4_241, u32::MAX.into()] {
                    frame(scene, size, tick);
                }
            }
        }
    }

    #[test]
    fn ticks_follow_time_at_common_frame_rates() {
        for fps in [24u64, 30, 60, 120] {
            for frame in 0..500 {
                assert_eq!(tick_at(Nanos((frame * 1_000_000_000 / fps) as i64)), frame * 240 / fps);
            }
        }
        assert_eq!(tick_at(Nanos(-5)), 0);
    }
}
