//! The agent's thread: waits for the collector, the program and the clock at once.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::{Duration, Instant};

use probe::{Drain, Emitter, Probe};
use recording::Stream;
use recording::wire::{Decoder, Message, encode_rows};
use rustix::event::{PollFd, PollFlags, Timespec};
use units::{Clock, MonotonicClock};

use crate::machine::Machine;
use crate::process::ProcessTree;
use crate::{AgentError, AgentOptions};

/// Time between two samples of `/proc`.
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// How much too early a sample may be, to save a wake-up of its own: half the time between the collector's questions.
const SAMPLE_EARLY: Duration = Duration::from_millis(250);
/// How long the collector may take nothing before it counts as gone.
const STALL: Duration = Duration::from_secs(5);

/// What the program wants of its agent.
pub(crate) enum Order {
    Send(Message),
    Finish,
}

pub(crate) struct Worker {
    stream: Stream,
    decoder: Decoder,
    drain: Drain,
    declared: usize,
    lost: BTreeMap<String, u64>,
    inbox: Receiver<Order>,
    woken: UnixStream,
    stop: Arc<AtomicBool>,
    drain_every: Duration,
    /// The collector has just woken this thread.
    awake: bool,
    process: (ProcessTree, Emitter),
    machine: Option<(Machine, Emitter)>,
}

impl Worker {
    pub(crate) fn new(
        mut stream: Stream,
        hello: Message,
        options: &AgentOptions,
        probe: &Probe,
        inbox: Receiver<Order>,
        woken: UnixStream,
        stop: Arc<AtomicBool>,
    ) -> Result<Self, AgentError> {
        stream.set_write_timeout(Some(STALL)).map_err(AgentError::System)?;
        stream.write_all(&hello.encode()).map_err(AgentError::System)?;
        let process = (ProcessTree::of_self(), probe.declare(ProcessTree::table(), 64)?);
        let machine = if options.machine {
            Some((Machine::default(), probe.declare(Machine::table(), 64)?))
        } else {
            None
        };
        Ok(Self {
            stream,
            decoder: Decoder::new(),
            drain: probe.drain(),
            declared: 0,
            lost: BTreeMap::new(),
            inbox,
            woken,
            stop,
            drain_every: options.drain_every,
            awake: false,
            process,
            machine,
        })
    }

    /// Works until told to finish or until the collector has gone.
    pub(crate) fn run(mut self) {
        if let Err(error) = self.work() {
            tracing::debug!("the collector is gone: {error}");
        }
        // Whatever the reason: there is nothing more to record, and the program is to know.
        self.stop.store(true, Ordering::Release);
    }

    fn work(&mut self) -> io::Result<()> {
        self.sample();
        let (mut next_sample, mut next_drain) = (Instant::now() + SAMPLE_EVERY, Instant::now());
        loop {
            loop {
                match self.inbox.try_recv() {
                    Ok(Order::Send(message)) => self.stream.write_all(&message.encode())?,
                    Ok(Order::Finish) | Err(TryRecvError::Disconnected) => return self.farewell(),
                    Err(TryRecvError::Empty) => break,
                }
            }
            // To wake is what costs: the collector's question is answered, rows are sent and a sample is taken in one.
            let now = Instant::now();
            if std::mem::take(&mut self.awake) || now >= next_drain {
                if now + SAMPLE_EARLY >= next_sample {
                    self.sample();
                    // Late samples are not made up for: their rows carry the instant.
                    next_sample = (next_sample + SAMPLE_EVERY).max(now);
                }
                self.drain()?;
                next_drain = now + self.drain_every;
            }
            self.wait(next_drain.saturating_duration_since(Instant::now()))?;
        }
    }

    /// Waits for the collector or the program, and answers the collector.
    fn wait(&mut self, time: Duration) -> io::Result<()> {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let (collector, program) = (self.stream.as_fd(), self.woken.as_fd());
        let mut fds = [PollFd::new(&collector, PollFlags::IN), PollFd::new(&program, PollFlags::IN)];
        match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let (collector, program) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if program {
            // What it wakes for is in the inbox; the bytes mean nothing.
            let _ = (&self.woken).read(&mut [0; 256]);
        }
        if collector { self.hear() } else { Ok(()) }
    }

    fn hear(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let count = match self.stream.read(&mut buffer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.decoder.push(&buffer[..count]);
        loop {
            match self.decoder.next_message().map_err(io::Error::other)? {
                None => return Ok(()),
                Some(Message::Ping { id }) => {
                    let t_ns = MonotonicClock.now().0;
                    self.stream.write_all(&Message::Pong { id, t_ns }.encode())?;
                    self.awake = true;
                }
                // This agent ends with its collector, so that nothing is ever sent again.
                Some(Message::Welcome { .. } | Message::Ack { .. }) => {}
                Some(Message::Stop) => self.stop.store(true, Ordering::Release),
                Some(_) => return Err(io::Error::other("the collector sent a message out of place")),
            }
        }
    }

    fn sample(&mut self) {
        let (tree, emitter) = &mut self.process;
        tree.sample(emitter);
        if let Some((machine, emitter)) = &mut self.machine {
            machine.sample(emitter);
        }
    }

    fn drain(&mut self) -> io::Result<()> {
        let (mut out, declared, lost) = (Vec::new(), &mut self.declared, &mut self.lost);
        self.drain.poll(|batch| {
            let index = batch.index as u16;
            if batch.index >= *declared {
                *declared = batch.index + 1;
                out.extend(Message::Declare { index, table: batch.table.clone() }.encode());
            }
            if batch.lost > 0 {
                lost.insert(batch.table.name.clone(), batch.lost);
            }
            if !batch.words.is_empty() {
                out.extend(encode_rows(index, batch.words));
            }
        });
        self.stream.write_all(&out)
    }

    fn farewell(&mut self) -> io::Result<()> {
        self.sample();
        self.drain()?;
        let mut last = Vec::new();
        if !self.lost.is_empty() {
            last.extend(Message::Lost { lost: std::mem::take(&mut self.lost) }.encode());
        }
        last.extend(Message::Bye.encode());
        self.stream.write_all(&last)
    }
}
