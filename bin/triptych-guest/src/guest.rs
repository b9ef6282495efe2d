//! The guest's loop: one thread that waits for the frame clock, the encoder, the port and signals.
//!
//! At most [`MAX_FRAMES`] frames are between capture and port. When the encoder or the port is slower than the clock,
//! ticks are skipped and counted; nothing queues up, so latency stays bounded.

use std::collections::VecDeque;
use std::time::Duration;

use agent::Wish;
use anyhow::{Context, bail};
use probe::Probe;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use spice::stream_device::{Message, Parser, VideoCodec};
use streaming::codec::Codec;
use streaming::encode::{EncoderSettings, InForce, Unit};
use streaming::frame::FrameSize;
use streaming::pace::{Tick, Ticker};
use streaming::source::{Source, SourceError, SourceSpec};
use streaming::worker::{ChangeError, Launch, Worker, WorkerEvent};
use units::{Clock, MonotonicClock, Nanos};

use crate::frames::{FrameTable, Shot};
use crate::options::StreamOptions;
use crate::outbox::Outbox;
use crate::port::{Came, Port};
use crate::recorder::Recorder;
use crate::settings::Live;
use crate::signals::StopSignals;

/// Frames between capture and port: one under way and one behind it.
const MAX_FRAMES: usize = 2;
/// Longest wait without looking at anything.
const IDLE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// How long a half-written message may take to finish when the program ends.
const FAREWELL: Nanos = Nanos(200_000_000);

