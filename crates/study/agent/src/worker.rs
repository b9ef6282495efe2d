//! The agent's thread: waits for the collector, the program and the clock at once, and for none of them alone.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError};
use std::time::{Duration, Instant};

use recording::wire::Message;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::link::Link;
use crate::outbox::Outbox;
use crate::settings::Wish;

/// How long the last of it may take to go out, or to reach the collector's disk.
const FAREWELL: Duration = Duration::from_secs(5);

/// What the program wants of its agent.
pub(crate) enum Order {
    Send(Message),
    Finish,
}

/// Where an agent's rows come from.
pub(crate) trait Feed: Send {
    /// A record begins: from now on rows are wanted.
    fn begin(&mut self, outbox: &mut Outbox);
    /// When it wants to be asked.
    fn due(&self) -> Instant;
    /// Puts what there is into the outbox. `awake`: the collector has just asked for the time, and the thread is awake
    /// anyway.
    fn collect(&mut self, outbox: &mut Outbox, awake: bool);
    /// The thread slept until `due` and nothing else woke it before.
    fn woken(&mut self, _due: Instant) {}
    /// For the last time in this record.
    fn end(&mut self, outbox: &mut Outbox);
}

/// How the thread is to behave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Records from the start, and ends with its collector.
    OneRecord,
    /// Records whenever a collector does, keeps what it cannot send, and ends when it is told to.
    Persistent,
}

pub(crate) struct Worker<F> {
    pub(crate) link: Link,
    pub(crate) outbox: Outbox,
    pub(crate) feed: F,
    pub(crate) manner: Manner,
    pub(crate) inbox: Receiver<Order>,
    pub(crate) woken: UnixStream,
    /// Told to the program: the collector wants it to end, or has gone. Told by it, where there is no inbox to use: end.
    pub(crate) stop: Arc<AtomicBool>,
    /// Where settings are changed; without it they are refused.
    pub(crate) wishes: Option<Sender<Wish>>,
}

/// What the collector said in one look.
#[derive(Default)]
struct Heard {
    awake: bool,
    begins: bool,
    ends: bool,
    settings: Vec<Wish>,
}

impl<F: Feed> Worker<F> {
    /// Works until told to finish or, for [`Manner::OneRecord`], until the collector has gone.
    pub(crate) fn run(mut self) {
        // An agent that was killed goes on with the record that was under way.
        let mut recording = self.manner == Manner::OneRecord || !self.outbox.record().is_empty();
        if recording {
            self.feed.begin(&mut self.outbox);
        }
        let (mut awake, mut record) = (true, self.outbox.record().to_owned());
        while !self.ordered(&mut recording) {
            let heard = match self.hear() {
                Ok(heard) => heard,
                Err(error) if self.manner == Manner::OneRecord => {
                    tracing::debug!("the collector is gone: {error}");
                    break;
                }
                Err(error) => {
                    tracing::info!("the collector is gone: {error}; what comes is kept");
                    self.link.drop_connection();
                    Heard::default()
                }
            };
            if heard.begins && self.manner == Manner::Persistent {
                if !recording || self.outbox.record() != record {
                    // Also what was lost while nobody recorded.
                    self.outbox.forget_losses();
                    self.feed.begin(&mut self.outbox);
                }
                recording = true;
                self.outbox.record().clone_into(&mut record);
            }
            self.pass_settings(heard.settings);
            awake |= heard.awake;
            if heard.ends && self.manner == Manner::Persistent {
                self.part(&mut recording);
            }
            if std::mem::take(&mut awake) || Instant::now() >= self.feed.due() {
                // Asked also while nobody records: rings are emptied, so that they hold what is new once somebody does.
                self.feed.collect(&mut self.outbox, heard.awake);
                if !recording {
                    self.outbox.clear();
                }
                self.outbox.flush();
                // At once, in the same wake-up.
                continue;
            }
            self.wait();
        }
        if self.outbox.is_empty() {
            self.outbox.remove_file();
        }
        // Whatever the reason: there is nothing more to record, and the program is to know.
        self.stop.store(true, Ordering::Release);
    }

