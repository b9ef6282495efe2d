//! Web pages over a study: the matrix of points, and a run's timeline on three panels.
//!
//! A small server on loopback gives JSON ([`serve`]) and the page that draws it (`ui/`, embedded). It only reads, so it
//! can be pointed at a study that is being run. What a web page elsewhere could try is kept out: requests whose `Host`
//! is a name (DNS rebinding), scripts from elsewhere (content security policy), run names that lead out of the study.

mod api;
mod assets;
mod error;
mod guard;
mod indicators;
mod library;
mod overview;
mod server;
mod waterfall;

pub use error::ViewError;
pub use server::{ViewOptions, serve};
