//! Scheduling lag: how late a thread that sleeps is woken. It is what a program on this machine feels of steal, of
//! pressure and of deep sleep states, measured rather than inferred.
//!
//! A thread of the sampler's own sleeps until the next multiple of [`PERIOD`], without slack of its timer, and looks how
//! late it is. It starts with the first row and ends with the sampler. `/proc/schedstat`, where the kernel has it, adds
//! the time that all threads together waited for a CPU.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use probe::{ColumnType, Table, Value};
use rustix::thread::ClockId;
use units::{Clock, MonotonicClock, Nanos};

use super::source::Source;
use super::text::{lines, number, words};
use super::{Kind, Root, Target};
use crate::sampler::{Rows, Sampler, SamplerInfo};

/// How it is chosen and opened.
pub(super) const KIND: Kind =
    Kind { name: "lag", default: true, target: Target::None, open: |root, _| Ok(Box::new(Lag::new(root))) };

const DESCRIPTION: &str = "how late a sleeping thread is woken, and how long threads wait for a CPU";
/// Time between two wake-ups: five in each row at 10 Hz. Each costs 5 µs of CPU and more on a busy machine.
const PERIOD: Nanos = Nanos::from_millis(20);

/// What the thread has seen since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Late {
    wakes: u64,
    sum_ns: u64,
    max_ns: u64,
}

impl Late {
    /// Woken at `now` though `due` was meant. Gives when to wake next: instants that have passed are left out, and the
    /// lateness counts once.
    fn woken(&mut self, due: Nanos, now: Nanos) -> Nanos {
        let late_ns = u64::try_from(now.0 - due.0).unwrap_or(0);
        self.wakes += 1;
        self.sum_ns = self.sum_ns.saturating_add(late_ns);
        self.max_ns = self.max_ns.max(late_ns);
        Nanos(due.0 + (late_ns as i64 / PERIOD.0 + 1) * PERIOD.0)
    }
}

struct Sleeper {
    stop: Arc<AtomicBool>,
    late: Arc<Mutex<Late>>,
    thread: Option<JoinHandle<()>>,
}

impl Sleeper {
    fn start() -> std::io::Result<Self> {
        let (stop, late) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Late>>::default());
        let (stopped, seen) = (Arc::clone(&stop), Arc::clone(&late));
        let thread = std::thread::Builder::new().name("agent-lag".into()).spawn(move || {
            // Otherwise the kernel may add 50 µs to each sleep. Where it refuses they are part of what is told.
            let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
            let mut due = MonotonicClock.now() + PERIOD;
            while !stopped.load(Ordering::Relaxed) {
                let until = rustix::thread::Timespec {
                    tv_sec: due.0 / 1_000_000_000,
                    tv_nsec: due.0 % 1_000_000_000,
                };
                if rustix::thread::clock_nanosleep_absolute(ClockId::Monotonic, &until).is_ok() {
                    let now = MonotonicClock.now();
                    due = seen.lock().unwrap_or_else(PoisonError::into_inner).woken(due, now);
                }
            }
        })?;
        Ok(Self { stop, late, thread: Some(thread) })
    }

    fn take(&self) -> Late {
        std::mem::take(&mut self.late.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It looks at each wake-up.
            let _ = thread.join();
        }
    }
}

/// The time that threads waited for a CPU, summed over the cores of `/proc/schedstat` (sched-stats.rst, field 8).
fn waited_ns(text: &[u8]) -> Option<u64> {
    let cores = lines(text).filter(|line| line.starts_with(b"cpu"));
    let waits = cores.filter_map(|line| words(line).nth(8).and_then(number));
    waits.fold(None, |sum: Option<u64>, wait| Some(sum.unwrap_or(0).saturating_add(wait)))
}

struct Lag {
    /// Only where the kernel has it.
    schedstat: Option<Source>,
    table: Table,
    sleeper: Option<Sleeper>,
    waited_ns: u64,
    failed: bool,
}

