//! A SPICE client for video streams, on blocking sockets.
//!
//! [`Session::connect`] links the main channel, which a thread of its own then answers, and the first display channel,
//! which belongs to the caller: [`DisplayChannel::next_event`] reads, and answers acknowledgements, pings and report
//! requests by itself. Payloads are read from the socket straight into the buffer that is handed on.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tracing::{debug, warn};
use units::{Clock, MonotonicClock, Nanos};

use crate::ProtocolError;
use crate::link::{ChannelType, LinkMessage, common_caps, display_caps, link};
use crate::messages::{
    ActivateReport, ChannelsList, MINI_HEADER_LEN, MainInit, Ping, SetAck, StreamCreate, StreamDataHeader,
    StreamReport, client, display_init, frame, parse_header, server,
};
use crate::stream_device::MAX_DATA;

/// How long the link stage may take, and how long a message may stall half-way.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes of a message that is kept whole (streams' data has its own limit).
const MAX_KEPT: u32 = 1 << 20;
/// Most streams at once; libspice-server has 50 (`NUM_STREAMS`).
const MAX_STREAMS: usize = 64;

/// One channel's connection: header state, acknowledgements.
struct Channel {
    stream: TcpStream,
    timeout: Option<Duration>,
    header: [u8; MINI_HEADER_LEN],
    filled: usize,
    window: u32,
    unacknowledged: u32,
}

impl Channel {
    fn connect(
        addresses: &[std::net::SocketAddr],
        message: &LinkMessage,
        ticket: &str,
    ) -> Result<Self, ProtocolError> {
        let mut stream = TcpStream::connect(addresses)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        link(&mut stream, message, ticket)?;
        Ok(Self {
            stream,
            timeout: Some(PATIENCE),
            header: [0; MINI_HEADER_LEN],
            filled: 0,
            window: 0,
            unacknowledged: 0,
        })
    }

    fn send(&mut self, kind: u16, payload: &[u8]) -> Result<(), ProtocolError> {
        self.stream.write_all(&frame(kind, payload)).map_err(ended)
    }

    fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), ProtocolError> {
        // A timeout of zero means "for ever" to the socket.
        let timeout = timeout.map(|t| t.max(Duration::from_micros(1)));
        if timeout != self.timeout {
            self.stream.set_read_timeout(timeout)?;
            self.timeout = timeout;
        }
        Ok(())
    }

    /// Type, size and first byte's instant of the next message, or `None` when none began in time.
    fn next_header(&mut self, timeout: Option<Duration>) -> Result<Option<(u16, u32, Nanos)>, ProtocolError> {
        self.set_timeout(timeout)?;
        while self.filled < MINI_HEADER_LEN {
            match self.stream.read(&mut self.header[self.filled..]) {
                Ok(0) => return Err(ProtocolError::Closed),
                Ok(count) => self.filled += count,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(None);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(ended(error)),
            }
        }
        let first_byte_at = MonotonicClock.now();
        self.filled = 0;
        let (kind, size) = parse_header(&self.header);
        Ok(Some((kind, size, first_byte_at)))
    }

    fn read_exact(&mut self, buffer: &mut [u8]) -> Result<(), ProtocolError> {
        // A caller's short timeout is for the wait between messages; what has begun may take as long as the link.
        let (mut filled, begun) = (0, Instant::now());
        while filled < buffer.len() {
            match self.stream.read(&mut buffer[filled..]) {
                Ok(0) => return Err(ProtocolError::Closed),
                Ok(count) => filled += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    if begun.elapsed() > PATIENCE {
                        return Err(error.into());
                    }
                }
                Err(error) => return Err(ended(error)),
            }
        }
        Ok(())
    }

    fn body(&mut self, what: &'static str, size: u32) -> Result<Vec<u8>, ProtocolError> {
        if size > MAX_KEPT {
            return Err(ProtocolError::TooLarge { what, size, max: MAX_KEPT });
        }
        let mut body = vec![0; size as usize];
        self.read_exact(&mut body)?;
        Ok(body)
    }

    fn skip(&mut self, size: u32) -> Result<(), ProtocolError> {
        let (mut left, mut scratch) = (size as usize, [0; 16 * 1024]);
        while left > 0 {
            let take = left.min(scratch.len());
            self.read_exact(&mut scratch[..take])?;
            left -= take;
        }
        Ok(())
    }

    /// Handles what all channels have in common; true when the message was one of these.
    fn handle_common(&mut self, kind: u16, size: u32) -> Result<bool, ProtocolError> {
        match kind {
            server::SET_ACK => {
                let set = SetAck::decode(&self.body("SET_ACK", size)?)?;
                (self.window, self.unacknowledged) = (set.window, 0);
                self.send(client::ACK_SYNC, &set.generation.to_le_bytes())?;
            }
            server::PING => {
                let ping = Ping::decode(&self.body("PING", size)?)?;
                self.send(client::PONG, &ping.encode())?;
            }
            server::NOTIFY => {
                let body = self.body("NOTIFY", size)?;
                warn!(
                    "the server says: {}",
                    String::from_utf8_lossy(body.get(24..).unwrap_or_default()).trim_end_matches('\0')
                );
            }
            server::DISCONNECTING => {
                self.skip(size)?;
                return Err(ProtocolError::Closed);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Counts a message that was taken, and acknowledges when the window is full.
    fn taken(&mut self) -> Result<(), ProtocolError> {
        if self.window > 0 {
            self.unacknowledged += 1;
            if self.unacknowledged >= self.window {
                self.unacknowledged = 0;
                self.send(client::ACK, &[])?;
            }
        }
        Ok(())
    }
}

fn ended(error: std::io::Error) -> ProtocolError {
    match error.kind() {
        ErrorKind::UnexpectedEof
        | ErrorKind::ConnectionReset
        | ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted => ProtocolError::Closed,
        _ => error.into(),
    }
}

/// A session: the main channel, answered by a thread, and the first display channel. Ends when dropped.
pub struct Session {
    display: DisplayChannel,
    stop: StopHandle,
    main: Option<JoinHandle<()>>,
}

/// Ends a session from any thread: the display's next read returns [`ProtocolError::Closed`].
#[derive(Debug)]
pub struct StopHandle(Vec<TcpStream>);

impl StopHandle {
    /// Closes the connections. May be called more than once.
    pub fn stop(&self) {
        for stream in &self.0 {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Another handle on the same session.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn try_clone(&self) -> std::io::Result<Self> {
        self.0.iter().map(TcpStream::try_clone).collect::<Result<_, _>>().map(Self)
    }
}

impl Session {
    /// Connects to a server; waits for a display, which a guest may open later, until `patience` is over.
    ///
    /// # Errors
    /// Nobody listens, it is no SPICE server, the ticket is wrong, or there is no display in time.
    pub fn connect(
        address: impl ToSocketAddrs,
        ticket: Option<&str>,
        patience: Duration,
    ) -> Result<Self, ProtocolError> {
        let addresses: Vec<_> = address.to_socket_addrs()?.collect();
        let ticket = ticket.unwrap_or_default();
        let mut main = Channel::connect(&addresses, &link_message(ChannelType::Main, 0, 0, &[0]), ticket)?;
        let (init, init_at) = read_init(&mut main)?;
        main.send(client::MAIN_ATTACH_CHANNELS, &[])?;
        let main_stream = main.stream.try_clone()?;
        let (lists, displays) = mpsc::channel();
        let thread =
            std::thread::Builder::new().name("spice-main".into()).spawn(move || serve_main(main, &lists))?;
        let mut guard = Self::pending(main_stream, thread);
        let id = wait_for_display(&displays, patience)?;
        let caps = display_caps::SIZED_STREAM
            | display_caps::STREAM_REPORT
            | display_caps::MULTI_CODEC
            | display_caps::MJPEG
            | display_caps::VP8
            | display_caps::H264
            | display_caps::VP9
            | display_caps::H265;
        let message = link_message(ChannelType::Display, id, init.session_id, &[caps]);
        let mut channel = Channel::connect(&addresses, &message, ticket)?;
        channel.send(client::DISPLAY_INIT, &display_init())?;
        guard.stop.0.push(channel.stream.try_clone()?);
        let mm_offset_ms = i64::from(init.multi_media_time) - init_at.0 / 1_000_000;
        let display = DisplayChannel { channel, streams: BTreeMap::new(), spare: Vec::new(), mm_offset_ms };
        let (stop, main) = (StopHandle(std::mem::take(&mut guard.stop.0)), guard.main.take());
        Ok(Self { display, stop, main })
    }

    fn pending(main_stream: TcpStream, thread: JoinHandle<()>) -> Pending {
        Pending { stop: StopHandle(vec![main_stream]), main: Some(thread) }
    }

    /// The display channel.
    pub fn display(&mut self) -> &mut DisplayChannel {
        &mut self.display
    }

    /// A handle that ends the session from another thread.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn stop_handle(&self) -> std::io::Result<StopHandle> {
        self.stop.try_clone()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.stop.stop();
        if let Some(thread) = self.main.take() {
            let _ = thread.join();
        }
    }
}

/// A session whose display is not there yet; ends its thread when connecting fails.
struct Pending {
    stop: StopHandle,
    main: Option<JoinHandle<()>>,
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(thread) = self.main.take() {
            self.stop.stop();
            let _ = thread.join();
        }
    }
}

fn link_message(kind: ChannelType, id: u8, connection_id: u32, channel_caps: &[u32]) -> LinkMessage {
    let common = common_caps::AUTH_SELECTION | common_caps::AUTH_SPICE | common_caps::MINI_HEADER;
    LinkMessage {
        connection_id,
        channel_type: kind as u8,
        channel_id: id,
        common_caps: vec![common],
        channel_caps: channel_caps.to_vec(),
    }
}

fn read_init(main: &mut Channel) -> Result<(MainInit, Nanos), ProtocolError> {
    loop {
        let Some((kind, size, at)) = main.next_header(Some(PATIENCE))? else {
            return Err(ProtocolError::ClosedDuringLink);
        };
        if kind == server::MAIN_INIT {
            let init = MainInit::decode(&main.body("MAIN_INIT", size)?)?;
            main.taken()?;
            return Ok((init, at));
        }
        if !main.handle_common(kind, size)? {
            main.skip(size)?;
        }
        main.taken()?;
    }
}

fn serve_main(mut main: Channel, displays: &mpsc::Sender<u8>) {
    let outcome = (|| -> Result<(), ProtocolError> {
        loop {
            let Some((kind, size, _)) = main.next_header(None)? else { continue };
            if kind == server::MAIN_CHANNELS_LIST {
                let list = ChannelsList::decode(&main.body("CHANNELS_LIST", size)?)?;
                for (_, id) in list.0.iter().filter(|(kind, _)| *kind == ChannelType::Display as u8) {
                    // The receiver is gone once it has its display; further ones are not for us.
                    let _ = displays.send(*id);
                }
            } else if !main.handle_common(kind, size)? {
                main.skip(size)?;
            }
            main.taken()?;
        }
    })();
    debug!("main channel ended: {:?}", outcome.err());
}

fn wait_for_display(displays: &mpsc::Receiver<u8>, patience: Duration) -> Result<u8, ProtocolError> {
    displays.recv_timeout(patience).map_err(|error| match error {
        mpsc::RecvTimeoutError::Timeout => ProtocolError::NoDisplay,
        mpsc::RecvTimeoutError::Disconnected => ProtocolError::Closed,
    })
}

/// What happened on the display.
#[derive(Debug)]
pub enum DisplayEvent {
    /// A stream begins.
    StreamCreate(StreamCreate),
    /// An access unit of a stream that was created before.
    StreamData(StreamFrame),
    /// A stream ended.
    StreamDestroy {
        /// Which.
        id: u32,
    },
    /// All streams ended.
    StreamDestroyAll,
    /// Something that has no part in streams (surfaces, drawing, monitors); skipped.
    Other {
        /// Number of the message.
        kind: u16,
        /// Bytes.
        size: u32,
    },
}

/// One access unit as it arrived.
#[derive(Debug)]
pub struct StreamFrame {
    /// Number of the stream.
    pub id: u32,
    /// The server's multimedia clock, in milliseconds.
    pub mm_time: u32,
    /// Width and height, when the frame has a size of its own.
    pub size: Option<(u32, u32)>,
    /// The access unit. Give it back with [`DisplayChannel::recycle`] to save an allocation.
    pub data: Vec<u8>,
    /// CLOCK_MONOTONIC after the message's header was read.
    pub first_byte_at: Nanos,
    /// CLOCK_MONOTONIC after the last byte was read.
    pub received_at: Nanos,
}

/// What a report on a stream needs.
#[derive(Debug, Default)]
struct StreamState {
    report: Option<ActivateReport>,
    start_mm_time: u32,
    frames: u32,
    drops: u32,
    since: Option<Instant>,
}

/// The display channel of a [`Session`].
pub struct DisplayChannel {
    channel: Channel,
    streams: BTreeMap<u32, StreamState>,
    spare: Vec<Vec<u8>>,
    /// The server's multimedia clock minus ours, in milliseconds, as of MAIN_INIT.
    mm_offset_ms: i64,
}

impl DisplayChannel {
    /// The next event, or `None` when no message began within `timeout`. Answers what needs an answer.
    ///
    /// # Errors
    /// The connection ended, or the server broke the protocol; the channel is of no more use then.
    pub fn next_event(&mut self, timeout: Duration) -> Result<Option<DisplayEvent>, ProtocolError> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Only whole milliseconds, and the first wait as asked for: setting the timeout is a system call.
            let wait = if left + Duration::from_millis(1) >= timeout { timeout } else { left };
            let Some((kind, size, at)) = self.channel.next_header(Some(wait))? else { return Ok(None) };
            let event =
                if self.channel.handle_common(kind, size)? { None } else { self.handle(kind, size, at)? };
            self.channel.taken()?;
            if event.is_some() {
                return Ok(event);
            }
        }
    }

    /// Takes back a buffer for the next frames.
    pub fn recycle(&mut self, data: Vec<u8>) {
        if self.spare.len() < 8 {
            self.spare.push(data);
        }
    }

    /// Counts a frame that was not shown, for the reports to the server.
    pub fn dropped(&mut self, stream: u32) {
        if let Some(state) = self.streams.get_mut(&stream) {
            state.drops += 1;
        }
    }

    fn handle(&mut self, kind: u16, size: u32, at: Nanos) -> Result<Option<DisplayEvent>, ProtocolError> {
        Ok(match kind {
            server::STREAM_DATA => self.data(size, false, at)?,
            server::STREAM_DATA_SIZED => self.data(size, true, at)?,
            server::STREAM_CREATE => {
                let create = StreamCreate::decode(&self.channel.body("STREAM_CREATE", size)?)?;
                if self.streams.len() >= MAX_STREAMS && !self.streams.contains_key(&create.id) {
                    return Err(ProtocolError::Field {
                        what: "STREAM_CREATE",
                        field: "id",
                        value: create.id.into(),
                    });
                }
                self.streams.insert(create.id, StreamState::default());
                Some(DisplayEvent::StreamCreate(create))
            }
            server::STREAM_DESTROY => {
                let body = self.channel.body("STREAM_DESTROY", size)?;
                let id = crate::wire::Reader::new(&body, "STREAM_DESTROY").u32()?;
                self.streams.remove(&id).map(|_| DisplayEvent::StreamDestroy { id })
            }
            server::STREAM_DESTROY_ALL => {
                self.channel.skip(size)?;
                self.streams.clear();
                Some(DisplayEvent::StreamDestroyAll)
            }
            server::STREAM_ACTIVATE_REPORT => {
                let activate = ActivateReport::decode(&self.channel.body("STREAM_ACTIVATE_REPORT", size)?)?;
                if let Some(state) = self.streams.get_mut(&activate.stream_id) {
                    *state = StreamState { report: Some(activate), ..StreamState::default() };
                }
                None
            }
            _ => {
                self.channel.skip(size)?;
                Some(DisplayEvent::Other { kind, size })
            }
        })
    }

    fn data(&mut self, size: u32, sized: bool, at: Nanos) -> Result<Option<DisplayEvent>, ProtocolError> {
        let what = if sized { "STREAM_DATA_SIZED" } else { "STREAM_DATA" };
        if size > MAX_DATA + 36 {
            return Err(ProtocolError::TooLarge { what, size, max: MAX_DATA + 36 });
        }
        let mut fields = [0; 36];
        let fields = &mut fields[..StreamDataHeader::len(sized)];
        if (size as usize) < fields.len() {
            return Err(ProtocolError::Short { what, size: size as usize, needed: fields.len() });
        }
        self.channel.read_exact(fields)?;
        let header = StreamDataHeader::decode(fields, sized, size)?;
        let mut data = self.spare.pop().unwrap_or_default();
        data.resize(header.size as usize, 0);
        self.channel.read_exact(&mut data)?;
        let received_at = MonotonicClock.now();
        self.channel.skip(size - fields.len() as u32 - header.size)?;
        if !self.streams.contains_key(&header.id) {
            debug!("data for stream {} that does not exist", header.id);
            return Ok(None);
        }
        self.report(&header)?;
        Ok(Some(DisplayEvent::StreamData(StreamFrame {
            id: header.id,
            mm_time: header.mm_time,
            size: header.sized.map(|(width, height, _)| (width, height)),
            data,
            first_byte_at: at,
            received_at,
        })))
    }

    /// Counts a frame, and sends the report when it is due.
    fn report(&mut self, header: &StreamDataHeader) -> Result<(), ProtocolError> {
        let Some(state) = self.streams.get_mut(&header.id) else { return Ok(()) };
        let Some(wanted) = state.report else { return Ok(()) };
        if state.frames == 0 {
            (state.start_mm_time, state.since) = (header.mm_time, Some(Instant::now()));
        }
        state.frames += 1;
        let waited = state.since.map_or(Duration::ZERO, |s| s.elapsed());
        if state.frames < wanted.max_window_size && waited < Duration::from_millis(wanted.timeout_ms.into()) {
            return Ok(());
        }
        let now_mm = MonotonicClock.now().0 / 1_000_000 + self.mm_offset_ms;
        let report = StreamReport {
            stream_id: header.id,
            unique_id: wanted.unique_id,
            start_frame_mm_time: state.start_mm_time,
            end_frame_mm_time: header.mm_time,
            num_frames: state.frames,
            num_drops: state.drops,
            // The clock of the protocol has 32 bits and wraps.
            last_frame_delay: header.mm_time.wrapping_sub(now_mm as u32) as i32,
            audio_delay: u32::MAX,
        };
        (state.frames, state.drops) = (0, 0);
        self.channel.send(client::STREAM_REPORT, &report.encode())
    }
}
