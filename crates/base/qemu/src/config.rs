//! What a virtual machine is made of, and the command line that says so.

use std::ffi::OsString;
use std::path::PathBuf;

/// Name of the port in the guest (`/sys/class/virtio-ports/*/name`) and in SPICE.
pub(crate) const STREAM_PORT: &str = "org.spice-space.stream.0";

/// What is behind the guest's stream port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamPort {
    /// No such port.
    None,
    /// QEMU's own SPICE server (`-chardev spiceport`).
    Spice,
    /// A Unix socket on which somebody listens (`-chardev socket`).
    Socket(PathBuf),
}

/// A further virtio-serial port of the guest, which QEMU connects to a Unix socket as soon and as often as somebody
/// listens there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SerialPort {
    /// Name in the guest (`/sys/class/virtio-ports/*/name`); no comma in it.
    pub name: String,
    /// The socket.
    pub socket: PathBuf,
}

/// A virtual machine.
#[derive(Clone, Debug)]
pub struct Config {
    /// MiB of memory.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Kernel (`bzImage`).
    pub kernel: PathBuf,
    /// Initial file system.
    pub initrd: PathBuf,
    /// The kernel's command line, after the serial console.
    pub append: String,
    /// Whether QEMU serves SPICE, on a free port of loopback, without a ticket.
    pub spice: bool,
    /// What is behind the stream port.
    pub stream: StreamPort,
    /// Further ports.
    pub ports: Vec<SerialPort>,
    /// File that gets what the guest writes on its serial console, and QEMU's own messages.
    pub log: PathBuf,
}

impl Config {
    /// The arguments; `qmp` is a socket on which the caller listens.
    pub(crate) fn arguments(&self, qmp: &std::path::Path, spice_port: Option<u16>) -> Vec<OsString> {
        let mut all: Vec<OsString> = Vec::new();
        let mut add = |option: &str, value: OsString| all.extend([OsString::from(option), value]);
        add("-machine", "pc,accel=tcg".into());
        add("-cpu", "max".into());
        add("-smp", self.cpus.to_string().into());
        add("-m", self.memory_mib.to_string().into());
        add("-display", "none".into());
        add("-vga", "none".into());
        add("-kernel", self.kernel.clone().into());
        add("-initrd", self.initrd.clone().into());
        add("-append", format!("console=ttyS0 quiet panic=-1 {}", self.append).into());
        add("-qmp", path_option("unix:", qmp, ""));
        add("-chardev", path_option("file,id=serial,append=on,path=", &self.log, ""));
        add("-serial", "chardev:serial".into());
        add("-device", "virtio-serial-pci".into());
        if let Some(port) = spice_port {
            add("-spice", format!("addr=127.0.0.1,port={port},disable-ticketing=on").into());
        }
        let behind = match &self.stream {
            StreamPort::None => None,
            StreamPort::Spice => Some(format!("spiceport,id=stream,name={STREAM_PORT}").into()),
            StreamPort::Socket(path) => Some(path_option("socket,id=stream,path=", path, "")),
        };
        if let Some(chardev) = behind {
            add("-chardev", chardev);
            // The id is what makes QEMU tell when the guest opens the port (VSERPORT_CHANGE).
            add("-device", format!("virtserialport,id=stream-port,chardev=stream,name={STREAM_PORT}").into());
        }
        for (i, port) in self.ports.iter().enumerate() {
            add("-chardev", path_option(&format!("socket,id=port{i},reconnect=1,path="), &port.socket, ""));
            add(
                "-device",
                format!("virtserialport,id=port{i}-device,chardev=port{i},name={}", port.name).into(),
            );
        }
        // Nothing that was not named; a guest that reboots (a panic does) ends.
        all.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        all
    }
}

/// In QEMU's options a comma within a value is written twice.
fn path_option(before: &str, path: &std::path::Path, after: &str) -> OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = before.as_bytes().to_vec();
    for byte in path.as_os_str().as_bytes() {
        bytes.push(*byte);
        if *byte == b',' {
            bytes.push(b',');
        }
    }
    bytes.extend_from_slice(after.as_bytes());
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(stream: StreamPort) -> Config {
        Config {
            memory_mib: 256,
            cpus: 1,
            kernel: "k".into(),
            initrd: "i".into(),
            append: "x=1".into(),
            spice: true,
            stream,
            ports: vec![SerialPort { name: "org.triptych.agent".into(), socket: "c,1".into() }],
            log: "a,b.log".into(),
        }
    }

    #[track_caller]
    fn has(arguments: &[OsString], option: &str, value: &str) {
        assert!(
            arguments.windows(2).any(|w| w[0] == option && w[1] == value),
            "{option} {value}: {arguments:?}"
        );
    }

    #[test]
    fn the_stream_port_is_behind_what_was_named() {
        let spice = config(StreamPort::Spice).arguments(Path::new("q"), Some(5910));
        has(&spice, "-chardev", "spiceport,id=stream,name=org.spice-space.stream.0");
        has(&spice, "-spice", "addr=127.0.0.1,port=5910,disable-ticketing=on");
        let socket = config(StreamPort::Socket("s,1".into())).arguments(Path::new("q"), None);
        has(&socket, "-chardev", "socket,id=stream,path=s,,1");
        assert!(!socket.iter().any(|a| a == "-spice"));
        let none = config(StreamPort::None).arguments(Path::new("q"), None);
        assert!(!none.iter().any(|a| a.to_string_lossy().contains("stream-port")));
    }

    #[test]
    fn further_ports_are_connected_again_and_again() {
        let arguments = config(StreamPort::None).arguments(Path::new("q"), None);
        has(&arguments, "-chardev", "socket,id=port0,reconnect=1,path=c,,1");
        has(&arguments, "-device", "virtserialport,id=port0-device,chardev=port0,name=org.triptych.agent");
    }

    #[test]
    fn commas_in_paths_are_doubled() {
        has(
            &config(StreamPort::None).arguments(Path::new("q"), None),
            "-chardev",
            "file,id=serial,append=on,path=a,,b.log",
        );
    }
}
