//! Absolute ticks: tick k is due at start + k / rate, so that lateness never adds up.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use units::{Clock, MonotonicClock, Nanos};

/// A descriptor that becomes readable at each tick.
#[derive(Debug)]
pub struct Ticker {
    timer: OwnedFd,
    start: Nanos,
    rate: f64,
    next: u64,
}

/// A tick that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Its number from 0.
    pub number: u64,
    /// When it was due, after the start.
    pub at: Nanos,
    /// Ticks before it that went by unseen: there is no burst to catch up.
    pub missed: u64,
}

impl Ticker {
    /// Starts now: tick 0 is due at once. `rate` is in Hz.
    ///
    /// # Errors
    /// No timer is to be had.
    pub fn start(rate: f64) -> Result<Self, Errno> {
        let timer =
            timerfd_create(TimerfdClockId::Monotonic, TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC)?;
        let ticker = Self { timer, start: MonotonicClock.now(), rate, next: 0 };
        ticker.arm()?;
        Ok(ticker)
    }

    /// The instant of tick 0.
    pub fn started(&self) -> Nanos {
        self.start
    }

    /// The tick that has come, if one has; of several the last. Arms the timer for the one after it.
    ///
    /// # Errors
    /// The timer broke.
    pub fn take(&mut self) -> Result<Option<Tick>, Errno> {
        let now = MonotonicClock.now();
        if now < self.start + due(self.next, self.rate) {
            return Ok(None);
        }
        let number = last_due(now - self.start, self.rate, self.next);
        let tick = Tick { number, at: due(number, self.rate), missed: number - self.next };
        self.next = number + 1;
        self.arm()?;
        Ok(Some(tick))
    }

    fn arm(&self) -> Result<(), Errno> {
        // Zero would disarm the timer.
        let at = (self.start + due(self.next, self.rate)).0.max(1);
        let value = Timespec { tv_sec: at / 1_000_000_000, tv_nsec: at % 1_000_000_000 };
        let once = Itimerspec { it_interval: Timespec { tv_sec: 0, tv_nsec: 0 }, it_value: value };
        timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &once)?;
        Ok(())
    }
}

impl AsFd for Ticker {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

fn due(number: u64, rate: f64) -> Nanos {
    Nanos((number as f64 * 1e9 / rate) as i64)
}

fn last_due(elapsed: Nanos, rate: f64, at_least: u64) -> u64 {
    let mut number = ((elapsed.0 as f64 * rate / 1e9) as u64).max(at_least);
    // Rounding may put it one too high or too low.
    while number > at_least && due(number, rate) > elapsed {
        number -= 1;
    }
    while due(number + 1, rate) <= elapsed {
        number += 1;
    }
    number
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_tick_due_is_found_at_every_rate() {
        for rate in [0.5, 23.976, 30.0, 59.94, 144.0] {
            for number in [0u64, 1, 2, 999, 1_000_000] {
                let at = due(number, rate);
                assert_eq!(last_due(at, rate, 0), number, "{rate} {number}");
                assert_eq!(last_due(at + Nanos(1000), rate, 0), number);
                if number > 0 {
                    assert_eq!(last_due(at - Nanos(2), rate, 0), number - 1);
                }
            }
        }
    }

    #[test]
    fn ticks_come_in_order_and_account_for_every_one() {
        let mut ticker = Ticker::start(2000.0).unwrap();
        let mut expected = 0;
        while expected < 50 {
            let mut fds = [rustix::event::PollFd::new(&ticker, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
            if let Some(tick) = ticker.take().unwrap() {
                assert_eq!(tick.number, expected + tick.missed);
                assert!(MonotonicClock.now() >= ticker.started() + tick.at);
                expected = tick.number + 1;
            }
        }
    }
}
