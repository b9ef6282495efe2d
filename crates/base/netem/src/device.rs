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
const DEVICE_QUEUE: u32 = 10_000;

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
        bring_up(&socket, TUN)
    };
    settings().map_err(address)?;
    // Without it the device is as good, except in bursts, and what it drops is counted.
    let _ = lengthen_queue(&socket);
    Ok(tun)
}

/// Sets the length of the device's queue to [`DEVICE_QUEUE`].
///
/// Through rtnetlink(7), because the ioctl for it (`SIOCSIFTXQLEN`) wants root's rights outside the namespace.
fn lengthen_queue(socket: &OwnedFd) -> Result<(), Errno> {
    let mut request = named(TUN);
    control(socket, libc::SIOCGIFINDEX as libc::Ioctl, &mut request)?;
    // SAFETY: the kernel has written the index, and every bit pattern is a valid int.
    let index = unsafe { request.ifr_ifru.ifru_ifindex };
    // `struct nlmsghdr`, `struct ifinfomsg`, and one `struct rtattr` with its value (linux/netlink.h, linux/rtnetlink.h).
    let mut message = [0u8; 40];
    let mut rest = &mut message[..];
    let mut put = |bytes: &[u8]| {
        let (to, after) = std::mem::take(&mut rest).split_at_mut(bytes.len());
        to.copy_from_slice(bytes);
        rest = after;
    };
    put(&40u32.to_ne_bytes());
    put(&libc::RTM_NEWLINK.to_ne_bytes());
    put(&(libc::NLM_F_REQUEST as u16).to_ne_bytes());
    // Sequence and port stay 0; so do family and type of the link.
    put(&[0; 8 + 4]);
    put(&index.to_ne_bytes());
    // Flags and their mask: none change.
    put(&[0; 8]);
    put(&8u16.to_ne_bytes());
    put(&libc::IFLA_TXQLEN.to_ne_bytes());
    put(&DEVICE_QUEUE.to_ne_bytes());
    // The protocol is NETLINK_ROUTE, which is 0.
    let netlink =
        rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    // A netlink socket that is not connected sends to the kernel.
    rustix::net::send(&netlink, &message, rustix::net::SendFlags::empty()).map(drop)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Emulator, Options, Side};

    #[test]
    fn the_device_has_the_queue_and_size_that_it_was_given() {
        let emulator = match Emulator::start(Options::default()) {
            Err(error) if error.is_refused() => return eprintln!("skipped: {error}"),
            other => other.unwrap(),
        };
        let socket = OwnedFd::from(emulator.udp(Side::B, 0).unwrap());
        let mut request = named(TUN);
        control(&socket, libc::SIOCGIFTXQLEN as libc::Ioctl, &mut request).unwrap();
        // SAFETY: `ifr_qlen` shares its place with `ifr_metric`; the kernel has written an int.
        assert_eq!(unsafe { request.ifr_ifru.ifru_metric }, DEVICE_QUEUE as i32);
        control(&socket, libc::SIOCGIFMTU as libc::Ioctl, &mut request).unwrap();
        // SAFETY: the kernel has written an int.
        assert_eq!(unsafe { request.ifr_ifru.ifru_mtu }, MTU as i32);
    }
}
