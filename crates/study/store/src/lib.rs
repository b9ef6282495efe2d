//! Immutable runs, indexed by matrix point.