impl Lag {
    fn new(root: &Root) -> Self {
        let mut source = Source::new(root.proc("schedstat"));
        let told = source.text().is_ok_and(|text| waited_ns(text).is_some());
        let table = Table::new(KIND.name, DESCRIPTION)
            .column("wakes", ColumnType::U64, "1", "wake-ups since the row before, one due each 20 ms")
            .column("late_max_ns", ColumnType::U64, "ns", "how late the latest of them was; 0 without any")
            .column("late_mean_ns", ColumnType::U64, "ns", "how late they were on average; 0 without any");
        let table = match told {
            false => table,
            true => table.column(
                "waited_ns",
                ColumnType::U64,
                "ns",
                "time since boot that threads were ready and waited for a CPU, summed over threads",
            ),
        };
        Self { schedstat: told.then_some(source), table, sleeper: None, waited_ns: 0, failed: false }
    }
}

impl Sampler for Lag {
    fn info(&self) -> SamplerInfo {
        let mut source = "a thread that sleeps for 20 ms at a time".to_owned();
        if self.schedstat.is_some() {
            source.push_str(", /proc/schedstat");
        }
        SamplerInfo {
            name: KIND.name.into(),
            description: DESCRIPTION.into(),
            source,
            default: KIND.default,
            tables: vec![self.table.clone()],
            unavailable: String::new(),
        }
    }

    fn sample(&mut self, rows: &mut dyn Rows) {
        let sleeper = match &self.sleeper {
            Some(sleeper) => sleeper,
            None => match Sleeper::start() {
                Ok(sleeper) => self.sleeper.insert(sleeper),
                Err(error) => {
                    if !std::mem::replace(&mut self.failed, true) {
                        rows.mark("source_gone", &format!("no thread for lag: {error}"));
                    }
                    return;
                }
            },
        };
        let late = sleeper.take();
        let at = MonotonicClock.now();
        let mean = late.sum_ns.checked_div(late.wakes).unwrap_or(0);
        let values = [late.wakes, late.max_ns, mean, self.waited_ns].map(Value::U64);
        match &mut self.schedstat {
            None => rows.row(&self.table, at, &values[..3]),
            Some(source) => {
                self.waited_ns = source.parse(rows, waited_ns).unwrap_or(self.waited_ns);
                let [wakes, max, mean, _] = values;
                rows.row(&self.table, at, &[wakes, max, mean, Value::U64(self.waited_ns)]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samplers::testing::{Taken, fixture};
    use std::time::{Duration, Instant};

    #[test]
    fn lateness_counts_once_however_many_wakes_it_swallows() {
        let mut late = Late::default();
        let ms = Nanos::from_millis;
        assert_eq!(late.woken(ms(20), Nanos(ms(20).0 + 60_000)), ms(40));
        assert_eq!(late.woken(ms(40), ms(97)), ms(100));
        assert_eq!(late.woken(ms(100), ms(120)), ms(140), "the one due now is over too");
        assert_eq!(late, Late { wakes: 3, sum_ns: 77_060_000, max_ns: 57_000_000 });
    }

    #[test]
    fn waits_of_all_cores_are_summed() {
        let text = "version 17\ntimestamp 4295\ncpu0 0 0 0 0 0 0 85 40 1296\ndomain0 MC 3 1 2\n\
            cpu1 0 0 0 0 0 0 85 2 1296\n";
        assert_eq!(waited_ns(text.as_bytes()), Some(42));
        for text in ["", "version 17\n", "cpu0 1 2 3\n", "cpu0 0 0 0 0 0 0 85 x 1"] {
            assert_eq!(waited_ns(text.as_bytes()), None, "{text}");
        }
        let (_dir, root) = fixture(&[("proc/schedstat", text)]);
        assert_eq!(Taken::of(&mut Lag::new(&root)).count("lag", "waited_ns"), 42);
    }

    #[test]
    fn a_sleeper_tells_how_late_it_was_woken() {
        let mut lag = Lag::new(&Root::at("/nowhere"));
        let deadline = Instant::now() + Duration::from_secs(20);
        let (mut wakes, mut max) = (0, 0);
        while wakes < 3 {
            assert!(Instant::now() < deadline, "never woken");
            let taken = Taken::of(&mut lag);
            let count = |column| taken.count("lag", column);
            wakes += count("wakes");
            max = max.max(count("late_max_ns"));
            assert!(count("late_mean_ns") <= count("late_max_ns"));
            std::thread::yield_now();
        }
        assert!(max > 0, "no thread is woken at the very nanosecond");
    }
}
