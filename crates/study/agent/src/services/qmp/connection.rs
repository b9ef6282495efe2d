//! A QMP connection that never blocks: JSON objects, one a line (QEMU's `docs/interop/qmp-spec.rst`).

use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use thiserror::Error;

/// Longest answer that is accepted: `query-blockstats` has some 2 kB per disk.
const MAX_LINE: usize = 1 << 20;
/// Most that is read in one go, so that a peer that never ends a line or sends without end is cut off.
const MAX_READ: usize = 2 << 20;

/// The connection is of no use any more.
#[derive(Debug, Error)]
pub(super) enum Broken {
    /// Nobody is there.
    #[error("it cannot be reached: {0}")]
    Connect(std::io::Error),
    /// It ended.
    #[error("the connection ended")]
    Closed,
    /// More than an answer can be.
    #[error("it sent more than an answer can be")]
    TooLong,
    /// Something that is not QMP.
    #[error("it does not speak QMP")]
    NotQmp,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
    /// Where the next line begins, and up to where its end was looked for.
    line: usize,
    searched: usize,
    unsent: Vec<u8>,
}

impl Connection {
    /// Connects, without waiting for a QEMU that already speaks with somebody else.
    pub(super) fn open(path: &Path) -> Result<Self, Broken> {
        let refused = |error: rustix::io::Errno| Broken::Connect(error.into());
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(refused)?;
        let address = SocketAddrUnix::new(path).map_err(refused)?;
        connect(&socket, &address).map_err(refused)?;
        Ok(Self { stream: socket.into(), received: Vec::new(), line: 0, searched: 0, unsent: Vec::new() })
    }

    /// The process that listens, as the kernel tells.
    pub(super) fn peer(&self) -> Option<u32> {
        let peer = rustix::net::sockopt::socket_peercred(&self.stream).ok()?;
        u32::try_from(peer.pid.as_raw_nonzero().get()).ok()
    }

    /// Sends, now or when there is room.
    pub(super) fn send(&mut self, text: &str) -> Result<(), Broken> {
        self.unsent.extend_from_slice(text.as_bytes());
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Broken> {
        while !self.unsent.is_empty() {
            match self.stream.write(&self.unsent) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => _ = self.unsent.drain(..count),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Broken::Closed),
            }
        }
        Ok(())
    }

    /// Takes what has come. Lines that came before the end are still to be had when this fails with `Closed`.
    pub(super) fn receive(&mut self) -> Result<(), Broken> {
        self.flush()?;
        self.received.drain(..self.line);
        self.searched -= self.line;
        self.line = 0;
        let mut chunk = [0; 16 * 1024];
        let mut total = 0;
        while total < MAX_READ {
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(Broken::Closed),
                Ok(count) => {
                    self.received.extend_from_slice(&chunk[..count]);
                    total += count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Broken::Closed),
            }
        }
        Err(Broken::TooLong)
    }

    /// The next whole line.
    pub(super) fn next_line(&mut self) -> Result<Option<&[u8]>, Broken> {
        let end = self.received[self.searched..].iter().position(|b| *b == b'\n');
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.received.len();
            return if self.searched - self.line > MAX_LINE { Err(Broken::TooLong) } else { Ok(None) };
        };
        let start = std::mem::replace(&mut self.line, end + 1);
        self.searched = self.line;
        if end - start > MAX_LINE {
            return Err(Broken::TooLong);
        }
        Ok(Some(&self.received[start..end]))
    }

    /// Waits until something comes, at the latest until `deadline`; false when nothing did.
    pub(super) fn wait(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        let stream = self.stream.as_fd();
        let mut flags = PollFlags::IN;
        if !self.unsent.is_empty() {
            flags |= PollFlags::OUT;
        }
        let mut fds = [PollFd::new(&stream, flags)];
        matches!(poll(&mut fds, Some(&timeout)), Ok(1..))
    }
}
