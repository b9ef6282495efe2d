//! Numbers out of numbers: summaries, intervals, and the joining of sequences that tell of the same frames.
//!
//! Pure: no files, no clocks, no threads; randomness only from a seed that is given.

pub mod interval;
pub mod join;
pub mod summary;

pub use interval::{Interval, block_bootstrap, bootstrap, student};
pub use summary::{Summary, quantile};
