//! Studies and runs as they lie on disk: what each run gave, the matrix of points, the joined frames, timelines.
//!
//! The raw tables and the files of facts are the truth. What is derived (`index.json`, `frames.v1.parquet`) can be
//! deleted at any time and is made again. Reads a study while it is being run.

mod align;
mod error;
mod index;
mod joined;
mod quality;
mod responses;
mod study;
pub mod synthetic;
mod timeline;

pub use align::{Aligned, align_by_frames};
pub use error::StoreError;
pub use joined::{Joined, JoinedSpan, is_relative};
pub use quality::{is_worth_a_flag, quality, reasons};
pub use study::{Broken, Cell, RunSummary, Study, StudyEntry, break_off, list, summarise, summarise_closed};
pub use timeline::{PanelTimeline, Series, Timeline};
