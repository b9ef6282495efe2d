//! What the tests with the real parts share: programs as children, an X display, a guest that is played by the test.
//!
//! Rules: a test waits for an event with a deadline; a child dies with the test; a missing peer is a skip with its
//! reason on stderr, a missing program of ours is a failure.

mod guest;
mod host;
mod record;
mod running;
mod vm;
mod xvfb;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::bail;

pub use guest::StubGuest;
pub use host::{Host, Totals};
pub use record::{Record, watch};
pub use running::Running;
pub use vm::{SHELL_PORT, Vm};
pub use xvfb::{Screenshot, Xvfb};

/// Time for anything that is only a matter of a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Cargo's target folder, in which the running test lies.
///
/// # Panics
/// The test does not lie in one.
pub fn target_folder() -> PathBuf {
    let profile = profile_folder();
    profile.parent().map_or(profile.clone(), PathBuf::from)
}

fn profile_folder() -> PathBuf {
    let own = std::env::current_exe().expect("a running test has a file");
    let deps = own.parent().expect("a file is in a folder");
    deps.parent().map_or_else(|| deps.to_owned(), PathBuf::from)
}

/// One of our programs, built beside the running test.
///
/// # Panics
/// It has not been built: a test of it must fail then, not be skipped.
pub fn program(name: &str) -> PathBuf {
    let path = profile_folder().join(name);
    assert!(path.is_file(), "{} is missing: build it with: cargo build --workspace", path.display());
    path
}

/// Where a program of somebody else's is, or `None` with a line on stderr that says why a test is skipped.
pub fn peer(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(name)).find(|p| p.is_file());
    if found.is_none() {
        eprintln!("SKIPPED: {name} is not installed (Debian package {package})");
    }
    found
}

/// Asks again and again until the answer is true; for state of other programs that sends no event.
///
/// # Errors
/// It was not true in time.
pub fn wait_for(deadline: Duration, what: &str, mut is: impl FnMut() -> bool) -> anyhow::Result<()> {
    let end = Instant::now() + deadline;
    while !is() {
        if Instant::now() > end {
            bail!("waited {deadline:?} in vain for {what}");
        }
        std::thread::park_timeout(Duration::from_millis(5));
    }
    Ok(())
}
