//! A guest with nothing to do: sends frames that were encoded beforehand, on time, and remembers when each was sent.
//!
//! Every picture carries its number as a bar code over its lower quarter, so that whoever looks at a screen can tell
//! which frame it is. Encoding beforehand keeps the encoder's CPU and its jitter out of what is measured.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use gstreamer::prelude::*;
use spice::stream_device::VideoCodec;
use streaming::frame::FrameSize;
use streaming::scene::{Painter, Scene};
use units::{Clock, MonotonicClock, Nanos};

/// Width and height of the stream, in pixels.
pub(crate) const SIZE: (usize, usize) = (640, 360);
/// The colour that fills the calibration picture: red, green, blue.
pub(crate) const CALIBRATION: [u8; 3] = [255, 0, 255];
/// Bars across the picture: white, black, twelve bits (most significant first), white, black.
const BARS: usize = 16;

/// A sequence of access units: the calibration picture alone, then the numbered frames.
pub(crate) struct Film {
    pub(crate) codec: VideoCodec,
    calibration: Vec<u8>,
    frames: Vec<Vec<u8>>,
}

/// The number that a row of pixels through the bar code shows, or `None` when it shows none.
pub(crate) fn decode_bars(row: &[[u8; 3]]) -> Option<u16> {
    let light = |bar: usize| {
        let p = row.get((2 * bar + 1) * row.len() / (2 * BARS)).copied().unwrap_or_default();
        p.iter().map(|c| u32::from(*c)).sum::<u32>() > 3 * 128
    };
    if !light(0) || light(1) || !light(BARS - 2) || light(BARS - 1) {
        return None;
    }
    Some((0..12).fold(0, |number, bit| number << 1 | u16::from(light(2 + bit))))
}

fn draw_bars(bgrx: &mut [u8], number: u16) {
    let (width, height) = SIZE;
    for y in height * 3 / 4..height {
        for x in 0..width {
            let bar = x * BARS / width;
            let light = match bar {
                0 | 14 => true,
                1 | 15 => false,
                bit => number >> (13 - bit) & 1 == 1,
            };
            bgrx[(y * width + x) * 4..][..4].fill(if light { 235 } else { 16 });
        }
    }
}

/// Encodes `frames` numbered pictures with the encoder that `triptych-guest` would use at these settings.
pub(crate) fn encode(codec: VideoCodec, fps: u32, frames: usize) -> anyhow::Result<Film> {
    gstreamer::init()?;
    let encoder = match codec {
        VideoCodec::Mjpeg => "jpegenc quality=85",
        VideoCodec::H264 => {
            "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=1000 bitrate=4000 byte-stream=true \
             ! video/x-h264,stream-format=byte-stream,alignment=au"
        }
        VideoCodec::Vp8 => {
            "vp8enc deadline=1 cpu-used=16 target-bitrate=4000000 keyframe-max-dist=1000 lag-in-frames=0 end-usage=cbr"
        }
        other => bail!("no film in {other:?}"),
    };
    let (width, height) = SIZE;
    let description = format!(
        "appsrc name=in format=time caps=video/x-raw,format=BGRx,width={width},height={height},framerate={fps}/1 \
         ! videoconvert ! video/x-raw,format=I420 ! {encoder} ! appsink name=out sync=false"
    );
    let painter = Painter::new(Scene::Video, FrameSize::new(width as u32, height as u32)?);
    let mut picture = vec![0u8; width * height * 4];
    let numbered = run_pipeline(&description, fps, frames, |n, bgrx| {
        painter.paint(n as u64 * 60 / u64::from(fps), &mut picture);
        draw_bars(&mut picture, (n % 4096) as u16);
        bgrx.copy_from_slice(&picture);
    })?;
    let [r, g, b] = CALIBRATION;
    let calibration = run_pipeline(&description, fps, 1, |_, bgrx| {
        bgrx.chunks_exact_mut(4).for_each(|p| p.copy_from_slice(&[b, g, r, 0]));
    })?;
    ensure!(numbered.len() == frames && calibration.len() == 1, "the encoder gave {} units", numbered.len());
    Ok(Film { codec, calibration: calibration.into_iter().next().unwrap_or_default(), frames: numbered })
}

fn run_pipeline(
    description: &str,
    fps: u32,
    frames: usize,
    mut paint: impl FnMut(usize, &mut [u8]),
) -> anyhow::Result<Vec<Vec<u8>>> {
    let pipeline = gstreamer::parse::launch(description)?
        .downcast::<gstreamer::Pipeline>()
        .map_err(|_| anyhow::anyhow!("not a pipeline"))?;
    let element = |name| pipeline.by_name(name).context("the pipeline has it");
    let input =
        element("in")?.downcast::<gstreamer_app::AppSrc>().map_err(|_| anyhow::anyhow!("no appsrc"))?;
    let output =
        element("out")?.downcast::<gstreamer_app::AppSink>().map_err(|_| anyhow::anyhow!("no appsink"))?;
    pipeline.set_state(gstreamer::State::Playing)?;
    let mut units = Vec::with_capacity(frames);
    for n in 0..frames {
        let mut buffer = gstreamer::Buffer::with_size(SIZE.0 * SIZE.1 * 4)?;
        let frame = buffer.get_mut().context("a new buffer is ours alone")?;
        frame.set_pts(gstreamer::ClockTime::SECOND * n as u64 / u64::from(fps));
        paint(n, frame.map_writable()?.as_mut_slice());
        input.push_buffer(buffer)?;
        let unit = output
            .try_pull_sample(gstreamer::ClockTime::from_seconds(10))
            .context("the encoder gave no unit")?;
        units.push(unit.buffer().context("a sample has a buffer")?.map_readable()?.to_vec());
    }
    pipeline.set_state(gstreamer::State::Null)?;
    Ok(units)
}