    /// True when told to finish, and finished.
    fn ordered(&mut self, recording: &mut bool) -> bool {
        loop {
            let finish = match self.inbox.try_recv() {
                Ok(Order::Send(message)) => {
                    self.outbox.message(&message);
                    continue;
                }
                Ok(Order::Finish) | Err(TryRecvError::Disconnected) => true,
                Err(TryRecvError::Empty) => {
                    self.manner == Manner::Persistent && self.stop.load(Ordering::Acquire)
                }
            };
            if finish && *recording {
                self.part(recording);
            }
            return finish;
        }
    }

    fn hear(&mut self) -> io::Result<Heard> {
        // Nothing is sent that an agent after this one would not know of.
        self.outbox.flush();
        let (mut heard, stop, one) = (Heard::default(), &self.stop, self.manner == Manner::OneRecord);
        self.link.work(&mut self.outbox, &mut |message| match message {
            Message::Ping { .. } => heard.awake = true,
            Message::Welcome { .. } => heard.begins = true,
            Message::Stop if one => stop.store(true, Ordering::Release),
            Message::Stop => heard.ends = true,
            Message::Setting { id, name, value } => heard.settings.push(Wish { id, name, value }),
            _ => {}
        })?;
        Ok(heard)
    }

    fn pass_settings(&mut self, settings: Vec<Wish>) {
        for wish in settings {
            let passed = self.wishes.as_ref().is_some_and(|wishes| wishes.send(wish.clone()).is_ok());
            if !passed {
                self.outbox.message(&wish.refused("this program changes no settings while it runs"));
            }
        }
    }

    /// Ends the record in order: the last rows, good-bye, and, where something would be sent again otherwise, the
    /// collector's word that all of it is on its disk.
    fn part(&mut self, recording: &mut bool) {
        *recording = false;
        self.feed.end(&mut self.outbox);
        self.outbox.tell_lost();
        self.outbox.flush();
        let deadline = Instant::now() + FAREWELL;
        if let Err(error) = self.farewell(deadline) {
            tracing::debug!("no farewell: {error}");
        }
        if self.outbox.is_empty() {
            self.outbox.end_record();
            self.outbox.flush();
        }
        if self.manner == Manner::Persistent {
            self.link.drop_connection();
        }
    }

    fn farewell(&mut self, deadline: Instant) -> io::Result<()> {
        while self.link.awaits_welcome() && Instant::now() < deadline {
            self.link.work(&mut self.outbox, &mut |_| ())?;
            self.poll(deadline.saturating_duration_since(Instant::now()));
        }
        // The welcome of a moment ago.
        self.link.work(&mut self.outbox, &mut |_| ())?;
        self.link.say_bye(&mut self.outbox)?;
        let wanted = self.outbox.next();
        let over = |this: &Self| match this.manner {
            Manner::OneRecord => this.link.is_written(),
            Manner::Persistent => this.outbox.oldest() >= wanted,
        };
        while !over(self) && Instant::now() < deadline {
            self.outbox.flush();
            self.link.work(&mut self.outbox, &mut |_| ())?;
            if !over(self) {
                self.poll(deadline.saturating_duration_since(Instant::now()));
            }
        }
        Ok(())
    }

    /// Waits for the collector, the program, or the next thing to do.
    fn wait(&mut self) {
        let due = self.link.due().map_or(self.feed.due(), |due| due.min(self.feed.due()));
        let time = due.saturating_duration_since(Instant::now());
        if self.poll(time) && !time.is_zero() {
            self.feed.woken(due);
        }
    }

    /// Waits for the collector or the program; true when neither came within `time`.
    fn poll(&self, time: Duration) -> bool {
        let timeout = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: time.subsec_nanos().into() };
        let program = self.woken.as_fd();
        let mut fds = vec![PollFd::new(&program, PollFlags::IN)];
        let link = self.link.fd();
        if let Some((fd, writing)) = &link {
            let flags = if *writing { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN };
            fds.push(PollFd::new(fd, flags));
        }
        let over = match rustix::event::poll(&mut fds, Some(&timeout)) {
            Ok(ready) => ready == 0,
            Err(error) => {
                tracing::debug!("poll: {error}");
                false
            }
        };
        let woken = !fds[0].revents().is_empty();
        if woken {
            // What it wakes for is in the inbox; the bytes mean nothing.
            let _ = (&self.woken).read(&mut [0; 256]);
        }
        over
    }
}
