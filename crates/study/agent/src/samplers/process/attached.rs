//! One process that is followed.
//!
//! Its folder `/proc/PID` is held open: what is read through it is of this very process or an error, never of a later
//! one that was given the same number.

use std::collections::HashMap;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::sys::time::TimeValLike;
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use rustix::fs::{Mode, OFlags, RawDir, openat};
use rustix::io::Errno;

use super::super::text::{keyed, number, numbers, words};
use super::super::ticks_to_ns;

/// The longest file of a process that is read.
const MAX_TEXT: usize = 64 << 10;
/// Most threads whose own counters are followed in one process.
const MAX_THREADS: usize = 4096;

/// Counters since the process started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) user_ns: u64,
    pub(super) system_ns: u64,
    pub(super) guest_ns: u64,
    pub(super) minor_faults: u64,
    pub(super) major_faults: u64,
    pub(super) voluntary: u64,
    pub(super) involuntary: u64,
    pub(super) waited_ns: u64,
    pub(super) read_bytes: u64,
    pub(super) written_bytes: u64,
    pub(super) disk_read_bytes: u64,
    pub(super) disk_written_bytes: u64,
}

impl Counters {
    pub(super) fn add(&mut self, other: &Self) {
        let add = |to: &mut u64, from: u64| *to = to.saturating_add(from);
        add(&mut self.user_ns, other.user_ns);
        add(&mut self.system_ns, other.system_ns);
        add(&mut self.guest_ns, other.guest_ns);
        add(&mut self.minor_faults, other.minor_faults);
        add(&mut self.major_faults, other.major_faults);
        add(&mut self.voluntary, other.voluntary);
        add(&mut self.involuntary, other.involuntary);
        add(&mut self.waited_ns, other.waited_ns);
        add(&mut self.read_bytes, other.read_bytes);
        add(&mut self.written_bytes, other.written_bytes);
        add(&mut self.disk_read_bytes, other.disk_read_bytes);
        add(&mut self.disk_written_bytes, other.disk_written_bytes);
    }
}

/// What `/proc/PID/stat` tells (proc(5)).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Stat {
    state: u8,
    minor_faults: u64,
    major_faults: u64,
    user_ticks: u64,
    system_ticks: u64,
    pub(super) threads: u64,
    pub(super) start_ticks: u64,
    resident_pages: u64,
    guest_ticks: u64,
}

impl Stat {
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        // The name in brackets may hold anything: fields are counted after the last bracket.
        let mut fields = words(&text[text.iter().rposition(|byte| *byte == b')')? + 1..]);
        let state = *fields.next()?.first()?;
        // Fields 10, 12, 14, 15, 20, 22, 24 and 43; some of those between have a sign.
        let mut next = |skipped| fields.nth(skipped).and_then(number);
        Some(Self {
            state,
            minor_faults: next(6)?,
            major_faults: next(1)?,
            user_ticks: next(1)?,
            system_ticks: next(0)?,
            threads: next(4)?,
            start_ticks: next(1)?,
            resident_pages: next(1)?,
            guest_ticks: next(18).unwrap_or(0),
        })
    }

    /// Over, though its parent has not asked yet.
    fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Divides the CPU time in the proportion of the ticks; neither part below what it was.
fn divide(cpu_ns: u64, stat: &Stat, last: (u64, u64)) -> (u64, u64) {
    let ticks = stat.user_ticks.saturating_add(stat.system_ticks);
    let user_ns = match ticks {
        0 => cpu_ns,
        ticks => (u128::from(cpu_ns) * u128::from(stat.user_ticks) / u128::from(ticks)) as u64,
    };
    let cpu_ns = cpu_ns.max(last.0.saturating_add(last.1));
    let user_ns = user_ns.clamp(last.0, cpu_ns - last.1);
    (user_ns, cpu_ns - user_ns)
}

/// Buffers for reading, one for all processes.
#[derive(Default)]
pub(super) struct Buffers {
    text: Vec<u8>,
    path: String,
    listing: Vec<MaybeUninit<u8>>,
}

/// Reads a file below `dir` from its beginning, at most [`MAX_TEXT`] of it.
pub(super) fn read_in<'b>(
    dir: impl AsFd,
    path: &str,
    buffer: &'b mut Vec<u8>,
) -> rustix::io::Result<&'b [u8]> {
    let file = openat(dir, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut length = 0;
    loop {
        if length == buffer.len() {
            if length >= MAX_TEXT {
                return Ok(&buffer[..length]);
            }
            buffer.resize((2 * length).max(4096), 0);
        }
        match rustix::io::read(&file, &mut buffer[length..]) {
            Ok(0) => return Ok(&buffer[..length]),
            Ok(count) => length += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
}

/// Opens the folder of a process.
pub(super) fn open_folder(path: &Path) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty())
}

