//! An X display in memory.

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, bail};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{ConnectionExt, ImageFormat};

use crate::{PATIENCE, Running};

/// A running Xvfb with one screen of 1024 × 768 pixels in 24-bit colour.
pub struct Xvfb {
    running: Running,
    name: String,
}

/// The picture on a screen: rows from the top, three bytes a pixel (red, green, blue).
#[derive(Clone, PartialEq, Eq)]
pub struct Screenshot {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The pixels.
    pub rgb: Vec<u8>,
}

impl Screenshot {
    /// The pixel at a place.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// How many pixels differ from another picture of the same size by more than `tolerance` in any colour.
    pub fn differing(&self, other: &Self, tolerance: u8) -> usize {
        let pairs = self.rgb.chunks_exact(3).zip(other.rgb.chunks_exact(3));
        pairs.filter(|(a, b)| a.iter().zip(b.iter()).any(|(a, b)| a.abs_diff(*b) > tolerance)).count()
    }
}

impl Xvfb {
    /// Starts one on a free display.
    ///
    /// # Errors
    /// Xvfb is not installed, or does not serve in time.
    pub fn start() -> anyhow::Result<Self> {
        let mut command = Command::new("Xvfb");
        command.args(["-displayfd", "1", "-screen", "0", "1024x768x24", "-nolisten", "tcp", "-noreset"]);
        command.stderr(Stdio::null());
        let running = Running::spawn_reading(command).context("install the Debian package xvfb")?;
        let name = format!(":{}", running.line(Instant::now() + PATIENCE)?.trim());
        Ok(Self { running, name })
    }

    /// `:99`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id of the X server.
    pub fn id(&self) -> u32 {
        self.running.id()
    }

    /// What is on the screen now.
    ///
    /// # Errors
    /// The server is gone, or its pixels have another layout than 32 bits, blue first.
    pub fn screenshot(&self) -> anyhow::Result<Screenshot> {
        let (connection, number) = x11rb::connect(Some(&self.name))?;
        let screen = &connection.setup().roots[number];
        let (width, height) = (screen.width_in_pixels, screen.height_in_pixels);
        let image =
            connection.get_image(ImageFormat::Z_PIXMAP, screen.root, 0, 0, width, height, !0)?.reply()?;
        let (width, height) = (usize::from(width), usize::from(height));
        if image.data.len() != width * height * 4 {
            bail!("{} bytes for {width}x{height} pixels", image.data.len());
        }
        let rgb = image.data.chunks_exact(4).flat_map(|p| [p[2], p[1], p[0]]).collect();
        Ok(Screenshot { width, height, rgb })
    }
}
