//! Signals as descriptors that can be polled: SIGINT and SIGTERM end the program, SIGUSR1 asks for the totals.

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

/// Signals of one meaning.
pub(crate) struct Signals(UnixStream);

impl Signals {
    /// To end.
    pub(crate) fn stop() -> anyhow::Result<Self> {
        Self::register(&[SIGINT, SIGTERM])
    }

    /// To tell the totals.
    pub(crate) fn report() -> anyhow::Result<Self> {
        Self::register(&[SIGUSR1])
    }

    fn register(signals: &[i32]) -> anyhow::Result<Self> {
        let (read, write) = UnixStream::pair().context("no socket pair for signals")?;
        read.set_nonblocking(true)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
        }
        Ok(Self(read))
    }

    /// Whether one came since this was asked last.
    pub(crate) fn came(&self) -> bool {
        (&self.0).read(&mut [0; 64]).is_ok_and(|n| n > 0)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
