//! What disturbed a run from outside: time that others took of the machine, and time in which nobody looked.
//!
//! What the run's own programs use is never called a disturbance: it is subtracted where others' use is sought, and
//! waiting for a CPU counts only while the run's own programs leave CPUs free. All instants are nanoseconds on the
//! collector's clock. Changing anything here that can change a verdict needs a new [`VERSION`].

/// Version of the definition.
pub const VERSION: u32 = 1;

/// Share of the window's time from which on a disturbance flags a run: what happens in a twentieth of the time decides
/// a 95th percentile.
pub const WORTH: f64 = 0.05;
/// Share of the machine's CPU time that the hypervisor may give to others: 3 % of a second are a frame at 30 fps.
pub const STEAL: f64 = 0.03;
/// Share of the machine that other programs may use. Below lies what no program's account has: interrupts, kernel
/// threads that write to the disk and the network for the run, the rounding of ticks.
pub const OTHERS: f64 = 0.10;
/// Share of time in which some task may wait for a CPU.
pub const CPU_SOME: f64 = 0.25;
/// Share of the machine's CPU time above which the run itself makes tasks wait for a CPU: the waiting is its own then.
pub const OWN_WAIT: f64 = 0.5;
/// Share of time in which all tasks may wait for memory: 10 ms of a second, more than half of a frame at 60 fps.
pub const MEMORY_FULL: f64 = 0.01;
/// Share of time in which all tasks may wait for disks. The collector syncs its files every 0.4 s, which takes 4 ms
/// mostly and 22 ms at times, while all others may be idle: up to some percent are the recording's own.
pub const IO_FULL: f64 = 0.15;
/// How late the scheduler may let a sleeping thread run, in nanoseconds: a third of a frame at 60 fps, and more than a
/// time slice of Linux (3 to 4 ms).
pub const LAG_NS: f64 = 5e6;
/// Share of the machine's CPU time above which the run itself makes threads late.
pub const OWN_LAG: f64 = 0.75;
/// A gap is longer than so many of a table's own periods.
pub const GAP_PERIODS: f64 = 3.0;
/// And longer than this, in nanoseconds: an agent looks once or twice a second, and may be late by some of it.
pub const GAP_LEAST_NS: i64 = 500_000_000;
/// Samples of counters that lie closer are taken together, in nanoseconds: the kernel counts most of them in ticks of
/// 10 ms, so that a shorter interval shows the rounding of ticks.
pub const TOGETHER_NS: i64 = 900_000_000;

/// A sum that only grows, over time.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counter {
    t_ns: Vec<i64>,
    total: Vec<f64>,
}

impl Counter {
    /// Of samples in any order of time. Where a value falls (the program behind it was started again), it goes on from
    /// there; samples at one instant and values that are no numbers are left out.
    pub fn new(samples: impl IntoIterator<Item = (i64, f64)>) -> Self {
        let mut samples: Vec<_> = samples.into_iter().filter(|s| s.1.is_finite()).collect();
        samples.sort_by_key(|s| s.0);
        let (mut counter, mut before) = (Self::default(), None);
        for (t, value) in samples {
            if counter.t_ns.last() == Some(&t) {
                continue;
            }
            let grown = before.map_or(0.0, |b: f64| (value - b).max(0.0));
            counter.total.push(counter.total.last().copied().unwrap_or(0.0) + grown);
            counter.t_ns.push(t);
            before = Some(value);
        }
        counter
    }

    /// True when nothing can be said from it: fewer than two samples.
    pub fn is_empty(&self) -> bool {
        self.t_ns.len() < 2
    }

    /// True when it never grew: the kernel does not tell this.
    pub fn is_still(&self) -> bool {
        self.total.last().is_none_or(|t| *t == 0.0)
    }

    /// Instants of its samples, rising.
    pub fn t_ns(&self) -> &[i64] {
        &self.t_ns
    }

    /// How much it grew between two instants, as a line between samples; nothing before the first and after the last.
    pub fn grown(&self, from: i64, to: i64) -> f64 {
        self.at(to) - self.at(from)
    }

    fn at(&self, t: i64) -> f64 {
        let after = self.t_ns.partition_point(|x| *x <= t);
        let Some(before) = after.checked_sub(1) else { return 0.0 };
        if after == self.t_ns.len() {
            return self.total[before];
        }
        let part = t.saturating_sub(self.t_ns[before]) as f64
            / self.t_ns[after].saturating_sub(self.t_ns[before]) as f64;
        self.total[before] + part * (self.total[after] - self.total[before])
    }

