//! The client against a server in the same process that follows a script, also where no real server would go.

#![allow(clippy::unwrap_used)] // helpers of tests

mod channels;
mod link;
mod server;
