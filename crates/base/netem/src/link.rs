//! One direction of a path as a state machine: packets wait, are sent at a rate, travel, arrive or do not.
//!
//! Time is passed in and chance is seeded, so that the same calls give the same packets. A packet goes through
//!
//! 1. the queue, which is full or has room (drop-tail);
//! 2. the wire, one packet after the other at the rate;
//! 3. the way: lost or not, then the delay with its jitter, and perhaps held back to be passed by others.
//!
//! Jitter and falling delays let no packet pass another: one that would is due with the one before it, which makes the
//! mean delay longer where packets lie closer together than the jitter. Only [`Reordering`] lets packets pass.
//!
//! [`Reordering`]: crate::conditions::Reordering

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use units::Nanos;

use crate::conditions::{Conditions, JitterShape, Loss, NORMAL_CUT, Queue, nanos};
use crate::serial::Serializer;

/// Most bytes that may be on the way: 1 Gbit/s for half a second. What comes beyond is dropped.
pub const FLIGHT_BYTES_MAX: u64 = 64 << 20;

/// What happened to the packets of one direction. At any time
/// `in = out + dropped_queue + dropped_flight + lost + held`, where held is [`Link::held`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Packets that came.
    pub packets_in: u64,
    /// Bytes that came, of whole IP packets.
    pub bytes_in: u64,
    /// Packets handed over at the other end.
    pub packets_out: u64,
    /// Bytes handed over.
    pub bytes_out: u64,
    /// Packets dropped because the queue was full.
    pub dropped_queue: u64,
    /// Packets dropped because [`FLIGHT_BYTES_MAX`] were on the way.
    pub dropped_flight: u64,
    /// Packets lost by chance.
    pub lost: u64,
    /// Packets handed over after one that had come later.
    pub reordered: u64,
    /// Most bytes that waited at once, the packet being sent included.
    pub queue_bytes_max: u64,
}

/// A packet that is due.
#[derive(Debug)]
pub struct Due<P> {
    /// The packet.
    pub packet: P,
    /// Its size as passed in.
    pub bytes: u32,
    /// When it was due.
    pub due: Nanos,
    /// When the wire had sent it.
    pub sent: Nanos,
    /// Which period of continuous sending it belongs to; a change of the rate starts another.
    pub busy: u64,
    /// Bytes sent in that period up to the end of this packet, with those that got lost.
    pub busy_bytes: u64,
}

#[derive(Debug)]
struct Waiting<P> {
    packet: P,
    bytes: u32,
}

#[derive(Debug)]
struct Flying<P> {
    due: Nanos,
    order: u64,
    content: Due<P>,
}

impl<P> PartialEq for Flying<P> {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.order) == (other.due, other.order)
    }
}

impl<P> Eq for Flying<P> {}

impl<P> PartialOrd for Flying<P> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<P> Ord for Flying<P> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.order).cmp(&(other.due, other.order))
    }
}

/// Chance, one stream for each use, so that a loss that is switched on changes no delay.
#[derive(Debug)]
struct Chance {
    loss: ChaCha8Rng,
    jitter: ChaCha8Rng,
    reordering: ChaCha8Rng,
}

impl Chance {
    fn new(seed: u64) -> Self {
        let stream = |number| {
            let mut rng = ChaCha8Rng::seed_from_u64(seed);
            rng.set_stream(number);
            rng
        };
        Self { loss: stream(1), jitter: stream(2), reordering: stream(3) }
    }
}

/// One direction. `P` is the packet, which is never looked at.
#[derive(Debug)]
pub struct Link<P> {
    conditions: Conditions,
    delay: Nanos,
    jitter_bound: Nanos,
    serializer: Serializer,
    /// What waits; the first is being sent.
    queue: VecDeque<Waiting<P>>,
    queue_bytes: u64,
    /// When the first of the queue has been sent; means nothing while the queue is empty.
    first_ends: Nanos,
    busy: u64,
    busy_bytes: u64,
    flying: BinaryHeap<Reverse<Flying<P>>>,
    flying_bytes: u64,
    /// Latest due instant of a packet that was not held back.
    last_due: Nanos,
    sent: u64,
    /// One more than the latest order handed over.
    handed_over: u64,
    in_burst: bool,
    chance: Chance,
    counters: Counters,
}

