//! Between the guest's connection and libspice-server's callbacks: what both touch, and the instants between them.

use std::cell::RefCell;
use std::rc::Rc;

use spice::stream_device::{HEADER_LEN, Kind, Message};
use spice_server::PortHandler;
use units::{Clock, MonotonicClock, Nanos};

use crate::frames::{FrameLog, Pushed};
use crate::guest::Guest;

/// How often a frame's first read may be put off, see [`Shared::is_between_milliseconds`]. Each time is a preemption
/// within a microsecond or the end of a millisecond just then.
const MAX_PUT_OFF: u32 = 8;
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
    /// A frame's first read was put off: the library must be woken again.
    pub(crate) put_off: bool,
    put_off_times: u32,
    /// Just before the last read returned.
    returned: Nanos,
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
            put_off: false,
            put_off_times: 0,
            returned: Nanos::ZERO,
            pushed: Nanos::ZERO,
        }))
    }

    fn read(&mut self, buffer: &mut [u8]) -> usize {
        let now = MonotonicClock.now();
        let Some((message, taken)) = self.guest.as_ref().and_then(Guest::waiting) else {
            self.idle_at = Some(now);
            return 0;
        };
        if taken == HEADER_LEN && message.kind == Kind::Data && self.is_between_milliseconds(now) {
            self.put_off = true;
            self.returned = MonotonicClock.now();
            return 0;
        }
        if taken <= HEADER_LEN {
            (self.pushed, self.put_off_times) = (now, 0);
        }
        let (n, complete) = self.guest.as_mut().map_or((0, None), |g| g.take(buffer));
        if let Some(message) = complete.filter(|m| m.kind == Kind::Data) {
            let (first_byte, received) = (message.first_byte, message.received);
            self.frames.pushed(Pushed { first_byte, received, pushed: self.pushed, size: message.size });
        }
        self.returned = MonotonicClock.now();
        n
    }

    /// Whether it is unknown in which millisecond libspice-server has read its clock for the frame.
    ///
    /// It does so after our last answer and before it asks for the payload, and again when it got nothing of it
    /// (`StreamDevice::handle_msg_data`): where the two instants are in different milliseconds, it is made to ask again,
    /// so that our `mm_time_ms` is the client's and not nearly so.
    fn is_between_milliseconds(&mut self, now: Nanos) -> bool {
        let between =
            now.0 / MILLISECOND != self.returned.0 / MILLISECOND && self.put_off_times < MAX_PUT_OFF;
        self.put_off_times += u32::from(between);
        between
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
