//! Between the guest's connection and libspice-server's callbacks: what both touch, and the instants between them.

use std::cell::RefCell;
use std::rc::Rc;

use spice::stream_device::{HEADER_LEN, Kind, Message};
use spice_server::PortHandler;
use units::{Clock, MonotonicClock, Nanos};

use crate::frames::{FrameLog, Pushed};
use crate::guest::Guest;

/// libspice-server reads its clock between the `read()` of a header and the first of its payload. So close to the end
/// of a millisecond the two could fall on both sides of it, and `mm_time_ms` would be one off.
const CLOCK_EDGE: Nanos = Nanos(20_000);
const MILLISECOND: i64 = 1_000_000;

/// What the loop and the callbacks share. Never borrowed while the library is called.
pub(crate) struct Shared {
    /// The connected guest.
    pub(crate) guest: Option<Guest>,
    /// Frames on their way.
    pub(crate) frames: FrameLog,
    /// The library asked for bytes and there were none, then.
    pub(crate) idle_at: Option<Nanos>,
    /// The library wants no more of this guest.
    pub(crate) refused: bool,
    /// What the library said to the guest, for the notices.
    pub(crate) said: Vec<Message>,
    pushed: Nanos,
}

/// Notices kept between two rounds; the library says a few words for each client.
const MAX_SAID: usize = 64;

impl Shared {
    pub(crate) fn new(frames: FrameLog) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self {
            guest: None,
            frames,
            idle_at: None,
            refused: false,
            said: Vec::new(),
            pushed: Nanos::ZERO,
        }))
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let now = MonotonicClock.now();
        let Some((guest, (message, taken))) = self.guest.as_mut().and_then(|g| g.waiting().map(|w| (g, w)))
        else {
            self.idle_at = Some(now);
            return 0;
        };
        if taken <= HEADER_LEN {
            self.pushed = now;
        }
        let (n, complete) = guest.take(buffer);
        if let Some(message) = complete.filter(|m| m.kind == Kind::Data) {
            let (first_byte, received) = (message.first_byte, message.received);
            self.frames.pushed(Pushed { first_byte, received, pushed: self.pushed, size: message.size });
        }
        if message.kind == Kind::Data && taken < HEADER_LEN && taken + n >= HEADER_LEN {
            step_over_clock_edge();
        }
        n
    }
}

fn step_over_clock_edge() {
    while MILLISECOND - MonotonicClock.now().0 % MILLISECOND < CLOCK_EDGE.0 {
        std::hint::spin_loop();
    }
}

/// The library's view of the guest.
pub(crate) struct Port(pub(crate) Rc<RefCell<Shared>>);

impl PortHandler for Port {
    fn read(&mut self, buffer: &mut [u8]) -> usize {
        self.0.borrow_mut().read(buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> usize {
        let mut shared = self.0.borrow_mut();
        // Without a guest there is nobody to tell; the library starts anew when the port opens.
        let Some(guest) = shared.guest.as_mut() else { return bytes.len() };
        let (n, said) = guest.tell(bytes);
        shared.said.extend(said);
        shared.said.truncate(MAX_SAID);
        n
    }

    fn accepting(&mut self, accepting: bool) {
        let mut shared = self.0.borrow_mut();
        shared.refused |= !accepting && shared.guest.is_some();
    }
}
