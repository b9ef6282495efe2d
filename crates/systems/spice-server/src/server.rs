//! The server with its stream port.

#![allow(unsafe_code)]

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, CString, c_int};
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::time::Duration;

use thiserror::Error;

use crate::event_loop::{self, ChannelEvent, Interest};
use crate::{log, sys};

/// `SPICE_CHANNEL_DISPLAY`.
const DISPLAY: i32 = 2;

/// The guest's end of the stream port, as the library sees it.
///
/// The library reads while it has room for a client; a handler must neither block nor call the server.
pub trait PortHandler {
    /// Fills `buffer` from its start with the guest's next bytes and says how many; 0 when there are none now.
    fn read(&mut self, buffer: &mut [u8]) -> usize;
    /// Takes bytes for the guest and says how many; the rest is offered again after [`Server::wake_port`].
    fn write(&mut self, bytes: &[u8]) -> usize;
    /// The library wants no more of this guest (false: it sent something wrong) or accepts one again.
    fn accepting(&mut self, accepting: bool);
}

/// Who may connect.
#[derive(Clone)]
pub enum Access {
    /// Anyone who reaches the socket: for loopback only.
    Open,
    /// Whoever knows this password of 1 to 60 bytes.
    Ticket(String),
}

/// What a server needs.
pub struct Options {
    /// Where clients connect: bound and listening, so that the port is known and a taken port is the caller's error.
    pub listener: TcpListener,
    /// Who may.
    pub access: Access,
    /// Shown by clients as the machine's name.
    pub name: String,
}

