//! TCP and UDP as the kernel counts them, from `/proc/net/{snmp,netstat,sockstat}` (RFC 4022, RFC 4113, and
//! Documentation/networking/snmp_counter.rst). They are those of the agent's own network namespace.
//!
//! `netstat` costs more than all else that is sampled by default, for the kernel sums some 250 counters over all cores:
//! what is wanted of it has a table of its own, and a row once a second at most. So has `sockstat`, which changes slowly.

use std::time::Duration;

use probe::{ColumnType, Table, Value};
use units::{Clock, MonotonicClock, Nanos};

use super::source::Source;
use super::text::{lines, number, words};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind =
    Kind { name: "tcp", default: true, target: Target::None, open: |root, _| Ok(Box::new(Tcp::new(root))) };

const DESCRIPTION: &str =
    "TCP connections, segments, retransmissions, resets and losses; UDP losses; sockets in use";

/// A column: the line it is on, the kernel's name, the column's name, its description. The unit is 1.
type Field = (&'static str, &'static str, &'static str, &'static str);

const SNMP: &[Field] = &[
    ("Tcp:", "ActiveOpens", "opened_actively", "connections asked for since boot"),
    ("Tcp:", "PassiveOpens", "opened_passively", "connections accepted since boot"),
    ("Tcp:", "AttemptFails", "attempts_failed", "connections that did not come about since boot"),
    ("Tcp:", "EstabResets", "connections_reset", "connections broken off since boot"),
    ("Tcp:", "CurrEstab", "established", "connections now"),
    ("Tcp:", "InSegs", "segments_received", "segments received since boot, broken ones included"),
    ("Tcp:", "OutSegs", "segments_sent", "segments sent since boot, without retransmitted ones"),
    ("Tcp:", "RetransSegs", "segments_retransmitted", "segments sent again since boot"),
    ("Tcp:", "InErrs", "segments_broken", "segments received broken since boot"),
    ("Tcp:", "OutRsts", "resets_sent", "resets sent since boot"),
    ("Udp:", "InDatagrams", "udp_received", "UDP datagrams delivered since boot"),
    ("Udp:", "OutDatagrams", "udp_sent", "UDP datagrams sent since boot"),
    ("Udp:", "InErrors", "udp_errors", "UDP datagrams not delivered since boot, full buffers included"),
    ("Udp:", "RcvbufErrors", "udp_receive_buffer_full", "UDP datagrams lost to full buffers since boot"),
];
const NETSTAT: &[Field] = &[
    ("TcpExt:", "ListenOverflows", "listen_overflows", "connections refused since boot: too many waited"),
    ("TcpExt:", "TCPLostRetransmit", "retransmissions_lost", "retransmitted segments lost again since boot"),
    (
        "TcpExt:",
        "TCPFastRetrans",
        "fast_retransmissions",
        "segments sent again upon acknowledgements since boot",
    ),
    ("TcpExt:", "TCPTimeouts", "timeouts", "retransmission timers that ran out since boot"),
    ("TcpExt:", "TCPBacklogDrop", "backlog_dropped", "segments dropped since boot: the program was too slow"),
    ("TcpExt:", "TCPRcvQDrop", "receive_queue_dropped", "segments dropped since boot: the queue was full"),
    ("TcpExt:", "TCPOFOQueue", "out_of_order", "segments received out of order since boot"),
    (
        "TcpExt:",
        "TCPSynRetrans",
        "opening_retransmissions",
        "first segments of connections sent again since boot",
    ),
];
const SOCKSTAT: &[Field] = &[
    ("sockets:", "used", "sockets", "sockets of all kinds in use now"),
    ("TCP:", "inuse", "tcp_sockets", "TCP sockets in use now"),
    ("TCP:", "orphan", "tcp_orphans", "TCP sockets now that no program holds any more"),
    ("TCP:", "tw", "tcp_time_wait", "TCP connections now that wait out their end"),
    ("TCP:", "mem", "tcp_memory_pages", "pages of memory in TCP's buffers now"),
    ("UDP:", "inuse", "udp_sockets", "UDP sockets in use now"),
];

/// How names and numbers stand in a file.
#[derive(Clone, Copy, Debug)]
enum Form {
    /// A line of names, then a line of numbers, both behind the same first word.
    TwoLines,
    /// Names and numbers in turn, behind the first word.
    InTurn,
}

