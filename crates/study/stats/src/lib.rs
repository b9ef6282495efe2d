//! Numbers out of numbers: summaries, intervals, the joining of sequences that tell of the same
//! frames, what disturbed a run, and what runs and studies say about each other.
//!
//! Pure: no files, no clocks, no threads; randomness only from a seed that is given.

pub mod align;
pub mod change;
pub mod compare;
pub mod design;
pub mod error;
pub mod fdr;
pub mod interval;
pub mod join;
pub mod permute;
pub mod quality;
pub mod resample;
pub mod self_test;
pub mod sequential;
pub mod steady;
pub mod summary;
mod welch;

pub use error::Error;
pub use interval::{Interval, block_bootstrap, bootstrap, student};
pub use summary::{Summary, quantile};
