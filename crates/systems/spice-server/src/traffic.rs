//! How many bytes left over TCP: asked from the kernel, since the library does not tell.

#![allow(unsafe_code)]

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, RawFd};

/// Sums `tcpi_bytes_sent` less `tcpi_bytes_retrans` over sockets that come and go.
///
/// A socket is known by its inode, which outlives the reuse of its descriptor's number.
#[derive(Default)]
pub(crate) struct SentBytes {
    total: u64,
    last: HashMap<u64, u64>,
}

/// Sockets remembered after they were last seen; more would be a leak.
const MAX_SOCKETS: usize = 4096;

impl SentBytes {
    /// A descriptor is watched from now on: what it has sent counts.
    pub(crate) fn opened(&mut self, fd: RawFd) {
        if self.last.len() > MAX_SOCKETS {
            self.last.clear();
        }
        self.sample(fd);
    }

    /// Adds what the socket has sent since it was sampled last. Anything but a TCP socket is ignored.
    pub(crate) fn sample(&mut self, fd: RawFd) {
        let Some((inode, sent)) = inode(fd).zip(tcp_bytes_sent(fd)) else { return };
        let last = self.last.insert(inode, sent).unwrap_or(0);
        self.total += sent.saturating_sub(last);
    }

    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

fn inode(fd: RawFd) -> Option<u64> {
    // SAFETY: the library keeps a watched descriptor open, and this borrow ends with the call.
    let fd = unsafe { BorrowedFd::borrow_raw(fd) };
    rustix::fs::fstat(fd).ok().map(|s| s.st_ino)
}

/// Offsets in the kernel's `struct tcp_info` (`linux/tcp.h`), fixed since Linux 4.19; see `tests/layout.rs`.
pub const TCPI_BYTES_SENT_OFFSET: usize = 200;
/// See [`TCPI_BYTES_SENT_OFFSET`].
pub const TCPI_BYTES_RETRANS_OFFSET: usize = 208;

/// Bytes given to the network by a TCP socket, without retransmissions; `None` when it is not one.
fn tcp_bytes_sent(fd: RawFd) -> Option<u64> {
    let mut info = [0u8; 256];
    let mut len = info.len() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `info` and the length to `len`, both alive and writable.
    let rc = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, info.as_mut_ptr().cast(), &raw mut len)
    };
    let word = |at: usize| {
        let bytes = info.get(at..at + 8).filter(|_| len as usize >= at + 8)?;
        bytes.try_into().ok().map(u64::from_ne_bytes)
    };
    if rc != 0 {
        return None;
    }
    Some(word(TCPI_BYTES_SENT_OFFSET)?.saturating_sub(word(TCPI_BYTES_RETRANS_OFFSET)?))
}