/// Streams until told to stop.
pub(crate) fn run(options: &StreamOptions) -> anyhow::Result<()> {
    // Without a collector of its own it speaks to the machine's agent, if one runs.
    let probe = if options.collector.is_some() {
        Probe::new()
    } else {
        Probe::shared(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
    let recorder = Recorder::start(options, &probe)?;
    let result = Guest::start(options, &probe, &recorder).and_then(|mut guest| {
        let result = guest.serve();
        guest.say_goodbye();
        result
    });
    if let Err(error) = &result {
        recorder.fault(&format!("{error:#}"));
    }
    recorder.finish();
    result
}

/// What the host wants at present.
struct Stream {
    /// The first frame that belongs to it: units of earlier ones are thrown away.
    first: Option<u64>,
    /// Whether the next frame must be a keyframe.
    force_keyframe: bool,
    /// Whether a keyframe is out, so that others make sense.
    begun: bool,
}

struct Guest<'a> {
    options: &'a StreamOptions,
    recorder: &'a Recorder,
    codec: VideoCodec,
    signals: StopSignals,
    source: Box<dyn Source>,
    worker: Worker,
    ticker: Ticker,
    ticks_left: Option<u64>,
    port: Port,
    parser: Parser,
    outbox: Outbox,
    table: FrameTable,
    stream: Option<Stream>,
    /// Frames within the encoder.
    shots: VecDeque<Shot>,
    skipped: u64,
    /// Ticks skipped in the frames sent so far.
    skipped_total: u64,
    greeted: bool,
    /// Whether the port is a device that no host has open.
    unattended: bool,
    in_force: Option<InForce>,
    /// Under way with the encoder.
    wish: Option<(Wish, Live)>,
    /// Since when another encoder is being started, and why.
    restarting: Option<(Nanos, String)>,
}

impl<'a> Guest<'a> {
    fn start(options: &'a StreamOptions, probe: &Probe, recorder: &'a Recorder) -> anyhow::Result<Self> {
        let signals = StopSignals::register()?;
        let source = options.source.open(options.size.or(default_size(&options.source)))?;
        let settings = options.encoder_settings(source.size());
        let table = FrameTable::declare(probe)?;
        // The encoder starts while the port is being opened.
        let mut worker = Worker::start(launch(), settings)?;
        let mut in_force = None;
        while in_force.is_none() {
            // Wrong settings are told before anything else happens.
            match next_event(&mut worker, &signals, recorder)? {
                Some(WorkerEvent::Ready(said)) => in_force = Some(said),
                Some(WorkerEvent::Restarted { reason, .. }) => tracing::warn!("{reason}; started again"),
                Some(WorkerEvent::Unit(_) | WorkerEvent::Refused(_)) => {}
                None => bail!("stopped before the encoder was ready"),
            }
        }
        let port = options.port.as_deref().context("--port is missing")?;
        let timeout = Duration::try_from_secs_f64(options.connect_timeout).context("--connect-timeout")?;
        let port = Port::open(port, timeout)?;
        let ticker = Ticker::start(options.fps).context("no timer")?;
        Ok(Self {
            options,
            recorder,
            codec: spice_codec(options.codec),
            signals,
            source,
            worker,
            ticker,
            ticks_left: options.ticks,
            port,
            parser: Parser::new(),
            outbox: Outbox::default(),
            table,
            stream: None,
            shots: VecDeque::new(),
            skipped: 0,
            skipped_total: 0,
            greeted: false,
            unattended: false,
            in_force,
            wish: None,
            restarting: None,
        })
    }

    fn serve(&mut self) -> anyhow::Result<()> {
        loop {
            self.wait()?;
            if self.signals.came() || self.recorder.stop_requested() {
                return Ok(());
            }
            while let Some(event) = self.worker.receive(MonotonicClock.now())? {
                self.encoder_said(event)?;
            }
            self.hear_wishes()?;
            self.listen()?;
            if let Some(tick) = self.ticker.take().context("timer failed")? {
                self.tick(tick)?;
                if self.is_over(tick) {
                    return Ok(());
                }
            }
            self.flush()?;
        }
    }

    fn wait(&self) -> anyhow::Result<()> {
        let port = if self.outbox.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT };
        let mut fds = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::new(&self.ticker, PollFlags::IN),
            PollFd::new(&self.worker, PollFlags::IN),
            PollFd::new(&self.port, port),
        ];
        // An unattended device is looked at with each tick instead.
        let watched = if self.unattended { &mut fds[..3] } else { &mut fds[..] };
        match poll(watched, Some(&IDLE)) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error).context("poll failed"),
        }
    }

    fn is_over(&mut self, tick: Tick) -> bool {
        let Some(left) = &mut self.ticks_left else { return false };
        *left = left.saturating_sub(1 + tick.missed);
        *left == 0
    }

    /// Captures a frame, when the host wants one and there is room for it.
    fn tick(&mut self, tick: Tick) -> anyhow::Result<()> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        self.skipped += tick.missed;
        let room = self.worker.in_flight() + self.outbox.frames() < MAX_FRAMES;
        let Some(slot) = self.worker.can_take().filter(|_| room) else {
            self.skipped += 1;
            return Ok(());
        };
        let start = MonotonicClock.now();
        match self.source.capture(self.worker.pool(), slot, tick.at) {
            Err(SourceError::Resized { .. }) if self.options.size.is_none() => return self.follow_size(),
            captured => captured?,
        }
        let captured = MonotonicClock.now();
        self.worker.submit(slot, tick.number, stream.force_keyframe, captured);
        stream.first.get_or_insert(tick.number);
        stream.force_keyframe = false;
        let skipped = std::mem::take(&mut self.skipped);
        self.shots.push_back(Shot {
            id: tick.number,
            start,
            captured,
            submitted: captured,
            encode: Nanos::ZERO,
            skipped,
            requested_fps: self.ticker.rate(),
        });
        Ok(())
    }

    /// The whole of a display is streamed, and it has another size: so does the stream from now on.
    fn follow_size(&mut self) -> anyhow::Result<()> {
        let before = self.source.size();
        self.source = self.options.source.open(None)?;
        let size = self.source.size();
        let text = format!("{before} -> {size}");
        tracing::info!("the display's size has changed: {text}");
        self.recorder.mark("resolution_changed", &text);
        self.worker = Worker::start(launch(), EncoderSettings { size, ..self.worker.settings().clone() })?;
        // This tick's frame.
        self.skipped += 1;
        self.encoder_is_new(text);
        self.announce();
        Ok(())
    }

    /// Frames within the one before are lost, and the new encoder starts with a keyframe.
    fn encoder_is_new(&mut self, why: String) {
        self.restarting.get_or_insert_with(|| (MonotonicClock.now(), why));
        self.skipped += self.shots.drain(..).map(|shot| 1 + shot.skipped).sum::<u64>();
        if let Some(stream) = &mut self.stream {
            (stream.begun, stream.force_keyframe) = (false, true);
        }
    }

    /// Takes up what somebody wants changed, one wish after the other.
    fn hear_wishes(&mut self) -> anyhow::Result<()> {
        while self.wish.is_none()
            && let Some(wish) = self.recorder.next_wish()
        {
            let rates = self.worker.settings().rates();
            let wanted =
                Live::named(&wish.name).and_then(|live| Ok((live, live.change(&wish.value, rates)?)));
            match wanted {
                Ok((live, rates)) => match self.worker.change(rates) {
                    Ok(anew) => {
                        if anew {
                            self.encoder_is_new(format!("{} = {}", wish.name, wish.value));
                        }
                        self.wish = Some((wish, live));
                    }
                    Err(ChangeError::Rates(error)) => self.recorder.answer(&wish, Err(error.to_string())),
                    Err(error) => return Err(error.into()),
                },
                Err(why) => self.recorder.answer(&wish, Err(why)),
            }
        }
        Ok(())
    }

    /// The encoder takes frames, with these settings.
    fn encoder_is_ready(&mut self, in_force: InForce) -> anyhow::Result<()> {
        if let Some((since, why)) = self.restarting.take() {
            let after = (MonotonicClock.now() - since).0 as f64 / 1e9;
            let element = self.worker.settings().element();
            self.recorder.mark("encoder_restarted", &format!("{element}, after {after:.2} s: {why}"));
        }
        let settings = self.worker.settings();
        if let Some((wish, live)) = self.wish.take() {
            self.recorder.answer(&wish, Ok(live.in_force(settings, &in_force)));
        }
        if settings.fps != self.ticker.rate() {
            self.ticker.set_rate(settings.fps).context("timer failed")?;
        }
        self.in_force = Some(in_force);
        Ok(())
    }

    fn encoder_said(&mut self, event: WorkerEvent) -> anyhow::Result<()> {
        match event {
            WorkerEvent::Ready(in_force) => self.encoder_is_ready(in_force)?,
            WorkerEvent::Refused(why) => {
                if let Some((wish, _)) = self.wish.take() {
                    self.recorder.answer(&wish, Err(why));
                }
            }
            WorkerEvent::Unit(unit) => self.encoded(unit),
            WorkerEvent::Restarted { reason, restarts } => {
                tracing::warn!("{reason}; started again ({restarts} times)");
                self.recorder.mark("fault", &format!("{reason}; started again"));
                self.encoder_is_new(reason);
            }
        }
        Ok(())
    }

    fn encoded(&mut self, unit: Unit) {
        let now = MonotonicClock.now();
        // Units come in order: a frame before this one has none.
        while self.shots.front().is_some_and(|shot| shot.id < unit.id) {
            self.skipped += self.shots.pop_front().map_or(0, |shot| 1 + shot.skipped);
        }
        let Some(mut shot) = self.shots.pop_front_if(|shot| shot.id == unit.id) else { return };
        let Some(stream) = &mut self.stream else { return };
        if stream.first.is_none_or(|first| unit.id < first) {
            return;
        }
        if !stream.begun && !unit.keyframe {
            stream.force_keyframe = true;
            self.skipped += 1 + shot.skipped;
            return;
        }
        stream.begun = true;
        shot.encode = now - shot.submitted;
        self.outbox.push_frame(shot, unit);
    }

    fn listen(&mut self) -> anyhow::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.port.read(&mut buffer)? {
                Came::Bytes(bytes) => {
                    self.unattended = false;
                    for message in self.parser.push(bytes)? {
                        self.host_said(message)?;
                    }
                }
                Came::Nothing => {
                    self.unattended = false;
                    return Ok(());
                }
                Came::Unattended => {
                    if !self.unattended {
                        tracing::info!("no host has the stream port open");
                        self.unattended = true;
                        // Whoever opens it next starts afresh, and from the start of a message.
                        (self.stream, self.greeted, self.parser) = (None, false, Parser::new());
                        self.outbox = Outbox::default();
                    }
                    return Ok(());
                }
            }
        }
    }

    fn host_said(&mut self, message: Message) -> anyhow::Result<()> {
        match message {
            Message::Capabilities(_) if !self.greeted => {
                self.greeted = true;
                // None of ours is needed; the answer ends the exchange.
                self.outbox.push(&Message::Capabilities(vec![0]));
            }
            Message::StartStop(codecs) if codecs.is_empty() => {
                tracing::info!("the host wants no stream any more");
                self.stream = None;
                self.outbox.withdraw_all();
            }
            Message::StartStop(codecs) => self.begin(&codecs)?,
            Message::NotifyError { code, text } => {
                bail!("the host refused the stream: {text} (error {code})")
            }
            other => tracing::debug!("the host said {}, which needs no answer", other.kind()),
        }
        Ok(())
    }

    fn begin(&mut self, codecs: &[VideoCodec]) -> anyhow::Result<()> {
        if !codecs.contains(&self.codec) {
            let list = codecs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            bail!("the client does not decode {}: start the guest with --codec one of {list}", self.codec);
        }
        tracing::info!("streaming {} as {}", self.source.size(), self.codec);
        self.stream = Some(Stream { first: None, force_keyframe: true, begun: false });
        self.announce();
        self.skipped = 0;
        Ok(())
    }

    /// Tells the host what comes, where it wants anything.
    fn announce(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        *stream = Stream { first: None, force_keyframe: true, begun: false };
        let size = self.source.size();
        // What was meant for the stream before is of no use to a decoder that starts here.
        self.skipped += self.outbox.withdraw_frames();
        self.outbox.push(&Message::Format { width: size.width(), height: size.height(), codec: self.codec });
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        let (table, skipped) = (&mut self.table, &mut self.skipped_total);
        self.outbox.flush(&mut self.port, |sent| {
            *skipped += sent.shot.skipped;
            table.sent(&sent);
        })?;
        // In force once a frame is out; said again when a new encoder says what it has in force.
        if self.table.rows() > 0
            && let Some(in_force) = self.in_force.take()
        {
            self.recorder.ready(&self.options.source.to_string(), self.worker.settings(), &in_force);
        }
        Ok(())
    }

    /// Lets a half-written message finish: the host must never be left within one by a program that ends in order.
    fn say_goodbye(&mut self) {
        let deadline = MonotonicClock.now() + FAREWELL;
        self.outbox.withdraw_all();
        while self.outbox.is_halfway() && MonotonicClock.now() < deadline {
            let mut fds = [PollFd::new(&self.port, PollFlags::OUT)];
            if poll(&mut fds, Some(&IDLE)).is_err() || self.flush().is_err() {
                break;
            }
        }
        tracing::info!("{} frames sent, {} ticks skipped", self.table.rows(), self.skipped_total);
    }
}

