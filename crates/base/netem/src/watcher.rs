//! The process that makes the namespaces, answers from inside, and ends everything in them.
//!
//! It is forked from the owner and runs no other program. It makes the two namespaces, sends their descriptors to the
//! owner, and then waits: for requests, which it answers with descriptors made inside, or for the end of the owner, by
//! whatever signal, which closes the connection. Then it kills every process that is still in the namespaces, also
//! those whose parents are gone; with the last descriptor the kernel takes namespaces and devices away.
//!
//! Forked from a process with threads: nothing here allocates, takes a lock or panics.

#![allow(unsafe_code)] // unshare(2), close_range(2), sigprocmask(2) and _exit(2) after a fork

use std::ffi::CStr;
use std::io::{IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd};

use rustix::fs::{AtFlags, Mode, OFlags, RawDir, SeekFrom};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use rustix::process::{Pid, PidfdFlags, Signal};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use crate::device;
use crate::error::Step;

/// Most descriptors in one message: two namespaces, two devices, and perhaps a user namespace.
pub(crate) const MESSAGE_FDS: usize = 5;

/// A message to the owner: the step that failed or 0, and the error number.
pub(crate) type Answer = [u8; 5];

/// What can be asked for: the side (0 or 1) and one of these.
pub(crate) const ASK_UDP: u8 = 0;
pub(crate) const ASK_TCP: u8 = 1;
pub(crate) const ASK_NET_DEV: u8 = 2;

/// How long processes may take to die; one that hangs in the kernel is left to the kernel.
const KILL_ROUNDS: u32 = 500;
const KILL_PAUSE_MS: i64 = 10;

/// What the forked process needs, made before the fork.
pub(crate) struct Start<'a> {
    pub(crate) control: BorrowedFd<'a>,
    pub(crate) proc_dir: BorrowedFd<'a>,
    pub(crate) addresses: [Ipv4Addr; 2],
    /// The lines of `uid_map` and `gid_map` of a user namespace in which the user is itself.
    pub(crate) id_maps: [&'a [u8]; 2],
    pub(crate) owner: Pid,
}

struct Made {
    user: Option<OwnedFd>,
    nets: [OwnedFd; 2],
    tuns: [OwnedFd; 2],
}

/// Ends the process when dropped: also a panic, which is a bug of ours, must not unwind into the owner's code.
struct Exit;

impl Drop for Exit {
    fn drop(&mut self) {
        // SAFETY: ends the process without running anything of the owner's, such as what it registered with atexit(3).
        unsafe { libc::_exit(0) }
    }
}

/// The forked process, from its beginning to its end. Does not return.
pub(crate) fn run(start: &Start<'_>) {
    let _exit = Exit;
    stand_apart(start);
    match make(start) {
        Err((step, errno)) => {
            let _ = answer(start.control, step as u8, errno.raw_os_error(), &[]);
        }
        Ok(made) => {
            let Made { user, nets, tuns } = made;
            let all = [nets[0].as_fd(), nets[1].as_fd(), tuns[0].as_fd(), tuns[1].as_fd()];
            let sent = match &user {
                None => answer(start.control, 0, 0, &all),
                Some(user) => {
                    let [a, b, c, d] = all;
                    answer(start.control, 0, 0, &[a, b, c, d, user.as_fd()])
                }
            };
            // The devices live as long as somebody has them open: the owner and nobody else.
            drop(tuns);
            if sent.is_ok() {
                serve(start.control, &nets);
            }
            if let (Ok(a), Ok(b)) = (identity(nets[0].as_fd()), identity(nets[1].as_fd())) {
                end_all_inside(start.proc_dir, &[a, b], start.owner);
            }
        }
    }
}

