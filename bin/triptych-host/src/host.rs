//! The loop: guest, clients, clock.

use std::cell::RefCell;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;

use anyhow::Context;
use probe::{Emitter, Probe};
use spice::stream_device::Message;
use spice_server::{ChannelChange, Interest, PollFlags, Server};
use units::{Clock, MonotonicClock, Nanos};

use crate::frames::{FrameLog, declare_traffic, traffic_row};
use crate::guest::{Guest, GuestGone};
use crate::notices::Notices;
use crate::options::Options;
use crate::recorder::{LOOK_EVERY, Recorder};
use crate::relay::{Port, Shared};
use crate::signals::Signals;
use crate::socket::GuestSocket;

const TRAFFIC_PERIOD: Nanos = Nanos(1_000_000_000);
/// `SPICE_CHANNEL_MAIN` and `SPICE_CHANNEL_DISPLAY`.
const MAIN: i32 = 1;
const DISPLAY: i32 = 2;

/// Runs until a signal, or until the collector has enough.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let stop = Signals::stop()?;
    // Without a collector of its own it speaks to the machine's agent, if one runs.
    let probe = if options.collector.is_some() {
        Probe::new()
    } else {
        Probe::shared(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
    let notices = Notices::new(options.stats, Recorder::start(options, &probe)?);
    let outcome = serve(options, &probe, &stop, &notices);
    if let Err(error) = &outcome {
        notices.recorder().fault(&format!("{error:#}"));
    }
    notices.finish();
    outcome
}

fn serve(options: &Options, probe: &Probe, stop: &Signals, notices: &Notices) -> anyhow::Result<()> {
    let mut host = Host::start(options, probe, notices)?;
    notices.ready(options.json, host.server.address(), &options.stream);
    notices.recorder().ready(options, host.server.address());
    while !stop.came() && !notices.recorder().stop_requested() {
        host.round(stop)?;
    }
    host.finish();
    Ok(())
}

struct Host<'a> {
    server: Server,
    socket: GuestSocket,
    shared: Rc<RefCell<Shared>>,
    notices: &'a Notices,
    report: Signals,
    traffic: Emitter,
    next_traffic: Nanos,
    from_guest: u64,
    /// Frames wait for the client's socket.
    blocked: bool,
}

impl<'a> Host<'a> {
    fn start(options: &Options, probe: &Probe, notices: &'a Notices) -> anyhow::Result<Self> {
        let shared = Shared::new(FrameLog::declare(probe)?);
        let traffic = declare_traffic(probe)?;
        let access = options.access()?;
        let address = options.spice;
        let listener = TcpListener::bind(address).with_context(|| {
            format!("cannot listen for SPICE clients on {address}: give --spice another port, or 0 for any free one")
        })?;
        let settings = spice_server::Options { listener, access, name: "triptych".into() };
        let server = Server::start(settings, Box::new(Port(Rc::clone(&shared))))?;
        let socket = GuestSocket::bind(&options.stream)?;
        let next_traffic = MonotonicClock.now() + TRAFFIC_PERIOD;
        let report = Signals::report()?;
        Ok(Self {
            server,
            socket,
            shared,
            notices,
            report,
            traffic,
            next_traffic,
            from_guest: 0,
            blocked: false,
        })
    }