impl Form {
    /// Puts the numbers of `fields` into `found`. True if any was there.
    fn parse(self, text: &[u8], fields: &[Field], found: &mut [Option<u64>]) -> bool {
        found.fill(None);
        let mut all = lines(text);
        while let Some(line) = all.next() {
            let mut names = words(line);
            let Some(first) = names.next() else { continue };
            if !fields.iter().any(|field| field.0.as_bytes() == first) {
                continue;
            }
            let mut put = |name: &[u8], value: &[u8]| {
                let wanted = |field: &Field| field.1.as_bytes() == name && field.0.as_bytes() == first;
                if let Some(slot) = fields.iter().position(wanted)
                    && let Some(slot) = found.get_mut(slot)
                {
                    *slot = number(value);
                }
            };
            match self {
                Self::TwoLines => {
                    let mut numbers = words(all.next().unwrap_or_default());
                    if numbers.next() == Some(first) {
                        names.zip(numbers).for_each(|(name, value)| put(name, value));
                    }
                }
                Self::InTurn => {
                    while let (Some(name), Some(value)) = (names.next(), names.next()) {
                        put(name, value);
                    }
                }
            }
        }
        found.iter().any(Option::is_some)
    }
}

/// One file with the fields of it that this kernel has.
struct Part {
    source: Source,
    form: Form,
    fields: Vec<Field>,
    found: Vec<Option<u64>>,
    last: Vec<Value>,
}

/// What one table is made of.
type Parts = &'static [(&'static str, Form, &'static [Field])];
/// The tables: name, description, files below `/proc`, and the shortest time between two rows.
const GROUPS: [(&str, &str, Parts, Duration); 2] = [
    (
        "tcp",
        "TCP connections, segments, retransmissions and resets; UDP losses",
        &[("net/snmp", Form::TwoLines, SNMP)],
        Duration::ZERO,
    ),
    (
        "tcp-extended",
        "what TCP lost, and why it sent again; sockets in use; once a second",
        &[("net/netstat", Form::TwoLines, NETSTAT), ("net/sockstat", Form::InTurn, SOCKSTAT)],
        Duration::from_secs(1),
    ),
];

/// One table and the files of it that this kernel has.
struct Group {
    table: Table,
    parts: Vec<Part>,
    every: Duration,
    read: Option<Nanos>,
}

impl Group {
    /// Finds out what this kernel tells.
    fn open(&mut self, root: &Root, parts: Parts) {
        for (file, form, fields) in parts {
            let mut source = Source::whole(root.proc(file));
            let Ok(text) = source.text() else { continue };
            let mut found = vec![None; fields.len()];
            form.parse(text, fields, &mut found);
            let there = fields.iter().zip(found).filter(|(_, found)| found.is_some());
            let fields: Vec<Field> = there.map(|(field, _)| *field).collect();
            if fields.is_empty() {
                continue;
            }
            for (_, _, column, description) in &fields {
                let table = std::mem::replace(&mut self.table, Table::new("", ""));
                self.table = table.column(column, ColumnType::U64, "1", description);
            }
            let (found, last) = (vec![None; fields.len()], vec![Value::U64(0); fields.len()]);
            self.parts.push(Part { source, form: *form, fields, found, last });
        }
    }

    fn sample(&mut self, values: &mut Vec<Value>, rows: &mut dyn Rows) {
        let now = MonotonicClock.now();
        if self.read.is_some_and(|then| (now - then).to_duration() < self.every) {
            return;
        }
        self.read = Some(now);
        values.clear();
        let mut any = false;
        for Part { source, form, fields, found, last } in &mut self.parts {
            if source.parse(rows, |text| form.parse(text, fields, found).then_some(())).is_some() {
                any = true;
                for (last, found) in last.iter_mut().zip(found) {
                    *last = found.map_or(*last, Value::U64);
                }
            }
            values.extend_from_slice(last);
        }
        if any {
            rows.row(&self.table, MonotonicClock.now(), values);
        }
    }
}

struct Tcp {
    root: Root,
    groups: Vec<Group>,
    values: Vec<Value>,
}

