//! Encoders: GStreamer elements set up so that each frame that goes in gives one access unit at once.
//!
//! An [`Encoder`] may take the process down with it (some plugins abort on settings they do not like): run it where
//! that does no harm, see [`crate::worker`].

mod catalogue;
mod properties;
mod quality;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use catalogue::{EncoderEntry, KNOWN, Known, default_element, package_of};
use quality::QualityControl;

use crate::codec::Codec;
use crate::frame::FrameSize;

/// Highest frame rate that can be asked for: beyond what displays and SPICE clients show.
pub const MAX_FPS: f64 = 1000.0;

/// What an encoder is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderSettings {
    /// What comes out.
    pub codec: Codec,
    /// GStreamer element; the codec's default when absent.
    pub element: Option<String>,
    /// Size of the frames.
    pub size: FrameSize,
    /// Frames a second, above 0 up to [`MAX_FPS`].
    pub fps: f64,
    /// Bit rate aimed at, kilobits (1000) a second.
    pub bitrate_kbps: u32,
    /// A keyframe at least every so many frames.
    pub gop: u32,
    /// Raw properties of the element, set last, in order.
    pub set: Vec<(String, String)>,
}

impl EncoderSettings {
    /// Name of the element that will be used.
    pub fn element(&self) -> &str {
        self.element.as_deref().unwrap_or_else(|| default_element(self.codec))
    }
}

/// One encoded frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The frame's number as given to [`Encoder::push`].
    pub id: u64,
    /// Whether decoding can start here.
    pub keyframe: bool,
    /// The access unit.
    pub data: Vec<u8>,
}

/// Why encoding is not possible.
#[derive(Debug, Error)]
pub enum EncodeError {
    /// The element or one that it needs is not installed.
    #[error("encoder {element} is not installed: {remedy}")]
    Missing {
        /// The element.
        element: String,
        /// What to do.
        remedy: String,
    },
    /// The element does not make the codec.
    #[error("encoder {element} makes {makes}, not {codec}: name another encoder or codec")]
    WrongCodec {
        /// The element.
        element: String,
        /// What it does make.
        makes: Codec,
        /// What was asked.
        codec: Codec,
    },
    /// A setting is out of range.
    #[error("{what} {value} is out of range: use {expected}")]
    Setting {
        /// Which.
        what: &'static str,
        /// The value.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// No such property.
    #[error("encoder {element} has no property '{property}': did you mean '{nearest}'?")]
    UnknownProperty {
        /// The element.
        element: String,
        /// The name.
        property: String,
        /// The nearest name there is.
        nearest: String,
    },
    /// A property cannot have the value.
    #[error("property {property} of {element} cannot be '{value}': expected {expected}{hint}")]
    Value {
        /// The element.
        element: String,
        /// The property.
        property: String,
        /// The value.
        value: String,
        /// What it may be.
        expected: String,
        /// The nearest valid value, as a clause.
        hint: String,
    },
    /// GStreamer failed.
    #[error("GStreamer: {what}: {reason}")]
    Gstreamer {
        /// What was being done.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

impl EncodeError {
    /// Whether the remedy is to install something.
    pub fn is_missing_component(&self) -> bool {
        matches!(self, Self::Missing { .. })
    }

    /// Whether the settings asked for are wrong, rather than something having failed.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Self::Missing { .. } | Self::Gstreamer { .. })
    }

    fn gstreamer(what: &'static str) -> impl Fn(gst::glib::BoolError) -> Self {
        move |e| Self::Gstreamer { what, reason: e.message.to_string() }
    }
}

/// What an encoder says of itself once it is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Properties as read back from the element, by name.
    pub properties: BTreeMap<String, String>,
    /// Versions of GStreamer and of the element's plugin.
    pub versions: BTreeMap<String, String>,
}

/// Every known encoder and whether it is installed.
///
/// # Errors
/// GStreamer cannot be initialised.
pub fn encoders() -> Result<Vec<EncoderEntry>, EncodeError> {
    init()?;
    Ok(KNOWN
        .iter()
        .map(|known| {
            let factory = gst::ElementFactory::find(known.element);
            EncoderEntry {
                codec: known.codec,
                element: known.element,
                installed: factory.is_some(),
                default: default_element(known.codec) == known.element,
                package: known.package,
                version: factory.and_then(|f| f.plugin()).map(|p| p.version().into()),
            }
        })
        .collect())
}

/// Checks settings against the encoder without encoding: makes the element, sets everything and reads it back.
///
/// # Errors
/// See [`EncodeError`].
pub fn check(settings: &EncoderSettings) -> Result<InForce, EncodeError> {
    init()?;
    let element = make(settings)?;
    Ok(in_force(&element))
}

fn init() -> Result<(), EncodeError> {
    gst::init().map_err(|e| EncodeError::Gstreamer { what: "initialisation failed", reason: e.to_string() })
}

fn make(settings: &EncoderSettings) -> Result<gst::Element, EncodeError> {
    let name = settings.element();
    if !(settings.fps > 0.0 && settings.fps <= MAX_FPS) {
        let (value, expected) = (settings.fps.to_string(), format!("a number above 0, up to {MAX_FPS}"));
        return Err(EncodeError::Setting { what: "frame rate", value, expected });
    }
    for (what, value, most) in
        [("bit rate", settings.bitrate_kbps, 2_000_000), ("gop", settings.gop, 1_000_000)]
    {
        if value == 0 || value > most {
            let (value, expected) = (value.to_string(), format!("1 to {most}"));
            return Err(EncodeError::Setting { what, value, expected });
        }
    }
    if let Some(known) = KNOWN.iter().find(|k| k.element == name && k.codec != settings.codec) {
        return Err(EncodeError::WrongCodec {
            element: name.into(),
            makes: known.codec,
            codec: settings.codec,
        });
    }
    let element = element(name)?;
    for (property, value) in catalogue::defaults(name, settings) {
        properties::set(&element, property, &value)?;
    }
    for (property, value) in &settings.set {
        properties::set(&element, property, value)?;
    }
    Ok(element)
}

fn element(name: &str) -> Result<gst::Element, EncodeError> {
    let missing = || EncodeError::Missing {
        element: name.into(),
        remedy: match package_of(name) {
            Some(package) => format!("apt install {package}"),
            None => {
                "no package that brings it is known; 'triptych-guest encoders' lists those that are".into()
            }
        },
    };
    gst::ElementFactory::find(name).ok_or_else(missing)?.create().build().map_err(|_| missing())
}

fn in_force(element: &gst::Element) -> InForce {
    let mut versions = BTreeMap::from([("gstreamer".to_owned(), gst::version_string().to_string())]);
    if let Some(factory) = element.factory()
        && let Some(plugin) = factory.plugin()
    {
        versions.insert(factory.name().into(), format!("{} {}", plugin.plugin_name(), plugin.version()));
    }
    InForce { properties: properties::read_all(element), versions }
}

fn caps_of(codec: Codec) -> gst::Caps {
    let media = match codec {
        Codec::Mjpeg => "image/jpeg",
        Codec::Vp8 => "video/x-vp8",
        Codec::Vp9 => "video/x-vp9",
        Codec::H264 => "video/x-h264",
        Codec::H265 => "video/x-h265",
    };
    let caps = gst::Caps::builder(media);
    match codec {
        Codec::H264 | Codec::H265 => {
            caps.field("stream-format", "byte-stream").field("alignment", "au").build()
        }
        _ => caps.build(),
    }
}

/// Numbers of the frames within the encoder, by presentation time, in order.
type Pending = Arc<Mutex<VecDeque<(gst::ClockTime, u64)>>>;

/// A running encoder. Units come out on a thread of GStreamer's, through the function given to [`Encoder::open`].
#[derive(Debug)]
pub struct Encoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    element: gst::Element,
    pending: Pending,
    settings: EncoderSettings,
    /// Whether a frame went in.
    begun: bool,
}