/// Why there is no server.
#[derive(Debug, Error)]
pub enum ServerError {
    /// Open access on an address that others can reach.
    #[error("{0} can be reached from other machines: give a ticket, or listen on 127.0.0.1")]
    TicketNeeded(SocketAddr),
    /// A ticket that the library does not take.
    #[error("the ticket must have 1 to {max} bytes and no NUL, it has {length}", max = sys::SPICE_MAX_PASSWORD_LENGTH)]
    Ticket {
        /// Its bytes.
        length: usize,
    },
    /// The thread has a server already.
    #[error("this thread runs a SPICE server already")]
    SecondServer,
    /// The listening socket has no address.
    #[error("the listening socket cannot be used")]
    Listener(#[source] std::io::Error),
    /// A call that the library refused.
    #[error("libspice-server refused {0}; its log (RUST_LOG=libspice_server=debug) may say why")]
    Refused(&'static str),
    /// Waiting failed.
    #[error("poll failed")]
    Poll(#[source] std::io::Error),
}

/// Version of the library that this was linked with, such as `libspice-server.so.1.14.1`: the file that is loaded.
///
/// The library has no call for it, so the name of the file behind the loaded symbol is the best evidence.
pub fn version() -> String {
    let mut info = std::mem::MaybeUninit::<libc::Dl_info>::zeroed();
    let symbol: unsafe extern "C" fn() -> *mut sys::SpiceServer = sys::spice_server_new;
    // SAFETY: any address may be asked about; `info` is written when the result is not 0.
    let found = unsafe { libc::dladdr(symbol as *const libc::c_void, info.as_mut_ptr()) };
    // SAFETY: zeroed at first, which is valid for its pointers and integers.
    let info = unsafe { info.assume_init() };
    if found == 0 || info.dli_fname.is_null() {
        return "unknown".into();
    }
    // SAFETY: the loader's string, alive as long as the library.
    let path = unsafe { CStr::from_ptr(info.dli_fname) }.to_string_lossy().into_owned();
    let path = std::fs::canonicalize(&path).unwrap_or_else(|_| path.into());
    path.file_name().map_or_else(|| "unknown".into(), |n| n.to_string_lossy().into_owned())
}

#[repr(C)]
struct Port {
    /// First, so that the library's pointer to it is a pointer to the port.
    instance: sys::SpiceCharDeviceInstance,
    handler: RefCell<Box<dyn PortHandler>>,
}

struct Interfaces {
    core: sys::SpiceCoreInterface,
    port: sys::SpiceCharDeviceInterface,
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
}

/// A running SPICE server whose only device is a stream port.
pub struct Server {
    raw: *mut sys::SpiceServer,
    port: *mut Port,
    interfaces: *mut Interfaces,
    address: SocketAddr,
    open: bool,
    /// The library's callbacks find their loop by thread.
    _this_thread: PhantomData<*mut ()>,
}

impl Server {
    /// Starts a server. The port is closed until [`Server::set_port_open`].
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start(options: Options, handler: Box<dyn PortHandler>) -> Result<Self, ServerError> {
        let address = options.listener.local_addr().map_err(ServerError::Listener)?;
        let ticket = match &options.access {
            Access::Open if !address.ip().is_loopback() => return Err(ServerError::TicketNeeded(address)),
            Access::Open => None,
            Access::Ticket(ticket) => Some(checked_ticket(ticket)?),
        };
        if RUNNING.replace(true) {
            return Err(ServerError::SecondServer);
        }
        log::install();
        let interfaces =
            Box::into_raw(Box::new(Interfaces { core: core_interface(), port: port_interface() }));
        // SAFETY: just made; the address of a field, not a reference to it.
        let sif = unsafe { &raw const (*interfaces).port.base };
        let port = Box::into_raw(Box::new(Port {
            instance: sys::SpiceCharDeviceInstance {
                base: sys::SpiceBaseInstance { sif },
                subtype: c"port".as_ptr(),
                st: std::ptr::null_mut(),
                portname: c"org.spice-space.stream.0".as_ptr(),
            },
            handler: RefCell::new(handler),
        }));
        // SAFETY: no precondition.
        let raw = unsafe { sys::spice_server_new() };
        // From here on dropping the value cleans up.
        let server = Self { raw, port, interfaces, address, open: false, _this_thread: PhantomData };
        server.configure(options, ticket)?;
        Ok(server)
    }

    fn configure(&self, options: Options, ticket: Option<CString>) -> Result<(), ServerError> {
        let name = CString::new(options.name.replace('\0', " ")).unwrap_or_default();
        let ok = |rc: c_int, what| if rc == 0 { Ok(()) } else { Err(ServerError::Refused(what)) };
        options.listener.set_nonblocking(true).map_err(ServerError::Listener)?;
        // SAFETY: `raw` is a new server; strings live for the calls, which copy them; the core interface and the port
        // live until `drop`, after the server; the listening socket is handed over and closed by the library.
        unsafe {
            sys::spice_server_set_name(self.raw, name.as_ptr());
            match ticket {
                None => ok(sys::spice_server_set_noauth(self.raw), "open access")?,
                // Lifetime 0: for ever. A second client is the library's business, not the ticket's.
                Some(ticket) => {
                    ok(sys::spice_server_set_ticket(self.raw, ticket.as_ptr(), 0, 0, 0), "the ticket")?;
                }
            }
            let listener = options.listener.into_raw_fd();
            ok(sys::spice_server_set_listen_socket_fd(self.raw, listener), "the listening socket")?;
            ok(sys::spice_server_init(self.raw, &raw mut (*self.interfaces).core), "to start")?;
            ok(sys::spice_server_add_interface(self.raw, self.port.cast()), "the stream port")?;
            sys::spice_server_vm_start(self.raw);
        }
        Ok(())
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Tells that a guest opened the port or left it. Opening resets the library's parser; only after the first time
    /// are there display and cursor channels.
    pub fn set_port_open(&mut self, open: bool) {
        if self.open != open {
            self.open = open;
            let event = if open { sys::SPICE_PORT_EVENT_OPENED } else { sys::SPICE_PORT_EVENT_CLOSED };
            // SAFETY: the port was added and lives until `drop`.
            unsafe { sys::spice_server_port_event(self.port.cast(), event) };
        }
    }

    /// Tells that the handler has bytes, or room for bytes, again.
    pub fn wake_port(&mut self) {
        // SAFETY: as in `set_port_open`.
        unsafe { sys::spice_server_char_device_wakeup(self.port.cast()) };
    }

    /// Waits for clients, timers and the caller's own descriptors, at most `timeout`, and serves the clients.
    /// The caller finds in `own` what its descriptors are ready for.
    ///
    /// # Errors
    /// [`ServerError::Poll`].
    pub fn turn(&mut self, own: &mut [Interest<'_>], timeout: Option<Duration>) -> Result<(), ServerError> {
        event_loop::turn(own, timeout).map_err(|e| ServerError::Poll(e.into()))
    }

    /// The next thing that happened to a client's channel.
    pub fn next_event(&mut self) -> Option<ChannelEvent> {
        event_loop::next_event()
    }

    /// Clients that show the display.
    pub fn viewers(&self) -> usize {
        event_loop::open_channels(DISPLAY)
    }

    /// Whether bytes for a client wait in the library because the client's socket is full.
    pub fn is_writing(&self) -> bool {
        event_loop::is_writing()
    }

    /// Bytes sent to all clients since the start, without retransmissions.
    pub fn bytes_sent(&self) -> u64 {
        event_loop::bytes_sent()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // libspice-server 0.15.1 reads freed memory when a stream port is removed while a client is connected. Its only
        // call that disconnects clients is a new ticket; nobody can use it, since the socket goes next.
        // SAFETY: `raw` is a server; the string lives for the call. Then the library is told to forget the port and the
        // server; what they point to goes after them, and so do the watches and timers that they removed.
        unsafe {
            if !(*self.port).instance.st.is_null() {
                sys::spice_server_set_ticket(self.raw, c"closed".as_ptr(), 1, 0, 1);
                let _ = event_loop::turn(&mut [], Some(Duration::ZERO));
                sys::spice_server_remove_interface(self.port.cast());
            }
            sys::spice_server_destroy(self.raw);
            event_loop::sweep();
            drop(Box::from_raw(self.port));
            drop(Box::from_raw(self.interfaces));
        }
        RUNNING.set(false);
    }
}

fn checked_ticket(ticket: &str) -> Result<CString, ServerError> {
    if ticket.is_empty() || ticket.len() > sys::SPICE_MAX_PASSWORD_LENGTH {
        return Err(ServerError::Ticket { length: ticket.len() });
    }
    CString::new(ticket).map_err(|_| ServerError::Ticket { length: ticket.len() })
}

fn core_interface() -> sys::SpiceCoreInterface {
    sys::SpiceCoreInterface {
        base: sys::SpiceBaseInterface {
            type_: c"core".as_ptr(),
            description: c"poll loop".as_ptr(),
            major_version: sys::SPICE_INTERFACE_CORE_MAJOR,
            minor_version: sys::SPICE_INTERFACE_CORE_MINOR,
        },
        timer_add: event_loop::timer_add,
        timer_start: event_loop::timer_start,
        timer_cancel: event_loop::timer_cancel,
        timer_remove: event_loop::timer_remove,
        watch_add: event_loop::watch_add,
        watch_update_mask: event_loop::watch_update_mask,
        watch_remove: event_loop::watch_remove,
        channel_event: event_loop::channel_event,
    }
}

fn port_interface() -> sys::SpiceCharDeviceInterface {
    sys::SpiceCharDeviceInterface {
        base: sys::SpiceBaseInterface {
            type_: c"char_device".as_ptr(),
            description: c"stream port".as_ptr(),
            major_version: sys::SPICE_INTERFACE_CHAR_DEVICE_MAJOR,
            minor_version: sys::SPICE_INTERFACE_CHAR_DEVICE_MINOR,
        },
        state: port_state,
        write: port_write,
        read: port_read,
        event: None,
        flags: 0,
    }
}

/// Calls the handler behind a device, or gives `otherwise` when it is being called already.
///
/// # Safety
/// `sin` is the instance of a live [`Port`].
unsafe fn with_handler<T>(
    sin: *mut sys::SpiceCharDeviceInstance,
    otherwise: T,
    f: impl FnOnce(&mut dyn PortHandler) -> T,
) -> T {
    // SAFETY: the instance is the first field of a `Port` (repr(C)), made with provenance over all of it; the library
    // writes to the instance, never to the handler, which is all that is borrowed here.
    let handler = unsafe { &(*sin.cast::<Port>()).handler };
    handler.try_borrow_mut().map_or(otherwise, |mut h| f(h.as_mut()))
}

unsafe extern "C" fn port_state(sin: *mut sys::SpiceCharDeviceInstance, connected: c_int) {
    // SAFETY: the library passes the instance that was added.
    unsafe { with_handler(sin, (), |h| h.accepting(connected != 0)) };
}

unsafe extern "C" fn port_write(
    sin: *mut sys::SpiceCharDeviceInstance,
    bytes: *const u8,
    len: c_int,
) -> c_int {
    let Some(len) = usize::try_from(len).ok().filter(|l| *l > 0 && !bytes.is_null()) else { return 0 };
    // SAFETY: the library passes `len` readable bytes for the time of the call.
    let bytes = unsafe { std::slice::from_raw_parts(bytes, len) };
    // SAFETY: as in `port_state`.
    let taken = unsafe { with_handler(sin, 0, |h| h.write(bytes)) };
    taken.min(len) as c_int
}

unsafe extern "C" fn port_read(sin: *mut sys::SpiceCharDeviceInstance, buffer: *mut u8, len: c_int) -> c_int {
    let Some(len) = usize::try_from(len).ok().filter(|l| *l > 0 && !buffer.is_null()) else { return 0 };
    // SAFETY: the library passes `len` writable bytes for the time of the call; it gives the handler fresh memory
    // from its allocator, so it is zeroed before it becomes a slice of initialised bytes.
    let buffer = unsafe {
        std::ptr::write_bytes(buffer, 0, len);
        std::slice::from_raw_parts_mut(buffer, len)
    };
    // SAFETY: as in `port_state`.
    let filled = unsafe { with_handler(sin, 0, |h| h.read(buffer)) };
    filled.min(len) as c_int
}
