//! A network emulator in user space, at the level of packets: bandwidth, delay, jitter, loss, reordering and queues.
//!
//! [`Emulator`] makes two network namespaces, side A and side B, which are joined by nothing but a path through this
//! process: a TUN device in each, and a thread for each direction that lets packets wait, queue and get lost as a
//! [`Schedule`] asks. The TCP of both sides is the kernel's own, and reacts as on a real path; so it is in Mahimahi
//! (Netravali et al., USENIX ATC 2015). It needs root or user namespaces, `/dev/net/tun`, and no kernel module of its
//! own. Where these are refused there is [`relay`], which offers bandwidth and delay of a byte stream, and says so.
//!
//! Everything ends with the [`Emulator`], and with the process that holds it. What it did and how precisely is in its
//! [`Report`]. Knows no study and no system. `docs/netem.md` has settings, limits and figures.

pub mod conditions;
mod device;
mod emulator;
mod engine;
mod error;
mod lateness;
pub mod link;
mod namespace;
pub mod relay;
mod report;
mod serial;
pub mod trace;
mod watcher;

use std::fmt;

use serde::{Deserialize, Serialize};

pub use conditions::{Change, Conditions, Schedule};
pub use device::MTU;
pub use emulator::{Emulator, MAX_SPIN, Options};
pub use error::{NetemError, Step};
pub use namespace::ADDRESSES;
pub use report::{DirectionReport, Lateness, Level, RateReport, Report};

/// An end of the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Where the direction [`Direction::Forward`] begins.
    A,
    /// Where it ends.
    B,
}

impl Side {
    /// The other end.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

/// A way along the path; each has conditions of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// From A to B.
    Forward,
    /// From B to A.
    Backward,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Backward => "backward",
        })
    }
}
