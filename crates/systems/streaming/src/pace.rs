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
    /// The tick from which the present rate counts, and when it is due after the start.
    base: (u64, Nanos),
    /// When the last tick was due after the start.
    last: Option<Nanos>,
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
        let ticker =
            Self { timer, start: MonotonicClock.now(), rate, next: 0, base: (0, Nanos::ZERO), last: None };
        ticker.arm()?;
        Ok(ticker)
    }

    /// The instant of tick 0.
    pub fn started(&self) -> Nanos {
        self.start
    }

    /// The present rate, in Hz.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// The tick that has come, if one has; of several the last. Arms the timer for the one after it.
    ///
    /// # Errors
    /// The timer broke.
    pub fn take(&mut self) -> Result<Option<Tick>, Errno> {
        let now = MonotonicClock.now();
        if now < self.start + self.due(self.next) {
            return Ok(None);
        }
        let (first, at) = self.base;
        let number = first + last_due(now - self.start - at, self.rate, self.next - first);
        let tick = Tick { number, at: self.due(number), missed: number - self.next };
        self.next = number + 1;
        self.last = Some(tick.at);
        self.arm()?;
        Ok(Some(tick))
    }

    /// Another rate, in Hz: the next tick is due a new period after the last one, or at once when that is over.
    ///
    /// # Errors
    /// The timer broke.
    pub fn set_rate(&mut self, rate: f64) -> Result<(), Errno> {
        let elapsed = MonotonicClock.now() - self.start;
        let at = self.last.map_or(elapsed, |last| (last + due(1, rate)).max(elapsed));
        (self.base, self.rate) = ((self.next, at), rate);
        self.arm()
    }

    fn due(&self, number: u64) -> Nanos {
        self.base.1 + due(number - self.base.0, self.rate)
    }

    fn arm(&self) -> Result<(), Errno> {
        // Zero would disarm the timer.
        let at = (self.start + self.due(self.next)).0.max(1);
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
    fn another_rate_goes_on_from_the_last_tick() {
        let mut ticker = Ticker::start(1000.0).unwrap();
        let next = |ticker: &mut Ticker| loop {
            let mut fds = [rustix::event::PollFd::new(ticker, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
            if let Some(tick) = ticker.take().unwrap() {
                break tick;
            }
        };
        let mut last = next(&mut ticker);
        for rate in [100.0, 0.001, 100.0, 500.0] {
            ticker.set_rate(rate).unwrap();
            if rate < 1.0 {
                assert_eq!(ticker.take().unwrap(), None, "the next is far away");
                continue;
            }
            let tick = next(&mut ticker);
            assert_eq!(tick.number, last.number + 1 + tick.missed);
            assert!(tick.at - last.at >= due(1, rate), "{rate}: {tick:?} after {last:?}");
            last = tick;
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
