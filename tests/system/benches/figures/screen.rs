//! An observer of an X display: tells when which frame became visible, whoever drew it.
//!
//! XDamage tells that something was drawn anywhere below the root window; one row of pixels through the middle of the
//! bar code then tells which frame it was. Both clients are watched by the same eyes, so what the eyes cost cancels.

use anyhow::{Context, bail};
use units::{Clock, MonotonicClock, Nanos};
use x11rb::connection::{Connection, RequestConnection};
use x11rb::protocol::Event;
use x11rb::protocol::damage::{self, ConnectionExt as _, ReportLevel};
use x11rb::protocol::xproto::{ConnectionExt as _, ImageFormat};
use x11rb::rust_connection::RustConnection;

use crate::stub::{CALIBRATION, decode_bars};

/// A rectangle of the root window, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Area {
    x: i16,
    y: i16,
    width: u16,
    height: u16,
}

/// Watches one display.
pub(crate) struct Screen {
    connection: RustConnection,
    root: u32,
    damage: u32,
    size: (u16, u16),
}

impl Screen {
    /// Connects and asks for damage of the root window and everything in it.
    pub(crate) fn watch(display: &str) -> anyhow::Result<Self> {
        let (connection, number) = x11rb::connect(Some(display)).context("cannot watch the display")?;
        connection
            .extension_information(damage::X11_EXTENSION_NAME)?
            .context("the X server has no DAMAGE extension")?;
        connection.damage_query_version(1, 1)?.reply()?;
        let screen = &connection.setup().roots[number];
        let (root, size) = (screen.root, (screen.width_in_pixels, screen.height_in_pixels));
        let damage = connection.generate_id()?;
        connection.damage_create(damage, root, ReportLevel::NON_EMPTY)?.check()?;
        Ok(Self { connection, root, damage, size })
    }

    /// Waits for the next drawing, or `None` at the deadline.
    fn damaged(&self, deadline: Nanos) -> anyhow::Result<Option<Nanos>> {
        loop {
            while let Some(event) = self.connection.poll_for_event()? {
                if let Event::DamageNotify(_) = event {
                    let seen = MonotonicClock.now();
                    self.connection.damage_subtract(self.damage, x11rb::NONE, x11rb::NONE)?;
                    return Ok(Some(seen));
                }
            }
            self.connection.flush()?;
            let left = deadline.0 - MonotonicClock.now().0;
            if left <= 0 {
                return Ok(None);
            }
            let timeout =
                rustix::event::Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 };
            let mut fds =
                [rustix::event::PollFd::new(self.connection.stream(), rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, Some(&timeout))?;
        }
    }

    fn pixels(&self, area: Area) -> anyhow::Result<Vec<[u8; 3]>> {
        let cookie = self.connection.get_image(
            ImageFormat::Z_PIXMAP,
            self.root,
            area.x,
            area.y,
            area.width,
            area.height,
            !0,
        )?;
        let reply = cookie.reply()?;
        Ok(reply.data.chunks_exact(4).map(|p| [p[2], p[1], p[0]]).collect())
    }

    /// Waits until the calibration picture stands still somewhere on the display, and tells where.
    pub(crate) fn find_picture(&self, deadline: Nanos) -> anyhow::Result<Area> {
        let (mut last, mut still) = (None, 0);
        while self.damaged(deadline)?.is_some() {
            let found = self.calibrated_area()?;
            still = if found.is_some() && found == last { still + 1 } else { 0 };
            last = found;
            if still == 10 {
                return found.context("just found");
            }
        }
        bail!("the client never showed the calibration picture (last seen: {last:?})")
    }

    fn calibrated_area(&self) -> anyhow::Result<Option<Area>> {
        let whole = Area { x: 0, y: 0, width: self.size.0, height: self.size.1 };
        let pixels = self.pixels(whole)?;
        let near = |p: &[u8; 3]| p.iter().zip(CALIBRATION).all(|(a, b)| a.abs_diff(b) < 48);
        let hits = pixels
            .iter()
            .enumerate()
            .filter(|(_, p)| near(p))
            .map(|(i, _)| ((i % self.size.0 as usize) as i16, (i / self.size.0 as usize) as i16));
        let (mut low, mut high, mut count) = ((i16::MAX, i16::MAX), (0, 0), 0usize);
        for (x, y) in hits {
            (low, high) = ((low.0.min(x), low.1.min(y)), (high.0.max(x), high.1.max(y)));
            count += 1;
        }
        if count == 0 {
            return Ok(None);
        }
        let (width, height) = ((high.0 - low.0 + 1) as u16, (high.1 - low.1 + 1) as u16);
        let filled = count * 10 >= usize::from(width) * usize::from(height) * 9;
        Ok((filled && width >= 160 && height >= 90).then_some(Area { x: low.0, y: low.1, width, height }))
    }

    /// Calls `seen` with the number of each frame that becomes visible and the instant, until the deadline.
    pub(crate) fn read_frames(
        &self,
        picture: Area,
        deadline: Nanos,
        mut seen: impl FnMut(u16, Nanos),
    ) -> anyhow::Result<()> {
        let row = Area { y: picture.y + (picture.height * 7 / 8) as i16, height: 1, ..picture };
        let mut last = None;
        while let Some(at) = self.damaged(deadline)? {
            let number = decode_bars(&self.pixels(row)?);
            if number.is_some() && number != last {
                last = number;
                seen(number.context("just tested")?, at);
            }
        }
        Ok(())
    }
}
