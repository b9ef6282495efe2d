//! Bytes, packets and losses of each network interface, from `/proc/net/dev`.
//!
//! An interface's table appears with its first packet. The interfaces are those of the agent's own network namespace.

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock};

use super::listed::Listed;
use super::source::{Source, once};
use super::text::{lines, numbers, table_name};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind = Kind {
    name: "network",
    default: true,
    target: Target::None,
    open: |root, _| Ok(Box::new(Interfaces::new(root))),
};

const DESCRIPTION: &str = "bytes, packets and losses of each network interface";
/// Most interfaces that are followed; a host of many containers has two for each.
const MAX_INTERFACES: usize = 256;
/// Numbers on a line: eight received, eight sent.
const FIELDS: usize = 16;
/// The columns: the field of `/proc/net/dev`, name, unit, description.
const COLUMNS: [(usize, &str, &str, &str); 12] = [
    (0, "received_bytes", "B", "bytes received since it came up"),
    (1, "received_packets", "1", "packets received since it came up"),
    (2, "receive_errors", "1", "packets received broken since it came up"),
    (3, "receive_dropped", "1", "packets received whole and dropped since it came up"),
    (4, "receive_overruns", "1", "packets lost since it came up because the device's queue was full"),
    (7, "multicast_packets", "1", "multicast packets received since it came up"),
    (8, "sent_bytes", "B", "bytes sent since it came up"),
    (9, "sent_packets", "1", "packets sent since it came up"),
    (10, "send_errors", "1", "packets that could not be sent since it came up"),
    (11, "send_dropped", "1", "packets dropped instead of sent since it came up"),
    (13, "collisions", "1", "collisions since it came up"),
    (14, "carrier_errors", "1", "packets not sent for lack of a carrier since it came up"),
];

/// The name and the numbers of a line.
fn parse_line(line: &[u8]) -> Option<(&[u8], [u64; FIELDS])> {
    let colon = line.iter().rposition(|byte| *byte == b':')?;
    let name = line[..colon].trim_ascii();
    let (fields, count) = numbers(&line[colon + 1..]);
    (count == FIELDS && !name.is_empty()).then_some((name, fields))
}

struct Interface {
    table: Table,
    /// It is there and has carried a packet.
    used: bool,
    /// Its facts were told, and it is there.
    told: bool,
}

struct Interfaces {
    root: Root,
    source: Source,
    list: Listed<Interface>,
}

impl Interfaces {
    fn new(root: &Root) -> Self {
        let source = Source::new(root.proc("net/dev"));
        let mut new = Self { root: root.clone(), source, list: Listed::new(MAX_INTERFACES) };
        if let Ok(text) = new.source.text() {
            for (name, fields) in lines(text).filter_map(parse_line) {
                if let Some(interface) = new.list.seen(name, interface) {
                    interface.used = fields[1] > 0 || fields[9] > 0;
                }
            }
        }
        new
    }
}

fn interface(name: &[u8]) -> Interface {
    let name = String::from_utf8_lossy(name);
    let description = format!("interface {name}: bytes, packets and losses");
    let mut table = Table::new(table_name("net", &name), description);
    for (_, column, unit, description) in COLUMNS {
        table = table.column(column, ColumnType::U64, unit, description);
    }
    Interface { table, used: false, told: false }
}

/// What an interface is, told when it comes.
fn tell(root: &Root, name: &str, rows: &mut dyn Rows) {
    let folder = root.sys("class/net").join(name);
    if let Some(mtu) = once(&folder.join("mtu")) {
        rows.fact(&format!("net.{name}.mtu_bytes"), &mtu);
    }
    // Virtual interfaces say -1, or refuse to answer.
    if let Some(speed) = once(&folder.join("speed")).and_then(|speed| speed.parse::<u64>().ok()) {
        rows.fact(&format!("net.{name}.speed_mbit_s"), &speed.to_string());
    }
}

impl Sampler for Interfaces {
    fn info(&self) -> SamplerInfo {
        let used = self.list.items().filter(|interface| interface.used);
        let tables = used.map(|interface| interface.table.clone()).collect();
        super::info(&KIND, DESCRIPTION, self.source.path(), tables)
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        if self.source.parse(rows, |text| text.ends_with(b"\n").then_some(())).is_none() {
            return;
        }
        let at = MonotonicClock.now();
        self.list.begin();
        for (name, fields) in lines(self.source.last()).filter_map(parse_line) {
            if fields[1] == 0 && fields[9] == 0 {
                continue;
            }
            let Some(interface) = self.list.seen(name, interface) else { continue };
            interface.used = true;
            if !std::mem::replace(&mut interface.told, true) {
                tell(&self.root, &String::from_utf8_lossy(name), rows);
            }
            rows.row(&interface.table, at, &COLUMNS.map(|(field, ..)| Value::U64(fields[field])));
        }
        self.list.end(|name, interface| {
            interface.used = false;
            if std::mem::take(&mut interface.told) {
                rows.mark("interface_gone", &String::from_utf8_lossy(name));
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture, write};
    use proptest::prelude::*;

    const HEAD: &str = "Inter-|   Receive                            |  Transmit\n \
        face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls\n";

    #[test]
    fn lines_are_read_whole_or_not_at_all() {
        let (name, fields) =
            parse_line(b"  eth0: 329818493   10290 1 2 3 4 5 6   464158    5301 7 8 9 10 11 12").unwrap();
        assert_eq!((name, fields[0], fields[9], fields[15]), (&b"eth0"[..], 329_818_493, 5301, 12));
        let close = parse_line(b"eth0:1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16").unwrap();
        assert_eq!(close.1[0], 1, "no blank behind the colon, as kernels of long ago wrote");
        for line in ["", "eth0", "eth0: 1 2 3", ": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16", " face |bytes"] {
            assert_eq!(parse_line(line.as_bytes()), None, "{line}");
        }
    }

    #[test]
    fn an_interface_has_a_table_from_its_first_packet_until_it_goes() {
        let lo = "    lo:    3193      29 0 0 0 0 0 0 3193 29 0 0 0 0 0 0\n";
        let (dir, root) = fixture(&[
            ("proc/net/dev", &format!("{HEAD}{lo}  ifb0: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")),
            ("sys/class/net/lo/mtu", "65536\n"),
            ("sys/class/net/lo/speed", "-1\n"),
        ]);
        let mut network = Interfaces::new(&root);
        assert_eq!(network.info().tables.len(), 1);
        let taken = Taken::of(&mut network);
        assert_eq!(taken.tables(), ["net-lo"]);
        assert_eq!(taken.count("net-lo", "sent_packets"), 29);
        assert_eq!(taken.facts, [("net.lo.mtu_bytes".to_owned(), "65536".to_owned())]);
        write(dir.path(), "proc/net/dev", &format!("{HEAD}  ifb0: 1 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"));
        let taken = Taken::of(&mut network);
        assert_eq!((taken.tables(), taken.kinds()), (vec!["net-ifb0"], vec!["interface_gone"]));
        write(dir.path(), "proc/net/dev", "");
        assert_eq!(Taken::of(&mut network).kinds(), ["source_gone"]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(line in proptest::collection::vec(any::<u8>(), 0..200)) {
            parse_line(&line);
        }
    }
}
