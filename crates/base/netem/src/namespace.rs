//! Two network namespaces with a TUN device in each, and ways to get inside.
//!
//! Each namespace has `lo` and one device; the only route leads to the other side. Root makes them as they are; any
//! other user makes a user namespace first, in which it has the rights, and in which commands keep its number.

#![allow(unsafe_code)] // fork(2), and pre_exec, the only way into a namespace before a program starts

use std::ffi::c_int;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use nix::unistd::ForkResult;
use rustix::fs::{Mode, OFlags};
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType};
use rustix::process::{Pid, Signal, WaitOptions};
use rustix::thread::LinkNameSpaceType;

use crate::error::{NetemError, Step};
use crate::watcher::{self, MESSAGE_FDS, Start};
use crate::{Side, device};

/// The addresses of the two sides: from the range for carriers' own networks (RFC 6598). No other network is reachable
/// from inside, so that nothing can collide with them, also not a second emulator.
pub const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 64, 0, 1), Ipv4Addr::new(100, 64, 0, 2)];

/// Connections that may wait to be accepted.
const BACKLOG: c_int = 128;

/// The two namespaces. Dropping them kills every process inside and waits until it is gone.
pub(crate) struct Namespaces {
    doors: [Door; 2],
    control: Mutex<Option<OwnedFd>>,
    watcher: Pid,
    proc_dir: OwnedFd,
    starter: Option<(mpsc::Sender<Order>, JoinHandle<()>)>,
}

/// The way into one namespace.
#[derive(Clone)]
struct Door {
    user: Option<Arc<OwnedFd>>,
    net: Arc<OwnedFd>,
}

/// A command for the thread that starts commands, and where its answer goes.
struct Order {
    command: Command,
    answer: mpsc::SyncSender<io::Result<Child>>,
}

