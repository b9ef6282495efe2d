//! The session: connects, receives, hands frames to the decoder, looks now and then whether to end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use probe::Probe;
use signal_hook::consts::{SIGINT, SIGTERM};
use spice::ProtocolError;
use spice::client::{DisplayEvent, Session};
use streaming::present::WindowEvent;

use crate::frames::Frames;
use crate::options::Options;
use crate::picture::{Picture, Shared, locked};
use crate::recorder::Recorder;

/// How often the loop looks at signals, the window and the collector while no frame comes.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How long frames may take to come out of the decoder at the end.
const SETTLE: Duration = Duration::from_millis(200);

/// Runs a session to its end.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        signal_hook::flag::register(signal, Arc::clone(&stop))?;
    }
    // Without a collector of its own it speaks to the machine's agent, if one runs.
    let probe = if options.collector.is_some() {
        Probe::new()
    } else {
        Probe::shared(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
    let frames = Frames::declare(&probe)?;
    let recorder = Recorder::start(options, &probe)?;
    let shared = Shared::new(frames);
    let mut pictures = BTreeMap::new();
    let result = receive(options, &stop, &recorder, &shared, &mut pictures);
    settle(&pictures);
    drop(pictures);
    {
        let mut shared = locked(&shared);
        shared.frames.drop_pending();
        if options.json {
            println!("{}", shared.frames.summary.json());
        } else {
            eprintln!("triptych-client: {}", shared.frames.summary.line());
        }
    }
    if let Err(error) = &result {
        recorder.fault(&format!("{error:#}"));
    }
    recorder.finish();
    result
}

fn receive(
    options: &Options,
    stop: &AtomicBool,
    recorder: &Recorder,
    shared: &Arc<Mutex<Shared>>,
    pictures: &mut BTreeMap<u32, Picture>,
) -> anyhow::Result<()> {
    let display = options.display()?;
    let ticket = options.ticket()?;
    let session = Session::connect(options.connect.as_str(), ticket.as_deref(), options.connect_timeout);
    let mut session = session.map_err(|error| explain(error, options))?;
    let deadline = options.duration.map(|d| Instant::now() + d);
    let (mut seq, mut told) = (0u64, false);
    loop {
        if stop.load(Ordering::Relaxed)
            || recorder.stop_requested()
            || deadline.is_some_and(|d| Instant::now() >= d)
        {
            return Ok(());
        }
        if locked(shared).poll_window()? == Some(WindowEvent::Closed) {
            return Ok(());
        }
        let event = match session.display().next_event(LOOK_EVERY) {
            Ok(event) => event,
            Err(ProtocolError::Closed) => {
                let frames = locked(shared).frames.summary.frames();
                anyhow::bail!("the host {} closed the connection after {frames} frames", options.connect);
            }
            Err(error) => return Err(error).context(format!("the stream from {}", options.connect)),
        };
        match event {
            Some(DisplayEvent::StreamCreate(create)) => {
                let text = format!("{} {}x{}", create.codec, create.width, create.height);
                tracing::info!("stream {}: {text}", create.id);
                recorder.mark("stream", &text);
                pictures.insert(create.id, Picture::open(create, display.as_deref(), shared)?);
                told = false;
            }
            Some(DisplayEvent::StreamData(frame)) => {
                let Some(picture) = pictures.get_mut(&frame.id) else { continue };
                let id = frame.id;
                let kept = picture.take(seq, frame)?;
                seq += 1;
                if !kept {
                    session.display().dropped(id);
                }
            }
            Some(DisplayEvent::StreamDestroy { id }) => {
                pictures.remove(&id);
                locked(shared).frames.drop_pending();
            }
            Some(DisplayEvent::StreamDestroyAll) => {
                pictures.clear();
                locked(shared).frames.drop_pending();
            }
            Some(DisplayEvent::Other { .. }) | None => {}
        }
        if !told
            && locked(shared).presented() > 0
            && let Some(picture) = pictures.values().next()
        {
            let (decoder, versions) = picture.versions();
            recorder.ready(&picture.create, &decoder, display.is_some(), versions);
            told = true;
        }
    }
}

/// Lets what is in the decoders come out: a frame that arrived just before the end is not a dropped one.
fn settle(pictures: &BTreeMap<u32, Picture>) {
    let deadline = Instant::now() + SETTLE;
    while pictures.values().any(|p| p.waiting() > 0) && Instant::now() < deadline {
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

fn explain(error: ProtocolError, options: &Options) -> anyhow::Error {
    let address = &options.connect;
    let refused = matches!(&error, ProtocolError::Io(e) if e.kind() == std::io::ErrorKind::ConnectionRefused);
    if refused {
        return anyhow::anyhow!(
            "nobody listens at {address}: start triptych-host (or QEMU with -spice) there first"
        );
    }
    anyhow::Error::new(error).context(format!("cannot watch {address}"))
}
