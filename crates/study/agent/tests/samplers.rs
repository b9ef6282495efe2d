//! The samplers on the kernel that is running: what is done to this machine is seen in the rows.

#![allow(clippy::unwrap_used)] // the lint knows tests by their attribute, not their helpers

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use agent::sampler::{Rows, Sampler};
use agent::samplers::{self, SamplerError};
use probe::{Table, Value};
use units::Nanos;

/// How long anything may take to be seen on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Keeps what a sampler gives.
#[derive(Default)]
struct Taken {
    rows: Vec<(Table, Vec<Value>)>,
    marks: Vec<(String, String)>,
}

impl Rows for Taken {
    fn row(&mut self, table: &Table, _: Nanos, values: &[Value]) {
        table.check().unwrap();
        let types = values.iter().map(|value| value.column_type());
        assert!(types.eq(table.columns.iter().map(|c| c.column_type)), "values of {}", table.name);
        self.rows.push((table.clone(), values.to_vec()));
    }
    fn mark(&mut self, kind: &str, text: &str) {
        self.marks.push((kind.into(), text.into()));
    }
    fn fact(&mut self, _: &str, _: &str) {}
}

impl Taken {
    fn of(sampler: &mut dyn Sampler) -> Self {
        let mut taken = Self::default();
        sampler.sample(&mut taken);
        taken
    }

    /// A counter of the row of `table`; `None` if there is no row.
    fn count(&self, table: &str, column: &str) -> Option<u64> {
        let (table, values) = self.rows.iter().find(|(t, _)| t.name == table)?;
        match values[table.columns.iter().position(|c| c.name == column)?] {
            Value::U64(count) => Some(count),
            other => panic!("{column} is {other:?}"),
        }
    }
}

/// Samples until `wanted` gives something.
fn until<T>(sampler: &mut dyn Sampler, what: &str, mut wanted: impl FnMut(&Taken) -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let taken = Taken::of(sampler);
        if let Some(found) = wanted(&taken) {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}; last: {:?}", taken.rows);
        std::thread::yield_now();
    }
}

/// A program that runs until it is dropped.
struct Running(Child);