    /// Waits for anything to happen and does what it asks for.
    fn round(&mut self, stop: &Signals) -> anyhow::Result<()> {
        let mut timeout = (self.next_traffic - MonotonicClock.now()).max(Nanos::ZERO);
        if self.notices.recorder().is_recording() {
            timeout = timeout.min(LOOK_EVERY);
        }
        let (accept, guest) = self.wait(stop, timeout.to_duration())?;
        self.settle();
        self.wake_if_put_off();
        if guest.intersects(PollFlags::OUT) {
            self.write_guest();
        }
        if guest.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            self.read_guest();
        }
        self.after_callbacks();
        if accept {
            self.accept()?;
        }
        if self.report.came() {
            self.tell_totals();
        }
        if MonotonicClock.now() >= self.next_traffic {
            self.next_traffic += TRAFFIC_PERIOD;
            self.count_traffic();
        }
        Ok(())
    }

    /// Serves clients; gives whether a guest knocks, and what the connected one is ready for.
    fn wait(&mut self, stop: &Signals, timeout: Duration) -> anyhow::Result<(bool, PollFlags)> {
        // The descriptor is copied out, so that nothing is borrowed while the library calls back.
        let guest = match self.shared.borrow().guest.as_ref() {
            None => None,
            Some(guest) => {
                let mut wants = PollFlags::empty();
                wants.set(PollFlags::IN, guest.wants_read());
                wants.set(PollFlags::OUT, guest.wants_write());
                Some((guest.handle(), wants))
            }
        };
        let mut own = vec![
            Interest::new(stop.as_fd(), PollFlags::IN),
            Interest::new(self.report.as_fd(), PollFlags::IN),
            Interest::new(self.socket.as_fd(), PollFlags::IN),
        ];
        own.extend(guest.as_ref().map(|(fd, wants)| Interest::new(fd.as_fd(), *wants)));
        self.server.turn(&mut own, Some(timeout))?;
        Ok((own[2].ready.contains(PollFlags::IN), own.get(3).map_or(PollFlags::empty(), |i| i.ready)))
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        while let Some(stream) = self.socket.accept().context("cannot accept a guest")? {
            if self.shared.borrow().guest.is_some() {
                let reason = "another guest is connected already; this host takes one at a time";
                Guest::turn_away(&stream, reason);
                self.notices.event("guest-turned-away", reason);
                continue;
            }
            {
                let mut shared = self.shared.borrow_mut();
                shared.guest = Some(Guest::new(stream));
                shared.refused = false;
            }
            self.notices.event("guest-connected", "a guest opened the stream port");
            self.server.set_port_open(true);
            self.after_callbacks();
        }
        Ok(())
    }

    fn read_guest(&mut self) {
        let result = match self.shared.borrow_mut().guest.as_mut() {
            // Hung up while its message waits for a client that does not read: nobody is left to wait for.
            Some(guest) if !guest.wants_read() => Err(GuestGone::Closed),
            Some(guest) => guest.receive(),
            None => return,
        };
        match result {
            Ok(n) => {
                self.from_guest += n as u64;
                self.server.wake_port();
                self.wake_if_put_off();
                self.settle();
            }
            Err(reason) => self.lose_guest(&reason),
        }
    }

    /// Ends: a read is put off a few times at most.
    fn wake_if_put_off(&mut self) {
        while std::mem::take(&mut self.shared.borrow_mut().put_off) {
            self.server.wake_port();
        }
    }

    fn write_guest(&mut self) {
        let flushed = self.shared.borrow_mut().guest.as_mut().map_or(Ok(()), Guest::flush);
        match flushed {
            // The library may have had more to say than there was room for.
            Ok(()) => self.server.wake_port(),
            Err(reason) => self.lose_guest(&reason),
        }
    }

    /// Looks at what the library's callbacks left behind.
    fn after_callbacks(&mut self) {
        let (said, refused) = {
            let mut shared = self.shared.borrow_mut();
            let refused = shared.refused.then(|| {
                let text = shared.guest.as_ref().and_then(|g| g.last_error().map(str::to_owned));
                GuestGone::Refused(text.unwrap_or_else(|| "it gave no reason".into()))
            });
            (std::mem::take(&mut shared.said), refused)
        };
        for message in said {
            match message {
                Message::StartStop(codecs) if codecs.is_empty() => {
                    self.notices.event("stop", "no client watches")
                }
                Message::StartStop(codecs) => {
                    let names: Vec<String> = codecs.iter().map(ToString::to_string).collect();
                    self.notices.event("start", &names.join(" "));
                }
                Message::NotifyError { text, .. } => self.notices.event("error", &text),
                _ => {}
            }
        }
        if self.shared.borrow().guest.as_ref().is_some_and(Guest::wants_write) {
            let flushed = self.shared.borrow_mut().guest.as_mut().map_or(Ok(()), Guest::flush);
            if let Err(reason) = flushed {
                return self.lose_guest(&reason);
            }
        }
        if let Some(reason) = refused {
            self.lose_guest(&reason);
        }
        while let Some(event) = self.server.next_event() {
            let kind = match (event.channel, event.change) {
                (MAIN, ChannelChange::Initialized) => "client-connected",
                (MAIN, ChannelChange::Disconnected) => "client-gone",
                (DISPLAY, ChannelChange::Initialized) => "display-opened",
                (DISPLAY, ChannelChange::Disconnected) => "display-closed",
                _ => continue,
            };
            self.notices.event(kind, &format!("connection {}", event.connection));
        }
    }

    fn lose_guest(&mut self, reason: &GuestGone) {
        let Some(guest) = self.shared.borrow_mut().guest.take() else { return };
        guest.dismiss(reason);
        let kind = match reason {
            GuestGone::Closed => "guest-gone",
            GuestGone::CutOff | GuestGone::Broken(_) => "guest-lost",
            GuestGone::Protocol(_) | GuestGone::Refused(_) => "guest-refused",
        };
        self.notices.event(kind, &reason.to_string());
        self.server.set_port_open(false);
        self.shared.borrow_mut().refused = false;
    }

    /// Finds out whether frames have reached the client's socket. The library's own "nothing more to read" is the
    /// instant where it comes after the write; else the end of the round in which the last byte was written.
    fn settle(&mut self) {
        let mut shared = self.shared.borrow_mut();
        let idle = shared.idle_at.take();
        if !shared.frames.is_waiting() {
            self.blocked = false;
            return;
        }
        if self.server.viewers() == 0 {
            shared.frames.settle(Nanos::ZERO);
            self.blocked = false;
        } else if self.server.is_writing() {
            self.blocked = true;
        } else if let Some(at) = idle.or_else(|| self.blocked.then(|| MonotonicClock.now())) {
            shared.frames.settle(at);
            self.blocked = false;
        }
    }

    fn count_traffic(&mut self) {
        let to_client = self.server.bytes_sent();
        self.traffic.emit(MonotonicClock.now(), &traffic_row(self.from_guest, to_client));
        self.tell_totals();
    }

    fn tell_totals(&self) {
        let frames = self.shared.borrow().frames.count();
        self.notices.totals(frames, self.from_guest, self.server.bytes_sent(), self.server.viewers());
    }

    fn finish(&mut self) {
        self.shared.borrow_mut().frames.settle(Nanos::ZERO);
        self.count_traffic();
    }
}
