//! The thread that reads an instrumented SPICE program.
//!
//! Records become [`Entry`]s in a bounded queue; what does not fit is counted as lost and never waited for, because the
//! program writes its records from its own threads and would wait for us.

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use units::{Clock, MonotonicClock, Nanos};

use super::parser::{Item, Parser, Record};
use crate::services::RETRY;

/// Recorders whose messages are understood.
pub(super) const RECORDERS: [&str; 3] = ["stream_channel_data", "stream_device_data", "frames_stats"];
/// Entries that wait for a sample: half a minute of 240 frames a second, of which each gives two.
pub(super) const QUEUE: usize = 16 * 1024;
/// Time for a connection; the program is on this machine or next to it.
const CONNECT: Duration = Duration::from_secs(1);
/// Time to stay away from a peer that does not speak the protocol.
const OFFENDED: Duration = Duration::from_secs(30);
/// An instant further from the receipt is not one of this machine's clock.
const PLAUSIBLE: i64 = 60 * 1_000_000_000;
/// Two readings of clocks so close count as one: 20 us, in ns.
const CLOSE_ENOUGH: i64 = 20_000;

/// What waits for a sample.
#[derive(Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) record: Record,
    /// The record's instant on the monotonic clock; that of its receipt where its own cannot be.
    pub(super) at: Nanos,
    /// From its instant to its receipt.
    pub(super) delay_ns: i64,
}

/// Counters since the sampler's start.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) received: AtomicU64,
    pub(super) lost: AtomicU64,
    pub(super) malformed: AtomicU64,
    /// Records whose time cannot be of this machine's clock.
    pub(super) mistimed: AtomicU64,
}

/// How the connection is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Link {
    pub(super) connected: bool,
    /// How often it has come to be.
    pub(super) connections: u64,
    /// Names of the program's recorders.
    pub(super) recorders: Vec<String>,
    /// Why there is none.
    pub(super) reason: String,
}

/// What thread and sampler share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) counters: Counters,
    link: Mutex<Link>,
    /// To end a read under way.
    stream: Mutex<Option<TcpStream>>,
}

