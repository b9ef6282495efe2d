//! The stream port: a Unix socket, or a virtio serial port's device in a virtual machine. Never blocks.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::fs::OFlags;
use spice::stream_device::PORT_NAME;

/// How often a port that is not there is tried again.
const RETRY: Duration = Duration::from_millis(50);

/// What came from the port.
pub(crate) enum Came<'a> {
    /// Bytes, at least one.
    Bytes(&'a [u8]),
    /// Nothing at present.
    Nothing,
    /// A device that no host has open: it is "ready" all the time, so it must not be polled.
    Unattended,
}

/// An open port.
pub(crate) enum Port {
    /// Socket: its end is the end of the host.
    Socket(UnixStream),
    /// Device: reads nothing while no host has it open.
    Device(File),
}

impl Port {
    /// Opens `unix:PATH`, `virtio` or a device path; tries again until `timeout` while it is not there.
    pub(crate) fn open(name: &str, timeout: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + timeout;
        loop {
            let error = match Self::try_open(name) {
                Ok(port) => return Ok(port),
                Err(error) => error,
            };
            let may_come = matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::WouldBlock
            );
            if !may_come || Instant::now() >= deadline {
                let remedy = match error.kind() {
                    ErrorKind::NotFound if name == "virtio" => {
                        "is the machine started with a virtserialport of that name?"
                    }
                    ErrorKind::NotFound | ErrorKind::ConnectionRefused => "is triptych-host running there?",
                    _ => "may this user open it?",
                };
                return Err(error).with_context(|| format!("port {name} cannot be opened ({remedy})"));
            }
            std::thread::sleep(RETRY);
        }
    }

    fn try_open(name: &str) -> io::Result<Self> {
        if let Some(path) = name.strip_prefix("unix:") {
            let socket = UnixStream::connect(path)?;
            socket.set_nonblocking(true)?;
            return Ok(Self::Socket(socket));
        }
        let path =
            if name == "virtio" { find_virtio(Path::new("/sys/class/virtio-ports"))? } else { name.into() };
        let flags = OFlags::NONBLOCK.bits() as i32;
        Ok(Self::Device(OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?))
    }

    /// Reads what is there.
    pub(crate) fn read<'a>(&mut self, buffer: &'a mut [u8]) -> anyhow::Result<Came<'a>> {
        let (result, is_socket) = match self {
            Self::Socket(socket) => (socket.read(buffer), true),
            Self::Device(device) => (device.read(buffer), false),
        };
        match result {
            Ok(0) if is_socket => bail!("the host closed the stream port"),
            Ok(0) => Ok(Came::Unattended),
            Ok(n) => Ok(Came::Bytes(&buffer[..n])),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(Came::Nothing),
            Err(e) if e.kind() == ErrorKind::ConnectionReset => bail!("the host closed the stream port"),
            Err(e) => Err(e).context("stream port cannot be read"),
        }
    }

    /// Writes what goes: `None` when the port is blocked.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        let result = match self {
            Self::Socket(socket) => socket.write(bytes),
            Self::Device(device) => device.write(bytes),
        };
        match result {
            Ok(n) => Ok(Some(n)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(None),
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                bail!("the host closed the stream port")
            }
            Err(e) => Err(e).context("stream port cannot be written"),
        }
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Socket(socket) => socket.as_fd(),
            Self::Device(device) => device.as_fd(),
        }
    }
}

/// The device of the port that is named [`PORT_NAME`]: without udev there is no link to it below `/dev/virtio-ports`.
fn find_virtio(class: &Path) -> io::Result<PathBuf> {
    let none = || io::Error::new(ErrorKind::NotFound, format!("no virtio port is named {PORT_NAME}"));
    for entry in std::fs::read_dir(class).map_err(|_| none())? {
        let entry = entry?;
        let name = std::fs::read_to_string(entry.path().join("name")).unwrap_or_default();
        if name.trim_end() == PORT_NAME {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_virtio_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        for (device, name) in
            [("vport0p1", "com.redhat.spice.0\n"), ("vport1p3", "org.spice-space.stream.0\n")]
        {
            std::fs::create_dir(class.path().join(device)).unwrap();
            std::fs::write(class.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find_virtio(class.path()).unwrap(), Path::new("/dev/vport1p3"));
        assert!(find_virtio(&class.path().join("absent")).is_err());
    }

    #[test]
    fn a_port_that_is_not_there_says_who_should_be() {
        let error = Port::open("unix:/nonexistent/stream.sock", Duration::ZERO).err().unwrap();
        assert!(format!("{error:#}").contains("is triptych-host running"), "{error:#}");
    }
}
