//! Requests, bytes and times of each whole disk, from `/proc/diskstats` (Documentation/admin-guide/iostats.rst).
//!
//! Once a second all block devices are read; between, on a machine of few disks, the files of those alone, which cost less
//! (`/sys/block/NAME/stat`, the same numbers).
//!
//! A disk's table appears with its first request, so that empty loop devices stay out. Disks on disks (`dm-0`, `md0`)
//! have tables too: do not add them to those below them. The kernel counts times in milliseconds, and in 32 bits.

use std::path::Path;

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

use super::listed::Listed;
use super::source::{Source, once};
use super::text::{lines, numbers, table_name, words};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "disk",
    default: true,
    target: Target::None,
    open: |root, _| Ok(Box::new(Disks::new(root))),
};

const DESCRIPTION: &str = "requests, bytes and times of each whole disk";
/// Most block devices that are followed, partitions included.
const MAX_DEVICES: usize = 1024;
/// The kernel's sectors are of this size, whatever the disk's are.
const SECTOR: u64 = 512;
const MS: u64 = 1_000_000;
/// How often new devices are looked for, and how many disks are few: each costs a file.
const LOOK_EVERY: Nanos = Nanos::from_millis(950);
const FEW: usize = 2;

/// One line of `/proc/diskstats`, in the kernel's units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counters {
    reads: u64,
    read_sectors: u64,
    read_ms: u64,
    writes: u64,
    written_sectors: u64,
    write_ms: u64,
    in_flight: u64,
    busy_ms: u64,
    queued_ms: u64,
    discards: u64,
    discarded_sectors: u64,
    flushes: u64,
    flush_ms: u64,
}

/// The name and counters of a line; fields that kernels before 5.5 lack are 0.
fn parse_line(line: &[u8]) -> Option<(&[u8], Counters)> {
    let name = words(line).nth(2)?;
    // The name is part of the line, and what follows it are the numbers.
    let start = name.as_ptr() as usize - line.as_ptr() as usize + name.len();
    Some((name, Counters::parse(&line[start..])?))
}

impl Counters {
    /// The numbers behind the name, or those of a disk's own file.
    fn parse(fields: &[u8]) -> Option<Self> {
        let (n, count) = numbers::<17>(fields);
        let counters = Counters {
            reads: n[0],
            read_sectors: n[2],
            read_ms: n[3],
            writes: n[4],
            written_sectors: n[6],
            write_ms: n[7],
            in_flight: n[8],
            busy_ms: n[9],
            queued_ms: n[10],
            discards: n[11],
            discarded_sectors: n[13],
            flushes: n[15],
            flush_ms: n[16],
        };
        (count >= 11).then_some(counters)
    }
}

/// A whole disk; partitions are listed as `None`.
struct Disk {
    table: Table,
    /// Its own file.
    stat: Source,
    told: bool,
    last: Option<(Nanos, u64)>,
}

struct Disks {
    root: Root,
    source: Source,
    list: Listed<Option<Disk>>,
    looked: Option<Nanos>,
}

impl Disks {
    fn new(root: &Root) -> Self {
        let mut new = Self {
            root: root.clone(),
            source: Source::new(root.proc("diskstats")),
            list: Listed::new(MAX_DEVICES),
            looked: None,
        };
        if let Ok(text) = new.source.text() {
            for (name, counters) in lines(text).filter_map(parse_line) {
                let known = new.list.seen(name, |name| disk(root, name));
                if let Some(Some(disk)) = known {
                    disk.told = counters.reads > 0 || counters.writes > 0;
                }
            }
        }
        new
    }
}

impl Disks {
    /// Rows of the known disks out of their own files; false, and no rows, where these are many or one of them cannot be read.
    fn few(&mut self, rows: &mut dyn Rows) -> bool {
        let mut read = [const { None }; FEW];
        let mut slots = read.iter_mut();
        for disk in self.list.items_mut().flatten().filter(|disk| disk.last.is_some()) {
            let now = disk.stat.text().ok().and_then(Counters::parse);
            let (Some(slot), Some(now)) = (slots.next(), now) else { return false };
            *slot = Some((MonotonicClock.now(), now, disk));
        }
        for (at, now, disk) in read.into_iter().flatten() {
            disk.row(at, &now, rows);
        }
        true
    }
}

/// Whole disks have a folder in `/sys/block`.
fn disk(root: &Root, name: &[u8]) -> Option<Disk> {
    let name = std::str::from_utf8(name).ok()?;
    let folder = root.sys("block").join(name.replace('/', "!"));
    let stat = Source::whole(folder.join("stat"));
    folder.is_dir().then(|| Disk { table: table(name), stat, told: false, last: None })
}

