//! Capture of an X display through MIT-SHM: the X server copies its root window straight into a frame slot.

use std::os::fd::OwnedFd;

use units::Nanos;
use x11rb::connection::{Connection, RequestConnection};
use x11rb::protocol::Event;
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{ChangeWindowAttributesAux, ConnectionExt as _, EventMask, ImageOrder, Screen};
use x11rb::reexports::x11rb_protocol::parse_display::parse_display;
use x11rb::rust_connection::RustConnection;

use super::{Source, SourceError};
use crate::frame::{FramePool, FrameSize};

/// `ZPixmap` of `X11/X.h`.
pub(crate) const Z_PIXMAP: u8 = 2;

/// An X display's root window, from its top left corner.
pub struct X11Source {
    connection: RustConnection,
    display: String,
    root: u32,
    size: FrameSize,
    /// All of the display is wanted, whatever size it takes.
    whole: bool,
    segment: Option<shm::Seg>,
}

impl X11Source {
    /// Connects to `display` (for instance `:99`) and captures `size` of it, or all of it: a capture then fails with
    /// [`SourceError::Resized`] as soon as the display has another size.
    ///
    /// # Errors
    /// The display cannot be reached, or cannot be captured in the format or size.
    pub fn open(display: &str, size: Option<FrameSize>) -> Result<Self, SourceError> {
        let (connection, screen) = connect(display)?;
        let root = connection.setup().roots.get(screen).ok_or_else(|| SourceError::Display {
            display: display.into(),
            reason: format!("it has no screen {screen}"),
        })?;
        let (root, mut width, mut height) = check_format(&connection, root, display)?;
        let whole = size.is_none();
        let refuse = |reason: String| SourceError::Display { display: display.into(), reason };
        if whole {
            let events = ChangeWindowAttributesAux::new().event_mask(EventMask::STRUCTURE_NOTIFY);
            let asked = connection.change_window_attributes(root, &events);
            asked.map_err(|e| refuse(e.to_string()))?.check().map_err(|e| refuse(e.to_string()))?;
            // From here on nothing is missed.
            let geometry = connection.get_geometry(root).map_err(|e| refuse(e.to_string()))?;
            let geometry = geometry.reply().map_err(|e| refuse(e.to_string()))?;
            (width, height) = (geometry.width.into(), geometry.height.into());
        }
        let size = match size {
            Some(size) => size,
            // The largest even size: chroma is at half resolution.
            None => FrameSize::new(width & !1, height & !1).map_err(|e| refuse(e.to_string()))?,
        };
        if size.width() > width || size.height() > height {
            return Err(SourceError::TooLarge { display: display.into(), size, width, height });
        }
        Ok(Self { connection, display: display.into(), root, size, whole, segment: None })
    }

    fn lost(&self, reason: impl ToString) -> SourceError {
        SourceError::Lost { display: self.display.clone(), reason: reason.to_string() }
    }

    fn attach(&mut self, pool: &FramePool) -> Result<shm::Seg, SourceError> {
        if let Some(segment) = self.segment {
            return Ok(segment);
        }
        let fd = pool.memory().duplicate().map_err(|e| self.lost(e))?;
        let segment = attach(&self.connection, fd).map_err(|e| self.lost(e))?;
        self.segment = Some(segment);
        Ok(segment)
    }

    /// Why a capture was refused: a display that has become smaller is told apart.
    fn refused(&self, error: impl ToString) -> SourceError {
        let geometry = self.connection.get_geometry(self.root).ok().and_then(|cookie| cookie.reply().ok());
        match geometry {
            Some(g) if u32::from(g.width) < self.size.width() || u32::from(g.height) < self.size.height() => {
                self.resized(g.width, g.height)
            }
            _ => self.lost(error),
        }
    }

    fn resized(&self, width: u16, height: u16) -> SourceError {
        let (display, size) = (self.display.clone(), self.size);
        SourceError::Resized { display, size, width: width.into(), height: height.into() }
    }

