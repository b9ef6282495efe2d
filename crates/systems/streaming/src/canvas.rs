//! A window on an X display that shows a scene: what the demo captures.

use units::Nanos;
use x11rb::connection::Connection;
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xproto::{ConnectionExt as _, CreateGCAux, CreateWindowAux, WindowClass};
use x11rb::rust_connection::RustConnection;
use x11rb::wrapper::ConnectionExt as _;

use crate::frame::{FramePool, FrameSize};
use crate::scene::{Painter, Scene, tick_at};
use crate::source::{SourceError, Z_PIXMAP, attach, check_format, connect};

/// The window, at the display's top left corner and without a frame (there may be no window manager).
pub struct Canvas {
    connection: RustConnection,
    display: String,
    window: u32,
    context: u32,
    depth: u8,
    segment: shm::Seg,
    pool: FramePool,
    painter: Painter,
    frame: Vec<u8>,
}

impl Canvas {
    /// Opens the window.
    ///
    /// # Errors
    /// The display cannot be used.
    pub fn open(display: &str, scene: Scene, size: FrameSize) -> Result<Self, SourceError> {
        let refuse = |reason: String| SourceError::Display { display: display.into(), reason };
        let (connection, screen) = connect(display)?;
        let screen =
            connection.setup().roots.get(screen).ok_or_else(|| refuse("it has no such screen".into()))?;
        check_format(&connection, screen, display)?;
        let (root, depth) = (screen.root, screen.root_depth);
        let pool = FramePool::new(size, 1).map_err(|e| refuse(e.to_string()))?;
        let fd = pool.memory().duplicate().map_err(|e| refuse(e.to_string()))?;
        let segment = attach(&connection, fd).map_err(refuse)?;
        let (window, context) = create(&connection, root, size).map_err(|e| refuse(e.to_string()))?;
        Ok(Self {
            connection,
            display: display.into(),
            window,
            context,
            depth,
            segment,
            pool,
            painter: Painter::new(scene, size),
            frame: vec![0; size.bytes()],
        })
    }

    /// Shows the scene's picture `at` after its start; returns when the X server has it.
    ///
    /// # Errors
    /// The display is gone.
    pub fn show(&mut self, at: Nanos) -> Result<(), SourceError> {
        self.painter.paint(tick_at(at), &mut self.frame);
        self.pool.write(0, &self.frame);
        self.put().map_err(|e| SourceError::Lost { display: self.display.clone(), reason: e.to_string() })
    }

    fn put(&self) -> Result<(), x11rb::errors::ReplyError> {
        let (width, height) = (self.pool.size().width() as u16, self.pool.size().height() as u16);
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
            self.segment,
            0,
        )?;
        // A round trip: the memory must not be written again before the server has read it.
        self.connection.sync()
    }
}

fn create(
    connection: &RustConnection,
    root: u32,
    size: FrameSize,
) -> Result<(u32, u32), x11rb::errors::ReplyOrIdError> {
    let (window, context) = (connection.generate_id()?, connection.generate_id()?);
    let (width, height) = (size.width() as u16, size.height() as u16);
    let values = CreateWindowAux::new().override_redirect(1).background_pixel(0);
    let inherit = x11rb::COPY_FROM_PARENT;
    connection
        .create_window(0, window, root, 0, 0, width, height, 0, WindowClass::INPUT_OUTPUT, inherit, &values)?
        .check()?;
    connection.create_gc(context, window, &CreateGCAux::new().graphics_exposures(0))?;
    connection.map_window(window)?;
    connection.sync()?;
    Ok((window, context))
}
