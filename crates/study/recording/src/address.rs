//! Where a collector listens, and the connection between it and an agent: a Unix socket, TCP, vsock, or, from within a
//! virtual machine without a network, a virtio-serial port whose other end QEMU connects to a collector's Unix socket.

use std::ffi::OsString;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};
use thiserror::Error;
use vsock::{VsockAddr, VsockStream};

/// Where udev puts the ports of a guest by name, and where the kernel tells their names.
const PORTS: (&str, &str) = ("/dev/virtio-ports", "/sys/class/virtio-ports");
/// How long a TCP connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// `unix:/path/of/socket`, `tcp:127.0.0.1:4000`, `vsock:2:4000` or `port:/dev/virtio-ports/NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix stream socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(SocketAddr),
    /// A vsock port: context id (2 is the host, 1 this machine, `u32::MAX` any) and port.
    Vsock(u32, u32),
    /// A virtio-serial port within a guest; only to connect from. `/dev/virtio-ports/NAME` needs no udev.
    Port(PathBuf),
}

/// Not an address.
#[derive(Debug, Error, PartialEq, Eq)]
#[error(
    "'{0}' is no collector's address: write unix:/path/of/socket, tcp:127.0.0.1:4000, vsock:2:4000 or \
     port:/dev/virtio-ports/NAME"
)]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = || AddressError(text.to_owned());
        match text.split_once(':') {
            Some(("unix", path)) if !path.is_empty() => Ok(Self::Unix(path.into())),
            Some(("tcp", address)) => address.parse().map(Self::Tcp).map_err(|_| wrong()),
            Some(("vsock", address)) => {
                let (cid, port) = address.split_once(':').ok_or_else(wrong)?;
                Ok(Self::Vsock(cid.parse().map_err(|_| wrong())?, port.parse().map_err(|_| wrong())?))
            }
            Some(("port", path)) if !path.is_empty() => Ok(Self::Port(path.into())),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
            Self::Vsock(cid, port) => write!(f, "vsock:{cid}:{port}"),
            Self::Port(path) => write!(f, "port:{}", path.display()),
        }
    }
}

impl Address {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub fn connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            Self::Tcp(address) => {
                let stream = TcpStream::connect_timeout(address, CONNECT)?;
                stream.set_nodelay(true)?;
                Stream::Tcp(stream)
            }
            Self::Vsock(cid, port) => Stream::Vsock(VsockStream::connect(&VsockAddr::new(*cid, *port))?),
            Self::Port(path) => {
                let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
                let mut options = File::options();
                options.read(true).write(true).custom_flags(nonblocking);
                let file = match options.open(path) {
                    Err(error) if error.kind() == ErrorKind::NotFound => {
                        let device = port_device(path, Path::new(PORTS.1)).ok_or(error)?;
                        options.open(Path::new("/dev").join(device))?
                    }
                    opened => opened?,
                };
                Stream::Port(Port { file, read_timeout: None, write_timeout: None })
            }
        })
    }

    /// True when other machines can reach it: a collector there needs a token. A vsock port is reached by the guests
    /// of this machine.
    pub fn is_wide(&self) -> bool {
        match self {
            Self::Unix(_) | Self::Port(_) => false,
            Self::Tcp(address) => !address.ip().is_loopback(),
            Self::Vsock(cid, _) => *cid != vsock::VMADDR_CID_LOCAL,
        }
    }
}

/// The device of `/dev/virtio-ports/NAME` (`vport0p1`) where no udev makes that link, as in a small initial file system.
fn port_device(link: &Path, ports: &Path) -> Option<OsString> {
    let wanted = link.strip_prefix(PORTS.0).ok()?.to_str()?;
    let named = |port: &fs::DirEntry| {
        fs::read_to_string(port.path().join("name")).is_ok_and(|name| name.trim_end() == wanted)
    };
    fs::read_dir(ports).ok()?.flatten().find(named).map(|port| port.file_name())
}

/// A connection between an agent and a collector.
#[derive(Debug)]
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
    /// Over vsock.
    Vsock(VsockStream),
    /// Through a virtio-serial port.
    Port(Port),
}

