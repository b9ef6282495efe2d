//! Chosen processes: attached while they run, attached again when they are started again.
//!
//! One table a target, `process-NAME`, with the sums over all processes that are meant now (and their descendants with
//! `tree:`). What an ended process had counted stays in the sums, so that counters never go back; while none runs there
//! are no rows. Processes are looked for once a second, and at once when one has ended: one that lives for less than
//! that may be missed, and so may the last fraction of a row of one that its parent reaps at once. Reading other users'
//! I/O takes CAP_SYS_PTRACE: without, those columns are left out.

mod attached;
mod target;

use std::mem::MaybeUninit;
use std::os::fd::AsFd;
use std::time::Duration;

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

use self::attached::{Attached, Buffers, Counters, numbered, open_folder, read_in};
use self::target::{Means, Target as Which};
use super::{Kind, Root, SamplerError, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "process",
    default: false,
    target: Target::Required("name:qemu-system-x86_64"),
    open: |root, target| Ok(Box::new(Processes::new(root, target.unwrap_or_default())?)),
};

/// Most processes that one target may mean, descendants included.
const MAX_PROCESSES: usize = 256;
/// Time between two looks for processes: a look reads a file or two of every process of the machine.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Up to so many threads their own counters are read for each row, beyond only with each look.
const MANY_THREADS: u64 = 64;
/// Bytes of I/O are the last columns, so that they can be left out.
const IO_COLUMNS: usize = 4;

struct Processes {
    root: Root,
    which: Which,
    text: String,
    attached: Vec<Attached>,
    /// What ended processes had counted.
    ended: Counters,
    table: Table,
    /// I/O may be read; found out with the first process.
    io: Option<bool>,
    looked: Option<Nanos>,
    last: Option<(Nanos, u64)>,
    full: bool,
    buffers: Buffers,
    listing: Vec<MaybeUninit<u8>>,
}

impl Processes {
    fn new(root: &Root, target: &str) -> Result<Self, SamplerError> {
        let wrong = |reason: String| SamplerError::Target { name: KIND.name, target: target.into(), reason };
        let which = Which::parse(target).map_err(wrong)?;
        let mut new = Self {
            root: root.clone(),
            table: table(&which.table, target),
            which,
            text: target.into(),
            attached: Vec::new(),
            ended: Counters::default(),
            io: None,
            looked: None,
            last: None,
            full: false,
            buffers: Buffers::default(),
            listing: Vec::new(),
        };
        if let Means::Pid(pid) = new.which.means {
            // Now, for a later process of this number is not meant.
            new.attach(pid, true, false);
            if new.attached.is_empty() {
                return Err(wrong(format!("no process {pid} runs here")));
            }
        }
        Ok(new)
    }

    /// Attaches a process that is meant (or may be, with `judge`).
    fn attach(&mut self, pid: u32, meant: bool, judge: bool) {
        if self.attached.iter().any(|process| process.pid == pid) {
            return;
        }
        let path = self.root.proc(pid.to_string());
        // The folder first: all that is read through it is of one and the same process.
        let Ok(folder) = open_folder(&path) else { return };
        let mut buffer = Vec::new();
        let Ok(name) = read_in(&folder, "comm", &mut buffer) else { return };
        let name = name.trim_ascii_end();
        let executable = || {
            let target = rustix::fs::readlinkat(&folder, "exe", Vec::new()).ok()?.into_bytes();
            let target = target.strip_suffix(b" (deleted)").unwrap_or(&target);
            Some(target.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec())
        };
        let command_line = || {
            let mut line = Vec::new();
            let length = read_in(&folder, "cmdline", &mut line).ok()?.len();
            line.truncate(length);
            Some(line)
        };
        if judge && !self.which.matches(name, executable, command_line) {
            return;
        }
        let mut process = Attached::new(pid, folder, name, meant, self.root.is_live());
        if process.read(false, &mut self.buffers) {
            self.attached.push(process);
        }
    }

    /// Looks for processes that are meant and not attached yet.
    fn look(&mut self, rows: &mut dyn Rows) {
        let (first, known) = (self.looked.is_none(), self.attached.len());
        if !matches!(self.which.means, Means::Pid(_)) {
            let mut found = Vec::new();
            if let Ok(folder) = open_folder(&self.root.proc("")) {
                numbered(folder.as_fd(), &mut self.listing, |pid| found.push(pid));
            }
            // The command line that names the pattern matches it.
            found.retain(|pid| *pid != std::process::id() || matches!(self.which.means, Means::Name(_)));
            for pid in found {
                if self.room(rows) {
                    self.attach(pid, true, true);
                }
            }
        }
        let mut at = 0;
        while self.which.tree && at < self.attached.len() {
            let mut children = Vec::new();
            self.attached[at].children(&mut self.buffers, |pid| children.push(pid));
            for pid in children {
                if self.room(rows) {
                    self.attach(pid, false, false);
                }
            }
            at += 1;
        }
        let kind = if first { "process_attached" } else { "process_started" };
        let new = if first { 0 } else { known };
        for process in self.attached[new..].iter().filter(|process| process.meant) {
            rows.mark(kind, &format!("{}: {} ({})", self.text, process.name, process.pid));
        }
    }

