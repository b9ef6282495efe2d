//! The command line.

use clap::{Args, Parser, Subcommand};
use recording::Address;
use recording::spec::Panel;
use streaming::codec::Codec;
use streaming::encode::EncoderSettings;
use streaming::frame::FrameSize;
use streaming::scene::Scene;
use streaming::source::SourceSpec;

/// Streams a display or a generated scene into a SPICE stream port.
#[derive(Parser)]
#[command(
    version,
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "Example:\n  triptych-host --stream unix:stream.sock --spice 127.0.0.1:5910 &\n  \
                  triptych-guest --port unix:stream.sock --source scene:video --size 640x360 --codec h264\n\n\
                  Exit codes: 0 ok, 1 failure while running, 2 usage, 3 something is not installed."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    #[command(flatten)]
    pub(crate) stream: StreamOptions,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// List the encoders, and for each missing one the package that brings it
    Encoders {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Paint a scene into a window of an X display
    Paint(PaintOptions),
    /// The encoder's own process (started by the guest)
    #[command(hide = true)]
    EncoderWorker {
        /// Process id of the guest
        #[arg(long)]
        parent: i32,
    },
}

/// What to stream, how and where to.
#[derive(Args)]
pub(crate) struct StreamOptions {
    /// The stream port: unix:PATH (connects), PATH of a virtio port's device, or 'virtio' (finds the device by name)
    #[arg(long, required = true)]
    pub(crate) port: Option<String>,
    /// scene:still, scene:scroll, scene:video, scene:noise, or x11:DISPLAY (x11::0)
    #[arg(long, default_value = "scene:video")]
    pub(crate) source: SourceSpec,
    /// Size in pixels; a display is captured from its top left corner [default: 640x360 for scenes, all of a display]
    #[arg(long, value_name = "WxH")]
    pub(crate) size: Option<FrameSize>,
    /// mjpeg, vp8, h264, vp9 or h265
    #[arg(long, default_value = "h264")]
    pub(crate) codec: Codec,
    /// GStreamer element to encode with [default: the codec's first in 'triptych-guest encoders']
    #[arg(long, value_name = "ELEMENT")]
    pub(crate) encoder: Option<String>,
    /// Frames a second
    #[arg(long, default_value_t = 30.0)]
    pub(crate) fps: f64,
    /// Bit rate to aim at, kbit/s
    #[arg(long, default_value_t = 4000)]
    pub(crate) bitrate_kbps: u32,
    /// A keyframe at least every so many frames
    #[arg(long, default_value_t = 60, value_name = "FRAMES")]
    pub(crate) gop: u32,
    /// Property of the encoder, set after the defaults; may be given again
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) set: Vec<(String, String)>,
    /// End after so many ticks of the frame clock [default: run until stopped]
    #[arg(long)]
    pub(crate) ticks: Option<u64>,
    /// Report to this collector (unix:PATH or tcp:ADDRESS:PORT) and end with it
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) collector: Option<Address>,
    /// The panel to report as: guest, host or client
    #[arg(long, default_value = "guest")]
    pub(crate) panel: Panel,
    /// How long to wait for the port to be there, seconds
    #[arg(long, default_value_t = 10.0, value_name = "S")]
    pub(crate) connect_timeout: f64,
}

impl StreamOptions {
    /// Settings of the encoder for frames of `size`.
    pub(crate) fn encoder_settings(&self, size: FrameSize) -> EncoderSettings {
        EncoderSettings {
            codec: self.codec,
            element: self.encoder.clone(),
            size,
            fps: self.fps,
            bitrate_kbps: self.bitrate_kbps,
            gop: self.gop,
            set: self.set.clone(),
        }
    }
}

/// What to paint and where.
#[derive(Args)]
pub(crate) struct PaintOptions {
    /// X display, for instance :99
    #[arg(long)]
    pub(crate) display: String,
    /// still, scroll, video or noise
    #[arg(long, default_value = "video")]
    pub(crate) scene: Scene,
    /// Size of the window in pixels
    #[arg(long, value_name = "WxH", default_value = "640x360")]
    pub(crate) size: FrameSize,
    /// Frames a second
    #[arg(long, default_value_t = 30.0)]
    pub(crate) fps: f64,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.into(), value.into())),
        _ => Err("write it as KEY=VALUE, for instance cpu-used=8".into()),
    }
}
