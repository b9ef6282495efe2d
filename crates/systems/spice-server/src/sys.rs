//! Declarations of what is used of `spice.h` (libspice-server 0.15) and of GLib's logging, written by hand.
//!
//! `tests/layout.rs` compares every size, offset and constant with the C headers of the machine.

#![allow(unsafe_code)]
#![allow(missing_docs)] // The names are those of the C headers, which document them.

use std::ffi::{c_char, c_int, c_void};

use libc::{sockaddr, sockaddr_storage, socklen_t};

/// `struct RedsState`, opaque.
#[repr(C)]
pub struct SpiceServer {
    _opaque: [u8; 0],
}

/// Opaque to the library: ours.
#[repr(C)]
pub struct SpiceTimer {
    _opaque: [u8; 0],
}

/// Opaque to the library: ours.
#[repr(C)]
pub struct SpiceWatch {
    _opaque: [u8; 0],
}

/// The library's state of a character device, opaque.
#[repr(C)]
pub struct SpiceCharDeviceState {
    _opaque: [u8; 0],
}

pub type SpiceTimerFunc = unsafe extern "C" fn(opaque: *mut c_void);
pub type SpiceWatchFunc = unsafe extern "C" fn(fd: c_int, event: c_int, opaque: *mut c_void);

pub const SPICE_WATCH_EVENT_READ: c_int = 1;
pub const SPICE_WATCH_EVENT_WRITE: c_int = 2;

pub const SPICE_CHANNEL_EVENT_CONNECTED: c_int = 1;
pub const SPICE_CHANNEL_EVENT_INITIALIZED: c_int = 2;
pub const SPICE_CHANNEL_EVENT_DISCONNECTED: c_int = 3;

pub const SPICE_INTERFACE_CORE_MAJOR: u32 = 1;
pub const SPICE_INTERFACE_CORE_MINOR: u32 = 3;
pub const SPICE_INTERFACE_CHAR_DEVICE_MAJOR: u32 = 1;
pub const SPICE_INTERFACE_CHAR_DEVICE_MINOR: u32 = 3;

/// From `spice/protocol.h`.
pub const SPICE_PORT_EVENT_OPENED: u8 = 0;
pub const SPICE_PORT_EVENT_CLOSED: u8 = 1;
/// `SPICE_MAX_PASSWORD_LENGTH` of `spice/protocol.h`.
pub const SPICE_MAX_PASSWORD_LENGTH: usize = 60;

#[repr(C)]
pub struct SpiceBaseInterface {
    pub type_: *const c_char,
    pub description: *const c_char,
    pub major_version: u32,
    pub minor_version: u32,
}

#[repr(C)]
pub struct SpiceBaseInstance {
    pub sif: *const SpiceBaseInterface,
}

#[repr(C)]
pub struct SpiceChannelEventInfo {
    pub connection_id: c_int,
    pub type_: c_int,
    pub id: c_int,
    pub flags: c_int,
    pub laddr: sockaddr,
    pub paddr: sockaddr,
    pub llen: socklen_t,
    pub plen: socklen_t,
    pub laddr_ext: sockaddr_storage,
    pub paddr_ext: sockaddr_storage,
    pub llen_ext: socklen_t,
    pub plen_ext: socklen_t,
}

#[repr(C)]
pub struct SpiceCoreInterface {
    pub base: SpiceBaseInterface,
    pub timer_add: unsafe extern "C" fn(SpiceTimerFunc, *mut c_void) -> *mut SpiceTimer,
    pub timer_start: unsafe extern "C" fn(*mut SpiceTimer, u32),
    pub timer_cancel: unsafe extern "C" fn(*mut SpiceTimer),
    pub timer_remove: unsafe extern "C" fn(*mut SpiceTimer),
    pub watch_add: unsafe extern "C" fn(c_int, c_int, SpiceWatchFunc, *mut c_void) -> *mut SpiceWatch,
    pub watch_update_mask: unsafe extern "C" fn(*mut SpiceWatch, c_int),
    pub watch_remove: unsafe extern "C" fn(*mut SpiceWatch),
    pub channel_event: unsafe extern "C" fn(c_int, *mut SpiceChannelEventInfo),
}

#[repr(C)]
pub struct SpiceCharDeviceInterface {
    pub base: SpiceBaseInterface,
    pub state: unsafe extern "C" fn(*mut SpiceCharDeviceInstance, c_int),
    pub write: unsafe extern "C" fn(*mut SpiceCharDeviceInstance, *const u8, c_int) -> c_int,
    pub read: unsafe extern "C" fn(*mut SpiceCharDeviceInstance, *mut u8, c_int) -> c_int,
    pub event: Option<unsafe extern "C" fn(*mut SpiceCharDeviceInstance, u8)>,
    pub flags: c_int,
}

#[repr(C)]
pub struct SpiceCharDeviceInstance {
    pub base: SpiceBaseInstance,
    pub subtype: *const c_char,
    pub st: *mut SpiceCharDeviceState,
    pub portname: *const c_char,
}

/// `GLogFunc`.
pub type GLogFunc =
    unsafe extern "C" fn(domain: *const c_char, level: c_int, message: *const c_char, user: *mut c_void);

/// Levels of `GLogLevelFlags`.
pub const G_LOG_LEVEL_ERROR: c_int = 4;
pub const G_LOG_LEVEL_CRITICAL: c_int = 8;
pub const G_LOG_LEVEL_WARNING: c_int = 16;

unsafe extern "C" {
    pub fn spice_server_new() -> *mut SpiceServer;
    pub fn spice_server_init(s: *mut SpiceServer, core: *mut SpiceCoreInterface) -> c_int;
    pub fn spice_server_destroy(s: *mut SpiceServer);
    pub fn spice_server_set_listen_socket_fd(s: *mut SpiceServer, listen_fd: c_int) -> c_int;
    pub fn spice_server_set_noauth(s: *mut SpiceServer) -> c_int;
    pub fn spice_server_set_ticket(
        s: *mut SpiceServer,
        passwd: *const c_char,
        lifetime: c_int,
        fail_if_connected: c_int,
        disconnect_if_connected: c_int,
    ) -> c_int;
    pub fn spice_server_set_name(s: *mut SpiceServer, name: *const c_char);
    pub fn spice_server_add_interface(s: *mut SpiceServer, sin: *mut SpiceBaseInstance) -> c_int;
    pub fn spice_server_remove_interface(sin: *mut SpiceBaseInstance) -> c_int;
    pub fn spice_server_vm_start(s: *mut SpiceServer);
    pub fn spice_server_port_event(sin: *mut SpiceCharDeviceInstance, event: u8);
    pub fn spice_server_char_device_wakeup(sin: *mut SpiceCharDeviceInstance);
    pub fn g_log_set_default_handler(func: GLogFunc, user: *mut c_void) -> Option<GLogFunc>;
}
