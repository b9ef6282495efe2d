//! The poll loop that libspice-server runs on: timers, watches, channel events.
//!
//! The library's core interface passes no context, so the loop belongs to the thread: callbacks find it in a
//! thread-local. Rules: callbacks of the library may add, change and remove timers and watches while one of them is
//! being called, so removal only marks, and memory is freed after the round ([`sweep`]). No borrow of the thread's
//! loop is held while foreign code runs.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::ffi::{c_int, c_void};
use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use units::{Clock, MonotonicClock, Nanos};

use crate::sys::{self, SpiceTimer, SpiceTimerFunc, SpiceWatch, SpiceWatchFunc};
use crate::traffic::SentBytes;

/// Events kept until asked for; older ones are thrown away (a program that never asks must not grow).
const MAX_EVENTS: usize = 1024;

struct Timer {
    func: SpiceTimerFunc,
    opaque: *mut c_void,
    due: Cell<Option<Nanos>>,
    removed: Cell<bool>,
}

struct Watch {
    fd: c_int,
    mask: Cell<c_int>,
    func: SpiceWatchFunc,
    opaque: *mut c_void,
    removed: Cell<bool>,
}

/// What happened to a channel of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChannelChange {
    /// The TCP connection is there, nothing more is known to be right.
    Connected,
    /// Linked, past the ticket.
    Initialized,
    /// Gone.
    Disconnected,
}

/// A channel of a client came or went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelEvent {
    /// What happened.
    pub change: ChannelChange,
    /// The client, the same for all its channels.
    pub connection: u32,
    /// `SPICE_CHANNEL_*`: 1 main, 2 display, 3 inputs, 4 cursor.
    pub channel: i32,
    /// Which of several channels of one type.
    pub id: i32,
}

/// A descriptor of the caller's to wait for.
pub struct Interest<'a> {
    /// The descriptor.
    pub fd: BorrowedFd<'a>,
    /// What to wait for; empty waits for errors and hang-up only.
    pub wants: PollFlags,
    /// What it is ready for.
    pub ready: PollFlags,
}

impl<'a> Interest<'a> {
    /// Not ready for anything yet.
    pub fn new(fd: BorrowedFd<'a>, wants: PollFlags) -> Self {
        Self { fd, wants, ready: PollFlags::empty() }
    }
}