    fn room(&mut self, rows: &mut dyn Rows) -> bool {
        let full = self.attached.len() >= MAX_PROCESSES;
        if full && !std::mem::replace(&mut self.full, true) {
            let text = format!("{}: more than {MAX_PROCESSES} processes, the others are left out", self.text);
            rows.mark("process_limit", &text);
        }
        !full
    }

    /// Reads all that are attached. True if one has ended.
    fn read(&mut self, looking: bool, rows: &mut dyn Rows) -> bool {
        let threads: u64 = self.attached.iter().map(|process| process.threads).sum();
        let each_thread = looking || threads <= MANY_THREADS;
        let (buffers, ended, text) = (&mut self.buffers, &mut self.ended, &self.text);
        let before = self.attached.len();
        self.attached.retain_mut(|process| {
            let runs = process.read(each_thread, buffers);
            if !runs {
                ended.add(&process.counters);
                if process.meant {
                    rows.mark("process_ended", &format!("{text}: {} ({})", process.name, process.pid));
                }
            }
            runs
        });
        self.attached.len() < before
    }

    /// Leaves the columns of I/O out if they may not be read.
    fn find_out_io(&mut self, rows: &mut dyn Rows) -> bool {
        let readable = match self.io {
            Some(readable) => return readable,
            None => self.attached.first_mut().is_some_and(|process| process.read_io(&mut self.buffers)),
        };
        self.io = Some(readable);
        if !readable {
            self.table.columns.truncate(self.table.columns.len() - IO_COLUMNS);
            let why = "not readable: run as the same user, or with CAP_SYS_PTRACE";
            rows.fact(&format!("{}.io", self.table.name), why);
        }
        readable
    }

    fn row(&mut self, rows: &mut dyn Rows) {
        let io = self.find_out_io(rows);
        let mut sum = self.ended;
        let (mut resident_bytes, mut threads) = (0u64, 0u64);
        for process in &self.attached {
            sum.add(&process.counters);
            resident_bytes = resident_bytes.saturating_add(process.resident_bytes);
            threads += process.threads;
        }
        let at = MonotonicClock.now();
        let cpu_ns = sum.user_ns.saturating_add(sum.system_ns);
        let percent = self.last.map_or(0.0, |(then, last_ns)| {
            100.0 * cpu_ns.saturating_sub(last_ns) as f64 / (at.0 - then.0).max(1) as f64
        });
        self.last = Some((at, cpu_ns));
        let values = [
            Value::U64(sum.user_ns),
            Value::U64(sum.system_ns),
            Value::U64(sum.guest_ns),
            Value::F64(percent),
            Value::U64(resident_bytes),
            Value::U64(sum.minor_faults),
            Value::U64(sum.major_faults),
            Value::U64(threads),
            Value::U64(self.attached.len() as u64),
            Value::U64(sum.voluntary),
            Value::U64(sum.involuntary),
            Value::U64(sum.waited_ns),
            Value::U64(sum.read_bytes),
            Value::U64(sum.written_bytes),
            Value::U64(sum.disk_read_bytes),
            Value::U64(sum.disk_written_bytes),
        ];
        let count = if io { values.len() } else { values.len() - IO_COLUMNS };
        rows.row(&self.table, at, &values[..count]);
    }
}

fn table(name: &str, target: &str) -> Table {
    use ColumnType::{F64, U64};
    let mut table =
        Table::new(name, format!("processes of {target}, summed; ended ones stay in the counters"));
    for (column, column_type, unit, description) in [
        ("cpu_user_ns", U64, "ns", "CPU time in user mode since the processes started, guests included"),
        ("cpu_system_ns", U64, "ns", "CPU time in the kernel since the processes started"),
        (
            "cpu_guest_ns",
            U64,
            "ns",
            "part of the user time in which it ran guests (a vCPU thread), in ticks of 10 ms",
        ),
        ("cpu_percent", F64, "%", "CPU time since the row before, by time passed; 100 is one core"),
        ("rss_bytes", U64, "B", "resident memory now, shared pages counted in each"),
        ("minor_faults", U64, "1", "page faults without a disk since the processes started"),
        ("major_faults", U64, "1", "page faults that waited for a disk since the processes started"),
        ("threads", U64, "1", "threads now"),
        ("processes", U64, "1", "processes now"),
        ("voluntary_switches", U64, "1", "context switches to wait, of all threads seen"),
        ("involuntary_switches", U64, "1", "context switches forced by the scheduler, of all threads seen"),
        (
            "waited_ns",
            U64,
            "ns",
            "time that its threads were ready and waited for a CPU, of all threads seen",
        ),
        ("read_bytes", U64, "B", "bytes that reading calls gave, from files, sockets and pipes alike"),
        ("written_bytes", U64, "B", "bytes that writing calls took, to files, sockets and pipes alike"),
        ("disk_read_bytes", U64, "B", "bytes fetched from disks"),
        ("disk_written_bytes", U64, "B", "bytes that are to go to disks"),
    ] {
        table = table.column(column, column_type, unit, description);
    }
    table
}

