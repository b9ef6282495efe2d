//! What a virtual CPU's thread has used, from `/proc/PID/task/TID/schedstat` (the kernel's
//! `Documentation/scheduler/sched-stats.rst`), when QEMU runs on this machine.

use std::path::{Path, PathBuf};

use crate::devices::read_small;

/// Longest file.
const LONGEST: u64 = 4096;

/// The schedstat file of a thread that QEMU names, if that is a thread of this machine's QEMU: thread numbers of another
/// machine or container mean something else here. `peer` is the process at the other end of the socket; where a manager
/// has made the socket for QEMU, the process's name has to tell.
pub(super) fn schedstat(proc: &Path, thread: u32, peer: Option<u32>) -> Option<PathBuf> {
    let mut text = String::new();
    if !read_small(&proc.join(format!("{thread}/status")), LONGEST, &mut text) {
        return None;
    }
    let field =
        |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let process: u32 = field("Tgid")?.parse().ok()?;
    let of_peer = peer == Some(process);
    let path = proc.join(format!("{process}/task/{thread}/schedstat"));
    let named = |text: &mut String| {
        read_small(&proc.join(format!("{process}/comm")), LONGEST, text) && text.starts_with("qemu")
    };
    (of_peer || named(&mut text)).then_some(path)
}

/// CPU time and time waited for a CPU in ns, since the thread's start.
pub(super) fn read(path: &Path, text: &mut String) -> Option<[u64; 2]> {
    if !read_small(path, LONGEST, text) {
        return None;
    }
    let mut numbers = text.split_whitespace().map(|n| n.parse::<u64>().ok());
    Some([numbers.next()??, numbers.next()??])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_the_peer_is_found_and_one_of_another_process_is_not() {
        let own = std::process::id();
        let proc = Path::new("/proc");
        let path = schedstat(proc, own, Some(own)).unwrap();
        let [cpu, _] = read(&path, &mut String::new()).unwrap();
        assert!(cpu > 0);
        assert_eq!(schedstat(proc, own, Some(1)), None);
        assert_eq!(schedstat(proc, own, None), None);
        assert_eq!(schedstat(proc, u32::MAX, Some(own)), None);
    }

    #[test]
    fn what_is_no_schedstat_is_none() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (text, expected) in [("12 7 3\n", Some([12, 7])), ("12\n", None), ("x y z", None), ("", None)] {
            std::fs::write(file.path(), text).unwrap();
            assert_eq!(read(file.path(), &mut String::new()), expected, "{text}");
        }
    }
}