/// A virtio-serial port: a character device, without timeouts of its own.
#[derive(Debug)]
pub struct Port {
    file: File,
    read_timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Port {
    fn wait(&self, flags: PollFlags, timeout: Option<Duration>) -> io::Result<()> {
        let timeout =
            timeout.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: t.subsec_nanos().into() });
        let mut fds = [PollFd::new(&self.file, flags)];
        match rustix::event::poll(&mut fds, timeout.as_ref())? {
            0 => Err(ErrorKind::WouldBlock.into()),
            // Nobody holds the other end; a read would say so as well, a write would wait for ever.
            _ if flags.contains(PollFlags::OUT) && fds[0].revents().contains(PollFlags::HUP) => {
                Err(ErrorKind::BrokenPipe.into())
            }
            _ => Ok(()),
        }
    }
}

macro_rules! each {
    ($self:ident, $s:ident => $call:expr, $p:ident => $port:expr) => {
        match $self {
            Self::Unix($s) => $call,
            Self::Tcp($s) => $call,
            Self::Vsock($s) => $call,
            Self::Port($p) => $port,
        }
    };
}

impl Stream {
    /// Another handle on the same connection.
    ///
    /// # Errors
    /// No more file descriptors.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Unix(s) => Self::Unix(s.try_clone()?),
            Self::Tcp(s) => Self::Tcp(s.try_clone()?),
            Self::Vsock(s) => Self::Vsock(s.try_clone()?),
            Self::Port(p) => {
                let (read_timeout, write_timeout) = (p.read_timeout, p.write_timeout);
                Self::Port(Port { file: p.file.try_clone()?, read_timeout, write_timeout })
            }
        })
    }

    /// How long a read waits; `None` for ever.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn set_read_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        each!(self, s => s.set_read_timeout(timeout), p => {
            p.read_timeout = timeout;
            Ok(())
        })
    }

    /// How long a write waits; `None` for ever.
    ///
    /// # Errors
    /// The duration is zero.
    pub fn set_write_timeout(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        each!(self, s => s.set_write_timeout(timeout), p => {
            p.write_timeout = timeout;
            Ok(())
        })
    }

    /// Whether reads and writes come back at once; timeouts mean nothing then.
    ///
    /// # Errors
    /// The descriptor is broken.
    pub fn set_nonblocking(&mut self, nonblocking: bool) -> io::Result<()> {
        each!(self, s => s.set_nonblocking(nonblocking), p => {
            let timeout = nonblocking.then_some(Duration::ZERO);
            (p.read_timeout, p.write_timeout) = (timeout, timeout);
            Ok(())
        })
    }

    /// Ends the connection in both directions; it may have ended already. A port ends when it is dropped.
    pub fn shutdown(&self) {
        let _ = each!(self, s => s.shutdown(Shutdown::Both), _p => Ok(()));
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        each!(self, s => s.read(buffer), p => {
            p.wait(PollFlags::IN, p.read_timeout)?;
            p.file.read(buffer)
        })
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        each!(self, s => s.write(bytes), p => {
            p.wait(PollFlags::OUT, p.write_timeout)?;
            p.file.write(bytes)
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        each!(self, s => s.flush(), p => p.file.flush())
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        each!(self, s => s.as_fd(), p => p.file.as_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_survive_display_and_parse() {
        for text in [
            "unix:/run/x.sock",
            "tcp:127.0.0.1:4000",
            "tcp:[::1]:1",
            "vsock:2:4000",
            "port:/dev/virtio-ports/x",
        ] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_port_is_found_by_its_name_without_udev() {
        let ports = tempfile::tempdir().unwrap();
        for (device, name) in [("vport0p1", "org.x.a"), ("vport0p2", "org.x.agent")] {
            fs::create_dir(ports.path().join(device)).unwrap();
            fs::write(ports.path().join(device).join("name"), format!("{name}\n")).unwrap();
        }
        for (link, device) in [
            ("/dev/virtio-ports/org.x.agent", Some("vport0p2")),
            ("/dev/virtio-ports/org.x", None),
            ("/dev/other", None),
        ] {
            let found = port_device(Path::new(link), ports.path());
            assert_eq!(found.as_deref(), device.map(AsRef::as_ref), "{link}");
        }
    }

    #[test]
    fn other_words_are_refused_with_both_forms() {
        for text in ["", "unix:", "tcp:4000", "http://x", "127.0.0.1:3", "vsock:2", "vsock:x:1", "port:"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains("unix:/path") && error.contains("tcp:127"), "{error}");
        }
    }
}
