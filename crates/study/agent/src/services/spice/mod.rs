//! `spice`: SPICE programs built with spice-common's `instrumentation=agent`.
//!
//! The program is a TCP server for one client; whoever connects reads what it records. Records come when something
//! happens, so a thread reads them and each sample gives those that came since. Their times are of `CLOCK_REALTIME` and
//! become instants of the monotonic clock with the difference of the two at the receipt: a step of the real-time clock
//! between a record and its receipt shifts that row. A program on another machine has another clock.

mod parser;
mod reader;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};

use probe::ColumnType::{Bool, I64, U64};
use probe::{Table, Value};
use units::{Clock, MonotonicClock};

use self::parser::{Message, Record};
use self::reader::{Entry, QUEUE, Reader, Shared};
use super::target;
use crate::devices::{SamplerError, table_part};
use crate::sampler::{Rows, Sampler, SamplerInfo};

pub(super) const NAME: &str = "spice";
pub(super) const EXAMPLE: &str = "client";
/// Where SPICE's programs listen.
const PORTS: [(&str, &str); 3] =
    [("guest", "127.0.0.1:1236"), ("server", "127.0.0.1:1235"), ("client", "127.0.0.1:1234")];
/// Records of one unknown kind that become markers; the others are counted.
const MAX_MARKS: u64 = 3;
/// Unknown kinds that are told apart.
const MAX_KINDS: usize = 16;

struct Tables {
    channel: Table,
    device: Table,
    frames: Table,
    records: Table,
}

/// The sampler `spice`.
pub struct Spice {
    address: String,
    prefix: String,
    tables: Tables,
    shared: Arc<Shared>,
    queue: Receiver<Entry>,
    /// Dropped to end the thread.
    stop: Option<Sender<()>>,
    connections: u64,
    /// What has been said last; nothing at first.
    connected: Option<bool>,
    unknown: BTreeMap<String, u64>,
    unknown_total: u64,
}

impl Tables {
    fn new(prefix: &str) -> Self {
        let packet = |name: &str, what: &str| {
            Table::new(format!("{prefix}-stream-{name}"), what)
                .column("size_bytes", U64, "B", "size of the frame")
                .column("mm_time_ms", U64, "ms", "multimedia time of SPICE's server")
                .column(
                    "delay_ns",
                    I64,
                    "ns",
                    "from the record to its receipt here; 0 where its time is of no use",
                )
        };
        let frames =
            Table::new(format!("{prefix}-frames"), "frames that a client has decoded (frames_stats)")
                .column("mm_time_ms", U64, "ms", "multimedia time of SPICE's server")
                .column("size_bytes", U64, "B", "size of the frame")
                .column("created_ns", I64, "ns", "when the client had received it, on its monotonic clock")
                .column("decode_ns", I64, "ns", "from then until it was decoded")
                .column("queue", U64, "1", "decoded frames that wait to be shown")
                .column("before", U64, "1", "frames being decoded when it came")
                .column(
                    "keyframe",
                    Bool,
                    "",
                    "whether it is a keyframe; false where the program does not say",
                )
                .column(
                    "delay_ns",
                    I64,
                    "ns",
                    "from the record to its receipt here; 0 where its time is of no use",
                );
        let records =
            Table::new(format!("{prefix}-records"), "the records themselves, since the sampler's start")
                .column("received", U64, "1", "records that came")
                .column("lost", U64, "1", "of those, what found no room before the next sample")
                .column("unknown", U64, "1", "of those, what is of a kind that has no table")
                .column(
                    "mistimed",
                    U64,
                    "1",
                    "of those, what had a time of another clock and stands at its receipt",
                )
                .column("malformed", U64, "1", "what was no record");
        Self {
            channel: packet("channel", "frames that SPICE's server sends on (stream_channel_data)"),
            device: packet("device", "frames that SPICE's server gets from the guest (stream_device_data)"),
            frames,
            records,
        }
    }

    fn all(&self) -> Vec<Table> {
        [&self.channel, &self.device, &self.frames, &self.records].into_iter().cloned().collect()
    }
}

/// What it is, without a target.
pub(super) fn description() -> SamplerInfo {
    SamplerInfo {
        name: NAME.into(),
        description: "What SPICE programs built with the agent interface record of each frame.".into(),
        source: "agent interface of spice-common (instrumentation=agent), TCP".into(),
        default: false,
        tables: Tables::new(NAME).all(),
        unavailable: format!(
            "it needs to know the program: {NAME}=guest, {NAME}=server or {NAME}=client on this machine, or {NAME}=HOST:PORT"
        ),
    }
}