/// Calls `each` with the numbers among the names in a folder.
pub(super) fn numbered(folder: impl AsFd, listing: &mut Vec<MaybeUninit<u8>>, mut each: impl FnMut(u32)) {
    listing.resize(8192, MaybeUninit::uninit());
    let mut entries = RawDir::new(folder, listing);
    while let Some(Ok(entry)) = entries.next() {
        if let Some(id) = number(entry.file_name().to_bytes()).and_then(|id| u32::try_from(id).ok()) {
            each(id);
        }
    }
}

/// What a thread has counted: switches of its own will and forced ones, nanoseconds waited for a CPU.
type ThreadCounts = [u64; 3];

/// A process that is followed.
pub(super) struct Attached {
    pub(super) pid: u32,
    /// The kernel's name when it was attached.
    pub(super) name: String,
    /// Meant by the target itself, not as a descendant.
    pub(super) meant: bool,
    folder: OwnedFd,
    live: bool,
    pub(super) counters: Counters,
    pub(super) resident_bytes: u64,
    pub(super) threads: u64,
    /// Each thread's counts, and the number of the reading in which it was last there.
    by_thread: HashMap<u32, (ThreadCounts, u64)>,
    readings: u64,
}

impl Attached {
    /// `live`: the process is one of this machine's, so that its clock can be asked.
    pub(super) fn new(pid: u32, folder: OwnedFd, name: &[u8], meant: bool, live: bool) -> Self {
        Self {
            pid,
            name: String::from_utf8_lossy(name).into_owned(),
            meant,
            folder,
            live,
            counters: Counters::default(),
            resident_bytes: 0,
            threads: 0,
            by_thread: HashMap::new(),
            readings: 0,
        }
    }

    /// Reads the counters. False once it has ended; the counters are then the last that could be had.
    pub(super) fn read(&mut self, each_thread: bool, buffers: &mut Buffers) -> bool {
        // Before `stat`: as long as the folder answers afterwards, the number was still this process's.
        let clock_ns = if self.live { clock_ns(self.pid) } else { None };
        let Some(stat) = read_in(&self.folder, "stat", &mut buffers.text).ok().and_then(Stat::parse) else {
            return false;
        };
        let ticks_ns = ticks_to_ns(stat.user_ticks.saturating_add(stat.system_ticks));
        let last = (self.counters.user_ns, self.counters.system_ns);
        let (user_ns, system_ns) = divide(clock_ns.unwrap_or(ticks_ns), &stat, last);
        let now = &mut self.counters;
        (now.user_ns, now.system_ns) = (user_ns, system_ns);
        now.guest_ns = now.guest_ns.max(ticks_to_ns(stat.guest_ticks));
        (now.minor_faults, now.major_faults) = (stat.minor_faults, stat.major_faults);
        self.resident_bytes = stat.resident_pages.saturating_mul(rustix::param::page_size() as u64);
        self.threads = stat.threads;
        if stat.has_ended() {
            return false;
        }
        self.read_io(buffers);
        if each_thread {
            self.read_threads(buffers);
        }
        true
    }

    /// Reads `io`. False if it may not be read, which takes the same user or CAP_SYS_PTRACE.
    pub(super) fn read_io(&mut self, buffers: &mut Buffers) -> bool {
        let Ok(text) = read_in(&self.folder, "io", &mut buffers.text) else { return false };
        let mut found = [None; 4];
        let keys = ["rchar", "wchar", "read_bytes", "write_bytes"];
        if keyed(text, keys.into_iter(), &mut found).0 > 0 {
            let [read, written, disk_read, disk_written] = found.map(Option::unwrap_or_default);
            let now = &mut self.counters;
            now.read_bytes = now.read_bytes.max(read);
            now.written_bytes = now.written_bytes.max(written);
            now.disk_read_bytes = now.disk_read_bytes.max(disk_read);
            now.disk_written_bytes = now.disk_written_bytes.max(disk_written);
        }
        true
    }