    /// Its samples as intervals of at least [`TOGETHER_NS`], those that overlap `window`.
    fn intervals(&self, window: [i64; 2]) -> Vec<[i64; 2]> {
        let mut intervals = Vec::new();
        let mut start = None;
        for t in &self.t_ns {
            match start {
                Some(s) if t.saturating_sub(s) < TOGETHER_NS => continue,
                Some(s) if *t > window[0] && s < window[1] => intervals.push([s, *t]),
                _ => {}
            }
            start = Some(*t);
        }
        // What is left at the end is too short for an interval of its own.
        if let (Some(last), Some(t)) = (intervals.last_mut(), self.t_ns.last())
            && start == Some(last[1])
        {
            last[1] = *t;
        }
        intervals
    }
}

/// The machine of one panel, as far as it was sampled.
#[derive(Clone, Debug, Default)]
pub struct Machine {
    /// CPU time of all kinds and cores, idle included, nanoseconds.
    pub cpu: Counter,
    /// CPU time that programs and the kernel used.
    pub busy: Counter,
    /// CPU time that the hypervisor gave to others.
    pub steal: Counter,
    /// CPU time of each program of the run on this machine, with its descendants.
    pub own: Vec<Counter>,
    /// CPU time of all that the study started on this machine, the programs in `own` included.
    pub study: Counter,
    /// Time in which some task waited for a CPU, nanoseconds.
    pub cpu_some: Counter,
    /// Time in which all tasks waited for memory, nanoseconds.
    pub memory_full: Counter,
    /// Time in which all tasks waited for disks, nanoseconds.
    pub io_full: Counter,
    /// Worst lateness of a thread since the sample before: instant and nanoseconds, in order of time.
    pub lag: Vec<(i64, f64)>,
}

/// One disturbance.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// `steal`, `others`, `pressure`, `lag`, `gap`.
    pub kind: &'static str,
    /// Share of the window's time, 0 to 1.
    pub share: f64,
    /// For people: numbers with units, and the threshold.
    pub text: String,
    /// When, within the window: rising, apart from each other.
    pub spans_ns: Vec<[i64; 2]>,
}

/// The verdict on one machine.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Verdict {
    /// What was found.
    pub found: Vec<Found>,
    /// The kinds that could be judged.
    pub judged: Vec<&'static str>,
}

/// An interval and a value in it.
struct Seen {
    span: [i64; 2],
    value: f64,
}

/// What lies above a threshold.
struct Above {
    share: f64,
    mean: f64,
    worst: f64,
    spans: Vec<[i64; 2]>,
}

/// Parts of the window in which `seen` is above `threshold`; `None` when there are none.
fn above(seen: &[Seen], threshold: f64, window: [i64; 2]) -> Option<Above> {
    let (mut spans, mut weighted, mut worst, mut time) = (Vec::new(), 0.0, 0.0f64, 0.0);
    for s in seen.iter().filter(|s| s.value > threshold) {
        let Some(span) = clip(s.span, window) else { continue };
        let took = length(span);
        (weighted, time, worst) = (weighted + s.value * took, time + took, worst.max(s.value));
        spans.push(span);
    }
    let spans = merged(spans);
    (time > 0.0).then(|| Above { share: share(&spans, window), mean: weighted / time, worst, spans })
}

/// Nanoseconds; instants from hostile files may lie farther apart than an integer holds.
fn length(span: [i64; 2]) -> f64 {
    span[1] as f64 - span[0] as f64
}

fn clip(span: [i64; 2], window: [i64; 2]) -> Option<[i64; 2]> {
    let span = [span[0].max(window[0]), span[1].min(window[1])];
    (span[0] < span[1]).then_some(span)
}

/// Spans in order, those that touch made one.
pub fn merged(mut spans: Vec<[i64; 2]>) -> Vec<[i64; 2]> {
    spans.sort_unstable();
    let mut out: Vec<[i64; 2]> = Vec::with_capacity(spans.len());
    for span in spans {
        match out.last_mut() {
            Some(last) if span[0] <= last[1] => last[1] = last[1].max(span[1]),
            _ => out.push(span),
        }
    }
    out
}

/// Share of the window that merged spans cover, 0 to 1.
pub fn share(spans: &[[i64; 2]], window: [i64; 2]) -> f64 {
    let covered: f64 = spans.iter().filter_map(|s| clip(*s, window)).map(length).sum();
    if window[1] > window[0] { covered / length(window) } else { 0.0 }
}

/// Judges a machine over the recorded window.
pub fn judge(machine: &Machine, window: [i64; 2]) -> Verdict {
    let mut verdict = Verdict::default();
    let parts =
        [steal(machine, window), others(machine, window), pressure(machine, window), lag(machine, window)];
    for (kind, found) in ["steal", "others", "pressure", "lag"].into_iter().zip(parts) {
        if let Some(found) = found {
            verdict.judged.push(kind);
            verdict.found.extend(found);
        }
    }
    verdict
}

