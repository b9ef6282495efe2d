//! A window that shows pictures at once.
//!
//! Pictures go through MIT-SHM: one copy into memory that the X server reads, one request, one round trip that tells
//! that the server has taken it. No OpenGL and no compositor is needed, so it also works on Xvfb.

use thiserror::Error;
use units::{Clock, MonotonicClock, Nanos};
use x11rb::connection::Connection;
use x11rb::errors::{ReplyError, ReplyOrIdError};
use x11rb::protocol::Event;
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{
    AtomEnum, ConfigureWindowAux, ConnectionExt as _, CreateGCAux, CreateWindowAux, EventMask, PropMode,
    WindowClass,
};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::frame::BYTES_PER_PIXEL;
use crate::memory::SharedMemory;
use crate::source::{SourceError, Z_PIXMAP, attach, check_format, connect};

/// Why pictures cannot be shown.
#[derive(Debug, Error)]
pub enum PresentError {
    /// The display cannot be used.
    #[error(transparent)]
    Display(#[from] SourceError),
    /// The display went away, or refused a request.
    #[error("the X display is gone: {0}")]
    Lost(String),
    /// A picture that no window can show.
    #[error("a picture of {0}x{1} pixels cannot be shown")]
    Size(u32, u32),
}

impl From<ReplyError> for PresentError {
    fn from(error: ReplyError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<ReplyOrIdError> for PresentError {
    fn from(error: ReplyOrIdError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<x11rb::errors::ConnectionError> for PresentError {
    fn from(error: x11rb::errors::ConnectionError) -> Self {
        Self::Lost(error.to_string())
    }
}

/// What a person did to the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WindowEvent {
    /// Closed it.
    Closed,
}

/// A window on an X display. The picture lies at its top left corner, in its own size.
pub struct Window {
    connection: RustConnection,
    window: u32,
    context: u32,
    depth: u8,
    delete: u32,
    canvas: Option<Canvas>,
}

/// Memory that the X server reads pictures of one size from.
struct Canvas {
    memory: SharedMemory,
    /// Width and height in pixels; never 0.
    sides: (u16, u16),
    segment: shm::Seg,
}

impl Window {
    /// Opens a window of a size in pixels; it follows the size of the pictures.
    ///
    /// # Errors
    /// The display cannot be used.
    pub fn open(display: &str, title: &str, size: (u32, u32)) -> Result<Self, PresentError> {
        let (connection, number) = connect(display)?;
        let screen = connection.setup().roots.get(number).cloned();
        let screen = screen.ok_or_else(|| PresentError::Lost("it has no such screen".into()))?;
        check_format(&connection, &screen, display)?;
        let (window, context) = (connection.generate_id()?, connection.generate_id()?);
        let (width, height) = sides(size)?;
        let values = CreateWindowAux::new()
            .background_pixel(screen.black_pixel)
            .event_mask(EventMask::EXPOSURE | EventMask::STRUCTURE_NOTIFY);
        let inherit = x11rb::COPY_FROM_PARENT;
        connection
            .create_window(
                0,
                window,
                screen.root,
                0,
                0,
                width,
                height,
                0,
                WindowClass::INPUT_OUTPUT,
                inherit,
                &values,
            )?
            .check()?;
        let atom = |name: &str| -> Result<u32, PresentError> {
            Ok(connection.intern_atom(false, name.as_bytes())?.reply()?.atom)
        };
        let (protocols, delete) = (atom("WM_PROTOCOLS")?, atom("WM_DELETE_WINDOW")?);
        connection.change_property32(PropMode::REPLACE, window, protocols, AtomEnum::ATOM, &[delete])?;
        connection.change_property8(
            PropMode::REPLACE,
            window,
            AtomEnum::WM_NAME,
            AtomEnum::STRING,
            title.as_bytes(),
        )?;
        connection.create_gc(context, window, &CreateGCAux::new().graphics_exposures(0))?;
        connection.map_window(window)?;
        connection.sync()?;
        Ok(Self { connection, window, context, depth: screen.root_depth, delete, canvas: None })
    }

    /// Shows a picture of 32 bits a pixel (blue, green, red, unused) whose rows are `stride` bytes apart; gives the
    /// instant at which the X server had taken it.
    ///
    /// # Errors
    /// The display is gone, or the picture is none.
    pub fn show(&mut self, size: (u32, u32), pixels: &[u8], stride: usize) -> Result<Nanos, PresentError> {
        let wrong = || PresentError::Size(size.0, size.1);
        let (width, height) = sides(size)?;
        let (row, rows) = (usize::from(width) * BYTES_PER_PIXEL, usize::from(height));
        let needed = stride.checked_mul(rows - 1).and_then(|n| n.checked_add(row)).ok_or_else(wrong)?;
        if stride < row || pixels.len() < needed {
            return Err(wrong());
        }
        if self.canvas.as_ref().is_none_or(|c| c.sides != (width, height)) {
            self.resize(width, height)?;
        }
        let Some(canvas) = &mut self.canvas else { return Err(wrong()) };
        if stride == row {
            canvas.memory.write(0, &pixels[..row * rows]);
        } else {
            for (number, line) in pixels.chunks(stride).take(rows).enumerate() {
                canvas.memory.write(number * row, &line[..row]);
            }
        }
        self.put()?;
        Ok(MonotonicClock.now())
    }

    fn resize(&mut self, width: u16, height: u16) -> Result<(), PresentError> {
        if let Some(canvas) = self.canvas.take() {
            self.connection.shm_detach(canvas.segment)?;
        }
        let lost = |reason: String| PresentError::Lost(reason);
        let bytes = usize::from(width) * usize::from(height) * BYTES_PER_PIXEL;
        let memory = SharedMemory::create("triptych-window", bytes).map_err(|e| lost(e.to_string()))?;
        let fd = memory.duplicate().map_err(|e| lost(e.to_string()))?;
        let segment = attach(&self.connection, fd).map_err(lost)?;
        let values = ConfigureWindowAux::new().width(u32::from(width)).height(u32::from(height));
        self.connection.configure_window(self.window, &values)?;
        self.canvas = Some(Canvas { memory, sides: (width, height), segment });
        Ok(())
    }

    fn put(&self) -> Result<(), PresentError> {
        let Some(Canvas { sides: (width, height), segment, .. }) = &self.canvas else { return Ok(()) };
        let (width, height) = (*width, *height);
        self.connection.shm_put_image(
            self.window,
            self.context,
            width,
            height,
            0,
            0,
            width,
            height,
            0,
            0,
            self.depth,
            Z_PIXMAP,
            false,
            *segment,
            0,
        )?;
        // The answer comes after the picture was taken; the memory may then be written again.
        self.connection.sync()?;
        Ok(())
    }

    /// What happened to the window since the last call; paints again what was uncovered. To be called now and then.
    ///
    /// # Errors
    /// The display is gone.
    pub fn poll(&mut self) -> Result<Option<WindowEvent>, PresentError> {
        let mut exposed = false;
        while let Some(event) = self.connection.poll_for_event()? {
            match event {
                Event::ClientMessage(message) if message.data.as_data32()[0] == self.delete => {
                    return Ok(Some(WindowEvent::Closed));
                }
                Event::DestroyNotify(_) => return Ok(Some(WindowEvent::Closed)),
                Event::Expose(_) => exposed = true,
                _ => {}
            }
        }
        if exposed {
            self.put()?;
        }
        Ok(None)
    }
}

fn sides((width, height): (u32, u32)) -> Result<(u16, u16), PresentError> {
    match (u16::try_from(width), u16::try_from(height)) {
        (Ok(w), Ok(h)) if w > 0 && h > 0 => Ok((w, h)),
        _ => Err(PresentError::Size(width, height)),
    }
}
