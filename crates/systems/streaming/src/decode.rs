//! Decoders: GStreamer elements set up so that each access unit that goes in gives one picture at once.
//!
//! `appsrc ! [parser !] decoder ! [videoconvert !] appsink`: one thread, no queue but appsrc's, no wait for the next unit (the
//! caps promise whole access units, and decoders that would pipeline frames over threads are told not to).

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use thiserror::Error;
use units::{Clock, MonotonicClock, Nanos};

use crate::codec::Codec;

/// Most units that may wait for the decoder; a client that is this far behind is broken or attacked.
pub const MAX_WAITING: usize = 256;

/// One decoder element that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownDecoder {
    /// What it decodes.
    pub codec: Codec,
    /// GStreamer element.
    pub element: &'static str,
    /// Debian package that brings it.
    pub package: &'static str,
}

/// Every known decoder; the first installed one of a codec is taken. Fastest first, as measured at 640x360.
pub const KNOWN: [KnownDecoder; 7] = [
    KnownDecoder { codec: Codec::Mjpeg, element: "jpegdec", package: "gstreamer1.0-plugins-good" },
    KnownDecoder { codec: Codec::Vp8, element: "vp8dec", package: "gstreamer1.0-plugins-good" },
    KnownDecoder { codec: Codec::H264, element: "avdec_h264", package: "gstreamer1.0-libav" },
    KnownDecoder { codec: Codec::H264, element: "openh264dec", package: "gstreamer1.0-plugins-bad" },
    KnownDecoder { codec: Codec::Vp9, element: "vp9dec", package: "gstreamer1.0-plugins-good" },
    KnownDecoder { codec: Codec::H265, element: "avdec_h265", package: "gstreamer1.0-libav" },
    KnownDecoder { codec: Codec::H265, element: "libde265dec", package: "gstreamer1.0-plugins-bad" },
];

/// Why decoding is not possible.
#[derive(Debug, Error)]
pub enum DecodeError {
    /// No decoder for the codec is installed.
    #[error("no decoder for {codec} is installed: install {packages}")]
    Missing {
        /// The codec.
        codec: Codec,
        /// Debian packages, any of which would do.
        packages: String,
    },
    /// The decoder is too far behind.
    #[error("the decoder is {0} frames behind")]
    Behind(usize),
    /// GStreamer failed.
    #[error("GStreamer: {what}: {reason}")]
    Gstreamer {
        /// What was being done.
        what: &'static str,
        /// What it said.
        reason: String,
    },
}

impl DecodeError {
    fn gstreamer<E: std::fmt::Display>(what: &'static str) -> impl FnOnce(E) -> Self {
        move |error| Self::Gstreamer { what, reason: error.to_string() }
    }
}

/// What the pictures are to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pixels {
    /// As the decoder makes them (most often planar YUV): for who only counts or keeps them.
    AsDecoded,
    /// 32 bits a pixel: blue, green, red, unused; what X displays take.
    Bgrx,
}

/// A decoded picture. Valid during the callback.
pub struct Decoded<'a> {
    /// Number of the unit, as given to [`Decoder::push`].
    pub id: u64,
    /// When the decoder took the unit.
    pub decode_start: Nanos,
    /// When the picture came out of the decoder.
    pub decoded_at: Nanos,
    /// Units that still wait for the decoder.
    pub waiting: usize,
    frame: gst_video::VideoFrameRef<&'a gst::BufferRef>,
}

impl Decoded<'_> {
    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        (self.frame.width(), self.frame.height())
    }

    /// The first plane and its stride in bytes: all of the picture for [`Pixels::Bgrx`].
    ///
    /// # Errors
    /// The picture has no plane.
    pub fn plane(&self) -> Result<(&[u8], usize), DecodeError> {
        let stride = self.frame.plane_stride().first().copied().unwrap_or(0);
        let data = self.frame.plane_data(0).map_err(DecodeError::gstreamer("a picture without data"))?;
        Ok((data, usize::try_from(stride).unwrap_or(0)))
    }
}

/// A unit on its way through the pipeline.
#[derive(Clone, Copy, Debug)]
struct Passing {
    id: u64,
    started: Option<Nanos>,
    decoded: Option<Nanos>,
}

#[derive(Debug, Default)]
struct Shared {
    passing: VecDeque<Passing>,
    failure: Option<String>,
}