impl Machine {
    /// Share of the machine's CPU time that a counter grew by.
    fn part(&self, counter: &Counter, span: [i64; 2]) -> f64 {
        let all = self.cpu.grown(span[0], span[1]);
        if all > 0.0 { counter.grown(span[0], span[1]) / all } else { 0.0 }
    }

    /// Share of the machine's CPU time that the run itself used; `None` when nobody sampled its programs.
    fn own_part(&self, span: [i64; 2]) -> Option<f64> {
        if self.cpu.is_empty() || (self.own.iter().all(Counter::is_empty) && self.study.is_empty()) {
            return None;
        }
        let programs: f64 = self.own.iter().map(|c| self.part(c, span)).sum();
        // The study's account holds the programs' on its machine; on another it holds nothing.
        Some(programs.max(self.part(&self.study, span)))
    }
}

fn steal(machine: &Machine, window: [i64; 2]) -> Option<Vec<Found>> {
    if machine.steal.is_empty() || machine.cpu.is_empty() {
        return None;
    }
    let seen = |span| Seen { span, value: machine.part(&machine.steal, span) };
    let seen: Vec<_> = machine.steal.intervals(window).into_iter().map(seen).collect();
    let text = |a: &Above| {
        format!(
            "the hypervisor gave {:.1} % of the machine's CPU time to others, {:.1} % at worst (threshold {:.0} %)",
            100.0 * a.mean,
            100.0 * a.worst,
            100.0 * STEAL
        )
    };
    Some(found("steal", above(&seen, STEAL, window), text))
}

fn others(machine: &Machine, window: [i64; 2]) -> Option<Vec<Found>> {
    machine.own_part(window)?;
    if machine.busy.is_empty() {
        return None;
    }
    let seen = |span| {
        let own = machine.own_part(span).unwrap_or(0.0);
        Seen { span, value: machine.part(&machine.busy, span) - own }
    };
    let seen: Vec<_> = machine.busy.intervals(window).into_iter().map(seen).collect();
    let text = |a: &Above| {
        let own = a.spans.iter().filter_map(|s| machine.own_part(*s)).fold(0.0, f64::max);
        format!(
            "other programs used {:.0} % of the machine's CPU time, {:.0} % at worst (threshold {:.0} %; the run's own used {:.0} %)",
            100.0 * a.mean,
            100.0 * a.worst,
            100.0 * OTHERS,
            100.0 * own
        )
    };
    Some(found("others", above(&seen, OTHERS, window), text))
}

fn pressure(machine: &Machine, window: [i64; 2]) -> Option<Vec<Found>> {
    let rate = |counter: &Counter, keep: &dyn Fn([i64; 2]) -> bool| -> Vec<Seen> {
        let spans = counter.intervals(window).into_iter().filter(|s| keep(*s));
        spans.map(|span| Seen { span, value: counter.grown(span[0], span[1]) / length(span) }).collect()
    };
    // Without the run's own share nobody can say whose waiting it is.
    let not_own = |span: [i64; 2]| machine.own_part(span).is_some_and(|own| own < OWN_WAIT);
    type Kind<'a> = (&'a Counter, f64, &'a str, &'a dyn Fn([i64; 2]) -> bool);
    let kinds: [Kind<'_>; 3] = [
        (&machine.cpu_some, CPU_SOME, "some task waited for a CPU, which the run did not need,", &not_own),
        (&machine.memory_full, MEMORY_FULL, "all tasks waited for memory", &|_| true),
        (&machine.io_full, IO_FULL, "all tasks waited for disks", &|_| true),
    ];
    let (mut all, mut known) = (Vec::new(), false);
    for (counter, threshold, what, keep) in kinds {
        known |= !counter.is_empty() && !counter.is_still();
        let text = |a: &Above| {
            format!(
                "{what} {:.0} % of the time, {:.0} % at worst (threshold {:.0} %)",
                100.0 * a.mean,
                100.0 * a.worst,
                100.0 * threshold
            )
        };
        all.extend(found("pressure", above(&rate(counter, keep), threshold, window), text));
    }
    known.then_some(all)
}

