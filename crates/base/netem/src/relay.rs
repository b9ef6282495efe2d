//! Where namespaces are refused: a relay of TCP connections that offers bandwidth and delay, and nothing else.
//!
//! A client connects to [`Relay::address`] in place of the server, and the relay to the server; what either sends is
//! handed over later and no faster than asked. The TCP of both sides sees loopback: it knows no loss, no queue and no
//! round trip, its windows and retransmissions are those of a local connection, and UDP has no place here. A report
//! says so ([`Level::ByteStream`], `not_emulated`). All connections share the bandwidth of a direction; forward is from
//! who connects to who is connected to.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;

use units::{Clock, MonotonicClock, Nanos};

use crate::conditions::{Conditions, Rate, Schedule, nanos};
use crate::error::NetemError;
use crate::link::{Counters, Due};
use crate::report::{DirectionReport, Level, Meter, Report};
use crate::serial::Serializer;
use crate::{Direction, Options};

/// What [`Conditions`] name and a relay does not emulate.
pub const NOT_EMULATED: [&str; 4] = ["jitter", "loss", "reordering", "queue"];

/// Largest and smallest piece of a stream; between them a piece is what takes [`PIECE_MS`] to send.
const PIECE: (u64, u64) = (256, 16_384);
const PIECE_MS: u64 = 2;
/// How long before the wire is free the next piece is read: a thread that wakes late leaves no gap.
const READ_AHEAD: Nanos = Nanos(5_000_000);
/// Pieces of one direction of a connection on the way; more are not read, so that the sender waits.
const PIECES: usize = 4_096;
/// Buffer of the kernel for what is not read yet: small, since it is a queue that nobody asked for.
const KERNEL_BUFFER: usize = 64 * 1_024;

/// A relay on a port of loopback. Dropping it closes every connection.
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
    seed: u64,
    started: Nanos,
    acceptor: Option<JoinHandle<()>>,
}

struct Shared {
    target: SocketAddr,
    forward: Pacer,
    backward: Pacer,
    stop: Stop,
    /// The sockets of connections under way, to close them from outside.
    open: Mutex<Vec<(u64, [TcpStream; 2])>>,
    next: AtomicU64,
}

/// Says that the relay ends, to threads that wait for a moment.
#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
}

impl Stop {
    fn stop(&self) {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_all();
    }

