//! A cgroup: CPU, memory, disks, pressure and processes, from cgroup v2 (Documentation/admin-guide/cgroup-v2.rst), and
//! from the controllers of v1 where v2 does not have them, as on machines with both.
//!
//! The columns are those that can be read when the cgroup is first there. When it goes and comes back (a service that is
//! started again) counters go on from what they were.

use std::path::PathBuf;

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use super::source::Source;
use super::text::{first, keyed, lines, number, table_name, words};
use super::{Kind, Root, SamplerError, Target, pressure};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "cgroup",
    default: false,
    target: Target::Required("/system.slice/docker.service"),
    open: |root, target| Ok(Box::new(Cgroup::new(root, target.unwrap_or_default())?)),
};

/// How a number is found in a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Find {
    /// The whole file.
    Whole,
    /// `key number`.
    Key(&'static str),
    /// `DEVICE key=number key=number…`, summed over the devices.
    Devices(&'static str),
    /// `DEVICE Key number`, summed over the devices (v1).
    Device(&'static str),
    /// The total of the line `some` (0) or `full` (1) of a pressure file.
    Stalled(usize),
}

impl Find {
    fn parse(self, text: &[u8]) -> Option<u64> {
        match self {
            Self::Whole => first(text),
            Self::Key(key) => {
                let mut found = [None];
                keyed(text, [key].into_iter(), &mut found);
                found[0]
            }
            Self::Devices(key) => Some(sum(lines(text)
                .flat_map(words)
                .filter_map(|word| number(word.strip_prefix(key.as_bytes())?.strip_prefix(b"=")?)))),
            Self::Device(key) => Some(sum(lines(text).filter_map(|line| {
                let mut words = words(line).skip(1);
                (words.next()? == key.as_bytes()).then(|| words.next().and_then(number))?
            }))),
            Self::Stalled(line) => pressure::parse(text)[line].map(|stall| stall.total_us),
        }
    }
}

fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}

/// Where a column is found: the controller (v1; empty for v2), the file, how, and the factor to the column's unit.
type Place = (&'static str, &'static str, Find, u64);

/// A column: its name, unit, description, whether it counts up, and the places, best first.
struct Field(&'static str, &'static str, &'static str, bool, &'static [Place]);

const V2: &str = "";
const FIELDS: &[Field] = &[
    Field(
        "cpu_ns",
        "ns",
        "CPU time since the cgroup was made",
        true,
        &[(V2, "cpu.stat", Find::Key("usage_usec"), 1000), ("cpuacct", "cpuacct.usage", Find::Whole, 1)],
    ),
    Field(
        "cpu_user_ns",
        "ns",
        "CPU time in user mode since the cgroup was made",
        true,
        &[(V2, "cpu.stat", Find::Key("user_usec"), 1000), ("cpuacct", "cpuacct.usage_user", Find::Whole, 1)],
    ),
    Field(
        "cpu_system_ns",
        "ns",
        "CPU time in the kernel since the cgroup was made",
        true,
        &[(V2, "cpu.stat", Find::Key("system_usec"), 1000), ("cpuacct", "cpuacct.usage_sys", Find::Whole, 1)],
    ),
    Field(
        "cpu_throttled_ns",
        "ns",
        "time in which it was kept from running by its CPU limit, since the cgroup was made",
        true,
        &[
            (V2, "cpu.stat", Find::Key("throttled_usec"), 1000),
            ("cpu", "cpu.stat", Find::Key("throttled_time"), 1),
        ],
    ),
    Field(
        "memory_bytes",
        "B",
        "memory charged to it now, file cache included",
        false,
        &[(V2, "memory.current", Find::Whole, 1), ("memory", "memory.usage_in_bytes", Find::Whole, 1)],
    ),
    Field(
        "memory_limit_hits",
        "1",
        "times that its memory reached the limit, since the cgroup was made",
        true,
        &[(V2, "memory.events", Find::Key("max"), 1), ("memory", "memory.failcnt", Find::Whole, 1)],
    ),
    Field(
        "oom_kills",
        "1",
        "processes of it killed for lack of memory since the cgroup was made",
        true,
        &[
            (V2, "memory.events", Find::Key("oom_kill"), 1),
            ("memory", "memory.oom_control", Find::Key("oom_kill"), 1),
        ],
    ),
    Field(
        "disk_read_bytes",
        "B",
        "bytes read from disks since the cgroup was made",
        true,
        &[
            (V2, "io.stat", Find::Devices("rbytes"), 1),
            ("blkio", "blkio.throttle.io_service_bytes_recursive", Find::Device("Read"), 1),
        ],
    ),
    Field(
        "disk_written_bytes",
        "B",
        "bytes written to disks since the cgroup was made",
        true,
        &[
            (V2, "io.stat", Find::Devices("wbytes"), 1),
            ("blkio", "blkio.throttle.io_service_bytes_recursive", Find::Device("Write"), 1),
        ],
    ),
    Field(
        "cpu_some_us",
        "us",
        "time in which some task of it waited for a CPU, since the cgroup was made",
        true,
        &[(V2, "cpu.pressure", Find::Stalled(0), 1)],
    ),
    Field(
        "memory_some_us",
        "us",
        "time in which some task of it waited for memory, since the cgroup was made",
        true,
        &[(V2, "memory.pressure", Find::Stalled(0), 1)],
    ),
    Field(
        "io_some_us",
        "us",
        "time in which some task of it waited for a disk, since the cgroup was made",
        true,
        &[(V2, "io.pressure", Find::Stalled(0), 1)],
    ),
    Field(
        "pids",
        "1",
        "processes and threads in it now",
        false,
        &[(V2, "pids.current", Find::Whole, 1), ("pids", "pids.current", Find::Whole, 1)],
    ),
];

/// A file of the cgroup, and the columns found in it: how, the factor, and which of the values.
struct Part {
    source: Source,
    finds: Vec<(Find, u64, usize)>,
}

struct Cgroup {
    root: Root,
    /// Without a slash at the beginning.
    path: String,
    text: String,
    table: Table,
    /// The fields that are columns; empty until the cgroup was first there.
    present: Vec<&'static Field>,
    /// Empty while it is not there.
    parts: Vec<Part>,
    /// What was counted before the cgroup was made anew, and what is counted now.
    values: Vec<(u64, u64)>,
    row: Vec<Value>,
    looked: bool,
}

impl Cgroup {
    fn new(root: &Root, target: &str) -> Result<Self, SamplerError> {
        let path = target.strip_prefix("/sys/fs/cgroup/").unwrap_or(target).trim_matches('/');
        if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
            let reason =
                "give the path of a cgroup below /sys/fs/cgroup, as in /system.slice/x.service".into();
            return Err(SamplerError::Target { name: KIND.name, target: target.into(), reason });
        }
        let mut new = Self {
            root: root.clone(),
            path: path.into(),
            text: target.into(),
            table: Table::new(table_name("cgroup", path), format!("cgroup {path}")),
            present: Vec::new(),
            parts: Vec::new(),
            values: Vec::new(),
            row: Vec::new(),
            looked: false,
        };
        new.attach();
        Ok(new)
    }

    /// The file of a place. Version 2 is mounted at the top, or below `unified` beside version 1.
    fn file(&self, (controller, file, ..): &Place) -> PathBuf {
        let top = self.root.sys("fs/cgroup");
        let hierarchy = match *controller {
            V2 if top.join("cgroup.controllers").exists() => top,
            V2 => top.join("unified"),
            controller => top.join(controller),
        };
        hierarchy.join(&self.path).join(file)
    }

    /// Opens the cgroup's files if it is there.
    fn attach(&mut self) {
        let first_time = self.present.is_empty();
        let fields: Vec<&'static Field> =
            if first_time { FIELDS.iter().collect() } else { self.present.clone() };
        for field in fields {
            let at = if first_time {
                self.present.len()
            } else {
                self.present.iter().position(|f| f.0 == field.0).unwrap_or_default()
            };
            let found = field.4.iter().any(|place| self.open(place, at));
            if found && first_time {
                self.present.push(field);
                self.values.push((0, 0));
                let table = std::mem::replace(&mut self.table, Table::new("", ""));
                self.table = table.column(field.0, ColumnType::U64, field.1, field.2);
            }
        }
    }

    /// Adds the file of a place to those that are read, if the column is in it.
    fn open(&mut self, place: &Place, at: usize) -> bool {
        let path = self.file(place);
        let (_, _, find, factor) = *place;
        if let Some(part) = self.parts.iter_mut().find(|part| part.source.path() == path) {
            let found = find.parse(part.source.last()).is_some();
            if found {
                part.finds.push((find, factor, at));
            }
            return found;
        }
        let mut source = Source::new(path);
        let found = source.text().is_ok_and(|text| find.parse(text).is_some());
        if found {
            self.parts.push(Part { source, finds: vec![(find, factor, at)] });
        }
        found
    }

    /// Reads all files. False if the cgroup has gone, of which any file's error is the sign.
    fn read(&mut self) -> bool {
        for Part { source, finds } in &mut self.parts {
            let Ok(text) = source.text() else { return false };
            for (find, factor, at) in finds {
                if let (Some(number), Some(value)) = (find.parse(text), self.values.get_mut(*at)) {
                    value.1 = number.saturating_mul(*factor);
                }
            }
        }
        true
    }

    /// The cgroup has gone: what it had counted is kept.
    fn detach(&mut self) {
        self.parts.clear();
        for (value, field) in self.values.iter_mut().zip(&self.present) {
            if field.3 {
                value.0 = value.0.saturating_add(value.1);
            }
            value.1 = 0;
        }
    }
}

