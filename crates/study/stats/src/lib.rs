//! Numbers out of numbers: summaries, intervals, the joining of sequences that tell of the same
//! frames, and what disturbed a run.
//!
//! Pure: no files, no clocks, no threads; randomness only from a seed that is given.

pub mod align;
pub mod interval;
pub mod join;
pub mod quality;
pub mod summary;

pub use interval::{Interval, block_bootstrap, bootstrap, student};
pub use summary::{Summary, quantile};
