//! Where frames come from: a generated scene or a captured display.

mod x11;

use std::fmt;
use std::str::FromStr;

use thiserror::Error;
use units::Nanos;

use crate::frame::{FramePool, FrameSize};
use crate::scene::{Painter, Scene, UnknownScene, tick_at};

pub use x11::X11Source;
pub(crate) use x11::{Z_PIXMAP, attach, check_format, connect};

/// Something that gives frames of one size. The pool is the same in every call.
pub trait Source {
    /// Size of every frame, which is also the pool's.
    fn size(&self) -> FrameSize;

    /// Writes the present picture, `at` after the stream's start, into a slot.
    ///
    /// # Errors
    /// There is no picture any more, or it has another size.
    fn capture(&mut self, pool: &mut FramePool, slot: usize, at: Nanos) -> Result<(), SourceError>;
}

/// Which source, as written in options: `scene:video` or `x11::99`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceSpec {
    /// A generated scene.
    Scene(Scene),
    /// An X display's name.
    X11(String),
}

impl SourceSpec {
    /// Opens the source. A scene needs a size; a display is captured whole when there is none.
    ///
    /// # Errors
    /// The display cannot be captured.
    pub fn open(&self, size: Option<FrameSize>) -> Result<Box<dyn Source>, SourceError> {
        match self {
            Self::Scene(scene) => {
                let size = size.ok_or(SourceError::SizeNeeded)?;
                Ok(Box::new(SceneSource {
                    painter: Painter::new(*scene, size),
                    frame: vec![0; size.bytes()],
                }))
            }
            Self::X11(display) => Ok(Box::new(X11Source::open(display, size)?)),
        }
    }
}

impl fmt::Display for SourceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Scene(scene) => write!(f, "scene:{scene}"),
            Self::X11(display) => write!(f, "x11:{display}"),
        }
    }
}

impl FromStr for SourceSpec {
    type Err = SourceError;

    fn from_str(s: &str) -> Result<Self, SourceError> {
        match s.split_once(':') {
            Some(("scene", name)) => Ok(Self::Scene(name.parse()?)),
            Some(("x11", display)) if !display.is_empty() => Ok(Self::X11(display.into())),
            _ => Err(SourceError::Unknown(s.into())),
        }
    }
}

/// Why there are no frames.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Not a source.
    #[error(
        "'{0}' is not a source: use scene:still, scene:scroll, scene:video, scene:noise or x11:DISPLAY (x11::0)"
    )]
    Unknown(String),
    /// Not a scene.
    #[error(transparent)]
    Scene(#[from] UnknownScene),
    /// A scene has no size of its own.
    #[error("a scene needs a size: say --size 640x360")]
    SizeNeeded,
    /// The display cannot be reached or is of the wrong kind.
    #[error("display '{display}' cannot be used: {reason}")]
    Display {
        /// Name.
        display: String,
        /// Why.
        reason: String,
    },
    /// The size asked for is not there.
    #[error("display '{display}' is {width}x{height}, too small for --size {size}")]
    TooLarge {
        /// Name.
        display: String,
        /// Size asked for.
        size: FrameSize,
        /// The display's width.
        width: u32,
        /// The display's height.
        height: u32,
    },
    /// The display has become smaller than the stream, or all of it is wanted and it has another size.
    #[error(
        "display '{display}' became {width}x{height} during a stream of {size}: start again with a smaller --size, or \
         without --size to follow it"
    )]
    Resized {
        /// Name.
        display: String,
        /// Size of the stream.
        size: FrameSize,
        /// The display's width.
        width: u32,
        /// The display's height.
        height: u32,
    },
    /// The display is gone.
    #[error("display '{display}' is lost: {reason}")]
    Lost {
        /// Name.
        display: String,
        /// Why.
        reason: String,
    },
}

struct SceneSource {
    painter: Painter,
    frame: Vec<u8>,
}

impl Source for SceneSource {
    fn size(&self) -> FrameSize {
        self.painter.size()
    }

    fn capture(&mut self, pool: &mut FramePool, slot: usize, at: Nanos) -> Result<(), SourceError> {
        self.painter.paint(tick_at(at), &mut self.frame);
        pool.write(slot, &self.frame);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_parse_or_say_what_there_is() {
        for text in ["scene:video", "x11::99", "x11:host:0.1"] {
            assert_eq!(text.parse::<SourceSpec>().unwrap().to_string(), text);
        }
        for text in ["", "video", "x11:", "scene:vide", "file:x"] {
            assert!(text.parse::<SourceSpec>().unwrap_err().to_string().contains("video"), "{text}");
        }
    }

    #[test]
    fn a_display_that_is_not_there_is_named() {
        for display in [":54321", ":64321", ":", "nonsense"] {
            let error = SourceSpec::X11(display.into()).open(None).err().unwrap().to_string();
            assert!(error.contains(&format!("'{display}' cannot be used")), "{error}");
        }
    }
}