fn locked(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running decoder for one stream.
pub struct Decoder {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    element: gst::Element,
    shared: Arc<Mutex<Shared>>,
}

impl Decoder {
    /// Makes and starts a decoder; `on_picture` is called from the decoder's thread, in order.
    ///
    /// # Errors
    /// No decoder is installed, or GStreamer refuses.
    pub fn open(
        codec: Codec,
        size: (u32, u32),
        pixels: Pixels,
        on_picture: impl FnMut(Decoded<'_>) + Send + 'static,
    ) -> Result<Self, DecodeError> {
        gst::init().map_err(DecodeError::gstreamer("initialisation failed"))?;
        let element = make(codec)?;
        let source = gst_app::AppSrc::builder()
            .caps(&caps_of(codec, size))
            .format(gst::Format::Time)
            .is_live(true)
            .build();
        let mut caps = gst::Caps::builder("video/x-raw");
        if pixels == Pixels::Bgrx {
            caps = caps.field("format", "BGRx");
        }
        let sink = gst_app::AppSink::builder().caps(&caps.build()).sync(false).build();
        // Nobody asks for the last picture; keeping it would keep its memory.
        sink.set_property("enable-last-sample", false);
        let pipeline = gst::Pipeline::new();
        let mut chain: Vec<gst::Element> = vec![source.clone().upcast()];
        chain.extend(parser(codec)?);
        chain.push(element.clone());
        if pixels == Pixels::Bgrx {
            chain.push(
                gst::ElementFactory::make("videoconvert").build().map_err(|_| DecodeError::Missing {
                    codec,
                    packages: "gstreamer1.0-plugins-base".into(),
                })?,
            );
        }
        chain.push(sink.clone().upcast());
        pipeline.add_many(&chain).map_err(DecodeError::gstreamer("building the pipeline"))?;
        gst::Element::link_many(&chain).map_err(DecodeError::gstreamer("linking the decoder"))?;
        let shared: Arc<Mutex<Shared>> = Arc::default();
        stamp(&element, "sink", &shared, |passing| &mut passing.started);
        stamp(&element, "src", &shared, |passing| &mut passing.decoded);
        listen(&pipeline, Arc::clone(&shared));
        deliver(&sink, Arc::clone(&shared), on_picture);
        if pipeline.set_state(gst::State::Playing).is_err() {
            let _ = pipeline.set_state(gst::State::Null);
            return Err(DecodeError::Gstreamer { what: "starting the decoder", reason: "it refused".into() });
        }
        Ok(Self { pipeline, source, element, shared })
    }

    /// Hands one access unit over; returns before it is decoded. `id` must grow from call to call.
    ///
    /// # Errors
    /// The decoder has failed (make another one and wait for a keyframe) or is hopelessly behind.
    pub fn push(&self, id: u64, unit: Vec<u8>) -> Result<(), DecodeError> {
        {
            let mut shared = locked(&self.shared);
            if let Some(reason) = &shared.failure {
                return Err(DecodeError::Gstreamer { what: "decoding", reason: reason.clone() });
            }
            if shared.passing.len() >= MAX_WAITING {
                return Err(DecodeError::Behind(shared.passing.len()));
            }
            shared.passing.push_back(Passing { id, started: None, decoded: None });
        }
        let mut buffer = gst::Buffer::from_mut_slice(unit);
        if let Some(buffer) = buffer.get_mut() {
            // The number goes through as the time: nothing here runs by the clock.
            buffer.set_pts(time_of(id));
        }
        let pushed = self.source.push_buffer(buffer);
        pushed
            .map(drop)
            .map_err(|flow| DecodeError::Gstreamer { what: "decoding", reason: format!("{flow:?}") })
    }

    /// Units handed over whose picture has not come out yet.
    pub fn waiting(&self) -> usize {
        locked(&self.shared).passing.len()
    }

    /// Why the decoder has failed, once it has.
    pub fn failure(&self) -> Option<String> {
        locked(&self.shared).failure.clone()
    }

    /// Name of the element and versions of GStreamer and of the element's plugin.
    pub fn versions(&self) -> (String, BTreeMap<String, String>) {
        let factory = self.element.factory();
        let name = factory.as_ref().map(|f| f.name().to_string()).unwrap_or_default();
        let mut versions = BTreeMap::from([("gstreamer".to_owned(), gst::version_string().to_string())]);
        if let Some(plugin) = factory.and_then(|f| f.plugin()) {
            versions.insert(name.clone(), plugin.version().into());
        }
        (name, versions)
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// One microsecond a number: decoders that guess durations from times stay out of trouble.
fn time_of(id: u64) -> gst::ClockTime {
    gst::ClockTime::from_useconds(id)
}

fn make(codec: Codec) -> Result<gst::Element, DecodeError> {
    let known = || KNOWN.iter().filter(|k| k.codec == codec);
    let element =
        known().find_map(|k| gst::ElementFactory::make(k.element).build().ok()).ok_or_else(|| {
            let packages: Vec<_> = known().map(|k| k.package).collect();
            DecodeError::Missing { codec, packages: packages.join(" or ") }
        })?;
    let set = |property: &str, value: &str| {
        if element.find_property(property).is_some() {
            element.set_property_from_str(property, value);
        }
    };
    // libav decodes a frame for each thread at once and so gives the first picture late.
    set("max-threads", "1");
    // A broken unit costs its picture, not the stream (any number of them).
    set("max-errors", "-1");
    Ok(element)
}

/// openh264dec and libde265dec want profile and level, which only a parser finds. Given whole access units it passes each
/// one on at once.
fn parser(codec: Codec) -> Result<Option<gst::Element>, DecodeError> {
    let name = match codec {
        Codec::H264 => "h264parse",
        Codec::H265 => "h265parse",
        Codec::Mjpeg | Codec::Vp8 | Codec::Vp9 => return Ok(None),
    };
    let missing = |_| DecodeError::Missing { codec, packages: "gstreamer1.0-plugins-bad".into() };
    gst::ElementFactory::make(name).build().map(Some).map_err(missing)
}

fn caps_of(codec: Codec, (width, height): (u32, u32)) -> gst::Caps {
    let byte_stream =
        |name: &str| gst::Caps::builder(name).field("stream-format", "byte-stream").field("alignment", "au");
    let builder = match codec {
        Codec::Mjpeg => gst::Caps::builder("image/jpeg").field("parsed", true),
        Codec::Vp8 => gst::Caps::builder("video/x-vp8"),
        Codec::Vp9 => gst::Caps::builder("video/x-vp9").field("alignment", "frame"),
        Codec::H264 => byte_stream("video/x-h264"),
        Codec::H265 => byte_stream("video/x-h265"),
    };
    let side = |n: u32| i32::try_from(n).unwrap_or(i32::MAX);
    builder
        .field("width", side(width))
        .field("height", side(height))
        .field("framerate", gst::Fraction::new(0, 1))
        .build()
}

/// Stamps units as they pass a pad of the decoder.
fn stamp(
    element: &gst::Element,
    pad: &str,
    shared: &Arc<Mutex<Shared>>,
    field: impl Fn(&mut Passing) -> &mut Option<Nanos> + Send + Sync + 'static,
) {
    let Some(pad) = element.static_pad(pad) else { return };
    let shared = Arc::clone(shared);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(id) = info.buffer().and_then(|b| b.pts()) {
            let now = MonotonicClock.now();
            let mut shared = locked(&shared);
            if let Some(passing) = shared.passing.iter_mut().find(|p| p.id == id.useconds()) {
                *field(passing) = Some(now);
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Notes the first error. The bus is not watched by a loop: its synchronous handler sees every message.
fn listen(pipeline: &gst::Pipeline, shared: Arc<Mutex<Shared>>) {
    let Some(bus) = pipeline.bus() else { return };
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(error) = message.view() {
            let mut shared = locked(&shared);
            shared.failure.get_or_insert_with(|| error.error().to_string());
        }
        gst::BusSyncReply::Drop
    });
}

fn deliver(
    sink: &gst_app::AppSink,
    shared: Arc<Mutex<Shared>>,
    mut on_picture: impl FnMut(Decoded<'_>) + Send + 'static,
) {
    let callbacks = gst_app::AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps()) else {
            return Ok(gst::FlowSuccess::Ok);
        };
        let Some(id) = buffer.pts().map(gst::ClockTime::useconds) else { return Ok(gst::FlowSuccess::Ok) };
        let info = gst_video::VideoInfo::from_caps(caps).map_err(|_| gst::FlowError::NotNegotiated)?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)
            .map_err(|_| gst::FlowError::Error)?;
        let (passing, waiting) = {
            let mut shared = locked(&shared);
            // Units before this one gave no picture and will give none.
            while shared.passing.front().is_some_and(|p| p.id < id) {
                shared.passing.pop_front();
            }
            let passing = shared.passing.pop_front_if(|p| p.id == id);
            (passing, shared.passing.len())
        };
        if let Some(passing) = passing {
            let now = MonotonicClock.now();
            let decoded_at = passing.decoded.unwrap_or(now);
            let decode_start = passing.started.unwrap_or(decoded_at);
            on_picture(Decoded { id, decode_start, decoded_at, waiting, frame });
        }
        Ok(gst::FlowSuccess::Ok)
    });
    sink.set_callbacks(callbacks.build());
}
