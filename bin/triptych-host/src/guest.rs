//! One guest's connection: at most one message of it is held, and none is read ahead while that one waits.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::rc::Rc;

use spice::stream_device::{Boundaries, Boundary, HEADER_LEN, Kind, Message, Parser, StreamDeviceError};
use thiserror::Error;
use units::{Clock, MonotonicClock, Nanos};

/// Bytes asked for at once: what a Unix socket holds by default.
const CHUNK: usize = 256 * 1024;
/// Bytes for a guest that does not read: libspice-server writes a few hundred in all.
const MAX_OUTGOING: usize = 64 * 1024;
/// Code in NOTIFY_ERROR; the protocol gives the numbers no meaning.
const ERROR_CODE: u32 = 1;

/// Why a guest's connection ends.
#[derive(Debug, Error)]
pub(crate) enum GuestGone {
    /// It closed the connection.
    #[error("the guest closed the connection")]
    Closed,
    /// It closed the connection within a message.
    #[error("the guest closed the connection in the middle of a message")]
    CutOff,
    /// It sent something else than the protocol.
    #[error("the guest was refused: {0}")]
    Protocol(StreamDeviceError),
    /// libspice-server wants no more of it.
    #[error("the guest was refused by libspice-server: {0}")]
    Refused(String),
    /// The connection broke.
    #[error("the connection to the guest broke: {0}")]
    Broken(std::io::Error),
}

/// A message with its instants, being read by libspice-server.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Complete {
    /// Its type.
    pub(crate) kind: Kind,
    /// Bytes of payload.
    pub(crate) size: u32,
    /// When its first bytes were there.
    pub(crate) first_byte: Nanos,
    /// When its last byte was there.
    pub(crate) received: Nanos,
}

/// A connected guest.
pub(crate) struct Guest {
    stream: Rc<UnixStream>,
    boundaries: Boundaries,
    first_byte: Nanos,
    buffer: Vec<u8>,
    complete: Option<Complete>,
    taken: usize,
    outgoing: Vec<u8>,
    said: Parser,
    last_error: Option<String>,
}

impl Guest {
    pub(crate) fn new(stream: UnixStream) -> Self {
        Self {
            stream: Rc::new(stream),
            boundaries: Boundaries::new(),
            first_byte: Nanos::ZERO,
            buffer: Vec::new(),
            complete: None,
            taken: 0,
            outgoing: Vec::new(),
            said: Parser::new(),
            last_error: None,
        }
    }

    /// Turns a guest away with a reason that it can show.
    pub(crate) fn turn_away(mut stream: &UnixStream, text: &str) {
        let notice = Message::NotifyError { code: ERROR_CODE, text: text.into() }.encode();
        // Best effort: the guest may be gone, and nobody waits for it.
        let _ = stream.write(&notice);
    }

    /// Says goodbye with a reason, best effort.
    pub(crate) fn dismiss(mut self, reason: &GuestGone) {
        if matches!(reason, GuestGone::Protocol(_)) {
            Self::turn_away(&self.stream, &reason.to_string());
        }
        let _ = self.flush();
    }

    /// Its descriptor, to wait for.
    pub(crate) fn handle(&self) -> Rc<UnixStream> {
        Rc::clone(&self.stream)
    }

    /// Whether to read from it: not while a message waits for libspice-server.
    pub(crate) fn wants_read(&self) -> bool {
        self.complete.is_none()
    }