    fn is_stopped(&self) -> bool {
        *self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `at`; false when the relay ends before.
    fn wait_until(&self, at: Nanos) -> bool {
        let mut stopped = self.stopped.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let left = at - MonotonicClock.now();
            if *stopped || left <= Nanos::ZERO {
                return !*stopped;
            }
            let woken = self.changed.wait_timeout(stopped, left.to_duration());
            stopped = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The bandwidth and delay of one direction.
struct Pacer(Mutex<Pace>);

struct Pace {
    schedule: Schedule,
    conditions: Conditions,
    steps: VecDeque<(Nanos, Conditions)>,
    serializer: Serializer,
    free_at: Nanos,
    last_due: Nanos,
    busy: u64,
    busy_bytes: u64,
    counters: Counters,
    meter: Meter,
}

impl Pacer {
    fn new(schedule: Schedule, now: Nanos) -> Self {
        Self(Mutex::new(Pace {
            conditions: schedule.start.clone(),
            steps: schedule.steps().map(|(since, c)| (now + since, c)).collect(),
            serializer: Serializer::new(&schedule.start.rate, now),
            schedule,
            free_at: now,
            last_due: now,
            busy: 0,
            busy_bytes: 0,
            counters: Counters::default(),
            meter: Meter::default(),
        }))
    }

    /// The pace, with the changes that are due in force.
    fn lock(&self, now: Nanos) -> MutexGuard<'_, Pace> {
        let mut pace = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while pace.steps.front().is_some_and(|(at, _)| *at <= now)
            && let Some((at, conditions)) = pace.steps.pop_front()
        {
            pace.set(at, conditions);
        }
        pace
    }
}

impl Pace {
    fn set(&mut self, now: Nanos, conditions: Conditions) {
        if conditions.rate != self.conditions.rate {
            self.serializer = Serializer::new(&conditions.rate, now);
            (self.busy, self.busy_bytes) = (self.busy + 1, 0);
            self.free_at = self.free_at.min(now);
        }
        self.conditions = conditions;
    }

    fn piece(&self) -> usize {
        let ideal = match &self.conditions.rate {
            Rate::Unlimited => PIECE.1,
            Rate::BitsPerS(rate) => rate / 8 * PIECE_MS / 1_000,
            Rate::Trace(_) => u64::from(crate::trace::OPPORTUNITY_BYTES),
        };
        ideal.clamp(PIECE.0, PIECE.1) as usize
    }

    fn take(&mut self, now: Nanos, packet: Vec<u8>) -> Due<Vec<u8>> {
        let bytes = packet.len() as u32;
        self.counters.packets_in += 1;
        self.counters.bytes_in += u64::from(bytes);
        if self.free_at < now {
            (self.free_at, self.busy, self.busy_bytes) = (now, self.busy + 1, 0);
        }
        self.free_at = self.serializer.send(self.free_at, bytes);
        self.busy_bytes += u64::from(bytes);
        let sent = self.free_at;
        let due = (sent + nanos(self.conditions.delay_ms)).max(self.last_due);
        self.last_due = due;
        Due { packet, bytes, due, sent, busy: self.busy, busy_bytes: self.busy_bytes }
    }

    fn handed_over(&mut self, piece: &Due<Vec<u8>>, at: Nanos) {
        self.counters.packets_out += 1;
        self.counters.bytes_out += u64::from(piece.bytes);
        self.meter.add(piece, at, self.conditions.rate != Rate::Unlimited);
    }
}

impl Relay {
    /// Listens on a free port of loopback and relays to `target`. Of the options, real-time priority and spinning have
    /// no meaning here.
    ///
    /// # Errors
    /// A condition is out of its range, or no port or thread can be had. A condition that a relay does not emulate is no
    /// error: the report names them.
    pub fn start(target: SocketAddr, options: Options) -> Result<Self, NetemError> {
        options.forward.check().map_err(|e| NetemError::Conditions(Direction::Forward, e))?;
        options.backward.check().map_err(|e| NetemError::Conditions(Direction::Backward, e))?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(NetemError::Listen)?;
        let address = listener.local_addr().map_err(NetemError::Listen)?;
        // What is accepted inherits it.
        rustix::net::sockopt::set_socket_recv_buffer_size(&listener, KERNEL_BUFFER)
            .map_err(|e| NetemError::Listen(e.into()))?;
        let started = MonotonicClock.now();
        let shared = Arc::new(Shared {
            target,
            forward: Pacer::new(options.forward, started),
            backward: Pacer::new(options.backward, started),
            stop: Stop::default(),
            open: Mutex::default(),
            next: AtomicU64::new(0),
        });
        let for_thread = Arc::clone(&shared);
        let acceptor = std::thread::Builder::new()
            .name("netem-accept".into())
            .spawn(move || accept(&listener, &for_thread))
            .map_err(NetemError::Thread)?;
        Ok(Self { address, shared, seed: options.seed, started, acceptor: Some(acceptor) })
    }

    /// Where to connect in place of the target.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Puts other conditions into force now, in place of the rest of that direction's schedule.
    ///
    /// # Errors
    /// A condition is out of its range; then nothing changes.
    pub fn set(&self, direction: Direction, conditions: Conditions) -> Result<(), NetemError> {
        conditions.check().map_err(|e| NetemError::Conditions(direction, e))?;
        let pacer = match direction {
            Direction::Forward => &self.shared.forward,
            Direction::Backward => &self.shared.backward,
        };
        let now = MonotonicClock.now();
        let mut pace = pacer.lock(now);
        pace.steps.clear();
        pace.set(now, conditions);
        Ok(())
    }

    /// Starts both schedules again from their beginnings.
    pub fn restart_schedules(&self) {
        let now = MonotonicClock.now();
        for pacer in [&self.shared.forward, &self.shared.backward] {
            let mut pace = pacer.lock(now);
            pace.steps = pace.schedule.steps().map(|(since, c)| (now + since, c)).collect();
            let start = pace.schedule.start.clone();
            pace.set(now, start);
        }
    }

    /// What has happened since the start, how precisely, and what is not emulated at all.
    pub fn report(&self) -> Report {
        let now = MonotonicClock.now();
        let direction = |pacer: &Pacer| {
            let pace = pacer.lock(now);
            DirectionReport {
                conditions: pace.conditions.clone(),
                counters: pace.counters,
                held: pace.counters.packets_in - pace.counters.packets_out,
                ignored: 0,
                not_written: 0,
                device_dropped: None,
                lateness: pace.meter.lateness(),
                rate: pace.meter.rate(),
            }
        };
        Report {
            level: Level::ByteStream,
            not_emulated: NOT_EMULATED.to_vec(),
            real_time: false,
            seed: self.seed,
            elapsed_s: (now - self.started).as_secs_f64(),
            forward: direction(&self.shared.forward),
            backward: direction(&self.shared.backward),
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.stop.stop();
        // Wakes the acceptor, which sees that it is over.
        let _ = TcpStream::connect(self.address);
        if let Some(acceptor) = self.acceptor.take() {
            let _ = acceptor.join();
        }
    }
}

impl Shared {
    fn open(&self) -> MutexGuard<'_, Vec<(u64, [TcpStream; 2])>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    let mut connections: Vec<JoinHandle<()>> = Vec::new();
    for client in listener.incoming() {
        if shared.stop.is_stopped() {
            break;
        }
        let Ok(client) = client else { continue };
        connections.retain(|thread| !thread.is_finished());
        let shared = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("netem-relay".into()).spawn(move || {
            if let Err(error) = relay(client, &shared) {
                tracing::debug!(target = %shared.target, %error, "a relayed connection ended");
            }
        });
        match thread {
            Ok(thread) => connections.push(thread),
            Err(error) => tracing::warn!(%error, "a connection cannot be relayed"),
        }
    }
    for (_, sockets) in shared.open().iter() {
        for socket in sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
    for thread in connections {
        let _ = thread.join();
    }
}

/// Relays one connection until both directions have ended.
fn relay(client: TcpStream, shared: &Shared) -> io::Result<()> {
    let server = TcpStream::connect(shared.target)?;
    rustix::net::sockopt::set_socket_recv_buffer_size(&server, KERNEL_BUFFER)?;
    for socket in [&client, &server] {
        socket.set_nodelay(true)?;
    }
    let number = shared.next.fetch_add(1, Ordering::Relaxed);
    {
        let mut open = shared.open();
        open.push((number, [client.try_clone()?, server.try_clone()?]));
        // The end may have come in between, and closed what it saw.
        if shared.stop.is_stopped() {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
    std::thread::scope(|scope| {
        for (from, to, pacer) in [(&client, &server, &shared.forward), (&server, &client, &shared.backward)] {
            let (pieces, queue) = mpsc::sync_channel(PIECES);
            scope.spawn(move || read(from, pacer, &shared.stop, &pieces));
            scope.spawn(move || write(to, from, pacer, &shared.stop, &queue));
        }
    });
    shared.open().retain(|(n, _)| *n != number);
    Ok(())
}

/// Reads pieces no faster than the wire sends them, until the stream ends.
fn read(mut from: &TcpStream, pacer: &Pacer, stop: &Stop, pieces: &mpsc::SyncSender<Due<Vec<u8>>>) {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    loop {
        let mut piece = vec![0; pacer.lock(MonotonicClock.now()).piece()];
        match from.read(&mut piece) {
            Ok(0) => return,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return,
            Ok(length) => piece.truncate(length),
        }
        let now = MonotonicClock.now();
        let due = pacer.lock(now).take(now, piece);
        let sent = due.sent;
        if pieces.send(due).is_err() || !stop.wait_until(sent - READ_AHEAD) {
            return;
        }
    }
}

/// Hands pieces over when they are due, and passes the end of the stream on after the last.
fn write(
    mut to: &TcpStream,
    from: &TcpStream,
    pacer: &Pacer,
    stop: &Stop,
    queue: &mpsc::Receiver<Due<Vec<u8>>>,
) {
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    while let Ok(piece) = queue.recv() {
        if !stop.wait_until(piece.due) {
            return;
        }
        let at = MonotonicClock.now();
        if to.write_all(&piece.packet).is_err() {
            // Nobody reads any more: whoever writes shall know.
            let _ = from.shutdown(Shutdown::Read);
            return;
        }
        pacer.lock(at).handed_over(&piece, at);
    }
    let _ = to.shutdown(Shutdown::Write);
}
