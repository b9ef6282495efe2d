//! A network emulator in user space.
pub mod conditions;
mod lateness;
pub mod link;
mod serial;
pub mod trace;
