//! A program of a run: its own process group, its log in the run's folder, gone when we are gone.
//!
//! A terminal's Ctrl-C does not reach it (another group), so that a run ends in order. The kernel kills it when the
//! thread that started it dies (`PR_SET_PDEATHSIG`, prctl(2)), so that `kill -9` of the operator's command leaves
//! nothing behind.
#![allow(unsafe_code)] // pre_exec, the only way to set PR_SET_PDEATHSIG in the child

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bench::SubjectError;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Signal, getpid, getppid, kill_process_group, pidfd_open, set_parent_process_death_signal,
};

/// Bytes at the end of a log in which a program's last words are looked for.
const LAST_WORDS: u64 = 8 * 1024;
/// Lines of a log that make a reason.
const LINES: usize = 3;

pub(crate) struct Program {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Program {
    /// Starts `command`; its stderr goes to `log`, its stdout too unless `piped`.
    /// `death` is what it gets when this thread dies.
    pub(crate) fn start(
        name: &str,
        mut command: Command,
        log: &Path,
        death: Signal,
        piped: bool,
    ) -> Result<(Self, Option<ChildStdout>), SubjectError> {
        let failed = |what: String| move |source| SubjectError::Io { what, source };
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .map_err(failed(format!("cannot write {}", log.display())))?;
        let copy = file.try_clone().map_err(failed(format!("cannot write {}", log.display())))?;
        command.stdin(Stdio::null()).stderr(file).process_group(0);
        command.stdout(if piped { Stdio::piped() } else { copy.into() });
        dies_with_us(&mut command, death);
        let mut child = command
            .spawn()
            .map_err(failed(format!("cannot start {}", command.get_program().to_string_lossy())))?;
        let stdout = child.stdout.take();
        Ok((Self { name: name.into(), child, log: log.into() }, stdout))
    }

    /// An error that tells why, when the program has ended.
    pub(crate) fn check(&mut self) -> Result<(), SubjectError> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(self.ended(status)),
            Err(source) => Err(SubjectError::Io { what: format!("cannot wait for {}", self.name), source }),
        }
    }

    /// As [`Program::check`], and gives the program `grace` to end.
    pub(crate) fn check_within(&mut self, grace: Duration) -> Result<(), SubjectError> {
        self.wait(grace);
        self.check()
    }

    /// An error that tells by which signal the program died, when it did so within `grace`.
    pub(crate) fn crash(&mut self, grace: Duration) -> Option<SubjectError> {
        self.wait(grace);
        let status = self.child.try_wait().ok().flatten()?;
        status.signal().map(|_| self.ended(status))
    }

    fn ended(&self, status: ExitStatus) -> SubjectError {
        ended_early(&self.name, status.code(), status.signal(), &self.log)
    }

    /// Waits for the end, at most `limit`; true when it has ended.
    pub(crate) fn wait(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let pid = Pid::from_child(&self.child);
        // No pidfd (old kernel, or already reaped): the answer below is still right, only not awaited.
        if let Ok(fd) = pidfd_open(pid, PidfdFlags::empty()) {
            loop {
                let left = until.saturating_duration_since(Instant::now());
                let timeout = Timespec {
                    tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                    tv_nsec: left.subsec_nanos().into(),
                };
                match poll(&mut [PollFd::new(&fd, PollFlags::IN)], Some(&timeout)) {
                    Err(rustix::io::Errno::INTR) => {}
                    _ => break,
                }
            }
        }
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends the program: waits `grace` (for one that was asked already), then SIGTERM, then SIGKILL for its whole group.
    /// True when it ended by itself.
    pub(crate) fn stop(&mut self, grace: Duration) -> bool {
        const TERM_GRACE: Duration = Duration::from_secs(2);
        let group = Pid::from_child(&self.child);
        let ended = self.wait(grace);
        if !ended {
            let _ = kill_process_group(group, Signal::TERM);
            self.wait(TERM_GRACE);
        }
        // Also when the program has ended: what it started may be left in its group.
        let _ = kill_process_group(group, Signal::KILL);
        let _ = self.child.wait();
        ended
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stop(Duration::ZERO);
    }
}

