//! Safe wrapper over libspice-server: a stream port goes in, SPICE over TCP comes out.
//!
//! [`Server`] embeds the library without a virtual machine and without a QXL device: its only device is the port
//! `org.spice-space.stream.0`, whose bytes a [`PortHandler`] gives and takes. Everything runs on the thread that made
//! the server, inside calls of its methods; the handler is called back from [`Server::turn`], [`Server::wake_port`]
//! and [`Server::set_port_open`] only. One server a thread.

mod event_loop;
mod log;
mod server;
pub mod sys;
mod traffic;

pub use event_loop::{ChannelChange, ChannelEvent, Interest};
pub use rustix::event::PollFlags;
pub use server::{Access, Options, PortHandler, Server, ServerError, version};
pub use traffic::{TCPI_BYTES_RETRANS_OFFSET, TCPI_BYTES_SENT_OFFSET};
