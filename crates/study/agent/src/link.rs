//! The connection to the collector. Nothing here waits: a connection is made by a thread of its own, and bytes are
//! written as far as the system takes them.

use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::time::{Duration, Instant};

use recording::wire::{Decoder, Hello, Message, PREAMBLE, PROTOCOL};
use recording::{Address, Stream};
use units::{Clock, MonotonicClock};

use crate::outbox::Outbox;

/// Time before a lost connection is tried again, at first and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// A collector asks twice a second; one that is not heard of for so long is gone.
const SILENT: Duration = Duration::from_secs(5);
/// Bytes of entries that are taken out at a time: an answer to the collector's question waits for them at the most.
const CHUNK: usize = 128 * 1024;

/// Who speaks.
pub(crate) struct Introduction {
    pub(crate) collector: Address,
    /// What does not change between connections.
    pub(crate) hello: Hello,
    /// Makes lost connections again.
    pub(crate) persistent: bool,
}

/// See the module.
pub(crate) struct Link {
    who: Introduction,
    wake: UnixStream,
    retry: Duration,
    state: State,
}

enum State {
    Down(Instant),
    Connecting(Receiver<io::Result<Stream>>),
    Up(Box<Up>),
}

struct Up {
    stream: Stream,
    decoder: Decoder,
    begun: bool,
    welcomed: bool,
    /// Number of the entry that is sent next.
    cursor: u64,
    /// Tables declared on this connection.
    declared: usize,
    out: Vec<u8>,
    written: usize,
    heard: Instant,
}

impl Link {
    /// Not connected yet. Whoever holds the other end of `wake` looks again when something has come of a try.
    pub(crate) fn new(who: Introduction, wake: UnixStream) -> Self {
        Self { who, wake, retry: RETRY.0, state: State::Down(Instant::now()) }
    }

    /// With a connection that was made already.
    pub(crate) fn connected(
        who: Introduction,
        wake: UnixStream,
        stream: Stream,
        outbox: &Outbox,
    ) -> io::Result<Self> {
        let mut link = Self::new(who, wake);
        link.state = State::Up(link.introduce(stream, outbox)?);
        Ok(link)
    }