/// What an encoder tells its owner, from a thread of its own.
#[derive(Debug)]
pub enum Output {
    /// A frame is encoded.
    Unit(Unit),
    /// It broke and gives nothing any more.
    Failed(String),
}

impl Encoder {
    /// Makes and starts the encoder.
    ///
    /// # Errors
    /// See [`EncodeError`].
    pub fn open(
        settings: &EncoderSettings,
        on_output: impl Fn(Output) + Send + Sync + 'static,
    ) -> Result<Self, EncodeError> {
        init()?;
        let encoder = make(settings)?;
        let rate = gst::Fraction::new((settings.fps * 1000.0).round().max(1.0) as i32, 1000);
        let info = gst_video::VideoInfo::builder(
            gst_video::VideoFormat::Bgrx,
            settings.size.width(),
            settings.size.height(),
        )
        .fps(rate)
        .build()
        .map_err(EncodeError::gstreamer("frame format"))?;
        let caps = info.to_caps().map_err(EncodeError::gstreamer("frame format"))?;
        let source = gst_app::AppSrc::builder().caps(&caps).format(gst::Format::Time).is_live(true).build();
        let convert = element("videoconvert").map_err(base_package)?;
        // 4:2:0 for every codec: what decoders everywhere take, and the same work for each.
        let raw = gst::Caps::builder("video/x-raw").field("format", "I420").build();
        let sink = gst_app::AppSink::builder().caps(&caps_of(settings.codec)).sync(false).build();
        let pipeline = gst::Pipeline::new();
        let what = "building the pipeline";
        pipeline
            .add_many([source.upcast_ref(), &convert, &encoder, sink.upcast_ref()])
            .map_err(EncodeError::gstreamer(what))?;
        source.link(&convert).map_err(EncodeError::gstreamer(what))?;
        convert.link_filtered(&encoder, &raw).map_err(EncodeError::gstreamer(what))?;
        encoder
            .link(&sink)
            .map_err(EncodeError::gstreamer("linking the encoder (does it make the codec?)"))?;

        let pending: Pending = Arc::default();
        let on_output = Arc::new(on_output);
        listen(&pipeline, Arc::clone(&on_output));
        deliver(&sink, &encoder, settings, Arc::clone(&pending), on_output);
        if pipeline.set_state(gst::State::Playing).is_err() {
            let _ = pipeline.set_state(gst::State::Null);
            return Err(EncodeError::Gstreamer { what: "starting the encoder", reason: "it refused".into() });
        }
        Ok(Self { pipeline, source, element: encoder, pending, settings: settings.clone(), begun: false })
    }