#[derive(Default)]
struct State {
    timers: Vec<*mut Timer>,
    watches: Vec<*mut Watch>,
    events: VecDeque<ChannelEvent>,
    open: HashMap<(i32, i32, u32), u32>,
    sent: SentBytes,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

fn with<T>(f: impl FnOnce(&mut State) -> T) -> T {
    // Never nested: no foreign code runs inside `f`.
    STATE.with_borrow_mut(f)
}

pub(crate) unsafe extern "C" fn timer_add(func: SpiceTimerFunc, opaque: *mut c_void) -> *mut SpiceTimer {
    let timer =
        Box::into_raw(Box::new(Timer { func, opaque, due: Cell::new(None), removed: Cell::new(false) }));
    with(|s| s.timers.push(timer));
    timer.cast()
}

pub(crate) unsafe extern "C" fn timer_start(timer: *mut SpiceTimer, ms: u32) {
    // SAFETY: the library passes what `timer_add` gave and has not removed; only this thread touches it.
    let timer = unsafe { &*timer.cast::<Timer>() };
    timer.due.set(Some(MonotonicClock.now() + Nanos::from_millis(i64::from(ms))));
}

pub(crate) unsafe extern "C" fn timer_cancel(timer: *mut SpiceTimer) {
    // SAFETY: as in `timer_start`.
    unsafe { &*timer.cast::<Timer>() }.due.set(None);
}

pub(crate) unsafe extern "C" fn timer_remove(timer: *mut SpiceTimer) {
    // SAFETY: as in `timer_start`; freed in `sweep` only.
    let timer = unsafe { &*timer.cast::<Timer>() };
    timer.due.set(None);
    timer.removed.set(true);
}

pub(crate) unsafe extern "C" fn watch_add(
    fd: c_int,
    mask: c_int,
    func: SpiceWatchFunc,
    opaque: *mut c_void,
) -> *mut SpiceWatch {
    let watch =
        Box::into_raw(Box::new(Watch { fd, mask: Cell::new(mask), func, opaque, removed: Cell::new(false) }));
    with(|s| {
        s.watches.push(watch);
        s.sent.opened(fd);
    });
    watch.cast()
}

pub(crate) unsafe extern "C" fn watch_update_mask(watch: *mut SpiceWatch, mask: c_int) {
    // SAFETY: the library passes what `watch_add` gave and has not removed; only this thread touches it.
    unsafe { &*watch.cast::<Watch>() }.mask.set(mask);
}

pub(crate) unsafe extern "C" fn watch_remove(watch: *mut SpiceWatch) {
    // SAFETY: as in `watch_update_mask`; freed in `sweep` only.
    let watch = unsafe { &*watch.cast::<Watch>() };
    watch.removed.set(true);
    // The library closes the socket after this call: the last chance to ask it how much was sent.
    with(|s| s.sent.sample(watch.fd));
}

pub(crate) unsafe extern "C" fn channel_event(event: c_int, info: *mut sys::SpiceChannelEventInfo) {
    let change = match event {
        sys::SPICE_CHANNEL_EVENT_CONNECTED => ChannelChange::Connected,
        sys::SPICE_CHANNEL_EVENT_INITIALIZED => ChannelChange::Initialized,
        sys::SPICE_CHANNEL_EVENT_DISCONNECTED => ChannelChange::Disconnected,
        _ => return,
    };
    // SAFETY: the library passes a valid structure for the time of the call.
    let info = unsafe { &*info };
    let event = ChannelEvent {
        change,
        connection: info.connection_id.cast_unsigned(),
        channel: info.type_,
        id: info.id,
    };
    with(|s| {
        let key = (event.channel, event.id, event.connection);
        match change {
            ChannelChange::Connected => {}
            ChannelChange::Initialized => *s.open.entry(key).or_default() += 1,
            ChannelChange::Disconnected => {
                s.open.remove(&key);
            }
        }
        if s.events.len() == MAX_EVENTS {
            s.events.pop_front();
        }
        s.events.push_back(event);
    });
}

pub(crate) fn next_event() -> Option<ChannelEvent> {
    with(|s| s.events.pop_front())
}

/// Open channels of a type, past the ticket.
pub(crate) fn open_channels(channel: i32) -> usize {
    with(|s| s.open.keys().filter(|k| k.0 == channel).count())
}

/// Whether the library waits for a client's socket to take more bytes.
pub(crate) fn is_writing() -> bool {
    with(|s| s.watches.clone()).into_iter().any(|w| {
        // SAFETY: pointers in the list are alive until `sweep`, which runs on this thread and not now.
        let watch = unsafe { &*w };
        !watch.removed.get() && watch.mask.get() & sys::SPICE_WATCH_EVENT_WRITE != 0
    })
}

/// Bytes sent over all TCP connections of this thread's servers, without retransmissions.
pub(crate) fn bytes_sent() -> u64 {
    with(|s| {
        for i in 0..s.watches.len() {
            // SAFETY: as in `is_writing`.
            let watch = unsafe { &*s.watches[i] };
            if !watch.removed.get() {
                s.sent.sample(watch.fd);
            }
        }
        s.sent.total()
    })
}

/// One round: waits for the library's watches and timers and the caller's descriptors, at most `timeout`, and calls
/// what is due.
///
/// # Errors
/// Of poll(2).
pub(crate) fn turn(own: &mut [Interest<'_>], timeout: Option<Duration>) -> rustix::io::Result<()> {
    sweep();
    let watches: Vec<*mut Watch> = with(|s| s.watches.clone());
    let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(own.len() + watches.len());
    fds.extend(own.iter().map(|i| PollFd::from_borrowed_fd(i.fd, i.wants)));
    for watch in &watches {
        // SAFETY: swept above, so every pointer is alive; the library keeps the descriptor open as long as the watch.
        let (watch, fd) = unsafe { (&**watch, BorrowedFd::borrow_raw((**watch).fd)) };
        fds.push(PollFd::from_borrowed_fd(fd, flags(watch.mask.get())));
    }
    let wait = match (next_due(), timeout) {
        (Some(due), Some(t)) => Some((due - MonotonicClock.now()).max(Nanos::ZERO).to_duration().min(t)),
        (Some(due), None) => Some((due - MonotonicClock.now()).max(Nanos::ZERO).to_duration()),
        (None, t) => t,
    };
    let wait = wait.map(|d| Timespec { tv_sec: d.as_secs() as i64, tv_nsec: i64::from(d.subsec_nanos()) });
    match poll(&mut fds, wait.as_ref()) {
        Ok(_) => {}
        // A signal: the caller looks at what it is waiting for.
        Err(rustix::io::Errno::INTR) => {
            own.iter_mut().for_each(|i| i.ready = PollFlags::empty());
            return Ok(());
        }
        Err(error) => return Err(error),
    }
    let ready: Vec<PollFlags> = fds.iter().map(PollFd::revents).collect();
    let (for_caller, for_library) = ready.split_at(own.len());
    for (interest, ready) in own.iter_mut().zip(for_caller) {
        interest.ready = *ready;
    }
    drop(fds);
    call_watches(&watches, for_library);
    call_timers();
    sweep();
    Ok(())
}

fn flags(mask: c_int) -> PollFlags {
    let mut flags = PollFlags::empty();
    flags.set(PollFlags::IN, mask & sys::SPICE_WATCH_EVENT_READ != 0);
    flags.set(PollFlags::OUT, mask & sys::SPICE_WATCH_EVENT_WRITE != 0);
    flags
}

fn call_watches(watches: &[*mut Watch], ready: &[PollFlags]) {
    for (watch, ready) in watches.iter().zip(ready) {
        // SAFETY: nothing is freed between the two sweeps of `turn`.
        let watch = unsafe { &**watch };
        let mut event = 0;
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
            event |= sys::SPICE_WATCH_EVENT_READ;
        }
        if ready.contains(PollFlags::OUT) {
            event |= sys::SPICE_WATCH_EVENT_WRITE;
        }
        // An earlier callback of this round may have removed it or changed what it waits for.
        event &= watch.mask.get();
        if event != 0 && !watch.removed.get() {
            // SAFETY: function and argument as the library registered them, not removed yet.
            unsafe { (watch.func)(watch.fd, event, watch.opaque) };
        }
    }
}

fn next_due() -> Option<Nanos> {
    // SAFETY: as in `is_writing`.
    with(|s| s.timers.iter().filter_map(|t| unsafe { &**t }.due.get()).min())
}

fn call_timers() {
    let now = MonotonicClock.now();
    for timer in with(|s| s.timers.clone()) {
        // SAFETY: nothing is freed between the two sweeps of `turn`.
        let timer = unsafe { &*timer };
        if timer.due.get().is_some_and(|due| due <= now) && !timer.removed.get() {
            timer.due.set(None);
            // SAFETY: function and argument as the library registered them, not removed yet.
            unsafe { (timer.func)(timer.opaque) };
        }
    }
}

/// Frees what was removed. Only called where no callback is running.
pub(crate) fn sweep() {
    with(|s| {
        s.timers.retain(|timer| {
            // SAFETY: made by `Box::into_raw`, freed here and nowhere else, and then no longer in the list.
            let removed = unsafe { &**timer }.removed.get();
            if removed {
                // SAFETY: as above.
                drop(unsafe { Box::from_raw(*timer) });
            }
            !removed
        });
        s.watches.retain(|watch| {
            // SAFETY: as above.
            let removed = unsafe { &**watch }.removed.get();
            if removed {
                // SAFETY: as above.
                drop(unsafe { Box::from_raw(*watch) });
            }
            !removed
        });
    });
}
