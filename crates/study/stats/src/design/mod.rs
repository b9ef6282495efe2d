//! Experimental designs: which points of a space of factors to run.
//!
//! A factor with levels is given as their number, and a point names the level of each by its index from 0. A continuous
//! factor is a dimension from 0 to 1, which the caller scales.

mod fraction;
mod latin;
mod pairwise;
mod power;
mod product;

pub use fraction::{Alias, Fraction};
pub use latin::latin_hypercube;
pub use pairwise::{Covering, Pair, pairwise};
pub use power::{Precision, power, resolvable_effect};
pub use product::{Product, product};
