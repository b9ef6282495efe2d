//! The threads that move packets, one for each direction.
//!
//! A thread reads its device until it is empty, hands over what is due, puts changes of the schedule into force, and
//! sleeps with ppoll(2) until the next of these. It asks for real-time priority (`SCHED_FIFO`) and goes on without; the
//! slack that the kernel gives to timers of other threads is set to 1 ns. If it was told to ([`Wake::spin`]), it wakes
//! so much before the moment and waits for it in a loop.

#![allow(unsafe_code)] // sched_setscheduler(2), which no crate here wraps

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::time::Timespec;
use units::{Clock, MonotonicClock, Nanos};

use crate::conditions::{Conditions, Rate, Schedule};
use crate::error::NetemError;
use crate::link::{Due, Link};
use crate::report::{DirectionReport, Meter};

/// Packets read before what is due is looked at again: at 1 µs each, they make nothing late.
const BATCH: usize = 16;
/// A buffer holds any packet of the device's MTU.
const BUFFER: usize = 2_048;
/// Buffers kept for use; beyond, memory goes back.
const POOL: usize = 4_096;
/// Above ordinary threads, and below what watches over the machine.
const REAL_TIME_PRIORITY: i32 = 10;
/// The version in the first byte of an IP packet.
const IPV4: u8 = 4;

/// How the threads wake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wake {
    /// For how long before the moment they wait in a loop.
    pub(crate) spin: Nanos,
    /// Whether they ask for real-time priority.
    pub(crate) real_time: bool,
}

struct Packet {
    buffer: Box<[u8]>,
    length: usize,
}

struct State {
    link: Link<Packet>,
    /// Changes to come, as instants of the clock.
    steps: VecDeque<(Nanos, Conditions)>,
    meter: Meter,
    ignored: u64,
    not_written: u64,
}

struct Shared {
    state: Mutex<State>,
    wake: OwnedFd,
    stop: AtomicBool,
    real_time: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Fails only when the counter is full, and then the thread wakes anyway.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }
}