/// What the stub is to send next.
enum Act {
    Calibrate,
    Play,
}

/// A running stub guest. Ends when dropped.
pub(crate) struct Stub {
    acts: mpsc::Sender<Act>,
    started: mpsc::Receiver<()>,
    sent: Arc<Mutex<Vec<Nanos>>>,
    stop: Arc<AtomicBool>,
    stream: UnixStream,
    threads: Vec<JoinHandle<anyhow::Result<()>>>,
}

impl Stub {
    /// Connects to the host's stream socket and waits there for a client.
    pub(crate) fn connect(socket: &Path, film: Arc<Film>, fps: u32) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).context("the host does not listen")?;
        let (acts, receive_act) = mpsc::channel();
        let (tell_started, started) = mpsc::channel();
        let (sent, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let codec = film.codec;
        let listener = {
            let stream = stream.try_clone()?;
            std::thread::spawn(move || listen(stream, codec, &tell_started))
        };
        let player = {
            let (stream, sent, stop) = (stream.try_clone()?, Arc::clone(&sent), Arc::clone(&stop));
            std::thread::spawn(move || play(stream, &film, fps, &receive_act, &sent, &stop))
        };
        Ok(Self { acts, started, sent, stop, stream, threads: vec![listener, player] })
    }

    /// Waits for a client to be there, then sends FORMAT and the calibration picture over and over.
    pub(crate) fn calibrate(&self, patience: Duration) -> anyhow::Result<()> {
        self.started.recv_timeout(patience).context("no client started the stream")?;
        self.acts.send(Act::Calibrate).context("the stub has ended")
    }

    /// Sends the numbered frames, once.
    pub(crate) fn play(&self) -> anyhow::Result<()> {
        self.acts.send(Act::Play).context("the stub has ended")
    }

    /// The instants at which each numbered frame was handed to the socket in one write, so far.
    pub(crate) fn sent(&self) -> Vec<Nanos> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let (closed, _) = mpsc::channel();
        self.acts = closed;
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn message(kind: u16, payload: &[&[u8]]) -> Vec<u8> {
    let size = payload.iter().map(|p| p.len()).sum::<usize>() as u32;
    let mut bytes = vec![1, 0];
    bytes.extend(kind.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    payload.iter().for_each(|p| bytes.extend_from_slice(p));
    bytes
}

fn listen(mut stream: UnixStream, codec: VideoCodec, started: &mpsc::Sender<()>) -> anyhow::Result<()> {
    loop {
        let mut header = [0u8; 8];
        if stream.read_exact(&mut header).is_err() {
            return Ok(());
        }
        let size = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        ensure!(size < 4096, "the host sent a message of {size} bytes");
        let mut payload = vec![0; size as usize];
        stream.read_exact(&mut payload)?;
        match (u16::from_le_bytes([header[2], header[3]]), payload.first()) {
            (4, Some(1..)) => {
                ensure!(payload[1..].contains(&(codec as u8)), "the client does not take {codec:?}");
                let _ = started.send(());
            }
            (5, _) => {
                bail!("the host reports: {}", String::from_utf8_lossy(payload.get(4..).unwrap_or_default()))
            }
            _ => {}
        }
    }
}

fn play(
    mut stream: UnixStream,
    film: &Film,
    fps: u32,
    acts: &mpsc::Receiver<Act>,
    sent: &Mutex<Vec<Nanos>>,
    stop: &AtomicBool,
) -> anyhow::Result<()> {
    stream.write_all(&message(1, &[&[0]]))?;
    let period = 1_000_000_000 / i64::from(fps);
    let (mut calibrating, mut frames, mut next) = (false, [].iter(), MonotonicClock.now());
    while !stop.load(Ordering::Relaxed) {
        let left = Duration::from_nanos((next.0 - MonotonicClock.now().0).max(0) as u64);
        match acts.recv_timeout(left) {
            Ok(Act::Calibrate) => {
                let (w, h) = ((SIZE.0 as u32).to_le_bytes(), (SIZE.1 as u32).to_le_bytes());
                stream.write_all(&message(2, &[&w, &h, &[film.codec as u8, 0, 0, 0]]))?;
                calibrating = true;
                continue;
            }
            Ok(Act::Play) => (calibrating, frames) = (false, film.frames.iter()),
            Err(mpsc::RecvTimeoutError::Disconnected) => return Ok(()),
            Err(mpsc::RecvTimeoutError::Timeout) => {}
        }
        next.0 += period;
        if calibrating {
            stream.write_all(&message(3, &[&film.calibration]))?;
        } else if let Some(frame) = frames.next() {
            let bytes = message(3, &[frame]);
            // Before the write, not after: on a busy machine the host may have the bytes before the write returns.
            sent.lock().unwrap_or_else(PoisonError::into_inner).push(MonotonicClock.now());
            stream.write_all(&bytes)?;
        }
    }
    Ok(())
}

impl Film {
    /// The sizes of the numbered frames, in bytes.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.frames.iter().map(Vec::len).collect()
    }
}
