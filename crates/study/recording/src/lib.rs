//! A run on disk: what agents send, how it is kept while it runs and once it is closed, and how clocks are aligned.
//!
//! `agent → recording → store`: this crate receives and keeps; it knows nothing of studies' order or of any system.

pub mod facts;
pub mod spec;