impl<P> Link<P> {
    /// A direction with nothing in it. The conditions have been checked ([`Conditions::check`]).
    pub fn new(conditions: Conditions, seed: u64, now: Nanos) -> Self {
        Self {
            delay: nanos(conditions.delay_ms),
            jitter_bound: nanos(conditions.jitter_bound_ms()),
            serializer: Serializer::new(&conditions.rate, now),
            conditions,
            queue: VecDeque::new(),
            queue_bytes: 0,
            first_ends: now,
            busy: 0,
            busy_bytes: 0,
            flying: BinaryHeap::new(),
            flying_bytes: 0,
            last_due: Nanos(i64::MIN),
            sent: 0,
            handed_over: 0,
            in_burst: false,
            chance: Chance::new(seed),
            counters: Counters::default(),
        }
    }

    /// The conditions in force.
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// What has happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Packets inside: waiting, being sent and on the way.
    pub fn held(&self) -> u64 {
        (self.queue.len() + self.flying.len()) as u64
    }

    /// Packets and bytes that wait, the packet being sent included.
    pub fn queued(&self) -> (u64, u64) {
        (self.queue.len() as u64, self.queue_bytes)
    }

    /// Puts other conditions into force at `now`; they have been checked.
    ///
    /// What is on the way keeps its due instant. Of the packet being sent, what is not yet sent goes at the new rate. A
    /// queue that has become too long is not cut: nothing more comes in until it is short enough.
    pub fn set(&mut self, now: Nanos, conditions: Conditions) {
        self.advance(now);
        if conditions.rate != *self.serializer.rate() {
            let unsent = self.queue.front().map(|p| self.serializer.unsent(now, self.first_ends, p.bytes));
            self.serializer = Serializer::new(&conditions.rate, now);
            if let Some(unsent) = unsent {
                self.first_ends = self.serializer.send(now, unsent);
            }
            (self.busy, self.busy_bytes) = (self.busy + 1, 0);
        }
        self.delay = nanos(conditions.delay_ms);
        self.jitter_bound = nanos(conditions.jitter_bound_ms());
        self.in_burst &= matches!(conditions.loss, Loss::Bursts { .. });
        self.conditions = conditions;
        self.advance(now);
    }

    /// Takes a packet of `bytes` at `now`, which is not before the `now` of any call before.
    ///
    /// Gives back a packet that is dropped, for its memory to be used again.
    pub fn push(&mut self, now: Nanos, bytes: u32, packet: P) -> Option<P> {
        self.advance(now);
        self.counters.packets_in += 1;
        self.counters.bytes_in += u64::from(bytes);
        let full = match self.conditions.queue {
            Queue::Packets(most) => self.queue.len() >= most as usize,
            Queue::Bytes(most) => self.queue_bytes + u64::from(bytes) > u64::from(most),
        };
        if full && self.conditions.rate != crate::conditions::Rate::Unlimited {
            self.counters.dropped_queue += 1;
            return Some(packet);
        }
        if self.flying_bytes + u64::from(bytes) > FLIGHT_BYTES_MAX {
            self.counters.dropped_flight += 1;
            return Some(packet);
        }
        if self.queue.is_empty() {
            if self.first_ends != now || self.busy_bytes == 0 {
                (self.busy, self.busy_bytes) = (self.busy + 1, 0);
            }
            self.first_ends = self.serializer.send(now, bytes);
        }
        self.queue.push_back(Waiting { packet, bytes });
        self.queue_bytes += u64::from(bytes);
        // What takes no time has been sent.
        self.advance(now);
        self.counters.queue_bytes_max = self.counters.queue_bytes_max.max(self.queue_bytes);
        None
    }