impl Namespaces {
    /// Makes the namespaces; gives them and the ends of the devices of side A and B.
    pub(crate) fn make() -> Result<(Self, [OwnedFd; 2]), NetemError> {
        let failed = |e: rustix::io::Errno| NetemError::Watcher(e.into());
        let (control, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc_dir = rustix::fs::open(c"/proc", flags, Mode::empty()).map_err(failed)?;
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let id_maps = [format!("{uid} {uid} 1"), format!("{gid} {gid} 1")];
        let start = Start {
            control: theirs.as_fd(),
            proc_dir: proc_dir.as_fd(),
            addresses: ADDRESSES,
            id_maps: [id_maps[0].as_bytes(), id_maps[1].as_bytes()],
            owner: rustix::process::getpid(),
        };
        // SAFETY: the child runs `watcher::run` and never returns; that module allocates nothing and takes no lock, so
        // that it does not matter what other threads held at the fork.
        let watcher = match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Child) => {
                watcher::run(&start);
                unreachable!("the watcher ends its process")
            }
            Ok(ForkResult::Parent { child }) => child,
            Err(errno) => return Err(NetemError::Watcher(errno.into())),
        };
        drop(theirs);
        let watcher = Pid::from_raw(watcher.as_raw())
            .ok_or_else(|| NetemError::Watcher(io::ErrorKind::InvalidData.into()))?;
        let reap = || while let Err(rustix::io::Errno::INTR) = wait(watcher) {};
        let mut fds = [const { None }; MESSAGE_FDS];
        let (step, errno) = match watcher::read_answer(control.as_fd(), &mut fds) {
            Ok(answer) => answer,
            Err(errno) => {
                drop(control);
                reap();
                return Err(failed(errno));
            }
        };
        let [Some(net_a), Some(net_b), Some(tun_a), Some(tun_b), user] = fds else {
            drop(control);
            reap();
            return Err(match Step::from_number(step) {
                Some(step) => NetemError::Refused(step, io::Error::from_raw_os_error(errno)),
                None => NetemError::Watcher(io::ErrorKind::InvalidData.into()),
            });
        };
        let user = user.map(Arc::new);
        let door = |net| Door { user: user.clone(), net: Arc::new(net) };
        let mut namespaces = Self {
            doors: [door(net_a), door(net_b)],
            control: Mutex::new(Some(control)),
            watcher,
            proc_dir,
            starter: None,
        };
        let (orders, received) = mpsc::channel();
        let thread = std::thread::Builder::new()
            .name("netem-start".into())
            .spawn(move || start_commands(&received))
            .map_err(NetemError::Thread)?;
        namespaces.starter = Some((orders, thread));
        Ok((namespaces, [tun_a, tun_b]))
    }

    /// Makes `command` start inside, whoever starts it.
    pub(crate) fn enter(&self, side: Side, command: &mut Command) {
        let door = self.doors[side as usize].clone();
        // SAFETY: the closure makes system calls only, on descriptors that it owns; it allocates nothing and takes no
        // lock.
        unsafe {
            command.pre_exec(move || {
                let enter = rustix::thread::move_into_link_name_space;
                if let Some(user) = &door.user {
                    enter(user.as_fd(), Some(LinkNameSpaceType::User))?;
                }
                enter(door.net.as_fd(), Some(LinkNameSpaceType::Network))?;
                Ok(())
            });
        }
    }

    /// Starts `command` inside, from a thread that lives as long as the namespaces.
    pub(crate) fn spawn(&self, side: Side, mut command: Command) -> Result<Child, NetemError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let failed = |source| NetemError::Spawn { side, program, source };
        self.enter(side, &mut command);
        // SAFETY: one async-signal-safe system call. It comes after the change of namespace, which would undo it
        // (prctl(2), PR_SET_PDEATHSIG).
        unsafe {
            command.pre_exec(|| Ok(rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        let (answer, answered) = mpsc::sync_channel(1);
        if let Some((orders, _)) = &self.starter {
            // If the thread were gone, so would be the answer.
            let _ = orders.send(Order { command, answer });
        }
        answered.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(failed)
    }

    /// A UDP socket of this process on one side, bound to a port; 0 takes a free one.
    pub(crate) fn udp(&self, side: Side, port: u16) -> Result<UdpSocket, NetemError> {
        let make = || {
            let socket = self.ask(side, watcher::ASK_UDP)?;
            rustix::net::bind(&socket, &SocketAddrV4::new(ADDRESSES[side as usize], port))?;
            Ok(socket.into())
        };
        make().map_err(|e| NetemError::Socket(side, e))
    }

    /// A listening TCP socket of this process on one side; port 0 takes a free one.
    pub(crate) fn tcp_listen(&self, side: Side, port: u16) -> Result<TcpListener, NetemError> {
        let make = || {
            let socket = self.ask(side, watcher::ASK_TCP)?;
            rustix::net::sockopt::set_socket_reuseaddr(&socket, true)?;
            rustix::net::bind(&socket, &SocketAddrV4::new(ADDRESSES[side as usize], port))?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(socket.into())
        };
        make().map_err(|e| NetemError::Socket(side, e))
    }

    /// A TCP connection of this process from one side to a port of the other.
    pub(crate) fn tcp_connect(&self, side: Side, port: u16) -> Result<TcpStream, NetemError> {
        let make = || {
            let socket = self.ask(side, watcher::ASK_TCP)?;
            rustix::net::connect(&socket, &SocketAddrV4::new(ADDRESSES[side.other() as usize], port))?;
            Ok(socket.into())
        };
        make().map_err(|e| NetemError::Socket(side, e))
    }

    /// Packets that the device of one side dropped before the emulator read them; `None` when it cannot be told.
    pub(crate) fn device_dropped(&self, side: Side) -> Option<u64> {
        device::dropped(self.ask(side, watcher::ASK_NET_DEV).ok()?.as_fd())
    }

    fn ask(&self, side: Side, kind: u8) -> io::Result<OwnedFd> {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(control) = control.as_ref() else { return Err(io::ErrorKind::BrokenPipe.into()) };
        rustix::net::send(control, &[side as u8, kind], SendFlags::NOSIGNAL)?;
        let mut fds = [const { None }; MESSAGE_FDS];
        let (_, errno) = watcher::read_answer(control.as_fd(), &mut fds)?;
        let [first, ..] = fds;
        first.ok_or_else(|| io::Error::from_raw_os_error(errno))
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        // The thread first: what it started is killed by its end, and nothing more is started.
        if let Some((orders, thread)) = self.starter.take() {
            drop(orders);
            let _ = thread.join();
        }
        self.control.lock().unwrap_or_else(PoisonError::into_inner).take();
        while let Err(rustix::io::Errno::INTR) = wait(self.watcher) {}
        // The watcher has done this, unless somebody killed it.
        let identity = |door: &Door| watcher::identity(door.net.as_fd());
        if let (Ok(a), Ok(b)) = (identity(&self.doors[0]), identity(&self.doors[1])) {
            watcher::end_all_inside(self.proc_dir.as_fd(), &[a, b], rustix::process::getpid());
        }
    }
}

fn wait(pid: Pid) -> Result<(), rustix::io::Errno> {
    rustix::process::waitpid(Some(pid), WaitOptions::empty()).map(drop)
}

fn start_commands(orders: &mpsc::Receiver<Order>) {
    while let Ok(Order { mut command, answer }) = orders.recv() {
        let child = command.spawn();
        // Whoever asked waits for the answer, or is gone, and then its child has nobody.
        if let Err(mpsc::SendError(Ok(mut child))) = answer.send(child) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