/// Has a command get `death` when the thread that starts it dies.
pub(crate) fn dies_with_us(command: &mut Command, death: Signal) {
    let parent = getpid();
    // SAFETY: between fork and exec the closure makes two system calls that are async-signal-safe (prctl, getppid),
    // allocates nothing (an errno makes the error) and takes no lock.
    unsafe {
        command.pre_exec(move || {
            set_parent_process_death_signal(Some(death))?;
            // Our death may have come before the call above: then nobody would tell the child.
            if getppid() == Some(parent) { Ok(()) } else { Err(rustix::io::Errno::SRCH.into()) }
        });
    }
}

/// Why a program ended, with the last words of its log.
pub(crate) fn ended_early(program: &str, code: Option<i32>, signal: Option<i32>, log: &Path) -> SubjectError {
    let status = match (code, signal) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("killed by signal {signal}"),
        (None, None) => "unknown status".into(),
    };
    let reason = match last_words(log) {
        Ok(words) if !words.is_empty() => words,
        _ => format!("it left no message in {}", log.display()),
    };
    SubjectError::Program { program: program.into(), status, reason }
}

/// The last lines of a log that say something, on one line, without colours.
fn last_words(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LAST_WORDS)))?;
    let mut bytes = Vec::new();
    file.take(LAST_WORDS).read_to_end(&mut bytes)?;
    let text = without_colours(&String::from_utf8_lossy(&bytes));
    let lines: Vec<_> =
        text.lines().map(str::trim).filter(|l| l.chars().any(char::is_alphanumeric)).collect();
    Ok(lines[lines.len().saturating_sub(LINES)..].join(" | "))
}

/// Without escape sequences `ESC [ … letter`.
fn without_colours(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c == '\u{1b}' {
            let _ = chars.by_ref().find(char::is_ascii_alphabetic);
        } else {
            plain.push(c);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, log: &Path) -> Program {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Program::start("guest", command, log, Signal::KILL, false).unwrap().0
    }

    #[test]
    fn a_program_that_ends_early_leaves_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("guest.log");
        let script = "printf 'one\\ntwo\\nthree\\n\\033[31mERROR\\033[0m no x264enc\\n\\n---\\n' >&2; exit 3";
        let mut program = shell(script, &log);
        assert!(program.wait(Duration::from_secs(10)));
        let error = program.check().unwrap_err().to_string();
        assert_eq!(error, "guest ended early (exit status 3): two | three | ERROR no x264enc");
    }

    #[test]
    fn a_program_that_is_killed_says_by_what() {
        let dir = tempfile::tempdir().unwrap();
        let mut program = shell("kill -9 $$", &dir.path().join("guest.log"));
        assert!(program.wait(Duration::from_secs(10)));
        let error = program.check().unwrap_err().to_string();
        assert!(
            error.starts_with("guest ended early (killed by signal 9): it left no message in "),
            "{error}"
        );
    }

    #[test]
    fn stopping_ends_also_what_ignores_it_and_what_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("guest.log");
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; sleep 1000 & echo $!; wait; wait"]);
        let (mut program, stdout) = Program::start("guest", command, &log, Signal::KILL, true).unwrap();
        let mut line = String::new();
        io::BufRead::read_line(&mut io::BufReader::new(stdout.unwrap()), &mut line).unwrap();
        let child = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        assert!(program.check().is_ok());
        program.stop(Duration::ZERO);
        assert!(program.check().is_err());
        // Killed with the group; it may be a zombie for the moment until init reaps it.
        let until = Instant::now() + Duration::from_secs(10);
        while running(child) {
            assert!(Instant::now() < until, "process {child:?} is left behind");
            std::thread::yield_now();
        }
    }

    fn running(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        stat.is_ok_and(|s| !s.contains(") Z "))
    }
}
