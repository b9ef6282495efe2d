//! The hand-written declarations against the C headers of this machine.

#![allow(clippy::unwrap_used)] // A test that cannot go on should panic.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};
use std::process::Command;

use spice_server::sys;

macro_rules! layouts {
    ($c:ident, $rust:ident; $($type:ident { $($field:ident = $c_field:literal),* $(,)? })*) => {
        $($c.push_str(&format!("P(\"{0}\", sizeof({0}))\n", stringify!($type)));
          $rust.insert(stringify!($type).to_owned(), size_of::<sys::$type>() as i64);
          $($c.push_str(&format!("P(\"{0}.{1}\", offsetof({0}, {1}))\n", stringify!($type), $c_field));
            $rust.insert(format!("{}.{}", stringify!($type), $c_field), offset_of!(sys::$type, $field) as i64);)*)*
    };
}

macro_rules! constants {
    ($c:ident, $rust:ident; $($name:ident),* $(,)?) => {
        $($c.push_str(&format!("P(\"{0}\", {0})\n", stringify!($name)));
          $rust.insert(stringify!($name).to_owned(), i64::from(sys::$name as i32));)*
    };
}

fn c_says(body: &str) -> BTreeMap<String, i64> {
    let dir = tempfile::tempdir().unwrap();
    let (source, program) = (dir.path().join("layout.c"), dir.path().join("layout"));
    let text = format!(
        "#include <stddef.h>\n#include <stdio.h>\n#include <linux/tcp.h>\n#include <spice.h>\n#include <spice/protocol.h>\n\
         #include <glib.h>\n#define P(name, value) printf(\"%s %lld\\n\", name, (long long)(value));\n\
         int main(void) {{\n{body}return 0; }}\n"
    );
    std::fs::write(&source, text).unwrap();
    let flags = Command::new("pkg-config").args(["--cflags", "spice-server", "glib-2.0"]).output().unwrap();
    assert!(flags.status.success(), "pkg-config: {}", String::from_utf8_lossy(&flags.stderr));
    let flags = String::from_utf8(flags.stdout).unwrap();
    let built = Command::new("cc")
        .args(flags.split_whitespace())
        .args(["-Wno-deprecated-declarations", "-o"])
        .arg(&program)
        .arg(&source)
        .output()
        .unwrap();
    assert!(built.status.success(), "cc: {}", String::from_utf8_lossy(&built.stderr));
    let out = String::from_utf8(Command::new(&program).output().unwrap().stdout).unwrap();
    let pairs = out.lines().map(|l| l.split_once(' ').unwrap());
    pairs.map(|(name, value)| (name.to_owned(), value.parse().unwrap())).collect()
}

#[test]
fn declarations_equal_the_headers() {
    let (mut c, mut rust) = (String::new(), BTreeMap::new());
    layouts! { c, rust;
        SpiceBaseInterface { type_ = "type", description = "description", major_version = "major_version", minor_version = "minor_version" }
        SpiceBaseInstance { sif = "sif" }
        SpiceChannelEventInfo {
            connection_id = "connection_id", type_ = "type", id = "id", flags = "flags", laddr = "laddr", paddr = "paddr",
            llen = "llen", plen = "plen", laddr_ext = "laddr_ext", paddr_ext = "paddr_ext", llen_ext = "llen_ext", plen_ext = "plen_ext",
        }
        SpiceCoreInterface {
            base = "base", timer_add = "timer_add", timer_start = "timer_start", timer_cancel = "timer_cancel",
            timer_remove = "timer_remove", watch_add = "watch_add", watch_update_mask = "watch_update_mask",
            watch_remove = "watch_remove", channel_event = "channel_event",
        }
        SpiceCharDeviceInterface { base = "base", state = "state", write = "write", read = "read", event = "event", flags = "flags" }
        SpiceCharDeviceInstance { base = "base", subtype = "subtype", st = "st", portname = "portname" }
    }
    constants! { c, rust;
        SPICE_WATCH_EVENT_READ, SPICE_WATCH_EVENT_WRITE, SPICE_CHANNEL_EVENT_CONNECTED, SPICE_CHANNEL_EVENT_INITIALIZED,
        SPICE_CHANNEL_EVENT_DISCONNECTED, SPICE_INTERFACE_CORE_MAJOR, SPICE_INTERFACE_CORE_MINOR,
        SPICE_INTERFACE_CHAR_DEVICE_MAJOR, SPICE_INTERFACE_CHAR_DEVICE_MINOR, SPICE_PORT_EVENT_OPENED,
        SPICE_PORT_EVENT_CLOSED, SPICE_MAX_PASSWORD_LENGTH, G_LOG_LEVEL_ERROR, G_LOG_LEVEL_CRITICAL, G_LOG_LEVEL_WARNING,
    }
    for (name, ours) in [
        ("tcpi_bytes_sent", spice_server::TCPI_BYTES_SENT_OFFSET),
        ("tcpi_bytes_retrans", spice_server::TCPI_BYTES_RETRANS_OFFSET),
    ] {
        c.push_str(&format!("P(\"{name}\", offsetof(struct tcp_info, {name}))\n"));
        rust.insert(name.to_owned(), ours as i64);
    }
    let headers = c_says(&c);
    assert_eq!(headers.len(), rust.len());
    assert_eq!(headers, rust);
}
