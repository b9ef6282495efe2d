//! Rows of the program that this thread is part of: its probe's, and small samples of itself.

use std::time::{Duration, Instant};

use probe::{Drain, Emitter, Probe};

use crate::AgentOptions;
use crate::machine::Machine;
use crate::outbox::Outbox;
use crate::process::ProcessTree;
use crate::worker::Feed;

/// Time between two samples of `/proc`.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How much too early a sample may be, to save a wake-up of its own: half the time between the collector's questions.
const SAMPLE_EARLY: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Program {
    drain: Drain,
    drain_every: Duration,
    process: (ProcessTree, Emitter),
    machine: Option<(Machine, Emitter)>,
    next_sample: Instant,
    next_drain: Instant,
}

impl Program {
    pub(crate) fn new(options: &AgentOptions, probe: &Probe) -> Result<Self, probe::TableError> {
        let process = (ProcessTree::of_self(), probe.declare(ProcessTree::table(), 64)?);
        let machine = if options.machine {
            Some((Machine::default(), probe.declare(Machine::table(), 64)?))
        } else {
            None
        };
        let (drain, drain_every, now) = (probe.drain(), options.drain_every, Instant::now());
        Ok(Self { drain, drain_every, process, machine, next_sample: now, next_drain: now })
    }

    fn sample(&mut self) {
        let (tree, emitter) = &mut self.process;
        tree.sample(emitter);
        if let Some((machine, emitter)) = &mut self.machine {
            machine.sample(emitter);
        }
    }

    fn drain(&mut self, outbox: &mut Outbox) {
        self.drain.poll(|batch| {
            let Some(index) = outbox.table(batch.table) else { return };
            if batch.lost > 0 {
                outbox.lost(&batch.table.name, batch.lost);
            }
            if !batch.words.is_empty() {
                outbox.rows(index, batch.words);
            }
        });
        outbox.tell_lost();
    }
}

impl Feed for Program {
    fn begin(&mut self, _: &mut Outbox) {
        self.sample();
        self.next_sample = Instant::now() + SAMPLE_EVERY;
    }

    fn due(&self) -> Instant {
        self.next_drain
    }

    /// To wake is what costs: the collector's question is answered, rows are sent and a sample is taken in one.
    fn collect(&mut self, outbox: &mut Outbox, _awake: bool) {
        let now = Instant::now();
        if now + SAMPLE_EARLY >= self.next_sample {
            self.sample();
            // Late samples are not made up for: their rows carry the instant.
            self.next_sample = (self.next_sample + SAMPLE_EVERY).max(now);
        }
        self.drain(outbox);
        self.next_drain = now + self.drain_every;
    }

    fn end(&mut self, outbox: &mut Outbox) {
        self.sample();
        self.drain(outbox);
    }
}
