//! A run on disk: what agents send, how it is kept while it runs and once it is closed, and how clocks are aligned.
//!
//! `agent → recording → store`: this crate receives and keeps; it knows nothing of studies' order or of any system.
//! The format is specified in `docs/formats/record.md`.

mod address;
pub mod batches;
pub mod clock;
pub mod collector;
pub mod contents;
pub mod control;
mod decoder;
pub mod export;
pub mod facts;
pub mod files;
pub mod hold;
pub mod import;
pub mod reader;
mod receive;
mod sources;
pub mod spec;
mod token;
pub mod wire;
mod writer;

pub use address::{Address, AddressError, Stream};
pub use token::{TokenError, read_token};
