//! Measured SPICE client, headless or windowed.

fn main() {}