fn table(name: &str) -> Table {
    let mut table = Table::new(table_name("disk", name), format!("disk {name}: requests, bytes and times"));
    for (column, unit, description) in [
        ("reads", "1", "read requests done since boot"),
        ("read_bytes", "B", "bytes read since boot"),
        ("read_ns", "ns", "time of all read requests together since boot"),
        ("writes", "1", "write requests done since boot"),
        ("written_bytes", "B", "bytes written since boot"),
        ("write_ns", "ns", "time of all write requests together since boot"),
        ("discards", "1", "discard requests done since boot"),
        ("discarded_bytes", "B", "bytes discarded since boot"),
        ("flushes", "1", "flush requests done since boot"),
        ("flush_ns", "ns", "time of all flush requests together since boot"),
        ("in_flight", "1", "requests under way now"),
        ("busy_ns", "ns", "time since boot with requests under way"),
        ("queued_ns", "ns", "time since boot, each moment counted as often as requests were under way"),
    ] {
        table = table.column(column, ColumnType::U64, unit, description);
    }
    let busy = "share of the time since the row before with requests under way; 0 in the first";
    table.column("busy_percent", ColumnType::F64, "%", busy)
}

impl Disk {
    fn row(&mut self, at: Nanos, now: &Counters, rows: &mut dyn Rows) {
        let busy = self.last.map_or(0.0, |(then, busy_ms)| {
            // The kernel's milliseconds wrap at 32 bits.
            let busy_ms = now.busy_ms.wrapping_sub(busy_ms) as u32;
            let passed_ns = (at.0 - then.0).max(1) as f64;
            (100.0 * f64::from(busy_ms) * MS as f64 / passed_ns).clamp(0.0, 100.0)
        });
        self.last = Some((at, now.busy_ms));
        let times = |number: u64, unit: u64| Value::U64(number.saturating_mul(unit));
        rows.row(
            &self.table,
            at,
            &[
                Value::U64(now.reads),
                times(now.read_sectors, SECTOR),
                times(now.read_ms, MS),
                Value::U64(now.writes),
                times(now.written_sectors, SECTOR),
                times(now.write_ms, MS),
                Value::U64(now.discards),
                times(now.discarded_sectors, SECTOR),
                Value::U64(now.flushes),
                times(now.flush_ms, MS),
                Value::U64(now.in_flight),
                times(now.busy_ms, MS),
                times(now.queued_ms, MS),
                Value::F64(busy),
            ],
        );
    }
}

/// What a disk is, told when it comes.
fn tell(root: &Root, name: &str, rows: &mut dyn Rows) {
    let folder = root.sys("block").join(name.replace('/', "!"));
    let read = |file: &str| once(&folder.join(Path::new(file)));
    if let Some(model) = read("device/model") {
        rows.fact(&format!("disk.{name}.model"), &model);
    }
    if let Some(sectors) = read("size").and_then(|size| size.parse::<u64>().ok()) {
        rows.fact(&format!("disk.{name}.bytes"), &sectors.saturating_mul(SECTOR).to_string());
    }
    if let Some(rotates) = read("queue/rotational") {
        rows.fact(&format!("disk.{name}.rotates"), if rotates == "0" { "no" } else { "yes" });
    }
}

