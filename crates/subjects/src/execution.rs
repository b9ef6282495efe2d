//! One execution of a program: awaited with a limit, and what it used.
#![allow(unsafe_code)] // wait4, which alone tells what one child used

use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use bench::SubjectError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::process::{dies_with_us, ended_early};

/// How often one looks whether the person wants to stop.
const LOOK: Duration = Duration::from_millis(100);

/// What an execution used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// From just before its start until its end.
    pub(crate) wall: Duration,
    pub(crate) user: Duration,
    pub(crate) system: Duration,
    pub(crate) max_rss_bytes: u64,
    pub(crate) major_faults: u64,
    pub(crate) voluntary_switches: u64,
    pub(crate) involuntary_switches: u64,
    /// `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) signal: Option<i32>,
}

impl Used {
    /// Why it failed, with its last words.
    pub(crate) fn failure(&self, program: &str, log: &Path) -> SubjectError {
        ended_early(program, self.code, self.signal, log)
    }
}

/// A program that runs. Dropped, its whole process group is killed.
pub(crate) struct Execution {
    child: Option<Child>,
    group: Pid,
    fd: OwnedFd,
    name: String,
    started: Instant,
}

impl Execution {
    /// Starts it. It is killed when this thread dies.
    pub(crate) fn start(mut command: Command) -> Result<Self, SubjectError> {
        let name = command.get_program().to_string_lossy().into_owned();
        let failed = |source| SubjectError::Io { what: format!("cannot start {name}"), source };
        dies_with_us(&mut command, Signal::KILL);
        let started = Instant::now();
        let mut child = command.spawn().map_err(failed)?;
        let group = Pid::from_child(&child);
        let fd = match pidfd_open(group, PidfdFlags::empty()) {
            Ok(fd) => fd,
            Err(error) => {
                let _ = kill_process_group(group, Signal::KILL);
                let _ = child.wait();
                return Err(SubjectError::Io {
                    what: "pidfd_open (needs Linux 5.3)".into(),
                    source: error.into(),
                });
            }
        };
        Ok(Self { child: Some(child), group, fd, name, started })
    }

    /// Waits for its end and ends what it left behind. `check` is asked several times a second; its error ends the execution.
    ///
    /// # Errors
    /// It takes longer than `limit`, or `check`'s.
    pub(crate) fn wait(
        &mut self,
        limit: Duration,
        check: &mut dyn FnMut() -> Result<(), SubjectError>,
    ) -> Result<Used, SubjectError> {
        loop {
            let left = limit.saturating_sub(self.started.elapsed()).min(LOOK);
            let timeout = Timespec { tv_sec: 0, tv_nsec: left.subsec_nanos().into() };
            match poll(&mut [PollFd::new(&self.fd, PollFlags::IN)], Some(&timeout)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) => break,
                Err(error) => return Err(SubjectError::Io { what: "poll".into(), source: error.into() }),
            }
            check()?;
            if self.started.elapsed() >= limit {
                let what =
                    format!("{} did not end within {} s and was killed", self.name, limit.as_secs_f64());
                return Err(SubjectError::Setting(what));
            }
        }
        let wall = self.started.elapsed();
        // As long as it is not reaped its number, which is also that of its group, is nobody else's.
        let _ = kill_process_group(self.group, Signal::KILL);
        let reaped = reap(self.group);
        self.child = None;
        let (status, usage) = reaped
            .map_err(|source| SubjectError::Io { what: format!("cannot wait for {}", self.name), source })?;
        let time = |t: libc::timeval| {
            Duration::new(u64::try_from(t.tv_sec).unwrap_or(0), u32::try_from(t.tv_usec).unwrap_or(0) * 1000)
        };
        let count = |n: libc::c_long| u64::try_from(n).unwrap_or(0);
        Ok(Used {
            wall,
            user: time(usage.ru_utime),
            system: time(usage.ru_stime),
            // getrusage(2): kilobytes.
            max_rss_bytes: count(usage.ru_maxrss) * 1024,
            major_faults: count(usage.ru_majflt),
            voluntary_switches: count(usage.ru_nvcsw),
            involuntary_switches: count(usage.ru_nivcsw),
            code: status.code(),
            signal: status.signal(),
        })
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = kill_process_group(self.group, Signal::KILL);
            let _ = child.wait();
        }
    }
}

/// Reaps a child that has ended.
fn reap(pid: Pid) -> io::Result<(ExitStatus, libc::rusage)> {
    let (mut status, mut usage) = (0, MaybeUninit::<libc::rusage>::zeroed());
    loop {
        // SAFETY: both pointers are to valid memory of the right types for the length of the call.
        let found = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &mut status, 0, usage.as_mut_ptr()) };
        if found >= 0 {
            // SAFETY: all bytes zero are a valid `rusage` of plain integers, and the call has filled it.
            return Ok((ExitStatus::from_raw(status), unsafe { usage.assume_init() }));
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;

    use super::*;

    fn shell(script: &str) -> Execution {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        Execution::start(command).unwrap()
    }

    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn an_execution_tells_what_it_used() {
        let used = shell("i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; exit 3")
            .wait(LONG, &mut || Ok(()))
            .unwrap();
        assert_eq!((used.code, used.signal), (Some(3), None));
        assert!(used.user > Duration::ZERO && used.user + used.system <= used.wall * 2, "{used:?}");
        assert!(used.max_rss_bytes > 100_000, "{used:?}");
    }

    #[test]
    fn one_that_takes_too_long_or_is_not_wanted_any_more_is_killed_with_what_it_started() {
        let error =
            shell("sleep 1000 & sleep 1000").wait(Duration::from_millis(50), &mut || Ok(())).unwrap_err();
        assert!(error.to_string().contains("did not end within 0.05 s"), "{error}");
        let mut execution = shell("sleep 1000 & sleep 1000");
        let group = execution.group;
        let error = execution.wait(LONG, &mut || Err(SubjectError::Cancelled)).unwrap_err();
        assert!(matches!(error, SubjectError::Cancelled));
        drop(execution);
        // Both are dead, though somebody may have to reap the one in the background yet.
        let until = Instant::now() + LONG;
        while alive(group) {
            assert!(Instant::now() < until, "something is left of the group");
            std::thread::yield_now();
        }
    }

    #[test]
    fn what_a_program_leaves_in_the_background_is_ended() {
        let mut execution = shell("sleep 1000 & exit 0");
        let group = execution.group;
        assert_eq!(execution.wait(LONG, &mut || Ok(())).unwrap().code, Some(0));
        let until = Instant::now() + LONG;
        while alive(group) {
            assert!(Instant::now() < until, "something is left of the group");
            std::thread::yield_now();
        }
    }

    /// Whether any process of the group is neither gone nor a zombie.
    fn alive(group: Pid) -> bool {
        let group = group.as_raw_nonzero().to_string();
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { return false };
            let Some((_, rest)) = stat.rsplit_once(") ") else { return false };
            let fields: Vec<_> = rest.split(' ').collect();
            fields[2] == group && fields[0] != "Z"
        })
    }
}