fn lag(machine: &Machine, window: [i64; 2]) -> Option<Vec<Found>> {
    if machine.lag.len() < 2 {
        return None;
    }
    let pairs = machine.lag.windows(2).map(|w| Seen { span: [w[0].0, w[1].0], value: w[1].1 });
    let seen: Vec<_> = pairs.filter(|s| machine.own_part(s.span).is_none_or(|own| own < OWN_LAG)).collect();
    let text = |a: &Above| {
        format!(
            "threads ran up to {:.1} ms late, {:.1} ms on average of the worst (threshold {:.0} ms)",
            a.worst / 1e6,
            a.mean / 1e6,
            LAG_NS / 1e6
        )
    };
    Some(found("lag", above(&seen, LAG_NS, window), text))
}

fn found(kind: &'static str, above: Option<Above>, text: impl Fn(&Above) -> String) -> Vec<Found> {
    let make = |a: Above| Found { kind, share: a.share, text: text(&a), spans_ns: a.spans };
    above.map(make).into_iter().collect()
}

/// Where a table that is filled at a steady pace has no samples for longer than [`GAP_PERIODS`] of its own periods,
/// within the window. `ended`: whether it should reach the window's end. `t_ns` in order of time.
pub fn gaps(name: &str, t_ns: &[i64], window: [i64; 2], ended: bool) -> Option<Found> {
    let mut periods: Vec<f64> = t_ns.windows(2).map(|w| length([w[0], w[1]])).collect();
    let period = crate::quantile(&mut periods, 0.5)?;
    let least = ((period * GAP_PERIODS) as i64).max(GAP_LEAST_NS);
    let inside = t_ns.iter().copied().filter(|t| (window[0]..window[1]).contains(t));
    let before = t_ns.iter().copied().rfind(|t| *t < window[0]).unwrap_or(window[0]);
    let after = t_ns.iter().copied().find(|t| *t >= window[1]).or(ended.then_some(window[1]));
    let instants: Vec<i64> = [before].into_iter().chain(inside).chain(after).collect();
    let long = instants
        .windows(2)
        .filter(|w| w[1].saturating_sub(w[0]) > least)
        .filter_map(|w| clip([w[0], w[1]], window));
    let spans = merged(long.collect());
    let longest = spans.iter().map(|s| s[1].saturating_sub(s[0])).max()?;
    let text = format!(
        "no samples in {name} for up to {:.1} s (one each {:.1} s is usual)",
        longest as f64 / 1e9,
        period / 1e9
    );
    Some(Found { kind: "gap", share: share(&spans, window), text, spans_ns: spans })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: i64 = 1_000_000_000;
    const WINDOW: [i64; 2] = [0, 10 * S];

    /// A counter of so much a second, from -1 s to 11 s.
    fn rates(of: impl Fn(i64) -> f64) -> Counter {
        let mut total = 0.0;
        Counter::new((-1..=11).map(|s| {
            total += of(s) * 1e9;
            (s * S, total)
        }))
    }

    /// Two cores, a quarter used by the run itself.
    fn quiet() -> Machine {
        Machine {
            cpu: rates(|_| 2.0),
            busy: rates(|_| 0.6),
            steal: rates(|_| 0.01),
            own: vec![rates(|_| 0.3), rates(|_| 0.2)],
            cpu_some: rates(|_| 0.05),
            memory_full: rates(|_| 0.0),
            io_full: rates(|_| 0.03),
            lag: (-1..=11).map(|s| (s * S, 4e5)).collect(),
            ..Machine::default()
        }
    }

    #[track_caller]
    fn check(machine: &Machine, expected: &[(&str, f64)]) -> Vec<Found> {
        let verdict = judge(machine, WINDOW);
        let seen: Vec<_> =
            verdict.found.iter().map(|f| (f.kind, (f.share * 100.0).round() / 100.0)).collect();
        assert_eq!(seen, expected, "{:?}", verdict.found);
        verdict.found
    }

    #[test]
    fn a_quiet_machine_has_no_disturbance_and_all_kinds_are_judged() {
        check(&quiet(), &[]);
        assert_eq!(judge(&quiet(), WINDOW).judged, ["steal", "others", "pressure", "lag"]);
    }

    #[test]
    fn load_of_the_run_itself_is_no_disturbance() {
        let busy = Machine {
            busy: rates(|_| 1.95),
            own: vec![rates(|_| 1.2), rates(|_| 0.7)],
            cpu_some: rates(|_| 0.8),
            lag: (-1..=11).map(|s| (s * S, 9e6)).collect(),
            ..quiet()
        };
        check(&busy, &[]);
        // What the study starts beside its panels' programs (a display) is its own too.
        check(&Machine { own: vec![rates(|_| 0.3)], study: rates(|_| 1.9), ..busy.clone() }, &[]);
        check(
            &Machine { own: vec![rates(|_| 0.3)], ..busy },
            &[("others", 1.0), ("pressure", 1.0), ("lag", 1.0)],
        );
    }

    #[test]
    fn others_count_for_the_time_in_which_they_are_there() {
        let found = check(
            &Machine { busy: rates(|s| if (4..=6).contains(&s) { 1.5 } else { 0.6 }), ..quiet() },
            &[("others", 0.3)],
        );
        assert_eq!(found[0].spans_ns, [[3 * S, 6 * S]]);
        assert!(found[0].text.contains("used 50 % of the machine"), "{}", found[0].text);
    }

    #[test]
    fn steal_memory_and_disks_count_whatever_the_run_does() {
        check(&Machine { steal: rates(|s| if s > 5 { 0.2 } else { 0.0 }), ..quiet() }, &[("steal", 0.5)]);
        check(
            &Machine { memory_full: rates(|s| if s == 3 { 0.02 } else { 0.0 }), ..quiet() },
            &[("pressure", 0.1)],
        );
        check(&Machine { io_full: rates(|_| 0.3), ..quiet() }, &[("pressure", 1.0)]);
    }

    #[test]
    fn late_threads_are_a_disturbance_when_the_machine_was_free() {
        let late = (-1..=11).map(|s| (s * S, if s == 8 { 12e6 } else { 1e5 })).collect();
        let found = check(&Machine { lag: late, ..quiet() }, &[("lag", 0.1)]);
        assert!(found[0].text.contains("12.0 ms late"), "{}", found[0].text);
    }

    #[test]
    fn what_nobody_sampled_is_not_judged() {
        assert_eq!(judge(&Machine::default(), WINDOW), Verdict::default());
        let without =
            Machine { own: Vec::new(), cpu_some: rates(|_| 0.0), io_full: rates(|_| 0.0), ..quiet() };
        assert_eq!(judge(&without, WINDOW).judged, ["steal", "lag"]);
    }

    #[test]
    fn rounding_of_ticks_at_ten_samples_a_second_is_no_steal() {
        // One tick of 10 ms each second: 5 % of one interval of 0.1 s on two cores, 0.5 % of a second.
        let tenth = |of: &dyn Fn(i64) -> f64| Counter::new((-10..=110).map(|i| (i * S / 10, of(i))));
        let ticking =
            Machine { cpu: tenth(&|i| i as f64 * 2e8), steal: tenth(&|i| (i / 10) as f64 * 1e7), ..quiet() };
        check(&ticking, &[]);
    }

    #[test]
    fn a_counter_that_starts_again_and_doubled_samples_do_no_harm() {
        let c = Counter::new([(0, 5.0), (10, 7.0), (10, 9.0), (20, 1.0), (30, 4.0), (5, f64::NAN)]);
        assert_eq!((c.grown(0, 30), c.grown(-50, 99), c.grown(0, 5)), (5.0, 5.0, 1.0));
    }

    #[test]
    fn gaps_are_longer_than_three_periods_and_reach_the_windows_ends() {
        let t: Vec<i64> = (-1..=11).filter(|s| !(3..=6).contains(s)).map(|s| s * S).collect();
        let found = gaps("machine", &t, WINDOW, true).unwrap();
        assert_eq!(found.spans_ns, [[2 * S, 7 * S]]);
        assert!(found.text.contains("up to 5.0 s"), "{}", found.text);
        let all: Vec<i64> = (-1..=11).map(|s| s * S).collect();
        assert_eq!(gaps("machine", &all, WINDOW, true), None);
        assert_eq!(gaps("machine", &all[..8], WINDOW, true).map(|f| f.spans_ns), Some(vec![[6 * S, 10 * S]]));
        assert_eq!(gaps("machine", &all[..8], WINDOW, false), None, "the run ended early");
        assert_eq!(gaps("machine", &[], WINDOW, true), None);
    }

    #[test]
    fn the_last_samples_count_though_they_are_less_than_an_interval() {
        let t: Vec<i64> = (0..=6).map(|i| i * S / 4).collect();
        let counter = Counter::new(t.iter().map(|t| (*t, *t as f64)));
        assert_eq!(counter.intervals(WINDOW), [[0, 6 * S / 4]]);
        assert_eq!(counter.intervals([2 * S, 3 * S]), [[0i64; 2]; 0]);
    }

    #[test]
    fn spans_that_touch_are_one() {
        assert_eq!(merged(vec![[5, 7], [0, 2], [2, 3], [6, 9]]), [[0, 3], [5, 9]]);
        assert_eq!(share(&[[0, 3], [5, 9]], [1, 6]), 0.6);
        assert_eq!(share(&[[0, 3]], [4, 4]), 0.0);
    }
}
