//! SIGINT and SIGTERM as a descriptor that can be polled.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Readable once the program should end.
pub(crate) struct StopSignals(UnixStream);

impl StopSignals {
    /// Takes the signals over.
    pub(crate) fn register() -> anyhow::Result<Self> {
        let (read, write) = UnixStream::pair().context("no socket pair for signals")?;
        read.set_nonblocking(true)?;
        signal_hook::low_level::pipe::register(SIGINT, write.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGTERM, write)?;
        Ok(Self(read))
    }

    /// Whether a signal came.
    pub(crate) fn came(&self) -> bool {
        (&self.0).read(&mut [0; 8]).is_ok_and(|n| n > 0)
    }
}

impl AsFd for StopSignals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
