//! One file per system that can be studied.
