//! Web pages over a study: matrix and timelines.
