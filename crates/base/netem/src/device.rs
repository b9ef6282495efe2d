//! Devices of one network namespace, made by ioctl(2) so that no program needs to be installed.
//!
//! Everything here runs in a process that was forked from one with threads: it allocates nothing and takes no lock.
//! Sources: netdevice(7), and the kernel's `Documentation/networking/tuntap.rst`.

#![allow(unsafe_code)] // ioctl(2) with `ifreq`, which no safe crate offers without allocating

use std::ffi::CStr;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::error::Step;

/// Largest IP packet, in bytes: that of Ethernet.
pub const MTU: u32 = 1_500;

/// Packets that the device keeps for us to read; with the default of 500 a burst of 6 ms at 1 Gbit/s is dropped.
const DEVICE_QUEUE: i32 = 10_000;

/// Name of the device, the same on both sides.
const TUN: &CStr = c"netem0";

type Failure = (Step, Errno);

/// Makes the calling thread's network namespace one side: `lo` and a TUN device from `own` to `peer`; gives the end
/// that packets are read from and written to. It does not block.
pub(crate) fn set_up(own: Ipv4Addr, peer: Ipv4Addr) -> Result<OwnedFd, Failure> {
    for file in [c"/proc/sys/net/ipv6/conf/all/disable_ipv6", c"/proc/sys/net/ipv6/conf/default/disable_ipv6"]
    {
        // Without IPv6 there are no router solicitations; where this is not allowed they are thrown away later.
        let _ = write_file(file, b"1");
    }
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let tun = rustix::fs::open(c"/dev/net/tun", flags, Mode::empty()).map_err(|e| (Step::OpenTun, e))?;
    let mut request = named(TUN);
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    control(&tun, libc::TUNSETIFF as libc::Ioctl, &mut request).map_err(|e| (Step::MakeTun, e))?;
    let address = |e| (Step::Address, e);
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(address)?;
    let settings = || -> Result<(), Errno> {
        bring_up(&socket, c"lo")?;
        control_address(&socket, libc::SIOCSIFADDR as libc::Ioctl, own)?;
        // The route to the other side comes with this; there is no other route.
        control_address(&socket, libc::SIOCSIFDSTADDR as libc::Ioctl, peer)?;
        control_address(&socket, libc::SIOCSIFNETMASK as libc::Ioctl, Ipv4Addr::BROADCAST)?;
        let mut request = named(TUN);
        request.ifr_ifru.ifru_mtu = MTU as libc::c_int;
        control(&socket, libc::SIOCSIFMTU as libc::Ioctl, &mut request)?;
        let mut request = named(TUN);
        // `ifr_qlen` shares its place with `ifr_metric` and is an int as well.
        request.ifr_ifru.ifru_metric = DEVICE_QUEUE;
        control(&socket, libc::SIOCSIFTXQLEN as libc::Ioctl, &mut request)?;
        bring_up(&socket, TUN)
    };
    settings().map_err(address)?;
    Ok(tun)
}

/// Writes a short file of `/proc` in one piece.
pub(crate) fn write_file(path: &CStr, text: &[u8]) -> Result<(), Errno> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text).map(drop)
}

fn named(name: &CStr) -> libc::ifreq {
    // SAFETY: `ifreq` is plain C data (an array and a union of plain C data), for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte is left for the end.
    for (to, from) in request.ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    request
}

fn control(fd: &OwnedFd, code: libc::Ioctl, request: &mut libc::ifreq) -> Result<(), Errno> {
    // SAFETY: every code passed here takes a pointer to `struct ifreq`, which `request` is for the time of the call.
    let answer = unsafe { libc::ioctl(fd.as_raw_fd(), code, std::ptr::from_mut(request)) };
    if answer == -1 { Err(last_errno()) } else { Ok(()) }
}

fn control_address(socket: &OwnedFd, code: libc::Ioctl, address: Ipv4Addr) -> Result<(), Errno> {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from(address).to_be() },
        sin_zero: [0; 8],
    };
    let mut request = named(TUN);
    // SAFETY: `sockaddr_in` is made to be passed as a `sockaddr`: same size, and `sa_family` first in both.
    request.ifr_ifru.ifru_addr = unsafe { std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address) };
    control(socket, code, &mut request)
}

fn bring_up(socket: &OwnedFd, name: &CStr) -> Result<(), Errno> {
    let mut request = named(name);
    control(socket, libc::SIOCGIFFLAGS as libc::Ioctl, &mut request)?;
    // SAFETY: the kernel has written the flags, and every bit pattern is a valid short.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    request.ifr_ifru.ifru_flags = flags | (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    control(socket, libc::SIOCSIFFLAGS as libc::Ioctl, &mut request)
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Packets that the device of one side dropped before they were read, from its `/proc/net/dev`.
pub(crate) fn dropped(net_dev: BorrowedFd<'_>) -> Option<u64> {
    let mut text = [0; 4_096];
    let length = rustix::io::read(net_dev, &mut text).ok()?;
    let text = std::str::from_utf8(&text[..length]).ok()?;
    let line =
        text.lines().find_map(|l| l.trim_start().strip_prefix(TUN.to_str().ok()?)?.strip_prefix(':'))?;
    // Eight columns of what was received, then bytes, packets, errors and drops of what was sent.
    line.split_whitespace().nth(11)?.parse().ok()
}
