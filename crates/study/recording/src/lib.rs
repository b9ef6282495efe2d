//! A run on disk: what agents send, how it is kept while it runs and once it is closed, and how clocks are aligned.
//!
//! `agent → recording → store`: this crate receives and keeps; it knows nothing of studies' order or of any system.
//! The format is specified in `docs/formats/record.md`.
//!
//! Without its feature `files` it is only what reads bytes of others: the wire format and the parsers of imports, without Arrow
//! and Parquet.

#[cfg(feature = "files")]
mod address;
pub mod atomic;
#[cfg(feature = "files")]
pub mod batches;
pub mod cells;
pub mod clock;
#[cfg(feature = "files")]
pub mod collector;
#[cfg(feature = "files")]
pub mod contents;
#[cfg(feature = "files")]
pub mod control;
mod decoder;
#[cfg(feature = "files")]
pub mod export;
pub mod facts;
#[cfg(feature = "files")]
pub mod files;
#[cfg(feature = "files")]
pub mod hold;
pub mod import;
#[cfg(feature = "files")]
pub mod reader;
#[cfg(feature = "files")]
mod receive;
#[cfg(feature = "files")]
mod sources;
pub mod spec;
#[cfg(feature = "files")]
mod token;
pub mod wire;
#[cfg(feature = "files")]
mod writer;

#[cfg(feature = "files")]
pub use address::{Address, AddressError, Stream};
#[cfg(feature = "files")]
pub use token::{TokenError, read_token};