/// Lets go of the owner's terminal, signals and files.
fn stand_apart(start: &Start<'_>) {
    let _ = rustix::thread::set_name(c"netem-watch");
    let _ = rustix::process::setsid();
    let keep = [start.control.as_raw_fd(), start.proc_dir.as_raw_fd()];
    let (low, high) = (keep[0].min(keep[1]) as libc::c_uint, keep[0].max(keep[1]) as libc::c_uint);
    // SAFETY: the set is written by sigfillset before it is read; close_range closes files of this process only, which
    // after the fork are copies that nothing here uses, other than the two that are kept.
    unsafe {
        let mut signals = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(signals.as_mut_ptr());
        libc::sigprocmask(libc::SIG_BLOCK, signals.as_ptr(), std::ptr::null_mut());
        let close = |from: libc::c_uint, to: libc::c_uint| {
            if from <= to {
                libc::syscall(libc::SYS_close_range, from, to, 0);
            }
        };
        if low > 0 {
            close(0, low - 1);
        }
        close(low + 1, high.saturating_sub(1));
        close(high + 1, libc::c_uint::MAX);
    }
    // What is opened later must not become standard output, into which somebody might write.
    while let Ok(null) = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        && null.into_raw_fd() < libc::STDERR_FILENO
    {}
}

fn make(start: &Start<'_>) -> Result<Made, (Step, Errno)> {
    let [own, peer] = start.addresses;
    let user = match unshare(UnshareFlags::NEWNET) {
        Ok(()) => None,
        Err(Errno::PERM) => {
            unshare(UnshareFlags::NEWUSER).map_err(|e| (Step::UserNamespace, e))?;
            let [uid_map, gid_map] = start.id_maps;
            // Refused where the file does not exist, and then not needed either.
            let _ = device::write_file(c"/proc/self/setgroups", b"deny");
            device::write_file(c"/proc/self/uid_map", uid_map).map_err(|e| (Step::IdMap, e))?;
            device::write_file(c"/proc/self/gid_map", gid_map).map_err(|e| (Step::IdMap, e))?;
            unshare(UnshareFlags::NEWNET).map_err(|e| (Step::NetworkNamespace, e))?;
            Some(namespace(c"/proc/self/ns/user").map_err(|e| (Step::UserNamespace, e))?)
        }
        Err(e) => return Err((Step::NetworkNamespace, e)),
    };
    let net = || namespace(c"/proc/self/ns/net").map_err(|e| (Step::NetworkNamespace, e));
    let (net_a, tun_a) = (net()?, device::set_up(own, peer)?);
    unshare(UnshareFlags::NEWNET).map_err(|e| (Step::NetworkNamespace, e))?;
    let (net_b, tun_b) = (net()?, device::set_up(peer, own)?);
    Ok(Made { user, nets: [net_a, net_b], tuns: [tun_a, tun_b] })
}

fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: only the flags NEWNET and NEWUSER are passed, which leave the table of descriptors alone.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

fn namespace(path: &CStr) -> Result<OwnedFd, Errno> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}

/// Answers requests until the owner is gone.
fn serve(control: BorrowedFd<'_>, nets: &[OwnedFd; 2]) {
    loop {
        let mut request = [0; 2];
        match rustix::net::recv(control, &mut request, RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Ok((2, _)) => {}
            Ok(_) | Err(_) => return,
        }
        let [side, kind] = request;
        let sent = match inside(&nets[usize::from(side & 1)], kind) {
            Ok(fd) => answer(control, 0, 0, &[fd.as_fd()]),
            Err(errno) => answer(control, u8::MAX, errno.raw_os_error(), &[]),
        };
        if sent.is_err() {
            return;
        }
    }
}