impl Sampler for Cgroup {
    fn info(&self) -> SamplerInfo {
        let unavailable = if self.parts.is_empty() {
            format!("there is no cgroup {} now; it is attached when it is made", self.path)
        } else {
            String::new()
        };
        let v1 = self.parts.iter().any(|part| {
            FIELDS.iter().flat_map(|field| field.4).any(|p| p.0 != V2 && self.file(p) == part.source.path())
        });
        SamplerInfo {
            name: KIND.name.into(),
            description: "a cgroup: CPU, memory, disks, pressure, processes".into(),
            source: if v1 { "cgroup v2, and controllers of v1" } else { "cgroup v2" }.into(),
            default: KIND.default,
            tables: if self.present.is_empty() { Vec::new() } else { vec![self.table.clone()] },
            unavailable,
        }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let was_there = !self.parts.is_empty();
        if !was_there {
            self.attach();
        }
        if self.parts.is_empty() {
            self.looked = true;
            return;
        }
        if !was_there || !self.looked {
            rows.mark(if self.looked { "cgroup_started" } else { "cgroup_attached" }, &self.text);
            self.looked = true;
        }
        if !self.read() {
            rows.mark("cgroup_ended", &self.text);
            self.detach();
            return;
        }
        self.row.clear();
        self.row.extend(self.values.iter().map(|(before, now)| Value::U64(before.saturating_add(*now))));
        rows.row(&self.table, MonotonicClock.now(), &self.row);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};
    use proptest::prelude::*;