impl Running {
    fn start(program: &Path, arguments: &[&str]) -> Self {
        Self(Command::new(program).args(arguments).stdin(Stdio::piped()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A shell under a name of its own.
fn shell(dir: &Path, name: &str) -> PathBuf {
    let copy = dir.join(name);
    std::fs::copy("/bin/sh", &copy).unwrap();
    copy
}

const BURN: &[&str] = &["-c", "while :; do :; done"];

#[test]
fn all_default_samplers_give_rows_on_this_machine() {
    for mut sampler in samplers::defaults() {
        let info = sampler.info();
        if !info.unavailable.is_empty() {
            eprintln!("skipped: {} is unavailable: {}", info.name, info.unavailable);
            continue;
        }
        let taken = Taken::of(sampler.as_mut());
        assert!(!taken.rows.is_empty(), "{} gives no rows", info.name);
        assert!(taken.marks.is_empty(), "{}: {:?}", info.name, taken.marks);
        for table in &info.tables {
            assert!(taken.rows.iter().any(|(t, _)| t == table), "{} is listed and given", table.name);
        }
    }
}

#[test]
fn a_burning_child_is_seen_in_the_process_and_in_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let mut cpu = samplers::open("cpu", None).unwrap();
    let user = |taken: &Taken| taken.count("cpu", "user_ns");
    let before = user(&Taken::of(cpu.as_mut())).unwrap();
    let child = Running::start(&shell(dir.path(), "trburn"), BURN);
    let mut process = samplers::open("process", Some(&format!("pid:{}", child.0.id()))).unwrap();
    let table = format!("process-pid-{}", child.0.id());
    until(process.as_mut(), "300 ms of CPU of the child", |taken| {
        let burnt = taken.count(&table, "cpu_user_ns")? + taken.count(&table, "cpu_system_ns")?;
        (burnt > 300_000_000).then_some(())
    });
    until(cpu.as_mut(), "200 ms of CPU of the machine", |taken| {
        (user(taken)? >= before + 200_000_000).then_some(())
    });
    let taken = Taken::of(process.as_mut());
    assert!(taken.count(&table, "rss_bytes").unwrap() > 100_000);
    assert_eq!(taken.count(&table, "threads"), Some(1));
    assert!(taken.count(&table, "minor_faults").unwrap() > 10);
    drop(child);
    until(process.as_mut(), "the end of the child", |taken| taken.rows.is_empty().then_some(()));
    assert!(process.info().unavailable.contains("ended"));
}

#[test]
fn a_process_started_again_under_its_name_is_attached_again() {
    let dir = tempfile::tempdir().unwrap();
    let program = shell(dir.path(), "trretry");
    let mut process = samplers::open("process", Some("name:trretry")).unwrap();
    assert!(Taken::of(process.as_mut()).rows.is_empty());
    assert!(process.info().unavailable.contains("attached when it starts"));
    let cpu = |taken: &Taken| {
        Some(
            taken.count("process-trretry", "cpu_user_ns")?
                + taken.count("process-trretry", "cpu_system_ns")?,
        )
    };
    let mut last = 0;
    let mut pids = Vec::new();
    for _ in 0..2 {
        let child = Running::start(&program, BURN);
        let mark = until(process.as_mut(), "the start", |taken| taken.marks.first().cloned());
        assert_eq!(mark.0, "process_started");
        assert!(mark.1.contains(&child.0.id().to_string()), "{mark:?}");
        pids.push(child.0.id());
        let now = until(process.as_mut(), "50 ms of CPU", |taken| {
            cpu(taken).filter(|now| *now > last + 50_000_000)
        });
        drop(child);
        let mark = until(process.as_mut(), "the end", |taken| taken.marks.first().cloned());
        assert_eq!(mark.0, "process_ended");
        last = now;
    }
    assert_ne!(pids[0], pids[1]);
}

#[test]
fn switches_and_bytes_of_a_talking_child_are_seen_and_its_children_with_tree() {
    let dir = tempfile::tempdir().unwrap();
    let program = shell(dir.path(), "trtalk");
    // The shell waits for its child `cat`, which reads what is written here.
    let mut child = Command::new(&program)
        .args(["-c", "cat; :"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let child = Running(child);
    let mut process = samplers::open("process", Some("tree:pattern:^[^ ]*trtalk -c cat")).unwrap();
    let table = process.info().tables[0].name.clone();
    until(process.as_mut(), "both processes", |taken| (taken.count(&table, "processes")? == 2).then_some(()));
    let before = Taken::of(process.as_mut());
    for _ in 0..100 {
        let mut echo = [0; 1000];
        stdin.write_all(&[7; 1000]).unwrap();
        stdout.read_exact(&mut echo).unwrap();
    }
    let grown = |taken: &Taken, column| Some(taken.count(&table, column)? - before.count(&table, column)?);
    // The shell waits for `cat` and `cat` for more: how often in between is up to the scheduler.
    until(process.as_mut(), "both to wait", |taken| {
        (taken.count(&table, "voluntary_switches")? >= 2).then_some(())
    });
    if before.count(&table, "read_bytes").is_none() {
        eprintln!("skipped: /proc/PID/io may not be read here");
        return;
    }
    until(process.as_mut(), "100 kB", |taken| (grown(taken, "written_bytes")? >= 100_000).then_some(()));
    drop((stdin, child));
}

#[test]
fn loopback_traffic_is_seen_by_interface_and_by_tcp() {
    let mut network = samplers::open("network", None).unwrap();
    let mut tcp = samplers::open("tcp", None).unwrap();
    let sent = |taken: &Taken| taken.count("net-lo", "sent_bytes");
    let opened = |taken: &Taken| taken.count("tcp", "opened_actively");
    // An unused loopback has no table yet.
    let bytes_before = sent(&Taken::of(network.as_mut())).unwrap_or(0);
    let opened_before = opened(&Taken::of(tcp.as_mut())).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut to = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (mut from, _) = listener.accept().unwrap();
    let mut chunk = vec![3; 100_000];
    let writer = std::thread::spawn(move || to.write_all(&vec![3; 100_000]).unwrap());
    from.read_exact(&mut chunk).unwrap();
    writer.join().unwrap();
    until(network.as_mut(), "100 kB on lo", |taken| (sent(taken)? >= bytes_before + 100_000).then_some(()));
    until(tcp.as_mut(), "a connection", |taken| (opened(taken)? > opened_before).then_some(()));
}

#[test]
fn writing_is_seen_on_some_disk() {
    let mut disk = samplers::open("disk", None).unwrap();
    let written = |taken: &Taken| -> u64 {
        taken.rows.iter().filter_map(|(table, _)| taken.count(&table.name, "written_bytes")).sum()
    };
    let before = Taken::of(disk.as_mut());
    if before.rows.is_empty() {
        eprintln!("skipped: no disk was ever used here");
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut file = std::fs::File::create(dir.path().join("data")).unwrap();
    file.write_all(&vec![5; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let filesystem = rustix::fs::statfs(dir.path()).unwrap().f_type;
    // tmpfs, overlay and network file systems need no disk of this machine.
    if !matches!(filesystem as u64, 0xEF53 | 0x5846_5342) {
        eprintln!("skipped: the file system (type {filesystem:x}) may not be on a disk");
        return;
    }
    until(disk.as_mut(), "1 MiB written", |taken| {
        (written(taken) >= written(&before) + (1 << 20)).then_some(())
    });
}

/// Makes a cgroup and gives its folder; `None` where that is not allowed.
fn make_cgroup(name: &str) -> Option<PathBuf> {
    let top = Path::new("/sys/fs/cgroup");
    ["", "unified", "cpuacct"].iter().map(|hierarchy| top.join(hierarchy).join(name)).find(|folder| {
        let in_hierarchy = folder.parent().is_some_and(|parent| parent.join("cgroup.procs").exists());
        in_hierarchy && std::fs::create_dir(folder).is_ok()
    })
}

#[test]
fn a_cgroup_is_followed_while_it_is_there() {
    let name = format!("triptych-test-{}", std::process::id());
    let Some(folder) = make_cgroup(&name) else {
        eprintln!("skipped: no cgroup may be made here");
        return;
    };
    let mut cgroup = samplers::open("cgroup", Some(&name)).unwrap();
    let table = format!("cgroup-{name}");
    let before = Taken::of(cgroup.as_mut());
    assert_eq!(before.marks[0].0, "cgroup_attached");
    let before = before.count(&table, "cpu_ns").unwrap();
    let dir = tempfile::tempdir().unwrap();
    let child = Running::start(&shell(dir.path(), "trgroup"), BURN);
    std::fs::write(folder.join("cgroup.procs"), child.0.id().to_string()).unwrap();
    until(cgroup.as_mut(), "100 ms of CPU", |taken| {
        (taken.count(&table, "cpu_ns")? > before + 100_000_000).then_some(())
    });
    drop(child);
    // The kernel lets go of an ended process a moment after its parent has heard of it.
    let deadline = Instant::now() + PATIENCE;
    while std::fs::remove_dir(&folder).is_err() {
        assert!(Instant::now() < deadline, "the cgroup stays busy");
        std::thread::yield_now();
    }
    let mark = until(cgroup.as_mut(), "the end", |taken| taken.marks.first().cloned());
    assert_eq!(mark.0, "cgroup_ended");
    assert!(Taken::of(cgroup.as_mut()).rows.is_empty());
}

#[test]
fn a_process_that_is_not_there_is_refused() {
    // Beyond the kernel's highest PID.
    let error = samplers::open("process", Some("pid:4194999")).err().unwrap();
    assert!(matches!(error, SamplerError::Target { .. }), "{error}");
}