impl Sampler for Processes {
    fn info(&self) -> SamplerInfo {
        let unavailable = match (&self.which.means, self.attached.is_empty(), self.looked) {
            (Means::Pid(pid), true, _) => format!("process {pid} has ended"),
            (_, true, Some(_)) => "no such process runs now; it is attached when it starts".into(),
            _ => String::new(),
        };
        SamplerInfo {
            name: KIND.name.into(),
            description: "chosen processes, by PID, name or pattern, with or without their descendants"
                .into(),
            source: "/proc/PID/{stat,io,task/*/status,task/*/schedstat}, process clocks".into(),
            default: KIND.default,
            tables: vec![self.table.clone()],
            unavailable,
        }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let now = MonotonicClock.now();
        let mut looking = self.looked.is_none_or(|then| (now - then).to_duration() >= LOOK_EVERY);
        looking |= self.read(looking, rows);
        if looking {
            let known = self.attached.len();
            self.look(rows);
            self.looked = Some(now);
            // New ones have no thread's counts yet.
            for process in &mut self.attached[known..] {
                process.read(true, &mut self.buffers);
            }
        }
        if self.attached.is_empty() {
            self.last = None;
        } else {
            self.row(rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};

    fn stat(pid: u32, user: u64, start: u64) -> String {
        format!("{pid} (work) S 1 1 1 0 -1 0 1 2 3 4 {user} 0 0 0 20 0 1 0 {start} 5000 10 0 0\n")
    }

    /// Looks for processes with the next row, whenever the last look was.
    fn looked(processes: &mut Processes) -> Taken {
        if processes.looked.is_some() {
            processes.looked = Some(Nanos(0));
        }
        Taken::of(processes)
    }

    #[test]
    fn a_process_that_is_started_again_goes_on_in_the_sums() {
        let (dir, root) = fixture(&[("proc/7/comm", "work\n"), ("proc/7/stat", &stat(7, 100, 5))]);
        let mut processes = Processes::new(&root, "name:work").unwrap();
        let taken = looked(&mut processes);
        assert_eq!(taken.kinds(), ["process_attached"]);
        assert_eq!(taken.count("process-work", "cpu_user_ns"), 1_000_000_000);
        assert_eq!(taken.count("process-work", "rss_bytes"), 10 * rustix::param::page_size() as u64);
        assert_eq!(taken.facts[0].0, "process-work.io", "there is no file io");
        std::fs::remove_dir_all(dir.path().join("proc/7")).unwrap();
        let taken = looked(&mut processes);
        assert_eq!((taken.kinds(), taken.tables()), (vec!["process_ended"], vec![]));
        write(dir.path(), "proc/9/comm", "work\n");
        write(dir.path(), "proc/9/stat", &stat(9, 5, 80));
        let taken = looked(&mut processes);
        assert_eq!(taken.kinds(), ["process_started"]);
        assert_eq!(taken.count("process-work", "cpu_user_ns"), 1_050_000_000);
        assert_eq!(taken.cell("process-work", "cpu_percent"), Value::F64(0.0), "no row before");
    }

    #[test]
    fn descendants_count_with_tree_and_a_zombie_has_ended() {
        let files = [
            ("proc/7/comm", "work\n"),
            ("proc/7/stat", &stat(7, 100, 5)),
            ("proc/7/task/7/children", "8 \n"),
            ("proc/8/comm", "other\n"),
            ("proc/8/stat", &stat(8, 10, 6)),
            ("proc/8/io", "rchar: 5\nwchar: 6\nread_bytes: 7\nwrite_bytes: 8\n"),
            ("proc/7/io", "rchar: 1\nwchar: 1\nread_bytes: 1\nwrite_bytes: 1\n"),
        ];
        let (dir, root) = fixture(&files);
        let taken = looked(&mut Processes::new(&root, "name:work").unwrap());
        assert_eq!(taken.count("process-work", "processes"), 1);
        let mut tree = Processes::new(&root, "tree:name:work").unwrap();
        let taken = looked(&mut tree);
        assert_eq!(taken.count("process-tree-work", "processes"), 2);
        assert_eq!(taken.count("process-tree-work", "written_bytes"), 7);
        write(dir.path(), "proc/8/stat", &stat(8, 12, 6).replace(" S ", " Z "));
        let taken = looked(&mut tree);
        assert_eq!(taken.count("process-tree-work", "processes"), 1);
        assert_eq!(taken.count("process-tree-work", "cpu_user_ns"), 1_120_000_000);
        assert!(taken.marks.is_empty(), "descendants come and go unsaid: {:?}", taken.marks);
    }

    #[test]
    fn a_pid_that_is_not_there_is_refused() {
        let (_dir, root) = fixture(&[("proc/7/comm", "work\n"), ("proc/7/stat", &stat(7, 100, 5))]);
        assert!(Processes::new(&root, "pid:7").is_ok());
        let error = Processes::new(&root, "pid:8").err().unwrap().to_string();
        assert!(error.contains("no process 8"), "{error}");
    }
}
