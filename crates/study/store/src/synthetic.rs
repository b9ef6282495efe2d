//! Studies made up with a known truth, for tests and demonstrations.