    /// Adds what each thread has counted since it was last looked at. Those that have ended stay in the sums.
    fn read_threads(&mut self, buffers: &mut Buffers) {
        let Ok(folder) =
            openat(&self.folder, "task", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        else {
            return;
        };
        self.readings += 1;
        let Buffers { text, path, listing } = buffers;
        let (counters, by_thread, reading) = (&mut self.counters, &mut self.by_thread, self.readings);
        numbered(&folder, listing, |id| {
            if by_thread.len() >= MAX_THREADS && !by_thread.contains_key(&id) {
                return;
            }
            let Some(now) = thread_counts(&folder, id, path, text) else { return };
            let (then, seen) = by_thread.entry(id).or_default();
            // A smaller count is that of a new thread with an old number.
            let grown = |i: usize| now[i].checked_sub(then[i]).unwrap_or(now[i]);
            counters.voluntary = counters.voluntary.saturating_add(grown(0));
            counters.involuntary = counters.involuntary.saturating_add(grown(1));
            counters.waited_ns = counters.waited_ns.saturating_add(grown(2));
            (*then, *seen) = (now, reading);
        });
        self.by_thread.retain(|_, (_, seen)| *seen == reading);
    }

    /// Calls `each` with the children of all its threads.
    pub(super) fn children(&self, buffers: &mut Buffers, mut each: impl FnMut(u32)) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let Ok(folder) = openat(&self.folder, "task", flags, Mode::empty()) else { return };
        let Buffers { text, path, listing } = buffers;
        numbered(&folder, listing, |id| {
            join(path, id, "children");
            let children = read_in(&folder, path, text).unwrap_or_default();
            let ids = words(children).filter_map(number);
            ids.filter_map(|id| u32::try_from(id).ok()).for_each(&mut each);
        });
    }
}

fn join(path: &mut String, id: u32, file: &str) {
    use std::fmt::Write;
    path.clear();
    // Writing to a string cannot fail.
    let _ = write!(path, "{id}/{file}");
}

fn thread_counts(folder: &OwnedFd, id: u32, path: &mut String, text: &mut Vec<u8>) -> Option<ThreadCounts> {
    join(path, id, "status");
    let mut found = [None; 2];
    let keys = ["voluntary_ctxt_switches", "nonvoluntary_ctxt_switches"];
    keyed(read_in(folder, path, text).ok()?, keys.into_iter(), &mut found);
    join(path, id, "schedstat");
    // On a CPU, waiting for one, and how often; kernels without schedstats lack the file.
    let ([_, waited_ns], _) = numbers::<2>(read_in(folder, path, text).unwrap_or_default());
    Some([found[0]?, found[1]?, waited_ns])
}

/// The scheduler's own count of a process's CPU time, its ended threads included.
fn clock_ns(pid: u32) -> Option<u64> {
    let clock = clock_getcpuclockid(Pid::from_raw(pid.try_into().ok()?)).ok()?;
    u64::try_from(clock_gettime(clock).ok()?.num_nanoseconds()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STAT: &str = "12 (a) b (c)) S 1 12 12 0 -1 4194560 11 2 13 4 70 30 5 6 20 0 9 0 1234 5000000 321 \
        18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 1 0 0 0 8 0 0 0 0 0 0 0 0 0\n";

    #[test]
    fn the_fields_of_stat_are_found_behind_any_name() {
        let expected = Stat {
            state: b'S',
            minor_faults: 11,
            major_faults: 13,
            user_ticks: 70,
            system_ticks: 30,
            threads: 9,
            start_ticks: 1234,
            resident_pages: 321,
            guest_ticks: 8,
        };
        assert_eq!(Stat::parse(STAT.as_bytes()), Some(expected));
        for text in ["", "12 (cut off", "12 (a) S 1 2 3", "12 (a)"] {
            assert_eq!(Stat::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn time_is_divided_by_ticks_and_never_goes_back() {
        let stat = |user_ticks, system_ticks| Stat { user_ticks, system_ticks, ..Stat::default() };
        assert_eq!(divide(100, &stat(0, 0), (0, 0)), (100, 0));
        assert_eq!(divide(100, &stat(3, 1), (0, 0)), (75, 25));
        assert_eq!(divide(100, &stat(1, 3), (60, 40)), (60, 40));
        assert_eq!(divide(110, &stat(0, 9), (60, 40)), (60, 50));
        assert_eq!(divide(50, &stat(1, 0), (60, 40)), (60, 40));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..300)) {
            Stat::parse(&text);
        }

        #[test]
        fn divided_times_add_up_and_grow(cpu in any::<u32>(), u in any::<u32>(), s in any::<u32>(), last in any::<(u16, u16)>()) {
            let stat = Stat { user_ticks: u.into(), system_ticks: s.into(), ..Stat::default() };
            let last = (u64::from(last.0), u64::from(last.1));
            let (user, system) = divide(cpu.into(), &stat, last);
            prop_assert_eq!(user + system, u64::from(cpu).max(last.0 + last.1));
            prop_assert!(user >= last.0 && system >= last.1);
        }
    }
}
