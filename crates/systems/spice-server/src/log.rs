//! The library logs through GLib; its lines go to `tracing`, so that stderr has one format and one filter.

#![allow(unsafe_code)]

use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::Once;

use crate::sys;

static INSTALL: Once = Once::new();

/// Takes GLib's default log handler over, once.
pub(crate) fn install() {
    INSTALL.call_once(|| {
        // SAFETY: the handler is a static function without user data and may be called from any thread.
        unsafe { sys::g_log_set_default_handler(handle, std::ptr::null_mut()) };
    });
}

unsafe extern "C" fn handle(domain: *const c_char, level: c_int, message: *const c_char, _user: *mut c_void) {
    let text = |p: *const c_char| {
        // SAFETY: GLib passes null or a string that ends with NUL and lives for the call.
        if p.is_null() { "".into() } else { unsafe { CStr::from_ptr(p) }.to_string_lossy() }
    };
    let (domain, message) = (text(domain), text(message));
    if level & (sys::G_LOG_LEVEL_ERROR | sys::G_LOG_LEVEL_CRITICAL) != 0 {
        tracing::error!(target: "libspice_server", "{domain}: {message}");
    } else if level & sys::G_LOG_LEVEL_WARNING != 0 {
        // A client that goes away or a guest that sends nonsense is a "warning" of the library; the host says it better.
        tracing::info!(target: "libspice_server", "{domain}: {message}");
    } else {
        tracing::debug!(target: "libspice_server", "{domain}: {message}");
    }
}