/// Makes something in a namespace, to which it then belongs whoever uses it.
fn inside(net: &OwnedFd, kind: u8) -> Result<OwnedFd, Errno> {
    rustix::thread::move_into_link_name_space(net.as_fd(), Some(LinkNameSpaceType::Network))?;
    let socket = |kind| rustix::net::socket_with(AddressFamily::INET, kind, SocketFlags::CLOEXEC, None);
    match kind {
        ASK_UDP => socket(SocketType::DGRAM),
        ASK_TCP => socket(SocketType::STREAM),
        ASK_NET_DEV => {
            rustix::fs::open(c"/proc/self/net/dev", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        }
        _ => Err(Errno::INVAL),
    }
}

fn answer(control: BorrowedFd<'_>, step: u8, errno: i32, fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut text: Answer = [step, 0, 0, 0, 0];
    text[1..].copy_from_slice(&errno.to_ne_bytes());
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(fds));
    }
    rustix::net::sendmsg(control, &[IoSlice::new(&text)], &mut ancillary, SendFlags::NOSIGNAL).map(drop)
}

/// Reads an answer in the owner: the step that failed or 0, the error number, and the descriptors, filled in in order.
pub(crate) fn read_answer(
    control: BorrowedFd<'_>,
    fds: &mut [Option<OwnedFd>; MESSAGE_FDS],
) -> Result<(u8, i32), Errno> {
    let mut text: Answer = [0; 5];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MESSAGE_FDS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = loop {
        let mut parts = [IoSliceMut::new(&mut text)];
        match rustix::net::recvmsg(control, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            other => break other?,
        }
    };
    if received.bytes != text.len() {
        return Err(Errno::PIPE);
    }
    let mut places = fds.iter_mut();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(received) = message {
            received.zip(&mut places).for_each(|(fd, place)| *place = Some(fd));
        }
    }
    let [step, number @ ..] = text;
    Ok((step, i32::from_ne_bytes(number)))
}

/// What tells one namespace from all others that exist: device and inode of its descriptor (namespaces(7)).
pub(crate) type Identity = (u64, u64);

pub(crate) fn identity(namespace: BorrowedFd<'_>) -> Result<Identity, Errno> {
    rustix::fs::fstat(namespace).map(|s| (s.st_dev, s.st_ino))
}

/// Kills every process whose network namespace is one of `inside`, until there is none.
pub(crate) fn end_all_inside(proc_dir: BorrowedFd<'_>, inside: &[Identity; 2], owner: Pid) {
    for _ in 0..KILL_ROUNDS {
        if kill_inside(proc_dir, inside, owner) == 0 {
            return;
        }
        let pause = rustix::time::Timespec { tv_sec: 0, tv_nsec: KILL_PAUSE_MS * 1_000_000 };
        let _ = rustix::thread::nanosleep(&pause);
    }
}

/// One round; gives the number of processes found. The owner is never inside, and the caller may be.
fn kill_inside(proc_dir: BorrowedFd<'_>, inside: &[Identity; 2], owner: Pid) -> u32 {
    let own = rustix::process::getpid();
    let mut found = 0;
    if rustix::fs::seek(proc_dir, SeekFrom::Start(0)).is_err() {
        return 0;
    }
    let mut buffer = [MaybeUninit::uninit(); 4_096];
    let mut entries = RawDir::new(proc_dir, &mut buffer);
    while let Some(Ok(entry)) = entries.next() {
        let Some(pid) = number(entry.file_name()).and_then(Pid::from_raw) else { continue };
        if pid == own || pid == owner {
            continue;
        }
        // The descriptor comes first: if the number goes to another process in between, the signal does not.
        let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { continue };
        let mut path = [0u8; 32];
        let mut rest = &mut path[..];
        if write!(rest, "{}/ns/net\0", pid.as_raw_nonzero()).is_err() {
            continue;
        }
        let Ok(path) = CStr::from_bytes_until_nul(&path) else { continue };
        let Ok(stat) = rustix::fs::statat(proc_dir, path, AtFlags::empty()) else { continue };
        if inside.contains(&(stat.st_dev, stat.st_ino)) {
            found += 1;
            let _ = rustix::process::pidfd_send_signal(&process, Signal::KILL);
        }
    }
    found
}

fn number(name: &CStr) -> Option<i32> {
    name.to_str().ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?.parse().ok()
}