impl Tcp {
    fn new(root: &Root) -> Self {
        let groups = GROUPS.iter().map(|(name, description, parts, every)| {
            let table = Table::new(*name, *description);
            let mut group = Group { table, parts: Vec::new(), every: *every, read: None };
            group.open(root, parts);
            group
        });
        Self { root: root.clone(), groups: groups.collect(), values: Vec::new() }
    }
}

impl Sampler for Tcp {
    fn info(&self) -> SamplerInfo {
        let there = self.groups.iter().filter(|group| !group.parts.is_empty());
        let tables = there.map(|group| group.table.clone()).collect();
        let mut info = super::info(&KIND, DESCRIPTION, &self.root.proc("net/snmp"), tables);
        info.source = format!("{}/{{snmp,netstat,sockstat}}", self.root.proc("net").display());
        info
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        for (group, (_, _, parts, _)) in self.groups.iter_mut().zip(&GROUPS) {
            if group.parts.is_empty() {
                group.open(&self.root, parts);
            }
            group.sample(&mut self.values, rows);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture};
    use proptest::prelude::*;

    const SNMP_TEXT: &str = "Ip: Forwarding DefaultTTL\nIp: 2 64\nTcp: RtoAlgorithm RtoMin RtoMax MaxConn ActiveOpens \
        PassiveOpens AttemptFails EstabResets CurrEstab InSegs OutSegs RetransSegs InErrs OutRsts InCsumErrors\n\
        Tcp: 1 200 120000 -1 16 2 0 4 3 10284 5292 7 0 6 0\nUdp: InDatagrams NoPorts InErrors\nUdp: 27 0 1\n";
    const SOCKSTAT_TEXT: &str = "sockets: used 18\nTCP: inuse 1 orphan 0 tw 5 alloc 1 mem 417\nUDP: inuse\n";

    #[test]
    fn names_lead_to_numbers_whatever_their_order() {
        let (_dir, root) = fixture(&[("proc/net/snmp", SNMP_TEXT), ("proc/net/sockstat", SOCKSTAT_TEXT)]);
        let mut tcp = Tcp::new(&root);
        let taken = Taken::of(&mut tcp);
        for (column, expected) in
            [("opened_actively", 16), ("established", 3), ("segments_retransmitted", 7), ("udp_errors", 1)]
        {
            assert_eq!(taken.count("tcp", column), expected, "{column}");
        }
        for (column, expected) in [("sockets", 18), ("tcp_time_wait", 5)] {
            assert_eq!(taken.count("tcp-extended", column), expected, "{column}");
        }
        let columns: Vec<_> = tcp.groups[1].table.columns.iter().map(|c| c.name.as_str()).collect();
        assert!(!columns.contains(&"udp_sockets"), "{columns:?}");
        assert_eq!((columns.len(), tcp.info().tables.len()), (5, 2), "there is no netstat");
    }

    #[test]
    fn what_costs_most_is_read_once_a_second_into_a_table_of_its_own() {
        let netstat = "TcpExt: SyncookiesSent TCPTimeouts\nTcpExt: 0 3\n";
        let (_dir, root) = fixture(&[("proc/net/snmp", SNMP_TEXT), ("proc/net/netstat", netstat)]);
        let mut tcp = Tcp::new(&root);
        let taken = Taken::of(&mut tcp);
        assert_eq!(taken.count("tcp-extended", "timeouts"), 3);
        assert_eq!(Taken::of(&mut tcp).tables(), ["tcp"]);
        tcp.groups[1].read = Some(Nanos(0));
        assert_eq!(Taken::of(&mut tcp).tables(), ["tcp", "tcp-extended"]);
    }

    #[test]
    fn lines_that_do_not_belong_together_give_nothing() {
        let mut found = vec![None; SNMP.len()];
        for text in
            ["", "Tcp: InSegs\n", "Tcp: InSegs\nUdp: 5\n", "Tcp: InSegs\nTcp: x\n", "Tcp: 5\nTcp: InSegs"]
        {
            assert!(!Form::TwoLines.parse(text.as_bytes(), SNMP, &mut found), "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(text in "((Tcp:|TCP:|InSegs|used|[ -~]{0,20}|\n) ?){0,30}") {
            let mut found = vec![None; SNMP.len()];
            Form::TwoLines.parse(text.as_bytes(), SNMP, &mut found);
            Form::InTurn.parse(text.as_bytes(), SOCKSTAT, &mut found);
        }
    }
}