impl Sampler for Disks {
    fn info(&self) -> SamplerInfo {
        let disks = self.list.items().flatten().filter(|disk| disk.told);
        let tables = disks.map(|disk| disk.table.clone()).collect();
        super::info(&KIND, DESCRIPTION, self.source.path(), tables)
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let now = MonotonicClock.now();
        if self.looked.is_some_and(|looked| now.0 - looked.0 < LOOK_EVERY.0) && self.few(rows) {
            return;
        }
        self.looked = Some(now);
        if self.source.parse(rows, |text| text.ends_with(b"\n").then_some(())).is_none() {
            return;
        }
        let at = MonotonicClock.now();
        self.list.begin();
        for (name, now) in lines(self.source.last()).filter_map(parse_line) {
            let Some(Some(disk)) = self.list.seen(name, |name| disk(&self.root, name)) else { continue };
            if now.reads == 0 && now.writes == 0 {
                continue;
            }
            if disk.last.is_none() {
                tell(&self.root, &String::from_utf8_lossy(name), rows);
                disk.told = true;
            }
            disk.row(at, &now, rows);
        }
        self.list.end(|name, disk| {
            // If it comes back it is told anew, and its first row has no row before.
            if let Some(disk) = disk
                && disk.last.take().is_some()
            {
                rows.mark("disk_gone", &String::from_utf8_lossy(name));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};
    use proptest::prelude::*;

    const LOOP: &str = "   7       0 loop0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    const VDA: &str = " 254       0 vda 167437 12527 12284050 202231 45342 97414 38033120 287863 2 46628 507182 \
        37560 58 8952624 15066 6691 2022\n";
    const PART: &str = " 254       1 vda1 1 2 3 4 5 6 7 8 9 10 11\n";

    #[test]
    fn the_fields_are_those_that_the_kernel_documents() {
        let (name, now) = parse_line(VDA.trim_end().as_bytes()).unwrap();
        assert_eq!(name, b"vda");
        assert_eq!((now.reads, now.read_sectors, now.read_ms), (167_437, 12_284_050, 202_231));
        assert_eq!((now.writes, now.written_sectors, now.write_ms), (45_342, 38_033_120, 287_863));
        assert_eq!((now.in_flight, now.busy_ms, now.queued_ms), (2, 46_628, 507_182));
        assert_eq!((now.discards, now.discarded_sectors), (37_560, 8_952_624));
        assert_eq!((now.flushes, now.flush_ms), (6691, 2022));
        assert_eq!(parse_line(PART.trim_end().as_bytes()).unwrap().1.flushes, 0, "a kernel of long ago");
        for line in ["", "7 0", "7 0 sda", "7 0 sda 1 2 3", "7 0 sda 1 2 3 4 x 6 7 8 9 10 11 12"] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn whole_disks_that_were_used_have_tables_and_facts() {
        let text = format!("{LOOP}{VDA}{PART}");
        let (dir, root) = fixture(&[
            ("proc/diskstats", &text),
            ("sys/block/loop0/size", "0\n"),
            ("sys/block/vda/size", "2048\n"),
            ("sys/block/vda/device/model", "Fast Disk  \n"),
        ]);
        let mut disks = Disks::new(&root);
        assert_eq!(disks.info().tables.len(), 1);
        let taken = Taken::of(&mut disks);
        assert_eq!(taken.tables(), ["disk-vda"]);
        assert_eq!(taken.count("disk-vda", "read_bytes"), 12_284_050 * 512);
        assert_eq!(taken.count("disk-vda", "busy_ns"), 46_628 * MS);
        let fact = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(taken.facts, [fact("disk.vda.model", "Fast Disk"), fact("disk.vda.bytes", "1048576")]);
        // Used, unplugged, plugged in again.
        let used = LOOP.replace("loop0 0 0 0 0", "loop0 1 0 8 1");
        write(dir.path(), "proc/diskstats", &used);
        let taken = Taken::of(&mut disks);
        assert_eq!((taken.tables(), taken.kinds()), (vec!["disk-loop0"], vec!["disk_gone"]));
        write(dir.path(), "proc/diskstats", &text);
        let taken = Taken::of(&mut disks);
        assert_eq!(taken.tables(), ["disk-vda"]);
        assert_eq!(taken.cell("disk-vda", "busy_percent"), Value::F64(0.0));
        assert_eq!(taken.facts.len(), 2, "told again");
    }

    #[test]
    fn between_two_looks_a_disks_own_file_is_enough_until_it_goes() {
        let numbers = VDA.split_once("vda").unwrap().1;
        let (dir, root) = fixture(&[("proc/diskstats", VDA), ("sys/block/vda/stat", numbers)]);
        let mut disks = Disks::new(&root);
        Taken::of(&mut disks);
        write(dir.path(), "proc/diskstats", "not read");
        write(dir.path(), "sys/block/vda/stat", &numbers.replace("167437", "167438"));
        let taken = Taken::of(&mut disks);
        assert_eq!((taken.count("disk-vda", "reads"), taken.kinds()), (167_438, vec![]));
        disks.looked = None;
        assert_eq!(Taken::of(&mut disks).kinds(), ["source_gone"], "all devices are looked at again");
        write(dir.path(), "proc/diskstats", LOOP);
        std::fs::remove_file(dir.path().join("sys/block/vda/stat")).unwrap();
        disks.list.items_mut().flatten().for_each(|disk| disk.stat = Source::new("/nowhere".into()));
        assert_eq!(Taken::of(&mut disks).kinds(), ["source_back", "disk_gone"], "at once");
    }

    #[test]
    fn the_share_of_busy_time_is_right_over_the_kernels_wrap() {
        let mut disk = Disk { table: table("vda"), stat: Source::new("".into()), told: true, last: None };
        let mut taken = Taken::default();
        for (at_ms, busy_ms) in [(0, u64::from(u32::MAX) - 24), (100, 25), (200, 125), (300, 500)] {
            let now = Counters { busy_ms, ..Counters::default() };
            disk.row(Nanos::from_millis(at_ms), &now, &mut taken);
        }
        let busy: Vec<_> = taken.rows.iter().map(|(_, _, values)| values[13]).collect();
        assert_eq!(busy, [0.0, 50.0, 100.0, 100.0].map(Value::F64));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_line(&line);
        }
    }
}
