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
/// Lowest frame rate, in Hz.
pub const MIN_FPS: f64 = 0.001;
/// Highest bit rate that can be asked for: what `x264enc` takes, rounded down.
pub const MAX_BITRATE_KBPS: u32 = 2_000_000;

/// What an encoder is asked to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EncoderSettings {
    /// What comes out.
    pub codec: Codec,
    /// GStreamer element; the codec's default when absent.
    pub element: Option<String>,
    /// Size of the frames.
    pub size: FrameSize,
    /// Frames a second, [`MIN_FPS`] to [`MAX_FPS`].
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

    /// The same with other rates.
    ///
    /// # Errors
    /// They are out of range, the bit rate is held by a property in [`EncoderSettings::set`], or how this element takes one
    /// is not known.
    pub fn with(&self, rates: Rates) -> Result<Self, EncodeError> {
        let Rates { fps, bitrate_kbps } = rates;
        let settings = Self { fps, bitrate_kbps, ..self.clone() };
        settings.check_ranges()?;
        if bitrate_kbps != self.bitrate_kbps && !catalogue::has_rate(self.element()) {
            return Err(EncodeError::Fixed { element: self.element().to_owned() });
        }
        if bitrate_kbps != self.bitrate_kbps
            && let Some((property, value)) =
                self.set.iter().find(|(name, _)| catalogue::steers_rate(self.element(), name))
        {
            return Err(EncodeError::Held { property: property.clone(), value: value.clone() });
        }
        Ok(settings)
    }

    /// Its rates.
    pub fn rates(&self) -> Rates {
        Rates { fps: self.fps, bitrate_kbps: self.bitrate_kbps }
    }

    /// Whether a running [`Encoder`] can change its bit rate; another must be opened anew.
    pub fn is_live(&self) -> bool {
        catalogue::is_live(self.element())
    }

    fn check_ranges(&self) -> Result<(), EncodeError> {
        if !(MIN_FPS..=MAX_FPS).contains(&self.fps) {
            let (value, expected) = (self.fps.to_string(), format!("{MIN_FPS} to {MAX_FPS}"));
            return Err(EncodeError::Setting { what: "frame rate", value, expected });
        }
        for (what, value, most) in
            [("bit rate", self.bitrate_kbps, MAX_BITRATE_KBPS), ("gop", self.gop, 1_000_000)]
        {
            if value == 0 || value > most {
                let (value, expected) = (value.to_string(), format!("1 to {most}"));
                return Err(EncodeError::Setting { what, value, expected });
            }
        }
        Ok(())
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
    /// A raw property decides instead.
    #[error("the bit rate is held by --set {property}={value}: leave that out to change it")]
    Held {
        /// The property.
        property: String,
        /// Its value.
        value: String,
    },
    /// The element keeps the bit rate that it began with.
    #[error("encoder {element} does not change its bit rate while it runs, or how is not known")]
    Fixed {
        /// The element.
        element: String,
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

impl InForce {
    /// Bit rate in force, kilobits a second; `None` for an element that has none of its own, or an unknown one.
    pub fn bitrate_kbps(&self, element: &str) -> Option<f64> {
        let (property, unit) = catalogue::bitrate(element)?;
        Some(self.properties.get(property)?.parse::<f64>().ok()? * unit / 1000.0)
    }
}

/// Settings that can be changed while frames go in.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rates {
    /// As [`EncoderSettings::fps`].
    pub fps: f64,
    /// As [`EncoderSettings::bitrate_kbps`].
    pub bitrate_kbps: u32,
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
    settings.check_ranges()?;
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

/// Caps of the frames that go in.
fn raw_caps(settings: &EncoderSettings) -> Result<gst::Caps, EncodeError> {
    let what = "frame format";
    let rate = gst::Fraction::new((settings.fps * 1000.0).round().max(1.0) as i32, 1000);
    let (width, height) = (settings.size.width(), settings.size.height());
    gst_video::VideoInfo::builder(gst_video::VideoFormat::Bgrx, width, height)
        .fps(rate)
        .build()
        .map_err(EncodeError::gstreamer(what))?
        .to_caps()
        .map_err(EncodeError::gstreamer(what))
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

/// A frame within the encoder.
#[derive(Debug)]
struct Within {
    at: gst::ClockTime,
    /// By how much its unit's time may differ: half a period.
    tolerance: gst::ClockTime,
    id: u64,
}

/// Frames within the encoder, in order.
type Pending = Arc<Mutex<VecDeque<Within>>>;
/// Shared with the thread on which units come out; `None` where the element has a bit rate of its own.
type Steering = Arc<Mutex<Option<QualityControl>>>;

/// A running encoder. Units come out on a thread of GStreamer's, through the function given to [`Encoder::open`].
#[derive(Debug)]
pub struct Encoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    element: gst::Element,
    pending: Pending,
    steering: Steering,
    settings: EncoderSettings,
    /// Number and time of the frame from which the present rate counts; the next one once it has changed.
    base: Option<(u64, f64)>,
    last: Option<(u64, f64)>,
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
        let caps = raw_caps(settings)?;
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
        let steered =
            settings.element() == "jpegenc" && !settings.set.iter().any(|(name, _)| name == "quality");
        let control = steered.then(|| QualityControl::new(settings.bitrate_kbps, settings.fps));
        let steering = Arc::new(Mutex::new(control));
        deliver(&sink, &encoder, Arc::clone(&steering), Arc::clone(&pending), on_output);
        if pipeline.set_state(gst::State::Playing).is_err() {
            let _ = pipeline.set_state(gst::State::Null);
            return Err(EncodeError::Gstreamer { what: "starting the encoder", reason: "it refused".into() });
        }
        let (settings, base, last) = (settings.clone(), Some((0, 0.0)), None);
        Ok(Self { pipeline, source, element: encoder, pending, steering, settings, base, last })
    }

    /// Changes rates from the next frame on. Another frame rate makes most elements begin anew, with a keyframe.
    ///
    /// # Errors
    /// The rates do not fit, or the element cannot change them ([`EncoderSettings::is_live`]); nothing is changed then.
    pub fn change(&mut self, rates: Rates) -> Result<(), EncodeError> {
        let settings = self.settings.with(rates)?;
        if rates.bitrate_kbps != self.settings.bitrate_kbps {
            if !settings.is_live() {
                return Err(EncodeError::Fixed { element: settings.element().into() });
            }
            for (property, value) in catalogue::rate_properties(&settings) {
                properties::set(&self.element, property, &value)?;
            }
        }
        if rates.fps != self.settings.fps {
            self.source.set_caps(Some(&raw_caps(&settings)?));
            self.base = None;
        }
        if let Some(control) = self.steering.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            control.aim(rates.bitrate_kbps, rates.fps);
        }
        self.settings = settings;
        Ok(())
    }

    /// Time of a frame at the nominal rate, ns; unbroken where the rate has changed.
    fn time(&mut self, id: u64) -> f64 {
        let period = 1e9 / self.settings.fps;
        let last = self.last;
        let base = *self.base.get_or_insert_with(|| (id, last.map_or(0.0, |(_, at)| at + period)));
        let at = base.1 + (id - base.0) as f64 * period;
        self.last = Some((id, at));
        at
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
        let begun = self.last.is_some();
        let at = gst::ClockTime::from_nseconds(self.time(id).round() as u64);
        let failed = |reason: String| EncodeError::Gstreamer { what: "handing a frame over", reason };
        // The first frame is a keyframe anyway, and GStreamer 1.22 refuses every later request after one for the first
        // frame of x264enc: it notes it at the encoder's shifted time, 1000 hours ahead.
        if force_keyframe && begun {
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
        let tolerance = gst::ClockTime::from_nseconds((0.5e9 / self.settings.fps) as u64);
        let within = Within { at, tolerance, id };
        self.pending.lock().unwrap_or_else(PoisonError::into_inner).push_back(within);
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
    steering: Steering,
    pending: Pending,
    on_output: Arc<impl Fn(Output) + Send + Sync + 'static>,
) {
    let encoder = encoder.downgrade();
    let callbacks = gst_app::AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            let buffer = sample.buffer().ok_or(gst::FlowError::Error)?;
            let data = buffer.map_readable().map_err(|_| gst::FlowError::Error)?.to_vec();
            let quality = {
                let mut steering = steering.lock().unwrap_or_else(PoisonError::into_inner);
                steering.as_mut().map(|control| control.next(data.len()))
            };
            if let (Some(quality), Some(encoder)) = (quality, encoder.upgrade()) {
                encoder.set_property("quality", quality);
            }
            // In running time: x264enc shifts its time stamps by 1000 hours, and its segment with them.
            let segment = sample.segment().and_then(|s| s.downcast_ref::<gst::ClockTime>());
            let at = buffer.pts().map(|pts| segment.and_then(|s| s.to_running_time(pts)).unwrap_or(pts));
            let Some(id) = take(&pending, at) else { return Ok(gst::FlowSuccess::Ok) };
            let keyframe = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
            on_output(Output::Unit(Unit { id, keyframe, data }));
            Ok(gst::FlowSuccess::Ok)
        })
        .build();
    sink.set_callbacks(callbacks);
}

/// The number of the frame shown at `at`, give or take the encoder's rounding; those before it gave no unit and are
/// forgotten.
fn take(pending: &Pending, at: Option<gst::ClockTime>) -> Option<u64> {
    let mut pending = pending.lock().unwrap_or_else(PoisonError::into_inner);
    let position = match at {
        Some(at) => pending.iter().position(|within| within.at + within.tolerance >= at).unwrap_or(0),
        None => 0,
    };
    pending.drain(..position);
    pending.pop_front().map(|within| within.id)
}