    /// Looks whether all of the display is another size than before.
    fn follow(&self) -> Result<(), SourceError> {
        while self.whole
            && let Some(event) = self.connection.poll_for_event().map_err(|e| self.lost(e))?
        {
            if let Event::ConfigureNotify(event) = event
                && event.window == self.root
                && (event.width & !1, event.height & !1)
                    != (self.size.width() as u16, self.size.height() as u16)
            {
                return Err(self.resized(event.width, event.height));
            }
        }
        Ok(())
    }
}

impl Source for X11Source {
    fn size(&self) -> FrameSize {
        self.size
    }

    fn capture(&mut self, pool: &mut FramePool, slot: usize, _at: Nanos) -> Result<(), SourceError> {
        self.follow()?;
        let segment = self.attach(pool)?;
        let offset = u32::try_from(pool.offset(slot)).map_err(|_| self.lost("pool is beyond 4 GiB"))?;
        let (width, height) = (self.size.width() as u16, self.size.height() as u16);
        let reply = self
            .connection
            .shm_get_image(self.root, 0, 0, width, height, !0, Z_PIXMAP, segment, offset)
            .map_err(|e| self.lost(e))?
            .reply()
            .map_err(|e| self.refused(e))?;
        if reply.size as usize != self.size.bytes() {
            return Err(self.lost(format!("it gave {} bytes for {}", reply.size, self.size)));
        }
        Ok(())
    }
}

/// Connects, and makes sure that memory can be shared by descriptor (MIT-SHM 1.2).
pub(crate) fn connect(display: &str) -> Result<(RustConnection, usize), SourceError> {
    let refuse = |reason: String| SourceError::Display { display: display.into(), reason };
    // x11rb adds the number to TCP port 6000 without a check and panics beyond it.
    let number = parse_display(Some(display)).map_err(|e| refuse(e.to_string()))?.display;
    if number > u16::MAX - 6000 {
        return Err(refuse(format!("there is no display number {number}")));
    }
    let (connection, screen) = x11rb::connect(Some(display)).map_err(|e| refuse(e.to_string()))?;
    let extension =
        connection.extension_information(shm::X11_EXTENSION_NAME).map_err(|e| refuse(e.to_string()))?;
    if extension.is_none() {
        return Err(refuse("it has no MIT-SHM extension (is it on another machine?)".into()));
    }
    let version = connection
        .shm_query_version()
        .map_err(|e| refuse(e.to_string()))?
        .reply()
        .map_err(|e| refuse(e.to_string()))?;
    if (version.major_version, version.minor_version) < (1, 2) {
        return Err(refuse(format!(
            "its MIT-SHM is version {}.{}, and 1.2 is needed",
            version.major_version, version.minor_version
        )));
    }
    Ok((connection, screen))
}

/// Checks that pixels are BGRx in memory; gives the root window and its size.
pub(crate) fn check_format(
    connection: &RustConnection,
    screen: &Screen,
    display: &str,
) -> Result<(u32, u32, u32), SourceError> {
    let setup = connection.setup();
    let bits =
        setup.pixmap_formats.iter().find(|f| f.depth == screen.root_depth).map_or(0, |f| f.bits_per_pixel);
    if !matches!(screen.root_depth, 24 | 32) || bits != 32 || setup.image_byte_order != ImageOrder::LSB_FIRST
    {
        return Err(SourceError::Display {
            display: display.into(),
            reason: format!(
                "its pixels have depth {} in {bits} bits; a depth of 24 in 32 bits is needed (Xvfb -screen 0 WxHx24)",
                screen.root_depth
            ),
        });
    }
    Ok((screen.root, screen.width_in_pixels.into(), screen.height_in_pixels.into()))
}

/// Shares memory with the X server.
pub(crate) fn attach(connection: &RustConnection, fd: OwnedFd) -> Result<shm::Seg, String> {
    let segment = connection.generate_id().map_err(|e| e.to_string())?;
    connection
        .shm_attach_fd(segment, fd, false)
        .map_err(|e| e.to_string())?
        .check()
        .map_err(|e| format!("memory cannot be shared: {e}"))?;
    Ok(segment)
}