    /// The instant at which [`Link::pop`] may have something; never later than it has. `None` when nothing is inside.
    pub fn next_due(&self) -> Option<Nanos> {
        let flying = self.flying.peek().map(|Reverse(f)| f.due);
        let first = (!self.queue.is_empty()).then(|| {
            let soonest = self.first_ends + self.delay - self.jitter_bound;
            // A packet that may not pass another waits for it.
            if self.conditions.reordering.is_some() { soonest } else { soonest.max(self.last_due) }
        });
        flying.into_iter().chain(first).min()
    }

    /// The next packet that is due at `now` or before, in order of due instants.
    pub fn pop(&mut self, now: Nanos) -> Option<Due<P>> {
        self.advance(now);
        self.flying.peek().filter(|Reverse(f)| f.due <= now)?;
        let Reverse(flying) = self.flying.pop()?;
        let due = flying.content;
        self.flying_bytes -= u64::from(due.bytes);
        self.counters.packets_out += 1;
        self.counters.bytes_out += u64::from(due.bytes);
        self.counters.reordered += u64::from(flying.order < self.handed_over);
        self.handed_over = self.handed_over.max(flying.order + 1);
        Some(due)
    }

    /// Lets the wire send what it sends up to `now`.
    fn advance(&mut self, now: Nanos) {
        while self.first_ends <= now
            && let Some(waiting) = self.queue.pop_front()
        {
            let ended = self.first_ends;
            self.queue_bytes -= u64::from(waiting.bytes);
            self.busy_bytes += u64::from(waiting.bytes);
            self.travel(ended, waiting);
            if let Some(next) = self.queue.front() {
                self.first_ends = self.serializer.send(ended, next.bytes);
            }
        }
    }

    /// A packet leaves the wire at `sent`.
    fn travel(&mut self, sent: Nanos, waiting: Waiting<P>) {
        if self.gets_lost() {
            self.counters.lost += 1;
            return;
        }
        let mut due = (sent + self.delay + self.jitter()).max(sent);
        due = due.max(self.last_due);
        let held_back = self
            .conditions
            .reordering
            .filter(|r| r.probability > 0.0 && self.chance.reordering.random_bool(r.probability));
        match held_back {
            Some(reordering) => due += nanos(reordering.extra_ms),
            None => self.last_due = due,
        }
        let Waiting { packet, bytes } = waiting;
        let content = Due { packet, bytes, due, sent, busy: self.busy, busy_bytes: self.busy_bytes };
        self.flying.push(Reverse(Flying { due, order: self.sent, content }));
        self.flying_bytes += u64::from(bytes);
        self.sent += 1;
    }

    fn gets_lost(&mut self) -> bool {
        match self.conditions.loss {
            Loss::None => false,
            Loss::Independent(p) => self.chance.loss.random_bool(p),
            Loss::Bursts { good_to_bad, bad_to_good, bad, good } => {
                let lost = self.chance.loss.random_bool(if self.in_burst { bad } else { good });
                let turn = if self.in_burst { bad_to_good } else { good_to_bad };
                self.in_burst ^= self.chance.loss.random_bool(turn);
                lost
            }
        }
    }

    fn jitter(&mut self) -> Nanos {
        let jitter = self.conditions.jitter_ms;
        if jitter == 0.0 {
            return Nanos::ZERO;
        }
        let rng = &mut self.chance.jitter;
        let deviation = match self.conditions.jitter_shape {
            JitterShape::Uniform => rng.random_range(-1.0..=1.0),
            JitterShape::Normal => normal(rng).clamp(-NORMAL_CUT, NORMAL_CUT),
        };
        nanos(jitter * deviation)
    }
}

/// A draw from the standard normal distribution, by the method of Box and Muller (1958).
fn normal(rng: &mut ChaCha8Rng) -> f64 {
    // 1 - [0, 1) is never 0, whose logarithm is not finite.
    let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
    radius * (std::f64::consts::TAU * rng.random::<f64>()).cos()
}

#[cfg(test)]
mod tests;
