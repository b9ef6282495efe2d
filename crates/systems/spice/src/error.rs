//! What can go wrong between a client and a server.

use thiserror::Error;

/// An error of the protocol or of the connection below it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The first bytes were not `REDQ`.
    #[error("the other side does not speak SPICE: is this the right port?")]
    NotSpice,
    /// Another major version.
    #[error("the server speaks SPICE {major}.{minor}, this client 2.2")]
    Version {
        /// Major version.
        major: u32,
        /// Minor version.
        minor: u32,
    },
    /// The server wants a ticket, or another one.
    #[error("the server refused the ticket (or wants one): give the right one with --ticket-file")]
    Ticket,
    /// Longer than the protocol allows.
    #[error("the ticket has {0} bytes, at most 60 are allowed")]
    TicketTooLong(usize),
    /// The server refused the channel for another reason.
    #[error("the server refused the connection: {reason} (link error {code})")]
    Refused {
        /// `SPICE_LINK_ERR_*`.
        code: u32,
        /// What the number means.
        reason: &'static str,
    },
    /// A public key that is none.
    #[error("the server's public key cannot be used")]
    BadKey,
    /// The connection ended before the link stage did.
    #[error("the server closed the connection during the link stage (another client may be connected)")]
    ClosedDuringLink,
    /// The connection ended.
    #[error("the server closed the connection")]
    Closed,
    /// A message shorter than its fields.
    #[error("{what}: {size} bytes, but {needed} are needed")]
    Short {
        /// Which message.
        what: &'static str,
        /// Its length.
        size: usize,
        /// What its fields need.
        needed: usize,
    },
    /// A message longer than is accepted.
    #[error("{what}: {size} bytes, at most {max} are accepted")]
    TooLarge {
        /// Which message.
        what: &'static str,
        /// Its length.
        size: u32,
        /// The limit.
        max: u32,
    },
    /// A field with an impossible value.
    #[error("{what}: {field} is {value}")]
    Field {
        /// Which message.
        what: &'static str,
        /// Which field.
        field: &'static str,
        /// Its value.
        value: u64,
    },
    /// The server offers no display.
    #[error("the server offers no display channel: no guest has opened a stream or a display yet")]
    NoDisplay,
    /// The system below.
    #[error("connection to the server: {0}")]
    Io(#[from] std::io::Error),
}

impl ProtocolError {
    /// From a `SPICE_LINK_ERR_*` number.
    pub(crate) fn from_link(code: u32) -> Self {
        let reason = match code {
            7 => return Self::Ticket,
            1 => "an error",
            2 => "invalid magic",
            3 => "invalid data",
            4 => "version mismatch",
            5 => "it wants TLS",
            6 => "it wants no TLS",
            8 => "bad connection id",
            9 => "channel not available",
            _ => "unknown reason",
        };
        Self::Refused { code, reason }
    }
}