    /// Whether bytes for it wait.
    pub(crate) fn wants_write(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Reads until a message is complete or nothing more is there; gives the number of bytes read.
    pub(crate) fn receive(&mut self) -> Result<usize, GuestGone> {
        let mut total = 0;
        while self.complete.is_none() {
            let start = self.buffer.len();
            let wanted = self.boundaries.wanted().min(CHUNK);
            self.buffer.resize(start + wanted, 0);
            let read = (&*self.stream).read(&mut self.buffer[start..]);
            let now = MonotonicClock.now();
            self.buffer.truncate(start + *read.as_ref().unwrap_or(&0));
            match read {
                Ok(0) if self.boundaries.between_messages() => return Err(GuestGone::Closed),
                Ok(0) => return Err(GuestGone::CutOff),
                Ok(n) => {
                    total += n;
                    if start == 0 {
                        self.first_byte = now;
                    }
                    self.follow(start, now)?;
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Err(GuestGone::Closed),
                    _ => return Err(GuestGone::Broken(error)),
                },
            }
        }
        Ok(total)
    }

    fn follow(&mut self, start: usize, now: Nanos) -> Result<(), GuestGone> {
        let (complete, first_byte) = (&mut self.complete, self.first_byte);
        self.boundaries
            .follow(&self.buffer[start..], |boundary| {
                if let Boundary::End { kind, size, .. } = boundary {
                    *complete = Some(Complete { kind, size, first_byte, received: now });
                }
            })
            .map_err(GuestGone::Protocol)
    }

    /// The message that waits for libspice-server and how many of its bytes, header included, it has taken.
    pub(crate) fn waiting(&self) -> Option<(Complete, usize)> {
        self.complete.map(|c| (c, self.taken))
    }

    /// Copies the waiting message's next bytes; gives their number and, with the last one, the message.
    pub(crate) fn take(&mut self, into: &mut [u8]) -> (usize, Option<Complete>) {
        let Some(complete) = self.complete else { return (0, None) };
        let left = &self.buffer[self.taken..];
        let n = left.len().min(into.len());
        into[..n].copy_from_slice(&left[..n]);
        self.taken += n;
        if self.taken < HEADER_LEN + complete.size as usize {
            return (n, None);
        }
        self.buffer.clear();
        self.taken = 0;
        self.complete = None;
        (n, Some(complete))
    }

    /// Takes bytes from libspice-server; gives how many and the messages that they completed.
    pub(crate) fn tell(&mut self, bytes: &[u8]) -> (usize, Vec<Message>) {
        let n = bytes.len().min(MAX_OUTGOING - self.outgoing.len());
        self.outgoing.extend_from_slice(&bytes[..n]);
        // The library speaks the protocol; a newer one may have messages that we do not know, which changes nothing.
        let said = self.said.push(&bytes[..n]).unwrap_or_default();
        for message in &said {
            if let Message::NotifyError { text, .. } = message {
                self.last_error = Some(text.clone());
            }
        }
        (n, said)
    }

    /// What libspice-server complained of last.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Writes what waits, as far as the guest takes it.
    pub(crate) fn flush(&mut self) -> Result<(), GuestGone> {
        while !self.outgoing.is_empty() {
            match (&*self.stream).write(&self.outgoing) {
                Ok(0) => return Err(GuestGone::Closed),
                Ok(n) => {
                    self.outgoing.drain(..n);
                }
                Err(error) => match error.kind() {
                    ErrorKind::WouldBlock => break,
                    ErrorKind::Interrupted => {}
                    // What it sent before it left is still to be read; that read tells the end.
                    ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.outgoing.clear(),
                    _ => return Err(GuestGone::Broken(error)),
                },
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (UnixStream, Guest) {
        let (peer, ours) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        (peer, Guest::new(ours))
    }

    #[test]
    fn one_message_is_held_and_the_next_stays_in_the_socket() {
        let (mut peer, mut guest) = pair();
        let bytes = Message::Data(vec![9; 1000]).encode();
        peer.write_all(&bytes).unwrap();
        peer.write_all(&bytes).unwrap();
        assert_eq!(guest.receive().unwrap(), bytes.len());
        assert!(!guest.wants_read());
        assert_eq!(guest.receive().unwrap(), 0);
        let (mut header, mut payload) = ([0; HEADER_LEN], [0; 2000]);
        assert!(matches!(guest.take(&mut header), (HEADER_LEN, None)));
        let (n, complete) = guest.take(&mut payload);
        let complete = complete.unwrap();
        assert_eq!((n, complete.kind, complete.size), (1000, Kind::Data, 1000));
        assert!(complete.first_byte <= complete.received);
        assert_eq!([&header[..], &payload[..n]].concat(), bytes);
        assert_eq!(guest.receive().unwrap(), bytes.len());
    }

    #[test]
    fn the_end_tells_whether_a_message_was_cut_off() {
        let (peer, mut guest) = pair();
        drop(peer);
        assert!(matches!(guest.receive(), Err(GuestGone::Closed)));
        let (mut peer, mut guest) = pair();
        peer.write_all(&Message::Data(vec![9; 1000]).encode()[..20]).unwrap();
        drop(peer);
        assert!(matches!(guest.receive(), Err(GuestGone::CutOff)));
    }

    #[test]
    fn nonsense_is_refused_before_it_is_kept() {
        for bytes in [&b"GET / HT"[..], &[1, 0, 99, 0, 0, 0, 0, 0], &[1, 0, 3, 0, 0, 0, 0, 0x7f]] {
            let (mut peer, mut guest) = pair();
            peer.write_all(bytes).unwrap();
            assert!(matches!(guest.receive(), Err(GuestGone::Protocol(_))), "{bytes:?}");
        }
    }

    #[test]
    fn a_guest_that_does_not_read_costs_no_memory() {
        let (_peer, mut guest) = pair();
        let bytes = Message::StartStop(vec![]).encode();
        let mut kept = 0;
        for _ in 0..100_000 {
            kept += guest.tell(&bytes).0;
            guest.flush().unwrap();
        }
        assert!(guest.outgoing.len() <= MAX_OUTGOING && kept < 100_000 * bytes.len());
    }
}
