//! A guest that the test plays itself, byte by byte.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use spice::stream_device::{Message, Parser, VideoCodec};

use crate::PATIENCE;

/// A connection to a host's stream socket.
pub struct StubGuest {
    stream: UnixStream,
    parser: Parser,
    waiting: VecDeque<Message>,
}

impl StubGuest {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub fn connect(path: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(path).with_context(|| format!("{}", path.display()))?;
        Ok(Self { stream, parser: Parser::new(), waiting: VecDeque::new() })
    }

    /// Sends a message, waiting as long as the host does not read.
    ///
    /// # Errors
    /// The host is gone.
    pub fn send(&mut self, message: &Message) -> anyhow::Result<()> {
        self.send_bytes(&message.encode())
    }

    /// Sends anything.
    ///
    /// # Errors
    /// The host is gone.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(bytes).context("cannot write to the host")
    }

    /// As [`StubGuest::send_bytes`], but gives up when the host takes nothing for so long; gives the bytes written.
    ///
    /// # Errors
    /// The host is gone.
    pub fn send_while_taken(&mut self, bytes: &[u8], patience: Duration) -> anyhow::Result<usize> {
        self.stream.set_write_timeout(Some(patience))?;
        let mut written = 0;
        while written < bytes.len() {
            match self.stream.write(&bytes[written..]) {
                Ok(n) => written += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            }
        }
        self.stream.set_write_timeout(None)?;
        Ok(written)
    }

    /// The next message from the server, or `None` when the connection is closed.
    ///
    /// # Errors
    /// None came in time.
    pub fn receive(&mut self) -> anyhow::Result<Option<Message>> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(Some(message));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("the server said nothing");
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Ok(None),
                Ok(n) => self.waiting.extend(self.parser.push(&buffer[..n])?),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(None),
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until a client watches; gives the codecs that it can show.
    ///
    /// # Errors
    /// It did not happen in time.
    pub fn started(&mut self) -> anyhow::Result<Vec<VideoCodec>> {
        loop {
            match self.receive()?.context("the host closed the connection")? {
                Message::StartStop(codecs) if !codecs.is_empty() => return Ok(codecs),
                _ => {}
            }
        }
    }

    /// Waits until no client watches.
    ///
    /// # Errors
    /// It did not happen in time.
    pub fn stopped(&mut self) -> anyhow::Result<()> {
        while self.receive()?.context("the host closed the connection")? != Message::StartStop(vec![]) {}
        Ok(())
    }
}
