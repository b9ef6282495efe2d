//! What can go wrong, with the remedy.

use std::fmt;
use std::io;

use crate::conditions::ConditionsError;
use crate::{Direction, Side};

/// Why there is no emulator, or why one could not do something.
#[derive(Debug, thiserror::Error)]
pub enum NetemError {
    /// A condition is out of its range.
    #[error("the conditions of the direction {0} cannot be")]
    Conditions(Direction, #[source] ConditionsError),
    /// The machine does not allow what the packet level needs. The relay ([`crate::relay`]) needs none of it.
    #[error("{0}")]
    Refused(Step, #[source] io::Error),
    /// The process that holds the namespaces could not be started, or is gone.
    #[error("the process that holds the namespaces failed")]
    Watcher(#[source] io::Error),
    /// A thread could not be started.
    #[error("a thread of the emulator could not be started")]
    Thread(#[source] io::Error),
    /// A command could not be started inside.
    #[error("{program} could not be started on side {side}")]
    Spawn {
        /// The side.
        side: Side,
        /// The program.
        program: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A socket could not be made, bound or connected.
    #[error("no socket on side {0}")]
    Socket(Side, #[source] io::Error),
    /// The relay could not listen.
    #[error("the relay could not listen on a port of loopback")]
    Listen(#[source] io::Error),
}

impl NetemError {
    /// Whether the machine refuses namespaces or TUN devices, so that only the relay can be had.
    pub fn is_refused(&self) -> bool {
        matches!(self, Self::Refused(..))
    }
}

/// The steps to two joined namespaces that a machine may refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    /// unshare(2) of a user namespace, which takes the place of root's rights.
    UserNamespace = 1,
    /// Writing the user's own number into the new user namespace.
    IdMap,
    /// unshare(2) of a network namespace.
    NetworkNamespace,
    /// Opening `/dev/net/tun`.
    OpenTun,
    /// Making a TUN device.
    MakeTun,
    /// Addresses, MTU and the device's queue.
    Address,
}

impl Step {
    const ALL: [Self; 6] = [
        Self::UserNamespace,
        Self::IdMap,
        Self::NetworkNamespace,
        Self::OpenTun,
        Self::MakeTun,
        Self::Address,
    ];

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == number)
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UserNamespace => {
                "this user may not make a user namespace: run as root, or allow it (sysctl user.max_user_namespaces, \
                 kernel.unprivileged_userns_clone; in a container, its seccomp profile)"
            }
            Self::IdMap => {
                "this user has no rights in a user namespace of its own: run as root, or allow it (on Ubuntu, sysctl \
                 kernel.apparmor_restrict_unprivileged_userns=0)"
            }
            Self::NetworkNamespace => {
                "no network namespace can be made: run as root, or allow it (sysctl user.max_net_namespaces; on \
                 Ubuntu kernel.apparmor_restrict_unprivileged_userns=0; in a container, CAP_SYS_ADMIN)"
            }
            Self::OpenTun => {
                "/dev/net/tun cannot be opened: load the module tun and let this user read and write the device (in a \
                 container, --device /dev/net/tun)"
            }
            Self::MakeTun => "no TUN device can be made: the container must allow CAP_NET_ADMIN in its namespaces",
            Self::Address => "the TUN device takes no address: the kernel must have IPv4 (CONFIG_INET)",
        })
    }
}