    #[test]
    fn each_form_of_file_gives_its_number() {
        let io = "254:0 rbytes=10 wbytes=20 rios=1\n7:0 rbytes=5 wbytes=x\n7:1\n";
        let blkio = "254:0 Read 7\n254:0 Write 8\n7:0 Read 1\nTotal 16\n";
        let stalled = "some avg10=0.00 avg60=0.00 avg300=0.00 total=9\n";
        for (find, text, expected) in [
            (Find::Whole, "42\n", Some(42)),
            (Find::Whole, "max\n", None),
            (Find::Key("user_usec"), "usage_usec 9\nuser_usec 7\n", Some(7)),
            (Find::Key("user_usec"), "usage_usec 9\n", None),
            (Find::Devices("rbytes"), io, Some(15)),
            (Find::Devices("wbytes"), io, Some(20)),
            (Find::Devices("rbytes"), "", Some(0)),
            (Find::Device("Read"), blkio, Some(8)),
            (Find::Device("Write"), blkio, Some(8)),
            (Find::Stalled(0), stalled, Some(9)),
            (Find::Stalled(1), stalled, None),
        ] {
            assert_eq!(find.parse(text.as_bytes()), expected, "{find:?} in {text}");
        }
    }

    #[test]
    fn version_2_comes_first_and_version_1_fills_what_it_lacks() {
        let (_dir, root) = fixture(&[
            ("sys/fs/cgroup/unified/a/b/cpu.stat", "usage_usec 3\nuser_usec 2\nsystem_usec 1\n"),
            ("sys/fs/cgroup/cpuacct/a/b/cpuacct.usage", "99\n"),
            ("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "4096\n"),
            ("sys/fs/cgroup/cpu/a/b/cpu.stat", "nr_periods 0\nnr_throttled 0\nthrottled_time 5\n"),
        ]);
        let mut cgroup = Cgroup::new(&root, "/a/b").unwrap();
        let taken = Taken::of(&mut cgroup);
        let table = taken.tables()[0].to_owned();
        for (column, expected) in
            [("cpu_ns", 3000), ("cpu_user_ns", 2000), ("cpu_throttled_ns", 5), ("memory_bytes", 4096)]
        {
            assert_eq!(taken.count(&table, column), expected, "{column}");
        }
        assert_eq!(taken.rows[0].0.columns.len(), 5);
        assert_eq!(cgroup.info().source, "cgroup v2, and controllers of v1");
    }

    #[test]
    fn counters_go_on_when_the_cgroup_is_made_again() {
        let stat = "sys/fs/cgroup/x/cpu.stat";
        let (dir, root) = fixture(&[("sys/fs/cgroup/cgroup.controllers", "cpu\n")]);
        let mut cgroup = Cgroup::new(&root, "/x").unwrap();
        assert!(Taken::of(&mut cgroup).rows.is_empty());
        assert!(cgroup.info().unavailable.contains("no cgroup x"));
        write(dir.path(), stat, "usage_usec 5\n");
        write(dir.path(), "sys/fs/cgroup/x/pids.current", "2\n");
        let taken = Taken::of(&mut cgroup);
        assert_eq!((taken.kinds(), taken.count("cgroup-x", "cpu_ns")), (vec!["cgroup_started"], 5000));
        // A removed cgroup's open files give an error; here that is one which is no file any more.
        cgroup.parts[0].source = Source::new(dir.path().join("gone"));
        let taken = Taken::of(&mut cgroup);
        assert_eq!((taken.kinds(), taken.rows.len()), (vec!["cgroup_ended"], 0));
        write(dir.path(), stat, "usage_usec 1\n");
        let taken = Taken::of(&mut cgroup);
        assert_eq!((taken.kinds(), taken.count("cgroup-x", "cpu_ns")), (vec!["cgroup_started"], 6000));
        assert_eq!(taken.count("cgroup-x", "pids"), 2, "not a counter");
    }

    #[test]
    fn a_path_that_leads_elsewhere_is_refused() {
        for target in ["", "/", "../etc", "/a/../b", "a//b"] {
            assert!(Cgroup::new(&Root::default(), target).is_err(), "{target}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            for place in FIELDS.iter().flat_map(|field| field.4) {
                place.2.parse(&text);
            }
        }
    }
}