    /// Ends the connection, if there is one, and tries again later where it is to.
    pub(crate) fn drop_connection(&mut self) {
        if let State::Up(up) = &self.state {
            up.stream.shutdown();
        }
        self.state = State::Down(Instant::now() + self.retry);
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// When to look again whatever happens.
    pub(crate) fn due(&self) -> Option<Instant> {
        match &self.state {
            State::Down(retry_at) => Some(*retry_at),
            State::Connecting(_) => None,
            State::Up(up) if self.who.persistent => Some(up.heard + SILENT),
            State::Up(_) => None,
        }
    }

    /// What to wait for: the descriptor, and whether there is something to write.
    pub(crate) fn fd(&self) -> Option<(BorrowedFd<'_>, bool)> {
        match &self.state {
            State::Up(up) => Some((up.stream.as_fd(), up.written < up.out.len())),
            _ => None,
        }
    }

    fn introduce(&self, mut stream: Stream, outbox: &Outbox) -> io::Result<Box<Up>> {
        stream.set_nonblocking(true)?;
        let hello = Hello {
            protocol: PROTOCOL,
            session: outbox.session(),
            oldest: outbox.oldest(),
            next: outbox.next(),
            record: outbox.record().to_owned(),
            ..self.who.hello.clone()
        };
        let mut up = Up {
            stream,
            decoder: Decoder::new(),
            begun: false,
            welcomed: false,
            cursor: outbox.oldest(),
            declared: 0,
            out: [&PREAMBLE[..], &Message::Hello(hello).encode()].concat(),
            written: 0,
            heard: Instant::now(),
        };
        up.write()?;
        Ok(Box::new(up))
    }

    /// Connects, sends and hears as far as it goes without waiting. What the collector says goes to `hear`.
    ///
    /// # Errors
    /// The connection was lost; where it is persistent it is made again.
    pub(crate) fn work(&mut self, outbox: &mut Outbox, hear: &mut dyn FnMut(Message)) -> io::Result<()> {
        match &mut self.state {
            State::Down(retry_at) if Instant::now() >= *retry_at => self.begin_connecting(),
            State::Down(_) => Ok(()),
            State::Connecting(answer) => match answer.try_recv() {
                Ok(Ok(stream)) => {
                    let up = self.introduce(stream, outbox)?;
                    self.state = State::Up(up);
                    self.work(outbox, hear)
                }
                Err(TryRecvError::Empty) => Ok(()),
                Ok(Err(error)) => {
                    tracing::debug!("{}: {error}", self.who.collector);
                    self.drop_connection();
                    Ok(())
                }
                Err(TryRecvError::Disconnected) => {
                    self.drop_connection();
                    Ok(())
                }
            },
            State::Up(up) => {
                up.hear(outbox, hear)?;
                if up.welcomed {
                    self.retry = RETRY.0;
                }
                if self.who.persistent && up.heard.elapsed() >= SILENT {
                    return Err(ErrorKind::TimedOut.into());
                }
                up.send(outbox)
            }
        }
    }

    fn begin_connecting(&mut self) -> io::Result<()> {
        let (tell, answer) = mpsc::channel();
        let (address, mut wake) = (self.who.collector.clone(), self.wake.try_clone()?);
        let connect = move || {
            let _ = tell.send(address.connect());
            // A full pipe means that the worker is being woken already.
            let _ = wake.write(&[1]);
        };
        std::thread::Builder::new().name("agent-connect".into()).spawn(connect)?;
        self.state = State::Connecting(answer);
        Ok(())
    }

    /// Whether there is a connection on which the collector has not said yet with which entry to go on.
    pub(crate) fn awaits_welcome(&self) -> bool {
        matches!(&self.state, State::Up(up) if !up.welcomed)
    }

    /// Sends the last word once everything else is out.
    ///
    /// # Errors
    /// The connection is lost.
    pub(crate) fn say_bye(&mut self, outbox: &mut Outbox) -> io::Result<()> {
        match &mut self.state {
            State::Up(up) if up.welcomed => {
                up.fill(outbox, usize::MAX);
                up.out.extend(Message::Bye.encode());
                up.write()
            }
            _ => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// True when everything has been handed to the system.
    pub(crate) fn is_written(&self) -> bool {
        matches!(&self.state, State::Up(up) if up.written == up.out.len())
    }
}

impl Up {
    fn send(&mut self, outbox: &Outbox) -> io::Result<()> {
        loop {
            self.write()?;
            if self.written < self.out.len() {
                return Ok(());
            }
            self.out.clear();
            self.written = 0;
            if !self.welcomed || self.fill(outbox, CHUNK) == 0 {
                return Ok(());
            }
        }
    }

    /// Takes entries out of the outbox; gives the bytes that were added.
    fn fill(&mut self, outbox: &Outbox, max: usize) -> usize {
        let before = self.out.len();
        for (index, table) in outbox.tables().iter().enumerate().skip(self.declared) {
            let index = u16::try_from(index).unwrap_or(u16::MAX);
            self.out.extend(Message::Declare { index, table: table.clone() }.encode());
        }
        self.declared = outbox.tables().len();
        let (count, bytes) = outbox.take(self.cursor, max);
        self.cursor += count;
        self.out.extend(bytes);
        self.out.len() - before
    }

    fn write(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn hear(&mut self, outbox: &mut Outbox, hear: &mut dyn FnMut(Message)) -> io::Result<()> {
        let mut buffer = [0; 4096];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
            self.begun |= self.decoder.take_begun();
            if !self.begun {
                // What the collector said to an agent before this one, on the same port.
                self.decoder.forget();
                continue;
            }
            self.heard = Instant::now();
            while let Some(message) = self.decoder.next_message().map_err(io::Error::other)? {
                self.take(message, outbox, hear)?;
            }
        }
    }

    fn take(
        &mut self,
        message: Message,
        outbox: &mut Outbox,
        hear: &mut dyn FnMut(Message),
    ) -> io::Result<()> {
        match message {
            Message::Welcome { next, ref record } => {
                let given_up = outbox.welcome(record, next);
                if given_up > 0 {
                    tracing::warn!("{given_up} entries of a record that nobody goes on with are given up");
                }
                self.cursor = next.clamp(outbox.oldest(), outbox.next());
                self.welcomed = true;
                hear(message);
            }
            Message::Ack { next } => {
                outbox.acknowledge(next.min(self.cursor));
                hear(message);
            }
            Message::Ping { id } => {
                let t_ns = MonotonicClock.now().0;
                self.out.extend(Message::Pong { id, t_ns }.encode());
                hear(message);
            }
            Message::Stop | Message::Setting { .. } => hear(message),
            _ => return Err(io::Error::other("the collector sent a message out of place")),
        }
        Ok(())
    }
}