fn default_size(source: &SourceSpec) -> Option<FrameSize> {
    match source {
        SourceSpec::Scene(_) => FrameSize::new(640, 360).ok(),
        SourceSpec::X11(_) => None,
    }
}

fn launch() -> Launch {
    Launch { program: "/proc/self/exe".into(), arguments: vec!["encoder-worker".into()] }
}

fn spice_codec(codec: Codec) -> VideoCodec {
    match codec {
        Codec::Mjpeg => VideoCodec::Mjpeg,
        Codec::Vp8 => VideoCodec::Vp8,
        Codec::H264 => VideoCodec::H264,
        Codec::Vp9 => VideoCodec::Vp9,
        Codec::H265 => VideoCodec::H265,
    }
}

/// Waits for the encoder; `None` when the program should end.
fn next_event(
    worker: &mut Worker,
    signals: &StopSignals,
    recorder: &Recorder,
) -> anyhow::Result<Option<WorkerEvent>> {
    loop {
        if let Some(event) = worker.receive(MonotonicClock.now())? {
            return Ok(Some(event));
        }
        if signals.came() || recorder.stop_requested() {
            return Ok(None);
        }
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(worker, PollFlags::IN)];
        match poll(&mut fds, Some(&IDLE)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error).context("poll failed"),
        }
    }
}
