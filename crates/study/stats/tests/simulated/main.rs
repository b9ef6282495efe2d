//! Simulated subjects with known truth: whether intervals cover, tests err and detectors find as often as they say.
//!
//! Seeds are fixed, so that a test gives the same result each time; bounds leave room for the error of
//! the simulation itself. `--no-capture` shows the figures.
#![allow(clippy::unwrap_used)] // helpers of tests

mod change;
mod compare;
mod design;
mod draw;
mod self_test;
mod sequential;
mod steady;