impl Spice {
    /// For the program at `target`: `guest`, `server` or `client` (on loopback, at SPICE's ports) or `HOST:PORT`, and
    /// perhaps `,name=NAME`, which table names then begin with, and `,all`, to ask for recorders that have no table
    /// too. The program need not run yet.
    ///
    /// # Errors
    /// The target is not of that form, or there are no more threads.
    pub fn new(target: &str) -> Result<Self, SamplerError> {
        let parts = target::parts(NAME, target)?;
        let wrong = |reason: String| SamplerError::Target { name: NAME, target: target.into(), reason };
        let known = PORTS.iter().find(|(name, _)| *name == parts.place).map(|(_, address)| *address);
        let address = known.unwrap_or(parts.place);
        let port = address.rsplit_once(':').filter(|(host, _)| !host.is_empty());
        if port.and_then(|(_, port)| port.parse::<u16>().ok()).is_none_or(|port| port == 0) {
            return Err(wrong("it is 'guest', 'server', 'client' or HOST:PORT".into()));
        }
        let shared = Arc::new(Shared::default());
        let (entries, queue) = sync_channel(QUEUE);
        let (stop, stopped) = channel();
        let reader = Reader {
            address: address.into(),
            everything: parts.all,
            shared: Arc::clone(&shared),
            queue: entries,
            stop: stopped,
        };
        std::thread::Builder::new()
            .name("spice-records".into())
            .spawn(move || reader.run())
            .map_err(|error| wrong(format!("its thread cannot be started: {error}")))?;
        Ok(Self {
            address: address.into(),
            tables: Tables::new(&parts.prefix),
            prefix: parts.prefix,
            shared,
            queue,
            stop: Some(stop),
            connections: 0,
            connected: None,
            unknown: BTreeMap::new(),
            unknown_total: 0,
        })
    }

    /// Says when the connection has come or gone.
    fn notice(&mut self, rows: &mut dyn Rows) -> bool {
        let link = self.shared.link().clone();
        if link.connections != self.connections {
            rows.fact(&format!("{}.recorders", self.prefix), &link.recorders.join(";"));
            if self.connected == Some(false) || (self.connected == Some(true) && link.connected) {
                rows.mark("source_back", &format!("{}: {} is connected", self.prefix, self.address));
            }
            (self.connections, self.connected) = (link.connections, Some(true));
        }
        // Before the first attempt has ended there is nothing to say.
        if !link.connected && !link.reason.is_empty() && self.connected != Some(false) {
            rows.mark("source_gone", &format!("{}: {}: {}", self.prefix, self.address, link.reason));
            self.connected = Some(false);
        }
        link.connected
    }

    fn give(&mut self, entry: Entry, rows: &mut dyn Rows) {
        let Entry { record: Record { name, message, .. }, at, delay_ns } = entry;
        match message {
            Message::Packet { size, mm_time } => {
                let table =
                    if name == "stream_device_data" { &self.tables.device } else { &self.tables.channel };
                rows.row(table, at, &[Value::U64(size), Value::U64(mm_time), Value::I64(delay_ns)]);
            }
            Message::Frame { mm_time, size, creation_us, decoded_us, queue, before, keyframe } => rows.row(
                &self.tables.frames,
                at,
                &[
                    Value::U64(mm_time),
                    Value::U64(size),
                    Value::I64(creation_us.saturating_mul(1000)),
                    Value::I64(decoded_us.saturating_mul(1000)),
                    Value::U64(queue),
                    Value::U64(before),
                    Value::Bool(keyframe.unwrap_or(false)),
                    Value::I64(delay_ns),
                ],
            ),
            Message::Other(text) => self.count_unknown(&name, &text, rows),
        }
    }

    fn count_unknown(&mut self, name: &str, text: &str, rows: &mut dyn Rows) {
        self.unknown_total += 1;
        if self.unknown.len() == MAX_KINDS && !self.unknown.contains_key(name) {
            return;
        }
        let count = self.unknown.entry(name.into()).or_default();
        *count += 1;
        if *count <= MAX_MARKS {
            rows.mark("spice", &format!("{}: {name}: {text}", self.prefix));
        }
        // Said seldom: at 1, 2, 4, 8 and so on.
        if count.is_power_of_two() {
            let fact = format!("{}.unknown.{}", self.prefix, table_part(name, 40));
            rows.fact(&fact, &format!("at least {count}"));
        }
    }
}

impl Sampler for Spice {
    fn info(&self) -> SamplerInfo {
        let link = self.shared.link().clone();
        let unavailable = if link.connected || link.reason.is_empty() {
            String::new()
        } else {
            format!(
                "no SPICE program records at {} ({}): build it with instrumentation=agent and start it",
                self.address, link.reason
            )
        };
        SamplerInfo { tables: self.tables.all(), unavailable, ..description() }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        // The queue is emptied once: what comes meanwhile is for the next sample.
        for _ in 0..QUEUE {
            let Ok(entry) = self.queue.try_recv() else { break };
            self.give(entry, rows);
        }
        if self.notice(rows) {
            let counters = &self.shared.counters;
            let count = |counter: &std::sync::atomic::AtomicU64| Value::U64(counter.load(Ordering::Relaxed));
            let values = [
                count(&counters.received),
                count(&counters.lost),
                Value::U64(self.unknown_total),
                count(&counters.mistimed),
                count(&counters.malformed),
            ];
            rows.row(&self.tables.records, MonotonicClock.now(), &values);
        }
    }
}

impl Drop for Spice {
    fn drop(&mut self) {
        // The thread ends by itself; to look up a name may take it seconds, for which nobody is to wait.
        self.stop = None;
        self.shared.shut_down();
    }
}

#[cfg(test)]
mod tests;
