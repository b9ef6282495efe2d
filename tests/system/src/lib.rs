//! Tests with the real parts live in `tests/`.