impl Shared {
    pub(super) fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stream(&self) -> MutexGuard<'_, Option<TcpStream>> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends a connection that is there.
    pub(super) fn shut_down(&self) {
        if let Some(stream) = &*self.stream() {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}

/// The thread.
pub(super) struct Reader {
    pub(super) address: String,
    /// All recorders are asked for, not only those that are understood.
    pub(super) everything: bool,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: SyncSender<Entry>,
    /// Ends the thread when its other end is dropped.
    pub(super) stop: Receiver<()>,
}

impl Reader {
    /// Connects, reads and connects again, until told to stop.
    pub(super) fn run(self) {
        loop {
            let (reason, pause) = match self.connect() {
                Ok(stream) => self.converse(stream),
                Err(error) => (error.to_string(), RETRY),
            };
            *self.shared.stream() = None;
            {
                let mut link = self.shared.link();
                (link.connected, link.reason) = (false, reason);
            }
            // Dropped, the other end says that it is over; nothing is ever sent.
            if self.stop.recv_timeout(pause) != Err(RecvTimeoutError::Timeout) {
                return;
            }
        }
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let mut last = std::io::Error::new(ErrorKind::NotFound, "the host has no address");
        for address in self.address.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT) {
                Ok(stream) => return Ok(stream),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Reads until the connection ends; gives why, and how long to stay away.
    fn converse(&self, mut stream: TcpStream) -> (String, Duration) {
        match stream.try_clone() {
            Ok(clone) => *self.shared.stream() = Some(clone),
            Err(error) => return (error.to_string(), RETRY),
        }
        // Asked to stop between the connection and here: the stream was not there to be shut down.
        if self.stop.try_recv() != Err(std::sync::mpsc::TryRecvError::Empty) {
            return (String::new(), RETRY);
        }
        let mut parser = Parser::default();
        let mut buffer = [0; 16 * 1024];
        let mut greeted = false;
        loop {
            let count = match stream.read(&mut buffer) {
                Ok(0) => return ("the program closed the connection".into(), RETRY),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return (error.to_string(), RETRY),
            };
            let clocks = Clocks::now();
            let mut failed = None;
            parser.push(&buffer[..count], |item| match item {
                _ if failed.is_some() => {}
                Item::Recorders(names) => {
                    greeted = true;
                    if let Err(error) = stream.write_all(&self.choice(&names)) {
                        failed = Some((error.to_string(), RETRY));
                    }
                    let mut link = self.shared.link();
                    (link.connected, link.recorders) = (true, names);
                    link.connections += 1;
                }
                Item::Malformed if !greeted => {
                    failed = Some(("it does not speak the agent interface".into(), OFFENDED));
                }
                Item::Malformed => _ = self.shared.counters.malformed.fetch_add(1, Ordering::Relaxed),
                Item::Record(record) => self.enqueue(record, clocks),
            });
            if let Some(failed) = failed {
                return failed;
            }
        }
    }

    /// The answer to the first line: a byte for each recorder.
    fn choice(&self, names: &[String]) -> Vec<u8> {
        let wanted = |name: &String| self.everything || RECORDERS.contains(&name.as_str());
        names.iter().map(|name| if wanted(name) { b'1' } else { b'0' }).collect()
    }

    fn enqueue(&self, record: Record, clocks: Clocks) {
        let counters = &self.shared.counters;
        counters.received.fetch_add(1, Ordering::Relaxed);
        let (at, delay_ns) = clocks.place(record.time_us);
        if delay_ns.is_none() {
            counters.mistimed.fetch_add(1, Ordering::Relaxed);
        }
        let entry = Entry { record, at, delay_ns: delay_ns.unwrap_or(0) };
        if self.queue.try_send(entry).is_err() {
            counters.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Both clocks at one instant, to turn times of the one into times of the other.
#[derive(Clone, Copy, Debug)]
struct Clocks {
    real_ns: i64,
    monotonic: Nanos,
}

impl Clocks {
    /// The real-time clock is read between two readings of the other; of a few tries the closest counts, so that it does
    /// not matter when this thread is interrupted in between.
    fn now() -> Self {
        let read = || {
            let before = MonotonicClock.now().0;
            let real = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let apart = MonotonicClock.now().0 - before;
            let real_ns = i64::try_from(real.as_nanos()).unwrap_or(i64::MAX);
            (apart, Self { real_ns, monotonic: Nanos(before + apart / 2) })
        };
        let mut best = read();
        for _ in 0..3 {
            if best.0 <= CLOSE_ENOUGH {
                break;
            }
            let next = read();
            if next.0 < best.0 {
                best = next;
            }
        }
        best.1
    }

    /// A record's instant, and how long before now it was; now, and nothing, when it cannot be of this clock.
    fn place(self, time_us: i64) -> (Nanos, Option<i64>) {
        let delay = time_us.checked_mul(1000).and_then(|ns| self.real_ns.checked_sub(ns));
        match delay {
            // The clocks are read one after the other, and the record's in µs: a little of the future is possible.
            Some(delay) if (-PLAUSIBLE..=PLAUSIBLE).contains(&delay) => {
                (Nanos(self.monotonic.0 - delay), Some(delay))
            }
            _ => (self.monotonic, None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_turned_into_those_of_the_monotonic_clock() {
        let clocks = Clocks { real_ns: 1_700_000_000_000_000_000, monotonic: Nanos(5_000_000_000) };
        assert_eq!(clocks.place(1_699_999_999_998_000), (Nanos(4_998_000_000), Some(2_000_000)));
        assert_eq!(clocks.place(1_700_000_000_000_001), (Nanos(5_000_001_000), Some(-1000)));
        for time_us in [0, -5, i64::MAX, i64::MIN, 1_699_999_939_000_000, 1_700_000_061_000_000] {
            assert_eq!(clocks.place(time_us), (Nanos(5_000_000_000), None), "{time_us}");
        }
    }
}