/// One direction at work. Dropping it ends its thread.
pub(crate) struct Engine {
    shared: Arc<Shared>,
    schedule: Schedule,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Moves packets from one device to the other, with the conditions of a schedule that starts now.
    pub(crate) fn start(
        name: &str,
        from: Arc<OwnedFd>,
        to: Arc<OwnedFd>,
        schedule: Schedule,
        seed: u64,
        wake: Wake,
    ) -> Result<Self, NetemError> {
        let now = MonotonicClock.now();
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|e| NetemError::Thread(e.into()))?;
        let state = State {
            link: Link::new(schedule.start.clone(), seed, now),
            steps: steps(&schedule, now),
            meter: Meter::default(),
            ignored: 0,
            not_written: 0,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: event,
            stop: AtomicBool::new(false),
            real_time: AtomicBool::new(false),
        });
        let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
        let mover =
            Mover { shared: Arc::clone(&shared), from, to, spin: wake.spin, pool: Vec::new(), gone: false };
        let thread = std::thread::Builder::new()
            .name(name.into())
            .spawn(move || {
                let had = prepare_thread(wake.real_time);
                mover.shared.real_time.store(had, Ordering::Relaxed);
                let _ = ready.send(());
                mover.run();
            })
            .map_err(NetemError::Thread)?;
        let _ = is_ready.recv();
        Ok(Self { shared, schedule, thread: Some(thread) })
    }

    /// Puts conditions, which have been checked, into force now; what was left of the schedule is forgotten.
    pub(crate) fn set(&self, conditions: Conditions) {
        {
            let mut state = self.shared.lock();
            state.steps.clear();
            state.link.set(MonotonicClock.now(), conditions);
        }
        self.shared.wake();
    }

    /// Starts the schedule again from its beginning, at `now`.
    pub(crate) fn restart(&self, now: Nanos) {
        {
            let mut state = self.shared.lock();
            state.steps = steps(&self.schedule, now);
            // The link's own time may already be later by the time that the lock took.
            let present = MonotonicClock.now();
            state.link.set(present, self.schedule.start.clone());
        }
        self.shared.wake();
    }

    pub(crate) fn had_real_time(&self) -> bool {
        self.shared.real_time.load(Ordering::Relaxed)
    }

    pub(crate) fn report(&self, device_dropped: Option<u64>) -> DirectionReport {
        let (conditions, counters, held, ignored, not_written, meter) = {
            let s = self.shared.lock();
            let link = &s.link;
            let meter = s.meter.clone();
            (link.conditions().clone(), link.counters(), link.held(), s.ignored, s.not_written, meter)
        };
        DirectionReport {
            conditions,
            counters,
            held,
            ignored,
            not_written,
            device_dropped,
            lateness: meter.lateness(),
            rate: meter.rate(),
        }
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.shared.wake();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn steps(schedule: &Schedule, start: Nanos) -> VecDeque<(Nanos, Conditions)> {
    schedule.steps().map(|(since, conditions)| (start + since, conditions)).collect()
}

/// Gives the calling thread timers without slack and, if asked and allowed, real-time priority; says whether it has it.
fn prepare_thread(real_time: bool) -> bool {
    // Without it a timer may be 50 µs late (prctl(2), PR_SET_TIMERSLACK).
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    if !real_time {
        return false;
    }
    let parameters = libc::sched_param { sched_priority: REAL_TIME_PRIORITY };
    // SAFETY: reads `parameters` for the time of the call; 0 means the calling thread.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_FIFO, &raw const parameters) == 0 }
}

/// What the thread works on.
struct Mover {
    shared: Arc<Shared>,
    from: Arc<OwnedFd>,
    to: Arc<OwnedFd>,
    spin: Nanos,
    pool: Vec<Box<[u8]>>,
    gone: bool,
}

impl Mover {
    fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        while !shared.stop.load(Ordering::Relaxed) {
            let (next, more) = {
                let mut state = shared.lock();
                change(&mut state);
                let more = self.read(&mut state);
                self.hand_over(&mut state);
                let step = state.steps.front().map(|(at, _)| *at);
                (state.link.next_due().into_iter().chain(step).min(), more)
            };
            if !more {
                self.sleep(next);
            }
        }
    }

    /// Reads what the device has, to a batch; says whether there may be more.
    fn read(&mut self, state: &mut State) -> bool {
        for _ in 0..BATCH {
            let mut buffer = self.pool.pop().unwrap_or_else(|| vec![0; BUFFER].into_boxed_slice());
            let length = match rustix::io::read(&*self.from, &mut buffer[..]) {
                Ok(length) => length,
                Err(errno) => {
                    // A command with the right to may have taken the device away: then there is nothing to wait for.
                    self.gone |= !matches!(errno, Errno::AGAIN | Errno::INTR);
                    self.pool.push(buffer);
                    return false;
                }
            };
            let now = MonotonicClock.now();
            if buffer[0] >> 4 != IPV4 {
                state.ignored += 1;
                self.pool.push(buffer);
            } else if let Some(dropped) = state.link.push(now, length as u32, Packet { buffer, length }) {
                self.keep(dropped);
            }
        }
        true
    }

    fn hand_over(&mut self, state: &mut State) {
        let limited = state.link.conditions().rate != Rate::Unlimited;
        loop {
            let now = MonotonicClock.now();
            let Some(due) = state.link.pop(now) else { return };
            let Due { packet: Packet { buffer, length }, .. } = &due;
            // Taken before the call, because in it the kernel may deliver the packet and even the answer to it.
            if rustix::io::write(&*self.to, &buffer[..*length]).is_ok() {
                state.meter.add(&due, now, limited);
            } else {
                state.not_written += 1;
            }
            self.keep(due.packet);
        }
    }

    fn keep(&mut self, packet: Packet) {
        if self.pool.len() < POOL {
            self.pool.push(packet.buffer);
        }
    }

    /// Waits until `next`, or until there is something to read or to be told.
    fn sleep(&self, next: Option<Nanos>) {
        let timeout = match next {
            None => None,
            Some(next) => {
                let left = (next - MonotonicClock.now() - self.spin).0;
                if left <= 0 {
                    while MonotonicClock.now() < next {
                        std::hint::spin_loop();
                    }
                    return;
                }
                Some(Timespec { tv_sec: left / 1_000_000_000, tv_nsec: left % 1_000_000_000 })
            }
        };
        let mut fds = [
            PollFd::from_borrowed_fd(self.shared.wake.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd((*self.from).as_fd(), PollFlags::IN),
        ];
        let watched = if self.gone { 1 } else { 2 };
        // An interrupted wait is followed by another.
        let _ = rustix::event::poll(&mut fds[..watched], timeout.as_ref());
        if fds[0].revents().contains(PollFlags::IN) {
            let _ = rustix::io::read(&self.shared.wake, &mut [0; 8]);
        }
    }
}

/// Puts the changes that are due into force.
fn change(state: &mut State) {
    while let Some((at, _)) = state.steps.front() {
        let now = MonotonicClock.now();
        if *at > now {
            return;
        }
        if let Some((_, conditions)) = state.steps.pop_front() {
            state.link.set(now, conditions);
        }
    }
}