    /// Hands one frame over; returns before it is encoded. `id` is the number of the tick that the frame is of: it is
    /// its time at the nominal rate, and must grow from call to call.
    ///
    /// # Errors
    /// The encoder takes nothing any more.
    pub fn push(
        &mut self,
        id: u64,
        force_keyframe: bool,
        fill: impl FnOnce(&mut [u8]),
    ) -> Result<(), EncodeError> {
        let at = gst::ClockTime::from_nseconds((id as f64 * 1e9 / self.settings.fps).round() as u64);
        let failed = |reason: String| EncodeError::Gstreamer { what: "handing a frame over", reason };
        // The first frame is a keyframe anyway, and GStreamer 1.22 refuses every later request after one for the first
        // frame of x264enc: it notes it at the encoder's shifted time, 1000 hours ahead.
        if force_keyframe && self.begun {
            // With its time, so that a frame still in the queue before this one is left as it is.
            let event =
                gst_video::UpstreamForceKeyUnitEvent::builder().running_time(at).all_headers(true).build();
            let pad =
                self.element.static_pad("src").ok_or_else(|| failed("encoder without output".into()))?;
            pad.send_event(event);
        }
        let mut buffer = gst::Buffer::with_size(self.settings.size.bytes())
            .map_err(EncodeError::gstreamer("no memory for a frame"))?;
        {
            let buffer = buffer.get_mut().ok_or_else(|| failed("buffer is shared".into()))?;
            buffer.set_pts(at);
            buffer.set_duration(gst::ClockTime::from_nseconds((1e9 / self.settings.fps) as u64));
            let mut map = buffer.map_writable().map_err(|e| failed(e.message.to_string()))?;
            fill(&mut map);
        }
        self.begun = true;
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push_back((at, id));
        self.source.push_buffer(buffer).map_err(|flow| failed(format!("{flow:?}")))?;
        Ok(())
    }

    /// Settings as the element now has them.
    pub fn in_force(&self) -> InForce {
        in_force(&self.element)
    }
}

impl Drop for Encoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

fn base_package(error: EncodeError) -> EncodeError {
    match error {
        EncodeError::Missing { element, .. } => {
            EncodeError::Missing { element, remedy: "apt install gstreamer1.0-plugins-base".into() }
        }
        other => other,
    }
}

/// Passes errors on as they are posted.
fn listen(pipeline: &gst::Pipeline, on_output: Arc<impl Fn(Output) + Send + Sync + 'static>) {
    let Some(bus) = pipeline.bus() else { return };
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view() {
            let detail = error.debug().map_or_else(String::new, |d| format!(" ({d})"));
            on_output(Output::Failed(format!("{}{detail}", error.error())));
        }
        gst::BusSyncReply::Drop
    });
}

/// Turns samples into units, and steers the quality of JPEG.
fn deliver(
    sink: &gst_app::AppSink,
    encoder: &gst::Element,
    settings: &EncoderSettings,
    pending: Pending,
    on_output: Arc<impl Fn(Output) + Send + Sync + 'static>,
) {
    let steered = settings.element() == "jpegenc" && !settings.set.iter().any(|(name, _)| name == "quality");
    let mut control = steered.then(|| QualityControl::new(settings.bitrate_kbps, settings.fps));
    let encoder = encoder.downgrade();
    let half_period = gst::ClockTime::from_nseconds((0.5e9 / settings.fps) as u64);
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
            let data = buffer.map_readable().map_err(|_| gst::FlowError::Error)?.to_vec();
            if let (Some(control), Some(encoder)) = (&mut control, encoder.upgrade()) {
                encoder.set_property("quality", control.next(data.len()));
            }
            // In running time: x264enc shifts its time stamps by 1000 hours, and its segment with them.
            let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>());
            let at = buffer.pts().map(|pts| segment.and_then(|s| s.to_running_time(pts)).unwrap_or(pts));
            let Some(id) = take(&pending, at, half_period) else { return Ok(gst::FlowSuccess::Ok) };
            let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            on_output(Output::Unit(Unit { id, keyframe, data }));
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    sink.set_callbacks(callbacks);
}

/// The number of the frame shown at `at`, give or take the encoder's rounding; those before it gave no unit and are
/// forgotten.
fn take(pending: &Pending, at: Option<gst::ClockTime>, tolerance: gst::ClockTime) -> Option<u64> {
    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
    let position = match at {
        Some(at) => pending.iter().position(|(pts, _)| *pts + tolerance >= at).unwrap_or(0),
        None => 0,
    };
    pending.drain(..position);
    pending.pop_front().map(|(_, id)| id)
}
