//! The emulator as its users see it.

use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::Duration;

use units::{Clock, MonotonicClock, Nanos};

use crate::conditions::{Conditions, Schedule};
use crate::engine::{Engine, Wake};
use crate::error::NetemError;
use crate::namespace::{ADDRESSES, Namespaces};
use crate::report::{Level, Report};
use crate::{Direction, Side};

/// Longest [`Options::spin`].
pub const MAX_SPIN: Duration = Duration::from_millis(1);

/// What an emulator is started with.
#[derive(Clone, Debug)]
pub struct Options {
    /// From side A to side B.
    pub forward: Schedule,
    /// From side B to side A.
    pub backward: Schedule,
    /// Seed of losses, jitter and reordering: the same packets at the same instants meet the same fate.
    pub seed: u64,
    /// How long before a packet is due the thread waits in a loop and not asleep, at most [`MAX_SPIN`]. It buys
    /// precision with processor time: so much for each instant at which packets are due, in each direction.
    pub spin: Duration,
    /// Whether to ask for real-time priority; without the right to it the emulator goes on, and its report says so.
    pub real_time: bool,
}

impl Default for Options {
    /// No limits in either direction, seed 0, 50 µs of spinning, real-time priority.
    ///
    /// 50 µs is what a virtual processor takes to wake from its idle state, see the figures in `docs/netem.md`.
    fn default() -> Self {
        Self {
            forward: Schedule::default(),
            backward: Schedule::default(),
            seed: 0,
            spin: Duration::from_micros(50),
            real_time: true,
        }
    }
}

/// Two sides and the path between them, at the level of packets.
///
/// Dropping it kills every process inside and takes the namespaces and devices away; so does the end of this process,
/// by whatever signal.
pub struct Emulator {
    // Fields are dropped in this order: the path first, so that no thread uses a device without a namespace.
    forward: Engine,
    backward: Engine,
    namespaces: Namespaces,
    seed: u64,
    started: Nanos,
}

impl Emulator {
    /// Makes the sides and starts the path; the schedules start now, see [`Emulator::restart_schedules`].
    ///
    /// # Errors
    /// A condition is out of its range; the machine refuses namespaces or TUN devices ([`NetemError::is_refused`]), with
    /// the step and the remedy; or a thread or process cannot be started.
    pub fn start(options: Options) -> Result<Self, NetemError> {
        let Options { forward, backward, seed, spin, real_time } = options;
        forward.check().map_err(|e| NetemError::Conditions(Direction::Forward, e))?;
        backward.check().map_err(|e| NetemError::Conditions(Direction::Backward, e))?;
        let (namespaces, tuns) = Namespaces::make()?;
        let [a, b] = tuns.map(Arc::new);
        let wake = Wake { spin: spin.min(MAX_SPIN).into(), real_time };
        let started = MonotonicClock.now();
        // Two streams of chance: the directions do not mirror each other.
        let forward = Engine::start(
            "netem-forward",
            Arc::clone(&a),
            Arc::clone(&b),
            forward,
            seed.wrapping_mul(2),
            wake,
        )?;
        let backward =
            Engine::start("netem-backward", b, a, backward, seed.wrapping_mul(2).wrapping_add(1), wake)?;
        Ok(Self { forward, backward, namespaces, seed, started })
    }

    /// The address of a side, at which the other reaches it.
    pub fn address(&self, side: Side) -> Ipv4Addr {
        ADDRESSES[side as usize]
    }

    /// Starts a command on a side. It is killed with the emulator, and so is whatever it starts.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn spawn(&self, side: Side, command: Command) -> Result<Child, NetemError> {
        self.namespaces.spawn(side, command)
    }

    /// Makes a command start on a side, for callers that start it themselves. It is killed with the emulator as well.
    pub fn enter(&self, side: Side, command: &mut Command) {
        self.namespaces.enter(side, command);
    }

    /// A UDP socket of this process on a side, bound to its address and a port; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken.
    pub fn udp(&self, side: Side, port: u16) -> Result<UdpSocket, NetemError> {
        self.namespaces.udp(side, port)
    }

    /// A listening TCP socket of this process on a side; port 0 takes a free one.
    ///
    /// # Errors
    /// The port is taken.
    pub fn tcp_listen(&self, side: Side, port: u16) -> Result<TcpListener, NetemError> {
        self.namespaces.tcp_listen(side, port)
    }

    /// Connects from a side to a port of the other; takes at least one round trip.
    ///
    /// # Errors
    /// Nobody listens there, or the path lets nothing through.
    pub fn tcp_connect(&self, side: Side, port: u16) -> Result<TcpStream, NetemError> {
        self.namespaces.tcp_connect(side, port)
    }

    /// Puts other conditions into force now, in place of the rest of that direction's schedule.
    ///
    /// # Errors
    /// A condition is out of its range; then nothing changes.
    pub fn set(&self, direction: Direction, conditions: Conditions) -> Result<(), NetemError> {
        conditions.check().map_err(|e| NetemError::Conditions(direction, e))?;
        match direction {
            Direction::Forward => self.forward.set(conditions),
            Direction::Backward => self.backward.set(conditions),
        }
        Ok(())
    }

    /// Starts both schedules again from their beginnings, for a run that begins once everything inside is up.
    pub fn restart_schedules(&self) {
        let now = MonotonicClock.now();
        self.forward.restart(now);
        self.backward.restart(now);
    }

    /// What has happened since the start, and how precisely. Costs microseconds and may be asked at any time.
    pub fn report(&self) -> Report {
        Report {
            level: Level::Packets,
            not_emulated: Vec::new(),
            real_time: self.forward.had_real_time() && self.backward.had_real_time(),
            seed: self.seed,
            elapsed_s: (MonotonicClock.now() - self.started).as_secs_f64(),
            forward: self.forward.report(self.namespaces.device_dropped(Side::A)),
            backward: self.backward.report(self.namespaces.device_dropped(Side::B)),
        }
    }
}
