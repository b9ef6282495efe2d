//! A child that dies with the thread that started it.

#![allow(unsafe_code)] // pre_exec, the only way to set PR_SET_PDEATHSIG in the child

use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Signal, set_parent_process_death_signal};

/// Starts `command`; the kernel kills it when the calling thread ends (prctl(2), `PR_SET_PDEATHSIG`).
pub(crate) fn spawn(command: &mut Command) -> std::io::Result<Child> {
    // SAFETY: the closure makes one async-signal-safe system call, allocates nothing and takes no lock.
    unsafe {
        command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
    }
    command.spawn()
}
